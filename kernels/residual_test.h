/* residual_test.h: what the tests of the residual add and of the norms share: the tensors of a case, and the sum that they expect. */
#ifndef KERNELS_RESIDUAL_TEST_H
#define KERNELS_RESIDUAL_TEST_H

#include "op_test.h"
#include "philox.h"

/* Rows (B,T,C). If misaligned, they begin one element past an aligned address. */
typedef struct { int B, T, C; bool misaligned; } Shape;

/* What a case has taken; give_back ends the case. */
static struct {
    const Backend *b;
    double *values[64];
    void *memory[64];
    int arrays, pieces;
} taken;

static inline double *numbers(int64_t n) { return taken.values[taken.arrays++] = calloc((size_t)n, sizeof(double)); }
/* n values, offset + scale * normal, each exactly representable in dtype. */
static inline double *normals(int64_t n, double scale, double offset, DType dtype) {
    double *values = numbers(n);
    for (int64_t i = 0; i < n; i++) values[i] = rounded(scale * test_normal() + offset, dtype);
    return values;
}
static inline double *values_of(const Backend *b, Tensor t) { return taken.values[taken.arrays++] = test_values(b, t); }

/* On the device: values, or NaN where values is NULL. */
static inline Tensor keep(const Backend *b, Tensor t) {
    taken.b = b;
    taken.memory[taken.pieces++] = t.data;
    return t;
}
static inline Tensor vector(const Backend *b, DType dtype, int64_t n, const double *values) {
    return keep(b, test_tensor(b, dtype, values, 1, n, 0, 0, 0));
}
static inline Tensor rows(const Backend *b, DType dtype, Shape z, const double *values) {
    const int64_t n = (int64_t)z.B * z.T * z.C;
    if (!z.misaligned) return keep(b, test_tensor(b, dtype, values, 3, z.B, z.T, z.C, 0));
    double *padded = numbers(n + 1);
    for (int64_t i = 0; i < n; i++) padded[i + 1] = values ? values[i] : NAN;
    return tensor((char *)vector(b, dtype, n + 1, padded).data + dtype_size(dtype), dtype, 3, z.B, z.T, z.C, 0);
}
static inline Dropout dropout_of(const Backend *b, float p, StepState step) {
    Tensor state = keep(b, tensor(b->alloc(sizeof step), F32, 0, 0, 0, 0, 0));
    b->upload(state.data, &step, sizeof step, NULL);
    return (Dropout){p, 41, state.data};
}
static inline void give_back(void) {
    while (taken.arrays > 0) free(taken.values[--taken.arrays]);
    while (taken.pieces > 0) taken.b->release(taken.memory[--taken.pieces]);
}

/* x + dropout(delta). */
static inline double *reference_residual(Shape z, const double *x, const double *delta, float p, uint32_t tensor, StepState step) {
    const int64_t n = (int64_t)z.B * z.T * z.C;
    double *sum = numbers(n);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t index = (uint64_t)step.sample * (uint64_t)z.T * (uint64_t)z.C + (uint64_t)i;
        const bool kept = philox_at(step.seed, step.step, tensor, index) >= dropout_threshold(p);
        sum[i] = x[i] + (p > 0 ? kept / (1 - (double)p) : 1) * delta[i];
    }
    return sum;
}

static inline void expect_same_bits(const char *what, const Backend *b, Tensor one, Tensor other) {
    unsigned char *x = malloc(tensor_bytes(one)), *y = malloc(tensor_bytes(one));
    b->download(x, one.data, tensor_bytes(one), NULL);
    b->download(y, other.data, tensor_bytes(one), NULL);
    if (memcmp(x, y, tensor_bytes(one))) fail_msg("%s on %s: not the same bits (rows of %lld)", what, b->name, (long long)last_dim(one));
    free(x); free(y);
}

#endif
