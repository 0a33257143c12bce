/* residual.cuh: the residual add, x + delta or x + dropout(delta), alone (residual.cu) and before a norm (norm.cuh). */
#ifndef KERNELS_RESIDUAL_CUH
#define KERNELS_RESIDUAL_CUH

#include "packs.cuh"

/* How delta is dropped: the key of the mask, and the index that its first element has in the global batch. */
struct ResidualMask {
    DropoutKey key;
    uint64_t first;
};
/* per_sample elements belong to one row of the batch. Where nothing is dropped, drop.state may be absent. */
template <bool DROPPED> __device__ __forceinline__ ResidualMask residual_mask(Dropout drop, int64_t per_sample) {
    ResidualMask mask = {};
    if constexpr (DROPPED) {
        mask.key = dropout_key(drop);
        mask.first = (uint64_t)drop.state->sample * (uint64_t)per_sample;
    }
    return mask;
}

/* The sum, rounded once, of packs of x and delta that begin at element i; i a multiple of 4 where a pack is more than one element. */
template <bool DROPPED, class P> __device__ __forceinline__ P
add_residual(const P &x, const P &delta, const ResidualMask &mask, int64_t i) {
    float scales[P::N], sum[P::N];
    if constexpr (DROPPED) dropout_scales<P>(scales, mask.key, mask.first + (uint64_t)i);
    #pragma unroll
    for (int k = 0; k < P::N; k++) sum[k] = fmaf(element(delta, k), DROPPED ? scales[k] : 1.0f, element(x, k));
    return pack_floats<P>(sum);
}

#endif
