/* matmul_test.c: the products of a linear layer on every backend against double precision; the CPU's activations and what it
   promises beyond the contract (the same bits when run again, and in `out` whether `pre` is kept or not). */
#include "op_test.h"

#include "activation.h"
#include "onednn.h"

#include <float.h>
#include <unistd.h>

typedef struct {
    int64_t N, IC, OC;
} Shape;

/* One row; odd ones; more than a tile of the portable product each way; more than a block of rows; multiples of 8, for which the GPU's
   library has epilogues and its kernels vectors; several parts and blocks of the column sums. */
static const Shape shapes[] = {{1, 65, 128}, {1, 33, 1}, {7, 65, 33}, {130, 33, 65}, {2, 1, 3}, {130, 300, 200}, {2100, 9, 17}, {1, 64, 8},
                               {64, 64, 128}, {65, 129, 63}, {2100, 8, 264}};
enum { SHAPES = sizeof shapes / sizeof *shapes };
static const Activation activations[] = {ACT_NONE, ACT_GELU, ACT_GELU_ERF, ACT_RELU, ACT_SILU, ACT_RELU2};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

/* Rounding errors of a sum of n terms grow like sqrt(n). */
static double slack_of(int64_t terms) { return terms > 256 ? sqrt((double)terms) / 16 : 1; }

static double act_double(double x, Activation act) {
    switch (act) {
    case ACT_GELU: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF: return 0.5 * x * erfc(-x / sqrt(2));
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_RELU2: return x > 0 ? x * x : 0;
    default: return x;
    }
}

static double act_derivative(double x, Activation act) {
    double th = tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)), du = sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
    double e = exp(-fabs(x)), s = (x > 0 ? 1 : e) / (1 + e), rest = (x > 0 ? e : 1) / (1 + e);   /* s = sigmoid(x) = 1 - rest */
    switch (act) {
    case ACT_GELU: return 0.5 * (1 + th) + 0.5 * x * (1 - th * th) * du;
    case ACT_GELU_ERF: return 0.5 * erfc(-x / sqrt(2)) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
    case ACT_RELU: return x > 0;
    case ACT_SILU: return s * (1 + x * rest);
    case ACT_RELU2: return x > 0 ? 2 * x : 0;
    default: return 1;
    }
}

/* D(M,N) = A(M,K) B(K,N), elements of A and B at the given strides */
static double *multiply(const double *A, int64_t a_row, int64_t a_column, const double *B, int64_t b_row, int64_t b_column, int64_t M,
                        int64_t N, int64_t K) {
    double *D = calloc((size_t)(M * N) + 1, sizeof *D);
    for (int64_t m = 0; m < M; m++)
        for (int64_t k = 0; k < K; k++)
            for (int64_t n = 0; n < N; n++) D[m * N + n] += A[m * a_row + k * a_column] * B[k * b_row + n * b_column];
    return D;
}

static Tensor matrix(const Backend *b, DType dtype, const double *values, int64_t rows, int64_t columns) {
    return test_tensor(b, dtype, values, 2, rows, columns, 0, 0);
}
static Tensor vector(const Backend *b, DType dtype, const double *values, int64_t n) {
    return test_tensor(b, dtype, values, 1, n, 0, 0, 0);
}

static void expect_same_bits(const char *what, const Backend *b, Tensor t, Tensor expected) {
    double *got = test_values(b, t), *want = test_values(b, expected);
    for (int64_t i = 0; i < tensor_numel(t); i++)
        if (!(got[i] == want[i])) fail_msg("%s on %s: element %lld is %.9g, expected %.9g", what, b->name, (long long)i, got[i], want[i]);
    free(got); free(want);
}

static void check_forward(const Backend *b, DType dtype, Shape s, double scale) {
    double *xs = random_values(s.N * s.IC, scale, dtype), *ws = random_values(s.OC * s.IC, scale / sqrt((double)s.IC), dtype);
    double *biases = random_values(s.OC, scale, dtype);
    Tensor x = matrix(b, dtype, xs, s.N, s.IC), w = matrix(b, dtype, ws, s.OC, s.IC), bias = vector(b, dtype, biases, s.OC);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
        double *pres = multiply(xs, s.IC, 1, ws, 1, s.IC, s.N, s.OC, s.IC), *outs = malloc((size_t)(s.N * s.OC) * sizeof *outs);
        for (int64_t i = 0; with_bias && i < s.N * s.OC; i++) pres[i] += biases[i % s.OC];
        for (int a = 0; a < ACTIVATIONS; a++) {
            Tensor out = matrix(b, dtype, NULL, s.N, s.OC), again = matrix(b, dtype, NULL, s.N, s.OC);
            Tensor pre = matrix(b, dtype, NULL, s.N, s.OC);
            for (int64_t i = 0; i < s.N * s.OC; i++) outs[i] = act_double(pres[i], activations[a]);
            b->op.matmul_forward(out, no_tensor(), x, w, with_bias ? bias : no_tensor(), activations[a], NULL);
            expect_close("matmul_forward out", b, out, outs, slack_of(s.IC));
            if (activations[a] != ACT_NONE) {
                b->op.matmul_forward(again, pre, x, w, with_bias ? bias : no_tensor(), activations[a], NULL);
                expect_close("matmul_forward out, keeping pre", b, again, outs, slack_of(s.IC));
                expect_close("matmul_forward pre", b, pre, pres, slack_of(s.IC));
                if (strcmp(b->name, "cpu") == 0) expect_same_bits("matmul_forward out, keeping pre or not", b, again, out);
            }
            test_free(b, out); test_free(b, again); test_free(b, pre);
        }
        free(pres); free(outs);
    }
    test_free(b, x); test_free(b, w); test_free(b, bias);
    free(xs); free(ws); free(biases);
}

