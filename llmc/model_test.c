/* model_test.c: the whole model against itself: micro-batches against one batch, gradients against differences of the loss, generation
   against evaluation, updates that must not happen, and the memory that the plan promises. Parity with PyTorch is test_gpt's. */
#include "model_test.h"
#include "weights.h"

#include <unistd.h>

static void create(Model *m, const ModelSpec *spec) { create_on(backend_find("cpu"), m, spec); }

/* After a change of the masters: the bf16 copy follows. */
static void round_parameters(Model *m) {
    if (m->spec.dtype == BF16) bf16_of_floats((uint16_t *)m->parameters.data, (const float *)m->masters.data, m->table.elements);
}

/* Weights far from the initial ones, biases and norms too, so that every path of the gradient carries something. */
static void perturb(Model *m, double scale, uint64_t seed) {
    float *w = m->masters.data;
    test_seed = seed;
    for (int i = 0; i < m->table.count; i++)
        for (int64_t k = 0; k < parameter_file_count(&m->table.info[i]); k++)
            w[m->table.info[i].offset + k] += (float)(scale * test_normal());
    round_parameters(m);
}

static const float *gradients(const Model *m) { return m->gradients.data; }

/* Every combination that changes the path of a gradient. */
static const char *const architectures[] = {
    "pos=learned\n", "pos=rope\n", "pos=rope\nrope_layout=half\nbias=0\n", "pos=none\ntie=0\n", "pos=learned\ntie=0\nbias=0\nn_kv_head=2\n",
    "pos=rope\nn_kv_head=1\nhead_size=12\nn_hidden=50\nactivation=gelu-erf\n", "pos=none\nn_layer=1\nn_kv_head=2\n",
    "pos=learned\nmax_seq_len=40\nn_layer=3\n"};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

/* ---- micro-batches ---------------------------------------------------------------------------------------------------------- */

/* Four micro-batches of two rows give the gradient of one batch of eight: the same masks fall, and the mean is over the valid targets
   of all. fp32 sums in another order differ by far less than 1e-5. In bf16 a sum beside a rounding boundary may flip a bit: 2^-8. */
static void check_micro_batches(const char *settings, DType dtype) {
    char with_dropout[256];
    Model one, four;
    snprintf(with_dropout, sizeof with_dropout, "%sdropout=0.2\n", settings);
    ModelSpec spec = spec_of(with_dropout, dtype, MODEL_TRAIN, 8);
    create(&one, &spec);
    spec.B = 2;
    create(&four, &spec);
    perturb(&one, 0.1, 3);
    perturb(&four, 0.1, 3);
    Batch b = batch_of(8, spec.T, spec.config.V, true, 5);
    double tolerance = dtype == F32 ? 1e-5 : 0x1p-8;
    for (int64_t step = 0; step < 2; step++) {   /* the second overwrites the first's gradients */
        accumulate(&one, &b, step, 1e-3, 1);
        accumulate(&four, &b, step, 1e-3, 1);
        if (!(fabs(model_loss(&one) / model_loss(&four) - 1) <= tolerance))
            fail_msg("%s: loss %g, %g", settings, model_loss(&one), model_loss(&four));
        for (int i = 0; i < one.table.count; i++) {
            const ParameterInfo *p = &one.table.info[i];
            double d = difference(gradients(&four) + p->offset, gradients(&one) + p->offset, p->count);
            if (!(d <= tolerance))
                fail_msg("%s, %s: gradient of %s differs by %g > %g", settings, dtype_names[dtype], p->name, d, tolerance);
            assert_true(norm_of(gradients(&one) + p->offset, p->count) > 1e-6);
        }
    }
    /* Nothing is left of the batch before. */
    float *gradient = model_copy_flat(&four, ARENA_GRADIENTS);
    Batch other = batch_of(8, spec.T, spec.config.V, false, 6);
    accumulate(&four, &other, 7, 1e-3, 1);
    accumulate(&four, &b, 1, 1e-3, 1);
    assert_memory_equal(gradient, four.gradients.data, tensor_bytes(four.gradients));
    free(gradient);
    free_batch(other);
    free_batch(b);
    model_free(&one);
    model_free(&four);
}

static void test_micro_batches(void **state) {
    (void)state;
    for (int i = 0; i < ARCHITECTURES; i++) {
        check_micro_batches(architectures[i], F32);
        check_micro_batches(architectures[i], BF16);
    }
}

/* The mean is over the valid targets: a row without any counts for nothing. */
static void test_masked_targets(void **state) {
    (void)state;
    Model m;
    ModelSpec spec = spec_of("pos=learned\n", F32, MODEL_TRAIN, 4);
    create(&m, &spec);
    Batch b = batch_of(4, spec.T, spec.config.V, false, 8);
    float losses[64];
    accumulate(&m, &b, 0, 1e-3, 1);
    model_copy_losses(&m, losses);
    double sum = 0;
    b.valid = 0;
    for (int64_t i = 0; i < 4 * spec.T; i++) {
        bool kept = i / spec.T == 3 || i % 5 == 0;
        if (kept) sum += losses[i], b.valid++;
        else b.targets[i] = -1;
    }
    accumulate(&m, &b, 0, 1e-3, 1);
    assert_true(fabs(model_loss(&m) - sum / (double)b.valid) <= 1e-6 * sum);
    free_batch(b);
    model_free(&m);
}

