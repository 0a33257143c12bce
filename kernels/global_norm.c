/* global_norm.c: the L2 norm of the whole gradient, and what follows from it: clipping (Pascanu et al. 2013) or skipping the update. */
#include "cpu.h"

/* A fixed number of pieces, so that the order of additions does not depend on the number of threads. */
enum { PIECES = 256 };

/* In double, where the square of any float is finite. */
static double sum_of_squares(const float *x, int64_t n) {
    double sum = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

void cpu_global_norm(StepState *state, Tensor loss, Tensor grad, Stream *s) {
    (void)s;
    int64_t N = tensor_numel(grad);
    double partial[PIECES], total = 0;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < PIECES; i++)
        partial[i] = sum_of_squares((const float *)grad.data + N * i / PIECES, N * (i + 1) / PIECES - N * i / PIECES);
    for (int i = 0; i < PIECES; i++) total += partial[i];
    double norm = sqrt(total);
    state->grad_norm = (float)norm;
    state->clip_scale = state->max_norm > 0 && norm > state->max_norm ? (float)(state->max_norm / (norm + 1e-6)) : 1.0f;
    state->skip = !isfinite(state->grad_norm) || !isfinite(*(const float *)loss.data);
    state->updates += !state->skip;
}
