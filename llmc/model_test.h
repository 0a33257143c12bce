/* model_test.h: small models and batches for the tests of the model. */
#ifndef LLMC_MODEL_TEST_H
#define LLMC_MODEL_TEST_H

#include "model.h"

#include "directory_test.h"
#include "error.h"
#include "kernels/op_test.h"

static const char *const dtype_names[] = {"fp32", "bf16"};

/* A small model, or what settings make of it. */
static inline ModelSpec spec_of(const char *settings, DType dtype, ModelMode mode, int64_t B) {
    static const char small[] = "n_layer=2\nn_head=4\nn_embd=32\nvocab_size=65\nseq_len=16\n";
    Options o;
    ModelSpec spec = {.dtype = dtype, .mode = mode, .B = B};
    options_defaults(&o);
    bool ok = options_parse_text(&o, small, strlen(small), "small", error)
           && options_parse_text(&o, settings, strlen(settings), "test", error)
           && config_from_options(&spec.config, &o, error);
    if (!ok) fail_msg("%s: %s", settings, error);
    spec.T = o.seq_len;
    spec.optimizer = (OptimizerKind)o.optimizer;
    options_release(&train_options, &o);
    return spec;
}

static inline void create_on(const Backend *backend, Model *m, const ModelSpec *spec) {
    model_create(m, spec, backend);
    m->adamw = (AdamW){0.9f, 0.99f, 1e-8f, 0.1f};
    model_init_weights(m, 0, 1337);
}

typedef struct {
    int64_t rows, T, valid;
    int32_t *tokens, *targets;
} Batch;

/* masked: a varying share of the targets is -1, the first row's wholly. */
static inline Batch batch_of(int64_t rows, int64_t T, int64_t V, bool masked, uint64_t seed) {
    Batch b = {rows, T, 0, malloc((size_t)(rows * T) * 4), malloc((size_t)(rows * T) * 4)};
    test_seed = seed;
    for (int64_t i = 0; i < rows * T; i++) {
        b.tokens[i] = test_below((int)V);
        b.targets[i] = test_below((int)V);
        if (masked && test_uniform() * (double)rows < (double)(rows - i / T) - 0.5) b.targets[i] = -1;
        b.valid += b.targets[i] >= 0;
    }
    return b;
}
static inline void free_batch(Batch b) {
    free(b.tokens);
    free(b.targets);
}

/* Forward and backward over the whole batch in micro-batches of the model's B. */
static inline void accumulate(Model *m, const Batch *b, int64_t step, double lr, double max_norm) {
    StepSettings settings = {.step = step, .lr = lr, .max_norm = max_norm, .valid = b->valid};
    model_begin_step(m, &settings);
    for (int64_t row = 0, micro = 0; row < b->rows; row += m->spec.B, micro++)
        model_micro_step(m, b->tokens + row * b->T, b->targets + row * b->T, row, micro);
}

static inline void train(Model *m, const Batch *b, int64_t first, int64_t steps, double lr) {
    for (int64_t step = first; step < first + steps; step++) {
        accumulate(m, b, step, lr, 1);
        model_update(m);
        assert_false(model_skipped(m));
    }
}

/* Norm of the difference over norm of the reference, of floats. */
static inline double difference(const float *got, const float *reference, int64_t n) {
    double d = 0, r = 0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)got[i] - reference[i]) * ((double)got[i] - reference[i]);
        r += (double)reference[i] * reference[i];
    }
    return sqrt(d) / (sqrt(r) + 1e-30);
}

static inline double norm_of(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

#endif
