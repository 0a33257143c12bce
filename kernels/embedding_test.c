/* embedding_test.c: token and position vectors against a plain double reference, and their gradients. */
#include "op_test.h"

typedef struct { int B, T, C, V, maxT; } Shape;

/* Few tokens, so that they repeat; the vocabulary's last rows are never used. */
static double *random_tokens(Shape z) {
    double *tokens = malloc((size_t)(z.B * z.T) * sizeof *tokens);
    for (int i = 0; i < z.B * z.T; i++) tokens[i] = test_below(z.V > 4 ? z.V - 3 : z.V);
    return tokens;
}

static void reference_forward(Shape z, double *out, const double *tokens, const double *wte, const double *wpe) {
    for (int row = 0; row < z.B * z.T; row++)
        for (int c = 0; c < z.C; c++)
            out[row * z.C + c] = wte[(int)tokens[row] * z.C + c] + (wpe ? wpe[row % z.T * z.C + c] : 0);
}

static void check_forward_shape(const Backend *b, DType dtype, Shape z, bool positions) {
    double *tokens = random_tokens(z), *wte = random_values(z.V * z.C, 1, dtype);
    double *wpe = positions ? random_values(z.maxT * z.C, 1, dtype) : NULL;
    double *expected = malloc((size_t)(z.B * z.T * z.C) * sizeof *expected);
    Tensor d_tokens = test_tensor(b, I32, tokens, 2, z.B, z.T, 0, 0), d_wte = test_tensor(b, dtype, wte, 2, z.V, z.C, 0, 0);
    Tensor d_wpe = positions ? test_tensor(b, dtype, wpe, 2, z.maxT, z.C, 0, 0) : no_tensor();
    Tensor out = test_tensor(b, dtype, NULL, 3, z.B, z.T, z.C, 0);
    reference_forward(z, expected, tokens, wte, wpe);
    b->op.embedding_forward(out, d_tokens, d_wte, d_wpe, NULL);
    expect_close("embedding_forward", b, out, expected, 1);
    test_free(b, d_tokens); test_free(b, d_wte); test_free(b, d_wpe); test_free(b, out);
    free(tokens); free(wte); free(wpe); free(expected);
}

static const Shape shapes[] = {{3, 5, 37, 11, 5}, {1, 1, 1, 1, 1}, {2, 7, 2050, 9, 10}, {4, 33, 192, 65, 64}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void check_forward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) {
        check_forward_shape(b, dtype, shapes[i], true);
        check_forward_shape(b, dtype, shapes[i], false);
    }
}

/* The gradients start as NaN where they are to be assigned, as numbers where they are to be added to. */
static void check_backward_shape(const Backend *b, DType dtype, Shape z, int accumulate_wte, int accumulate_wpe, bool has_wte,
                                 bool has_wpe) {
    double *tokens = random_tokens(z), *dout = random_values(z.B * z.T * z.C, 1, dtype);
    double *dwte = random_values(z.V * z.C, 1, F32), *dwpe = random_values(z.maxT * z.C, 1, F32);
    Tensor d_tokens = test_tensor(b, I32, tokens, 2, z.B, z.T, 0, 0), d_dout = test_tensor(b, dtype, dout, 3, z.B, z.T, z.C, 0);
    Tensor d_dwte = has_wte ? test_tensor(b, F32, accumulate_wte ? dwte : NULL, 2, z.V, z.C, 0, 0) : no_tensor();
    Tensor d_dwpe = has_wpe ? test_tensor(b, F32, accumulate_wpe ? dwpe : NULL, 2, z.maxT, z.C, 0, 0) : no_tensor();
    if (!accumulate_wte) memset(dwte, 0, (size_t)(z.V * z.C) * sizeof *dwte);
    if (!accumulate_wpe) memset(dwpe, 0, (size_t)(z.maxT * z.C) * sizeof *dwpe);
    for (int row = 0; row < z.B * z.T; row++)
        for (int c = 0; c < z.C; c++) {
            dwte[(int)tokens[row] * z.C + c] += dout[row * z.C + c];
            dwpe[row % z.T * z.C + c] += dout[row * z.C + c];
        }
    b->op.embedding_backward(d_dwte, d_dwpe, d_dout, d_tokens, accumulate_wte, accumulate_wpe, NULL);
    if (has_wte) expect_close("embedding_backward dwte", b, d_dwte, dwte, 1);
    if (has_wpe) expect_close("embedding_backward dwpe", b, d_dwpe, dwpe, 1);
    test_free(b, d_tokens); test_free(b, d_dout); test_free(b, d_dwte); test_free(b, d_dwpe);
    free(tokens); free(dout); free(dwte); free(dwpe);
}

static void check_backward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) {
        for (int accumulate = 0; accumulate < 4; accumulate++)
            check_backward_shape(b, dtype, shapes[i], accumulate & 1, accumulate >> 1, true, true);
        check_backward_shape(b, dtype, shapes[i], 0, 0, true, false);
        check_backward_shape(b, dtype, shapes[i], 0, 0, false, true);
    }
}

/* What the CUDA kernels' sort and tiles of 32 rows need: two and three digits of tokens, several blocks of rows, one token over many tiles,
   runs that end with a tile, more columns than a warp takes, rows of no or half a tile. */
static const Shape tiled[] = {{3, 700, 8, 300, 700}, {2, 33, 16, 70000, 40}, {1, 1500, 8, 1, 1500}, {2, 32, 8, 2, 32}, {1, 96, 24, 1, 96},
    {2, 40, 264, 5, 41}, {9, 17, 1032, 40, 20}, {17, 2, 48, 400, 2}};

