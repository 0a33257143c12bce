/* activation_test.c: the activations as an op of their own, against their formulas in double. Their derivatives are tested with the
   products that use them. */
#include "op_test.h"

static const Activation ACTIVATIONS[] = {ACT_NONE, ACT_GELU, ACT_GELU_ERF, ACT_RELU, ACT_SILU, ACT_RELU2};
enum { KINDS = sizeof ACTIVATIONS / sizeof *ACTIVATIONS };

/* The forms of activation.h. */
static double reference(double x, Activation act) {
    switch (act) {
    case ACT_GELU: return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF: return x * erfc(-x / sqrt(2)) / 2;
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_RELU2: return x > 0 ? x * x : 0;
    default: return x;
    }
}

/* n elements, `from` elements past an aligned address, in place or not; element n/2 is NaN, and nothing outside of the n is written. */
static void check_case(const Backend *b, DType dtype, Activation act, int n, int from, int in_place) {
    enum { MARGIN = 3 };
    int size = n + from + MARGIN;
    double *x = random_values(size, 2, dtype), *expected = malloc((size_t)size * sizeof *expected);
    x[from + n / 2] = NAN;
    Tensor whole_x = test_tensor(b, dtype, x, 1, size, 0, 0, 0);
    Tensor whole_out = in_place ? whole_x : test_tensor(b, dtype, x, 1, size, 0, 0, 0);
    Tensor pre = tensor((char *)whole_x.data + (size_t)from * dtype_size(dtype), dtype, 1, n, 0, 0, 0);
    Tensor out = tensor((char *)whole_out.data + (size_t)from * dtype_size(dtype), dtype, 1, n, 0, 0, 0);
    b->op.activation_forward(out, pre, act, NULL);
    double *got = test_values(b, whole_out);
    for (int i = 0; i < size; i++) expected[i] = i < from || i >= from + n ? x[i] : reference(x[i], act);
    assert_true(isnan(got[from + n / 2]));
    for (int i = 0; i < size; i++) assert_true((got[i] == x[i] || (i >= from && i < from + n)) && (isnan(got[i]) == (i == from + n / 2)));
    x[from + n / 2] = got[from + n / 2] = expected[from + n / 2] = 0;
    Tensor compared = test_tensor(b, dtype, got, 1, size, 0, 0, 0);
    expect_close("activation_forward", b, compared, expected, 1);
    test_free(b, compared); test_free(b, whole_x);
    if (!in_place) test_free(b, whole_out);
    free(x); free(expected); free(got);
}

/* Around a vector, a block of the CUDA kernel in either dtype, and a piece of the CPU's. */
static void check_lengths(const Backend *b, DType dtype) {
    static const int lengths[] = {1, 2, 7, 8, 9, 1023, 1024, 1025, 2047, 2048, 2049, 5000};
    for (int k = 0; k < KINDS; k++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            for (int variant = 0; variant < 4; variant++) check_case(b, dtype, ACTIVATIONS[k], lengths[i], variant / 2, variant % 2);
}

/* Every element by itself: as a whole, the largest would hide the rest. Far below zero less than 1e-30 may be left. */
static void check_big_values(const Backend *b, DType dtype) {
    static const double values[] = {-1e6, -1e4, -100, -20, -14, -11, -5, -1, -0.0, 0.0, 1e-30, 1, 5, 11, 14, 20, 100, 1e4, 1e6};
    enum { VALUES = sizeof values / sizeof *values };
    double x[VALUES];
    for (int i = 0; i < VALUES; i++) x[i] = rounded(values[i], dtype);
    for (int k = 0; k < KINDS; k++) {
        Tensor t = test_tensor(b, dtype, x, 1, VALUES, 0, 0, 0);
        b->op.activation_forward(t, t, ACTIVATIONS[k], NULL);
        double *got = test_values(b, t);
        for (int i = 0; i < VALUES; i++) {
            double expected = reference(x[i], ACTIVATIONS[k]), tolerance = (dtype == BF16 ? 0x1p-8 : 0) + 1e-5;
            if (!(fabs(got[i] - expected) <= tolerance * fabs(expected) + 1e-30))
                fail_msg("%s: activation %d of %g is %g, expected %g", b->name, (int)ACTIVATIONS[k], x[i], got[i], expected);
        }
        free(got);
        test_free(b, t);
    }
}

static void lengths(void **state) { (void)state; on_every_backend(check_lengths); }
static void big_values(void **state) { (void)state; on_every_backend(check_big_values); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths),
        cmocka_unit_test(big_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
