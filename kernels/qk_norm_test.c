/* qk_norm_test.c: the norm of each head and its rotation, against their formulas in double and against finite differences. */
#include "op_test.h"

#define BASE 10000.0
enum { NO_ROTATION = 2, LAYOUTS = 4 };   /* added to a RopeLayout */

static const float EPS = 1e-2f;   /* large, so that it shows where it is missing */

typedef struct { int B, T, NH, NKV, HS, t0; } Shape;

/* Halves of whole packs or not, a power of two of them or not, heads in whole groups or not, and shared by 1, some or all queries. */
static const Shape shapes[] = {{2, 3, 3, 1, 2, 7}, {1, 5, 4, 2, 8, 0}, {2, 7, 5, 5, 16, 3}, {1, 9, 6, 2, 32, 130}, {2, 3, 3, 1, 48, 1},
    {2, 19, 12, 12, 64, 0}, {1, 9, 6, 3, 80, 2}, {1, 11, 9, 3, 128, 5}, {1, 1, 5, 1, 64, 40}, {1, 4, 2, 1, 256, 0}, {1, 5, 2, 2, 40, 2}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static int rows_of(Shape z) { return z.B * z.T; }
static int heads_of(Shape z) { return z.NH + 2 * z.NKV; }
static int64_t numel(Shape z) { return (int64_t)rows_of(z) * heads_of(z) * z.HS; }

/* ---- the reference -------------------------------------------------------------------------------------------------------------- */

/* Pair i of a head by direction * t * BASE^(-2i/HS). */
static void rotate(double *x, int t, int HS, int layout, double direction) {
    for (int i = 0; layout < NO_ROTATION && i < HS / 2; i++) {
        double angle = direction * t * pow(BASE, -2.0 * i / HS);
        double *a = x + (layout == ROPE_HALF ? i : 2 * i), *b = x + (layout == ROPE_HALF ? i + HS / 2 : 2 * i + 1), was = *a;
        *a = was * cos(angle) - *b * sin(angle);
        *b = was * sin(angle) + *b * cos(angle);
    }
}

static double rstd_of(const double *x, int HS) {
    double squares = 0;
    for (int i = 0; i < HS; i++) squares += x[i] * x[i];
    return 1 / sqrt(squares / HS + EPS);
}

static void reference_forward(double *out, double *rstd, const double *qkv, const double *qw, const double *kw, Shape z, int layout) {
    memcpy(out, qkv, (size_t)numel(z) * sizeof *out);
    for (int row = 0; row < rows_of(z); row++)
        for (int h = 0; h < z.NH + z.NKV; h++) {
            double *x = out + ((int64_t)row * heads_of(z) + h) * z.HS, r = rstd_of(x, z.HS);
            for (int i = 0; i < z.HS; i++) x[i] *= r * (h < z.NH ? qw : kw)[i];
            rotate(x, z.t0 + row % z.T, z.HS, layout, 1);
            if (rstd) rstd[row * (z.NH + z.NKV) + h] = r;
        }
}

/* In place on dqkv; dw[2][HS], of Q and K, is added to. */
static void reference_backward(double *dqkv, double *dw, const double *qkv, const double *qw, const double *kw, Shape z, int layout) {
    for (int row = 0; row < rows_of(z); row++)
        for (int h = 0; h < z.NH + z.NKV; h++) {
            int64_t offset = ((int64_t)row * heads_of(z) + h) * z.HS;
            const double *x = qkv + offset, *w = h < z.NH ? qw : kw;
            double *g = dqkv + offset, r = rstd_of(x, z.HS), mean = 0;
            rotate(g, z.t0 + row % z.T, z.HS, layout, -1);
            for (int i = 0; i < z.HS; i++) {
                mean += g[i] * w[i] * x[i] * r / z.HS;
                dw[(h >= z.NH) * z.HS + i] += g[i] * x[i] * r;
            }
            for (int i = 0; i < z.HS; i++) g[i] = r * (g[i] * w[i] - x[i] * r * mean);
        }
}

/* ---- data on a device ------------------------------------------------------------------------------------------------------------ */

/* The table for positions 0 .. maxT-1, or none. */
static Tensor table(const Backend *b, int maxT, int HS, int layout) {
    if (layout >= NO_ROTATION) return no_tensor();
    double *values = malloc((size_t)(maxT * HS) * sizeof *values);
    for (int i = 0; i < maxT * (HS / 2); i++) {
        double angle = i / (HS / 2) * pow(BASE, -2.0 * (i % (HS / 2)) / HS);
        values[2 * i] = cos(angle);
        values[2 * i + 1] = sin(angle);
    }
    Tensor rotations = test_tensor(b, F32, values, 3, maxT, HS / 2, 2, 0);
    free(values);
    return rotations;
}

/* A tensor of qkv's shape, begun `shift` elements past an aligned address. *whole is what to give back. */
static Tensor packed(const Backend *b, DType dtype, const double *values, Shape z, int shift, Tensor *whole) {
    double *padded = malloc((size_t)(numel(z) + shift) * sizeof *padded);
    for (int64_t i = 0; i < numel(z) + shift; i++) padded[i] = i < shift || !values ? NAN : values[i - shift];
    *whole = test_tensor(b, dtype, padded, 1, numel(z) + shift, 0, 0, 0);
    free(padded);
    return tensor((char *)whole->data + (size_t)shift * dtype_size(dtype), dtype, 4, z.B, z.T, heads_of(z), z.HS);
}

/* Everything an op reads, in double and on a device. */
typedef struct {
    double *qkv, *qw, *kw, *dout;
    Tensor d_qkv, d_qw, d_kw, rotations, whole;
} Inputs;

static Inputs make_inputs(const Backend *b, DType dtype, Shape z, int layout, int shift) {
    Inputs in;
    in.qkv = random_values(numel(z), 1.5, dtype);
    in.qw = random_values(z.HS, 1, dtype);
    in.kw = random_values(z.HS, 1, dtype);
    in.dout = random_values(numel(z), 1, dtype);
    in.d_qkv = packed(b, dtype, in.qkv, z, shift, &in.whole);
    in.d_qw = test_tensor(b, dtype, in.qw, 1, z.HS, 0, 0, 0);
    in.d_kw = test_tensor(b, dtype, in.kw, 1, z.HS, 0, 0, 0);
    in.rotations = table(b, z.t0 + z.T, z.HS, layout);
    return in;
}

static void free_inputs(const Backend *b, Inputs in) {
    test_free(b, in.whole); test_free(b, in.d_qw); test_free(b, in.d_kw); test_free(b, in.rotations);
    free(in.qkv); free(in.qw); free(in.kw); free(in.dout);
}

static void run_forward(const Backend *b, Tensor out, Tensor rstd, const Inputs *in, Shape z, int layout) {
    RopeLayout of_pairs = (RopeLayout)(layout % NO_ROTATION);
    b->op.qk_norm_forward(out, rstd, in->d_qkv, in->d_qw, in->d_kw, in->rotations, z.NH, z.NKV, of_pairs, z.t0, EPS, NULL);
}
static void run_backward(const Backend *b, Tensor dqkv, Tensor dqw, Tensor dkw, Tensor rstd, const Inputs *in, Shape z, int layout,
                         int accumulate) {
    RopeLayout of_pairs = (RopeLayout)(layout % NO_ROTATION);
    b->op.qk_norm_backward(dqkv, dqw, dkw, in->d_qkv, rstd, in->d_qw, in->d_kw, in->rotations, z.NH, z.NKV, of_pairs, accumulate, NULL);
}

static Tensor rstd_tensor(const Backend *b, const double *rstd, Shape z) {
    return test_tensor(b, F32, rstd, 3, z.B, z.T, z.NH + z.NKV, 0);
}

static void expect_same_v(const Backend *b, Tensor t, const double *expected, Shape z) {
    double *got = test_values(b, t);
    int64_t width = heads_of(z) * z.HS, v = (z.NH + z.NKV) * z.HS;
    for (int row = 0; row < rows_of(z); row++)
        assert_memory_equal(got + row * width + v, expected + row * width + v, (size_t)(width - v) * sizeof *got);
    free(got);
}

/* ---- checks ---------------------------------------------------------------------------------------------------------------------- */

static void check_forward_case(const Backend *b, DType dtype, Shape z, int layout, int shift) {
    Inputs in = make_inputs(b, dtype, z, layout, shift);
    Tensor whole, out = packed(b, dtype, NULL, z, shift, &whole), rstd = rstd_tensor(b, NULL, z);
    double *expected = malloc((size_t)numel(z) * sizeof *expected), *r = malloc((size_t)(rows_of(z) * (z.NH + z.NKV)) * sizeof *r);
    reference_forward(expected, r, in.qkv, in.qw, in.kw, z, layout);
    run_forward(b, out, rstd, &in, z, layout);
    expect_close("qk_norm_forward", b, out, expected, 1);
    expect_close("qk_norm_forward rstd", b, rstd, r, 1);
    expect_same_v(b, out, in.qkv, z);
    test_free(b, whole); test_free(b, rstd); free_inputs(b, in);
    free(expected); free(r);
}

/* Gradients of weights start as NaN where they are to be assigned. They sum over rows and heads, hence the slack. */
static void check_backward_case(const Backend *b, DType dtype, Shape z, int layout, int shift, int accumulate) {
    z.t0 = 0;
    Inputs in = make_inputs(b, dtype, z, layout, shift);
    double *out = malloc((size_t)numel(z) * sizeof *out), *r = malloc((size_t)(rows_of(z) * (z.NH + z.NKV)) * sizeof *r);
    double *dqkv = malloc((size_t)numel(z) * sizeof *dqkv), *dw = random_values(2 * z.HS, 1, F32);
    reference_forward(out, r, in.qkv, in.qw, in.kw, z, layout);
    Tensor whole, d_dqkv = packed(b, dtype, in.dout, z, shift, &whole), rstd = rstd_tensor(b, r, z);
    Tensor dqw = test_tensor(b, F32, accumulate ? dw : NULL, 1, z.HS, 0, 0, 0);
    Tensor dkw = test_tensor(b, F32, accumulate ? dw + z.HS : NULL, 1, z.HS, 0, 0, 0);
    if (!accumulate) memset(dw, 0, (size_t)(2 * z.HS) * sizeof *dw);
    memcpy(dqkv, in.dout, (size_t)numel(z) * sizeof *dqkv);
    reference_backward(dqkv, dw, in.qkv, in.qw, in.kw, z, layout);
    run_backward(b, d_dqkv, dqw, dkw, rstd, &in, z, layout, accumulate);
    expect_close("qk_norm_backward", b, d_dqkv, dqkv, 1);
    expect_close("qk_norm_backward dqw", b, dqw, dw, 4);
    expect_close("qk_norm_backward dkw", b, dkw, dw + z.HS, 4);
    expect_same_v(b, d_dqkv, in.dout, z);
    test_free(b, whole); test_free(b, rstd); test_free(b, dqw); test_free(b, dkw); free_inputs(b, in);
    free(out); free(r); free(dqkv); free(dw);
}

static void check_forward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int layout = 0; layout < LAYOUTS; layout++) check_forward_case(b, dtype, shapes[i], layout, 0);
}
static void check_backward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int layout = 0; layout < LAYOUTS; layout++) check_backward_case(b, dtype, shapes[i], layout, 0, (i + layout) % 2);
}

