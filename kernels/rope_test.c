/* rope_test.c: the rotation against its formula, against finite differences, and by what it is for. */
#include "op_test.h"

#define BASE 10000.0

typedef struct {
    int B, T, NH, NKV, HS, t0;
} Shape;

static const Shape shapes[] = {{2, 37, 6, 6, 32, 0}, {1, 1, 6, 1, 64, 5}, {2, 13, 6, 2, 24, 130}, {3, 5, 2, 1, 2, 7}, {1, 3, 1, 1, 256, 0},
    /* heads in groups of four and not, halves of whole packs and not, several blocks */
    {2, 37, 12, 12, 64, 0}, {1, 70, 5, 1, 128, 3}, {1, 9, 3, 3, 80, 2}, {1, 5, 2, 2, 16, 0}, {2, 41, 7, 7, 40, 1}, {1, 3, 4, 2, 8, 0}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static int heads_of(Shape z) { return z.NH + 2 * z.NKV; }
static int64_t numel(Shape z) { return (int64_t)z.B * z.T * heads_of(z) * z.HS; }

/* In place: bias (or NULL) added, then Q and K turned by direction * (t0 + t) * BASE^(-2i/HS). */
static void reference(double *qkv, const double *bias, Shape z, RopeLayout layout, double direction) {
    int heads = heads_of(z), half = z.HS / 2;
    for (int64_t row = 0; row < (int64_t)z.B * z.T; row++)
        for (int h = 0; h < heads; h++) {
            double *x = qkv + (row * heads + h) * z.HS;
            for (int d = 0; bias && d < z.HS; d++) x[d] += bias[h * z.HS + d];
            for (int i = 0; h < z.NH + z.NKV && i < half; i++) {
                double angle = direction * (double)(z.t0 + row % z.T) * pow(BASE, -2.0 * i / z.HS);
                double *a = x + (layout == ROPE_HALF ? i : 2 * i), *b = x + (layout == ROPE_HALF ? i + half : 2 * i + 1), was = *a;
                *a = was * cos(angle) - *b * sin(angle);
                *b = was * sin(angle) + *b * cos(angle);
            }
        }
}

/* The table for positions 0 .. maxT-1. */
static Tensor table(const Backend *b, int maxT, int HS) {
    double *values = malloc((size_t)(maxT * HS) * sizeof *values);
    for (int t = 0; t < maxT; t++)
        for (int i = 0; i < HS / 2; i++) {
            double angle = t * pow(BASE, -2.0 * i / HS);
            values[t * HS + 2 * i] = cos(angle);
            values[t * HS + 2 * i + 1] = sin(angle);
        }
    Tensor rotations = test_tensor(b, F32, values, 3, maxT, HS / 2, 2, 0);
    free(values);
    return rotations;
}

static Tensor packed(const Backend *b, DType dtype, const double *values, Shape z) {
    return test_tensor(b, dtype, values, 4, z.B, z.T, heads_of(z), z.HS);
}

static void check_forward_case(const Backend *b, DType dtype, Shape z, RopeLayout layout, bool has_bias) {
    int width = heads_of(z) * z.HS;
    double *x = random_values(numel(z), 1, dtype), *bias = has_bias ? random_values(width, 1, dtype) : NULL;
    Tensor qkv = packed(b, dtype, x, z), rotations = table(b, z.t0 + z.T, z.HS);
    Tensor d_bias = has_bias ? test_tensor(b, dtype, bias, 1, width, 0, 0, 0) : no_tensor();
    b->op.rope_forward(qkv, d_bias, rotations, z.NH, z.NKV, layout, z.t0, NULL);
    reference(x, bias, z, layout, 1);
    expect_close("rope_forward", b, qkv, x, 1);
    test_free(b, qkv); test_free(b, rotations); test_free(b, d_bias);
    free(x); free(bias);
}

static void check_backward_case(const Backend *b, DType dtype, Shape z, RopeLayout layout) {
    z.t0 = 0;
    double *x = random_values(numel(z), 1, dtype);
    Tensor dqkv = packed(b, dtype, x, z), rotations = table(b, z.T, z.HS);
    b->op.rope_backward(dqkv, rotations, z.NH, z.NKV, layout, NULL);
    reference(x, NULL, z, layout, -1);
    expect_close("rope_backward", b, dqkv, x, 1);
    test_free(b, dqkv); test_free(b, rotations);
    free(x);
}

static void check_shapes(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int layout = 0; layout < 2; layout++) {
            for (int bias = 0; bias < 2; bias++) check_forward_case(b, dtype, shapes[i], (RopeLayout)layout, bias);
            check_backward_case(b, dtype, shapes[i], (RopeLayout)layout);
        }
}

