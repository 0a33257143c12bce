/* norm_test.h: the tests of LayerNorm and RMSNorm, against a plain double reference. A test defines `norm` and calls run_norm_tests. */
#ifndef KERNELS_NORM_TEST_H
#define KERNELS_NORM_TEST_H

#include "residual_test.h"

/* The ops of a norm, all with the arguments of LayerNorm. One that is not centred has neither mean nor bias. */
typedef struct {
    bool centred;
    void (*forward)(const OpTable *op, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor bias, float eps);
    void (*residual_forward)(const OpTable *op, Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w,
                             Tensor bias, float eps, Dropout drop);
    void (*backward)(const OpTable *op, Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean, Tensor rstd,
                     int add_dx, int accumulate);
} Norm;
static const Norm norm;

static const float EPS = 1e-5f;
static const StepState STEP = {.seed = 0x123456789ABCDEFull, .sample = 3, .step = 17};

static const Shape shapes[] = {{1, 1, 1, false}, {2, 3, 37, false}, {5, 13, 192, false}, {1, 2, 3000, false}, {1, 300, 16, false},
    {2, 3, 64, true}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Around the widths at which the CUDA kernels lay rows out in another way, and with more rows than they take at once. */
static const Shape tiled[] = {{1, 9, 256, false}, {3, 3, 264, false}, {1, 150, 512, false}, {2, 75, 768, false}, {2, 3, 776, false},
    {1, 3, 1023, false}, {1, 3, 1024, false}, {1, 3, 1028, false}, {1, 70, 1280, false}, {1, 3, 1536, false}, {2, 25, 1600, false},
    {1, 2, 2056, false}, {1, 50, 4096, false}, {1, 2, 4104, false}, {1, 15, 8192, false}, {1, 2, 8200, false}, {1, 15, 16384, false},
    {1, 9, 16383, false}};
enum { TILED = sizeof tiled / sizeof *tiled };

/* For sums over a row: plain fp32 sums of so many terms, as of a CPU body that is compiled without vectors, are off by a little more. */
static double row_slack(int C) { return C > 4096 ? 4 : 1; }

/* ---- reference -------------------------------------------------------------------------------------------------------------------- */

static void reference_forward(int N, int C, double *out, double *mean, double *rstd, const double *x, const double *w, const double *bias) {
    for (int row = 0; row < N; row++, x += C, out += C) {
        double m = 0, square = 0;
        for (int c = 0; c < C && norm.centred; c++) m += x[c] / C;
        for (int c = 0; c < C; c++) square += (x[c] - m) * (x[c] - m) / C;
        double r = 1 / sqrt(square + EPS);
        for (int c = 0; c < C; c++) out[c] = (x[c] - m) * r * w[c] + (bias ? bias[c] : 0);
        if (mean) mean[row] = m;
        if (rstd) rstd[row] = r;
    }
}

/* dx, dw and db are added to. */
static void reference_backward(int N, int C, double *dx, double *dw, double *db, const double *dout, const double *x, const double *w) {
    double *xhat = numbers(N * C), *rstd = numbers(N), *ones = numbers(C);
    for (int c = 0; c < C; c++) ones[c] = 1;
    reference_forward(N, C, xhat, NULL, rstd, x, ones, NULL);
    for (int row = 0; row < N; row++) {
        double sum = 0, product = 0;
        for (int c = 0, i = row * C; c < C; c++, i++) {
            if (norm.centred) sum += dout[i] * w[c] / C;
            product += dout[i] * w[c] * xhat[i] / C;
            dw[c] += dout[i] * xhat[i];
            db[c] += dout[i];
        }
        for (int c = 0, i = row * C; c < C; c++, i++) dx[i] += rstd[row] * (dout[i] * w[c] - sum - xhat[i] * product);
    }
}

/* ---- forward ---------------------------------------------------------------------------------------------------------------------- */

/* What a forward writes, and the arguments besides its input. */
typedef struct {
    Tensor out, mean, rstd, w, bias;
    double *w_values, *bias_values;
} Forward;
static Tensor statistic(const Backend *b, Shape z, const double *values) { return keep(b, test_tensor(b, F32, values, 2, z.B, z.T, 0, 0)); }
static Forward forward_case(const Backend *b, DType dtype, Shape z, bool has_bias) {
    Forward f = {.w_values = normals(z.C, 1, 0, dtype), .bias_values = has_bias && norm.centred ? normals(z.C, 1, 0, dtype) : NULL};
    f.out = rows(b, dtype, z, NULL);
    f.mean = norm.centred ? statistic(b, z, NULL) : no_tensor();
    f.rstd = statistic(b, z, NULL);
    f.w = vector(b, dtype, z.C, f.w_values);
    f.bias = f.bias_values ? vector(b, dtype, z.C, f.bias_values) : no_tensor();
    return f;
}

/* A mean near zero is what is left of large terms: its error is measured against their root mean square. */
static void expect_mean(const Backend *b, Tensor t, const double *mean, const double *rstd) {
    const double *got = values_of(b, t);
    for (int64_t i = 0; i < tensor_numel(t); i++) {
        double size = sqrt(mean[i] * mean[i] + 1 / (rstd[i] * rstd[i]));
        if (!(fabs(got[i] - mean[i]) <= 2e-6 * size)) fail_msg("mean %lld is %.9g, expected %.9g", (long long)i, got[i], mean[i]);
    }
}
static void expect_norm(const char *what, const Backend *b, Shape z, Forward f, const double *x, double slack) {
    const int N = z.B * z.T;
    double *out = numbers(N * z.C), *mean = numbers(N), *rstd = numbers(N);
    reference_forward(N, z.C, out, mean, rstd, x, f.w_values, f.bias_values);
    expect_close(what, b, f.out, out, slack);
    expect_close("rstd", b, f.rstd, rstd, slack);
    if (norm.centred) expect_mean(b, f.mean, mean, rstd);
}

static void check_forward_case(const Backend *b, DType dtype, Shape z, double scale, double offset, double slack, bool has_bias) {
    const double *x = normals((int64_t)z.B * z.T * z.C, scale, offset, dtype);
    const Forward f = forward_case(b, dtype, z, has_bias);
    norm.forward(&b->op, f.out, f.mean, f.rstd, rows(b, dtype, z, x), f.w, f.bias, EPS);
    expect_norm("forward", b, z, f, x, slack);
    give_back();
}
static void check_forward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int bias = 0; bias < 2; bias++) check_forward_case(b, dtype, shapes[i], 1, 0, 1, bias);
    for (int i = 0; i < TILED; i++) check_forward_case(b, dtype, tiled[i], 1, 0.5, row_slack(tiled[i].C), i % 2);
}

