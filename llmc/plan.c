/* plan.c: see plan.h. */
#include "plan.h"

#include "error.h"
#include "logger.h"
#include "plan_ranks.h"
#include "snapshot.h"

#include <stdio.h>

int64_t plan_parameters(const Config *config) {
    ParameterTable table;
    parameters_describe(&table, config);
    int64_t n = table.parameters;
    parameters_release(&table);
    return n;
}

/* The largest micro-batch whose plan fits into `bytes`; 0 if none does. A plan grows nearly as a line, and can be slow where libraries plan too. */
static int64_t largest_batch(ModelSpec spec, const Backend *backend, double bytes) {
    enum { MOST = 1 << 17, BY_LINE = 6 };
    int64_t fits = 0, too_large = MOST;
    double first = 0;
    spec.B = 1;
    for (int tries = 0; too_large - fits > 1; tries++) {
        double total = (double)model_plan(&spec, backend).total, slope = (total - first) / (double)(spec.B - 1);
        if (tries == 0) first = total;
        if (total <= bytes) fits = spec.B;
        else too_large = spec.B;
        double next = tries == 0 ? 9 : tries < BY_LINE ? 1 + (bytes - first) / slope : (double)(fits + too_large) / 2;
        spec.B = next > (double)fits ? next < (double)too_large ? (int64_t)next : too_large - 1 : fits + 1;
        if (spec.B <= fits) spec.B = fits + 1;
    }
    return fits;
}

/* What a model may take of what is free: a device's libraries load their kernels later, and into the same memory. */
static double room(const Backend *backend, double free_bytes) { return (backend->host_memory ? 1 : 0.95) * free_bytes; }

/* What a checkpoint's copy takes of the model's own memory. */
static double copy_beside(const ModelSpec *spec, const Backend *backend, bool copy) {
    return copy && backend->host_memory ? (double)snapshot_bytes(spec) : 0;
}

static void print_count(const char *what, double count, const char *note) {
    char text[32];
    format_count(text, count);
    printf("%-21s %18s%s\n", what, text, note);
}

static void print_bytes(const char *what, double bytes, const char *note) {
    char text[32];
    format_bytes(text, bytes);
    printf("%-21s %18s%s\n", what, text, note);
}

static void print_tokens(const ModelSpec *spec, const PlanSettings *settings, int64_t ranks) {
    const int64_t least = settings->grad_accum, most = settings->most_grad_accum;
    char text[32], of_ranks[32] = "", growing[96] = "", largest[32];
    format_count(text, (double)(ranks * least * spec->B * spec->T));
    if (ranks > 1) snprintf(of_ranks, sizeof of_ranks, "ranks %lld x ", (long long)ranks);
    format_count(largest, (double)(ranks * most * spec->B * spec->T));
    if (most > least) snprintf(growing, sizeof growing, "; up to %s at grad-accum %lld", largest, (long long)most);
    printf("tokens per step       %18s   (%sgrad-accum %lld x batch %lld x seq-len %lld%s)\n", text, of_ranks, (long long)least, (long long)spec->B,
           (long long)spec->T, growing);
}

/* ---- many ranks -------------------------------------------------------------------------------------------------------------- */

static void format_seconds(char text[32], double seconds) {
    if (seconds < 1e-3) snprintf(text, 32, "%.1f us", 1e6 * seconds);
    else if (seconds < 1) snprintf(text, 32, "%.2f ms", 1e3 * seconds);
    else snprintf(text, 32, "%.2f s", seconds);
}

static void print_traffic(const ModelSpec *spec) {
    RanksTraffic traffic = ranks_traffic(spec);
    char text[32], gradients[32], parameters[32];
    format_bytes(text, traffic.gradients + traffic.parameters + traffic.others);
    format_bytes(gradients, traffic.gradients);
    format_bytes(parameters, traffic.parameters);
    printf("sent in a step        %18s   (by each rank, and received; %lld collectives", text, (long long)traffic.collectives);
    if (spec->zero) printf(": gradients %s, parameters %s", gradients, parameters);
    printf(")\n");
}

static void print_times(const ModelSpec *spec, const PlanSettings *settings) {
    RanksTime time = ranks_time(spec, settings->grad_accum, settings->link, settings->matmul);
    char step[32], busy[32], exposed[32], embedding[32];
    format_seconds(step, time.step);
    format_seconds(busy, time.busy);
    format_seconds(exposed, time.exposed);
    format_seconds(embedding, time.exposed_embedding);
    printf("step of a rank alone  %18s   (FLOPs at %.6g TFLOP/s)\n", step, settings->matmul * 1e-12);
    printf("communication         %18s   (at %.6g GB/s, and %.0f us a collective)\n", busy, settings->link * 1e-9, 1e6 * LINK_LATENCY);
    printf("  hidden              %17.1f%%   (behind the last micro-step's backward%s)\n", 100 * (1 - time.exposed / time.busy),
           spec->zero ? " and the next forward" : "");
    printf("  exposed             %18s   (%s of it for the embeddings, %s%s)\n", exposed, embedding, spec->config.tie ? "tied to the head: " : "",
           spec->zero ? "last in backward, first in forward" : "with which backward is done last");
    printf("scaling efficiency    %17.1f%%   (against %lld times a rank alone)\n", 100 * time.efficiency, (long long)spec->ranks);
}

