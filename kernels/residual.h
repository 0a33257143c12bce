/* residual.h: the residual add, which the CPU bodies of residual_forward and of the norms fused with it share. */
#ifndef KERNELS_RESIDUAL_H
#define KERNELS_RESIDUAL_H

#include "dropout.h"

enum { RESIDUAL_CHUNK = 1024 };

/* n elements from `offset` on of out = x + dropout(delta), rounded once; out may be x. */
static inline void add_residual(Tensor out, Tensor x, Tensor delta, Dropout drop, int64_t offset, int64_t n) {
    float x_buffer[RESIDUAL_CHUNK], delta_buffer[RESIDUAL_CHUNK], sum_buffer[RESIDUAL_CHUNK], scales[RESIDUAL_CHUNK];
    for (int64_t end = offset + n; offset < end; offset += RESIDUAL_CHUNK) {
        int64_t count = end - offset < RESIDUAL_CHUNK ? end - offset : RESIDUAL_CHUNK;
        const float *before = read_floats(x, offset, count, x_buffer), *change = read_floats(delta, offset, count, delta_buffer);
        float *sum = write_floats(out, offset, sum_buffer);
        if (drop.p > 0) {
            dropout_scales(scales, drop, dropout_first_index(drop, x) + (uint64_t)offset, count);
            #pragma omp simd
            for (int64_t i = 0; i < count; i++) sum[i] = before[i] + change[i] * scales[i];
        } else {
            #pragma omp simd
            for (int64_t i = 0; i < count; i++) sum[i] = before[i] + change[i];
        }
        wrote_floats(out, offset, count, sum);
    }
}

#endif
