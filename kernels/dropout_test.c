/* dropout_test.c: the random numbers, the masks made of them, and the op. */
#include "op_test.h"
#include "dropout.h"

/* The known answers published with the paper's own implementation (Random123, kat_vectors, philox4x32-10). */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct { uint32_t counter[4]; uint64_t key; uint32_t expected[4]; } known[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t counter[4];
        memcpy(counter, known[i].counter, sizeof counter);
        philox(counter, known[i].key);
        assert_memory_equal(counter, known[i].expected, sizeof counter);
    }
}

static float expected_scale(Dropout drop, uint64_t index) {
    uint32_t bits = philox_at(drop.state->seed, drop.state->step, drop.tensor, index);
    return bits >= dropout_threshold(drop.p) ? 1.0f / (1.0f - drop.p) : 0.0f;
}

/* Any start, any length, also where the block number passes 2^32. */
static void scales_follow_the_definition(void **state) {
    (void)state;
    StepState step = {.seed = 0xFEDCBA9876543210u, .step = 9};
    static const uint64_t starts[] = {0, 1, 2, 3, 4, 1021, (1ull << 34) - 30, (1ull << 50) + 7};
    static const int lengths[] = {1, 2, 3, 5, 63, 192, 255, 256, 257, 1024};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
            Dropout drop = {0.4f, 12, &step};
            float scales[1025];
            scales[lengths[j]] = 77;
            dropout_scales(scales, drop, starts[i], lengths[j]);
            for (int k = 0; k < lengths[j]; k++) assert_true(scales[k] == expected_scale(drop, starts[i] + (uint64_t)k));
            assert_true(scales[lengths[j]] == 77);
        }
}

static StepState *device_state(const Backend *b, StepState step) {
    StepState *device = b->alloc(sizeof step);
    b->upload(device, &step, sizeof step, NULL);
    return device;
}

/* out against the definition, element by element; then in place; then switched off. */
static void check_op_shape(const Backend *b, DType dtype, int B, int T, int C) {
    const int N = B * T * C;
    StepState step = {.seed = 5, .sample = 2, .step = 1000};
    Dropout drop = {0.25f, 7, device_state(b, step)}, host = {0.25f, 7, &step}, off = {0, 7, drop.state};
    double *x = random_values(N, 1, dtype), *expected = malloc((size_t)N * sizeof *expected);
    for (int i = 0; i < N; i++) expected[i] = x[i] * expected_scale(host, 2 * (uint64_t)(T * C) + (uint64_t)i);
    Tensor d_x = test_tensor(b, dtype, x, 3, B, T, C, 0), out = test_tensor(b, dtype, NULL, 3, B, T, C, 0);
    b->op.dropout(out, d_x, drop, NULL);
    expect_close("dropout", b, out, expected, 1);
    b->op.dropout(out, d_x, off, NULL);
    expect_close("dropout with p = 0", b, out, x, 1);
    b->op.dropout(d_x, d_x, drop, NULL);
    expect_close("dropout in place", b, d_x, expected, 1);
    test_free(b, d_x); test_free(b, out); b->release((void *)drop.state);
    free(x); free(expected);
}

/* Samples of odd size, of whole packs, and of more than one grid's worth. */
static void check_op(const Backend *b, DType dtype) {
    check_op_shape(b, dtype, 3, 37, 45);
    check_op_shape(b, dtype, 3, 37, 48);
    check_op_shape(b, dtype, 2, 1000, 100);
}

/* A sample that fits 128-bit accesses by its size but not by where it begins. */
static void check_misaligned(const Backend *b, DType dtype) {
    enum { N = 64 };
    StepState step = {.seed = 5};
    Dropout drop = {0.25f, 7, device_state(b, step)}, host = {0.25f, 7, &step};
    double *x = random_values(N + 1, 1, dtype), expected[N];
    for (int i = 0; i < N; i++) expected[i] = x[i + 1] * expected_scale(host, (uint64_t)i);
    Tensor whole = test_tensor(b, dtype, x, 1, N + 1, 0, 0, 0), view = tensor((char *)whole.data + dtype_size(dtype), dtype, 2, 1, N, 0, 0);
    b->op.dropout(view, view, drop, NULL);
    expect_close("misaligned dropout", b, view, expected, 1);
    test_free(b, whole); b->release((void *)drop.state);
    free(x);
}