/* Without any valid target loss and gradient are 0, and all that is left of the update is weight decay, on weights of two dimensions. */
static void test_decay_alone(void **state) {
    (void)state;
    for (int sgd = 0; sgd < 2; sgd++) {
        Model m;
        ModelSpec spec = spec_of(sgd ? "optimizer=sgd\npos=learned\n" : "tie=0\n", F32, MODEL_TRAIN, 2);
        Batch b = batch_of(2, spec.T, spec.config.V, false, 8);
        double lr = 0.5;
        for (int64_t i = 0; i < 2 * spec.T; i++) b.targets[i] = -1;
        b.valid = 0;
        create(&m, &spec);
        perturb(&m, 0.1, 1);
        float *before = model_copy_flat(&m, ARENA_MASTERS);
        accumulate(&m, &b, 0, lr, 1);
        assert_true(model_loss(&m) == 0);
        assert_true(norm_of(gradients(&m), m.table.elements) == 0);
        model_update(&m);
        assert_false(model_skipped(&m));
        const float *after = m.masters.data;
        for (int i = 0; i < m.table.count; i++) {
            const ParameterInfo *p = &m.table.info[i];
            double factor = p->decay ? 1 - lr * m.adamw.weight_decay : 1;
            for (int64_t k = p->offset; k < p->offset + p->count; k++)
                if (!(fabs(after[k] - before[k] * factor) <= 1e-6 * fabs(before[k])))
                    fail_msg("%s: %g became %g, not %g of it", p->name, before[k], after[k], factor);
        }
        free(before);
        free_batch(b);
        model_free(&m);
    }
}

/* ---- the same bits ---------------------------------------------------------------------------------------------------------- */

static float *weights_after(const ModelSpec *spec, uint64_t seed, int64_t steps) {
    Model m;
    Batch b = batch_of(4, spec->T, spec->config.V, true, 11);
    create(&m, spec);
    m.state.seed = seed;
    train(&m, &b, 0, steps, 1e-2);
    float *weights = model_copy_flat(&m, ARENA_MASTERS);
    free_batch(b);
    model_free(&m);
    return weights;
}

static void test_same_bits(void **state) {
    (void)state;
    static const char *const settings[] = {"dropout=0.2\npos=learned\n", "dropout=0.2\noptimizer=sgd\n"};   /* in fp32 and in bf16 */
    for (int dtype = F32; dtype <= BF16; dtype++) {
        ModelSpec spec = spec_of(settings[dtype], (DType)dtype, MODEL_TRAIN, 2);
        ParameterTable table;
        parameters_describe(&table, &spec.config);
        size_t bytes = (size_t)table.elements * sizeof(float);
        float *a = weights_after(&spec, 1, 2), *b = weights_after(&spec, 1, 2), *c = weights_after(&spec, 2, 2);
        assert_memory_equal(a, b, bytes);
        assert_memory_not_equal(a, c, bytes);   /* the seed reaches the masks */
        free(a);
        free(b);
        free(c);
        parameters_release(&table);
    }
}

/* Masks change from step to step and from row to row, and only they. */
static void test_masks(void **state) {
    (void)state;
    Model m;
    ModelSpec spec = spec_of("dropout=0.3\n", F32, MODEL_TRAIN, 2);
    create(&m, &spec);
    perturb(&m, 0.1, 2);
    Batch b = batch_of(2, spec.T, spec.config.V, false, 1);
    float losses[2][32];
    const int64_t steps[] = {0, 1, 0, 0}, samples[] = {0, 0, 2, 0};
    for (int i = 0; i < 4; i++) {
        model_begin_step(&m, &(StepSettings){.step = steps[i], .valid = b.valid});
        model_micro_step(&m, b.tokens, b.targets, samples[i], 0);
        model_copy_losses(&m, losses[i > 0]);
        if (i == 1 || i == 2) assert_memory_not_equal(losses[0], losses[1], sizeof losses[0]);
        if (i == 3) assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    }
    free_batch(b);
    model_free(&m);
}

/* A backend that notes the number of every mask asked for, and runs the CPU's ops. */
static uint32_t masks[64];
static int mask_count;
static void note(Dropout drop) {
    for (int i = 0; i < mask_count; i++)
        if (masks[i] == drop.tensor) fail_msg("mask %u falls twice", (unsigned)drop.tensor);
    masks[mask_count++] = drop.tensor;
}
static void noted_dropout(Tensor out, Tensor x, Dropout drop, Stream *s) {
    note(drop);
    cpu_dropout(out, x, drop, s);
}
static void noted_attention_forward(Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Dropout drop, Stream *s) {
    note(drop);
    cpu_attention_forward(out, lse, qkv, scratch, NH, NKV, drop, s);
}
static void noted_residual_layernorm_forward(Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta,
                                             Tensor w, Tensor b, float eps, Dropout drop, Stream *s) {
    note(drop);
    cpu_residual_layernorm_forward(residual, out, mean, rstd, x, delta, w, b, eps, drop, s);
}
/* Backward asks for each again: forward ends with the loss. */
static int masks_of_forward;
static void noted_loss_sum(Tensor sum, Tensor losses, int accumulate, Stream *s) {
    if (tensor_numel(losses) > 1) {   /* not the copy of the sum that follows */
        masks_of_forward = mask_count;
        mask_count = 0;
    }
    cpu_loss_sum(sum, losses, accumulate, s);
}