/* Heads that fit 128-bit accesses by their size but not by where they begin, and odd heads, which have no rotation. */
static void check_misaligned(const Backend *b, DType dtype) {
    Shape z = {1, 3, 4, 2, 64, 2};
    static const Shape odd[] = {{2, 7, 3, 1, 3, 0}, {1, 2, 1, 1, 65, 0}, {1, 2, 2, 1, 255, 0}};
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        for (int layout = 0; layout < LAYOUTS; layout++) {
            check_forward_case(b, dtype, z, layout, 1);
            check_backward_case(b, dtype, z, layout, 1, accumulate);
        }
        for (int i = 0; i < 3; i++) {
            check_forward_case(b, dtype, odd[i], NO_ROTATION + accumulate, 0);
            check_backward_case(b, dtype, odd[i], NO_ROTATION + accumulate, 0, accumulate);
        }
    }
}

typedef struct { Shape z; int layout; const double *x; } Function;   /* x: qkv, then qw and kw */

static void forward_in_double(double *out, void *context) {
    const Function *f = context;
    const double *qw = f->x + numel(f->z);
    reference_forward(out, NULL, f->x, qw, qw + f->z.HS, f->z, f->layout);
}

static void check_finite_differences(const Backend *b, DType dtype) {
    Shape z = {1, 3, 3, 1, 6, 0};
    int64_t n = numel(z);
    for (int layout = 0; layout < LAYOUTS; layout++) {
        Inputs in = make_inputs(b, dtype, z, layout, 0);
        double *x = malloc((size_t)(n + 2 * z.HS) * sizeof *x), *out = malloc((size_t)n * sizeof *out), r[3 * 4];
        memcpy(x, in.qkv, (size_t)n * sizeof *x);
        memcpy(x + n, in.qw, (size_t)z.HS * sizeof *x);
        memcpy(x + n + z.HS, in.kw, (size_t)z.HS * sizeof *x);
        Function f = {z, layout, x};
        double *expected = finite_difference(forward_in_double, &f, x, n + 2 * z.HS, in.dout, n);
        reference_forward(out, r, in.qkv, in.qw, in.kw, z, layout);
        Tensor whole, dqkv = packed(b, dtype, in.dout, z, 0, &whole), rstd = rstd_tensor(b, r, z);
        Tensor dqw = test_tensor(b, F32, NULL, 1, z.HS, 0, 0, 0), dkw = test_tensor(b, F32, NULL, 1, z.HS, 0, 0, 0);
        run_backward(b, dqkv, dqw, dkw, rstd, &in, z, layout, 0);
        expect_close("dqkv by finite differences", b, dqkv, expected, 1);
        expect_close("dqw by finite differences", b, dqw, expected + n, 1);
        expect_close("dkw by finite differences", b, dkw, expected + n + z.HS, 1);
        test_free(b, whole); test_free(b, rstd); test_free(b, dqw); test_free(b, dkw); free_inputs(b, in);
        free(x); free(out); free(expected);
    }
}

