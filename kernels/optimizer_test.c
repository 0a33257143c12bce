/* optimizer_test.c: AdamW and SGD, whole and in parts, and updates left out, against plain double references. */
#include "optimizer_test.h"

/* Flat buffers cut in the middle of vectors and chunks, with an empty piece. Even pieces are decayed. */
enum { N = 5011, PIECES = 5 };
static const double SEGMENTS[PIECES + 1] = {0, 1000, 1000, 2333, 4999, N};
static bool is_decayed(int i) { return i < 2333 || i >= 4999; }

typedef struct {
    Tensor param, master, m, v, grad, segments;
    StepState *state;
    double *w, *first, *second;   /* the reference's weights and moments */
} Optimizer;

static Optimizer make_optimizer(const Backend *b, DType dtype, StepState state) {
    Optimizer o = {.w = random_values(N, 1, F32), .first = calloc(N, sizeof(double)), .second = calloc(N, sizeof(double))};
    o.master = test_tensor(b, F32, o.w, 1, N, 0, 0, 0);
    o.param = dtype == BF16 ? test_tensor(b, BF16, NULL, 1, N, 0, 0, 0) : o.master;
    o.m = test_tensor(b, F32, o.first, 1, N, 0, 0, 0);
    o.v = test_tensor(b, F32, o.second, 1, N, 0, 0, 0);
    o.grad = test_tensor(b, F32, NULL, 1, N, 0, 0, 0);
    o.segments = test_tensor(b, I64, SEGMENTS, 1, PIECES + 1, 0, 0, 0);
    state.targets = TARGETS;
    o.state = device_state(b, state);
    return o;
}

static void free_optimizer(const Backend *b, Optimizer o) {
    if (o.param.data != o.master.data) test_free(b, o.param);
    test_free(b, o.master); test_free(b, o.m); test_free(b, o.v); test_free(b, o.grad); test_free(b, o.segments); b->release(o.state);
    free(o.w); free(o.first); free(o.second);
}

/* Gradients from 1e-9 to 1, so that eps (1e-8) counts for some; returns them, uploaded and with their norm taken. */
static double *next_gradient(const Backend *b, Optimizer *o) {
    double *grad = malloc(N * sizeof *grad);
    float host[N];
    for (int i = 0; i < N; i++) grad[i] = host[i] = (float)(test_normal() * pow(10, -(i % 10)));
    b->upload(o->grad.data, host, sizeof host, NULL);
    compute_norm(b, o->state, o->grad);
    return grad;
}

/* What the model computes with is the master weight, rounded once. */
static void expect_param_is_rounded_master(const Backend *b, Optimizer o) {
    double *param = test_values(b, o.param), *master = test_values(b, o.master);
    for (int i = 0; i < N; i++) assert_true(param[i] == rounded(master[i], o.param.dtype));
    free(param); free(master);
}

/* Loshchilov and Hutter's update number t, in double. */
static void reference_adamw(Optimizer *o, const double *grad, AdamW c, double lr, double clip_scale, int t) {
    for (int i = 0; i < N; i++) {
        double g = grad[i] * clip_scale;
        o->first[i] = c.beta1 * o->first[i] + (1 - (double)c.beta1) * g;
        o->second[i] = c.beta2 * o->second[i] + (1 - (double)c.beta2) * g * g;
        double mhat = o->first[i] / (1 - pow(c.beta1, t)), vhat = o->second[i] / (1 - pow(c.beta2, t));
        o->w[i] -= lr * (mhat / (sqrt(vhat) + c.eps) + (is_decayed(i) ? c.weight_decay * o->w[i] : 0));
    }
}

/* Ten steps, each weight rounded once a step to half a unit in the last place (2^-24): at most 10 * 2^-24 = 6e-7 of the weight, and
   a tenth of the tolerance on it. Its change is about 10 lr, so the same errors are up to 6e-6 of that at lr = 0.01. */