/* Three masks a layer and the embedding's, no two the same. */
static void test_every_mask_is_another(void **state) {
    (void)state;
    Backend noting = *backend_find("cpu");
    noting.op.dropout = noted_dropout;
    noting.op.attention_forward = noted_attention_forward;
    noting.op.residual_layernorm_forward = noted_residual_layernorm_forward;
    noting.op.loss_sum = noted_loss_sum;
    Model m;
    ModelSpec spec = spec_of("n_layer=4\ndropout=0.1\n", F32, MODEL_TRAIN, 2);
    Batch b = batch_of(2, spec.T, spec.config.V, false, 1);
    model_create(&m, &spec, &noting);
    model_init_weights(&m, 0, 1);
    mask_count = 0;
    accumulate(&m, &b, 0, 0, 0);
    assert_int_equal(masks_of_forward, 3 * 4 + 1);
    free_batch(b);
    model_free(&m);
}

/* cos and sin of t times the frequency of each pair (rope_scaling_test.c), and with yarn times the magnitude. */
static void check_rotations(const char *scaling, double magnitude) {
    Model m;
    char settings[200];
    snprintf(settings, sizeof settings, "head_size=10\nrope_base=500\n%s", scaling);
    ModelSpec spec = spec_of(settings, F32, MODEL_EVALUATE, 1);
    create(&m, &spec);
    const float *table = m.rotations.data;
    for (int t = 0; t < 16; t++)
        for (int i = 0; i < 5; i++) {
            double plain = exp(-2.0 * i / 10 * log(500)), scaled = rope_frequency(&m.config.rope_scaling, 500, 10, i);
            double angle = t * (*scaling ? scaled : plain), c = table[(t * 5 + i) * 2], s = table[(t * 5 + i) * 2 + 1];
            assert_true(fabs(c - magnitude * cos(angle)) <= 1e-6 && fabs(s - magnitude * sin(angle)) <= 1e-6);
            assert_true(!*scaling || i == 0 || scaled < plain);
        }
    model_free(&m);
}

static void test_rotations(void **state) {
    (void)state;
    check_rotations("", 1);
    check_rotations("rope_scaling=linear\nrope_factor=2\n", 1);
    check_rotations("rope_scaling=llama3\nrope_factor=2\nrope_original_len=8\n", 1);
    check_rotations("rope_scaling=yarn\nrope_factor=2\nrope_original_len=8\nrope_magnitude=1.5\n", 1.5);
}

/* ---- numbers that are not finite -------------------------------------------------------------------------------------------- */

/* All that an update may change, as bytes. */
typedef struct { unsigned char *bytes; size_t size; } Snapshot;

static Snapshot snapshot(const Model *m) {
    const Tensor tensors[] = {m->parameters, m->masters, m->m, m->v};
    Snapshot s = {NULL, 0};
    for (int i = 0; i < 4; i++) {
        size_t bytes = tensor_bytes(tensors[i]);
        s.bytes = realloc(s.bytes, s.size + bytes + 4);
        if (bytes) memcpy(s.bytes + s.size, tensors[i].data, bytes);
        s.size += bytes;
    }
    uint32_t updates = model_updates(m);
    memcpy(s.bytes + s.size, &updates, 4);
    s.size += 4;
    return s;
}

static void expect_unchanged(const Model *m, Snapshot before, const char *what) {
    Snapshot now = snapshot(m);
    if (now.size != before.size || memcmp(now.bytes, before.bytes, now.size) != 0) fail_msg("%s: the update changed something", what);
    free(now.bytes);
}

/* One weight of each tensor in turn is NaN, then Inf. */
static void check_bad_weights(DType dtype, const char *settings) {
    Model m;
    ModelSpec spec = spec_of(settings, dtype, MODEL_TRAIN, 2);
    Batch b = batch_of(2, spec.T, spec.config.V, false, 21);
    b.tokens[0] = 0;   /* so that row 0 of the table is in use */
    create(&m, &spec);
    perturb(&m, 0.05, 4);
    train(&m, &b, 0, 2, 1e-3);
    for (int i = 0; i < m.table.count; i++)
        for (int which = 0; which < 2; which++) {
            char what[160];
            float *weight = (float *)m.masters.data + m.table.info[i].offset, saved = *weight;
            snprintf(what, sizeof what, "%s, %s, %s in %s", settings, dtype_names[dtype], which ? "Inf" : "NaN", m.table.info[i].name);
            *weight = which ? INFINITY : NAN;
            round_parameters(&m);
            Snapshot before = snapshot(&m);
            accumulate(&m, &b, 2, 1e-3, 1);
            model_update(&m);
            if (!model_skipped(&m)) fail_msg("%s: not skipped; loss %g, norm %g", what, model_loss(&m), model_grad_norm(&m));
            assert_false(isfinite(model_grad_norm(&m)));
            expect_unchanged(&m, before, what);
            *weight = saved;
            round_parameters(&m);
            free(before.bytes);
        }
    /* Nothing of it lingers. */
    train(&m, &b, 2, 1, 1e-3);
    assert_int_equal(model_updates(&m), 3);
    assert_true(isfinite(model_loss(&m)));
    free_batch(b);
    model_free(&m);
}

