/* architecture_test.c: every combination of switches for which dev/reference holds a PyTorch dump (its pair_* files have every pair of switches in
   them) is trained, checkpointed, resumed, recomputed and sampled from, on every backend present. Whether the numbers are right
   is test_gpt's question; here they must be the same bits in every way that leads to them. */
#include "model_test.h"

#include "checkpoint.h"
#include "safetensors.h"

#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

enum { STEPS = 4, TAKEN = 5 };

/* ---- architectures ------------------------------------------------------------------------------------------------------------ */

/* Whatever a dump's metadata says of options. */
static Options options_of(const char *path) {
    Safetensors dump;
    Options o;
    options_defaults(&o);
    if (!safetensors_open(&dump, path, error)) fail_msg("%s", error);
    for (int i = 0; i < train_options.count; i++) {
        const OptionRow *row = &train_options.rows[i];
        const char *text = row->kind == OPTION_SECTION ? NULL : safetensors_metadata(&dump, row->name);
        if (text && !options_set(&train_options, &o, row->name, text, FROM_FILE, error)) fail_msg("%s: %s", path, error);
    }
    safetensors_close(&dump);
    return o;
}

typedef struct {
    const char *what;        /* for messages */
    const Backend *backend;
    Options options;
    ModelSpec spec;
    Batch batch;
    const char *run;         /* directory for its checkpoints */
} Case;

static void create(Case *c, Model *m, const ModelSpec *spec, uint64_t seed) {
    model_create(m, spec, c->backend);
    m->adamw = adamw_from_options(&c->options);
    model_init_weights(m, 0, seed);
    m->state.seed = 7;   /* of dropout */
}

static void expect_same_weights(const Case *c, const char *how, const Model *a, const Model *b) {
    float *x = model_copy_flat(a, ARENA_MASTERS), *y = model_copy_flat(b, ARENA_MASTERS);
    int64_t n = a->table.elements;
    if (memcmp(x, y, (size_t)n * sizeof *x) != 0) fail_msg("%s, %s: not the same bits; weights differ by %g", c->what, how, difference(x, y, n));
    free(x);
    free(y);
}

/* ---- training, resuming, recomputing ------------------------------------------------------------------------------------------ */

static void check_training(Case *c, Model *m) {
    create(c, m, &c->spec, 1);
    m->use_graphs = true;
    double losses[STEPS];
    for (int step = 0; step < STEPS; step++) {
        train(m, &c->batch, step, 1, 1e-3);
        losses[step] = model_outcome(m, 0).loss;
    }
    if (!(losses[STEPS - 1] < losses[0])) fail_msg("%s: the loss goes from %g to %g", c->what, losses[0], losses[STEPS - 1]);
}

/* Half of the steps, a checkpoint, a fresh model of the checkpoint's own config, and the other half; without graphs. */
static void check_resume(Case *c, const Model *straight) {
    Model first, second;
    Snapshot snapshot = {0};
    RunState state = {.step = STEPS / 2, .samples = STEPS / 2 * c->batch.rows, .best_val_loss = 1}, back;
    create(c, &first, &c->spec, 1);
    train(&first, &c->batch, 0, STEPS / 2, 1e-3);
    model_snapshot(&first, &snapshot, true, false);
    if (!checkpoint_save(c->run, &snapshot, &state, &c->options, NULL, true, error)) fail_msg("%s: %s", c->what, error);
    snapshot_release(&snapshot);
    char *found = checkpoint_find(c->run, "auto", error);
    ModelSpec spec = c->spec;
    if (!found || !model_directory_config(found, &spec.config, error)) fail_msg("%s: %s", c->what, error);
    spec.config.dropout = c->spec.config.dropout;   /* not all families keep it; the options do */
    create(c, &second, &spec, 2);
    if (!checkpoint_load(found, &second, &back, error)) fail_msg("%s: %s", c->what, error);
    train(&second, &c->batch, back.step, STEPS / 2, 1e-3);
    expect_same_weights(c, "resumed", &second, straight);
    free(found);
    model_free(&first);
    model_free(&second);
}

/* What is made again has the same bits; only an activation in bf16, but for SwiGLU's, is made from the rounded sum before it, where the forward pass
   may have seen the sum itself. */