/* The last rows of a longer sequence are the same bits as a call that begins there: generation relies on it. */
static void check_offset(const Backend *b, DType dtype) {
    Shape whole = {1, 9, 5, 1, 32, 0}, part = {1, 1, 5, 1, 32, 8};
    int64_t skipped = numel(whole) - numel(part);
    for (int layout = 0; layout < NO_ROTATION; layout++) {
        Inputs in = make_inputs(b, dtype, whole, layout, 0), last = in;
        Tensor memory[3], all = packed(b, dtype, NULL, whole, 0, &memory[0]), one = packed(b, dtype, NULL, part, 0, &memory[1]);
        Tensor rstd = rstd_tensor(b, NULL, whole);
        last.d_qkv = packed(b, dtype, in.qkv + skipped, part, 0, &memory[2]);
        run_forward(b, all, rstd, &in, whole, layout);
        run_forward(b, one, rstd, &last, part, layout);
        double *of_all = test_values(b, all), *of_one = test_values(b, one);
        assert_memory_equal(of_all + skipped, of_one, (size_t)numel(part) * sizeof *of_one);
        for (int i = 0; i < 3; i++) test_free(b, memory[i]);
        test_free(b, rstd); free_inputs(b, in); free(of_all); free(of_one);
    }
}

/* Gradients of the weights over more heads than all blocks take at once: several runs, one result. */
static void check_determinism(const Backend *b, DType dtype) {
    Shape z = {3, 40, 6, 2, dtype == BF16 ? 128 : 64, 0};
    double *r = random_values((int64_t)rows_of(z) * (z.NH + z.NKV), 1, F32), *first[2] = {NULL, NULL};
    Inputs in = make_inputs(b, dtype, z, ROPE_HALF, 0);
    Tensor rstd = rstd_tensor(b, r, z), dw[2];
    for (int i = 0; i < 2; i++) dw[i] = test_tensor(b, F32, NULL, 1, z.HS, 0, 0, 0);
    for (int run = 0; run < 3; run++) {
        Tensor whole, dqkv = packed(b, dtype, in.dout, z, 0, &whole);
        run_backward(b, dqkv, dw[0], dw[1], rstd, &in, z, ROPE_HALF, 0);
        for (int i = 0; i < 2; i++) {
            double *got = test_values(b, dw[i]);
            if (!first[i]) first[i] = got;
            assert_memory_equal(got, first[i], (size_t)z.HS * sizeof *got);
            if (got != first[i]) free(got);
        }
        test_free(b, whole);
    }
    for (int i = 0; i < 2; i++) test_free(b, dw[i]), free(first[i]);
    test_free(b, rstd); free_inputs(b, in); free(r);
    check_backward_case(b, dtype, z, ROPE_INTERLEAVED, 0, 1);
}

