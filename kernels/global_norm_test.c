/* global_norm_test.c: the sum of squares, and the norm with loss, clipping and skipping, against plain double references. */
#include "optimizer_test.h"

/* The state after global_norm of these gradients. */
static StepState norm_of(const Backend *b, const double *grad, int64_t n, float max_norm) {
    StepState *state = device_state(b, (StepState){.targets = TARGETS, .max_norm = max_norm, .updates = 7, .loss = NAN, .grad_norm = NAN,
                                                   .clip_scale = NAN, .skip = 5});
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
            assert_true(unclipped.skip == 0 && above.skip == 0 && below.skip == 0 && below.updates == 8 && below.loss == 3);
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
        StepState *state = device_state(b, (StepState){.targets = TARGETS, .updates = 7});
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
            assert_int_equal(state.skip, SKIP_NOT_FINITE);
            assert_int_equal(state.updates, 7);
            assert_true(!isfinite(state.grad_norm));
            grad[places[i]] = saved;
        }
    for (int i = 0; i < N; i++) grad[i] = 3e38;
    assert_int_equal(norm_of(b, grad, N, 1).skip, SKIP_NOT_FINITE);
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

/* What global_norm makes of totals and squares. `scale`: of the gradient, before clipping. */
typedef struct {
    const char *what;
    float targets, max_norm, spike_loss, spike_norm;
    double losses, valid, squares;
    double loss, norm, scale;   /* expected, where the update is not left out */
    StepSkip skip;
} NormCase;

static const NormCase NORM_CASES[] = {
    {"as many valid as expected", 48, 0, 0, 0, 96, 48, 16, 2, 4, 1, SKIP_NOTHING},
    {"so many that fp32 holds every fourth", 33554436, 0, 0, 0, 67108872, 33554436, 16, 2, 4, 1, SKIP_NOTHING},
    {"half as many", 48, 0, 0, 0, 96, 24, 16, 4, 8, 2, SKIP_NOTHING},
    {"twice as many", 48, 0, 0, 0, 96, 96, 16, 1, 2, 0.5, SKIP_NOTHING},
    {"a third", 3, 0, 0, 0, 9, 9, 81, 1, 3, 1 / 3.0, SKIP_NOTHING},
    {"clipped by the norm of the mean", 48, 6, 0, 0, 96, 24, 16, 4, 8, 2 * 6 / (8 + 1e-6), SKIP_NOTHING},
    {"not clipped by it", 48, 3, 0, 0, 96, 96, 16, 1, 2, 0.5, SKIP_NOTHING},
    {"none valid", 48, 0, 0, 0, 0, 0, 16, 0, 4, 1, SKIP_NOTHING},
    {"none valid, none expected", 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, SKIP_NOTHING},
    {"loss at the limit", 48, 0, 2, 0, 96, 48, 16, 2, 4, 1, SKIP_NOTHING},
    {"loss above it", 48, 0, 2, 0, 96.25, 48, 16, 96.25 / 48, 4, 1, SKIP_SPIKE},
    {"norm at the limit", 48, 0, 0, 4, 96, 48, 16, 2, 4, 1, SKIP_NOTHING},
    {"norm above it", 48, 0, 0, 4, 96, 48, 16.25, 2, 4.03112887414927, 1, SKIP_SPIKE},
    {"norm above it by fewer valid targets", 48, 0, 0, 4, 96, 47, 16, 96 / 47.0, 4 * 48 / 47.0, 48 / 47.0, SKIP_SPIKE},
    {"both below", 48, 0, 2.5f, 4.5f, 96, 48, 16, 2, 4, 1, SKIP_NOTHING},
    {"NaN is no spike", 48, 0, 1, 1, NAN, 48, 16, NAN, 4, 1, SKIP_NOT_FINITE},
    {"loss infinite", 48, 0, 1, 1, INFINITY, 48, 16, INFINITY, 4, 1, SKIP_NOT_FINITE},
    {"loss minus infinite", 48, 0, 0, 0, -INFINITY, 48, 16, -INFINITY, 4, 1, SKIP_NOT_FINITE},
    {"loss NaN where none is valid", 48, 0, 0, 0, NAN, 0, 16, NAN, 4, 1, SKIP_NOT_FINITE},
    {"valid NaN", 48, 0, 0, 0, 96, NAN, 16, NAN, NAN, NAN, SKIP_NOT_FINITE},
    {"valid infinite", 48, 0, 0, 0, 96, INFINITY, 16, 0, 0, 0, SKIP_NOT_FINITE},
    {"squares NaN", 48, 1, 0, 3, 96, 48, NAN, 2, NAN, 1, SKIP_NOT_FINITE},
    {"squares infinite", 48, 0, 0, 3, 96, 48, INFINITY, 2, INFINITY, 1, SKIP_NOT_FINITE},
    {"squares beyond fp32, norm within", 48, 0, 0, 0, 96, 48, 1e60, 2, 1e30, 1, SKIP_NOTHING},
    {"norm beyond fp32", 48, 0, 0, 3, 96, 48, 1e80, 2, INFINITY, 1, SKIP_NOT_FINITE},
};

