/* layernorm.c: layer normalisation (Ba et al. 2016), alone and fused with the residual add before it. */
#include "norm.h"

/* mean and 1/sqrt(variance + eps) of x[C]. The second pass also sums the distances from the first mean, which would be zero but for
   rounding, and corrects both by them (Chan, Golub and LeVeque 1983): accurate for a mean of many standard deviations. */
static void row_statistics(float *mean, float *rstd, const float *x, int64_t C, float eps) {
    float sum = 0, distances = 0, squares = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t c = 0; c < C; c++) sum += x[c];
    float rough = sum / (float)C;
    #pragma omp simd reduction(+:distances, squares)
    for (int64_t c = 0; c < C; c++) {
        float distance = x[c] - rough;
        distances += distance;
        squares += distance * distance;
    }
    float correction = distances / (float)C;
    *mean = rough + correction;
    *rstd = 1.0f / sqrtf(squares / (float)C - correction * correction + eps);
}

/* Row number `row` of out, mean and rstd, from x[C]; b may be NULL. */
static void normalize_row(Tensor out, Tensor mean, Tensor rstd, int64_t row, const float *x, const float *w, const float *b, int64_t C,
                          float eps) {
    float buffer[MAX_C], m, r;
    float *normalized = write_floats(out, row * C, buffer);
    row_statistics(&m, &r, x, C, eps);
    if (b) {
        #pragma omp simd
        for (int64_t c = 0; c < C; c++) normalized[c] = (x[c] - m) * r * w[c] + b[c];
    } else {
        #pragma omp simd
        for (int64_t c = 0; c < C; c++) normalized[c] = (x[c] - m) * r * w[c];
    }
    wrote_floats(out, row * C, C, normalized);
    ((float *)mean.data)[row] = m;
    ((float *)rstd.data)[row] = r;
}

/* The norm of x, or where there is a delta, of residual = x + dropout(delta). */
static void forward(Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w, Tensor b, float eps,
                    Dropout drop) {
    int64_t C = last_dim(x), N = tensor_numel(x) / C;
    assert(C <= MAX_C);
    #pragma omp parallel
    {
        float w_buffer[MAX_C], b_buffer[MAX_C], x_buffer[MAX_C];
        const float *weight = read_floats(w, 0, C, w_buffer), *bias = b.data ? read_floats(b, 0, C, b_buffer) : NULL;
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < N; row++) {
            const float *in = norm_input(residual, x, delta, drop, row * C, C, x_buffer);
            normalize_row(out, mean, rstd, row, in, weight, bias, C, eps);
        }
    }
}

void cpu_layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b, float eps, Stream *s) {
    (void)s;
    forward(no_tensor(), out, mean, rstd, x, no_tensor(), w, b, eps, (Dropout){0});
}

void cpu_residual_layernorm_forward(Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w, Tensor b,
                                    float eps, Dropout drop, Stream *s) {
    (void)s;
    forward(residual, out, mean, rstd, x, delta, w, b, eps, drop);
}

/* With xhat = (x - mean) rstd and g = dout w:  dx = rstd (g - mean(g) - xhat mean(g xhat)),  dw = sum dout xhat,  db = sum dout.
   dout may be dx. */
static void backward_row(Tensor dx, float *dw, float *db, Tensor dout, Tensor x, const float *w, float mean, float rstd, int64_t row,
                         int64_t C, int add_dx) {
    float x_buffer[MAX_C], dout_buffer[MAX_C], dx_buffer[MAX_C];
    const float *in = read_floats(x, row * C, C, x_buffer), *gradient = read_floats(dout, row * C, C, dout_buffer);
    float sum = 0, product = 0;
    #pragma omp simd reduction(+:sum, product)
    for (int64_t c = 0; c < C; c++) {
        float xhat = (in[c] - mean) * rstd, g = gradient[c] * w[c];
        sum += g;
        product += g * xhat;
        dw[c] += gradient[c] * xhat;
        db[c] += gradient[c];
    }
    sum /= (float)C;
    product /= (float)C;
    float *result = write_floats(dx, row * C, dx_buffer);
    if (add_dx) {
        const float *before = read_floats(dx, row * C, C, dx_buffer);
        #pragma omp simd
        for (int64_t c = 0; c < C; c++)
            result[c] = before[c] + rstd * (gradient[c] * w[c] - sum - (in[c] - mean) * rstd * product);
    } else {
        #pragma omp simd
        for (int64_t c = 0; c < C; c++) result[c] = rstd * (gradient[c] * w[c] - sum - (in[c] - mean) * rstd * product);
    }
    wrote_floats(dx, row * C, C, result);
}

/* Each thread sums dw and db of its rows on its own stack; then the columns are shared out to add up the threads' sums. */
void cpu_layernorm_backward(Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean, Tensor rstd, int add_dx,
                            int accumulate, Stream *s) {
    (void)s;
    int64_t C = last_dim(x), N = tensor_numel(x) / C;
    float *partial[omp_get_max_threads()];
    assert(C <= MAX_C);
    #pragma omp parallel
    {
        float w_buffer[MAX_C], sums[2 * MAX_C];
        const float *weight = read_floats(w, 0, C, w_buffer);
        memset(sums, 0, 2 * (size_t)C * sizeof *sums);
        partial[omp_get_thread_num()] = sums;
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < N; row++)
            backward_row(dx, sums, sums + C, dout, x, weight, ((float *)mean.data)[row], ((float *)rstd.data)[row], row, C, add_dx);
        #pragma omp for schedule(static)
        for (int64_t c = 0; c < C; c += COLUMNS) {
            int64_t n = C - c < COLUMNS ? C - c : COLUMNS;
            add_partial_sums((float *)dw.data + c, partial, c, n, omp_get_num_threads(), accumulate);
            if (db.data) add_partial_sums((float *)db.data + c, partial, C + c, n, omp_get_num_threads(), accumulate);
        }
    }
}
