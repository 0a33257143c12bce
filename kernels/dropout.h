/* dropout.h: the masks that the CPU ops share, computed again whenever they are needed and never stored. */
#ifndef KERNELS_DROPOUT_H
#define KERNELS_DROPOUT_H

#include "cpu.h"
#include "philox.h"

enum { PHILOX_LANES = 64 };

/* philox() for `blocks` <= PHILOX_LANES consecutive blocks, a multiple of 16, side by side so that it vectorises:
   bits[4*i + w] is word w of block + i. */
static inline void philox_blocks(uint32_t *__restrict bits, uint64_t seed, uint32_t step, uint32_t tensor, uint64_t block, int blocks) {
    uint32_t c0[PHILOX_LANES], c1[PHILOX_LANES], c2[PHILOX_LANES], c3[PHILOX_LANES];
    for (int i = 0; i < blocks; i++) {
        uint64_t counter = block + (uint64_t)i;
        c0[i] = (uint32_t)counter; c1[i] = (uint32_t)(counter >> 32); c2[i] = step; c3[i] = tensor;
    }
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        #pragma omp simd
        for (int i = 0; i < blocks; i++) {
            uint64_t a = (uint64_t)0xD2511F53u * c0[i], b = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(b >> 32) ^ c1[i] ^ k0;
            c1[i] = (uint32_t)b;
            c2[i] = (uint32_t)(a >> 32) ^ c3[i] ^ k1;
            c3[i] = (uint32_t)a;
        }
    }
    for (int i = 0; i < blocks; i++) {
        bits[4 * i] = c0[i]; bits[4 * i + 1] = c1[i]; bits[4 * i + 2] = c2[i]; bits[4 * i + 3] = c3[i];
    }
}

/* The index in the global batch of the first element of x, whose first axis is the batch. */
static inline uint64_t dropout_first_index(Dropout drop, Tensor x) {
    return (uint64_t)drop.state->sample * (uint64_t)(tensor_numel(x) / x.shape[0]);
}

/* What elements index ... index + n - 1 are multiplied by: 1/(1-p), or 0 with probability p. */
static inline void dropout_scales(float *__restrict scales, Dropout drop, uint64_t index, int64_t n) {
    uint32_t threshold = dropout_threshold(drop.p);
    float kept = 1.0f / (1.0f - drop.p);
    while (n > 0) {
        uint32_t bits[4 * PHILOX_LANES];
        int64_t skipped = (int64_t)(index & 3), needed = (skipped + n + 3) / 4;
        int blocks = needed < PHILOX_LANES ? (int)(needed + 15) / 16 * 16 : PHILOX_LANES;
        int64_t count = 4 * blocks - skipped < n ? 4 * blocks - skipped : n;
        philox_blocks(bits, drop.state->seed, drop.state->step, drop.tensor, index >> 2, blocks);
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) scales[i] = bits[skipped + i] >= threshold ? kept : 0.0f;
        scales += count; index += (uint64_t)count; n -= count;
    }
}

#endif