/* Where the mean is 1000 standard deviations, and is taken out, its own rounding to fp32 (2^-24 of it) shows in the output 1000 times
   enlarged: 1000 * 2^-24 = 6e-5, 30 times the base tolerance; two such roundings are allowed. E[x^2] - E[x]^2 would be off by percents, and
   a plain sum of the long row, added up one by one, by more than is allowed. */
static void check_big_values(const Backend *b, DType dtype) {
    const Shape z = {2, 5, 192, false}, long_rows = {1, 3, 16384, false};
    const double slack = norm.centred ? 60 : 1;
    check_forward_case(b, dtype, z, 1e4, 0, 1, true);
    check_forward_case(b, dtype, z, 1e-4, 0, 1, true);
    if (dtype == BF16) return;   /* 1000 plus a normal number is no more than that number's leading digits in bf16 */
    check_forward_case(b, dtype, z, 1, 1000, slack, true);
    check_forward_case(b, dtype, long_rows, 1, 1000, slack * row_slack(long_rows.C), true);
}

/* The norm must be that of the residual as stored, and made again from it, must have the same bits: the model does so in backward, and
   trains on the same numbers only if they are. */
static void check_residual_case(const Backend *b, DType dtype, Shape z, float p, bool has_bias) {
    const int64_t n = (int64_t)z.B * z.T * z.C;
    const double *x = normals(n, 1, 0.7, dtype), *delta = normals(n, 1, 0, dtype);
    const Tensor residual = rows(b, dtype, z, NULL);
    const Dropout drop = dropout_of(b, p, STEP);
    const Forward f = forward_case(b, dtype, z, has_bias);
    norm.residual_forward(&b->op, residual, f.out, f.mean, f.rstd, rows(b, dtype, z, x), rows(b, dtype, z, delta), f.w, f.bias, EPS, drop);
    expect_close("residual", b, residual, reference_residual(z, x, delta, p, drop.tensor, STEP), 1);
    expect_norm("residual_forward", b, z, f, values_of(b, residual), row_slack(z.C));

    const Tensor out = rows(b, dtype, z, NULL), mean = norm.centred ? statistic(b, z, NULL) : no_tensor(), rstd = statistic(b, z, NULL);
    norm.forward(&b->op, out, mean, rstd, residual, f.w, f.bias, EPS);
    expect_same_bits("out made again", b, out, f.out);
    expect_same_bits("rstd made again", b, rstd, f.rstd);
    if (norm.centred) expect_same_bits("mean made again", b, mean, f.mean);
    give_back();
}
static void check_residual(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int drops = 0; drops < 2; drops++) check_residual_case(b, dtype, shapes[i], drops ? 0.3f : 0, !drops);
    for (int i = 0; i < TILED; i++) check_residual_case(b, dtype, tiled[i], i % 2 ? 0.3f : 0, true);
}

