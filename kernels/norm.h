/* norm.h: what the CPU bodies of LayerNorm and RMSNorm share. */
#ifndef KERNELS_NORM_H
#define KERNELS_NORM_H

#include "residual.h"

#include <assert.h>

enum { MAX_C = MAX_CHANNELS, COLUMNS = 64 };

/* C elements from `offset` on of what is normalised: x, or where there is a delta, residual = x + dropout(delta), made here. They are read
   as stored, so that backward, which reads the stored residual, sees what the norm saw. */
static inline const float *norm_input(Tensor residual, Tensor x, Tensor delta, Dropout drop, int64_t offset, int64_t C, float *buffer) {
    if (delta.data) add_residual(residual, x, delta, drop, offset, C);
    return read_floats(delta.data ? residual : x, offset, C, buffer);
}

/* total[n] (+)= the threads' partial sums, always added in the order of the threads. */
static inline void add_partial_sums(float *total, float **partial, int64_t first, int64_t n, int threads, int accumulate) {
    float sum[COLUMNS] = {0};
    for (int thread = 0; thread < threads; thread++) {
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += partial[thread][first + i];
    }
    for (int64_t i = 0; i < n; i++) total[i] = accumulate ? total[i] + sum[i] : sum[i];
}

#endif
