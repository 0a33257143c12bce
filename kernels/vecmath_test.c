/* vecmath_test.c: the conversions and functions of cpu.h against libm in double, with the error bounds that cpu.h states. */
#include "op_test.h"

#if defined(FP_FAST_FMAF) || defined(__FMA__)
enum { EXP_ULP = 1 };
#else
enum { EXP_ULP = 2 };
#endif

/* The spacing of floats around y. */
static double ulp_at(double y) {
    int exponent;
    frexp(y, &exponent);
    return ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
}

/* Every 499th float of both signs: five million of them, denormals included. */
enum { STRIDE = 499 };

static void exp_is_within_its_bound(void **state) {
    (void)state;
    double worst = 0;
    float worst_x = 0;
    for (uint64_t bits = 0; bits < 1ull << 32; bits += STRIDE) {
        float x = float_of_bits((uint32_t)bits);
        if (!(x >= -87 && x <= 88)) continue;
        double expected = exp(x), error = fabs(exp_float(x) - expected) / ulp_at(expected);
        if (!(error <= worst)) worst = error, worst_x = x;
    }
    if (!(worst <= EXP_ULP)) fail_msg("exp_float(%.9g) is off by %g ulp", worst_x, worst);
}

static void exp_outside_its_range(void **state) {
    (void)state;
    static const float low[] = {-87.01f, -88, -100, -1e10f, -INFINITY}, high[] = {88.73f, 89, 128, 1e10f, INFINITY};
    for (int i = 0; i < 5; i++) {
        assert_true(exp_float(low[i]) == 0);
        assert_true(exp_float(high[i]) == INFINITY);
    }
    for (float x = 88; x < 88.72f; x += 0.001f) assert_true(fabs(exp_float(x) / exp(x) - 1) <= 1e-6);
    assert_true(exp_float(0) == 1 && exp_float(-0.0f) == 1);
    assert_true(isnan(exp_float(NAN)) && isnan(exp_float(-NAN)));
}

static void tanh_is_within_its_bound(void **state) {
    (void)state;
    double worst = 0;
    float worst_x = 0;
    for (uint64_t bits = 0; bits < 1ull << 32; bits += STRIDE) {
        float x = float_of_bits((uint32_t)bits);
        if (isnan(x) || fabsf(x) < 0x1p-126f) continue;
        double expected = tanh(x), error = fabs(tanh_float(x) - expected) / fabs(expected);
        if (!(error <= worst)) worst = error, worst_x = x;
    }
    if (!(worst <= 1.2e-6)) fail_msg("tanh_float(%.9g) is off by %g of the result", worst_x, worst);
}

static void tanh_at_the_ends(void **state) {
    (void)state;
    assert_true(tanh_float(INFINITY) == 1 && tanh_float(-INFINITY) == -1);
    assert_true(tanh_float(0) == 0 && tanh_float(1e-45f) == 1e-45f && tanh_float(-1e-40f) == -1e-40f);
    assert_true(isnan(tanh_float(NAN)) && isnan(tanh_float(-NAN)));
}

/* The value of a bf16 pattern from the definition of its fields. */
static double bf16_by_definition(uint32_t h) {
    int exponent = h >> 7 & 0xFF;
    double fraction = h & 0x7F, sign = h >> 15 ? -1 : 1;
    if (exponent == 255) return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(128 + fraction, exponent - 127 - 7) : ldexp(fraction, -126 - 7));
}

static void every_bf16_survives_the_round_trip(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 1 << 16; h++) {
        float f = bf16_to_float((uint16_t)h);
        double expected = bf16_by_definition(h);
        assert_true(isnan(expected) ? isnan(f) : f == expected);
        uint16_t back = bf16_of_float(f);
        assert_true(isnan(f) ? isnan(bf16_to_float(back)) : back == h);
    }
}

/* Around the middle between each finite bf16 and the next in magnitude: below goes down, above goes up, the tie goes to the even one.
   The last tie of all overflows to infinity. */
static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t sign = 0; sign < 2; sign++)
        for (uint32_t h = 0; h < 0x7F80; h++) {
            uint32_t middle = sign << 31 | h << 16 | 0x8000, low = sign << 15 | h, high = sign << 15 | (h + 1);
            assert_int_equal(bf16_of_float(float_of_bits(middle - 1)), low);
            assert_int_equal(bf16_of_float(float_of_bits(middle)), h % 2 ? high : low);
            assert_int_equal(bf16_of_float(float_of_bits(middle + 1)), high);
        }
}

/* A NaN whose payload lies in the lower half must not turn into an infinity, nor one near overflow into a zero. */
static void bf16_nan_stays_nan(void **state) {
    (void)state;
    static const uint32_t nans[] = {0x7F800001, 0xFF800001, 0x7F80FFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7FBF8000};
    for (int i = 0; i < 7; i++) assert_true(isnan(bf16_to_float(bf16_of_float(float_of_bits(nans[i])))));
    assert_true(bf16_to_float(bf16_of_float(INFINITY)) == INFINITY && bf16_to_float(bf16_of_float(-INFINITY)) == -INFINITY);
}

/* The vectorised loops and the row helpers do what the scalar functions do, at every alignment, and touch nothing else. */
static void rows_are_converted_in_place(void **state) {
    (void)state;
    enum { N = 100 };
    uint16_t stored[N];
    float buffer[N + 1];
    for (int i = 0; i < N; i++) stored[i] = bf16_of_float((float)test_normal());
    Tensor t = tensor(stored, BF16, 1, N, 0, 0, 0);
    for (int offset = 0; offset < 20; offset++)
        for (int n = 0; n <= N - offset; n++) {
            buffer[n] = 77;
            const float *row = read_floats(t, offset, n, buffer);
            assert_ptr_equal(row, buffer);
            for (int i = 0; i < n; i++) assert_true(row[i] == bf16_to_float(stored[offset + i]));
            assert_true(buffer[n] == 77);
            uint16_t before[N];
            memcpy(before, stored, sizeof stored);
            float *out = write_floats(t, offset, buffer);
            for (int i = 0; i < n; i++) out[i] = (float)test_normal();
            wrote_floats(t, offset, n, out);
            for (int i = 0; i < N; i++)
                assert_int_equal(stored[i], i >= offset && i < offset + n ? bf16_of_float(out[i - offset]) : before[i]);
        }
    Tensor f = tensor(buffer, F32, 1, N, 0, 0, 0);
    assert_ptr_equal(read_floats(f, 3, 5, NULL), buffer + 3);
    assert_ptr_equal(write_floats(f, 3, NULL), buffer + 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_its_bound),
        cmocka_unit_test(exp_outside_its_range),
        cmocka_unit_test(tanh_is_within_its_bound),
        cmocka_unit_test(tanh_at_the_ends),
        cmocka_unit_test(every_bf16_survives_the_round_trip),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_nan_stays_nan),
        cmocka_unit_test(rows_are_converted_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
