/* plan.c: see plan.h. */
#include "plan.h"

#include "error.h"
#include "logger.h"

#include <stdio.h>

int64_t plan_parameters(const Config *config) {
    ParameterTable table;
    parameters_describe(&table, config);
    int64_t n = table.parameters;
    parameters_release(&table);
    return n;
}

/* The largest micro-batch whose plan fits into `bytes`. */
static int64_t largest_batch(ModelSpec spec, const Backend *backend, double bytes) {
    int64_t fits = 0;
    for (int64_t step = 1 << 16; step > 0; step /= 2) {
        spec.B = fits + step;
        if ((double)model_plan(&spec, backend).total <= bytes) fits += step;
    }
    return fits;
}

/* What a model may take of what is free: a device's libraries load their kernels later, and into the same memory. */
static double room(const Backend *backend) { return (backend->host_memory ? 1 : 0.95) * backend->free_memory(); }

static void print_count(const char *what, double count, const char *note) {
    char text[32];
    format_count(text, count);
    printf("%-21s %18s%s\n", what, text, note);
}

static void print_bytes(const char *what, double bytes) {
    char text[32];
    format_bytes(text, bytes);
    printf("%-21s %18s\n", what, text);
}

void plan_print(const ModelSpec *spec, const Backend *backend, int64_t grad_accum) {
    const Config *c = &spec->config;
    MemoryPlan plan = model_plan(spec, backend);
    double own = backend->own_memory(), free_bytes = room(backend);
    char text[32];
    print_count("parameters", (double)plan_parameters(c), "");
    print_count("  in the embedding", (double)(c->V * c->C), c->tie ? "   (and the head)" : "");
    print_count("  in matrix products", (double)config_matmul_parameters(c), "");
    print_count("FLOPs per token", config_flops_per_token(c, spec->T), "   (6N + 6 L NH HS T)");
    format_count(text, (double)(grad_accum * spec->B * spec->T));
    printf("tokens per step       %18s   (grad-accum %lld x batch %lld x seq-len %lld)\n", text, (long long)grad_accum, (long long)spec->B,
           (long long)spec->T);
    for (int i = 0; i < ARENAS; i++) print_bytes(arena_names[i], (double)plan.bytes[i]);
    if (own > 0) print_bytes("libraries", own);
    print_bytes("memory", (double)plan.total + own);
    print_bytes("cache for a token", 2.0 * (double)(c->L * c->NKV * c->HS) * (double)dtype_size(spec->dtype));
    format_bytes(text, free_bytes);
    printf("largest batch         %18lld   (fits into the %s that are free)\n", (long long)largest_batch(*spec, backend, free_bytes), text);
}

/* Memory is handed out before it exists, and then the system kills whoever uses too much: better refused here. */
void plan_check_memory(const ModelSpec *spec, const Backend *backend) {
    char needed[32], there[32], advice[64];
    double total = (double)model_plan(spec, backend).total, free_bytes = room(backend);
    if (total <= free_bytes) return;
    format_bytes(needed, total);
    format_bytes(there, free_bytes);
    int64_t fits = largest_batch(*spec, backend, free_bytes);
    if (spec->mode == MODEL_GENERATE) snprintf(advice, sizeof advice, "choose fewer --max-tokens or a smaller model");
    else if (fits > 0) snprintf(advice, sizeof advice, "--batch %lld fits", (long long)fits);
    else snprintf(advice, sizeof advice, "choose a smaller --seq-len or model");
    die("this takes %s of memory, but only %s are free; %s%s", needed, there, advice,
        spec->mode == MODEL_TRAIN ? " (--plan shows what each takes, --recompute and --head-chunks save some)" : "");
}
