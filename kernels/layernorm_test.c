/* layernorm_test.c: layer normalisation, alone and after the residual add, against a plain double reference. */
#include "op_test.h"
#include "philox.h"

static const float EPS = 1e-5f;

typedef struct { int B, T, C; } Shape;
static const Shape shapes[] = {{1, 1, 1}, {2, 3, 37}, {5, 13, 192}, {1, 2, 3000}, {1, 300, 16}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Around the widths at which the CUDA kernels lay rows out in another way, and with more rows than they take at once. */
static const Shape tiled[] = {{1, 9, 256}, {3, 3, 264}, {1, 150, 512}, {2, 75, 768}, {2, 3, 776}, {1, 3, 1023}, {1, 3, 1024},
    {1, 3, 1028}, {1, 70, 1280}, {1, 3, 1536}, {2, 25, 1600}, {1, 2, 2056}, {1, 50, 4096}, {1, 2, 4104}, {1, 15, 8192},
    {1, 2, 8200}, {1, 15, 16384}, {1, 9, 16383}};
enum { TILED = sizeof tiled / sizeof *tiled };

/* For sums over a row: plain fp32 sums of so many terms, as of a CPU body that is compiled without vectors, are off by a little more. */
static double row_slack(int C) { return C > 4096 ? 4 : 1; }

static double *numbers(int64_t n) { return malloc((size_t)n * sizeof(double)); }

static void reference_forward(int N, int C, double *out, double *mean, double *rstd, const double *x, const double *w, const double *bias) {
    for (int row = 0; row < N; row++, x += C, out += C) {
        double m = 0, variance = 0;
        for (int c = 0; c < C; c++) m += x[c] / C;
        for (int c = 0; c < C; c++) variance += (x[c] - m) * (x[c] - m) / C;
        double r = 1 / sqrt(variance + EPS);
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
            sum += dout[i] * w[c] / C;
            product += dout[i] * w[c] * xhat[i] / C;
            dw[c] += dout[i] * xhat[i];
            db[c] += dout[i];
        }
        for (int c = 0, i = row * C; c < C; c++, i++) dx[i] += rstd[row] * (dout[i] * w[c] - sum - xhat[i] * product);
    }
    free(xhat); free(rstd); free(ones);
}

/* x = offset + scale * normal. */
static double *shifted_values(int64_t n, double scale, double offset, DType dtype) {
    double *values = random_values(n, scale, F32);
    for (int64_t i = 0; i < n; i++) values[i] = rounded(values[i] + offset, dtype);
    return values;
}

/* A mean near zero is what is left of large terms: its error is measured against their root mean square. */
static void expect_mean(const Backend *b, Tensor t, const double *mean, const double *rstd) {
    double *got = test_values(b, t);
    for (int64_t i = 0; i < tensor_numel(t); i++) {
        double size = sqrt(mean[i] * mean[i] + 1 / (rstd[i] * rstd[i]));
        if (!(fabs(got[i] - mean[i]) <= 2e-6 * size)) fail_msg("mean %lld is %.9g, expected %.9g", (long long)i, got[i], mean[i]);
    }
    free(got);
}

static void check_forward_shape(const Backend *b, DType dtype, Shape z, double scale, double offset, double slack, bool has_bias) {
    int N = z.B * z.T, C = z.C;
    double *x = shifted_values(N * C, scale, offset, dtype), *w = random_values(C, 1, dtype);
    double *bias = has_bias ? random_values(C, 1, dtype) : NULL;
    double *expected = numbers(N * C), *mean = numbers(N), *rstd = numbers(N);
    Tensor d_x = test_tensor(b, dtype, x, 3, z.B, z.T, C, 0), d_w = test_tensor(b, dtype, w, 1, C, 0, 0, 0);
    Tensor d_bias = has_bias ? test_tensor(b, dtype, bias, 1, C, 0, 0, 0) : no_tensor();
    Tensor out = test_tensor(b, dtype, NULL, 3, z.B, z.T, C, 0);
    Tensor d_mean = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0), d_rstd = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0);
    reference_forward(N, C, expected, mean, rstd, x, w, bias);
    b->op.layernorm_forward(out, d_mean, d_rstd, d_x, d_w, d_bias, EPS, NULL);
    expect_close("layernorm_forward", b, out, expected, slack);
    expect_mean(b, d_mean, mean, rstd);
    expect_close("layernorm_forward rstd", b, d_rstd, rstd, slack);
    test_free(b, d_x); test_free(b, d_w); test_free(b, d_bias); test_free(b, out); test_free(b, d_mean); test_free(b, d_rstd);
    free(x); free(w); free(bias); free(expected); free(mean); free(rstd);
}

