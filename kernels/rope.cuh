/* rope.cuh: the rotation of one pair (Su et al. 2021), shared by rope.cu and qk_norm.cu. */
#ifndef KERNELS_ROPE_CUH
#define KERNELS_ROPE_CUH

#include "cu.h"

/* Fused by hand, so that a row comes out the same wherever it stands. */
__device__ __forceinline__ void turn(float &a, float &b, float cosine, float sine) {
    const float was = a;
    a = fmaf(was, cosine, -(b * sine));
    b = fmaf(was, sine, b * cosine);
}

#endif
