/* sum.cuh: sums over a block in double, for the ops whose result must be exact to its one rounding. */
#ifndef KERNELS_SUM_CUH
#define KERNELS_SUM_CUH

#include "cu.h"

/* Over a block of BLOCK threads, each of which gets the result; the order of additions is fixed. */
template <int BLOCK> __device__ double block_sum_double(double v) {
    SHARED(double, part, [BLOCK / 32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    __syncthreads();   /* part may still be read from the call before */
    if (lane == 0) part[warp] = v;
    __syncthreads();
    v = lane < BLOCK / 32 ? part[lane] : 0.0;
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

#endif