/* A batch of four at once, and as micro-batches of one and three: the same bits. */
static void check_micro_batches(const Backend *b, DType dtype) {
    enum { B = 4, T = 7, C = 11, N = B * T * C };
    double *x = random_values(N, 1, dtype);
    StepState step = {.seed = 5, .sample = 0, .step = 3};
    Tensor whole = test_tensor(b, dtype, x, 3, B, T, C, 0);
    StepState *state = device_state(b, step);
    b->op.dropout(whole, whole, (Dropout){0.5f, 1, state}, NULL);
    double *at_once = test_values(b, whole), *pieces = malloc(N * sizeof *pieces);
    for (int first = 0, rows = 1; first < B; first += rows, rows = 3) {
        step.sample = first;
        b->upload(state, &step, sizeof step, NULL);
        Tensor part = test_tensor(b, dtype, x + first * T * C, 3, rows, T, C, 0);
        b->op.dropout(part, part, (Dropout){0.5f, 1, state}, NULL);
        double *values = test_values(b, part);
        memcpy(pieces + first * T * C, values, (size_t)(rows * T * C) * sizeof *pieces);
        free(values);
        test_free(b, part);
    }
    assert_memory_equal(pieces, at_once, N * sizeof *pieces);
    test_free(b, whole); b->release(state);
    free(x); free(at_once); free(pieces);
}

static double *mask_of(const Backend *b, DType dtype, int64_t n, float p, uint32_t tensor_number, StepState step) {
    double *ones = malloc((size_t)n * sizeof *ones);
    for (int64_t i = 0; i < n; i++) ones[i] = 1;
    Tensor x = test_tensor(b, dtype, ones, 2, 1, n, 0, 0);
    StepState *state = device_state(b, step);
    b->op.dropout(x, x, (Dropout){p, tensor_number, state}, NULL);
    double *mask = test_values(b, x);
    test_free(b, x); b->release(state); free(ones);
    return mask;
}

/* The share dropped lies within five standard deviations of p, and so does the agreement of masks with different keys. */
static void check_statistics(const Backend *b, DType dtype) {
    enum { N = 100000 };
    static const float rates[] = {0.1f, 0.5f, 0.9f};
    for (int r = 0; r < 3; r++) {
        double p = rates[r];
        StepState steps[4] = {{.seed = 1}, {.seed = 2}, {.seed = 1, .step = 1}, {.seed = 1}};
        double *masks[4];
        for (int k = 0; k < 4; k++) masks[k] = mask_of(b, dtype, N, rates[r], k == 3, steps[k]);
        for (int k = 0; k < 4; k++) {
            double dropped = 0, agreeing = 0, agreement = p * p + (1 - p) * (1 - p);
            for (int i = 0; i < N; i++) {
                dropped += masks[k][i] == 0;
                agreeing += (masks[k][i] == 0) == (masks[0][i] == 0);
            }
            assert_true(fabs(dropped / N - p) <= 5 * sqrt(p * (1 - p) / N));
            if (k > 0) assert_true(fabs(agreeing / N - agreement) <= 5 * sqrt(agreement * (1 - agreement) / N));
        }
        for (int k = 0; k < 4; k++) free(masks[k]);
    }
}

static void op(void **state) { (void)state; on_every_backend(check_op); }
static void misaligned_sample(void **state) { (void)state; on_every_backend(check_misaligned); }
static void micro_batches_share_the_mask(void **state) { (void)state; on_every_backend(check_micro_batches); }
static void statistics(void **state) { (void)state; on_every_backend(check_statistics); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(scales_follow_the_definition),
        cmocka_unit_test(op),
        cmocka_unit_test(misaligned_sample),
        cmocka_unit_test(micro_batches_share_the_mask),
        cmocka_unit_test(statistics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
