/* model_step_test.c: the step, on every backend present: graphs and recomputation change no bit, what is not finite trains nothing, outcomes can
   be read a step late, and the masks of dropout are the same everywhere. */
#include "model_test.h"

enum { ROWS = 6, STEPS = 3 };

typedef struct {
    float *masters, *m, *v;
    int64_t n;
    double losses[STEPS];
} Trained;

static float *copy_of(const Model *m, Tensor t) {
    float *copy = calloc((size_t)m->table.elements, sizeof *copy);
    if (t.data) m->backend->download(copy, t.data, tensor_bytes(t), m->stream);
    return copy;
}

/* Three steps of three micro-batches, from weights and data that are always the same. */
static Trained train_on(const Backend *backend, const ModelSpec *spec, bool graphs) {
    Model m;
    Trained t;
    Batch b = batch_of(ROWS, spec->T, spec->config.V, true, 5);
    create_on(backend, &m, spec);
    m.use_graphs = graphs;
    for (int64_t step = 0; step < STEPS; step++) {
        accumulate(&m, &b, step, 1e-2, 1);
        model_update(&m);
        t.losses[step] = model_outcome(&m, 0).loss;
    }
    t.n = m.table.elements;
    t.masters = copy_of(&m, m.masters);
    t.m = copy_of(&m, m.m);
    t.v = copy_of(&m, m.v);
    model_free(&m);
    free_batch(b);
    return t;
}
static void forget(Trained t) {
    free(t.masters);
    free(t.m);
    free(t.v);
}

static void expect_same_bits(const char *what, const Trained *a, const Trained *b) {
    size_t bytes = (size_t)a->n * sizeof(float);
    if (memcmp(a->masters, b->masters, bytes) != 0 || memcmp(a->m, b->m, bytes) != 0 || memcmp(a->v, b->v, bytes) != 0
        || memcmp(a->losses, b->losses, sizeof a->losses) != 0)
        fail_msg("%s: not the same bits; weights differ by %g", what, difference(a->masters, b->masters, a->n));
}

/* Runs check on every backend present, in both dtypes, for two architectures. */
static void everywhere(void (*check)(const Backend *backend, const ModelSpec *spec, const char *what)) {
    static const char *const settings[] = {"pos=rope\nn_kv_head=2\ndropout=0.2\nn_layer=3\n",
                                           "pos=learned\ntie=0\nn_layer=3\nactivation=gelu-erf\n"};
    for (int i = 0; i < TEST_BACKENDS; i++)
        for (int dtype = F32; dtype <= BF16; dtype++)
            for (int k = 0; k < 2; k++) {
                char what[200];
                const Backend *backend = test_backend(i);
                if (!backend) continue;
                ModelSpec spec = spec_of(settings[k], (DType)dtype, MODEL_TRAIN, 2);
                snprintf(what, sizeof what, "%s, %s, %s", backend->name, dtype_names[dtype], settings[k]);
                check(backend, &spec, what);
            }
}

static void check_graphs(const Backend *backend, const ModelSpec *spec, const char *what) {
    if (!backend->graph_begin) return;
    Trained launched = train_on(backend, spec, false), replayed = train_on(backend, spec, true);
    expect_same_bits(what, &launched, &replayed);
    assert_true(launched.losses[2] < launched.losses[0]);
    forget(launched);
    forget(replayed);
}
static void test_graphs(void **state) { (void)state; everywhere(check_graphs); }

/* What is made again by the same kernels from the same bits has the same bits. The MLP's activation is made from the stored sum before it, which
   in bf16 is rounded; where the forward pass saw the sum before rounding, bf16 allows 2^-8. */
static void check_recompute(const Backend *backend, const ModelSpec *spec, const char *what) {
    Trained kept = train_on(backend, spec, false);
    size_t memory = model_plan(spec, backend).bytes[ARENA_ACTIVATIONS];
    for (int level = RECOMPUTE_MLP; level <= RECOMPUTE_BLOCK; level++) {
        ModelSpec again = *spec;
        char name[240];
        again.recompute = (Recompute)level;
        snprintf(name, sizeof name, "recompute %d: %s", level, what);
        Trained t = train_on(backend, &again, false);
        if (spec->dtype == F32 || level == RECOMPUTE_BLOCK) expect_same_bits(name, &kept, &t);
        for (int i = 0; i < STEPS; i++)
            if (!(fabs(t.losses[i] / kept.losses[i] - 1) <= 0x1p-8)) fail_msg("%s: loss %g, %g", name, t.losses[i], kept.losses[i]);
        size_t less = model_plan(&again, backend).bytes[ARENA_ACTIVATIONS];
        if (!(less < memory)) fail_msg("%s: takes %zu bytes, before %zu", name, less, memory);
        memory = less;
        forget(t);
    }
    forget(kept);
}
static void test_recompute(void **state) { (void)state; everywhere(check_recompute); }