/* ---- backward --------------------------------------------------------------------------------------------------------------------- */

/* Where a case's gradient of x goes. */
typedef enum { ASSIGN, ADD, IN_PLACE, WAYS } Way;

/* The arguments of a backward at x, dout and w, the right statistics among them; gradients start as NaN where they are to be assigned. */
typedef struct {
    double *x, *w, *dout;
    Tensor d_x, d_w, d_dout, dx, dw, db, mean, rstd;
} Backward;
static Backward backward_case(const Backend *b, DType dtype, Shape z, const double *dx, const double *dw, const double *db, bool has_bias) {
    const int N = z.B * z.T, C = z.C;
    double *mean = numbers(N), *rstd = numbers(N);
    Backward g = {.x = normals(N * C, 2, 0, dtype), .w = normals(C, 1, 0, dtype), .dout = normals(N * C, 1, 0, dtype)};
    reference_forward(N, C, numbers(N * C), mean, rstd, g.x, g.w, NULL);
    g.d_x = rows(b, dtype, z, g.x), g.d_w = vector(b, dtype, C, g.w), g.d_dout = rows(b, dtype, z, g.dout), g.dx = rows(b, dtype, z, dx);
    g.dw = vector(b, F32, C, dw), g.db = has_bias && norm.centred ? vector(b, F32, C, db) : no_tensor();
    g.mean = norm.centred ? statistic(b, z, mean) : no_tensor(), g.rstd = statistic(b, z, rstd);
    return g;
}
static void run_backward(const Backend *b, const Backward *g, int add_dx, int accumulate) {
    norm.backward(&b->op, g->dx, g->dw, g->db, g->d_dout, g->d_x, g->d_w, g->mean, g->rstd, add_dx, accumulate);
}

