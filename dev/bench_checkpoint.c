/* bench_checkpoint: what writing checkpoints costs training: the seconds that a checkpoint keeps steps waiting (taking the snapshot, and waiting for
   the writer), and by how much the steps are slower that run while it is written; both as a share of 50 steps.
       bench_checkpoint [OPTION ...]     options of train_gpt; by default GPT-2 124M, B=4, T=64, one micro-batch a step, written below a temporary
                                         directory; --out names another disk, --checkpoint-async 0 writes without a thread */
#include "llmc/checkpoint_writer.h"
#include "llmc/error.h"
#include "llmc/logger.h"
#include "llmc/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 50, CHECKPOINTS = 3, PLAIN_STEPS = 5, MOST_STEPS = 1000 };

typedef struct {
    Model model;
    const Options *options;
    int32_t *tokens;
    int64_t step;
} Run;

/* Tokens as they come, none likelier than others: only the time matters. */
static int32_t *draw_tokens(int64_t n, int64_t V) {
    int32_t *tokens = xmalloc((size_t)(n + 1) * sizeof *tokens);
    uint32_t state = 1;
    for (int64_t i = 0; i <= n; i++) {
        state = state * 1664525 + 1013904223;   /* Numerical Recipes' generator */
        tokens[i] = (int32_t)((state >> 8) % (uint32_t)V);
    }
    return tokens;
}

/* Seconds of one step, waited for. */
static double run_step(Run *r) {
    Model *m = &r->model;
    int64_t G = r->options->grad_accum, B = m->spec.B, BT = B * m->spec.T;
    double start = machine_seconds();
    model_begin_step(m, &(StepSettings){.step = r->step, .lr = 1e-4, .max_norm = 1, .valid = G * BT, .micro_steps = G});
    for (int64_t g = 0; g < G; g++) model_micro_step(m, r->tokens + g * BT, r->tokens + g * BT + 1, g * B, g);
    model_update(m);
    m->backend->synchronize(m->stream);
    r->step++;
    return machine_seconds() - start;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of a few steps with nothing beside them. */
static double plain_step(Run *r) {
    double times[PLAIN_STEPS];
    for (int i = 0; i < PLAIN_STEPS; i++) times[i] = run_step(r);
    qsort(times, PLAIN_STEPS, sizeof *times, ascending);
    return times[PLAIN_STEPS / 2];
}

typedef struct { double snapshot, stall, writing, steps; int count; } Cost;

/* One checkpoint, and all steps that overlap with its being written. */
static Cost measure(Run *r, CheckpointWriter *w) {
    Cost cost = {0};
    char error[ERROR_SIZE];
    RunState state = {.step = r->step, .best_val_loss = INFINITY, .ranks = 1};
    Snapshot *snapshot = checkpoint_writer_snapshot(w);
    double start = machine_seconds();
    model_snapshot(&r->model, snapshot, true, checkpoint_writer_copies(w));
    cost.snapshot = machine_seconds() - start;
    checkpoint_writer_save(w, &state, false, false);
    for (WriterTimes times; cost.writing == 0 && cost.count < MOST_STEPS;) {
        times = checkpoint_writer_times(w);
        cost.stall += times.stall;
        cost.writing = times.writing;
        if (cost.writing > 0) break;
        cost.steps += run_step(r);
        cost.count++;
    }
    if (!checkpoint_writer_wait(w, error)) die("%s", error);
    return cost;
}

static void report(int number, const Cost *c, double plain) {
    double stall = c->snapshot + c->stall, slower = c->steps - c->count * plain, span = EVERY * plain;
    printf("checkpoint %d: stall %.3f s (snapshot %.3f, waiting %.3f), %.2f%% of %d steps; written in %.2f s; %d steps meanwhile, together %.3f s "
           "slower, %.2f%%\n", number, stall, c->snapshot, c->stall, 100 * stall / span, EVERY, c->writing, c->count, slower, 100 * slower / span);
    fflush(stdout);
}

/* What this program wants where the command line is silent. */
static void set_open(Options *o, const char *name, const char *value) {
    char error[ERROR_SIZE];
    if (!options_set(&train_options, o, name, value, FROM_CHECKPOINT, error)) die("%s", error);
}

static void open_run(Run *r, Options *o) {
    char error[ERROR_SIZE];
    ModelSpec spec = {.mode = MODEL_TRAIN, .dtype = o->dtype == 2 ? BF16 : F32};
    const Backend *backend = backend_find(o->device);
    if (!backend) die("--device '%s' cannot be used here", o->device);
    if (!config_preset(o, o->model)) die("--model '%s' is no preset; there is: %s", o->model, config_preset_names());
    if (!config_from_options(&spec.config, o, error)) die("%s", error);
    spec_from_options(&spec, o);
    BackendSettings settings = settings_from_options(o);
    backend->configure(&settings);
    memset(r, 0, sizeof *r);
    model_create(&r->model, &spec, backend);
    model_init_weights(&r->model, 0, 1);
    r->model.adamw = adamw_from_options(o);
    r->options = o;
    r->tokens = draw_tokens(o->grad_accum * spec.B * spec.T, spec.config.V);
}

int main(int argc, char **argv) {
    char error[ERROR_SIZE], own[] = P_tmpdir "/bench_checkpoint.XXXXXX", size[32];
    Options o;
    Run r;
    error_program_name(argv[0]);
    options_parse(&train_options, &o, argc, argv);
    set_open(&o, "model", "gpt2-124M");
    set_open(&o, "device", "cpu");
    set_open(&o, "batch", "4");
    set_open(&o, "seq_len", "64");
    set_open(&o, "grad_accum", "1");
    bool named = o.from.out != FROM_DEFAULT;
    if (!named && !mkdtemp(own)) die("cannot make a directory in %s", P_tmpdir);
    const char *directory = named ? o.out : own;
    open_run(&r, &o);
    CheckpointWriter *w = checkpoint_writer_open(directory, &o, NULL, INFINITY, o.checkpoint_async != 0);
    double start = machine_seconds();
    if (checkpoint_writer_copies(w)) model_snapshot(&r.model, checkpoint_writer_snapshot(w), true, true);   /* as train_gpt does before its first step */
    printf("memory for copies is taken at the start, in %.2f s\n", machine_seconds() - start);
    run_step(&r);
    double plain = plain_step(&r);
    format_bytes(size, (double)snapshot_bytes(&r.model.spec));
    printf("%s, B=%lld, T=%lld, %lld micro-batches: %.0f ms a step; a snapshot takes %s; checkpoints go to %s\n", o.model, (long long)o.batch,
           (long long)o.seq_len, (long long)o.grad_accum, 1e3 * plain, size, directory);
    fflush(stdout);
    for (int i = 1; i <= CHECKPOINTS; i++) {
        Cost cost = measure(&r, w);
        plain = (plain + plain_step(&r)) / 2;   /* before and after */
        report(i, &cost, plain);
    }
    checkpoint_writer_close(w);
    model_free(&r.model);
    free(r.tokens);
    if (!named && !directory_remove(own, error)) die("%s", error);
    options_release(&train_options, &o);
    return 0;
}