/* The residual added by the product before it, in fp32, instead of by the norm behind it. */
static void check_residual(const Backend *backend, const ModelSpec *spec, const char *what) {
    ModelSpec in_matmul = *spec;
    in_matmul.residual_in_matmul = true;
    Trained t = train_on(backend, &in_matmul, false), reference = train_on(backend, spec, false);
    for (int i = 0; i < STEPS; i++)
        if (!(fabs(t.losses[i] / reference.losses[i] - 1) <= (spec->dtype == F32 ? 1e-5 : 0x1p-8)))
            fail_msg("%s: step %d: loss %g, %g", what, i, t.losses[i], reference.losses[i]);
    /* fp32 sums may have the same bits either way; in bf16 one rounding less shows. */
    bool same = memcmp(t.masters, reference.masters, (size_t)t.n * sizeof(float)) == 0;
    if (spec->dtype == BF16 && same != (spec->config.dropout > 0)) fail_msg("%s: the residual was %sadded by the product", what, same ? "not " : "");
    forget(t);
    forget(reference);
}
static void test_residual(void **state) { (void)state; everywhere(check_residual); }

/* The loss of every step is the same however many pieces the head is made in; fp32 sums in another order. */
static void check_head_chunks(const Backend *backend, const ModelSpec *spec, const char *what) {
    ModelSpec pieces = *spec;
    pieces.head_chunks = 5;
    Trained whole = train_on(backend, spec, false), apart = train_on(backend, &pieces, false);
    for (int i = 0; i < STEPS; i++)
        if (!(fabs(apart.losses[i] / whole.losses[i] - 1) <= (spec->dtype == F32 ? 1e-5 : 0x1p-8)))
            fail_msg("%s: step %d: loss %g, %g", what, i, apart.losses[i], whole.losses[i]);
    assert_true(model_plan(&pieces, backend).total < model_plan(spec, backend).total);
    forget(whole);
    forget(apart);
}
static void test_head_chunks(void **state) { (void)state; everywhere(check_head_chunks); }

/* The outcome of the step before can be read after the next one was started, and is its own. */
static void check_outcomes(const Backend *backend, const ModelSpec *spec, const char *what) {
    Model m;
    double known[4];
    Batch b = batch_of(ROWS, spec->T, spec->config.V, true, 5);
    for (int late = 0; late < 2; late++) {
        create_on(backend, &m, spec);
        for (int64_t step = 0; step < 4; step++) {
            accumulate(&m, &b, step, 1e-2, 1);
            model_update(&m);
            if (!late) known[step] = model_outcome(&m, 0).loss;
            if (late && step > 0 && model_outcome(&m, 1).loss != known[step - 1])
                fail_msg("%s: step %d: %g, expected %g", what, (int)step - 1, model_outcome(&m, 1).loss, known[step - 1]);
        }
        assert_true(model_outcome(&m, 0).loss == known[3] && model_loss(&m) == known[3]);
        assert_true(known[0] != known[1] && model_grad_norm(&m) == model_outcome(&m, 0).grad_norm);
        model_free(&m);
    }
    free_batch(b);
}
static void test_outcomes(void **state) { (void)state; everywhere(check_outcomes); }

/* A model that takes the parameters over has a stream of its own: it gets those after the update that was put into the other's just before. */
static void check_copies(const Backend *backend, const ModelSpec *spec, const char *what) {
    Model m, writer;
    ModelSpec of_writer = *spec;
    Batch b = batch_of(ROWS, spec->T, spec->config.V, true, 5);
    of_writer.mode = MODEL_GENERATE;
    of_writer.B = 1;
    create_on(backend, &m, spec);
    model_create(&writer, &of_writer, backend);
    accumulate(&m, &b, 0, 1e-2, 1);
    model_update(&m);
    model_copy_parameters(&writer, &m);
    size_t bytes = tensor_bytes(m.parameters);
    char *copied = malloc(bytes), *expected = malloc(bytes);
    backend->download(copied, writer.parameters.data, bytes, writer.stream);
    backend->download(expected, m.parameters.data, bytes, m.stream);
    if (memcmp(copied, expected, bytes) != 0) fail_msg("%s: the copy is older than the update", what);
    free(copied);
    free(expected);
    model_free(&writer);
    model_free(&m);
    free_batch(b);
}
static void test_copies(void **state) { (void)state; everywhere(check_copies); }