static void check_forward(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++)
        for (int bias = 0; bias < 2; bias++) check_forward_shape(b, dtype, shapes[i], 1, 0, 1, bias);
    for (int i = 0; i < TILED; i++) check_forward_shape(b, dtype, tiled[i], 1, 0.5, row_slack(tiled[i].C), i % 2);
}

/* Where the mean is 1000 standard deviations, its own rounding to fp32 (2^-24 of it) shows in the output 1000 times enlarged:
   1000 * 2^-24 = 6e-5, 30 times the base tolerance; two such roundings are allowed. E[x^2] - E[x]^2 would be off by percents, and
   a plain sum of the long row, added up one by one, by more than is allowed. */
static void check_big_values(const Backend *b, DType dtype) {
    Shape z = {2, 5, 192}, long_rows = {1, 3, 16384};
    check_forward_shape(b, dtype, z, 1e4, 0, 1, true);
    check_forward_shape(b, dtype, z, 1e-4, 0, 1, true);
    if (dtype == BF16) return;   /* 1000 plus a normal number is no more than that number's leading digits in bf16 */
    check_forward_shape(b, dtype, z, 1, 1000, 60, true);
    check_forward_shape(b, dtype, long_rows, 1, 1000, 60, true);
}

/* The norm must be that of the residual as stored. */
static void check_residual_case(const Backend *b, DType dtype, Shape z, float p, bool has_bias) {
    int N = z.B * z.T, C = z.C;
    StepState step = {.seed = 0x123456789ABCDEFull, .sample = 3, .step = 17};
    StepState *d_step = b->alloc(sizeof step);
    b->upload(d_step, &step, sizeof step, NULL);
    Dropout drop = {p, 41, d_step};
    double *x = random_values(N * C, 1, dtype), *delta = random_values(N * C, 1, dtype), *w = random_values(C, 1, dtype);
    double *bias = has_bias ? random_values(C, 1, dtype) : NULL;
    double *sum = numbers(N * C), *expected = numbers(N * C), *mean = numbers(N), *rstd = numbers(N);
    for (int i = 0; i < N * C; i++) {
        uint64_t index = (uint64_t)step.sample * (uint64_t)(z.T * C) + (uint64_t)i;
        bool kept = philox_at(step.seed, step.step, drop.tensor, index) >= dropout_threshold(p);
        sum[i] = x[i] + (p > 0 ? kept / (1 - (double)p) : 1) * delta[i];
    }
    Tensor d_x = test_tensor(b, dtype, x, 3, z.B, z.T, C, 0), d_delta = test_tensor(b, dtype, delta, 3, z.B, z.T, C, 0);
    Tensor d_w = test_tensor(b, dtype, w, 1, C, 0, 0, 0), d_bias = has_bias ? test_tensor(b, dtype, bias, 1, C, 0, 0, 0) : no_tensor();
    Tensor residual = test_tensor(b, dtype, NULL, 3, z.B, z.T, C, 0), out = test_tensor(b, dtype, NULL, 3, z.B, z.T, C, 0);
    Tensor d_mean = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0), d_rstd = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0);
    b->op.residual_layernorm_forward(residual, out, d_mean, d_rstd, d_x, d_delta, d_w, d_bias, EPS, drop, NULL);
    expect_close("residual_layernorm_forward residual", b, residual, sum, 1);
    double *stored = test_values(b, residual);
    reference_forward(N, C, expected, mean, rstd, stored, w, bias);
    expect_close("residual_layernorm_forward", b, out, expected, row_slack(C));
    expect_mean(b, d_mean, mean, rstd);
    expect_close("residual_layernorm_forward rstd", b, d_rstd, rstd, row_slack(C));
    test_free(b, d_x); test_free(b, d_delta); test_free(b, d_w); test_free(b, d_bias); test_free(b, residual); test_free(b, out);
    test_free(b, d_mean); test_free(b, d_rstd); b->release(d_step);
    free(x); free(delta); free(w); free(bias); free(sum); free(expected); free(mean); free(rstd); free(stored);
}

static void check_residual(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) {
        check_residual_case(b, dtype, shapes[i], 0, true);
        check_residual_case(b, dtype, shapes[i], 0.3f, false);
    }
    for (int i = 0; i < TILED; i++) check_residual_case(b, dtype, tiled[i], i % 2 ? 0.3f : 0, true);
}

