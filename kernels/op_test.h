/* op_test.h: what every op's test shares. A test holds its data as doubles that the dtype can represent exactly, uploads them to
   each backend in the build, runs the op, and compares with a plain double-precision reference.

   Tolerances, chosen before the code: F32 results may differ from the reference by a relative error (norm of the difference over
   norm of the reference) of 2e-6 times a slack for long sums; BF16 results by twice the error of the reference rounded to bf16, which is
   what an fp32 computation that rounds once (PyTorch's) has. NaN never passes. */
#ifndef KERNELS_OP_TEST_H
#define KERNELS_OP_TEST_H

#include "cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#undef test_free   /* cmocka has a macro of that name */

/* splitmix64 and a standard normal from it (sum of twelve uniforms: exact on every machine). */
static uint64_t test_seed = 1;
static inline double test_uniform(void) {
    uint64_t z = (test_seed += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}
static inline double test_normal(void) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += test_uniform();
    return sum;
}
static inline int test_below(int n) { return (int)(test_uniform() * n); }

static inline double rounded(double value, DType dtype) {
    return dtype == BF16 ? bf16_to_float(bf16_of_float((float)value)) : dtype == F32 ? (float)value : value;
}

/* n values, normal times scale, each exactly representable in dtype. free() it. */
static inline double *random_values(int64_t n, double scale, DType dtype) {
    double *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = rounded(test_normal() * scale, dtype);
    return values;
}

/* Fresh device memory for each tensor, so that a sanitizer sees an overrun, filled with values, or with NaN where values is NULL.
   Give it back with test_free. */
static inline Tensor test_tensor(const Backend *b, DType dtype, const double *values, int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    Tensor t = tensor((void *)1, dtype, rank, d0, d1, d2, d3);
    size_t bytes = tensor_bytes(t);
    int64_t n = tensor_numel(t);
    unsigned char *host = malloc(bytes);
    memset(host, 0xFF, bytes);   /* NaN in F32, BF16 and F64 */
    for (int64_t i = 0; values && i < n; i++) {
        if (dtype == F32) ((float *)host)[i] = (float)values[i];
        else if (dtype == BF16) ((uint16_t *)host)[i] = bf16_of_float((float)values[i]);
        else if (dtype == F64) ((double *)host)[i] = values[i];
        else if (dtype == I32) ((int32_t *)host)[i] = (int32_t)values[i];
        else ((int64_t *)host)[i] = (int64_t)values[i];
    }
    t.data = b->alloc(bytes);
    b->upload(t.data, host, bytes, NULL);
    b->synchronize(NULL);   /* other streams do not wait for this one */
    free(host);
    return t;
}
static inline void test_free(const Backend *b, Tensor t) { if (t.data) b->release(t.data); }

/* The tensor's elements as doubles; free() them. */
static inline double *test_values(const Backend *b, Tensor t) {
    int64_t n = tensor_numel(t);
    unsigned char *host = malloc(tensor_bytes(t));
    b->download(host, t.data, tensor_bytes(t), NULL);
    double *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++)
        values[i] = t.dtype == F32 ? ((float *)host)[i] : t.dtype == BF16 ? bf16_to_float(((uint16_t *)host)[i])
                  : t.dtype == F64 ? ((double *)host)[i] : t.dtype == I32 ? ((int32_t *)host)[i] : (double)((int64_t *)host)[i];
    free(host);
    return values;
}

/* Norm of the difference over norm of the reference (or over 1e-30: an all-zero reference wants zeros). NaN if anything is NaN. */
static inline double relative_error(const double *got, const double *reference, int64_t n) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (got[i] - reference[i]) * (got[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-30);
}

/* Fails the test unless t matches the reference under the rule above. slack >= 1 for sums of many terms, 1 for element-wise ops. */
static inline void expect_close(const char *what, const Backend *b, Tensor t, const double *reference, double slack) {
    int64_t n = tensor_numel(t);
    double *got = test_values(b, t);
    double tolerance = 2e-6 * slack;
    if (t.dtype == BF16) {
        double *once = malloc((size_t)n * sizeof *once);
        for (int64_t i = 0; i < n; i++) once[i] = rounded(reference[i], BF16);
        tolerance += 2 * relative_error(once, reference, n);
        free(once);
    }
    double error = relative_error(got, reference, n);
    if (!(error <= tolerance)) {
        int64_t worst = 0;
        for (int64_t i = 0; i < n; i++)
            if (!(fabs(got[i] - reference[i]) <= fabs(got[worst] - reference[worst]))) worst = i;
        fail_msg("%s on %s (%s): relative error %g > %g; worst at %lld: %g, expected %g", what, b->name,
                 t.dtype == BF16 ? "bf16" : "fp32", error, tolerance, (long long)worst, got[worst], reference[worst]);
    }
    free(got);
}

/* The gradient of sum(dout * f(x)) by central differences, f in double: perturbs x[n] in place and restores it. */
static inline double *finite_difference(void (*f)(double *out, void *context), void *context, double *x, int64_t n,
                                        const double *dout, int64_t n_out) {
    double *gradient = malloc((size_t)n * sizeof *gradient), *up = malloc((size_t)n_out * sizeof *up), *down = malloc((size_t)n_out * sizeof *down);
    for (int64_t i = 0; i < n; i++) {
        double saved = x[i], h = 1e-5 * (1 + fabs(saved));
        x[i] = saved + h; f(up, context);
        x[i] = saved - h; f(down, context);
        x[i] = saved;
        gradient[i] = 0;
        for (int64_t o = 0; o < n_out; o++) gradient[i] += dout[o] * (up[o] - down[o]) / (2 * h);
    }
    free(up); free(down);
    return gradient;
}

/* The backends that there may be, in the order of their trust: each is compared with double precision, not with another. */
static const char *const test_backend_names[] = {"cpu", "emu", "cuda"};
enum { TEST_BACKENDS = sizeof test_backend_names / sizeof *test_backend_names };

/* The backend of that number, or NULL if it is not here, or if the environment variable TEST_BACKENDS names another. */
static inline const Backend *test_backend(int i) {
    const char *wanted = getenv("TEST_BACKENDS");
    if (wanted && strcmp(wanted, test_backend_names[i]) != 0) return NULL;
    return backend_find(test_backend_names[i]);
}

/* Runs test(backend, dtype) on every such backend, in F32 and BF16. */
static inline void on_every_backend(void (*test)(const Backend *b, DType dtype)) {
    for (int i = 0; i < TEST_BACKENDS; i++) {
        const Backend *b = test_backend(i);
        if (!b) continue;
        test(b, F32);
        test(b, BF16);
    }
}

#endif
