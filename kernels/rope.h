/* rope.h: the rotation of one head (Su et al. 2021), shared by rope.c and qk_norm.c. */
#ifndef KERNELS_ROPE_H
#define KERNELS_ROPE_H

#include "ops.h"

/* Turns pair i of x by the angle whose cosine and sine are rotation[2i] and rotation[2i + 1]; direction -1 turns it back. */
static inline void rotate(float *restrict x, const float *restrict rotation, int pairs, RopeLayout layout, float direction) {
    if (layout == ROPE_INTERLEAVED) {
        #pragma omp simd
        for (int i = 0; i < pairs; i++) {
            float a = x[2 * i], b = x[2 * i + 1], cosine = rotation[2 * i], sine = direction * rotation[2 * i + 1];
            x[2 * i] = a * cosine - b * sine;
            x[2 * i + 1] = a * sine + b * cosine;
        }
    } else {
        #pragma omp simd
        for (int i = 0; i < pairs; i++) {
            float a = x[i], b = x[i + pairs], cosine = rotation[2 * i], sine = direction * rotation[2 * i + 1];
            x[i] = a * cosine - b * sine;
            x[i + pairs] = a * sine + b * cosine;
        }
    }
}

#endif
