/* qk_norm.c: RMSNorm of every query and key head (Henry et al. 2020), and then its rotation (Su et al. 2021). */
#include "cpu.h"
#include "rope.h"

#include <assert.h>

enum { MAX_HS = MAX_HEAD_SIZE };

static int head_size(Tensor qkv, int NH, int NKV) {
    int64_t HS = tensor_numel(qkv) / (qkv.shape[0] * qkv.shape[1] * (NH + 2 * NKV));
    assert(HS <= MAX_HS);
    return (int)HS;
}

/* The numbers that turn the row at position t, or NULL if there are none. */
static const float *rotation_at(Tensor rotations, int64_t t, int HS) {
    return rotations.data ? (const float *)rotations.data + t * HS : NULL;
}

/* The head at `offset` of out, from that of qkv. Returns its rstd. */
static float forward_head(Tensor out, Tensor qkv, int64_t offset, const float *w, const float *rotation, int HS, RopeLayout layout,
                          float eps) {
    float x_buffer[MAX_HS], y_buffer[MAX_HS], squares = 0;
    const float *x = read_floats(qkv, offset, HS, x_buffer);
    float *y = write_floats(out, offset, y_buffer);
    #pragma omp simd reduction(+:squares)
    for (int i = 0; i < HS; i++) squares += x[i] * x[i];
    float rstd = 1.0f / sqrtf(squares / (float)HS + eps);
    #pragma omp simd
    for (int i = 0; i < HS; i++) y[i] = x[i] * rstd * w[i];
    if (rotation) rotate(y, rotation, HS / 2, layout, 1);
    wrote_floats(out, offset, HS, y);
    return rstd;
}

void cpu_qk_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor qw, Tensor kw, Tensor rotations, int NH, int NKV, RopeLayout layout,
                         int t0, float eps, Stream *s) {
    (void)s;
    int64_t rows = qkv.shape[0] * qkv.shape[1], T = qkv.shape[1], normed = NH + NKV, heads = normed + NKV;
    int HS = head_size(qkv, NH, NKV);
    #pragma omp parallel
    {
        float w_buffer[2][MAX_HS];
        const float *w[2] = {read_floats(qw, 0, HS, w_buffer[0]), read_floats(kw, 0, HS, w_buffer[1])};
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const float *rotation = rotation_at(rotations, t0 + row % T, HS);
            float *row_rstd = (float *)rstd.data + row * normed;
            for (int64_t head = 0; head < normed; head++)
                row_rstd[head] = forward_head(out, qkv, (row * heads + head) * HS, w[head >= NH], rotation, HS, layout, eps);
            size_t v = (size_t)((row * heads + normed) * HS) * dtype_size(qkv.dtype), bytes = (size_t)(NKV * HS) * dtype_size(qkv.dtype);
            memcpy((char *)out.data + v, (const char *)qkv.data + v, bytes);
        }
    }
}

/* The head at `offset` of dqkv, in place. With g = dout turned back and xhat = x rstd:
   dx = rstd (g w - xhat mean(g w xhat)),  dw += g xhat. */
static void backward_head(Tensor dqkv, float *restrict dw, Tensor qkv, int64_t offset, float rstd, const float *restrict w,
                          const float *rotation, int HS, RopeLayout layout) {
    float x_buffer[MAX_HS], g_buffer[MAX_HS], product = 0;
    const float *x = read_floats(qkv, offset, HS, x_buffer);
    float *g = write_floats(dqkv, offset, g_buffer);
    if (dqkv.dtype == BF16) bf16_to_floats(g, (const uint16_t *)dqkv.data + offset, HS);
    if (rotation) rotate(g, rotation, HS / 2, layout, -1);
    #pragma omp simd reduction(+:product)
    for (int i = 0; i < HS; i++) {
        float change = g[i] * (x[i] * rstd);
        dw[i] += change;
        product += change * w[i];
    }
    product /= (float)HS;
    #pragma omp simd
    for (int i = 0; i < HS; i++) g[i] = rstd * (g[i] * w[i] - x[i] * rstd * product);
    wrote_floats(dqkv, offset, HS, g);
}

/* Each thread sums dqw and dkw of its rows on its own stack; then the threads' sums are added, always in the order of the threads. */
void cpu_qk_norm_backward(Tensor dqkv, Tensor dqw, Tensor dkw, Tensor qkv, Tensor rstd, Tensor qw, Tensor kw, Tensor rotations, int NH,
                          int NKV, RopeLayout layout, int accumulate, Stream *s) {
    (void)s;
    int64_t rows = qkv.shape[0] * qkv.shape[1], T = qkv.shape[1], normed = NH + NKV, heads = normed + NKV;
    int HS = head_size(qkv, NH, NKV);
    float (*partial[omp_get_max_threads()])[MAX_HS];
    #pragma omp parallel
    {
        float w_buffer[2][MAX_HS], sums[2][MAX_HS] = {{0}};
        const float *w[2] = {read_floats(qw, 0, HS, w_buffer[0]), read_floats(kw, 0, HS, w_buffer[1])};
        partial[omp_get_thread_num()] = sums;
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const float *rotation = rotation_at(rotations, row % T, HS), *row_rstd = (const float *)rstd.data + row * normed;
            for (int64_t head = 0; head < normed; head++)
                backward_head(dqkv, sums[head >= NH], qkv, (row * heads + head) * HS, row_rstd[head], w[head >= NH], rotation, HS, layout);
        }
        #pragma omp for schedule(static)
        for (int i = 0; i < 2 * HS; i++) {
            float *total = (float *)(i < HS ? dqw : dkw).data + i % HS, sum = 0;
            for (int thread = 0; thread < omp_get_num_threads(); thread++) sum += partial[thread][i / HS][i % HS];
            *total = accumulate ? *total + sum : sum;
        }
    }
}
