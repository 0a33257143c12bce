/* cpu.h: what the CPU bodies share: bf16 conversion, rows of either dtype seen as floats, and vector math.
   Everything is plain C that gcc and clang vectorise under `#pragma omp simd`. */
#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H

#include "ops.h"

#include <math.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
#endif

/* Bytes that the control group (version 2: Documentation/admin-guide/cgroup-v2.rst of Linux) and those it lies in let a process take yet, under the
   directory root; caches of files yield. INFINITY where nothing limits. */
double cgroup_room(const char *root, const char *group);

static inline float float_of_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t bits_of_float(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

static inline float bf16_to_float(uint16_t h) { return float_of_bits((uint32_t)h << 16); }

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t bf16_of_float(float f) {
    uint32_t u = bits_of_float(f);
    uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    uint32_t quiet_nan = (u >> 16) | 0x40u;
    return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : rounded);
}

static inline void bf16_to_floats(float *__restrict out, const uint16_t *__restrict in, int64_t n) {
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = bf16_to_float(in[i]);
}

static inline void bf16_of_floats(uint16_t *__restrict out, const float *__restrict in, int64_t n) {
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = bf16_of_float(in[i]);
}

/* n elements from `offset` on, as floats: the tensor's own memory if it is F32, else converted into buffer(n). */
static inline const float *read_floats(Tensor t, int64_t offset, int64_t n, float *buffer) {
    if (t.dtype == F32) return (const float *)t.data + offset;
    bf16_to_floats(buffer, (const uint16_t *)t.data + offset, n);
    return buffer;
}

/* Where to write n floats bound for `offset`: the tensor's own memory if it is F32, else buffer(n); then call wrote_floats. */
static inline float *write_floats(Tensor t, int64_t offset, float *buffer) {
    return t.dtype == F32 ? (float *)t.data + offset : buffer;
}
static inline void wrote_floats(Tensor t, int64_t offset, int64_t n, const float *written) {
    if (t.dtype == BF16) bf16_of_floats((uint16_t *)t.data + offset, written, n);
}

/* a * b + c, rounded once where the CPU can; elsewhere fmaf would be a slow library call. */
static inline float multiply_add(float a, float b, float c) {
#if defined(FP_FAST_FMAF) || defined(__FMA__)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* exp(x) for x in [-87, 88]: 2^k * p(r), x = k ln2 + r, |r| <= ln2/2, p of degree 6 with the smallest greatest error (3e-9). Within
   1 ulp (2 where nothing is fused). NaN stays. */
static inline float exp_bounded(float x) {
    const float shift = 12582912.0f;   /* 1.5 * 2^23: adding it rounds to an integer, which then lies in the lowest bits */
    float shifted = x * 1.44269504f + shift, k = shifted - shift;
    float r = multiply_add(k, -0.693145752f, x);
    r = multiply_add(k, -1.42860677e-6f, r);
    float p = 1.38146106e-3f;
    p = multiply_add(p, r, 8.36871113e-3f);
    p = multiply_add(p, r, 4.16683875e-2f);
    p = multiply_add(p, r, 1.66665207e-1f);
    p = multiply_add(p, r, 0.499999935f);
    p = multiply_add(p, r, 1.0f);
    p = multiply_add(p, r, 1.0f);
    float result = float_of_bits(bits_of_float(p) + (bits_of_float(shifted) << 23));   /* p * 2^k */
    return x != x ? x : result;
}

/* The same for every x: 0 below, Inf above. */
static inline float exp_float(float x) {
    float result = exp_bounded(x);
    result = x > 88.7228f ? INFINITY : result;
    return x < -87.0f ? 0.0f : result;
}

/* tanh(x) = 1 - 2/(exp(2x) + 1); for small |x| the odd series, which keeps the relative error small: below 1.2e-6 for every x. */
static inline float tanh_float(float x) {
    float x2 = x * x;
    float small = x * multiply_add(x2, multiply_add(x2, multiply_add(x2, -0.0539682540f, 0.133333333f), -0.333333333f), 1.0f);
    float xc = x > 10.0f ? 10.0f : x < -10.0f ? -10.0f : x;
    float large = 1.0f - 2.0f / (exp_float(2.0f * xc) + 1.0f);
    float result = x2 < 0.04f ? small : large;
    return x != x ? x : result;
}

#endif
