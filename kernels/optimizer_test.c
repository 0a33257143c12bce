/* optimizer_test.c: the global norm with clipping and skipping, AdamW and SGD, against plain double references. */
#include "op_test.h"

static StepState *device_state(const Backend *b, StepState state) {
    StepState *device = b->alloc(sizeof state);
    b->upload(device, &state, sizeof state, NULL);
    return device;
}

static StepState host_state(const Backend *b, const StepState *device) {
    StepState state;
    b->download(&state, device, sizeof state, NULL);
    return state;
}

/* With a loss that is finite. */
static void compute_norm(const Backend *b, StepState *state, Tensor grad) {
    const double value = 3;
    Tensor loss = test_tensor(b, F32, &value, 1, 1, 0, 0, 0);
    b->op.global_norm(state, loss, grad, NULL);
    b->synchronize(NULL);
    test_free(b, loss);
}

/* The state after global_norm of these gradients. */
static StepState norm_of(const Backend *b, const double *grad, int64_t n, float max_norm) {
    StepState *state = device_state(b, (StepState){.max_norm = max_norm, .updates = 7, .grad_norm = NAN, .clip_scale = NAN, .skip = 5});
    Tensor d_grad = test_tensor(b, F32, grad, 1, n, 0, 0, 0);
    compute_norm(b, state, d_grad);
    StepState result = host_state(b, state);
    test_free(b, d_grad); b->release(state);
    return result;
}

static void expect_number(double got, double expected, double relative) {
    if (!(fabs(got - expected) <= relative * fabs(expected))) fail_msg("%.9g, expected %.9g", got, expected);
}

/* The sum is exact to double, so only the rounding of the result to fp32 shows. 1e30 is beyond what can be squared in fp32. */
static void check_norm(const Backend *b, DType dtype) {
    static const int64_t sizes[] = {1, 2, 255, 1000, 16383, 16384, 16385, 70001};
    static const double scales[] = {1e-30, 1e-3, 1, 1e30};
    (void)dtype;
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++) {
            double *grad = random_values(sizes[i], scales[j], F32), norm = 0;
            for (int64_t k = 0; k < sizes[i]; k++) norm += grad[k] * grad[k];
            norm = sqrt(norm);
            StepState unclipped = norm_of(b, grad, sizes[i], 0), above = norm_of(b, grad, sizes[i], (float)(2 * norm));
            StepState below = norm_of(b, grad, sizes[i], (float)(norm / 4));
            expect_number(unclipped.grad_norm, norm, 0x1p-23);
            assert_true(unclipped.clip_scale == 1 && above.clip_scale == 1);
            expect_number(below.clip_scale, (float)(norm / 4) / (norm + 1e-6), 0x1p-22);
            assert_true(unclipped.skip == 0 && above.skip == 0 && below.skip == 0 && below.updates == 8);
            free(grad);
        }
}

/* So many elements that the CUDA kernel has more partial sums than threads to add them, from an address that is a multiple of 16 bytes and
   from one that is not. */
static void check_long_norm(const Backend *b, DType dtype) {
    enum { LENGTH = 1025 * 16384 + 7 };
    (void)dtype;
    float *grad = malloc(LENGTH * sizeof *grad);
    for (int i = 0; i < LENGTH; i++) grad[i] = i % 16384 == 5 ? 3.0f : 0.25f;
    float *device = b->alloc(LENGTH * sizeof *grad);
    b->upload(device, grad, LENGTH * sizeof *grad, NULL);
    for (int from = 0; from < 2; from++) {
        StepState *state = device_state(b, (StepState){.updates = 7});
        compute_norm(b, state, tensor(device + from, F32, 1, LENGTH - from, 0, 0, 0));
        double large = 1026, small = LENGTH - from - large;
        expect_number(host_state(b, state).grad_norm, sqrt(9 * large + 0.0625 * small), 0x1p-23);
        b->release(state);
    }
    b->release(device);
    free(grad);
}

/* A single bad element, anywhere, or a norm too large for fp32: skip, and do not count the update. */
static void check_not_finite(const Backend *b, DType dtype) {
    enum { N = 5003 };
    static const int places[] = {0, 1, 2500, N - 1};
    (void)dtype;
    double *grad = random_values(N, 1, F32);
    for (int i = 0; i < 4; i++)
        for (int kind = 0; kind < 3; kind++) {
            double saved = grad[places[i]];
            grad[places[i]] = kind == 0 ? NAN : kind == 1 ? INFINITY : -INFINITY;
            StepState state = norm_of(b, grad, N, 1);
            assert_int_equal(state.skip, 1);
            assert_int_equal(state.updates, 7);
            assert_true(!isfinite(state.grad_norm));
            grad[places[i]] = saved;
        }
    for (int i = 0; i < N; i++) grad[i] = 3e38;
    assert_int_equal(norm_of(b, grad, N, 1).skip, 1);
    free(grad);
}

static void check_norm_determinism(const Backend *b, DType dtype) {
    double *grad = random_values(100003, 1, F32);
    StepState first = norm_of(b, grad, 100003, 1);
    (void)dtype;
    for (int threads = 1; threads <= 4; threads++) {
#ifdef _OPENMP
        omp_set_num_threads(threads);
#endif
        StepState again = norm_of(b, grad, 100003, 1);
        assert_memory_equal(&again, &first, sizeof first);
    }
    free(grad);
}

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
        assert_int_equal(host_state(b, o.state).skip, 1);
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

static void global_norm(void **state) { (void)state; on_every_backend(check_norm); }
static void global_norm_of_many(void **state) { (void)state; on_every_backend(check_long_norm); }
static void global_norm_not_finite_skips(void **state) { (void)state; on_every_backend(check_not_finite); }
static void global_norm_is_deterministic(void **state) { (void)state; on_every_backend(check_norm_determinism); }
static void adamw(void **state) { (void)state; on_every_backend(check_adamw); }
static void adamw_is_deterministic(void **state) { (void)state; on_every_backend(check_adamw_determinism); }
static void sgd(void **state) { (void)state; on_every_backend(check_sgd); }
static void many_pieces(void **state) { (void)state; on_every_backend(check_pieces); }
static void skip_changes_no_bit(void **state) { (void)state; on_every_backend(check_skip); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(global_norm),
        cmocka_unit_test(global_norm_of_many),
        cmocka_unit_test(global_norm_not_finite_skips),
        cmocka_unit_test(global_norm_is_deterministic),
        cmocka_unit_test(adamw),
        cmocka_unit_test(adamw_is_deterministic),
        cmocka_unit_test(sgd),
        cmocka_unit_test(many_pieces),
        cmocka_unit_test(skip_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
