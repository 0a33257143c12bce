/* global_norm.cu: the L2 norm of the whole gradient: its squares, added up piece by piece, and what follows from them.

   Squares are summed in double, where that of any float is finite: one conversion and one multiply-add an element. */
#include "global_norm.h"
#include "sum.cuh"

/* A block sums CHUNK elements, whatever the device, so that the order of additions is the same on all. */
enum { BLOCK = 256, FINISH_BLOCK = 1024, W = Pack<float>::N, STEPS = 16, CHUNK = BLOCK * W * STEPS };

/* partial[block] = sum of squares of grad[block * CHUNK ...]; a thread has one sum for each element of its packs. `vectors`: grad begins
   at a multiple of 16 bytes. */
__global__ void __launch_bounds__(BLOCK) sum_of_squares_kernel(double *partial, const float *grad, int64_t n, int vectors) {
    double sums[W] = {};
    const int64_t first = (int64_t)blockIdx.x * CHUNK + threadIdx.x * W;
    const int64_t end = ((int64_t)blockIdx.x + 1) * CHUNK;
    if (vectors && end <= n) {
        #pragma unroll 4
        for (int step = 0; step < STEPS; step++) {
            const Pack<float> g = ld128_stream(grad + first + step * BLOCK * W);
            for (int k = 0; k < W; k++) sums[k] += (double)g.v[k] * g.v[k];
        }
    } else {
        for (int64_t i = first; i < end; i += BLOCK * W)
            for (int k = 0; k < W && i + k < n; k++) sums[k] += (double)grad[i + k] * grad[i + k];
    }
    const double sum = block_sum_double<BLOCK>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* One block: *result (+)= the partial sums. */
__global__ void __launch_bounds__(FINISH_BLOCK) add_squares_kernel(double *result, const double *partial, int64_t blocks, int accumulate) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += FINISH_BLOCK) sum += partial[i];
    sum = block_sum_double<FINISH_BLOCK>(sum);
    if (threadIdx.x == 0) *result = accumulate ? *result + sum : sum;
}

__global__ void finish_norm_kernel(StepState *state, const float *totals, const double *squares) { finish_norm(state, totals, *squares); }

void cuda_sum_of_squares(Tensor sum, Tensor grad, int accumulate, Stream *s) {
    const int64_t n = tensor_numel(grad), blocks = ceil_div(n, CHUNK);
    double *partial = (double *)reduction_scratch((size_t)blocks * 2);
    if (blocks)
        LAUNCH(sum_of_squares_kernel, (int)blocks, BLOCK, 0, cuda_stream(s), partial, (const float *)grad.data, n,
               (uintptr_t)grad.data % 16 == 0);
    LAUNCH(add_squares_kernel, 1, FINISH_BLOCK, 0, cuda_stream(s), (double *)sum.data, partial, blocks, accumulate);
}

void cuda_global_norm(StepState *state, Tensor totals, Tensor squares, Stream *s) {
    LAUNCH(finish_norm_kernel, 1, 1, 0, cuda_stream(s), state, (const float *)totals.data, (const double *)squares.data);
}
