/* sdpa_test: on a machine with a GPU, compares cuDNN's attention and our own with the plain one, and times both. Usage: sdpa_test
   [backend]; on a backend other than cuda, our own is compared only. Exit status 1 if a result is wrong.

   The plain attention in fp32 is the reference. In bf16 the results may be off by two roundings of the largest size, 2 * 2^-8 of the norm;
   lse and delta, which are fp32, by 1e-4. */
#include "kernels/cpu.h"
#include "llmc/error.h"
#include "llmc/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int B, T, NH, NKV, HS;
    int cold;   /* all scores near -100: what is masked must not come back as exp(0 - lse), which overflows */
} Case;

static const Case checked[] = {
    {2, 256, 4, 4, 64, 0}, {2, 1024, 2, 2, 64, 0}, {1, 512, 6, 2, 128, 0}, {1, 384, 4, 2, 96, 0},
    {1, 256, 4, 4, 80, 0}, {3, 64, 4, 1, 32, 0},   {2, 1000, 2, 2, 64, 0}, {2, 129, 3, 3, 64, 0},
    {1, 192, 2, 2, 64, 1}, {1, 1000, 4, 2, 64, 1}, {1, 256, 2, 2, 128, 1},
};
static const Case timed[] = {
    {64, 1024, 12, 12, 64, 0}, {16, 1024, 25, 25, 64, 0}, {16, 1024, 16, 16, 96, 0}, {8, 2048, 32, 8, 128, 0},
};
enum { CHECKED = sizeof checked / sizeof *checked, TIMED = sizeof timed / sizeof *timed };

static const Backend *backend;
static int wrong;

static void configure(AttentionKind kind, int deterministic) {
    BackendSettings settings = {.attention = kind, .deterministic = deterministic, .autotune = 0};
    backend->configure(&settings);
}

/* The tensors of one attention; scratch is filled with NaN. */
typedef struct {
    Tensor qkv, out, lse, dout, dqkv, delta, scratch;
    Dropout drop;
} Run;

static Tensor filled(DType dtype, const float *values, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    Tensor t = tensor((void *)1, dtype, 4, d0, d1, d2, d3);
    int64_t n = tensor_numel(t);
    void *host = xmalloc(tensor_bytes(t));
    memset(host, 0xFF, tensor_bytes(t));   /* NaN */
    for (int64_t i = 0; values && i < n; i++) {
        if (dtype == F32) ((float *)host)[i] = values[i];
        else ((uint16_t *)host)[i] = bf16_of_float(values[i]);
    }
    t.data = backend->alloc(tensor_bytes(t));
    backend->upload(t.data, host, tensor_bytes(t), NULL);
    backend->synchronize(NULL);
    free(host);
    return t;
}

static Run open_run(const Case *c, DType dtype, const float *qkv, const float *dout) {
    size_t scratch = backend->attention_scratch(c->B, c->T, c->NH, c->NKV, c->HS, dtype, 0, 1);
    return (Run){
        .qkv = filled(dtype, qkv, c->B, c->T, c->NH + 2 * c->NKV, c->HS),
        .out = filled(dtype, NULL, c->B, c->T, c->NH, c->HS),
        .lse = filled(F32, NULL, c->B, c->NH, c->T, 1),
        .dout = filled(dtype, dout, c->B, c->T, c->NH, c->HS),
        .dqkv = filled(dtype, NULL, c->B, c->T, c->NH + 2 * c->NKV, c->HS),
        .delta = filled(F32, NULL, c->B, c->NH, c->T, 1),
        .scratch = scratch ? filled(F32, NULL, (int64_t)(scratch + 3) / 4, 1, 1, 1) : no_tensor(),
        .drop = {0, 0, backend->alloc(sizeof(StepState))},
    };
}
static void close_run(Run r) {
    Tensor all[] = {r.qkv, r.out, r.lse, r.dout, r.dqkv, r.delta, r.scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].data) backend->release(all[i].data);
    backend->release((void *)r.drop.state);
}
static void forward(const Case *c, Run *r) {
    r->lse.rank = 3;
    backend->op.attention_forward(r->out, r->lse, r->qkv, r->scratch, c->NH, c->NKV, r->drop, NULL);
}
static void backward(const Case *c, Run *r) {
    r->lse.rank = r->delta.rank = 3;
    backend->op.attention_backward(r->dqkv, r->delta, r->dout, r->out, r->lse, r->qkv, r->scratch, c->NH, c->NKV, r->drop, NULL);
}