static void check_add_forward(const Backend *b, DType dtype, Shape s) {
    double *xs = random_values(s.N * s.IC, 1, dtype), *ws = random_values(s.OC * s.IC, 1, dtype);
    double *biases = random_values(s.OC, 9, dtype), *adds = random_values(s.N * s.OC, 9, dtype);
    Tensor x = matrix(b, dtype, xs, s.N, s.IC), w = matrix(b, dtype, ws, s.OC, s.IC), bias = vector(b, dtype, biases, s.OC);
    Tensor add = matrix(b, dtype, adds, s.N, s.OC);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
        Tensor out = matrix(b, dtype, NULL, s.N, s.OC);
        double *outs = multiply(xs, s.IC, 1, ws, 1, s.IC, s.N, s.OC, s.IC);
        for (int64_t i = 0; i < s.N * s.OC; i++) outs[i] += adds[i] + (with_bias ? biases[i % s.OC] : 0);
        b->op.matmul_add_forward(out, x, w, with_bias ? bias : no_tensor(), add, NULL);
        expect_close("matmul_add_forward out", b, out, outs, slack_of(s.IC));
        test_free(b, out);
        free(outs);
    }
    test_free(b, x); test_free(b, w); test_free(b, bias); test_free(b, add);
    free(xs); free(ws); free(biases); free(adds);
}

static void check_backward_input(const Backend *b, DType dtype, Shape s, double scale) {
    double *douts = random_values(s.N * s.OC, 1, dtype), *ws = random_values(s.OC * s.IC, 1, dtype);
    double *pres = random_values(s.N * s.IC, scale, dtype);
    Tensor dout = matrix(b, dtype, douts, s.N, s.OC), w = matrix(b, dtype, ws, s.OC, s.IC), pre = matrix(b, dtype, pres, s.N, s.IC);
    for (int a = 0; a < ACTIVATIONS; a++) {
        Tensor dx = matrix(b, dtype, NULL, s.N, s.IC);
        double *expected = multiply(douts, s.OC, 1, ws, s.IC, 1, s.N, s.IC, s.OC);
        for (int64_t i = 0; i < s.N * s.IC; i++) expected[i] *= act_derivative(pres[i], activations[a]);
        b->op.matmul_backward_input(dx, dout, w, activations[a] == ACT_NONE ? no_tensor() : pre, activations[a], NULL);
        expect_close("matmul_backward_input dx", b, dx, expected, slack_of(s.OC));
        free(expected);
        test_free(b, dx);
    }
    test_free(b, dout); test_free(b, w); test_free(b, pre);
    free(douts); free(ws); free(pres);
}

static void check_backward_weight(const Backend *b, DType dtype, Shape s) {
    double *douts = random_values(s.N * s.OC, 1, dtype), *xs = random_values(s.N * s.IC, 1, dtype);
    double *dws_before = random_values(s.OC * s.IC, 3, F32), *dbs_before = random_values(s.OC, 3, F32), one = 1;
    Tensor dout = matrix(b, dtype, douts, s.N, s.OC), x = matrix(b, dtype, xs, s.N, s.IC);
    double *dws = multiply(douts, 1, s.OC, xs, s.IC, 1, s.OC, s.IC, s.N), *dbs = multiply(&one, 0, 0, douts, s.OC, 1, 1, s.OC, s.N);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        Tensor dw = matrix(b, F32, accumulate ? dws_before : NULL, s.OC, s.IC), db = vector(b, F32, accumulate ? dbs_before : NULL, s.OC);
        Tensor dw_alone = matrix(b, F32, accumulate ? dws_before : NULL, s.OC, s.IC);
        for (int64_t i = 0; accumulate && i < s.OC * s.IC; i++) dws[i] += dws_before[i];
        for (int64_t i = 0; accumulate && i < s.OC; i++) dbs[i] += dbs_before[i];
        b->op.matmul_backward_weight(dw, db, dout, x, accumulate, NULL);
        b->op.matmul_backward_weight(dw_alone, no_tensor(), dout, x, accumulate, NULL);
        expect_close("matmul_backward_weight dw", b, dw, dws, slack_of(s.N));
        expect_close("matmul_backward_weight dw without db", b, dw_alone, dws, slack_of(s.N));
        expect_close("matmul_backward_weight db", b, db, dbs, slack_of(s.N));
        test_free(b, dw); test_free(b, db); test_free(b, dw_alone);
    }
    test_free(b, dout); test_free(b, x);
    free(douts); free(xs); free(dws); free(dbs); free(dws_before); free(dbs_before);
}