/* dw and db sum over rows, hence the slack. */
static void check_backward_case(const Backend *b, DType dtype, Shape z, Way way, bool accumulate, bool has_bias) {
    const int N = z.B * z.T, C = z.C;
    double *dx = way == ADD ? normals(N * C, 1, 0, dtype) : numbers(N * C), *dw = accumulate ? normals(C, 1, 0, F32) : numbers(C),
           *db = accumulate ? normals(C, 1, 0, F32) : numbers(C);
    Backward g = backward_case(b, dtype, z, way == ADD ? dx : NULL, accumulate ? dw : NULL, accumulate ? db : NULL, has_bias);
    if (way == IN_PLACE) g.dx = g.d_dout;
    reference_backward(N, C, dx, dw, db, g.dout, g.x, g.w);
    run_backward(b, &g, way == ADD, accumulate);
    expect_close("backward dx", b, g.dx, dx, row_slack(C));
    expect_close("backward dw", b, g.dw, dw, 4);
    if (g.db.data) expect_close("backward db", b, g.db, db, 4);
    give_back();
}
/* Without the first shape: at C = 1 the true gradient is as good as zero, and there is nothing to measure the rounding against. */
static void check_backward(const Backend *b, DType dtype) {
    for (int i = 1; i < SHAPES; i++)
        for (int k = 0; k < 4 * WAYS; k++) check_backward_case(b, dtype, shapes[i], (Way)(k % WAYS), k / WAYS % 2, k / WAYS / 2);
    for (int i = 0; i < TILED; i++) check_backward_case(b, dtype, tiled[i], (Way)(i % WAYS), i / 2 % 2, true);
}

typedef struct { int N, C; const double *x, *w, *bias; } Point;
static void forward_at(double *out, void *context) {
    const Point *p = context;
    reference_forward(p->N, p->C, out, NULL, NULL, p->x, p->w, p->bias);
}
static void expect_derivative(const char *what, const Backend *b, Tensor got, Point p, double *variable, int64_t n, const double *dout) {
    double *expected = finite_difference(forward_at, &p, variable, n, dout, p.N * p.C);
    expect_close(what, b, got, expected, 1);
    free(expected);
}
/* Central differences in double are good to about 1e-9 here. */
static void check_finite_difference(const Backend *b, DType dtype) {
    const Shape z = {2, 3, 7, false};
    const int N = z.B * z.T;
    const Backward g = backward_case(b, dtype, z, NULL, NULL, NULL, true);
    double *bias = numbers(z.C);
    const Point p = {N, z.C, g.x, g.w, bias};
    run_backward(b, &g, 0, 0);
    expect_derivative("dx by finite differences", b, g.dx, p, g.x, N * z.C, g.dout);
    expect_derivative("dw by finite differences", b, g.dw, p, g.w, z.C, g.dout);
    if (g.db.data) expect_derivative("db by finite differences", b, g.db, p, bias, z.C, g.dout);
    give_back();
}

/* Ten runs, one result. */
static void check_determinism(const Backend *b, DType dtype) {
    const Shape z = {4, 50, 100, false};
    Backward g = backward_case(b, dtype, z, NULL, NULL, NULL, false);
    run_backward(b, &g, 0, 0);
    const Tensor dx = g.dx, dw = g.dw;
    for (int run = 1; run < 10; run++) {
        g.dx = rows(b, dtype, z, NULL), g.dw = vector(b, F32, z.C, NULL);
        run_backward(b, &g, 0, 0);
        expect_same_bits("dx of another run", b, g.dx, dx);
        expect_same_bits("dw of another run", b, g.dw, dw);
    }
    give_back();
}

static void forward(void **state) { (void)state; on_every_backend(check_forward); }
static void forward_of_big_values(void **state) { (void)state; on_every_backend(check_big_values); }
static void residual_forward_and_recomputation(void **state) { (void)state; on_every_backend(check_residual); }
static void backward(void **state) { (void)state; on_every_backend(check_backward); }
static void backward_is_the_derivative(void **state) { (void)state; on_every_backend(check_finite_difference); }
static void backward_is_deterministic(void **state) { (void)state; on_every_backend(check_determinism); }

static int run_norm_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward),
        cmocka_unit_test(forward_of_big_values),
        cmocka_unit_test(residual_forward_and_recomputation),
        cmocka_unit_test(backward),
        cmocka_unit_test(backward_is_the_derivative),
        cmocka_unit_test(backward_is_deterministic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