/* A NaN in one key head spoils all of this head and of dkw, and nothing else. */
static void check_nan(const Backend *b, DType dtype) {
    Shape z = {1, 2, 2, 1, 48, 0};
    Inputs in = make_inputs(b, dtype, z, ROPE_HALF, 0);
    double r[] = {1, 1, 1, 1, 1, 1};
    int spoilt = 2 * z.HS + 5;   /* row 0, the key head */
    in.dout[spoilt] = in.qkv[spoilt] = NAN;
    Tensor memory[2], dqkv = packed(b, dtype, in.dout, z, 0, &memory[0]), out = packed(b, dtype, NULL, z, 0, &memory[1]);
    Tensor rstd = rstd_tensor(b, NULL, z), given = rstd_tensor(b, r, z), dqw = test_tensor(b, F32, NULL, 1, z.HS, 0, 0, 0);
    Tensor dkw = test_tensor(b, F32, NULL, 1, z.HS, 0, 0, 0);
    test_free(b, in.whole);
    in.d_qkv = packed(b, dtype, in.qkv, z, 0, &in.whole);
    run_forward(b, out, rstd, &in, z, ROPE_HALF);
    run_backward(b, dqkv, dqw, dkw, given, &in, z, ROPE_HALF, 0);
    double *y = test_values(b, out), *dx = test_values(b, dqkv), *dw = test_values(b, dqw), *dk = test_values(b, dkw);
    for (int64_t i = 0; i < numel(z); i++) {
        assert_int_equal(isnan(y[i]) != 0, i / z.HS == 2);
        assert_int_equal(isnan(dx[i]) != 0, i / z.HS == 2);
    }
    for (int i = 0; i < z.HS; i++) assert_false(isnan(dw[i]));
    assert_true(isnan(dk[spoilt % z.HS]));
    test_free(b, memory[0]); test_free(b, memory[1]); test_free(b, rstd); test_free(b, given); test_free(b, dqw); test_free(b, dkw);
    free_inputs(b, in); free(y); free(dx); free(dw); free(dk);
}

static void forward(void **state) { (void)state; on_every_backend(check_forward); }
static void backward(void **state) { (void)state; on_every_backend(check_backward); }
static void misaligned_and_odd_heads(void **state) { (void)state; on_every_backend(check_misaligned); }
static void finite_differences(void **state) { (void)state; on_every_backend(check_finite_differences); }
static void offset_is_position(void **state) { (void)state; on_every_backend(check_offset); }
static void backward_is_deterministic(void **state) { (void)state; on_every_backend(check_determinism); }
static void nan_stays(void **state) { (void)state; on_every_backend(check_nan); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward),
        cmocka_unit_test(backward),
        cmocka_unit_test(misaligned_and_odd_heads),
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(offset_is_position),
        cmocka_unit_test(backward_is_deterministic),
        cmocka_unit_test(nan_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