static void forward_on(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) check_forward(b, dtype, shapes[i], 1);
    check_forward(b, dtype, (Shape){7, 65, 33}, 300);
}
static void backward_input_on(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) check_backward_input(b, dtype, shapes[i], 1);
    check_backward_input(b, dtype, (Shape){7, 65, 33}, 300);
}
static void backward_weight_on(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) check_backward_weight(b, dtype, shapes[i]);
}
static void add_forward_on(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) check_add_forward(b, dtype, shapes[i]);
}
static void forward_matches_double(void **state) { (void)state; on_every_backend(forward_on); }
static void add_forward_matches_double(void **state) { (void)state; on_every_backend(add_forward_on); }
static void backward_input_matches_double(void **state) { (void)state; on_every_backend(backward_input_on); }
static void backward_weight_matches_double(void **state) { (void)state; on_every_backend(backward_weight_on); }

/* out(N,OC) = act(pre(N,IC)) w^T: what backward_input differentiates with respect to pre. */
typedef struct {
    Shape s;
    double *pre, *w, *hidden;
    Activation act;
} Layer;

static void layer_forward(double *out, void *context) {
    Layer *l = context;
    for (int64_t i = 0; i < l->s.N * l->s.IC; i++) l->hidden[i] = act_double(l->pre[i], l->act);
    double *product = multiply(l->hidden, l->s.IC, 1, l->w, 1, l->s.IC, l->s.N, l->s.OC, l->s.IC);
    memcpy(out, product, (size_t)(l->s.N * l->s.OC) * sizeof *out);
    free(product);
}

static void gradients_on(const Backend *b, DType dtype) {
    Shape s = {5, 11, 6};
    for (int a = 0; a < ACTIVATIONS; a++) {
        double *pres = random_values(s.N * s.IC, 1, dtype), *ws = random_values(s.OC * s.IC, 1, dtype);
        Layer l = {s, pres, ws, malloc((size_t)(s.N * s.IC) * sizeof(double)), activations[a]};
        double *douts = random_values(s.N * s.OC, 1, dtype);
        double *dpres = finite_difference(layer_forward, &l, pres, s.N * s.IC, douts, s.N * s.OC);
        double *dws = finite_difference(layer_forward, &l, ws, s.OC * s.IC, douts, s.N * s.OC);
        Tensor dout = matrix(b, dtype, douts, s.N, s.OC), w = matrix(b, dtype, ws, s.OC, s.IC), pre = matrix(b, dtype, pres, s.N, s.IC);
        Tensor dx = matrix(b, dtype, NULL, s.N, s.IC);
        b->op.matmul_backward_input(dx, dout, w, activations[a] == ACT_NONE ? no_tensor() : pre, activations[a], NULL);
        expect_close("matmul_backward_input against finite differences", b, dx, dpres, 1);
        if (activations[a] == ACT_NONE) {   /* hidden is then pre, which the dtype holds exactly */
            Tensor dw = matrix(b, F32, NULL, s.OC, s.IC);
            b->op.matmul_backward_weight(dw, no_tensor(), dout, pre, 0, NULL);
            expect_close("matmul_backward_weight against finite differences", b, dw, dws, 1);
            test_free(b, dw);
        }
        test_free(b, dout); test_free(b, w); test_free(b, pre); test_free(b, dx);
        free(pres); free(ws); free(l.hidden); free(douts); free(dpres); free(dws);
    }
}
static void backward_matches_finite_differences(void **state) { (void)state; on_every_backend(gradients_on); }