/* Heads that fit 128-bit accesses by their size but not by where they begin. */
static void check_misaligned(const Backend *b, DType dtype) {
    Shape z = {1, 3, 2, 1, 32, 0};
    int64_t n = numel(z);
    double *x = random_values(n + 1, 1, dtype);
    for (int layout = 0; layout < 2; layout++) {
        Tensor whole = test_tensor(b, dtype, x, 1, n + 1, 0, 0, 0), rotations = table(b, z.T, z.HS);
        Tensor qkv = tensor((char *)whole.data + dtype_size(dtype), dtype, 4, z.B, z.T, heads_of(z), z.HS);
        double *expected = malloc((size_t)n * sizeof *expected);
        memcpy(expected, x + 1, (size_t)n * sizeof *expected);
        reference(expected, NULL, z, (RopeLayout)layout, 1);
        b->op.rope_forward(qkv, no_tensor(), rotations, z.NH, z.NKV, (RopeLayout)layout, 0, NULL);
        expect_close("misaligned rope_forward", b, qkv, expected, 1);
        test_free(b, whole); test_free(b, rotations); free(expected);
    }
    free(x);
}

/* A quarter turn of pair 0 and none of pair 1 shows which elements make a pair, and which way is forward. */
static void check_layout(const Backend *b, DType dtype) {
    static const double x[] = {1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}, quarter[] = {0, 1, 1, 0};
    static const double turned[2][2][4] = {{{-2, 1, 3, 4}, {-3, 2, 1, 4}}, {{2, -1, 3, 4}, {3, 2, -1, 4}}};
    for (int backward = 0; backward < 2; backward++)
        for (int layout = 0; layout < 2; layout++) {
            Tensor qkv = test_tensor(b, dtype, x, 4, 1, 1, 3, 4), rotations = test_tensor(b, F32, quarter, 3, 1, 2, 2, 0);
            if (backward) b->op.rope_backward(qkv, rotations, 1, 1, (RopeLayout)layout, NULL);
            else b->op.rope_forward(qkv, no_tensor(), rotations, 1, 1, (RopeLayout)layout, 0, NULL);
            double *got = test_values(b, qkv);
            for (int d = 0; d < 4; d++) {
                assert_true(got[d] == turned[backward][layout][d]);
                assert_true(got[4 + d] == turned[backward][layout][d]);
                assert_true(got[8 + d] == x[d]);
            }
            test_free(b, qkv); test_free(b, rotations); free(got);
        }
}

/* There and back: two roundings in fp32. */
static void check_inverse(const Backend *b, DType dtype) {
    if (dtype != F32) return;
    Shape z = {2, 37, 6, 2, 32, 0};
    double *x = random_values(numel(z), 1, dtype);
    for (int layout = 0; layout < 2; layout++) {
        Tensor qkv = packed(b, dtype, x, z), rotations = table(b, z.T, z.HS);
        b->op.rope_forward(qkv, no_tensor(), rotations, z.NH, z.NKV, (RopeLayout)layout, 0, NULL);
        b->op.rope_backward(qkv, rotations, z.NH, z.NKV, (RopeLayout)layout, NULL);
        expect_close("rope there and back", b, qkv, x, 2);
        test_free(b, qkv); test_free(b, rotations);
    }
    free(x);
}

typedef struct {
    Shape z;
    RopeLayout layout;
    const double *qkv;
} Function;

static void forward_in_double(double *out, void *context) {
    const Function *f = context;
    memcpy(out, f->qkv, (size_t)numel(f->z) * sizeof *out);
    reference(out, NULL, f->z, f->layout, 1);
}