static void expect_same_bits(const char *what, const Backend *b, Tensor one, Tensor other) {
    unsigned char *x = malloc(tensor_bytes(one)), *y = malloc(tensor_bytes(one));
    b->download(x, one.data, tensor_bytes(one), NULL);
    b->download(y, other.data, tensor_bytes(one), NULL);
    if (memcmp(x, y, tensor_bytes(one))) fail_msg("%s on %s: not the same bits (rows of %lld)", what, b->name, (long long)last_dim(one));
    free(x); free(y);
}

/* The norm made again from the stored residual: the model does so in backward, and trains on the same numbers only if they are. */
static void check_again(const Backend *b, DType dtype, Shape z, float p) {
    int64_t n = (int64_t)z.B * z.T * z.C;
    StepState step = {.seed = 99, .sample = 1, .step = 4};
    StepState *d_step = b->alloc(sizeof step);
    b->upload(d_step, &step, sizeof step, NULL);
    double *x = shifted_values(n, 1, 0.7, dtype), *delta = random_values(n, 1, dtype), *w = random_values(z.C, 1, dtype),
        *bias = random_values(z.C, 1, dtype);
    Tensor d_x = test_tensor(b, dtype, x, 3, z.B, z.T, z.C, 0), d_delta = test_tensor(b, dtype, delta, 3, z.B, z.T, z.C, 0);
    Tensor d_w = test_tensor(b, dtype, w, 1, z.C, 0, 0, 0), d_bias = test_tensor(b, dtype, bias, 1, z.C, 0, 0, 0);
    Tensor residual = test_tensor(b, dtype, NULL, 3, z.B, z.T, z.C, 0), out[2], mean[2], rstd[2];
    for (int i = 0; i < 2; i++) {
        out[i] = test_tensor(b, dtype, NULL, 3, z.B, z.T, z.C, 0);
        mean[i] = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0), rstd[i] = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0);
    }
    b->op.residual_layernorm_forward(residual, out[0], mean[0], rstd[0], d_x, d_delta, d_w, d_bias, EPS, (Dropout){p, 3, d_step}, NULL);
    b->op.layernorm_forward(out[1], mean[1], rstd[1], residual, d_w, d_bias, EPS, NULL);
    expect_same_bits("out", b, out[0], out[1]);
    expect_same_bits("mean", b, mean[0], mean[1]);
    expect_same_bits("rstd", b, rstd[0], rstd[1]);
    for (int i = 0; i < 2; i++) test_free(b, out[i]), test_free(b, mean[i]), test_free(b, rstd[i]);
    test_free(b, d_x); test_free(b, d_delta); test_free(b, d_w); test_free(b, d_bias); test_free(b, residual); b->release(d_step);
    free(x); free(delta); free(w); free(bias);
}

static void check_recomputation(const Backend *b, DType dtype) {
    for (int i = 0; i < SHAPES; i++) check_again(b, dtype, shapes[i], 0.3f);
    for (int i = 0; i < TILED; i++) check_again(b, dtype, tiled[i], i % 2 ? 0 : 0.3f);
}

/* x, begun one element past an aligned address. *whole is what to give back. */
static Tensor misaligned(const Backend *b, DType dtype, const double *x, Shape z, Tensor *whole) {
    int64_t n = (int64_t)z.B * z.T * z.C;
    double *padded = calloc((size_t)n + 1, sizeof *padded);
    if (x) memcpy(padded + 1, x, (size_t)n * sizeof *x);
    *whole = test_tensor(b, dtype, padded, 1, n + 1, 0, 0, 0);
    free(padded);
    return tensor((char *)whole->data + dtype_size(dtype), dtype, 3, z.B, z.T, z.C, 0);
}

