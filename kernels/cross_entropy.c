/* cross_entropy.c: softmax, negative log-likelihood and its gradient in one op, and the sum of the losses. */
#include "cpu.h"

#include <assert.h>

enum { CHUNK = 1024, LANES = 32 };

/* A NaN is passed over here; the exponentials below then carry it. */
static float largest(const float *x, int64_t n) {
    float best[LANES], result = -INFINITY;
    int64_t whole = n / LANES * LANES;
    for (int l = 0; l < LANES; l++) best[l] = -INFINITY;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) best[l] = x[i + l] > best[l] ? x[i + l] : best[l];
    for (int l = 0; l < LANES; l++) result = best[l] > result ? best[l] : result;
    for (int64_t i = whole; i < n; i++) result = x[i] > result ? x[i] : result;
    return result;
}

static float row_maximum(Tensor logits, int64_t offset, int64_t V) {
    float buffer[CHUNK], result = -INFINITY;
    for (int64_t v = 0; v < V; v += CHUNK) {
        int64_t n = V - v < CHUNK ? V - v : CHUNK;
        float chunk = largest(read_floats(logits, offset + v, n, buffer), n);
        result = chunk > result ? chunk : result;
    }
    return result;
}

/* sum of exp(logit - maximum) */
static double row_sum(Tensor logits, int64_t offset, int64_t V, float maximum) {
    float buffer[CHUNK];
    double result = 0;
    for (int64_t v = 0; v < V; v += CHUNK) {
        int64_t n = V - v < CHUNK ? V - v : CHUNK;
        const float *x = read_floats(logits, offset + v, n, buffer);
        float sum = 0;
        #pragma omp simd reduction(+:sum)
        for (int64_t i = 0; i < n; i++) sum += exp_float(x[i] - maximum);
        result += sum;
    }
    return result;
}

/* logits[v] = exp(logits[v] - maximum) * scale, less loss_scale at the target. */
static void row_gradient(Tensor logits, int64_t offset, int64_t V, int64_t target, float maximum, float scale, float loss_scale) {
    float buffer[CHUNK];
    for (int64_t v = 0; v < V; v += CHUNK) {
        int64_t n = V - v < CHUNK ? V - v : CHUNK;
        const float *x = read_floats(logits, offset + v, n, buffer);
        float *gradient = write_floats(logits, offset + v, buffer);
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) gradient[i] = exp_float(x[i] - maximum) * scale;
        if (v <= target && target < v + n) gradient[target - v] -= loss_scale;
        wrote_floats(logits, offset + v, n, gradient);
    }
}

static void clear(Tensor t, int64_t offset, int64_t n) {
    size_t size = dtype_size(t.dtype);
    memset((char *)t.data + (size_t)offset * size, 0, (size_t)n * size);
}

static float logit_at(Tensor logits, int64_t offset) {
    float buffer;
    return *read_floats(logits, offset, 1, &buffer);
}

void cpu_cross_entropy(Tensor losses, Tensor logits, Tensor targets, int V, int backward, const StepState *state, Stream *s) {
    (void)s;
    int64_t Vp = last_dim(logits), N = tensor_numel(logits) / Vp;
    #pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < N; row++) {
        int32_t target = ((const int32_t *)targets.data)[row];
        float *loss = (float *)losses.data + row;
        assert(target < V);
        *loss = 0;
        if (target >= 0) {
            float maximum = row_maximum(logits, row * Vp, V);
            double sum = row_sum(logits, row * Vp, V, maximum);
            *loss = (float)(log(sum) + ((double)maximum - logit_at(logits, row * Vp + target)));
            if (backward) row_gradient(logits, row * Vp, V, target, maximum, (float)(state->loss_scale / sum), state->loss_scale);
        }
        if (backward) clear(logits, row * Vp + (target < 0 ? 0 : V), Vp - (target < 0 ? 0 : V));
    }
}

void cpu_loss_sum(Tensor sum, Tensor losses, int accumulate, Stream *s) {
    (void)s;
    const float *loss = losses.data;
    float *result = sum.data;
    double total = accumulate ? *result : 0;
    for (int64_t i = 0, N = tensor_numel(losses); i < N; i++) total += loss[i];
    *result = (float)total;
}