/* A NaN in one row of x reaches that row of out, through every activation, and no other row; one in pre its element of dx. */
static void nan_on(const Backend *b, DType dtype) {
    double xs[3 * 4] = {1, 1, 1, 1, 1, NAN, 1, 1, 1, 1, 1, 1}, ws[2 * 4] = {-1, -1, -1, -1, 1, 1, 1, 1};
    Tensor x = matrix(b, dtype, xs, 3, 4), w = matrix(b, dtype, ws, 2, 4);
    Tensor out = matrix(b, dtype, NULL, 3, 2), pre = matrix(b, dtype, NULL, 3, 2);
    for (int a = 0; a < ACTIVATIONS; a++)
        for (int keep = 0; keep < 2; keep++) {
            b->op.matmul_forward(out, keep ? pre : no_tensor(), x, w, no_tensor(), activations[a], NULL);
            double *values = test_values(b, out);
            for (int i = 0; i < 6; i++) assert_int_equal(isnan(values[i]) != 0, i / 2 == 1);
            free(values);
        }
    double ones[3 * 2] = {1, 1, 1, 1, 1, 1};
    Tensor dx = matrix(b, dtype, NULL, 3, 4), dout = matrix(b, dtype, ones, 3, 2);
    for (int a = 0; a < ACTIVATIONS; a++) {
        if (activations[a] == ACT_NONE) continue;
        b->op.matmul_backward_input(dx, dout, w, x, activations[a], NULL);
        double *values = test_values(b, dx);
        for (int i = 0; i < 12; i++) assert_int_equal(isnan(values[i]) != 0, i == 5);
        free(values);
    }
    test_free(b, x); test_free(b, w); test_free(b, out); test_free(b, pre); test_free(b, dx); test_free(b, dout);
}
static void nan_spreads_to_its_row_only(void **state) { (void)state; on_every_backend(nan_on); }

/* No tokens: nothing to write forward; gradients are cleared, or kept when accumulating. */
static void empty_on(const Backend *b, DType dtype) {
    double ones[6] = {1, 1, 1, 1, 1, 1}, zeros[6] = {0};
    Tensor x = matrix(b, dtype, NULL, 0, 3), out = matrix(b, dtype, NULL, 0, 2), w = matrix(b, dtype, ones, 2, 3);
    b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_GELU, NULL);
    b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_NONE, NULL);
    b->op.matmul_backward_input(x, out, w, no_tensor(), ACT_NONE, NULL);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        Tensor dw = matrix(b, F32, ones, 2, 3), db = vector(b, F32, ones, 2);
        b->op.matmul_backward_weight(dw, db, out, x, accumulate, NULL);
        expect_close("dw of no tokens", b, dw, accumulate ? ones : zeros, 1);
        expect_close("db of no tokens", b, db, accumulate ? ones : zeros, 1);
        test_free(b, dw); test_free(b, db);
    }
    test_free(b, x); test_free(b, out); test_free(b, w);
}
static void empty_batch(void **state) { (void)state; on_every_backend(empty_on); }

/* Leading axes are rows: (B,T,C) serves as (B*T,C). */
static void leading_axes_on(const Backend *b, DType dtype) {
    double *xs = random_values(2 * 3 * 5, 1, dtype), *ws = random_values(4 * 5, 1, dtype), *outs = multiply(xs, 5, 1, ws, 1, 5, 6, 4, 5);
    Tensor x = test_tensor(b, dtype, xs, 3, 2, 3, 5, 0), w = matrix(b, dtype, ws, 4, 5), out = test_tensor(b, dtype, NULL, 3, 2, 3, 4, 0);
    b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_NONE, NULL);
    expect_close("matmul_forward of (B,T,C)", b, out, outs, 1);
    test_free(b, x); test_free(b, w); test_free(b, out);
    free(xs); free(ws); free(outs);
}
static void leading_axes_are_rows(void **state) { (void)state; on_every_backend(leading_axes_on); }

/* Run again: the same bits; bias gradients on one thread, too. The 700 rows are more than one block of the weight gradient. */
static void same_bits_on(const Backend *b, DType dtype) {
    Shape s = {700, 24, 40};
    double *xs = random_values(s.N * s.IC, 1, dtype), *douts = random_values(s.N * s.OC, 1, dtype);
    double *ws = random_values(s.OC * s.IC, 1, dtype);
    Tensor x = matrix(b, dtype, xs, s.N, s.IC), dout = matrix(b, dtype, douts, s.N, s.OC), w = matrix(b, dtype, ws, s.OC, s.IC);
    Tensor out[3], dx[3], dw[3], db[3];
    int threads = omp_get_max_threads();
    for (int run = 0; run < 3; run++) {
        out[run] = matrix(b, dtype, NULL, s.N, s.OC); dx[run] = matrix(b, dtype, NULL, s.N, s.IC);
        dw[run] = matrix(b, F32, NULL, s.OC, s.IC); db[run] = vector(b, F32, NULL, s.OC);
#ifdef _OPENMP
        if (run == 2) omp_set_num_threads(1);
#endif
        b->op.matmul_forward(out[run], no_tensor(), x, w, no_tensor(), ACT_GELU, NULL);
        b->op.matmul_backward_input(dx[run], dout, w, x, ACT_GELU, NULL);
        b->op.matmul_backward_weight(dw[run], db[run], dout, x, 0, NULL);
    }
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
    (void)threads;
    expect_same_bits("out", b, out[1], out[0]);
    expect_same_bits("dx", b, dx[1], dx[0]);
    expect_same_bits("dw", b, dw[1], dw[0]);
    expect_same_bits("db", b, db[1], db[0]);
    expect_same_bits("db on one thread", b, db[2], db[0]);
    for (int run = 0; run < 3; run++) {
        test_free(b, out[run]); test_free(b, dx[run]); test_free(b, dw[run]); test_free(b, db[run]);
    }
    test_free(b, x); test_free(b, dout); test_free(b, w);
    free(xs); free(douts); free(ws);
}
static void runs_give_the_same_bits(void **state) { (void)state; on_every_backend(same_bits_on); }