static void check_recompute(Case *c, const Model *straight) {
    for (int level = RECOMPUTE_MLP; level <= RECOMPUTE_BLOCK; level++) {
        Model m;
        char how[32];
        ModelSpec spec = c->spec;
        spec.recompute = (Recompute)level;
        snprintf(how, sizeof how, "recompute %d", level);
        if (spec.dtype == BF16 && level != RECOMPUTE_BLOCK && !spec.config.gated) continue;
        create(c, &m, &spec, 1);
        train(&m, &c->batch, 0, STEPS, 1e-3);
        expect_same_weights(c, how, &m, straight);
        model_free(&m);
    }
}

/* ---- sampling ----------------------------------------------------------------------------------------------------------------- */

/* The likeliest tokens after the batch's first few, the context fed again for each or kept in the cache. */
static void write_greedily(Model *m, const Case *c, bool cache, int32_t *text, int64_t prompt, float *logits) {
    memcpy(text, c->batch.tokens, (size_t)prompt * sizeof *text);
    for (int64_t n = prompt, cached = 0; n < prompt + TAKEN; n++) {
        if (!cache) cached = 0;
        model_generate(m, text + cached, n - cached, cached, logits);
        cached = n;
        text[n] = 0;
        for (int32_t v = 1; v < m->config.V; v++)
            if (logits[v] > logits[text[n]]) text[n] = v;
    }
}

static void check_sampling(Case *c) {
    Model m;
    ModelSpec spec = c->spec;
    char *found = model_directory(c->run, error);
    spec.mode = MODEL_GENERATE;
    spec.B = 1;
    if (!found || !model_directory_config(found, &spec.config, error)) fail_msg("%s: %s", c->what, error);
    model_create(&m, &spec, c->backend);
    if (!model_read_directory(&m, found, error)) fail_msg("%s: %s", c->what, error);
    int64_t prompt = spec.T - TAKEN, V = spec.config.V;
    int32_t *again = calloc((size_t)spec.T, sizeof *again), *cached = calloc((size_t)spec.T, sizeof *cached);
    float *logits = calloc((size_t)V, sizeof *logits), *cached_logits = calloc((size_t)V, sizeof *logits);
    write_greedily(&m, c, false, again, prompt, logits);
    write_greedily(&m, c, true, cached, prompt, cached_logits);
    /* In bf16 the two may round a tie apart; while the texts agree, so do their logits. */
    bool same = memcmp(again, cached, (size_t)(prompt + TAKEN) * sizeof *again) == 0;
    if (spec.dtype == F32 && !same) fail_msg("%s: the cache writes another text", c->what);
    double error_of_cache = difference(cached_logits, logits, V);
    if (same && !(error_of_cache <= (spec.dtype == F32 ? 1e-5 : 0.05))) fail_msg("%s: with the cache logits differ by %g", c->what, error_of_cache);
    free(again); free(cached); free(logits); free(cached_logits); free(found);
    model_free(&m);
}

/* ---- all of them -------------------------------------------------------------------------------------------------------------- */

static void check_architecture(const char *path, const Backend *backend, DType dtype) {
    char what[300], run[300];
    Case c = {.what = what, .backend = backend, .options = options_of(path), .run = run};
    snprintf(what, sizeof what, "%s on %s in %s", path, backend->name, dtype_names[dtype]);
    snprintf(run, sizeof run, "%s/run", directory);
    if (!config_from_options(&c.spec.config, &c.options, error)) fail_msg("%s: %s", what, error);
    spec_from_options(&c.spec, &c.options);
    c.spec.dtype = dtype;
    c.spec.mode = MODEL_TRAIN;
    c.batch = batch_of(2 * c.spec.B, c.spec.T, c.spec.config.V, true, 5);
    Model straight;
    if (!directory_create(run, error)) fail_msg("%s", error);
    check_training(&c, &straight);
    check_resume(&c, &straight);
    check_recompute(&c, &straight);
    check_sampling(&c);
    if (!directory_remove(run, error)) fail_msg("%s", error);
    model_free(&straight);
    free_batch(c.batch);
    options_release(&train_options, &c.options);
}

static void test_architectures(void **state) {
    (void)state;
    glob_t dumps = {0};
    if (glob("dev/reference/pair_*.safetensors", 0, NULL, &dumps) != 0) fail_msg("found no dev/reference/pair_*.safetensors; run from the root");
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (size_t d = 0; test_backend(i) && d < dumps.gl_pathc; d++) {
            const bool slow = strcmp(test_backend(i)->name, "emu") == 0;   /* there every other dump in each dtype */
            if (!slow || d % 2 == 0) check_architecture(dumps.gl_pathv[d], test_backend(i), F32);
            if (!slow || d % 2 == 1) check_architecture(dumps.gl_pathv[d], test_backend(i), BF16);
        }
    globfree(&dumps);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_architectures)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