static float *values_of(Tensor t) {
    int64_t n = tensor_numel(t);
    unsigned char *host = xmalloc(tensor_bytes(t));
    float *values = xmalloc((size_t)n * sizeof *values);
    backend->download(host, t.data, tensor_bytes(t), NULL);
    for (int64_t i = 0; i < n; i++) values[i] = t.dtype == BF16 ? bf16_to_float(((uint16_t *)host)[i]) : ((float *)host)[i];
    free(host);
    return values;
}

static uint64_t seed = 1;
/* Uniform in (-1, 1). */
static float uniform(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}
static float *random_values(int64_t n) {
    float *values = xmalloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = bf16_to_float(bf16_of_float(uniform()));
    return values;
}
static float *random_qkv(const Case *c) {
    int64_t heads = c->NH + 2 * c->NKV, n = (int64_t)c->B * c->T * heads * c->HS;
    float *values = random_values(n);
    for (int64_t i = 0; c->cold && i < n; i += c->HS) {   /* every query times every key */
        int64_t head = i / c->HS % heads;
        if (head < c->NH) values[i] = bf16_to_float(bf16_of_float(-100 * sqrtf((float)c->HS)));
        else if (head < c->NH + c->NKV) values[i] = 1;
    }
    return values;
}

/* Columns first ... first + width - 1 of each row of `row` values. NaN counts as wrong. */
static void compare(const char *what, const float *got, const float *expected, int64_t n, int64_t row, int64_t first, int64_t width,
                    double most) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i += row)
        for (int64_t k = i + first; k < i + first + width; k++) {
            difference += ((double)got[k] - expected[k]) * ((double)got[k] - expected[k]);
            norm += (double)expected[k] * expected[k];
        }
    double error = sqrt(difference / norm);
    int right = error <= most;
    printf(" %s %.1e%s", what, error, right ? "" : " WRONG");
    wrong += !right;
}

/* delta is to be the row sums of dout * out, as out was stored. */
static float *row_sums(const Case *c, const float *dout, const float *out) {
    float *sums = xmalloc((size_t)(c->B * c->NH * c->T) * sizeof *sums);
    for (int b = 0; b < c->B; b++)
        for (int t = 0; t < c->T; t++)
            for (int h = 0; h < c->NH; h++) {
                int64_t at = (((int64_t)b * c->T + t) * c->NH + h) * c->HS;
                double sum = 0;
                for (int i = 0; i < c->HS; i++) sum += (double)dout[at + i] * out[at + i];
                sums[((int64_t)b * c->NH + h) * c->T + t] = (float)sum;
            }
    return sums;
}

static const double rounded = 2 * 0x1p-8, exact = 1e-4;

static void compare_forward(Run got, Run expected) {
    float *out = values_of(got.out), *expected_out = values_of(expected.out);
    float *lse = values_of(got.lse), *expected_lse = values_of(expected.lse);
    compare("out", out, expected_out, tensor_numel(got.out), 1, 0, 1, rounded);
    compare("lse", lse, expected_lse, tensor_numel(got.lse), 1, 0, 1, exact);
    /* The backward is defined by out as it was stored. */
    backend->upload(expected.out.data, out, tensor_bytes(expected.out), NULL);
    backend->synchronize(NULL);
    free(out); free(expected_out); free(lse); free(expected_lse);
}

static void compare_backward(const Case *c, Run got, Run expected, const float *dout) {
    float *out = values_of(got.out), *delta = values_of(got.delta), *sums = row_sums(c, dout, out);
    float *dqkv = values_of(got.dqkv), *expected_dqkv = values_of(expected.dqkv);
    int64_t n = tensor_numel(got.dqkv), q = (int64_t)c->NH * c->HS, kv = (int64_t)c->NKV * c->HS;
    compare("delta", delta, sums, tensor_numel(got.delta), 1, 0, 1, exact);
    compare("dq", dqkv, expected_dqkv, n, q + 2 * kv, 0, q, rounded);
    compare("dk", dqkv, expected_dqkv, n, q + 2 * kv, q, kv, rounded);
    compare("dv", dqkv, expected_dqkv, n, q + 2 * kv, q + kv, kv, rounded);
    free(out); free(delta); free(sums); free(dqkv); free(expected_dqkv);
}