/* More shapes than the CPU keeps compiled products for. */
static void many_shapes_on(const Backend *b, DType dtype) {
    double *xs = random_values(600 * 3, 1, dtype), *ws = random_values(2 * 3, 1, dtype), *outs = multiply(xs, 3, 1, ws, 1, 3, 600, 2, 3);
    Tensor w = matrix(b, dtype, ws, 2, 3);
    for (int64_t N = 2; N <= 600; N++) {
        Tensor x = matrix(b, dtype, xs, N, 3), out = matrix(b, dtype, NULL, N, 2);
        b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_NONE, NULL);
        expect_close("matmul_forward of many shapes", b, out, outs, 1);
        test_free(b, x); test_free(b, out);
    }
    test_free(b, w);
    free(xs); free(ws); free(outs);
}
static void many_shapes(void **state) { (void)state; on_every_backend(many_shapes_on); }

/* Tensors that begin anywhere: each is one element into its memory, though its rows are as long as vectors. */
static Tensor one_in(const Backend *b, DType dtype, const double *values, int64_t rows, int64_t columns) {
    double *shifted = calloc((size_t)(rows * columns) + 1, sizeof *shifted);
    for (int64_t i = 0; values && i < rows * columns; i++) shifted[i + 1] = values[i];
    Tensor memory = vector(b, dtype, shifted, rows * columns + 1);
    free(shifted);
    return tensor((char *)memory.data + dtype_size(dtype), dtype, 2, rows, columns, 0, 0);
}
static void free_one_in(const Backend *b, Tensor t) {
    t.data = (char *)t.data - dtype_size(t.dtype);
    test_free(b, t);
}

static void tensors_begin_anywhere_on(const Backend *b, DType dtype) {
    Shape s = {130, 16, 24};
    double *xs = random_values(s.N * s.IC, 1, dtype), *ws = random_values(s.OC * s.IC, 1, dtype), *biases = random_values(s.OC, 1, dtype);
    double *douts = random_values(s.N * s.OC, 1, dtype), one = 1;
    double *pres = multiply(xs, s.IC, 1, ws, 1, s.IC, s.N, s.OC, s.IC), *dxs = multiply(douts, s.OC, 1, ws, s.IC, 1, s.N, s.IC, s.OC);
    double *dws = multiply(douts, 1, s.OC, xs, s.IC, 1, s.OC, s.IC, s.N), *dbs = multiply(&one, 0, 0, douts, s.OC, 1, 1, s.OC, s.N);
    double *outs = malloc((size_t)(s.N * s.OC) * sizeof *outs);
    for (int64_t i = 0; i < s.N * s.OC; i++) pres[i] += biases[i % s.OC];
    Tensor x = one_in(b, dtype, xs, s.N, s.IC), w = one_in(b, dtype, ws, s.OC, s.IC), bias = one_in(b, dtype, biases, 1, s.OC);
    Tensor dout = one_in(b, dtype, douts, s.N, s.OC), out = one_in(b, dtype, NULL, s.N, s.OC), pre = one_in(b, dtype, NULL, s.N, s.OC);
    Tensor dx = one_in(b, dtype, NULL, s.N, s.IC), dw = one_in(b, F32, NULL, s.OC, s.IC), db = one_in(b, F32, NULL, 1, s.OC);
    for (int a = 0; a < ACTIVATIONS; a++) {
        for (int64_t i = 0; i < s.N * s.OC; i++) outs[i] = act_double(pres[i], activations[a]);
        b->op.matmul_forward(out, activations[a] == ACT_NONE ? no_tensor() : pre, x, w, bias, activations[a], NULL);
        expect_close("matmul_forward of unaligned tensors", b, out, outs, 1);
        if (activations[a] != ACT_NONE) expect_close("matmul_forward pre of unaligned tensors", b, pre, pres, 1);
        double *expected = malloc((size_t)(s.N * s.IC) * sizeof *expected);
        for (int64_t i = 0; i < s.N * s.IC; i++) expected[i] = dxs[i] * act_derivative(xs[i], activations[a]);
        b->op.matmul_backward_input(dx, dout, w, activations[a] == ACT_NONE ? no_tensor() : x, activations[a], NULL);
        expect_close("matmul_backward_input of unaligned tensors", b, dx, expected, 1);
        free(expected);
    }
    b->op.matmul_backward_weight(dw, db, dout, x, 0, NULL);
    expect_close("matmul_backward_weight dw of unaligned tensors", b, dw, dws, 1);
    expect_close("matmul_backward_weight db of unaligned tensors", b, db, dbs, 1);
    free_one_in(b, x); free_one_in(b, w); free_one_in(b, bias); free_one_in(b, dout); free_one_in(b, out); free_one_in(b, pre);
    free_one_in(b, dx); free_one_in(b, dw); free_one_in(b, db);
    free(xs); free(ws); free(biases); free(douts); free(pres); free(dxs); free(dws); free(dbs); free(outs);
}
static void tensors_begin_anywhere(void **state) { (void)state; on_every_backend(tensors_begin_anywhere_on); }

