/* activation.h: the activations of the MLP and their derivatives, for rows of floats.

   GELU      x Phi(x) in the tanh form of Hendrycks and Gimpel (2016), x/2 (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3),
             computed as the equal x sigmoid(2u), which does not cancel where tanh is near -1
   GELU_ERF  x Phi(x) with Phi(x) = (1 + erf(x / sqrt 2)) / 2
   RELU      max(x, 0); its derivative at 0 is 0
   SILU      x sigmoid(x) (Hendrycks and Gimpel 2016), also called swish; swiglu.c gates with it
   RELU2     max(x, 0)^2 (So et al. 2021)

   NaN stays NaN. */
#ifndef KERNELS_ACTIVATION_H
#define KERNELS_ACTIVATION_H

#include "cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = act(x[i]); out may be x. */
void activate(float *out, const float *x, int64_t n, Activation act);

/* gradient[i] *= act'(x[i]) */
void activation_backward(float *gradient, const float *x, int64_t n, Activation act);

/* The normal distribution function, Phi(x). Absolute error below 2.5e-7, relative error below 1e-5 for x >= -12.5, and 6e-39 below -13.
   So erf(x) = 2 Phi(sqrt(2) x) - 1 within 5e-7. */
float normal_cdf(float x);

/* silu(x) = x s, s = sigmoid(x), and its derivative s + x s (1 - s), from one exponential; 1 - s = s exp(-x) does not cancel. x is held
   where exp(-x) is neither Inf nor below the normal floats: under -87 there is nothing left of silu, over 87 it is x. */
static inline void silu_and_slope(float x, float *value, float *slope) {
    float from_below = x < -87.0f ? -87.0f : x, xb = from_below > 87.0f ? 87.0f : from_below;
    float e = exp_bounded(-xb), s = 1.0f / (1.0f + e);
    *value = from_below * s;
    *slope = multiply_add(xb * s, s * e, s);
}

static inline float silu(float x) {
    float value, slope;
    silu_and_slope(x, &value, &slope);
    return value;
}

#ifdef __cplusplus
}
#endif
#endif
