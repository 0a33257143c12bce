/* global_norm.h: what follows from the norm of the whole gradient, the same on every backend: clipping (Pascanu et al. 2013) or leaving the
   update out.

   The stored gradient is that of the sum of losses times 1/targets, where the host expects `targets` valid targets; that of the mean over the `valid`
   ones that there were is targets/valid times it. The factor is exactly 1 where the two are equal. */
#ifndef KERNELS_GLOBAL_NORM_H
#define KERNELS_GLOBAL_NORM_H

#include "ops.h"

#include <math.h>

#ifdef __CUDACC__
#define GLOBAL_NORM_FUNCTION static inline __host__ __device__
#else
#define GLOBAL_NORM_FUNCTION static inline
#endif

/* From the stored gradient to that of the mean. */
GLOBAL_NORM_FUNCTION double mean_factor(float targets, double valid) { return valid == 0 ? 1.0 : targets / valid; }

/* A comparison with NaN is false, so NaN is not finite, and is no spike. */
GLOBAL_NORM_FUNCTION StepSkip step_skip(const StepState *state) {
    if (!(fabsf(state->grad_norm) < INFINITY && fabsf(state->loss) < INFINITY)) return SKIP_NOT_FINITE;
    if (state->spike_loss > 0 && state->loss > state->spike_loss) return SKIP_SPIKE;
    if (state->spike_norm > 0 && state->grad_norm > state->spike_norm) return SKIP_SPIKE;
    return SKIP_NOTHING;
}

/* Writes the fields of state that global_norm owns. */
GLOBAL_NORM_FUNCTION void finish_norm(StepState *state, const float *totals, double squares) {
    const double losses = totals[TOTAL_LOSS], valid = totals[TOTAL_VALID];
    const double factor = mean_factor(state->targets, valid), norm = sqrt(squares) * factor;
    state->loss = (float)(valid == 0 ? losses : losses / valid);   /* the sum of no losses is 0, unless something is wrong */
    state->grad_norm = (float)norm;
    state->clip_scale = (float)(factor * (state->max_norm > 0 && norm > state->max_norm ? state->max_norm / (norm + 1e-6) : 1.0));
    state->skip = valid < INFINITY ? step_skip(state) : SKIP_NOT_FINITE;
    state->updates += !state->skip;
}

#endif