/* Rows that fit 128-bit accesses by their length but not by where they begin. */
static void check_misaligned(const Backend *b, DType dtype) {
    Shape z = {2, 3, 64};
    int N = z.B * z.T, C = z.C;
    double *x = random_values(N * C, 1, dtype), *w = random_values(C, 1, dtype), *out = numbers(N * C), *mean = numbers(N),
        *rstd = numbers(N);
    double *dx = calloc((size_t)(N * C), sizeof *dx), *dw = calloc((size_t)C, sizeof *dw), *db = calloc((size_t)C, sizeof *db);
    Tensor whole[3], d_x = misaligned(b, dtype, x, z, &whole[0]), d_out = misaligned(b, dtype, NULL, z, &whole[1]);
    Tensor d_dx = misaligned(b, dtype, NULL, z, &whole[2]), d_w = test_tensor(b, dtype, w, 1, C, 0, 0, 0);
    Tensor d_dw = test_tensor(b, F32, NULL, 1, C, 0, 0, 0);
    Tensor d_mean = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0), d_rstd = test_tensor(b, F32, NULL, 2, z.B, z.T, 0, 0);
    reference_forward(N, C, out, mean, rstd, x, w, NULL);
    reference_backward(N, C, dx, dw, db, x, x, w);
    b->op.layernorm_forward(d_out, d_mean, d_rstd, d_x, d_w, no_tensor(), EPS, NULL);
    b->op.layernorm_backward(d_dx, d_dw, no_tensor(), d_x, d_x, d_w, d_mean, d_rstd, 0, 0, NULL);
    expect_close("misaligned layernorm_forward", b, d_out, out, 1);
    expect_close("misaligned layernorm_backward", b, d_dx, dx, 4);   /* dout = x: dx is a difference of near numbers */
    expect_close("misaligned layernorm_backward dw", b, d_dw, dw, 4);
    for (int i = 0; i < 3; i++) test_free(b, whole[i]);
    test_free(b, d_w); test_free(b, d_dw); test_free(b, d_mean); test_free(b, d_rstd);
    free(x); free(w); free(out); free(mean); free(rstd); free(dx); free(dw); free(db);
}

/* Puts what mean and rstd must be for x on the device. */
static void statistics(const Backend *b, Shape z, const double *x, Tensor *mean, Tensor *rstd) {
    int N = z.B * z.T, C = z.C;
    double *out = numbers(N * C), *m = numbers(N), *r = numbers(N), *w = random_values(C, 1, F32);
    reference_forward(N, C, out, m, r, x, w, NULL);
    *mean = test_tensor(b, F32, m, 2, z.B, z.T, 0, 0);
    *rstd = test_tensor(b, F32, r, 2, z.B, z.T, 0, 0);
    free(out); free(m); free(r); free(w);
}

/* Gradients start as NaN where they are to be assigned. dw and db sum over rows, hence the slack. */
static void check_backward_case(const Backend *b, DType dtype, Shape z, int add_dx, int accumulate, bool has_bias) {
    int N = z.B * z.T, C = z.C;
    double *x = random_values(N * C, 2, dtype), *w = random_values(C, 1, dtype), *dout = random_values(N * C, 1, dtype);
    double *dx = random_values(N * C, 1, dtype), *dw = random_values(C, 1, F32), *db = random_values(C, 1, F32);
    Tensor mean, rstd;
    statistics(b, z, x, &mean, &rstd);
    Tensor d_x = test_tensor(b, dtype, x, 3, z.B, z.T, C, 0), d_w = test_tensor(b, dtype, w, 1, C, 0, 0, 0);
    Tensor d_dout = test_tensor(b, dtype, dout, 3, z.B, z.T, C, 0), d_dx = test_tensor(b, dtype, add_dx ? dx : NULL, 3, z.B, z.T, C, 0);
    Tensor d_dw = test_tensor(b, F32, accumulate ? dw : NULL, 1, C, 0, 0, 0);
    Tensor d_db = has_bias ? test_tensor(b, F32, accumulate ? db : NULL, 1, C, 0, 0, 0) : no_tensor();
    if (!add_dx) memset(dx, 0, (size_t)(N * C) * sizeof *dx);
    if (!accumulate) memset(dw, 0, (size_t)C * sizeof *dw), memset(db, 0, (size_t)C * sizeof *db);
    reference_backward(N, C, dx, dw, db, dout, x, w);
    b->op.layernorm_backward(d_dx, d_dw, d_db, d_dout, d_x, d_w, mean, rstd, add_dx, accumulate, NULL);
    expect_close("layernorm_backward dx", b, d_dx, dx, row_slack(C));
    expect_close("layernorm_backward dw", b, d_dw, dw, 4);
    if (has_bias) expect_close("layernorm_backward db", b, d_db, db, 4);
    test_free(b, d_x); test_free(b, d_w); test_free(b, d_dout); test_free(b, d_dx); test_free(b, d_dw); test_free(b, d_db);
    test_free(b, mean); test_free(b, rstd);
    free(x); free(w); free(dout); free(dx); free(dw); free(db);
}

/* Without the first shape: at C = 1 the true gradient is zero, and there is nothing to measure the rounding against. */
static void check_backward(const Backend *b, DType dtype) {
    for (int i = 1; i < SHAPES; i++)
        for (int flags = 0; flags < 8; flags++) check_backward_case(b, dtype, shapes[i], flags & 1, flags >> 1 & 1, flags >> 2);
    for (int i = 0; i < TILED; i++) check_backward_case(b, dtype, tiled[i], i % 2, i / 2 % 2, true);
}

