/* global_norm.c: the L2 norm of the whole gradient: its squares, added up piece by piece, and what follows from them. */
#include "global_norm.h"
#include "cpu.h"

/* A fixed number of pieces, so that the order of additions does not depend on the number of threads. */
enum { PIECES = 256 };

/* In double, where the square of any float is finite. */
static double squares_of_floats(const float *x, int64_t n) {
    double sum = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}
static double squares_of_halves(const uint16_t *x, int64_t n) {
    double sum = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t i = 0; i < n; i++) sum += (double)bf16_to_float(x[i]) * (double)bf16_to_float(x[i]);
    return sum;
}
static double squares_of(Tensor x, int64_t first, int64_t n) {
    return x.dtype == F32 ? squares_of_floats((const float *)x.data + first, n) : squares_of_halves((const uint16_t *)x.data + first, n);
}

void cpu_sum_of_squares(Tensor sum, Tensor x, int accumulate, Stream *s) {
    (void)s;
    int64_t N = tensor_numel(x);
    double partial[PIECES], total = 0, *result = (double *)sum.data;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < PIECES; i++) partial[i] = squares_of(x, N * i / PIECES, N * (i + 1) / PIECES - N * i / PIECES);
    for (int i = 0; i < PIECES; i++) total += partial[i];
    *result = accumulate ? *result + total : total;
}

void cpu_global_norm(StepState *state, Tensor totals, Tensor squares, Stream *s) {
    (void)s;
    finish_norm(state, (const float *)totals.data, *(const double *)squares.data);
}