static void test_bad_weights(void **state) {
    (void)state;
    for (int dtype = F32; dtype <= BF16; dtype++) {
        check_bad_weights((DType)dtype, "pos=learned\n");
        check_bad_weights((DType)dtype, "pos=rope\ntie=0\nn_kv_head=2\noptimizer=sgd\n");
        check_bad_weights((DType)dtype, "pos=none\ndropout=0.1\nactivation=relu\n");
    }
}

/* A gradient can be bad though the loss is not. */
static void test_bad_gradients(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int dtype = F32; dtype <= BF16; dtype++)
        for (int sgd = 0; sgd < 2; sgd++) {
            Model m;
            ModelSpec spec = spec_of(sgd ? "optimizer=sgd\n" : "", (DType)dtype, MODEL_TRAIN, 2);
            Batch b = batch_of(2, spec.T, spec.config.V, false, 21);
            create(&m, &spec);
            train(&m, &b, 0, 1, 1e-3);
            for (int k = 0; k < 9; k++) {
                const int64_t places[] = {0, m.table.elements / 2, m.table.elements - 64};
                Snapshot before = snapshot(&m);
                accumulate(&m, &b, 1, 1e-3, k % 2);
                ((float *)m.gradients.data)[places[k / 3]] = bad[k % 3];
                model_update(&m);
                assert_true(model_skipped(&m));
                expect_unchanged(&m, before, "bad gradient");
                free(before.bytes);
            }
            train(&m, &b, 1, 1, 1e-3);
            free_batch(b);
            model_free(&m);
        }
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------------- */

static void test_evaluation(void **state) {
    (void)state;
    for (int dtype = F32; dtype <= BF16; dtype++) {
        Model m, other, plain;
        ModelSpec spec = spec_of("pos=learned\ndropout=0.5\n", (DType)dtype, MODEL_TRAIN, 2);
        Batch b = batch_of(2, spec.T, spec.config.V, true, 31);
        create(&m, &spec);
        create(&other, &spec);
        perturb(&m, 0.1, 6);
        perturb(&other, 0.1, 6);
        train(&m, &b, 0, 1, 1e-3);
        train(&other, &b, 0, 1, 1e-3);

        Snapshot before = snapshot(&m);
        float *gradient = model_copy_flat(&m, ARENA_GRADIENTS);
        double first = model_evaluate(&m, b.tokens, b.targets), second = model_evaluate(&m, b.tokens, b.targets);
        assert_true(first == second && isfinite(first) && first > 0);
        expect_unchanged(&m, before, "evaluation");
        assert_memory_equal(gradient, m.gradients.data, tensor_bytes(m.gradients));

        /* A model that can only evaluate, without dropout in its config, says the same; and the sum is that of the losses. */
        ModelSpec without = spec_of("pos=learned\n", (DType)dtype, MODEL_EVALUATE, 2);
        create(&plain, &without);
        memcpy(plain.parameters.data, m.parameters.data, tensor_bytes(m.parameters));
        assert_true(model_evaluate(&plain, b.tokens, b.targets) == first);
        float losses[32];
        double sum = 0;
        model_copy_losses(&plain, losses);
        for (int i = 0; i < 32; i++) {
            sum += losses[i];
            if (b.targets[i] < 0) assert_true(losses[i] == 0);
        }
        assert_true(fabs(sum - first) <= 1e-6 * first);

        /* Training goes on as if there had been no evaluation. */
        train(&m, &b, 1, 2, 1e-3);
        train(&other, &b, 1, 2, 1e-3);
        assert_memory_equal(m.masters.data, other.masters.data, tensor_bytes(m.masters));
        free(before.bytes);
        free(gradient);
        free_batch(b);
        model_free(&m);
        model_free(&other);
        model_free(&plain);
    }
}

/* The losses are those of the logits, computed here in double. */
static void test_logits(void **state) {
    (void)state;
    Model m;
    ModelSpec spec = spec_of("pos=rope\n", F32, MODEL_EVALUATE, 3);
    Batch b = batch_of(3, spec.T, spec.config.V, false, 41);
    int64_t N = 3 * spec.T, V = spec.config.V;
    float *logits = malloc((size_t)(N * V) * sizeof *logits), *losses = malloc((size_t)N * sizeof *losses);
    create(&m, &spec);
    perturb(&m, 0.2, 7);
    model_evaluate(&m, b.tokens, b.targets);
    model_copy_losses(&m, losses);
    model_copy_logits(&m, logits);
    for (int64_t i = 0; i < N; i++) {
        double sum = 0;
        for (int64_t v = 0; v < V; v++) sum += exp((double)logits[i * V + v]);
        double expected = log(sum) - logits[i * V + b.targets[i]];
        if (!(fabs(losses[i] - expected) <= 1e-5 * (1 + expected))) fail_msg("row %d: loss %g, expected %g", (int)i, losses[i], expected);
    }
    free(logits);
    free(losses);
    free_batch(b);
    model_free(&m);
}

/* ---- gradients against differences ------------------------------------------------------------------------------------------ */

