/* cross_entropy_test.c: losses and their gradient in place against a plain double reference, and the sum of losses. */
#include "op_test.h"

static const double LOSS_SCALE = 0.125;

static void reference_losses(int N, int V, int Vp, double *losses, const double *logits, const double *targets) {
    for (int row = 0; row < N; row++) {
        const double *x = logits + row * Vp;
        double maximum = x[0], sum = 0;
        for (int v = 0; v < V; v++) maximum = x[v] > maximum ? x[v] : maximum;
        for (int v = 0; v < V; v++) sum += exp(x[v] - maximum);
        losses[row] = targets[row] < 0 ? 0 : log(sum) + maximum - x[(int)targets[row]];
    }
}

static void reference_gradient(int N, int V, int Vp, double *gradient, const double *logits, const double *targets) {
    for (int row = 0; row < N; row++) {
        const double *x = logits + row * Vp;
        double maximum = x[0], sum = 0;
        for (int v = 0; v < V; v++) maximum = x[v] > maximum ? x[v] : maximum;
        for (int v = 0; v < V; v++) sum += exp(x[v] - maximum);
        for (int v = 0; v < Vp; v++)
            gradient[row * Vp + v] = targets[row] < 0 || v >= V ? 0 : (exp(x[v] - maximum) / sum - (v == targets[row])) * LOSS_SCALE;
    }
}

/* Logits with NaN in the padding, which must not be looked at, and targets of which about a fourth are masked. */
typedef struct {
    int N, V, Vp;
    double *logits, *targets;
    Tensor d_logits, d_targets, d_losses;
    StepState *state;
} Case;

static Case make_case(const Backend *b, DType dtype, int N, int V, int Vp, double scale) {
    Case c = {.N = N, .V = V, .Vp = Vp, .state = b->alloc(sizeof(StepState))};
    c.logits = random_values(N * Vp, scale, dtype);
    c.targets = malloc((size_t)N * sizeof *c.targets);
    StepState state = {.loss_scale = (float)LOSS_SCALE};
    b->upload(c.state, &state, sizeof state, NULL);
    for (int row = 0; row < N; row++) {
        c.targets[row] = row % 4 == 1 ? -1 : test_below(V);
        for (int v = V; v < Vp; v++) c.logits[row * Vp + v] = NAN;
    }
    c.targets[0] = V - 1;
    c.d_logits = test_tensor(b, dtype, c.logits, 2, N, Vp, 0, 0);
    c.d_targets = test_tensor(b, I32, c.targets, 1, N, 0, 0, 0);
    c.d_losses = test_tensor(b, F32, NULL, 1, N, 0, 0, 0);
    return c;
}

static void free_case(const Backend *b, Case c) {
    test_free(b, c.d_logits); test_free(b, c.d_targets); test_free(b, c.d_losses); b->release(c.state);
    free(c.logits); free(c.targets);
}

static void check_shape(const Backend *b, DType dtype, int N, int V, int Vp, double scale) {
    Case c = make_case(b, dtype, N, V, Vp, scale);
    double *losses = malloc((size_t)N * sizeof *losses), *gradient = malloc((size_t)(N * Vp) * sizeof *gradient);
    reference_losses(N, V, Vp, losses, c.logits, c.targets);
    reference_gradient(N, V, Vp, gradient, c.logits, c.targets);
    b->op.cross_entropy(c.d_losses, c.d_logits, c.d_targets, V, 0, NULL, NULL);
    expect_close("cross_entropy losses, forward only", b, c.d_losses, losses, 1);
    double *kept = test_values(b, c.d_logits);
    for (int i = 0; i < N * Vp; i++) assert_true(kept[i] == c.logits[i] || i % Vp >= V);
    b->op.cross_entropy(c.d_losses, c.d_logits, c.d_targets, V, 1, c.state, NULL);
    expect_close("cross_entropy losses", b, c.d_losses, losses, 1);
    expect_close("cross_entropy gradient", b, c.d_logits, gradient, 1);
    free(losses); free(gradient); free(kept);
    free_case(b, c);
}

static void check_shapes(const Backend *b, DType dtype) {
    check_shape(b, dtype, 1, 1, 128, 1);
    check_shape(b, dtype, 9, 65, 128, 1);
    check_shape(b, dtype, 5, 128, 128, 3);
    check_shape(b, dtype, 6, 3000, 3072, 2);
}

/* Rows on both sides of where the CUDA kernel gives a row a block instead of a warp, and of where it keeps the row in shared memory, with
   and without a remainder in the last vector and in the last copies ahead; and rows that are not aligned. */