static void check_finite_differences(const Backend *b, DType dtype) {
    Shape z = {1, 4, 2, 1, 6, 0};
    int64_t n = numel(z);
    double *x = random_values(n, 1, dtype), *dout = random_values(n, 1, dtype);
    for (int layout = 0; layout < 2; layout++) {
        Function f = {z, (RopeLayout)layout, x};
        double *expected = finite_difference(forward_in_double, &f, x, n, dout, n);
        Tensor dqkv = packed(b, dtype, dout, z), rotations = table(b, z.T, z.HS);
        b->op.rope_backward(dqkv, rotations, z.NH, z.NKV, (RopeLayout)layout, NULL);
        expect_close("rope_backward by finite differences", b, dqkv, expected, 1);
        test_free(b, dqkv); test_free(b, rotations); free(expected);
    }
    free(x); free(dout);
}

/* Rows t0 .. of a longer sequence are the same bits as a call that begins there: generation relies on it. */
static void check_offset(const Backend *b, DType dtype) {
    Shape whole = {1, 9, 3, 1, 32, 0}, part = {1, 4, 3, 1, 32, 5};
    double *x = random_values(numel(whole), 1, dtype);
    int64_t skipped = numel(whole) - numel(part);
    Tensor a = packed(b, dtype, x, whole), c = packed(b, dtype, x + skipped, part), rotations = table(b, whole.T, whole.HS);
    b->op.rope_forward(a, no_tensor(), rotations, 3, 1, ROPE_INTERLEAVED, 0, NULL);
    b->op.rope_forward(c, no_tensor(), rotations, 3, 1, ROPE_INTERLEAVED, part.t0, NULL);
    double *all = test_values(b, a), *tail = test_values(b, c);
    assert_memory_equal(all + skipped, tail, (size_t)numel(part) * sizeof *tail);
    test_free(b, a); test_free(b, c); test_free(b, rotations);
    free(x); free(all); free(tail);
}

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* With one and the same q and k at every position, q(t) . k(s) depends on t - s alone. Each side carries the relative rounding of
   its dtype: 2e-6 in all for fp32; for bf16 each rotated vector is off by at most 2^-9 of its length, each score by 2^-8 of both. */
static void check_relative(const Backend *b, DType dtype) {
    enum { T = 20, HS = 32 };
    double *q = random_values(HS, 1, dtype), *k = random_values(HS, 1, dtype), x[T * 3 * HS];
    double tolerance = (dtype == F32 ? 2e-6 : 0x1p-7) * sqrt(dot(q, q, HS) * dot(k, k, HS));
    for (int t = 0; t < T; t++) {
        memcpy(x + t * 3 * HS, q, sizeof(double) * HS);
        memcpy(x + (t * 3 + 1) * HS, k, sizeof(double) * HS);
        memcpy(x + (t * 3 + 2) * HS, k, sizeof(double) * HS);
    }
    for (int layout = 0; layout < 2; layout++) {
        Tensor qkv = test_tensor(b, dtype, x, 4, 1, T, 3, HS), rotations = table(b, T, HS);
        b->op.rope_forward(qkv, no_tensor(), rotations, 1, 1, (RopeLayout)layout, 0, NULL);
        double *turned = test_values(b, qkv), spread = 0;
        for (int distance = 0; distance < T; distance++) {
            double first = dot(turned + distance * 3 * HS, turned + HS, HS);
            for (int s = 1; s + distance < T; s++)
                assert_true(fabs(dot(turned + (s + distance) * 3 * HS, turned + (s * 3 + 1) * HS, HS) - first) <= tolerance);
            spread = fmax(spread, fabs(first - dot(q, k, HS)));
        }
        assert_true(spread > 10 * tolerance);   /* and it does depend on it */
        test_free(b, qkv); test_free(b, rotations); free(turned);
    }
    free(q); free(k);
}

static void formula(void **state) { (void)state; on_every_backend(check_shapes); }
static void misaligned_heads(void **state) { (void)state; on_every_backend(check_misaligned); }
static void layouts(void **state) { (void)state; on_every_backend(check_layout); }
static void backward_undoes_forward(void **state) { (void)state; on_every_backend(check_inverse); }
static void finite_differences(void **state) { (void)state; on_every_backend(check_finite_differences); }
static void offset_is_position(void **state) { (void)state; on_every_backend(check_offset); }
static void scores_depend_on_distance(void **state) { (void)state; on_every_backend(check_relative); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formula),
        cmocka_unit_test(misaligned_heads),
        cmocka_unit_test(layouts),
        cmocka_unit_test(backward_undoes_forward),
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(offset_is_position),
        cmocka_unit_test(scores_depend_on_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