static double mean_loss(Model *m, const Batch *b) {
    float losses[64];
    double sum = 0;
    accumulate(m, b, 0, 0, 0);
    model_copy_losses(m, losses);
    for (int64_t i = 0; i < b->rows * b->T; i++) sum += losses[i];
    return sum / (double)b->valid;
}

/* Differences of fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, with h = 1/64: the cut-off term h^4/30 f''''' is far below
   the noise of fp32 losses, about 1e-7 / h = 6e-6. The gradient may differ from them by 1% and by a twentieth of the tensor's root mean
   square, which for these weights is well above that noise for every tensor (checked). */
static void check_differences(const char *settings) {
    const double h = 0x1p-6;
    Model m;
    ModelSpec spec = spec_of(settings, F32, MODEL_TRAIN, 2);
    Batch b = batch_of(2, spec.T, spec.config.V, true, 51);
    create(&m, &spec);
    perturb(&m, 0.15, 8);
    mean_loss(&m, &b);
    float *gradient = model_copy_flat(&m, ARENA_GRADIENTS);
    test_seed = 99;
    for (int i = 0; i < m.table.count; i++) {
        const ParameterInfo *p = &m.table.info[i];
        int64_t n = parameter_file_count(p);
        double typical = norm_of(gradient + p->offset, n) / sqrt((double)n);
        if (!(typical > 2e-4)) fail_msg("%s: %s has a gradient of %g only", settings, p->name, typical);
        for (int k = 0; k < 3; k++) {
            float *weight = (float *)m.masters.data + p->offset + (int64_t)(test_uniform() * (double)n), saved = *weight;
            double f[5], g = gradient[weight - (float *)m.masters.data];
            for (int j = -2; j <= 2; j++) {
                *weight = saved + (float)(j * h);
                f[j + 2] = j ? mean_loss(&m, &b) : 0;
            }
            *weight = saved;
            double expected = (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * h);
            if (!(fabs(g - expected) <= 0.01 * fabs(expected) + 0.05 * typical))
                fail_msg("%s: %s[%d]: gradient %g, differences say %g (typical %g)", settings, p->name,
                         (int)(weight - (float *)m.masters.data - p->offset), g, expected, typical);
        }
        /* What belongs to no parameter has no gradient. */
        for (int64_t k = n; k < p->count; k++) assert_true(gradient[p->offset + k] == 0);
    }
    free(gradient);
    free_batch(b);
    model_free(&m);
}

static void test_differences(void **state) {
    (void)state;
    for (int i = 0; i < ARCHITECTURES; i++) check_differences(architectures[i]);
    check_differences("pos=rope\ndropout=0.2\n");
    check_differences("pos=learned\ntie=0\ndropout=0.2\n");
}

/* ---- the update ------------------------------------------------------------------------------------------------------------- */

/* With plain descent of rate 1 and no decay the step is the clipped gradient: g, or g M / (norm + 1e-6) if the norm is above M. */
static void test_clipping(void **state) {
    (void)state;
    Model m;
    ModelSpec spec = spec_of("optimizer=sgd\n", F32, MODEL_TRAIN, 2);
    Batch b = batch_of(2, spec.T, spec.config.V, false, 61);
    create(&m, &spec);
    perturb(&m, 0.1, 9);
    m.adamw.weight_decay = 0;
    accumulate(&m, &b, 0, 1, 0);
    double norm = norm_of(gradients(&m), m.table.elements);
    const double limits[] = {0, norm * 2, norm * 0.999, norm / 10, 1e-3};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        float *before = model_copy_flat(&m, ARENA_MASTERS);
        accumulate(&m, &b, 0, 1, limits[i]);
        model_update(&m);
        assert_true(fabs(model_grad_norm(&m) / norm - 1) <= 1e-6);
        double scale = limits[i] > 0 && norm > limits[i] ? limits[i] / (norm + 1e-6) : 1;
        for (int64_t k = 0; k < m.table.elements; k++) {
            double expected = before[k] - scale * gradients(&m)[k];
            if (!(fabs(((float *)m.masters.data)[k] - expected) <= 1e-6 * fabs(before[k]) + 1e-6 * fabs(scale * gradients(&m)[k]) + 1e-12))
                fail_msg("limit %g, norm %g, element %d: %.9g, expected %.9g", limits[i], norm, (int)k, ((float *)m.masters.data)[k],
                         expected);
        }
        memcpy(m.masters.data, before, tensor_bytes(m.masters));
        free(before);
    }
    free_batch(b);
    model_free(&m);
}

/* The padding of the vocabulary and the gaps between tensors stay zero, whatever is trained; bf16 weights are the rounded masters. */
static void test_padding_is_never_trained(void **state) {
    (void)state;
    static const char *const settings[] = {"", "tie=0\n", "optimizer=sgd\n", "tie=0\noptimizer=sgd\npos=learned\n"};
    for (int dtype = F32; dtype <= BF16; dtype++)
        for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
            Model m;
            ModelSpec spec = spec_of(settings[s], (DType)dtype, MODEL_TRAIN, 2);
            Batch b = batch_of(2, spec.T, spec.config.V, true, 71);
            create(&m, &spec);
            perturb(&m, 0.1, 10);
            float *before = model_copy_flat(&m, ARENA_MASTERS), *after = m.masters.data;
            train(&m, &b, 0, 5, 1e-2);
            for (int i = 0; i < m.table.count; i++) {
                const ParameterInfo *p = &m.table.info[i];
                int64_t n = parameter_file_count(p), end = i + 1 < m.table.count ? m.table.info[i + 1].offset : m.table.elements;
                assert_memory_not_equal(before + p->offset, after + p->offset, (size_t)n * 4);
                for (int64_t k = p->offset + n; k < end; k++) assert_true(after[k] == 0);
            }
            for (int64_t k = 0; dtype == BF16 && k < m.table.elements; k++)
                assert_int_equal(((uint16_t *)m.parameters.data)[k], bf16_of_float(after[k]));
            free(before);
            free_batch(b);
            model_free(&m);
        }
}

