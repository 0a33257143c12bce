/* swiglu_test.c: the gated hidden layer against its formula in double, against finite differences, and at its edges. */
#include "op_test.h"

typedef struct {
    int N, F;
} Shape;

/* Odd widths; whole packs of either dtype and not; around a piece of the CPU's and a block's packs; one row, and many. */
static const Shape shapes[] = {{1, 1}, {3, 7}, {5, 129}, {2, 4}, {2, 8}, {33, 16}, {7, 64}, {3, 260}, {2, 511}, {2, 512}, {2, 513},
                               {1, 1024}, {1, 1032}, {3, 1344}, {1, 2048}, {1, 2056}, {2, 2047}, {1, 5461}, {300, 8}, {2100, 1}, {257, 24}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static double sigmoid(double x) { return x > 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double silu(double x) { return x * sigmoid(x); }
static double silu_slope(double x) { return sigmoid(x) * (1 + x * sigmoid(-x)); }

static double *forward_reference(const double *pre, Shape z) {
    double *out = malloc((size_t)(z.N * z.F) * sizeof *out);
    for (int i = 0; i < z.N * z.F; i++) {
        const double *gate = pre + i / z.F * 2 * z.F + i % z.F;
        out[i] = silu(gate[0]) * gate[z.F];
    }
    return out;
}

static double *backward_reference(const double *dout, const double *pre, Shape z) {
    double *dpre = malloc((size_t)(2 * z.N * z.F) * sizeof *dpre);
    for (int i = 0; i < z.N * z.F; i++) {
        int at = i / z.F * 2 * z.F + i % z.F;
        dpre[at] = dout[i] * pre[at + z.F] * silu_slope(pre[at]);
        dpre[at + z.F] = dout[i] * silu(pre[at]);
    }
    return dpre;
}

/* A matrix that begins `from` elements after an aligned address, with a margin behind it, both of 7s. */
enum { MARGIN = 3 };
static Tensor placed(const Backend *b, DType dtype, const double *values, int N, int columns, int from) {
    int n = N * columns, size = from + n + MARGIN;
    double *all = malloc((size_t)size * sizeof *all);
    for (int i = 0; i < size; i++) all[i] = i < from || i >= from + n ? 7 : values ? values[i - from] : NAN;
    Tensor whole = test_tensor(b, dtype, all, 1, size, 0, 0, 0);
    free(all);
    return tensor((char *)whole.data + (size_t)from * dtype_size(dtype), dtype, 2, N, columns, 0, 0);
}
static void free_placed(const Backend *b, Tensor t, int from) {
    int n = (int)tensor_numel(t), size = from + n + MARGIN;
    t.data = (char *)t.data - (size_t)from * dtype_size(t.dtype);
    double *all = test_values(b, tensor(t.data, t.dtype, 1, size, 0, 0, 0));
    for (int i = 0; i < size; i++)
        if (i < from || i >= from + n) assert_true(all[i] == 7);
    free(all);
    test_free(b, t);
}

/* bits of `misaligned`: out or dpre, pre, dout begin one element late */
static void check_case(const Backend *b, DType dtype, Shape z, int misaligned) {
    int late = misaligned & 1, pre_late = misaligned >> 1 & 1, dout_late = misaligned >> 2;
    double *pres = random_values(2 * z.N * z.F, 2, dtype), *douts = random_values(z.N * z.F, 1, dtype);
    double *outs = forward_reference(pres, z), *dpres = backward_reference(douts, pres, z);
    Tensor pre = placed(b, dtype, pres, z.N, 2 * z.F, pre_late), dout = placed(b, dtype, douts, z.N, z.F, dout_late);
    Tensor out = placed(b, dtype, NULL, z.N, z.F, late), dpre = placed(b, dtype, NULL, z.N, 2 * z.F, late);
    b->op.swiglu_forward(out, pre, NULL);
    expect_close("swiglu_forward", b, out, outs, 1);
    b->op.swiglu_backward(dpre, dout, pre, NULL);
    expect_close("swiglu_backward", b, dpre, dpres, 1);
    free_placed(b, pre, pre_late); free_placed(b, dout, dout_late); free_placed(b, out, late); free_placed(b, dpre, late);
    free(pres); free(douts); free(outs); free(dpres);
}

static void check_shapes(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) check_case(b, dtype, shapes[i], 0);
    for (int misaligned = 1; misaligned < 8; misaligned++) check_case(b, dtype, (Shape){5, 64}, misaligned);
}

/* (B,T,2F) to (B,T,F) */
static void check_leading_axes(const Backend *b, DType dtype) {
    enum { B = 2, T = 3, F = 8 };
    Shape z = {B * T, F};
    double *pres = random_values(2 * B * T * F, 1, dtype), *douts = random_values(B * T * F, 1, dtype);
    double *outs = forward_reference(pres, z), *dpres = backward_reference(douts, pres, z);
    Tensor pre = test_tensor(b, dtype, pres, 3, B, T, 2 * F, 0), dout = test_tensor(b, dtype, douts, 3, B, T, F, 0);
    Tensor out = test_tensor(b, dtype, NULL, 3, B, T, F, 0), dpre = test_tensor(b, dtype, NULL, 3, B, T, 2 * F, 0);
    b->op.swiglu_forward(out, pre, NULL);
    b->op.swiglu_backward(dpre, dout, pre, NULL);
    expect_close("swiglu_forward of a batch", b, out, outs, 1);
    expect_close("swiglu_backward of a batch", b, dpre, dpres, 1);
    test_free(b, pre); test_free(b, dout); test_free(b, out); test_free(b, dpre);
    free(pres); free(douts); free(outs); free(dpres);
}

static void expect_each(const char *what, const Backend *b, Tensor t, const double *expected, const double *gates, int F) {
    double *got = test_values(b, t), tolerance = (t.dtype == BF16 ? 0x1p-8 : 0) + 1e-5;
    for (int i = 0; i < tensor_numel(t); i++)
        if (!(fabs(got[i] - expected[i]) <= tolerance * fabs(expected[i]) + 1e-30))
            fail_msg("%s on %s: gate %g: %g, expected %g", what, b->name, gates[i % F], got[i], expected[i]);
    free(got);
}

/* Every element by itself: as a whole, the largest would hide the rest. Far below zero less than 1e-30 may be left. */
static void check_big_values(const Backend *b, DType dtype) {
    static const double gates[] = {-1e30, -1e6, -1e4, -1e3, -100, -89, -87, -80, -20, -5, -1, -1e-4, -0.0,
                                   0.0, 1e-30, 1e-4, 1, 5, 20, 80, 87, 89, 100, 1e3, 1e4, 1e6};
    static const double ups[] = {1e4, -1e4, 1, -3, 1e-3, 0};
    enum { F = sizeof gates / sizeof *gates, N = sizeof ups / sizeof *ups };
    double pres[2 * N * F], douts[N * F];
    for (int i = 0; i < N * F; i++) {
        pres[i / F * 2 * F + i % F] = rounded(gates[i % F], dtype);
        pres[i / F * 2 * F + F + i % F] = rounded(ups[i / F], dtype);
        douts[i] = i % 2 ? -1 : 3;
    }
    double *outs = forward_reference(pres, (Shape){N, F}), *dpres = backward_reference(douts, pres, (Shape){N, F});
    Tensor pre = test_tensor(b, dtype, pres, 2, N, 2 * F, 0, 0), dout = test_tensor(b, dtype, douts, 2, N, F, 0, 0);
    Tensor out = test_tensor(b, dtype, NULL, 2, N, F, 0, 0), dpre = test_tensor(b, dtype, NULL, 2, N, 2 * F, 0, 0);
    b->op.swiglu_forward(out, pre, NULL);
    b->op.swiglu_backward(dpre, dout, pre, NULL);
    expect_each("swiglu_forward", b, out, outs, gates, F);
    expect_each("swiglu_backward", b, dpre, dpres, gates, F);
    test_free(b, pre); test_free(b, dout); test_free(b, out); test_free(b, dpre);
    free(outs); free(dpres);
}

/* A NaN reaches what depends on it, whatever it meets there, and nothing else. Columns in turn have one in gate, up, dout, nowhere. */
static void check_nan(const Backend *b, DType dtype) {
    enum { F = 16, COLUMNS = 4 };
    static const int out_has[COLUMNS] = {1, 1, 0, 0}, dgate_has[COLUMNS] = {1, 1, 1, 0}, dup_has[COLUMNS] = {1, 0, 1, 0};
    double pres[2 * F], douts[F];
    for (int i = 0; i < F; i++) {
        int row = i / COLUMNS;
        pres[i] = i % COLUMNS == 0 ? NAN : (const double[]){0, 1, -1e4, 1e4}[row];
        pres[F + i] = i % COLUMNS == 1 ? NAN : (const double[]){0, -1, 1e4, 1}[row];
        douts[i] = i % COLUMNS == 2 ? NAN : row;
    }
    Tensor pre = test_tensor(b, dtype, pres, 2, 1, 2 * F, 0, 0), dout = test_tensor(b, dtype, douts, 2, 1, F, 0, 0);
    Tensor out = test_tensor(b, dtype, pres, 2, 1, F, 0, 0), dpre = test_tensor(b, dtype, pres, 2, 1, 2 * F, 0, 0);
    b->op.swiglu_forward(out, pre, NULL);
    b->op.swiglu_backward(dpre, dout, pre, NULL);
    double *got = test_values(b, out), *gradient = test_values(b, dpre);
    for (int i = 0; i < F; i++) {
        assert_int_equal(isnan(got[i]) != 0, out_has[i % COLUMNS]);
        assert_int_equal(isnan(gradient[i]) != 0, dgate_has[i % COLUMNS]);
        assert_int_equal(isnan(gradient[F + i]) != 0, dup_has[i % COLUMNS]);
    }
    test_free(b, pre); test_free(b, dout); test_free(b, out); test_free(b, dpre);
    free(got); free(gradient);
}

typedef struct {
    Shape z;
    const double *pre;
} Function;

static void forward_in_double(double *out, void *context) {
    const Function *f = context;
    double *values = forward_reference(f->pre, f->z);
    memcpy(out, values, (size_t)(f->z.N * f->z.F) * sizeof *out);
    free(values);
}

static void check_finite_differences(const Backend *b, DType dtype) {
    Shape z = {3, 11};
    double *pres = random_values(2 * z.N * z.F, 2, dtype), *douts = random_values(z.N * z.F, 1, dtype);
    Function f = {z, pres};
    double *expected = finite_difference(forward_in_double, &f, pres, 2 * z.N * z.F, douts, z.N * z.F);
    Tensor pre = test_tensor(b, dtype, pres, 2, z.N, 2 * z.F, 0, 0), dout = test_tensor(b, dtype, douts, 2, z.N, z.F, 0, 0);
    Tensor dpre = test_tensor(b, dtype, NULL, 2, z.N, 2 * z.F, 0, 0);
    b->op.swiglu_backward(dpre, dout, pre, NULL);
    expect_close("swiglu_backward by finite differences", b, dpre, expected, 1);
    test_free(b, pre); test_free(b, dout); test_free(b, dpre);
    free(pres); free(douts); free(expected);
}

/* No tokens: nothing to do. */
static void check_empty(const Backend *b, DType dtype) {
    Tensor pre = test_tensor(b, dtype, NULL, 2, 0, 16, 0, 0), out = test_tensor(b, dtype, NULL, 2, 0, 8, 0, 0);
    b->op.swiglu_forward(out, pre, NULL);
    b->op.swiglu_backward(pre, out, pre, NULL);
    b->synchronize(NULL);
    test_free(b, pre); test_free(b, out);
}

/* A row comes out the same bits alone as among others: generation relies on it. */
static void check_rows(const Backend *b, DType dtype) {
    enum { N = 5, F = 1344, ROW = 3 };
    double *pres = random_values(2 * N * F, 2, dtype);
    Tensor pre = test_tensor(b, dtype, pres, 2, N, 2 * F, 0, 0), out = test_tensor(b, dtype, NULL, 2, N, F, 0, 0);
    Tensor row = test_tensor(b, dtype, pres + ROW * 2 * F, 2, 1, 2 * F, 0, 0), alone = test_tensor(b, dtype, NULL, 2, 1, F, 0, 0);
    b->op.swiglu_forward(out, pre, NULL);
    b->op.swiglu_forward(alone, row, NULL);
    double *all = test_values(b, out), *one = test_values(b, alone);
    assert_memory_equal(all + ROW * F, one, F * sizeof *one);
    test_free(b, pre); test_free(b, out); test_free(b, row); test_free(b, alone);
    free(pres); free(all); free(one);
}

static void formula(void **state) { (void)state; on_every_backend(check_shapes); }
static void leading_axes_are_rows(void **state) { (void)state; on_every_backend(check_leading_axes); }
static void big_values(void **state) { (void)state; on_every_backend(check_big_values); }
static void nan_stays(void **state) { (void)state; on_every_backend(check_nan); }
static void finite_differences(void **state) { (void)state; on_every_backend(check_finite_differences); }
static void empty_batch(void **state) { (void)state; on_every_backend(check_empty); }
static void rows_stand_alone(void **state) { (void)state; on_every_backend(check_rows); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formula),
        cmocka_unit_test(leading_axes_are_rows),
        cmocka_unit_test(big_values),
        cmocka_unit_test(nan_stays),
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(empty_batch),
        cmocka_unit_test(rows_stand_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
