/* bench_attention.h: one layer's attention on a backend, and its time: for bench_attention.c and gpu_attention.c. */
#ifndef DEV_BENCH_ATTENTION_H
#define DEV_BENCH_ATTENTION_H

#include "kernels/ops.h"
#include "llmc/error.h"
#include "llmc/machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROUNDS = 1000 };

/* One layer's attention with its projections, as model.c runs them, bare of biases, positions and dropout. */
typedef struct {
    const Backend *backend;
    int NH, NKV;
    Tensor x, qkvw, qkv, att, lse, projw, out;
    Tensor dout, datt, delta, dqkv, dx, dprojw, dqkvw;
    Tensor scratch;
} Sublayer;

/* Random numbers in [-scale, scale), cut off to bf16 where asked, the first million over and over; a GPU multiplies zeros faster. */
static void fill(const Backend *backend, Tensor t, float scale) {
    enum { PIECE = 1000003 };   /* a prime: no two rows of a tensor are the same */
    int64_t n = tensor_numel(t) < PIECE ? tensor_numel(t) : PIECE;
    size_t size = dtype_size(t.dtype), bytes = tensor_bytes(t), piece = (size_t)n * size;
    char *numbers = xmalloc(piece);
    uint64_t state = 88172645463325252u;
    for (int64_t i = 0; i < n; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;   /* Marsaglia's xorshift */
        float number = scale * (float)(int32_t)(state >> 32) * 0x1p-31f;
        uint32_t bits;
        memcpy(&bits, &number, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        memcpy(numbers + (size_t)i * size, t.dtype == BF16 ? (const void *)&half : &number, size);
    }
    for (size_t at = 0; at < bytes; at += piece) backend->upload((char *)t.data + at, numbers, bytes - at < piece ? bytes - at : piece, NULL);
    backend->synchronize(NULL);   /* the numbers end with this function */
    free(numbers);
}

static Tensor with_memory(const Backend *backend, Tensor t) {
    t.data = (void *)1;   /* only a tensor that is there has bytes */
    t.data = backend->alloc(tensor_bytes(t));
    return t;
}
static Tensor filled(const Backend *backend, Tensor t, float scale) {
    t = with_memory(backend, t);
    fill(backend, t, scale);
    return t;
}

static Sublayer open_sublayer(const Backend *b, DType dtype, int64_t B, int64_t T, int NH, int NKV, int64_t HS) {
    int64_t C = NH * HS, heads = NH + 2 * NKV;
    size_t forward = b->attention_scratch(B, T, NH, NKV, (int)HS, dtype, 0, 0), backward = b->attention_scratch(B, T, NH, NKV, (int)HS, dtype, 0, 1);
    size_t scratch = forward > backward ? forward : backward;
    Tensor rows = tensor(NULL, dtype, 3, B, T, C, 0), packed = tensor(NULL, dtype, 4, B, T, heads, HS);
    float spread = sqrtf(3.0f / (float)C);   /* the products of numbers spread over [-1, 1) are spread as much */
    Sublayer s;
    s.backend = b;
    s.NH = NH;
    s.NKV = NKV;
    s.x = filled(b, rows, 1);
    s.qkvw = filled(b, tensor(NULL, dtype, 2, heads * HS, C, 0, 0), spread);
    s.qkv = with_memory(b, packed);
    s.att = with_memory(b, tensor(NULL, dtype, 4, B, T, NH, HS));
    s.lse = with_memory(b, tensor(NULL, F32, 3, B, NH, T, 0));
    s.projw = filled(b, tensor(NULL, dtype, 2, C, C, 0, 0), spread);
    s.out = with_memory(b, rows);
    s.dout = filled(b, rows, 1);
    s.datt = with_memory(b, s.att);
    s.delta = with_memory(b, s.lse);
    s.dqkv = with_memory(b, packed);
    s.dx = with_memory(b, rows);
    s.dprojw = with_memory(b, tensor(NULL, F32, 2, C, C, 0, 0));
    s.dqkvw = with_memory(b, tensor(NULL, F32, 2, heads * HS, C, 0, 0));
    s.scratch = scratch ? with_memory(b, tensor(NULL, F32, 1, (int64_t)(scratch + 3) / 4, 0, 0, 0)) : no_tensor();
    return s;
}

static void close_sublayer(const Sublayer *s) {
    const Tensor all[] = {s->x, s->qkvw, s->qkv, s->att, s->lse, s->projw, s->out, s->dout, s->datt, s->delta, s->dqkv, s->dx, s->dprojw,
                          s->dqkvw, s->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].data) s->backend->release(all[i].data);
}

static const StepState no_drop;

static void attention_forward(const Sublayer *s) {
    Dropout none = {0, 0, &no_drop};
    s->backend->op.attention_forward(s->att, s->lse, s->qkv, s->scratch, s->NH, s->NKV, none, NULL);
}
static void attention_backward(const Sublayer *s) {
    Dropout none = {0, 0, &no_drop};
    s->backend->op.attention_backward(s->dqkv, s->delta, s->datt, s->att, s->lse, s->qkv, s->scratch, s->NH, s->NKV, none, NULL);
}

typedef void (*Work)(const Sublayer *s);

/* Seconds of one run, the mean of several in a row. */
static double seconds_of(Work work, const Sublayer *s, int in_a_row) {
    double start = machine_seconds();
    for (int i = 0; i < in_a_row; i++) work(s);
    s->backend->synchronize(NULL);
    return (machine_seconds() - start) / in_a_row;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(const double *values, int n) {
    double sorted[MOST_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return sorted[n / 2];
}

#endif