/* One batch learnt by heart. */
static void test_overfit(void **state) {
    (void)state;
    for (int dtype = F32; dtype <= BF16; dtype++)
        for (int pos = 0; pos < 2; pos++) {
            Model m;
            ModelSpec spec = spec_of(pos ? "pos=rope\n" : "pos=learned\ntie=0\n", (DType)dtype, MODEL_TRAIN, 2);
            Batch b = batch_of(4, spec.T, spec.config.V, false, 81);
            create(&m, &spec);
            accumulate(&m, &b, 0, 0, 0);
            double first = model_loss(&m);
            assert_true(fabs(first - log(65)) <= 0.2);   /* knowing nothing */
            train(&m, &b, 0, 250, 5e-3);
            accumulate(&m, &b, 250, 0, 0);
            if (!(model_loss(&m) < 0.05)) fail_msg("%s: loss %g after 250 steps on one batch", dtype_names[dtype], model_loss(&m));
            free_batch(b);
            model_free(&m);
        }
}

/* Weights written by an fp32 model and read by a bf16 one that generates, under a name before the names. */
static void test_weights_in_another_dtype(void **state) {
    (void)state;
    char path[] = P_tmpdir "/model_testXXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    Model from, to;
    uint32_t crc;
    ModelSpec spec = spec_of("tie=0\npos=none\n", F32, MODEL_EVALUATE, 1);   /* of no family: our own names */
    create(&from, &spec);
    perturb(&from, 0.1, 13);
    if (!weights_write_file(path, &from.table, &from.config, from.masters.data, F32, &crc, error)) fail_msg("%s", error);
    spec.dtype = BF16;
    spec.mode = MODEL_GENERATE;
    create(&to, &spec);
    if (!model_read_weights(&to, path, "", error)) fail_msg("%s", error);
    for (int64_t k = 0; k < to.table.elements; k++)
        assert_int_equal(((uint16_t *)to.parameters.data)[k], bf16_of_float(((float *)from.parameters.data)[k]));
    assert_false(model_read_weights(&to, path, "grad.", error));
    assert_non_null(strstr(error, path));
    assert_non_null(strstr(error, "'grad.transformer.wte.weight' is missing"));
    model_free(&to);
    spec = spec_of("tie=0\npos=none\nn_layer=3\n", F32, MODEL_EVALUATE, 1);
    create(&to, &spec);
    assert_false(model_read_weights(&to, path, "", error));
    assert_non_null(strstr(error, "transformer.h.2."));
    unlink(path);
    assert_false(model_read_weights(&to, path, "", error));
    assert_non_null(strstr(error, path));
    model_free(&from);
    model_free(&to);
}

/* ---- memory ----------------------------------------------------------------------------------------------------------------- */

static void check_plan(const ModelSpec *spec) {
    MemoryPlan plan = model_plan(spec, backend_find("cpu"));
    Model m;
    size_t total = 0;
    model_create(&m, spec, backend_find("cpu"));
    for (int i = 0; i < ARENAS; i++) {
        assert_int_equal(plan.bytes[i], m.arenas[i].used);
        assert_true((plan.bytes[i] > 0) == (m.arenas[i].base != NULL));
        total += m.arenas[i].used;
    }
    assert_int_equal(plan.total, total);
    /* What must be there, counted by hand; each piece is rounded up to 256 bytes. */
    size_t n = (size_t)m.table.elements, width = dtype_size(spec->dtype);
    bool train = spec->mode == MODEL_TRAIN;
    assert_true(plan.bytes[ARENA_PARAMETERS] >= n * width && plan.bytes[ARENA_PARAMETERS] < n * width + 256);
    assert_true((plan.bytes[ARENA_MASTERS] >= n * 4) == (train && spec->dtype == BF16));
    assert_true((plan.bytes[ARENA_GRADIENTS] >= n * 4) == train);
    assert_true(plan.bytes[ARENA_MOMENTS] >= (train && spec->optimizer == OPTIMIZER_ADAMW ? n * 8 : 0));
    assert_true(plan.bytes[ARENA_MOMENTS] < (train && spec->optimizer == OPTIMIZER_ADAMW ? n * 8 + 512 : 1));
    model_free(&m);
}

