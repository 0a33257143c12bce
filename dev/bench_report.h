/* bench_report.h: what bench.c measures, and how it says so, on the terminal and as JSON. For bench.c alone. */
#ifndef DEV_BENCH_REPORT_H
#define DEV_BENCH_REPORT_H

#include "llmc/error.h"
#include "llmc/json.h"
#include "llmc/logger.h"
#include "llmc/machine.h"
#include "llmc/model.h"
#include "llmc/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model;
    const Options *options;
    ModelSpec spec;
    AdamW adamw;
    int64_t grad_accum;
    bool graphs;
} Case;

enum { MOST_STEPS = 1000, FIRST_LOSSES = 3 };

/* Calls of an op in a step. seconds: without what launching and awaiting them takes. */
typedef struct { OpTime timed; double seconds; } Op;

typedef struct {
    int warm_up, steps;
    double median, least, most;                /* seconds of a step */
    double cpu;                                /* seconds of a step on all cores together, the mean */
    double losses[FIRST_LOSSES];               /* of the first steps, those to warm up included */
    double bandwidth, rate;                    /* bytes/s, FLOP/s: measured here, before and after */
    double wait;                               /* seconds of launching and awaiting an op that does nothing */
    double plan, memory, memory_before;        /* bytes: as planned; taken at most; of them taken before the model was made */
    Op ops[BACKEND_OPS];                       /* of one step more; the largest time above the floor first */
    int op_count;
    double floor, nominal_floor;               /* seconds of a step, at the rates measured, and at those that the design assumes (or 0) */
} Result;

static double above_floor(const Op *op) { return op->seconds - op->timed.floor; }

static double ops_seconds(const Result *r) {
    double sum = 0;
    for (int i = 0; i < r->op_count; i++) sum += r->ops[i].seconds;
    return sum;
}

static double tokens_per_step(const Case *c) { return (double)(c->grad_accum * c->spec.B * c->spec.T); }

/* FLOP/s of attention by what it must do: 4 B NH T^2 HS / 2 forward and 2.5 times that backward, which is its cost function. NULL: of both. */
static double attention_rate(const Result *r, const char *which) {
    double flops = 0, seconds = 0;
    for (int i = 0; i < r->op_count; i++) {
        const Op *op = &r->ops[i];
        const char *name = op->timed.name;
        bool forward = !strcmp(name, "attention_forward"), backward = !strcmp(name, "attention_backward");
        if (which ? strcmp(name, which) != 0 : !(forward || backward)) continue;
        flops += op->timed.flops;
        seconds += op->seconds;
    }
    return seconds > 0 ? flops / seconds : 0;
}

static void print_cpu(const Case *c, const Result *r) {
    char speed[32], planned[32], taken[32], flops_text[32];
    double tokens = tokens_per_step(c) / r->median, flops = config_flops_per_token(&c->spec.config, c->spec.T);
    format_count(speed, tokens);
    format_bytes(planned, r->plan);
    format_bytes(taken, r->memory);
    format_count(flops_text, flops);
    printf("%-15s B=%-3lld T=%-4lld %s | %8s tok/s | %11s FLOP/token | ceiling %6.1f GFLOP/s | share %5.1f%% | plan %s, peak %s (%.1f MiB before the model)\n",
           c->model, (long long)c->spec.B, (long long)c->spec.T, c->spec.dtype == BF16 ? "bf16" : "fp32", speed, flops_text, r->rate / 1e9,
           100 * tokens * flops / r->rate, planned, taken, r->memory_before / 1048576.0);
}

/* A choice of the command line or the preset, as --recompute, by its word. The caller frees it. */
static char *word_of(const char *option, int64_t chosen) { return option_choice_word(options_find(&train_options, option)->choices, chosen); }

/* Whether micro-steps are replayed as graphs. */
static bool has_graphs(const Case *c, const Backend *backend) { return c->graphs && backend->graph_begin; }