/* So many sums that a GPU's scratch holds them only in pieces, the last of which is smaller. One is enough: bf16, the erf form. */
static void sums_in_pieces_on(const Backend *b, DType dtype) {
    if (strcmp(b->name, "cpu") == 0 || dtype == F32) return;
    Shape s = {8500, 8, 1000};
    double *xs = random_values(s.N * s.IC, 1, dtype), *ws = random_values(s.OC * s.IC, 0.3, dtype);
    double *outs = multiply(xs, s.IC, 1, ws, 1, s.IC, s.N, s.OC, s.IC);
    for (int64_t i = 0; i < s.N * s.OC; i++) outs[i] = act_double(outs[i], ACT_GELU_ERF);
    Tensor x = matrix(b, dtype, xs, s.N, s.IC), w = matrix(b, dtype, ws, s.OC, s.IC), out = matrix(b, dtype, NULL, s.N, s.OC);
    b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_GELU_ERF, NULL);
    expect_close("matmul_forward in pieces", b, out, outs, 1);
    free(outs);
    double *dxs = multiply(xs, s.IC, 1, ws, 1, s.IC, s.N, s.OC, s.IC), *pres = test_values(b, out);   /* x serves as dout, w^T as w */
    double *transposed = malloc((size_t)(s.IC * s.OC) * sizeof *transposed);
    for (int64_t i = 0; i < s.IC * s.OC; i++) transposed[i] = ws[i % s.OC * s.IC + i / s.OC];
    for (int64_t i = 0; i < s.N * s.OC; i++) dxs[i] *= act_derivative(pres[i], ACT_GELU_ERF);
    Tensor w_transposed = matrix(b, dtype, transposed, s.IC, s.OC), dx = matrix(b, dtype, NULL, s.N, s.OC);
    b->op.matmul_backward_input(dx, x, w_transposed, out, ACT_GELU_ERF, NULL);
    expect_close("matmul_backward_input in pieces", b, dx, dxs, 1);
    test_free(b, x); test_free(b, w); test_free(b, out); test_free(b, w_transposed); test_free(b, dx);
    free(xs); free(ws); free(dxs); free(pres); free(transposed);
}
static void sums_in_pieces(void **state) { (void)state; on_every_backend(sums_in_pieces_on); }