static void test_plan(void **state) {
    (void)state;
    static const char *const settings[] = {"pos=learned\n", "pos=rope\noptimizer=sgd\n", "pos=none\ndropout=0.1\nn_kv_head=1\n",
        "n_layer=5\ntie=0\n"};
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++)
        for (int dtype = F32; dtype <= BF16; dtype++)
            for (int mode = MODEL_TRAIN; mode <= MODEL_GENERATE; mode++) {
                ModelSpec spec = spec_of(settings[s], (DType)dtype, (ModelMode)mode, mode == MODEL_GENERATE ? 1 : 3);
                check_plan(&spec);
            }
    /* Without backward all layers share their activations. */
    ModelSpec few = spec_of("n_layer=2\n", F32, MODEL_EVALUATE, 3), many = spec_of("n_layer=20\n", F32, MODEL_EVALUATE, 3);
    assert_int_equal(model_plan(&few, backend_find("cpu")).bytes[ARENA_ACTIVATIONS], model_plan(&many, backend_find("cpu")).bytes[ARENA_ACTIVATIONS]);
}

/* No two tensors share memory, and none reaches beyond its arena. */
static void test_activations_are_apart(void **state) {
    (void)state;
    Model m;
    ModelSpec spec = spec_of("pos=learned\ndropout=0.1\n", F32, MODEL_TRAIN, 3);
    create(&m, &spec);
    Tensor all[64 * 3];
    int count = 0;
#define ONCE(field, ...) if (m.a.field.data) all[count++] = m.a.field;
#define LAYER(field, ...) for (int64_t l = 0; l < spec.config.L; l++) if (m.a.field[l].data) all[count++] = m.a.field[l];
    ACTIVATION_LIST(ONCE, LAYER, LAYER)
#undef ONCE
#undef LAYER
    const Arena *arena = &m.arenas[ARENA_ACTIVATIONS];
    for (int i = 0; i < count; i++) {
        char *start = all[i].data, *end = start + tensor_bytes(all[i]);
        assert_true(start >= arena->base && end <= arena->base + arena->used && (uintptr_t)start % 256 == 0);
        for (int j = 0; j < i; j++) assert_true(end <= (char *)all[j].data || start >= (char *)all[j].data + tensor_bytes(all[j]));
    }
    assert_true(count > 30);
    model_free(&m);
}

/* A large vocabulary goes through the head in chunks of rows, here 256 and 255, which changes nothing: one row at a time fits into one. */
static void test_head_in_chunks(void **state) {
    (void)state;
    Model all, rows;
    ModelSpec spec = spec_of("n_layer=1\nn_head=2\nn_embd=16\nvocab_size=50257\nseq_len=73\n", F32, MODEL_TRAIN, 7);
    Batch b = batch_of(7, spec.T, spec.config.V, true, 91);
    int64_t N = 7 * spec.T;
    create(&all, &spec);
    spec.B = 1;
    create(&rows, &spec);
    assert_int_equal(all.a.logits.shape[0], 256);
    assert_int_equal(rows.a.logits.shape[0], 73);
    perturb(&all, 0.1, 11);
    perturb(&rows, 0.1, 11);
    accumulate(&all, &b, 0, 0, 0);
    accumulate(&rows, &b, 0, 0, 0);
    assert_true(fabs(model_loss(&all) / model_loss(&rows) - 1) <= 1e-6);
    for (int i = 0; i < all.table.count; i++) {
        const ParameterInfo *p = &all.table.info[i];
        double d = difference(gradients(&rows) + p->offset, gradients(&all) + p->offset, p->count);
        if (!(d <= 1e-5)) fail_msg("gradient of %s differs by %g", p->name, d);
    }
    /* Losses and logits, asked for after an evaluation, too. */
    float *losses = malloc((size_t)N * sizeof *losses), *logits = malloc((size_t)(N * spec.config.V) * sizeof *logits), one[73];
    model_evaluate(&all, b.tokens, b.targets);
    model_copy_losses(&all, losses);
    model_copy_logits(&all, logits);
    float *row_logits = malloc((size_t)(73 * spec.config.V) * sizeof *row_logits);
    for (int64_t row = 0; row < 7; row += 3) {
        model_evaluate(&rows, b.tokens + row * 73, b.targets + row * 73);
        model_copy_losses(&rows, one);
        model_copy_logits(&rows, row_logits);
        assert_true(difference(losses + row * 73, one, 73) <= 1e-6);
        assert_true(difference(logits + row * 73 * spec.config.V, row_logits, 73 * spec.config.V) <= 1e-5);
    }
    free(losses);
    free(logits);
    free(row_logits);
    free_batch(b);
    model_free(&all);
    model_free(&rows);
}

/* ---- generation ------------------------------------------------------------------------------------------------------------- */

static int32_t likeliest(const float *logits, int64_t V) {
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    return (int32_t)best;
}

/* Feeds tokens(T) in pieces of these lengths (the last one repeats); each piece's logits must be those of its last row of expected(T,V). */
static void check_pieces(Model *m, const int32_t *tokens, const float *expected, const int *pieces, int count, double tolerance,
                         const char *what) {
    int64_t T = m->spec.T, V = m->config.V;
    float *logits = malloc((size_t)V * sizeof *logits);
    for (int64_t t = 0, i = 0; t < T; i++) {
        int64_t n = pieces[i < count ? i : count - 1];
        if (n > T - t) n = T - t;
        model_generate(m, tokens + t, n, t, logits);
        t += n;
        double d = difference(logits, expected + (t - 1) * V, V);
        if (!(d <= tolerance))
            fail_msg("%s: logits after %d tokens, the last %d at once, differ by %g > %g", what, (int)t, (int)n, d, tolerance);
    }
    free(logits);
}