static void check_adamw(const Backend *b, DType dtype) {
    AdamW config = {0.9f, 0.95f, 1e-8f, 0.1f};
    float lr = 0.01f;
    Optimizer o = make_optimizer(b, dtype, (StepState){.lr = lr, .max_norm = 10});
    double *start = malloc(N * sizeof *start);
    memcpy(start, o.w, N * sizeof *start);
    for (int t = 1; t <= 10; t++) {
        double *grad = next_gradient(b, &o);
        StepState state = host_state(b, o.state);
        assert_int_equal(state.updates, t);
        assert_true(state.clip_scale < 1);
        b->op.adamw(o.param, o.master, o.m, o.v, o.grad, o.segments, config, o.state, NULL);
        reference_adamw(&o, grad, config, lr, state.clip_scale, t);
        free(grad);
    }
    expect_close("adamw master", b, o.master, o.w, 1);
    expect_close("adamw m", b, o.m, o.first, 1);
    expect_close("adamw v", b, o.v, o.second, 1);
    double *change = test_values(b, o.master);
    for (int i = 0; i < N; i++) change[i] -= start[i], o.w[i] -= start[i];
    assert_true(relative_error(change, o.w, N) <= 2e-5);
    expect_param_is_rounded_master(b, o);
    free(start); free(change);
    free_optimizer(b, o);
}

static void check_sgd(const Backend *b, DType dtype) {
    float lr = 0.01f, decay = 0.1f;
    Optimizer o = make_optimizer(b, dtype, (StepState){.lr = lr, .max_norm = 10});
    for (int t = 1; t <= 10; t++) {
        double *grad = next_gradient(b, &o);
        double clip_scale = host_state(b, o.state).clip_scale;
        b->op.sgd(o.param, o.master, o.grad, o.segments, decay, o.state, NULL);
        for (int i = 0; i < N; i++) o.w[i] -= lr * (grad[i] * clip_scale + (is_decayed(i) ? decay * o.w[i] : 0));
        free(grad);
    }
    expect_close("sgd master", b, o.master, o.w, 1);
    expect_param_is_rounded_master(b, o);
    free_optimizer(b, o);
}

static unsigned char *bytes_of(const Backend *b, Tensor t) {
    unsigned char *bytes = malloc(tensor_bytes(t));
    b->download(bytes, t.data, tensor_bytes(t), NULL);
    return bytes;
}

/* A gradient that is not finite, in one element or in all, changes no bit of anything; the next good one trains as if it had never been. */
static void check_skip(const Backend *b, DType dtype) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, NAN};
    static const int places[] = {0, 2500, N - 1, -1};   /* -1: everywhere */
    AdamW config = {0.9f, 0.95f, 1e-8f, 0.1f};
    Optimizer o = make_optimizer(b, dtype, (StepState){.lr = 0.01f, .max_norm = 1});
    double *grad = next_gradient(b, &o);
    b->op.adamw(o.param, o.master, o.m, o.v, o.grad, o.segments, config, o.state, NULL);
    Tensor kept[] = {o.param, o.master, o.m, o.v};
    unsigned char *before[4];
    for (int i = 0; i < 4; i++) before[i] = bytes_of(b, kept[i]);
    Tensor good = o.grad;
    for (int k = 0; k < 4; k++) {
        double *with_bad = malloc(N * sizeof *with_bad);
        for (int i = 0; i < N; i++) with_bad[i] = i == places[k] || places[k] < 0 ? bad[k] : grad[i];
        o.grad = test_tensor(b, F32, with_bad, 1, N, 0, 0, 0);
        compute_norm(b, o.state, o.grad);
        b->op.adamw(o.param, o.master, o.m, o.v, o.grad, o.segments, config, o.state, NULL);
        b->op.sgd(o.param, o.master, o.grad, o.segments, 0.1f, o.state, NULL);
        for (int i = 0; i < 4; i++) {
            unsigned char *after = bytes_of(b, kept[i]);
            assert_memory_equal(after, before[i], tensor_bytes(kept[i]));
            free(after);
        }
        assert_int_equal(host_state(b, o.state).skip, SKIP_NOT_FINITE);
        assert_int_equal(host_state(b, o.state).updates, 1);
        test_free(b, o.grad);
        free(with_bad);
    }
    for (int i = 0; i < 4; i++) free(before[i]);
    o.grad = good;
    compute_norm(b, o.state, o.grad);
    assert_int_equal(host_state(b, o.state).skip, 0);
    assert_int_equal(host_state(b, o.state).updates, 2);
    free(grad);
    free_optimizer(b, o);
}

