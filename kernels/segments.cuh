/* segments.cuh: how the GPU optimizers walk a flat parameter buffer: once, in one launch, every block in its own contiguous range. */
#ifndef KERNELS_SEGMENTS_CUH
#define KERNELS_SEGMENTS_CUH

#include "cu.h"

/* Few blocks, but enough for each multiprocessor: each finds its place among the pieces, and the scalars of the step, only once. */
enum { SEGMENT_BLOCK = 256, SEGMENT_BLOCKS_A_MULTIPROCESSOR = 4, SEGMENT_WIDTH = 4, SEGMENT_STEP = SEGMENT_BLOCK * SEGMENT_WIDTH };

/* Where a thread is. Piece p of the buffer is elements bound[p] ... bound[p+1] - 1; even pieces are decayed; pieces may be empty. */
struct SegmentPlace {
    const int64_t *bound;
    int pieces, piece;
    int64_t end;   /* of the piece */
};

/* The last piece that begins at or before element i; the first if none does. */
__device__ __forceinline__ SegmentPlace find_segment(const int64_t *bound, int pieces, int64_t i) {
    int low = 0, high = pieces;   /* the piece sought is in [low, high) */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (bound[middle] <= i) low = middle;
        else high = middle;
    }
    return {bound, pieces, low, bound[low + 1]};
}

__device__ __forceinline__ void advance_to(SegmentPlace &place, int64_t i) {
    while (i >= place.end && place.piece + 1 < place.pieces) {
        place.piece++;
        place.end = place.bound[place.piece + 1];
    }
}

/* Updates the n elements of the buffer that lie in a piece, unless this step is to be skipped. A Rule has
     state                      the StepState
     Scalars                    a type, and scalars(): what is the same for all elements of a step, computed by one thread a block
     four(i, scalars, decayed)  updates elements i ... i + 3 of aligned buffers
     one(i, scalars, decayed)   updates element i
   `range`, a multiple of SEGMENT_STEP, is what a block takes. `vectors`: all buffers are aligned for four(). */
template <class Rule>
__global__ void __launch_bounds__(SEGMENT_BLOCK, SEGMENT_BLOCKS_A_MULTIPROCESSOR)
segments_kernel(Rule rule, const int64_t *bound, int pieces, int64_t n, int64_t range, int vectors) {
    SHARED(typename Rule::Scalars, shared_scalars, );
    if (rule.state->skip) return;
    if (threadIdx.x == 0) shared_scalars = rule.scalars();
    __syncthreads();
    const typename Rule::Scalars scalars = shared_scalars;
    const int64_t begin = (int64_t)blockIdx.x * range, first = bound[0], last = bound[pieces] < n ? bound[pieces] : n;
    const int64_t end = begin + range < last ? begin + range : last;
    int64_t i = begin + threadIdx.x * SEGMENT_WIDTH;
    SegmentPlace place = find_segment(bound, pieces, i);
    for (; i < end; i += SEGMENT_STEP) {
        advance_to(place, i);
        if (vectors && i >= first && i + SEGMENT_WIDTH <= place.end && i + SEGMENT_WIDTH <= end) {
            rule.four(i, scalars, place.piece % 2 == 0);
        } else {
            for (int64_t k = i < first ? first : i; k < i + SEGMENT_WIDTH && k < end; k++) {
                advance_to(place, k);
                rule.one(k, scalars, place.piece % 2 == 0);
            }
        }
    }
}

/* Four neighbours of a bf16 buffer: 64 bits at once. */
__device__ __forceinline__ void store_four(bf16 *p, const Pack<float> &x) {
    uint2 bits;
    bf16 rounded[SEGMENT_WIDTH];
    for (int k = 0; k < SEGMENT_WIDTH; k++) rounded[k] = from_float<bf16>(x.v[k]);
    memcpy(&bits, rounded, sizeof bits);
    *check_aligned(reinterpret_cast<uint2 *>(p)) = bits;
}

static inline int aligned(Tensor t) { return (uintptr_t)t.data % 16 == 0; }

/* The bf16 copy that is to be kept of the master weights, or NULL. */
static inline bf16 *rounded_copy(Tensor param) { return param.dtype == BF16 ? (bf16 *)param.data : NULL; }

/* Launches the rule over the n elements of the buffers. */
template <class Rule> void update_segments(Rule rule, Tensor segments, int64_t n, int vectors, Stream *s) {
    if (n == 0) return;
    const int64_t most = (int64_t)device_multiprocessors() * SEGMENT_BLOCKS_A_MULTIPROCESSOR, steps = ceil_div(n, SEGMENT_STEP);
    const int64_t range = ceil_div(steps, most) * SEGMENT_STEP;
    LAUNCH((segments_kernel<Rule>), (int)ceil_div(n, range), SEGMENT_BLOCK, 0, cuda_stream(s), rule, (const int64_t *)segments.data,
           (int)tensor_numel(segments) - 1, n, range, vectors);
}

#endif