/* The likeliest continuation of prompt[n], up to T tokens, with the cache and by computing everything again. */
static void check_greedy(Model *generator, Model *evaluator, const int32_t *prompt, int64_t n, const char *what) {
    int64_t T = generator->spec.T, V = generator->config.V;
    int32_t cached[64] = {0}, recomputed[64] = {0};
    float *logits = malloc((size_t)(T * V) * sizeof *logits);
    memcpy(cached, prompt, (size_t)n * sizeof *prompt);
    memcpy(recomputed, prompt, (size_t)n * sizeof *prompt);
    model_generate(generator, cached, n, 0, logits);
    for (int64_t t = n; t < T; t++) {
        cached[t] = likeliest(logits, V);
        if (t + 1 < T) model_generate(generator, cached + t, 1, t, logits);
    }
    for (int64_t t = n; t < T; t++) {
        model_evaluate(evaluator, recomputed, recomputed);   /* what comes after t is not seen */
        model_copy_logits(evaluator, logits);
        recomputed[t] = likeliest(logits + (t - 1) * V, V);
        model_generate(generator, recomputed, t, 0, logits);
        if (likeliest(logits, V) != recomputed[t]) fail_msg("%s: a prompt of %d tokens and evaluation disagree", what, (int)t);
    }
    if (memcmp(cached, recomputed, (size_t)T * sizeof *cached) != 0) fail_msg("%s: the cache gives another continuation", what);
    free(logits);
}

static void check_generation(const char *settings, DType dtype) {
    static const int one[] = {1}, all[] = {1000}, mixed[] = {5, 1, 7, 2}, prompt[] = {9, 1};
    double tolerance = dtype == F32 ? 1e-4 : 3e-2;
    Model evaluator, generator;
    ModelSpec spec = spec_of(settings, dtype, MODEL_EVALUATE, 1);
    create(&evaluator, &spec);
    spec.mode = MODEL_GENERATE;
    create(&generator, &spec);
    /* an fp32 model without training has its masters in its parameters; a bf16 one has none: round a copy */
    float *weights = calloc((size_t)evaluator.table.elements, sizeof *weights);
    test_seed = 12;
    for (int i = 0; i < evaluator.table.count; i++)
        for (int64_t k = 0; k < parameter_file_count(&evaluator.table.info[i]); k++)
            weights[evaluator.table.info[i].offset + k] = (float)(0.2 * test_normal());
    for (int k = 0; k < 2; k++) {
        Model *m = k ? &generator : &evaluator;
        if (dtype == F32) memcpy(m->parameters.data, weights, tensor_bytes(m->parameters));
        else bf16_of_floats((uint16_t *)m->parameters.data, weights, m->table.elements);
    }
    int64_t T = spec.T, V = spec.config.V;
    float *logits = malloc((size_t)(T * V) * sizeof *logits);
    for (uint64_t seed = 1; seed <= 2; seed++) {   /* the second text meets the cache of the first */
        Batch b = batch_of(1, T, V, false, seed);
        model_evaluate(&evaluator, b.tokens, b.targets);
        model_copy_logits(&evaluator, logits);
        check_pieces(&generator, b.tokens, logits, one, 1, tolerance, settings);
        check_pieces(&generator, b.tokens, logits, mixed, 4, tolerance, settings);
        check_pieces(&generator, b.tokens, logits, all, 1, tolerance, settings);
        check_pieces(&generator, b.tokens, logits, prompt, 2, tolerance, settings);
        if (dtype == F32) check_greedy(&generator, &evaluator, b.tokens, 3, settings);
        free_batch(b);
    }
    free(weights);
    free(logits);
    model_free(&evaluator);
    model_free(&generator);
}

static void test_generation(void **state) {
    (void)state;
    for (int i = 0; i < ARCHITECTURES; i++) {
        check_generation(architectures[i], F32);
        check_generation(architectures[i], BF16);
    }
}

/* Models this small are fastest on one thread; what a second one might change runs on two. */
static int one_thread(void **state) {
    (void)state;
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
    return 0;
}
static int two_threads(void **state) {
    (void)state;
#ifdef _OPENMP
    omp_set_num_threads(2);
#endif
    return 0;
}
#define TEST_ON_TWO_THREADS(test) cmocka_unit_test_setup_teardown(test, two_threads, one_thread)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_micro_batches), cmocka_unit_test(test_masked_targets), cmocka_unit_test(test_decay_alone),
        TEST_ON_TWO_THREADS(test_same_bits), cmocka_unit_test(test_masks), cmocka_unit_test(test_every_mask_is_another),
        cmocka_unit_test(test_rotations), cmocka_unit_test(test_bad_weights), cmocka_unit_test(test_bad_gradients),
        cmocka_unit_test(test_evaluation), cmocka_unit_test(test_logits), cmocka_unit_test(test_differences),
        cmocka_unit_test(test_clipping), cmocka_unit_test(test_padding_is_never_trained), cmocka_unit_test(test_overfit),
        cmocka_unit_test(test_weights_in_another_dtype), cmocka_unit_test(test_plan), cmocka_unit_test(test_activations_are_apart),
        cmocka_unit_test(test_head_in_chunks), cmocka_unit_test(test_generation),
    };
    return cmocka_run_group_tests(tests, one_thread, NULL);
}