static void print_ops(const Result *r) {
    printf("%-27s %9s %10s %10s %10s %8s %9s %9s\n", "op", "calls", "ms", "floor", "above", "x floor", "GB/s", "GFLOP/s");
    for (int i = 0; i < r->op_count; i++) {
        const Op *op = &r->ops[i];
        const OpTime *t = &op->timed;
        printf("%-27s %9lld %10.2f %10.2f %10.2f ", t->name, t->calls, 1e3 * op->seconds, 1e3 * t->floor, 1e3 * above_floor(op));
        if (t->floor > 0) printf("%8.2f ", op->seconds / t->floor);
        else printf("%8s ", "-");   /* an op whose cost is not worth stating */
        printf("%9.1f %9.1f\n", op->seconds > 0 ? 1e-9 * t->bytes / op->seconds : 0.0, op->seconds > 0 ? 1e-9 * t->flops / op->seconds : 0.0);
    }
    printf("%-27s %9s %10.2f %10.2f %10.2f %8.2f   (%.1f%% of a step that counts)\n", "all ops", "", 1e3 * ops_seconds(r), 1e3 * r->floor,
           1e3 * (ops_seconds(r) - r->floor), ops_seconds(r) / r->floor, 100 * ops_seconds(r) / r->median);
}

static void print_gpu(const Case *c, const Result *r, const Backend *backend, const Card *card) {
    char speed[32], total[32], planned[32], taken[32], *recompute = word_of("recompute", c->options->recompute);
    double tokens = tokens_per_step(c) / r->median, flops = tokens * config_flops_per_token(&c->spec.config, c->spec.T);
    format_count(speed, tokens);
    format_count(total, tokens_per_step(c));
    format_bytes(planned, r->plan);
    format_bytes(taken, r->memory);
    printf("\n%s, %s, B=%lld T=%lld x %lld = %s tokens a step; %s, %s, recompute %s\n", c->model, c->spec.dtype == BF16 ? "bf16" : "fp32",
           (long long)c->spec.B, (long long)c->spec.T, (long long)c->grad_accum, total,
           c->options->deterministic ? "deterministic" : "not deterministic", has_graphs(c, backend) ? "graphs" : "no graphs", recompute);
    free(recompute);
    printf("  speed      %s tok/s: %.1f ms a step, the median of %d (%.1f to %.1f) after %d to warm up\n", speed, 1e3 * r->median, r->steps,
           1e3 * r->least, 1e3 * r->most, r->warm_up);
    printf("  MFU        ");
    if (card && c->spec.dtype == BF16)
        printf("%.1f%% of the published %.1f TFLOP/s (%s); ", 100 * flops / (1e12 * card->tera_flops), card->tera_flops, card->name);
    else printf("no published peak is known for this card and dtype; ");
    printf("%.1f%% of the %.1f TFLOP/s measured here\n", 100 * flops / r->rate, r->rate / 1e12);
    printf("  roofline   %.1f%%: at the least %.1f ms a step, at %.2f TB/s and %.1f TFLOP/s measured here", 100 * r->floor / r->median,
           1e3 * r->floor, r->bandwidth / 1e12, r->rate / 1e12);
    if (r->nominal_floor)
        printf("; %.1f%%: %.1f ms, at %.2f TB/s and %.1f TFLOP/s", 100 * r->nominal_floor / r->median, 1e3 * r->nominal_floor, card->tera_bytes_real,
               card->tera_flops_real);
    printf("\n  memory     %s, by plan %s\n", taken, planned);
    printf("  attention  forward %.1f TFLOP/s, backward %.1f, both %.1f\n", attention_rate(r, "attention_forward") / 1e12,
           attention_rate(r, "attention_backward") / 1e12, attention_rate(r, NULL) / 1e12);
    printf("  ops        of one step more, each awaited, less the %.1f us of every call that are launch and wait:\n", 1e6 * r->wait);
    print_ops(r);
    fflush(stdout);
}

/* From the backend's description, "..., NAME attention": whose kernels do the attentions that they can do. The caller frees it. */
static char *attention_library(const Backend *backend) {
    const char *begin = backend->describe(), *end = strstr(begin, " attention");
    for (const char *comma = begin; end && (comma = strstr(comma, ", ")) && comma < end;) begin = comma += 2;
    return end ? xprintf("%.*s", (int)(end - begin), begin) : xprintf("own");
}

static void append_flag(FILE *file, const char *key, bool value) { fprintf(file, ", \"%s\": %s", key, value ? "true" : "false"); }

/* How it was run. */
static void append_settings(FILE *file, const Case *c, const Backend *backend) {
    const Options *o = c->options;
    char *attention = attention_library(backend), *asked = word_of("attention", o->attention), *recompute = word_of("recompute", o->recompute);
    char *residual = word_of("residual", o->residual);
    json_write_string_member(file, "attention", attention);
    json_write_string_member(file, "attention_asked", asked);
    json_write_string_member(file, "recompute", recompute);
    json_write_string_member(file, "residual", residual);
    json_write_number_member(file, "head_chunks", (double)c->spec.head_chunks);
    append_flag(file, "deterministic", o->deterministic != 0);
    append_flag(file, "autotune", o->autotune && !o->deterministic);
    append_flag(file, "graphs", has_graphs(c, backend));
    free(attention);
    free(asked);
    free(recompute);
    free(residual);
}