/* A longer buffer in some 400 pieces of 0 to 999 elements, a third of them shorter than a vector, which leave out the first 3 elements and
   the last 2; `from` is how many elements the buffers lie past an aligned address. Decay is large, so that a piece taken
   for another shows. */
static void check_pieces_from(const Backend *b, DType dtype, int from) {
    enum { LENGTH = 70003, MOST = 2000 };
    double *w = random_values(LENGTH, 1, F32), *grad = random_values(LENGTH, 1, F32), *bounds = malloc(MOST * sizeof *bounds);
    int pieces = 0;
    bounds[0] = 3;
    while (bounds[pieces] < LENGTH - 2 && pieces < MOST - 1) {
        double next = bounds[pieces] + (test_below(3) ? test_below(500 * (1 + pieces % 2)) : test_below(4));
        bounds[++pieces] = next < LENGTH - 2 ? next : LENGTH - 2;
    }
    assert_true(bounds[pieces] == LENGTH - 2);
    Tensor masters = test_tensor(b, F32, w, 1, LENGTH, 0, 0, 0), grads = test_tensor(b, F32, grad, 1, LENGTH, 0, 0, 0);
    Tensor params = test_tensor(b, dtype, w, 1, LENGTH, 0, 0, 0), segments = test_tensor(b, I64, bounds, 1, pieces + 1, 0, 0, 0);
    Tensor master = tensor((float *)masters.data + from, F32, 1, LENGTH - from, 0, 0, 0);
    Tensor gradient = tensor((float *)grads.data + from, F32, 1, LENGTH - from, 0, 0, 0);
    Tensor param = dtype == BF16 ? tensor((uint16_t *)params.data + from, BF16, 1, LENGTH - from, 0, 0, 0) : master;
    StepState *state = device_state(b, (StepState){.lr = 0.5f, .clip_scale = 0.25f});
    b->op.sgd(param, master, gradient, segments, 0.5f, state, NULL);
    for (int p = 0; p < pieces; p++)
        for (int i = (int)bounds[p] + from; i < bounds[p + 1] + from && i < LENGTH; i++)
            w[i] = w[i] * (p % 2 == 0 ? 0.75 : 1) - 0.125 * grad[i];
    expect_close("sgd over many pieces", b, masters, w, 1);
    double *got = test_values(b, masters), *copy = test_values(b, params);
    for (int i = 0; i < 3 + from; i++) assert_true(got[i] == w[i]);
    for (int i = 0; i < LENGTH && dtype == BF16; i++) assert_true(copy[i] == rounded(got[i], BF16));
    free(got); free(copy); free(w); free(grad); free(bounds);
    test_free(b, masters); test_free(b, grads); test_free(b, params); test_free(b, segments); b->release(state);
}

static void check_pieces(const Backend *b, DType dtype) {
    check_pieces_from(b, dtype, 0);
    check_pieces_from(b, dtype, 1);
}

/* A spike changes no bit either. */
static void check_spike(const Backend *b, DType dtype) {
    AdamW config = {0.9f, 0.95f, 1e-8f, 0.1f};
    Optimizer o = make_optimizer(b, dtype, (StepState){.lr = 0.01f, .spike_loss = 2.5f});   /* compute_norm's is 3 */
    Tensor kept[] = {o.param, o.master, o.m, o.v};
    unsigned char *before[4];
    for (int i = 0; i < 4; i++) before[i] = bytes_of(b, kept[i]);
    free(next_gradient(b, &o));
    b->op.adamw(o.param, o.master, o.m, o.v, o.grad, o.segments, config, o.state, NULL);
    b->op.sgd(o.param, o.master, o.grad, o.segments, 0.1f, o.state, NULL);
    assert_int_equal(host_state(b, o.state).skip, SKIP_SPIKE);
    for (int i = 0; i < 4; i++) {
        unsigned char *after = bytes_of(b, kept[i]);
        assert_memory_equal(after, before[i], tensor_bytes(kept[i]));
        free(after); free(before[i]);
    }
    free_optimizer(b, o);
}