/* Products of a captured graph are done when it is launched, and as often. */
static void graphs_on(const Backend *b, DType dtype) {
    if (!b->graph_begin) return;
    Shape s = {40, 24, 16};
    double *xs = random_values(s.N * s.IC, 1, dtype), *ws = random_values(s.OC * s.IC, 1, dtype), three = 3;
    double *douts = random_values(s.N * s.OC, 1, dtype), *outs = multiply(xs, s.IC, 1, ws, 1, s.IC, s.N, s.OC, s.IC);
    double *dws = multiply(douts, 1, s.OC, xs, s.IC, 1, s.OC, s.IC, s.N), *dbs = multiply(&three, 0, 0, douts, s.OC, 1, 1, s.OC, s.N);
    for (int64_t i = 0; i < s.N * s.OC; i++) outs[i] = act_double(outs[i], ACT_GELU);
    for (int64_t i = 0; i < s.OC * s.IC; i++) dws[i] *= 3;
    Tensor x = matrix(b, dtype, xs, s.N, s.IC), w = matrix(b, dtype, ws, s.OC, s.IC), dout = matrix(b, dtype, douts, s.N, s.OC);
    Tensor out = matrix(b, dtype, NULL, s.N, s.OC), dw = matrix(b, F32, NULL, s.OC, s.IC), db = vector(b, F32, NULL, s.OC);
    Stream *stream = b->stream_open(0);
    b->op.matmul_backward_weight(dw, db, dout, x, 0, stream);
    b->op.matmul_backward_weight(dw, db, dout, x, 1, stream);   /* 2 of 3; and everything has its memory before the capture */
    b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_GELU, stream);
    b->synchronize(stream);
    test_free(b, out);
    out = matrix(b, dtype, NULL, s.N, s.OC);
    b->graph_begin(stream);
    b->op.matmul_forward(out, no_tensor(), x, w, no_tensor(), ACT_GELU, stream);
    b->op.matmul_backward_weight(dw, db, dout, x, 1, stream);
    Graph *graph = b->graph_end(stream);
    b->graph_launch(graph, stream);
    b->synchronize(stream);
    expect_close("matmul_forward in a graph", b, out, outs, 1);
    expect_close("matmul_backward_weight dw in a graph", b, dw, dws, 1);
    expect_close("matmul_backward_weight db in a graph", b, db, dbs, 1);
    b->graph_close(graph);
    b->stream_close(stream);
    test_free(b, x); test_free(b, w); test_free(b, dout); test_free(b, out); test_free(b, dw); test_free(b, db);
    free(xs); free(ws); free(douts); free(outs); free(dws); free(dbs);
}
static void graphs_repeat_products(void **state) { (void)state; on_every_backend(graphs_on); }

static char *read_whole(const char *path) {
    static char text[1 << 16];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

/* Timed choices: right results whichever way is taken (the emulator takes the unusual one), kept in a file and as text, which is taken back
   only if it is whole and of this machine. */
static void choices_are_kept_on(const Backend *b, DType dtype) {
    if (strcmp(b->name, "cpu") == 0 || dtype == F32) return;
    char path[] = P_tmpdir "/algorithms_testXXXXXX";
    const BackendSettings usual = {ATTENTION_AUTO, 0, 1, 0, NULL}, timing = {ATTENTION_AUTO, 0, 0, 1, path};
    const int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "of another machine\n", 19), 19);
    close(file);
    b->configure(&timing);   /* warns that it ignores the file */
    check_forward(b, dtype, (Shape){40, 24, 72}, 1);
    check_backward_input(b, dtype, (Shape){40, 72, 24}, 1);
    check_backward_weight(b, dtype, (Shape){200, 24, 72});
    const char *text = b->algorithms();
    assert_non_null(strstr(text, "\ngelu+aux 40 x 72 x 24 = "));
    assert_non_null(strstr(text, "\ndgelu 40 x 72 x 24 = "));
    assert_non_null(strstr(text, "\nbias gradient 72 x 24 x 200 = "));
    if (strcmp(b->name, "emu") == 0) {
        assert_non_null(strstr(text, "\ngelu+aux 40 x 72 x 24 = apart\n"));
        assert_non_null(strstr(text, "\nbias gradient 72 x 24 x 200 = fused\n"));
    }
    assert_int_equal(strncmp(text, read_whole(path), strcspn(text, "\n")), 0);
    assert_non_null(strstr(read_whole(path), "\nbias gradient 72 x 24 x 200 = "));
    assert_true(b->set_algorithms(text));
    const size_t size = strlen(text) + 100;
    char *damaged = malloc(size);
    snprintf(damaged, size, "x%s", text);
    assert_false(b->set_algorithms(damaged));
    snprintf(damaged, size, "%sgelu+aux 1 x 8 x 8 = apart\nnonsense\n", text);
    assert_false(b->set_algorithms(damaged));
    free(damaged);
    assert_null(strstr(b->algorithms(), "1 x 8 x 8"));
    assert_false(b->set_algorithms(""));
    b->configure(&usual);
    check_forward(b, dtype, (Shape){40, 24, 72}, 1);   /* what was chosen holds without timing, too */
    unlink(path);
}
static void choices_are_kept(void **state) { (void)state; on_every_backend(choices_are_kept_on); }