static void check_tiles(const Backend *b, DType dtype) {
    for (size_t i = 0; i < sizeof tiled / sizeof *tiled; i++) {
        check_forward_shape(b, dtype, tiled[i], true);
        check_backward_shape(b, dtype, tiled[i], (int)i & 1, ~(int)i & 1, true, true);
    }
}

/* More rows than are sorted at once. */
static void check_slices(const Backend *b, DType dtype) {
    if (dtype == F32) check_backward_shape(b, dtype, (Shape){1, 131072 + 1100, 1, 300, 131072 + 1100}, 1, 1, true, false);
}

/* Rows that fit 128-bit accesses by their length but not by where they begin. */
static void check_misaligned(const Backend *b, DType dtype) {
    Shape z = {2, 5, 16, 4, 5};
    int n = z.B * z.T * z.C;
    double *tokens = random_tokens(z), *x = random_values(n + 1, 1, dtype), *dwte = calloc((size_t)(z.V * z.C), sizeof *dwte);
    Tensor d_tokens = test_tensor(b, I32, tokens, 2, z.B, z.T, 0, 0), whole = test_tensor(b, dtype, x, 1, n + 1, 0, 0, 0);
    Tensor d_dwte = test_tensor(b, F32, NULL, 2, z.V, z.C, 0, 0);
    Tensor dout = tensor((char *)whole.data + dtype_size(dtype), dtype, 3, z.B, z.T, z.C, 0);
    for (int i = 0; i < n; i++) dwte[(int)tokens[i / z.C] * z.C + i % z.C] += x[i + 1];
    b->op.embedding_backward(d_dwte, no_tensor(), dout, d_tokens, 0, 0, NULL);
    expect_close("misaligned embedding_backward", b, d_dwte, dwte, 1);
    test_free(b, d_tokens); test_free(b, whole); test_free(b, d_dwte);
    free(tokens); free(x); free(dwte);
}

typedef struct { Shape z; const double *tokens, *wte, *wpe; } Point;
static void forward_at(double *out, void *context) {
    Point *p = context;
    reference_forward(p->z, out, p->tokens, p->wte, p->wpe);
}

static void check_finite_difference(const Backend *b, DType dtype) {
    Shape z = {2, 3, 5, 4, 4};
    int n = z.B * z.T * z.C;
    double *tokens = random_tokens(z), *wte = random_values(z.V * z.C, 1, dtype), *wpe = random_values(z.maxT * z.C, 1, dtype);
    double *dout = random_values(n, 1, dtype);
    Point p = {z, tokens, wte, wpe};
    double *dwte = finite_difference(forward_at, &p, wte, z.V * z.C, dout, n);
    double *dwpe = finite_difference(forward_at, &p, wpe, z.maxT * z.C, dout, n);
    Tensor d_tokens = test_tensor(b, I32, tokens, 2, z.B, z.T, 0, 0), d_dout = test_tensor(b, dtype, dout, 3, z.B, z.T, z.C, 0);
    Tensor d_dwte = test_tensor(b, F32, NULL, 2, z.V, z.C, 0, 0), d_dwpe = test_tensor(b, F32, NULL, 2, z.maxT, z.C, 0, 0);
    b->op.embedding_backward(d_dwte, d_dwpe, d_dout, d_tokens, 0, 0, NULL);
    expect_close("dwte by finite differences", b, d_dwte, dwte, 1);
    expect_close("dwpe by finite differences", b, d_dwpe, dwpe, 1);
    test_free(b, d_tokens); test_free(b, d_dout); test_free(b, d_dwte); test_free(b, d_dwpe);
    free(tokens); free(wte); free(wpe); free(dout); free(dwte); free(dwpe);
}

/* The same bits, whatever the number of threads. */
static void check_determinism(const Backend *b, DType dtype) {
    Shape z = {4, 50, 100, 7, 50};
    double *tokens = random_tokens(z), *dout = random_values(z.B * z.T * z.C, 1, dtype), *first = NULL;
    Tensor d_tokens = test_tensor(b, I32, tokens, 2, z.B, z.T, 0, 0), d_dout = test_tensor(b, dtype, dout, 3, z.B, z.T, z.C, 0);
    Tensor dwte = test_tensor(b, F32, NULL, 2, z.V, z.C, 0, 0), dwpe = test_tensor(b, F32, NULL, 2, z.maxT, z.C, 0, 0);
    for (int threads = 1; threads <= 3; threads++) {
#ifdef _OPENMP
        omp_set_num_threads(threads);
#endif
        b->op.embedding_backward(dwte, dwpe, d_dout, d_tokens, 0, 0, NULL);
        double *got = test_values(b, dwte);
        if (!first) first = got;
        assert_memory_equal(got, first, (size_t)(z.V * z.C) * sizeof *got);
        if (got != first) free(got);
    }
    test_free(b, d_tokens); test_free(b, d_dout); test_free(b, dwte); test_free(b, dwpe);
    free(tokens); free(dout); free(first);
}

static void forward(void **state) { (void)state; on_every_backend(check_forward); }
static void backward(void **state) { (void)state; on_every_backend(check_backward); }
static void tiles(void **state) { (void)state; on_every_backend(check_tiles); }
static void slices(void **state) { (void)state; on_every_backend(check_slices); }
static void misaligned_rows(void **state) { (void)state; on_every_backend(check_misaligned); }
static void backward_is_the_derivative(void **state) { (void)state; on_every_backend(check_finite_difference); }
static void backward_is_deterministic(void **state) { (void)state; on_every_backend(check_determinism); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward),
        cmocka_unit_test(backward),
        cmocka_unit_test(tiles),
        cmocka_unit_test(slices),
        cmocka_unit_test(misaligned_rows),
        cmocka_unit_test(backward_is_the_derivative),
        cmocka_unit_test(backward_is_deterministic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