/* The same backward again is to give the same bits. */
static void compare_repeated(const Case *c, Run *r) {
    size_t bytes = tensor_bytes(r->dqkv);
    unsigned char *first = xmalloc(bytes), *again = xmalloc(bytes);
    backend->download(first, r->dqkv.data, bytes, NULL);
    for (int i = 0; i < 3; i++) {
        backward(c, r);
        backend->download(again, r->dqkv.data, bytes, NULL);
        if (memcmp(first, again, bytes) != 0) {
            printf(" NOT THE SAME BITS AGAIN");
            wrong++;
            break;
        }
    }
    free(first); free(again);
}

static void check(const Case *c, AttentionKind kind, int deterministic) {
    int64_t n = (int64_t)c->B * c->T * c->NH * c->HS;
    float *qkv = random_qkv(c), *dout = random_values(n);
    printf("B=%d T=%d NH=%d NKV=%d HS=%d%s %s%s:", c->B, c->T, c->NH, c->NKV, c->HS, c->cold ? " cold" : "",
           kind == ATTENTION_CUDNN ? "cuDNN" : "own", deterministic ? " deterministic" : "");
    configure(ATTENTION_PLAIN, 0);
    Run expected = open_run(c, F32, qkv, dout);
    forward(c, &expected);
    configure(kind, deterministic);
    Run got = open_run(c, BF16, qkv, dout);
    forward(c, &got);
    backward(c, &got);
    compare_forward(got, expected);
    configure(ATTENTION_PLAIN, 0);
    backward(c, &expected);
    compare_backward(c, got, expected, dout);
    configure(kind, deterministic);
    if (deterministic) compare_repeated(c, &got);
    printf("\n");
    close_run(expected);
    close_run(got);
    free(qkv); free(dout);
}

static double seconds_each(void (*op)(const Case *c, Run *r), const Case *c, Run *r) {
    enum { WARM = 3, MEASURED = 20 };
    double start = 0;
    for (int i = 0; i < WARM + MEASURED; i++) {
        if (i == WARM) {
            backend->synchronize(NULL);
            start = machine_seconds();
        }
        op(c, r);
    }
    backend->synchronize(NULL);
    return (machine_seconds() - start) / MEASURED;
}

/* FLOPs of the causal half: two products of T*T*HS/2 multiply-adds a head in the forward, five in the backward. */
static void measure(const Case *c, AttentionKind kind, int deterministic) {
    float *qkv = random_qkv(c), *dout = random_values((int64_t)c->B * c->T * c->NH * c->HS);
    double flops = 2.0 * c->B * c->NH * c->T * c->T * c->HS;
    configure(kind, deterministic);
    Run r = open_run(c, BF16, qkv, dout);
    double there = seconds_each(forward, c, &r), back = seconds_each(backward, c, &r);
    printf("B=%d T=%d NH=%d NKV=%d HS=%d %s%s: forward %.3f ms, %.0f TFLOP/s; backward %.3f ms, %.0f TFLOP/s\n", c->B, c->T, c->NH,
           c->NKV, c->HS, kind == ATTENTION_CUDNN ? "cuDNN" : "own", deterministic ? " deterministic" : "", there * 1e3,
           flops / there / 1e12, back * 1e3, 2.5 * flops / back / 1e12);
    close_run(r);
    free(qkv); free(dout);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "cuda";
    error_program_name("sdpa_test");
    backend = backend_find(name);
    if (!backend) die("there is no backend %s here; those of this build: %s", name, backend_names());
    const int kinds = strcmp(name, "cuda") == 0 ? 2 : 1;
    static const AttentionKind kind[] = {ATTENTION_OWN, ATTENTION_CUDNN};
    for (int i = 0; i < CHECKED; i++)
        for (int k = 0; k < kinds; k++)
            for (int deterministic = 0; deterministic < 2; deterministic++) check(&checked[i], kind[k], deterministic);
    for (int i = 0; i < TIMED && kinds == 2; i++)
        for (int k = 0; k < kinds; k++)
            for (int deterministic = 0; deterministic < 2; deterministic++) measure(&timed[i], kind[k], deterministic);
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