/* Elements from ... to - 1 of a flat tensor, and of segments what lies in them, counted from there. */
static Tensor part(Tensor t, int64_t from, int64_t to) {
    return tensor((char *)t.data + from * (int64_t)dtype_size(t.dtype), t.dtype, 1, to - from, 0, 0, 0);
}
static Tensor segments_of_part(const Backend *b, int64_t from, int64_t to) {
    double bounds[PIECES + 1];
    for (int p = 0; p <= PIECES; p++) bounds[p] = (SEGMENTS[p] < from ? from : SEGMENTS[p] > to ? to : SEGMENTS[p]) - from;
    return test_tensor(b, I64, bounds, 1, PIECES + 1, 0, 0, 0);
}

/* Ranks that share the work each update a part: the result is the same bits as of one update of the whole. A part may begin in a piece that is not
   decayed, end before the buffer, or be empty. */
static void check_parts(const Backend *b, DType dtype) {
    static const int64_t cuts[] = {0, 64, 1024, 2368, 2368, 4992, 5056};
    AdamW config = {0.9f, 0.95f, 1e-8f, 0.5f};
    unsigned char *whole[4];
    for (int in_parts = 0; in_parts <= 1; in_parts++) {
        test_seed = 99;
        Optimizer o = make_optimizer(b, dtype, (StepState){.lr = 0.1f});
        free(next_gradient(b, &o));
        for (int k = 0; k < (in_parts ? 6 : 1); k++) {
            int64_t from = in_parts ? cuts[k] : 0, to = !in_parts || cuts[k + 1] > N ? N : cuts[k + 1];
            Tensor segments = segments_of_part(b, from, to), param = part(o.param, from, to), master = part(o.master, from, to);
            Tensor grad = part(o.grad, from, to);
            b->op.adamw(param, master, part(o.m, from, to), part(o.v, from, to), grad, segments, config, o.state, NULL);
            b->op.sgd(param, master, grad, segments, 0.5f, o.state, NULL);
            test_free(b, segments);
        }
        Tensor kept[] = {o.param, o.master, o.m, o.v};
        for (int i = 0; i < 4; i++) {
            unsigned char *bytes = bytes_of(b, kept[i]);
            if (in_parts) assert_memory_equal(bytes, whole[i], tensor_bytes(kept[i]));
            if (in_parts) free(bytes), free(whole[i]);
            else whole[i] = bytes;
        }
        free_optimizer(b, o);
    }
}

/* The result is the same bits for any number of threads. */
static void check_adamw_determinism(const Backend *b, DType dtype) {
    AdamW config = {0.9f, 0.95f, 1e-8f, 0.1f};
    unsigned char *first = NULL;
    for (int threads = 1; threads <= 4; threads++) {
#ifdef _OPENMP
        omp_set_num_threads(threads);
#endif
        test_seed = 99;
        Optimizer o = make_optimizer(b, dtype, (StepState){.lr = 0.01f});
        free(next_gradient(b, &o));
        b->op.adamw(o.param, o.master, o.m, o.v, o.grad, o.segments, config, o.state, NULL);
        unsigned char *bytes = bytes_of(b, o.master);
        if (!first) first = bytes;
        assert_memory_equal(bytes, first, tensor_bytes(o.master));
        if (bytes != first) free(bytes);
        free_optimizer(b, o);
    }
    free(first);
}

static void adamw(void **state) { (void)state; on_every_backend(check_adamw); }
static void adamw_is_deterministic(void **state) { (void)state; on_every_backend(check_adamw_determinism); }
static void sgd(void **state) { (void)state; on_every_backend(check_sgd); }
static void many_pieces(void **state) { (void)state; on_every_backend(check_pieces); }
static void parts_make_the_whole(void **state) { (void)state; on_every_backend(check_parts); }
static void skip_changes_no_bit(void **state) { (void)state; on_every_backend(check_skip); }
static void spike_changes_no_bit(void **state) { (void)state; on_every_backend(check_spike); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw),
        cmocka_unit_test(adamw_is_deterministic),
        cmocka_unit_test(sgd),
        cmocka_unit_test(many_pieces),
        cmocka_unit_test(parts_make_the_whole),
        cmocka_unit_test(skip_changes_no_bit),
        cmocka_unit_test(spike_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