static void check_tilings(const Backend *b, DType dtype) {
    check_shape(b, dtype, 9, 1024, 1024, 1);
    check_shape(b, dtype, 3, 1023, 1032, 1);
    check_shape(b, dtype, 2, 4099, 4224, 1);
    check_shape(b, dtype, 2, 24001, 24064, 1);
    check_shape(b, dtype, 1, 24500, 24576, 1);   /* 48 KB in bf16; the next in fp32 */
    check_shape(b, dtype, 1, 12200, 12288, 1);
    check_shape(b, dtype, 2, 50257, 50304, 1);
    check_shape(b, dtype, 2, 51000, 51200, 1);
    check_shape(b, dtype, 3, 7, 7, 1);
    check_shape(b, dtype, 3, 100, 101, 1);
    check_shape(b, dtype, 2, 1500, 1506, 1);
}

/* The same values one element further on in memory, where no vector is aligned, give nearly the same. */
static void check_unaligned(const Backend *b, DType dtype) {
    enum { N = 3, V = 1100, Vp = 1152 };
    Case c = make_case(b, dtype, N, V, Vp, 1);
    double *gradient = malloc(N * Vp * sizeof *gradient), *shifted = calloc(N * Vp + 1, sizeof *shifted);
    reference_gradient(N, V, Vp, gradient, c.logits, c.targets);
    memcpy(shifted + 1, c.logits, N * Vp * sizeof *shifted);
    Tensor whole = test_tensor(b, dtype, shifted, 1, N * Vp + 1, 0, 0, 0);
    Tensor logits = tensor((char *)whole.data + dtype_size(dtype), dtype, 2, N, Vp, 0, 0);
    b->op.cross_entropy(c.d_losses, logits, c.d_targets, V, 1, c.state, NULL);
    expect_close("cross_entropy gradient, unaligned", b, logits, gradient, 1);
    double *before = test_values(b, whole);
    assert_true(before[0] == 0);
    free(gradient); free(shifted); free(before);
    test_free(b, whole);
    free_case(b, c);
}

/* Logits of +-10,000: exp overflows unless the maximum is taken off first. */
static void check_big_values(const Backend *b, DType dtype) { check_shape(b, dtype, 8, 65, 128, 1e4); }

static void check_not_finite(const Backend *b, DType dtype) {
    enum { N = 6, V = 2049, Vp = 2176 };
    for (int kind = 0; kind < 2; kind++) {
        Case c = make_case(b, dtype, N, V, Vp, 1);
        double bad = kind ? INFINITY : NAN;
        c.logits[0 * Vp + 0] = c.logits[1 * Vp + 5] = c.logits[2 * Vp + 1500] = c.logits[3 * Vp + V - 1] = bad;   /* row 1 is masked */
        for (int v = 0; v < V; v++) c.logits[4 * Vp + v] = NAN;
        test_free(b, c.d_logits);
        c.d_logits = test_tensor(b, dtype, c.logits, 2, N, Vp, 0, 0);
        b->op.cross_entropy(c.d_losses, c.d_logits, c.d_targets, V, 1, c.state, NULL);
        double *losses = test_values(b, c.d_losses), *gradient = test_values(b, c.d_logits);
        assert_true(isnan(losses[0]) && isnan(losses[2]) && isnan(losses[3]) && isnan(losses[4]));
        assert_true(losses[1] == 0 && losses[5] == 0);   /* both masked */
        for (int i = 0; i < N * Vp; i++) assert_true(gradient[i] == 0 || (i % Vp < V && i / Vp % 4 != 1));
        free(losses); free(gradient);
        free_case(b, c);
    }
}

/* A logit of -Inf is a token that cannot come: its probability and gradient are 0, also where a thread of the CUDA kernel sees it first. */
static void check_impossible(const Backend *b, DType dtype) {
    enum { N = 4, V = 1500, Vp = 1536 };
    Case c = make_case(b, dtype, N, V, Vp, 1);
    double losses[N], *gradient = malloc(N * Vp * sizeof *gradient);
    for (int row = 0; row < N; row++)
        for (int v = 0; v < 40 + 100 * row; v++) c.logits[row * Vp + v] = v == c.targets[row] ? 1 : -INFINITY;
    reference_losses(N, V, Vp, losses, c.logits, c.targets);
    reference_gradient(N, V, Vp, gradient, c.logits, c.targets);
    test_free(b, c.d_logits);
    c.d_logits = test_tensor(b, dtype, c.logits, 2, N, Vp, 0, 0);
    b->op.cross_entropy(c.d_losses, c.d_logits, c.d_targets, V, 1, c.state, NULL);
    expect_close("cross_entropy losses with -Inf", b, c.d_losses, losses, 1);
    expect_close("cross_entropy gradient with -Inf", b, c.d_logits, gradient, 1);
    free(gradient);
    free_case(b, c);
}

