/* residual_test.c: the residual add as an op of its own, against a plain double reference. */
#include "residual_test.h"

static const StepState STEP = {.seed = 0x123456789ABCDEFull, .sample = 3, .step = 17};

/* Rows of odd size, of whole packs, misaligned, and more than a grid takes at once on the emulated device. */
static const Shape shapes[] = {{1, 1, 1, false}, {2, 3, 37, false}, {5, 13, 192, false}, {2, 3, 64, true}, {3, 230, 768, false}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* To a tensor of its own, then in place. */
static void check_case(const Backend *b, DType dtype, Shape z, float p) {
    const int64_t n = (int64_t)z.B * z.T * z.C;
    double *x = normals(n, 1, 0, dtype), *delta = normals(n, 1, 0, dtype);
    const Tensor d_x = rows(b, dtype, z, x), d_delta = rows(b, dtype, z, delta), out = rows(b, dtype, z, NULL);
    const Dropout drop = dropout_of(b, p, STEP);
    const double *expected = reference_residual(z, x, delta, p, drop.tensor, STEP);
    b->op.residual_forward(out, d_x, d_delta, drop, NULL);
    expect_close("residual_forward", b, out, expected, 1);
    expect_close("x after residual_forward", b, d_x, x, 1);
    b->op.residual_forward(d_x, d_x, d_delta, drop, NULL);
    expect_same_bits("residual_forward in place", b, d_x, out);
    give_back();
}
static void check_forward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int drops = 0; drops < 2; drops++) check_case(b, dtype, shapes[i], drops ? 0.3f : 0);
}

/* Where x is zero, what is left is what the op dropout makes of delta with the same Dropout: so does backward, by that op. */
static void check_mask(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) {
        const Shape z = shapes[i];
        const int64_t n = (int64_t)z.B * z.T * z.C;
        const Tensor delta = rows(b, dtype, z, normals(n, 1, 0, dtype)), zero = rows(b, dtype, z, numbers(n));
        const Tensor out = rows(b, dtype, z, NULL);
        const Dropout drop = dropout_of(b, 0.5f, STEP);
        b->op.residual_forward(out, zero, delta, drop, NULL);
        b->op.dropout(delta, delta, drop, NULL);
        const double *sum = values_of(b, out), *dropped = values_of(b, delta);
        for (int64_t k = 0; k < n; k++) assert_true(sum[k] == dropped[k]);
        give_back();
    }
}

static void forward(void **state) { (void)state; on_every_backend(check_forward); }
static void the_mask_is_that_of_dropout(void **state) { (void)state; on_every_backend(check_mask); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward),
        cmocka_unit_test(the_mask_is_that_of_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
