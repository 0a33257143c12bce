/* activation.cuh: the activations and their derivatives for kernels; the forms are those of activation.h. With a constant `act` the switch
   folds away. NaN stays NaN. */
#ifndef KERNELS_ACTIVATION_CUH
#define KERNELS_ACTIVATION_CUH

#include "cu.h"

#include <type_traits>

/* exp(-2u) of the tanh form: sigmoid(2u) = 1 / (1 + that) */
__device__ __forceinline__ float gelu_exp(float x) {
    const float c1 = -1.59576912f, c3 = -0.0713548162f;   /* -2 sqrt(2/pi), and that times 0.044715 */
    return expf(x * fmaf(c3 * x, x, c1));
}

/* (x s)' = s + x s (1 - s) (2u)', s = sigmoid(2u); 1 - s = s exp(-2u) does not cancel. Beyond +-10 it is 0 or 1 to the last bit. */
__device__ __forceinline__ float gelu_derivative(float x) {
    const float c1 = 1.59576912f, c3 = 0.214064449f;      /* of (2u)': 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2) */
    x = x > 10.0f ? 10.0f : x < -10.0f ? -10.0f : x;      /* fminf would lose a NaN */
    const float e = gelu_exp(x), s = __fdividef(1.0f, 1.0f + e);
    return fmaf(x * s, s * e * fmaf(c3 * x, x, c1), s);
}

/* Phi(x), the normal distribution function: erfc keeps its relative accuracy for negative x, where 1 + erf would cancel. */
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-0.707106781f * x); }

/* (x Phi(x))' = Phi(x) + x exp(-x^2/2) / sqrt(2 pi) */
__device__ __forceinline__ float gelu_erf_derivative(float x) {
    x = x > 13.0f ? 13.0f : x < -13.0f ? -13.0f : x;
    return fmaf(0.398942280f * x, expf(-0.5f * x * x), normal_cdf(x));
}

/* silu(x) and its derivative; the bounds also keep the divisor below 2^126, as __fdividef wants it. */
__device__ __forceinline__ void silu_and_slope(float x, float &value, float &slope) {
    const float from_below = x < -87.0f ? -87.0f : x, xb = from_below > 87.0f ? 87.0f : from_below;
    const float e = expf(-xb), s = __fdividef(1.0f, 1.0f + e);
    value = from_below * s;
    slope = fmaf(xb * s, s * e, s);
}
__device__ __forceinline__ float silu(float x) {
    float value, slope;
    silu_and_slope(x, value, slope);
    return value;
}
__device__ __forceinline__ float silu_derivative(float x) {
    float value, slope;
    silu_and_slope(x, value, slope);
    return slope;
}

__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

/* act(x) */
__device__ __forceinline__ float activate(float x, Activation act) {
    switch (act) {
    case ACT_GELU: return __fdividef(x, 1.0f + gelu_exp(x));
    case ACT_GELU_ERF: return x * normal_cdf(x);
    case ACT_RELU: return relu(x);
    case ACT_SILU: return silu(x);
    case ACT_RELU2: return relu(x) * relu(x);
    default: return x;
    }
}

/* act'(x) */
__device__ __forceinline__ float activation_derivative(float x, Activation act) {
    switch (act) {
    case ACT_GELU: return gelu_derivative(x);
    case ACT_GELU_ERF: return gelu_erf_derivative(x);
    case ACT_RELU: return x > 0.0f ? 1.0f : x <= 0.0f ? 0.0f : x;
    case ACT_SILU: return silu_derivative(x);
    case ACT_RELU2: return 2.0f * relu(x);
    default: return 1.0f;
    }
}

/* Calls f with act as a type, so that a kernel is compiled for each. */
template <class F> void by_activation(Activation act, F f) {
    if (act == ACT_GELU) f(std::integral_constant<Activation, ACT_GELU>());
    else if (act == ACT_GELU_ERF) f(std::integral_constant<Activation, ACT_GELU_ERF>());
    else if (act == ACT_RELU) f(std::integral_constant<Activation, ACT_RELU>());
    else if (act == ACT_SILU) f(std::integral_constant<Activation, ACT_SILU>());
    else if (act == ACT_RELU2) f(std::integral_constant<Activation, ACT_RELU2>());
    else f(std::integral_constant<Activation, ACT_NONE>());
}

#endif