typedef struct { Case c; double *logits; } Point;
static void losses_at(double *out, void *context) {
    Point *p = context;
    reference_losses(p->c.N, p->c.V, p->c.Vp, out, p->logits, p->c.targets);
}

static void check_finite_difference(const Backend *b, DType dtype) {
    enum { N = 3, V = 10, Vp = 16 };
    Case c = make_case(b, dtype, N, V, Vp, 2);
    Point p = {c, c.logits};
    double dout[N] = {LOSS_SCALE, LOSS_SCALE, LOSS_SCALE};
    for (int row = 0; row < N; row++)
        for (int v = V; v < Vp; v++) c.logits[row * Vp + v] = 0;
    double *gradient = finite_difference(losses_at, &p, c.logits, N * Vp, dout, N);
    b->op.cross_entropy(c.d_losses, c.d_logits, c.d_targets, V, 1, c.state, NULL);
    expect_close("cross_entropy gradient by finite differences", b, c.d_logits, gradient, 1);
    free(gradient);
    free_case(b, c);
}

/* 100,000 losses added one by one in fp32 would be off by more than 1e-5; the sum is rounded once. */
static void check_loss_sum_of(const Backend *b, int N) {
    double *losses = malloc((size_t)N * sizeof *losses), total = 0;
    for (int i = 0; i < N; i++) total += losses[i] = rounded(3 + test_uniform(), F32);
    Tensor d_losses = test_tensor(b, F32, losses, 1, N, 0, 0, 0), sum = test_tensor(b, F32, NULL, 1, 1, 0, 0, 0);
    for (int k = 1; k <= 2; k++) {
        b->op.loss_sum(sum, d_losses, k > 1, NULL);
        double *got = test_values(b, sum);
        assert_true(fabs(*got - k * total) <= k * total * 0x1p-23);
        free(got);
    }
    test_free(b, d_losses); test_free(b, sum);
    free(losses);
}

static void check_loss_sum(const Backend *b, DType dtype) {
    (void)dtype;
    check_loss_sum_of(b, 1);
    check_loss_sum_of(b, 31);
    check_loss_sum_of(b, 1025);
    check_loss_sum_of(b, 100001);
}

/* A NaN anywhere, or in the sum so far, is not lost. */
static void check_loss_sum_keeps_nan(const Backend *b, DType dtype) {
    enum { N = 3000 };
    (void)dtype;
    double *losses = random_values(N, 1, F32);
    losses[N - 1] = NAN;
    Tensor bad = test_tensor(b, F32, losses, 1, N, 0, 0, 0), good = tensor(bad.data, F32, 1, N - 1, 0, 0, 0);
    Tensor sum = test_tensor(b, F32, NULL, 1, 1, 0, 0, 0);
    for (int k = 0; k < 4; k++) {
        b->op.loss_sum(sum, k == 1 || k == 2 ? good : bad, k == 2, NULL);   /* NaN; finite; finite; NaN */
        double *got = test_values(b, sum);
        assert_true(isnan(*got) == (k == 0 || k == 3));
        free(got);
    }
    b->op.loss_sum(sum, good, 1, NULL);
    double *got = test_values(b, sum);
    assert_true(isnan(*got));
    free(got); free(losses);
    test_free(b, bad); test_free(b, sum);
}

static void losses_and_gradient(void **state) { (void)state; on_every_backend(check_shapes); }
static void tilings(void **state) { (void)state; on_every_backend(check_tilings); }
static void unaligned_rows(void **state) { (void)state; on_every_backend(check_unaligned); }
static void big_values(void **state) { (void)state; on_every_backend(check_big_values); }
static void nan_and_infinity_make_the_loss_nan(void **state) { (void)state; on_every_backend(check_not_finite); }
static void minus_infinity_is_probability_zero(void **state) { (void)state; on_every_backend(check_impossible); }
static void gradient_is_the_derivative(void **state) { (void)state; on_every_backend(check_finite_difference); }
static void loss_sum(void **state) { (void)state; on_every_backend(check_loss_sum); }
static void loss_sum_keeps_nan(void **state) { (void)state; on_every_backend(check_loss_sum_keeps_nan); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_and_gradient),
        cmocka_unit_test(tilings),
        cmocka_unit_test(unaligned_rows),
        cmocka_unit_test(big_values),
        cmocka_unit_test(nan_and_infinity_make_the_loss_nan),
        cmocka_unit_test(minus_infinity_is_probability_zero),
        cmocka_unit_test(gradient_is_the_derivative),
        cmocka_unit_test(loss_sum),
        cmocka_unit_test(loss_sum_keeps_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