static bool nearly(double got, double expected) { return got == expected || fabs(got - expected) <= 0x1p-23 * fabs(expected); }

static void check_norm_case(const Backend *b, const NormCase *c) {
    const StepState before = {.seed = 3, .sample = 5, .step = 11, .lr = 0.5f, .loss_scale = 0.25f, .targets = c->targets, .max_norm = c->max_norm,
                              .spike_loss = c->spike_loss, .spike_norm = c->spike_norm, .skip = 9, .updates = 7};
    const double values[TOTALS] = {c->losses, c->valid, NAN};   /* the votes are for others */
    Tensor totals = test_tensor(b, F32, values, 1, TOTALS, 0, 0, 0), squares = test_tensor(b, F64, &c->squares, 1, 1, 0, 0, 0);
    StepState *state = device_state(b, before), after;
    b->op.global_norm(state, totals, squares, NULL);
    after = host_state(b, state);
    if (after.skip != c->skip || after.updates != 7u + !c->skip) fail_msg("%s: skip %u, updates %u", c->what, after.skip, after.updates);
    if (c->skip != SKIP_NOT_FINITE && !(nearly(after.loss, c->loss) && nearly(after.grad_norm, c->norm) && nearly(after.clip_scale, c->scale)))
        fail_msg("%s: loss %.9g, norm %.9g, scale %.9g, expected %.9g, %.9g, %.9g", c->what, after.loss, after.grad_norm, after.clip_scale, c->loss,
                 c->norm, c->scale);
    assert_true(c->scale != 1 || after.clip_scale == 1);   /* not by rounding */
    StepState rest = after;   /* all else is as it was */
    rest.loss = before.loss, rest.grad_norm = before.grad_norm, rest.clip_scale = before.clip_scale, rest.skip = before.skip, rest.updates = 7;
    assert_memory_equal(&rest, &before, sizeof rest);
    test_free(b, totals); test_free(b, squares); b->release(state);
}

static void check_norm_cases(const Backend *b, DType dtype) {
    (void)dtype;
    for (size_t i = 0; i < sizeof NORM_CASES / sizeof *NORM_CASES; i++) check_norm_case(b, &NORM_CASES[i]);
}

/* The sum over pieces of one buffer, some of them empty, is that over the whole: in double, each of n additions is off by at most 2^-53. A piece
   alone gives its own sum, whatever the sum held before. */
static void check_sum_of_pieces(const Backend *b, DType dtype) {
    enum { LENGTH = 70001, CUTS = 8 };
    static const int cuts[CUTS] = {0, 0, 64, 6400, 6401, 40000, LENGTH, LENGTH};
    double *x = random_values(LENGTH, 1e30, dtype), whole = 0;   /* squares beyond fp32 */
    Tensor sum = test_tensor(b, F64, NULL, 1, 1, 0, 0, 0), all = test_tensor(b, dtype, x, 1, LENGTH, 0, 0, 0);
    for (int k = 0; k < CUTS - 1; k++) {
        Tensor piece = tensor((char *)all.data + (size_t)cuts[k] * dtype_size(dtype), dtype, 1, cuts[k + 1] - cuts[k], 0, 0, 0);
        double expected = 0;
        for (int i = cuts[k]; i < cuts[k + 1]; i++) expected += x[i] * x[i];
        whole += expected;
        for (int accumulate = 0; accumulate <= 1; accumulate++) {
            Tensor into = accumulate ? sum : test_tensor(b, F64, NULL, 1, 1, 0, 0, 0);
            b->op.sum_of_squares(into, piece, accumulate && k > 0, NULL);
            double *got = test_values(b, into);
            expect_number(*got, accumulate ? whole : expected, LENGTH * 0x1p-53);
            if (!accumulate) test_free(b, into);
            free(got);
        }
    }
    test_free(b, sum); test_free(b, all);
    free(x);
}

static void global_norm(void **state) { (void)state; on_every_backend(check_norm); }
static void global_norm_of_many(void **state) { (void)state; on_every_backend(check_long_norm); }
static void global_norm_not_finite_skips(void **state) { (void)state; on_every_backend(check_not_finite); }
static void global_norm_is_deterministic(void **state) { (void)state; on_every_backend(check_norm_determinism); }
static void global_norm_scales_and_skips(void **state) { (void)state; on_every_backend(check_norm_cases); }
static void sum_of_squares_of_pieces(void **state) { (void)state; on_every_backend(check_sum_of_pieces); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(global_norm),
        cmocka_unit_test(global_norm_of_many),
        cmocka_unit_test(global_norm_not_finite_skips),
        cmocka_unit_test(global_norm_is_deterministic),
        cmocka_unit_test(global_norm_scales_and_skips),
        cmocka_unit_test(sum_of_squares_of_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