/* Bits of everything that an update writes. */
typedef struct { unsigned char *bytes; size_t size; } Bits;
static Bits bits_of_model(const Model *m) {
    const Tensor tensors[] = {m->parameters, m->masters, m->m, m->v};
    Bits bits = {NULL, 0};
    for (int i = 0; i < 4; i++) {
        size_t size = tensor_bytes(tensors[i]);
        if (!size) continue;
        bits.bytes = realloc(bits.bytes, bits.size + size);
        m->backend->download(bits.bytes + bits.size, tensors[i].data, size, m->stream);
        bits.size += size;
    }
    return bits;
}

/* Inf or NaN in one element of the gradient, or in the loss alone, changes no parameter and no moment, and nothing of it lingers. */
static void check_bad_numbers(const Backend *backend, const ModelSpec *spec, const char *what) {
    const float bad[] = {INFINITY, NAN, -INFINITY};
    Batch b = batch_of(ROWS, spec->T, spec->config.V, false, 5);
    for (int sgd = 0; sgd < 2; sgd++) {
        Model m;
        ModelSpec s = *spec;
        s.optimizer = (OptimizerKind)sgd;
        create_on(backend, &m, &s);
        train(&m, &b, 0, 1, 1e-3);
        for (int k = 0; k < 6; k++) {
            int64_t places[] = {0, m.table.elements / 2, m.table.elements - 64};
            Bits before = bits_of_model(&m);
            accumulate(&m, &b, 1, 1e-3, k % 2);
            void *place = k < 5 ? (void *)((float *)m.gradients.data + places[k % 3]) : m.a.totals.data;
            backend->upload(place, &bad[k % 3], sizeof(float), m.stream);
            model_update(&m);
            assert_true(model_outcome(&m, 0).skip == SKIP_NOT_FINITE);
            Bits after = bits_of_model(&m);
            if (memcmp(before.bytes, after.bytes, before.size) != 0) fail_msg("%s: case %d changed something", what, k);
            assert_int_equal(model_updates(&m), 1);
            free(before.bytes);
            free(after.bytes);
        }
        train(&m, &b, 1, 1, 1e-3);
        assert_int_equal(model_updates(&m), 2);
        model_free(&m);
    }
    free_batch(b);
}
static void test_bad_numbers(void **state) { (void)state; everywhere(check_bad_numbers); }

/* One batch of six rows, or three micro-batches of two: the same masks fall, whatever the backend; sums in another order. */
static void check_micro_batches(const Backend *backend, const ModelSpec *spec, const char *what) {
    ModelSpec whole = *spec;
    whole.B = ROWS;
    Trained micro = train_on(backend, spec, false), one = train_on(backend, &whole, false);
    Trained reference = train_on(backend_find("cpu"), spec, false);
    double tolerance = spec->dtype == F32 ? 1e-5 : 0x1p-7;
    for (int i = 0; i < STEPS; i++) {
        if (!(fabs(micro.losses[i] / one.losses[i] - 1) <= tolerance)) fail_msg("%s: step %d: %g, %g", what, i, micro.losses[i], one.losses[i]);
        if (!(fabs(micro.losses[i] / reference.losses[i] - 1) <= tolerance))
            fail_msg("%s: step %d: %g, on the cpu %g", what, i, micro.losses[i], reference.losses[i]);
    }
    forget(micro);
    forget(one);
    forget(reference);
}
static void test_micro_batches(void **state) { (void)state; everywhere(check_micro_batches); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graphs), cmocka_unit_test(test_recompute), cmocka_unit_test(test_residual),
        cmocka_unit_test(test_head_chunks), cmocka_unit_test(test_outcomes), cmocka_unit_test(test_copies),
        cmocka_unit_test(test_bad_numbers), cmocka_unit_test(test_micro_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
