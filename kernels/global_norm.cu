/* global_norm.cu: the L2 norm of the whole gradient: its squares, added up piece by piece, and what follows from them.

   Squares are summed in double, where that of any float is finite: one conversion and one multiply-add an element. */
#include "global_norm.h"
#include "sum.cuh"

/* A block sums CHUNK elements, whatever the device, so that the order of additions is the same on all. */
enum { BLOCK = 256, FINISH_BLOCK = 1024, CHUNK = 16384 };

/* partial[block] = sum of squares of x[block * CHUNK ...]; a thread has one sum for each element of its packs. `vectors`: x begins at a
   multiple of 16 bytes. */
template <class T> __global__ void __launch_bounds__(BLOCK) sum_of_squares_kernel(double *partial, const T *x, int64_t n, int vectors) {
    constexpr int W = Pack<T>::N, STEPS = CHUNK / (BLOCK * W);
    double sums[W] = {};
    const int64_t first = (int64_t)blockIdx.x * CHUNK + threadIdx.x * W;
    const int64_t end = ((int64_t)blockIdx.x + 1) * CHUNK;
    if (vectors && end <= n) {
        #pragma unroll 4
        for (int step = 0; step < STEPS; step++) {
            const Pack<T> pack = ld128_stream(x + first + step * BLOCK * W);
            for (int k = 0; k < W; k++) sums[k] += (double)to_float(pack.v[k]) * to_float(pack.v[k]);
        }
    } else {
        for (int64_t i = first; i < end; i += BLOCK * W)
            for (int k = 0; k < W && i + k < n; k++) sums[k] += (double)to_float(x[i + k]) * to_float(x[i + k]);
    }
    #pragma unroll
    for (int apart = 1; apart < W; apart *= 2)
        for (int k = 0; k < W; k += 2 * apart) sums[k] += sums[k + apart];
    const double sum = block_sum_double<BLOCK>(sums[0]);
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

void cuda_sum_of_squares(Tensor sum, Tensor x, int accumulate, Stream *s) {
    const int64_t n = tensor_numel(x), blocks = ceil_div(n, CHUNK);
    double *partial = (double *)reduction_scratch((size_t)blocks * 2);
    by_dtype(x.dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (blocks)
            LAUNCH((sum_of_squares_kernel<T>), (int)blocks, BLOCK, 0, cuda_stream(s), partial, (const T *)x.data, n, (uintptr_t)x.data % 16 == 0);
    });
    LAUNCH(add_squares_kernel, 1, FINISH_BLOCK, 0, cuda_stream(s), (double *)sum.data, partial, blocks, accumulate);
}

void cuda_global_norm(StepState *state, Tensor totals, Tensor squares, Stream *s) {
    LAUNCH(finish_norm_kernel, 1, 1, 0, cuda_stream(s), state, (const float *)totals.data, (const double *)squares.data);
}
