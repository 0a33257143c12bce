/* activation.h: the activations of the MLP and their derivatives, for rows of floats.

   GELU      x Phi(x) in the tanh form of Hendrycks and Gimpel (2016), x/2 (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3),
             computed as the equal x sigmoid(2u), which does not cancel where tanh is near -1
   GELU_ERF  x Phi(x) with Phi(x) = (1 + erf(x / sqrt 2)) / 2
   RELU      max(x, 0); its derivative at 0 is 0

   NaN stays NaN. */
#ifndef KERNELS_ACTIVATION_H
#define KERNELS_ACTIVATION_H

#include "ops.h"

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

#ifdef __cplusplus
}
#endif
#endif