static void print_ranks(const ModelSpec *spec, const PlanSettings *settings) {
    print_traffic(spec);
    if (settings->link > 0 && settings->matmul > 0) print_times(spec, settings);
    else printf("with --link-speed and --matmul-speed: how much of that hides behind backward, and how a step scales\n");
}

/* ---- the table --------------------------------------------------------------------------------------------------------------- */

void plan_print(const ModelSpec *spec, const Backend *backend, const PlanSettings *settings) {
    const Config *c = &spec->config;
    const int64_t ranks = spec->ranks > 1 ? spec->ranks : 1;
    MemoryPlan plan = model_plan(spec, backend);
    double own = backend->own_memory(), free_bytes = room(backend, settings->memory > 0 ? settings->memory : backend->free_memory());
    double copy = copy_beside(spec, backend, settings->checkpoint_async);
    char text[32];
    print_count("parameters", (double)plan_parameters(c), "");
    print_count("  in the embedding", (double)(c->V * c->C), c->tie ? "   (and the head)" : "");
    print_count("  in matrix products", (double)config_matmul_parameters(c), "");
    print_count("FLOPs per token", config_flops_per_token(c, spec->T), "   (6N + 6 L NH HS T)");
    print_tokens(spec, settings, ranks);
    for (int i = 0; i < ARENAS; i++) print_bytes(arena_names[i], (double)plan.bytes[i], "");
    if (own > 0) print_bytes("libraries", own, "");
    print_bytes("memory", (double)plan.total + own, ranks > 1 ? "   (of each rank)" : "");
    if (settings->checkpoint_async)
        print_bytes("checkpoint's copy", (double)snapshot_bytes(spec), ranks > 1 ? "   (in host memory, of rank 0)" : "   (in host memory)");
    print_bytes("cache for a token", 2.0 * (double)(c->L * c->NKV * c->HS) * (double)dtype_size(spec->dtype), "");
    format_bytes(text, free_bytes);
    printf("largest batch         %18lld   (%s into %s%s, on %s)\n", (long long)largest_batch(*spec, backend, free_bytes - copy),
           copy > 0 ? "fits with the copy" : "fits", text, settings->memory > 0 ? "" : " that are free", backend->name);
    if (ranks > 1) print_ranks(spec, settings);
}

static void check_copy(const ModelSpec *spec, double free_bytes) {
    char needed[32], there[32];
    if ((double)snapshot_bytes(spec) <= free_bytes) return;
    format_bytes(needed, (double)snapshot_bytes(spec));
    format_bytes(there, free_bytes);
    die("the copy that checkpoints are written from takes %s of host memory, but only %s are free; --no-checkpoint-async does without it", needed,
        there);
}

/* Memory is handed out before it exists, and then the system kills whoever uses too much: better refused here. */
void plan_check_memory(const ModelSpec *spec, const Backend *backend, bool copy) {
    char needed[32], there[32], beside[80] = "", advice[64];
    double total = (double)model_plan(spec, backend).total, free_bytes = room(backend, backend->free_memory());
    double copied = copy_beside(spec, backend, copy);
    if (copy && !backend->host_memory) check_copy(spec, backend_find("cpu")->free_memory());
    if (total + copied <= free_bytes) return;
    format_bytes(needed, total + copied);
    format_bytes(there, free_bytes);
    int64_t fits = largest_batch(*spec, backend, free_bytes - copied);
    if (copied > 0) snprintf(beside, sizeof beside, ", with a copy for checkpoints (--no-checkpoint-async)");
    if (spec->mode == MODEL_GENERATE) snprintf(advice, sizeof advice, "choose fewer --max-tokens or a smaller model");
    else if (fits > 0) snprintf(advice, sizeof advice, "--batch %lld fits", (long long)fits);
    else snprintf(advice, sizeof advice, "choose a smaller --seq-len or model");
    die("this takes %s of memory%s, but only %s are free; %s%s", needed, beside, there, advice,
        spec->mode == MODEL_TRAIN ? " (--plan shows what each takes, --recompute and --head-chunks save some)" : "");
}