/* The portable product, in a build with oneDNN too: more than a tile each way, each transposition, bias and addition; bf16 results. */
static void check_portable(DType dtype, DType d_dtype, int transpose_a, int transpose_b, int with_bias, int add) {
    const Backend *b = backend_find("cpu");
    int64_t M = 101, N = 210, K = 530;
    double *as = random_values(M * K, 1, dtype), *bs = random_values(K * N, 1, dtype), *biases = random_values(N, 9, dtype);
    double *before = random_values(M * N, 9, d_dtype);
    double *expected = multiply(as, transpose_a ? 1 : K, transpose_a ? M : 1, bs, transpose_b ? 1 : N, transpose_b ? K : 1, M, N, K);
    for (int64_t i = 0; i < M * N; i++) expected[i] += (with_bias ? biases[i % N] : 0) + (add ? before[i] : 0);
    Tensor A = vector(b, dtype, as, M * K), B = vector(b, dtype, bs, K * N), bias = vector(b, dtype, biases, N);
    Tensor D = matrix(b, d_dtype, add ? before : NULL, M, N);
    portable_matmul(D.data, D.dtype, A.data, B.data, dtype, with_bias ? bias.data : NULL, dtype, M, N, K, transpose_a, transpose_b, add);
    expect_close("portable_matmul", b, D, expected, slack_of(K));
    test_free(b, A); test_free(b, B); test_free(b, bias); test_free(b, D);
    free(as); free(bs); free(biases); free(before); free(expected);
}
static void portable_matches_double(void **state) {
    (void)state;
    for (int flags = 0; flags < 16; flags++) {
        check_portable(F32, F32, flags & 1, flags >> 1 & 1, flags >> 2 & 1, flags >> 3);
        check_portable(BF16, flags & 1 ? F32 : BF16, flags & 1, flags >> 1 & 1, flags >> 2 & 1, flags >> 3);
    }
}

static void normal_cdf_keeps_its_bounds(void **state) {
    (void)state;
    for (int i = -13000; i <= 13000; i++) {
        float x = (float)i * 1e-3f;
        double expected = 0.5 * erfc(-(double)x / sqrt(2)), error = fabs(normal_cdf(x) - expected);
        if (!(error <= 2.5e-7) || (x >= -12.5f && !(error <= 1e-5 * expected)))
            fail_msg("normal_cdf(%g) is off by %g of %g", (double)x, error, expected);
    }
    assert_true(normal_cdf(INFINITY) == 1 && normal_cdf(-INFINITY) < 1e-38f && isnan(normal_cdf(NAN)));
}

/* Beyond the floats, Inf is right. */
static bool near(float got, double expected, double relative, double absolute) {
    if (fabs(expected) > FLT_MAX) return got == (expected > 0 ? INFINITY : -INFINITY);
    return fabs(got - expected) <= relative * fabs(expected) + absolute;
}

/* Every activation, element by element, over the range where it bends, and far out. */
static void activations_match_double(void **state) {
    (void)state;
    enum { STEPS = 20001, FAR = 6 };
    static float x[STEPS + FAR], y[STEPS + FAR], dy[STEPS + FAR];
    const float far[FAR] = {1e4f, -1e4f, 1e15f, -1e15f, 3e38f, 0};
    for (int i = 0; i < STEPS; i++) x[i] = (float)(i - STEPS / 2) * 1.3e-3f;
    memcpy(x + STEPS, far, sizeof far);
    for (int a = 0; a < ACTIVATIONS; a++) {
        for (int i = 0; i < STEPS + FAR; i++) dy[i] = 1;
        activate(y, x, STEPS + FAR, activations[a]);
        activation_backward(dy, x, STEPS + FAR, activations[a]);
        for (int i = 0; i < STEPS + FAR; i++) {
            double expected = act_double(x[i], activations[a]), derivative = act_derivative(x[i], activations[a]);
            if (!near(y[i], expected, 2e-6, 1e-7)) fail_msg("activation %d of %g: %.9g, expected %.9g", a, x[i], y[i], expected);
            if (!near(dy[i], derivative, 1e-6, 1e-6)) fail_msg("derivative %d at %g: %.9g, expected %.9g", a, x[i], dy[i], derivative);
        }
        float nan = NAN, one = 1;
        activate(&nan, &nan, 1, activations[a]);
        assert_true(isnan(nan));
        if (activations[a] != ACT_NONE) {
            activation_backward(&one, &nan, 1, activations[a]);
            assert_true(isnan(one));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_double), cmocka_unit_test(add_forward_matches_double),
        cmocka_unit_test(backward_input_matches_double),
        cmocka_unit_test(backward_weight_matches_double),
        cmocka_unit_test(backward_matches_finite_differences),
        cmocka_unit_test(nan_spreads_to_its_row_only),
        cmocka_unit_test(empty_batch),
        cmocka_unit_test(leading_axes_are_rows),
        cmocka_unit_test(runs_give_the_same_bits),
        cmocka_unit_test(many_shapes),
        cmocka_unit_test(tensors_begin_anywhere),
        cmocka_unit_test(sums_in_pieces),
        cmocka_unit_test(graphs_repeat_products),
        cmocka_unit_test(choices_are_kept),
        cmocka_unit_test(portable_matches_double),
        cmocka_unit_test(normal_cdf_keeps_its_bounds),
        cmocka_unit_test(activations_match_double),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
