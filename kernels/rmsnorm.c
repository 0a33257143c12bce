/* rmsnorm.c: root mean square normalisation (Zhang and Sennrich 2019), alone and fused with the residual add before it. */
#include "norm.h"

enum { PIECE = 256 };

/* Of x[C], piece by piece: added up one by one, as by a compiler without vectors, thousands of bf16 squares would be off by millionths. */
static float sum_of_squares(const float *x, int64_t C) {
    float sum = 0;
    for (int64_t first = 0; first < C; first += PIECE) {
        int64_t end = C - first < PIECE ? C : first + PIECE;
        float piece = 0;
        #pragma omp simd reduction(+:piece)
        for (int64_t c = first; c < end; c++) piece += x[c] * x[c];
        sum += piece;
    }
    return sum;
}

/* Row number `row` of out and rstd, from x[C]. */
static void normalize_row(Tensor out, Tensor rstd, int64_t row, const float *x, const float *w, int64_t C, float eps) {
    float buffer[MAX_C], r = 1.0f / sqrtf(sum_of_squares(x, C) / (float)C + eps);
    float *normalized = write_floats(out, row * C, buffer);
    #pragma omp simd
    for (int64_t c = 0; c < C; c++) normalized[c] = x[c] * r * w[c];
    wrote_floats(out, row * C, C, normalized);
    ((float *)rstd.data)[row] = r;
}

/* The norm of x, or where there is a delta, of residual = x + dropout(delta). */
static void forward(Tensor residual, Tensor out, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps, Dropout drop) {
    int64_t C = last_dim(x), N = tensor_numel(x) / C;
    assert(C <= MAX_C);
    #pragma omp parallel
    {
        float w_buffer[MAX_C], x_buffer[MAX_C];
        const float *weight = read_floats(w, 0, C, w_buffer);
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < N; row++)
            normalize_row(out, rstd, row, norm_input(residual, x, delta, drop, row * C, C, x_buffer), weight, C, eps);
    }
}

void cpu_rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor w, float eps, Stream *s) {
    (void)s;
    forward(no_tensor(), out, rstd, x, no_tensor(), w, eps, (Dropout){0});
}

void cpu_residual_rmsnorm_forward(Tensor residual, Tensor out, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps, Dropout drop,
                                  Stream *s) {
    (void)s;
    forward(residual, out, rstd, x, delta, w, eps, drop);
}

/* With xhat = x rstd and g = dout w:  dx = rstd (g - xhat mean(g xhat)),  dw = sum dout xhat. dout may be dx. */
static void backward_row(Tensor dx, float *dw, Tensor dout, Tensor x, const float *w, float rstd, int64_t row, int64_t C, int add_dx) {
    float x_buffer[MAX_C], dout_buffer[MAX_C], dx_buffer[MAX_C];
    const float *in = read_floats(x, row * C, C, x_buffer), *gradient = read_floats(dout, row * C, C, dout_buffer);
    float product = 0;
    #pragma omp simd reduction(+:product)
    for (int64_t c = 0; c < C; c++) {
        float along = gradient[c] * (in[c] * rstd);
        product += along * w[c];
        dw[c] += along;
    }
    product /= (float)C;
    float *result = write_floats(dx, row * C, dx_buffer);
    if (add_dx) {
        const float *before = read_floats(dx, row * C, C, dx_buffer);
        #pragma omp simd
        for (int64_t c = 0; c < C; c++) result[c] = before[c] + rstd * (gradient[c] * w[c] - in[c] * rstd * product);
    } else {
        #pragma omp simd
        for (int64_t c = 0; c < C; c++) result[c] = rstd * (gradient[c] * w[c] - in[c] * rstd * product);
    }
    wrote_floats(dx, row * C, C, result);
}

/* Each thread sums dw of its rows on its own stack; then the columns are shared out to add up the threads' sums. */
void cpu_rmsnorm_backward(Tensor dx, Tensor dw, Tensor dout, Tensor x, Tensor w, Tensor rstd, int add_dx, int accumulate, Stream *s) {
    (void)s;
    int64_t C = last_dim(x), N = tensor_numel(x) / C;
    float *partial[omp_get_max_threads()];
    assert(C <= MAX_C);
    #pragma omp parallel
    {
        float w_buffer[MAX_C], sums[MAX_C];
        const float *weight = read_floats(w, 0, C, w_buffer);
        memset(sums, 0, (size_t)C * sizeof *sums);
        partial[omp_get_thread_num()] = sums;
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < N; row++)
            backward_row(dx, sums, dout, x, weight, ((float *)rstd.data)[row], row, C, add_dx);
        #pragma omp for schedule(static)
        for (int64_t c = 0; c < C; c += COLUMNS)
            add_partial_sums((float *)dw.data + c, partial, c, C - c < COLUMNS ? C - c : COLUMNS, omp_get_num_threads(), accumulate);
    }
}