typedef struct { int N, C; const double *x, *w, *bias; } Point;
static void forward_at(double *out, void *context) {
    Point *p = context;
    reference_forward(p->N, p->C, out, NULL, NULL, p->x, p->w, p->bias);
}

/* Central differences in double are good to about 1e-9 here. */
static void check_finite_difference(const Backend *b, DType dtype) {
    Shape z = {2, 3, 7};
    int N = z.B * z.T, C = z.C;
    double *x = random_values(N * C, 1, dtype), *w = random_values(C, 1, dtype), *bias = random_values(C, 1, dtype);
    double *dout = random_values(N * C, 1, dtype);
    Point p = {N, C, x, w, bias};
    double *dx = finite_difference(forward_at, &p, x, N * C, dout, N * C), *dw = finite_difference(forward_at, &p, w, C, dout, N * C);
    double *db = finite_difference(forward_at, &p, bias, C, dout, N * C);
    Tensor mean, rstd;
    statistics(b, z, x, &mean, &rstd);
    Tensor d_x = test_tensor(b, dtype, x, 3, z.B, z.T, C, 0), d_w = test_tensor(b, dtype, w, 1, C, 0, 0, 0);
    Tensor d_dout = test_tensor(b, dtype, dout, 3, z.B, z.T, C, 0), d_dx = test_tensor(b, dtype, NULL, 3, z.B, z.T, C, 0);
    Tensor d_dw = test_tensor(b, F32, NULL, 1, C, 0, 0, 0), d_db = test_tensor(b, F32, NULL, 1, C, 0, 0, 0);
    b->op.layernorm_backward(d_dx, d_dw, d_db, d_dout, d_x, d_w, mean, rstd, 0, 0, NULL);
    expect_close("dx by finite differences", b, d_dx, dx, 1);
    expect_close("dw by finite differences", b, d_dw, dw, 1);
    expect_close("db by finite differences", b, d_db, db, 1);
    test_free(b, d_x); test_free(b, d_w); test_free(b, d_dout); test_free(b, d_dx); test_free(b, d_dw); test_free(b, d_db);
    test_free(b, mean); test_free(b, rstd);
    free(x); free(w); free(bias); free(dout); free(dx); free(dw); free(db);
}

/* Ten runs, one result. */
static void check_determinism(const Backend *b, DType dtype) {
    Shape z = {4, 50, 100};
    int N = z.B * z.T, C = z.C;
    double *x = random_values(N * C, 1, dtype), *w = random_values(C, 1, dtype), *first = NULL;
    Tensor mean, rstd, d_x = test_tensor(b, dtype, x, 3, z.B, z.T, C, 0), d_w = test_tensor(b, dtype, w, 1, C, 0, 0, 0);
    Tensor dx = test_tensor(b, dtype, NULL, 3, z.B, z.T, C, 0), dw = test_tensor(b, F32, NULL, 1, C, 0, 0, 0);
    statistics(b, z, x, &mean, &rstd);
    for (int run = 0; run < 10; run++) {
        b->op.layernorm_backward(dx, dw, no_tensor(), d_x, d_x, d_w, mean, rstd, 0, 0, NULL);
        double *got = test_values(b, dw);
        if (!first) first = got;
        assert_memory_equal(got, first, (size_t)C * sizeof *got);
        if (got != first) free(got);
    }
    test_free(b, d_x); test_free(b, d_w); test_free(b, dx); test_free(b, dw); test_free(b, mean); test_free(b, rstd);
    free(x); free(w); free(first);
}

static void forward(void **state) { (void)state; on_every_backend(check_forward); }
static void forward_of_big_values(void **state) { (void)state; on_every_backend(check_big_values); }
static void residual_forward(void **state) { (void)state; on_every_backend(check_residual); }
static void recomputation_gives_the_same_bits(void **state) { (void)state; on_every_backend(check_recomputation); }
static void misaligned_rows(void **state) { (void)state; on_every_backend(check_misaligned); }
static void backward(void **state) { (void)state; on_every_backend(check_backward); }
static void backward_is_the_derivative(void **state) { (void)state; on_every_backend(check_finite_difference); }
static void backward_is_deterministic(void **state) { (void)state; on_every_backend(check_determinism); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward),
        cmocka_unit_test(forward_of_big_values),
        cmocka_unit_test(residual_forward),
        cmocka_unit_test(recomputation_gives_the_same_bits),
        cmocka_unit_test(misaligned_rows),
        cmocka_unit_test(backward),
        cmocka_unit_test(backward_is_the_derivative),
        cmocka_unit_test(backward_is_deterministic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