static void append_ops(FILE *file, const Result *r) {
    json_write_number_member(file, "bandwidth", r->bandwidth);
    json_write_number_member(file, "floor_ms", 1e3 * r->floor);
    json_write_number_member(file, "floor_share", r->floor / r->median);
    json_write_number_member(file, "nominal_floor_ms", r->nominal_floor ? 1e3 * r->nominal_floor : NAN);
    json_write_number_member(file, "nominal_floor_share", r->nominal_floor ? r->nominal_floor / r->median : NAN);
    json_write_number_member(file, "attention_forward", attention_rate(r, "attention_forward"));
    json_write_number_member(file, "attention_backward", attention_rate(r, "attention_backward"));
    json_write_number_member(file, "attention_both", attention_rate(r, NULL));
    json_write_number_member(file, "wait_us", 1e6 * r->wait);
    json_write_number_member(file, "ops_ms", 1e3 * ops_seconds(r));
    fputs(", \"ops\": [", file);
    for (int i = 0; i < r->op_count; i++) {
        const OpTime *t = &r->ops[i].timed;
        fprintf(file, "%s{\"calls\": %lld", i ? ", " : "", t->calls);
        json_write_string_member(file, "name", t->name);
        json_write_number_member(file, "ms", 1e3 * r->ops[i].seconds);
        json_write_number_member(file, "floor_ms", 1e3 * t->floor);
        json_write_number_member(file, "above_floor_ms", 1e3 * above_floor(&r->ops[i]));
        json_write_number_member(file, "bytes", t->bytes);
        json_write_number_member(file, "flops", t->flops);
        fputc('}', file);
    }
    fputc(']', file);
}

/* {"name": value, ...}, flat but for the losses and the ops. */
static void append_json(const char *path, const Case *c, const Result *r, const Backend *backend, const Card *card) {
    FILE *file = fopen(path, "a");
    if (!file) die("cannot append to '%s'", path);
    double tokens = tokens_per_step(c) / r->median, flops = tokens * config_flops_per_token(&c->spec.config, c->spec.T);
    fputs("{\"program\": \"train_gpt\"", file);
    json_write_string_member(file, "model", c->model);
    json_write_string_member(file, "device", backend->describe());
    json_write_string_member(file, "dtype", c->spec.dtype == BF16 ? "bf16" : "fp32");
    append_settings(file, c, backend);
    json_write_number_member(file, "batch", (double)c->spec.B);
    json_write_number_member(file, "seq_len", (double)c->spec.T);
    json_write_number_member(file, "grad_accum", (double)c->grad_accum);
    json_write_number_member(file, "tokens_per_step", tokens_per_step(c));
    json_write_number_member(file, "tokens_per_s", tokens);
    json_write_number_member(file, "ms", 1e3 * r->median);
    json_write_number_member(file, "ms_least", 1e3 * r->least);
    json_write_number_member(file, "ms_most", 1e3 * r->most);
    json_write_number_member(file, "cpu_ms", 1e3 * r->cpu);
    json_write_number_member(file, "warm_up", r->warm_up);
    json_write_number_member(file, "steps", r->steps);
    json_write_number_member(file, "parameters", (double)plan_parameters(&c->spec.config));
    json_write_number_member(file, "flops_per_token", config_flops_per_token(&c->spec.config, c->spec.T));
    for (int i = 0; i < FIRST_LOSSES; i++) fprintf(file, "%s%.9g", i ? ", " : ", \"losses\": [", r->losses[i]);
    fputc(']', file);
    json_write_number_member(file, "mfu", card && c->spec.dtype == BF16 ? flops / (1e12 * card->tera_flops) : NAN);
    json_write_number_member(file, "share_of_matmul_rate", flops / r->rate);
    json_write_number_member(file, "matmul_rate", r->rate);
    json_write_number_member(file, "memory", r->memory);
    json_write_number_member(file, "memory_plan", r->plan);
    if (r->op_count) append_ops(file, r);
    fputs("}\n", file);
    if (fclose(file) != 0) die("cannot write '%s'", path);
}

#endif
