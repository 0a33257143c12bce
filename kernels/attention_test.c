/* attention_test.c: attention against a double-precision reference that does keep its T x T probabilities, against finite
   differences, and through the equalities that training and generation rely on.

   Slack: 2 for the forward, sums over up to 257 keys; 4 for the backward, three such products behind each other. */
#include "op_test.h"
#include "philox.h"

enum { FORWARD_SLACK = 2, BACKWARD_SLACK = 4 };

typedef struct {
    int B, T, NH, NKV, HS;
    float p;             /* dropout */
    StepState step;
} Case;

static const Case cases[] = {
    {.B = 2, .T = 1, .NH = 6, .NKV = 6, .HS = 32},   {.B = 2, .T = 37, .NH = 6, .NKV = 6, .HS = 33},
    {.B = 1, .T = 37, .NH = 6, .NKV = 2, .HS = 32},  {.B = 1, .T = 64, .NH = 6, .NKV = 6, .HS = 64},
    {.B = 2, .T = 130, .NH = 6, .NKV = 1, .HS = 24}, {.B = 1, .T = 130, .NH = 6, .NKV = 3, .HS = 64},
    {.B = 1, .T = 257, .NH = 6, .NKV = 6, .HS = 32}, {.B = 1, .T = 257, .NH = 6, .NKV = 2, .HS = 33},
    {.B = 2, .T = 9, .NH = 4, .NKV = 2, .HS = 1},    {.B = 1, .T = 129, .NH = 2, .NKV = 2, .HS = 128},
    {.B = 1, .T = 70, .NH = 2, .NKV = 1, .HS = 256},
};
enum { CASES = sizeof cases / sizeof *cases };

/* Around the tiles of the CUDA kernels, 16 to 128 rows: one more and one less, several stages, head sizes that fill a tile and that do
   not. */
static const Case tile_cases[] = {
    {.B = 1, .T = 193, .NH = 2, .NKV = 1, .HS = 48}, {.B = 1, .T = 320, .NH = 2, .NKV = 2, .HS = 64},
    {.B = 1, .T = 449, .NH = 3, .NKV = 1, .HS = 40}, {.B = 2, .T = 127, .NH = 2, .NKV = 1, .HS = 80},
    {.B = 1, .T = 256, .NH = 2, .NKV = 2, .HS = 96}, {.B = 1, .T = 292, .NH = 2, .NKV = 1, .HS = 128},
    {.B = 2, .T = 65, .NH = 4, .NKV = 2, .HS = 104}, {.B = 1, .T = 63, .NH = 2, .NKV = 2, .HS = 8},
    {.B = 3, .T = 260, .NH = 2, .NKV = 1, .HS = 32}, {.B = 1, .T = 128, .NH = 5, .NKV = 1, .HS = 64},
};
enum { TILE_CASES = sizeof tile_cases / sizeof *tile_cases };

static int heads_of(const Case *c) { return c->NH + 2 * c->NKV; }
static int64_t qkv_numel(const Case *c) { return (int64_t)c->B * c->T * heads_of(c) * c->HS; }
static int64_t out_numel(const Case *c) { return (int64_t)c->B * c->T * c->NH * c->HS; }
static double *numbers(int64_t n) { return calloc((size_t)n, sizeof(double)); }

/* What the probability of key tk for query tq is multiplied by. */
static double keep(const Case *c, int b, int h, int tq, int tk) {
    if (c->p == 0) return 1;
    uint64_t row = ((uint64_t)(c->step.sample + b) * (uint64_t)c->NH + (uint64_t)h) * (uint64_t)c->T + (uint64_t)tq;
    uint32_t bits = philox_at(c->step.seed, c->step.step, 5, row * (uint64_t)c->T + (uint64_t)tk);
    return bits >= dropout_threshold(c->p) ? 1 / (1 - (double)c->p) : 0;
}

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
static void add_scaled(double *a, double scale, const double *b, int n) {
    for (int i = 0; i < n; i++) a[i] += scale * b[i];
}

/* Row t of Q head h, or of the K or V head that it reads. */
static int64_t q_at(const Case *c, int b, int t, int h) { return (((int64_t)b * c->T + t) * heads_of(c) + h) * c->HS; }
static int64_t k_at(const Case *c, int b, int t, int h) { return q_at(c, b, t, c->NH + h / (c->NH / c->NKV)); }
static int64_t v_at(const Case *c, int b, int t, int h) { return k_at(c, b, t, h) + (int64_t)c->NKV * c->HS; }
static int64_t out_at(const Case *c, int b, int t, int h) { return (((int64_t)b * c->T + t) * c->NH + h) * c->HS; }

/* p(0..tq): the softmax of the scaled scores; returns their log-sum-exp. */
static double probabilities(double *p, const double *qkv, const Case *c, int b, int h, int tq) {
    double top = -INFINITY, sum = 0;
    for (int tk = 0; tk <= tq; tk++) {
        p[tk] = dot(qkv + q_at(c, b, tq, h), qkv + k_at(c, b, tk, h), c->HS) / sqrt(c->HS);
        top = fmax(top, p[tk]);
    }
    for (int tk = 0; tk <= tq; tk++) sum += p[tk] = exp(p[tk] - top);
    for (int tk = 0; tk <= tq; tk++) p[tk] /= sum;
    return top + log(sum);
}

/* lse may be NULL. */
static void reference_forward(double *out, double *lse, const double *qkv, const Case *c) {
    double *p = numbers(c->T);
    memset(out, 0, (size_t)out_numel(c) * sizeof *out);
    for (int b = 0; b < c->B; b++)
        for (int h = 0; h < c->NH; h++)
            for (int tq = 0; tq < c->T; tq++) {
                double log_sum = probabilities(p, qkv, c, b, h, tq);
                if (lse) lse[((int64_t)b * c->NH + h) * c->T + tq] = log_sum;
                for (int tk = 0; tk <= tq; tk++)
                    add_scaled(out + out_at(c, b, tq, h), p[tk] * keep(c, b, h, tq, tk), qkv + v_at(c, b, tk, h), c->HS);
            }
    free(p);
}

/* From out as it is stored, which in bf16 is rounded: the op is defined by delta = row sums of dout * out. */
static void reference_backward(double *dqkv, double *delta, const double *dout, const double *out, const double *qkv, const Case *c) {
    double *p = numbers(c->T);
    memset(dqkv, 0, (size_t)qkv_numel(c) * sizeof *dqkv);
    for (int b = 0; b < c->B; b++)
        for (int h = 0; h < c->NH; h++)
            for (int tq = 0; tq < c->T; tq++) {
                const double *dout_row = dout + out_at(c, b, tq, h);
                double row_sum = dot(dout_row, out + out_at(c, b, tq, h), c->HS);
                delta[((int64_t)b * c->NH + h) * c->T + tq] = row_sum;
                probabilities(p, qkv, c, b, h, tq);
                for (int tk = 0; tk <= tq; tk++) {
                    double kept = keep(c, b, h, tq, tk), dp = kept * dot(dout_row, qkv + v_at(c, b, tk, h), c->HS);
                    double dscore = p[tk] * (dp - row_sum) / sqrt(c->HS);
                    add_scaled(dqkv + v_at(c, b, tk, h), p[tk] * kept, dout_row, c->HS);
                    add_scaled(dqkv + q_at(c, b, tq, h), dscore, qkv + k_at(c, b, tk, h), c->HS);
                    add_scaled(dqkv + k_at(c, b, tk, h), dscore, qkv + q_at(c, b, tq, h), c->HS);
                }
            }
    free(p);
}

/* The tensors of one call of each op. */
typedef struct {
    Tensor qkv, out, lse, dout, dqkv, delta, scratch;
    Dropout drop;
} Run;

static Tensor scratch_of(const Backend *b, DType dtype, const Case *c) {
    size_t bytes = b->attention_scratch(c->B, c->T, c->NH, c->NKV, c->HS, dtype, c->p > 0, 1);
    return bytes ? test_tensor(b, F32, NULL, 1, (int64_t)(bytes + 3) / 4, 0, 0, 0) : no_tensor();
}

static Run forward(const Backend *b, DType dtype, const Case *c, const double *qkv) {
    Run r = {.qkv = test_tensor(b, dtype, qkv, 4, c->B, c->T, heads_of(c), c->HS),
             .out = test_tensor(b, dtype, NULL, 4, c->B, c->T, c->NH, c->HS),
             .lse = test_tensor(b, F32, NULL, 3, c->B, c->NH, c->T, 0),
             .scratch = scratch_of(b, dtype, c),
             .drop = {c->p, 5, b->alloc(sizeof c->step)}};
    b->upload((void *)r.drop.state, &c->step, sizeof c->step, NULL);
    b->op.attention_forward(r.out, r.lse, r.qkv, r.scratch, c->NH, c->NKV, r.drop, NULL);
    return r;
}
static void backward(Run *r, const Backend *b, DType dtype, const Case *c, const double *dout) {
    r->dout = test_tensor(b, dtype, dout, 4, c->B, c->T, c->NH, c->HS);
    r->dqkv = test_tensor(b, dtype, NULL, 4, c->B, c->T, heads_of(c), c->HS);
    r->delta = test_tensor(b, F32, NULL, 3, c->B, c->NH, c->T, 0);
    b->op.attention_backward(r->dqkv, r->delta, r->dout, r->out, r->lse, r->qkv, r->scratch, c->NH, c->NKV, r->drop, NULL);
}
static void finish(Run r, const Backend *b) {
    test_free(b, r.qkv); test_free(b, r.out); test_free(b, r.lse); test_free(b, r.dout); test_free(b, r.dqkv); test_free(b, r.delta);
    test_free(b, r.scratch);
    b->release((void *)r.drop.state);
}

/* The gradients of Q, K and V apart: a large one must not hide a small one. */
static void expect_gradients(const char *what, const Backend *b, Tensor dqkv, const double *expected, const Case *c, double slack) {
    static const char *const names[] = {"dq", "dk", "dv"};
    int first[] = {0, c->NH, c->NH + c->NKV, heads_of(c)};
    double *got = test_values(b, dqkv), *part = numbers(qkv_numel(c)), *expected_part = numbers(qkv_numel(c));
    for (int k = 0; k < 3; k++) {
        int64_t rows = (int64_t)c->B * c->T, width = (int64_t)(first[k + 1] - first[k]) * c->HS, stride = (int64_t)heads_of(c) * c->HS;
        for (int64_t row = 0; row < rows; row++) {
            memcpy(part + row * width, got + row * stride + first[k] * c->HS, (size_t)width * sizeof *part);
            memcpy(expected_part + row * width, expected + row * stride + first[k] * c->HS, (size_t)width * sizeof *part);
        }
        char name[100];
        snprintf(name, sizeof name, "%s (T=%d NH=%d NKV=%d HS=%d) %s", what, c->T, c->NH, c->NKV, c->HS, names[k]);
        Tensor t = test_tensor(b, dqkv.dtype, part, 2, rows, width, 0, 0);
        expect_close(name, b, t, expected_part, slack);
        test_free(b, t);
    }
    free(got); free(part); free(expected_part);
}

static void check_case(const Backend *b, DType dtype, const Case *c) {
    int64_t rows = (int64_t)c->B * c->NH * c->T;
    double *qkv = random_values(qkv_numel(c), 1, dtype), *dout = random_values(out_numel(c), 1, dtype);
    double *out = numbers(out_numel(c)), *lse = numbers(rows), *dqkv = numbers(qkv_numel(c)), *delta = numbers(rows);
    char name[100];
    snprintf(name, sizeof name, "attention_forward (T=%d NH=%d NKV=%d HS=%d p=%g)", c->T, c->NH, c->NKV, c->HS, (double)c->p);
    Run r = forward(b, dtype, c, qkv);
    reference_forward(out, lse, qkv, c);
    expect_close(name, b, r.out, out, FORWARD_SLACK);
    expect_close("attention_forward lse", b, r.lse, lse, FORWARD_SLACK);
    double *stored = test_values(b, r.out);
    backward(&r, b, dtype, c, dout);
    reference_backward(dqkv, delta, dout, stored, qkv, c);
    expect_close("attention_backward delta", b, r.delta, delta, 1);
    if (c->T > 1) expect_gradients("attention_backward", b, r.dqkv, dqkv, c, BACKWARD_SLACK);
    finish(r, b);
    free(qkv); free(dout); free(out); free(lse); free(dqkv); free(delta); free(stored);
}

static void check_reference(const Backend *b, DType dtype) {
    for (int i = 0; i < CASES; i++) check_case(b, dtype, &cases[i]);
    for (int i = 0; i < TILE_CASES; i++) check_case(b, dtype, &tile_cases[i]);
}

static void check_dropout(const Backend *b, DType dtype) {
    for (int i = 0; i < CASES + TILE_CASES; i++) {
        Case c = i < CASES ? cases[i] : tile_cases[i - CASES];
        c.p = i % 2 ? 0.5f : 0.1f;
        c.step = (StepState){.seed = 0xDEADBEEF12345678u, .sample = 1000000007, .step = 77};
        check_case(b, dtype, &c);
    }
}

static const BackendSettings defaults = {.attention = ATTENTION_AUTO, .deterministic = 1};

/* Every kind of attention that needs no library, where sums need no fixed order. The CPU has one kind, whatever is set. */
static void check_settings(const Backend *b, DType dtype) {
    static const AttentionKind kinds[] = {ATTENTION_AUTO, ATTENTION_OWN, ATTENTION_PLAIN};
    for (int i = 0; i < TILE_CASES; i++)
        for (int dropped = 0; dropped < 2; dropped++) {
            BackendSettings settings = {.attention = kinds[(i + dropped) % 3], .deterministic = 0};
            b->configure(&settings);
            Case c = tile_cases[i];
            c.p = dropped ? 0.3f : 0;
            c.step = (StepState){.seed = 21, .sample = 3, .step = 8};
            check_case(b, dtype, &c);
        }
    b->configure(&defaults);
}

/* Twice the same call gives the same bits, under the default settings. */
static void check_repeatable(const Backend *b, DType dtype) {
    for (int i = 0; i < TILE_CASES; i += 3) {
        Case c = tile_cases[i];
        double *qkv = random_values(qkv_numel(&c), 1, dtype), *dout = random_values(out_numel(&c), 1, dtype), *out[2], *dqkv[2];
        for (int k = 0; k < 2; k++) {
            Run r = forward(b, dtype, &c, qkv);
            backward(&r, b, dtype, &c, dout);
            out[k] = test_values(b, r.out);
            dqkv[k] = test_values(b, r.dqkv);
            finish(r, b);
        }
        assert_memory_equal(out[0], out[1], (size_t)out_numel(&c) * sizeof(double));
        assert_memory_equal(dqkv[0], dqkv[1], (size_t)qkv_numel(&c) * sizeof(double));
        free(qkv); free(dout); free(out[0]); free(out[1]); free(dqkv[0]); free(dqkv[1]);
    }
}

/* One key: the probability is 1 whatever the score, so out is V, dV is dout, and dQ and dK vanish but for rounding. */
static void check_single_key(const Backend *b, DType dtype) {
    Case c = {.B = 3, .T = 1, .NH = 2, .NKV = 2, .HS = 32};
    double *qkv = random_values(qkv_numel(&c), 1, dtype), *dout = random_values(out_numel(&c), 1, dtype);
    Run r = forward(b, dtype, &c, qkv);
    backward(&r, b, dtype, &c, dout);
    double *out = test_values(b, r.out), *dqkv = test_values(b, r.dqkv);
    for (int s = 0; s < c.B; s++)
        for (int h = 0; h < c.NH; h++)
            for (int d = 0; d < c.HS; d++) {
                double v = qkv[v_at(&c, s, 0, h) + d], o = dout[out_at(&c, s, 0, h) + d];
                assert_true(out[out_at(&c, s, 0, h) + d] == v);
                assert_true(fabs(dqkv[v_at(&c, s, 0, h) + d] - o) <= 2e-6 * fabs(o) + (dtype == BF16 ? 0x1p-8 * fabs(o) : 0));
                assert_true(fabs(dqkv[q_at(&c, s, 0, h) + d]) <= 1e-4 && fabs(dqkv[k_at(&c, s, 0, h) + d]) <= 1e-4);
            }
    finish(r, b);
    free(qkv); free(dout); free(out); free(dqkv);
}

typedef struct {
    const Case *c;
    const double *qkv;
} Function;

static void forward_in_double(double *out, void *context) {
    const Function *f = context;
    reference_forward(out, NULL, f->qkv, f->c);
}

/* In fp32, where the out that backward reads is the one that is differentiated. */
static void check_finite_differences(const Backend *b, DType dtype) {
    if (dtype != F32) return;
    for (int dropped = 0; dropped < 2; dropped++) {
        Case c = {.B = 1, .T = 9, .NH = 4, .NKV = 2, .HS = 3, .p = dropped ? 0.3f : 0, .step = {.seed = 3, .sample = 4, .step = 5}};
        double *qkv = random_values(qkv_numel(&c), 1, dtype), *dout = random_values(out_numel(&c), 1, dtype);
        Function f = {&c, qkv};
        double *expected = finite_difference(forward_in_double, &f, qkv, qkv_numel(&c), dout, out_numel(&c));
        Run r = forward(b, dtype, &c, qkv);
        backward(&r, b, dtype, &c, dout);
        expect_gradients("finite differences", b, r.dqkv, expected, &c, BACKWARD_SLACK);
        finish(r, b);
        free(qkv); free(dout); free(expected);
    }
}

static void expect_finite(const Backend *b, Tensor t) {
    double *values = test_values(b, t);
    for (int64_t i = 0; i < tensor_numel(t); i++) assert_true(isfinite(values[i]));
    free(values);
}

/* Scores of some 1e4: fp32 holds them to 1e4 * 2e-6, which is then the relative error of exp(score - lse). The weights pick single
   keys, up to ties. */
static void check_big_scores(const Backend *b, DType dtype) {
    for (int i = 0; i < CASES; i++) {
        const Case *c = &cases[i];
        double *qkv = random_values(qkv_numel(c), 100, dtype), *dout = random_values(out_numel(c), 1, dtype), *out = numbers(out_numel(c));
        reference_forward(out, NULL, qkv, c);
        Run r = forward(b, dtype, c, qkv);
        backward(&r, b, dtype, c, dout);
        expect_close("attention_forward of scores of 1e4", b, r.out, out, 1e4);
        expect_finite(b, r.lse);
        expect_finite(b, r.dqkv);
        finish(r, b);
        free(qkv); free(dout); free(out);
    }
}

/* Sets of equal scores, far below and far above zero, weigh all keys alike: out is the mean of V so far. */
static void check_equal_scores(const Backend *b, DType dtype) {
    Case c = {.B = 1, .T = 100, .NH = 1, .NKV = 1, .HS = 16};
    for (int sign = -1; sign <= 1; sign++) {
        double *qkv = random_values(qkv_numel(&c), 1, dtype), *mean = numbers(out_numel(&c)), sum[16] = {0};
        for (int t = 0; t < c.T; t++)
            for (int d = 0; d < c.HS; d++) {
                qkv[q_at(&c, 0, t, 0) + d] = 64;
                qkv[k_at(&c, 0, t, 0) + d] = sign * 64;
                mean[t * c.HS + d] = (sum[d] += qkv[v_at(&c, 0, t, 0) + d]) / (t + 1);
            }
        Run r = forward(b, dtype, &c, qkv);
        expect_close("attention_forward of equal scores", b, r.out, mean, FORWARD_SLACK);
        finish(r, b);
        free(qkv); free(mean);
    }
}

/* A change at position t leaves every earlier output the same to the bit, and changes the one at t. */
static void check_causality(const Backend *b, DType dtype) {
    Case c = {.B = 1, .T = 150, .NH = 3, .NKV = 1, .HS = 32};
    int64_t row = (int64_t)c.NH * c.HS;
    double *qkv = random_values(qkv_numel(&c), 1, dtype);
    Run r = forward(b, dtype, &c, qkv);
    double *before = test_values(b, r.out);
    static const int positions[] = {1, 15, 63, 64, 65, 100, 149};
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
        int t = positions[i];
        double *changed = malloc((size_t)qkv_numel(&c) * sizeof *changed);
        memcpy(changed, qkv, (size_t)qkv_numel(&c) * sizeof *changed);
        for (int64_t k = q_at(&c, 0, t, 0); k < qkv_numel(&c); k++) changed[k] = -8;
        Run other = forward(b, dtype, &c, changed);
        double *after = test_values(b, other.out);
        assert_memory_equal(after, before, (size_t)(t * row) * sizeof *after);
        assert_memory_not_equal(after + t * row, before + t * row, (size_t)row * sizeof *after);
        finish(other, b);
        free(changed); free(after);
    }
    finish(r, b);
    free(qkv); free(before);
}

/* p = 0 is no dropout, whatever the state holds; step, seed and tensor each change the mask. */
static void check_mask_keys(const Backend *b, DType dtype) {
    Case none = {.B = 1, .T = 40, .NH = 2, .NKV = 2, .HS = 32}, variants[4];
    double *qkv = random_values(qkv_numel(&none), 1, dtype), *dout = random_values(out_numel(&none), 1, dtype), *outs[4], *dqkvs[2];
    for (int i = 0; i < 4; i++) {
        variants[i] = none;
        variants[i].p = i < 2 ? 0 : 0.5f;
        variants[i].step = (StepState){.seed = i == 3 ? 2 : 1, .sample = i, .step = (uint32_t)i};
        Run r = forward(b, dtype, &variants[i], qkv);
        backward(&r, b, dtype, &variants[i], dout);
        outs[i] = test_values(b, r.out);
        if (i < 2) dqkvs[i] = test_values(b, r.dqkv);
        finish(r, b);
    }
    size_t bytes = (size_t)out_numel(&none) * sizeof(double);
    assert_memory_equal(outs[0], outs[1], bytes);
    assert_memory_equal(dqkvs[0], dqkvs[1], (size_t)qkv_numel(&none) * sizeof(double));
    assert_memory_not_equal(outs[1], outs[2], bytes);
    assert_memory_not_equal(outs[2], outs[3], bytes);
    for (int i = 0; i < 4; i++) free(outs[i]);
    free(qkv); free(dout); free(dqkvs[0]); free(dqkvs[1]);
}

/* With equal scores and V = 1, (t + 1) * out counts the keys kept, times 1/(1-p): their share is within five standard deviations
   of 1-p, over the whole and over the keys of the first and of the last tile. */
static void check_mask_mean(const Backend *b, DType dtype) {
    if (dtype != F32) return;
    Case c = {.B = 2, .T = 150, .NH = 6, .NKV = 6, .HS = 16, .p = 0.2f, .step = {.seed = 11}};
    double *qkv = numbers(qkv_numel(&c)), kept = 0, pairs = (double)c.B * c.NH * c.T * (c.T + 1) / 2;
    for (int s = 0; s < c.B; s++)
        for (int t = 0; t < c.T; t++)
            for (int h = 0; h < c.NH; h++)
                for (int d = 0; d < c.HS; d++) qkv[v_at(&c, s, t, h) + d] = 1;
    Run r = forward(b, dtype, &c, qkv);
    double *out = test_values(b, r.out);
    for (int s = 0; s < c.B; s++)
        for (int t = 0; t < c.T; t++)
            for (int h = 0; h < c.NH; h++) kept += out[out_at(&c, s, t, h)] * (t + 1) * (1 - (double)c.p);
    assert_true(fabs(kept / pairs - (1 - (double)c.p)) <= 5 * sqrt(c.p * (1 - c.p) / pairs));
    finish(r, b);
    free(qkv); free(out);
}

/* A batch of four at once, and as two micro-batches of two that begin at samples 0 and 2: the same bits. */
static void check_micro_batches(const Backend *b, DType dtype) {
    Case c = {.B = 4, .T = 70, .NH = 4, .NKV = 2, .HS = 32, .p = 0.25f, .step = {.seed = 9, .step = 2}};
    double *qkv = random_values(qkv_numel(&c), 1, dtype), *dout = random_values(out_numel(&c), 1, dtype);
    Run whole = forward(b, dtype, &c, qkv);
    backward(&whole, b, dtype, &c, dout);
    double *out = test_values(b, whole.out), *dqkv = test_values(b, whole.dqkv);
    for (int first = 0; first < 4; first += 2) {
        Case half = c;
        half.B = 2;
        half.step.sample = first;
        int64_t q_skip = first / 2 * qkv_numel(&half), o_skip = first / 2 * out_numel(&half);
        Run r = forward(b, dtype, &half, qkv + q_skip);
        backward(&r, b, dtype, &half, dout + o_skip);
        double *half_out = test_values(b, r.out), *half_dqkv = test_values(b, r.dqkv);
        assert_memory_equal(half_out, out + o_skip, (size_t)out_numel(&half) * sizeof *out);
        assert_memory_equal(half_dqkv, dqkv + q_skip, (size_t)qkv_numel(&half) * sizeof *dqkv);
        finish(r, b);
        free(half_out); free(half_dqkv);
    }
    finish(whole, b);
    free(qkv); free(dout); free(out); free(dqkv);
}

/* Any number of threads gives the same bits. */
static void check_threads(const Backend *b, DType dtype) {
    if (strcmp(b->name, "cpu") != 0) return;
    Case c = {.B = 3, .T = 130, .NH = 6, .NKV = 3, .HS = 32, .p = 0.1f};
    double *qkv = random_values(qkv_numel(&c), 1, dtype), *dout = random_values(out_numel(&c), 1, dtype), *out[2], *dqkv[2];
    int threads = omp_get_max_threads();
    for (int i = 0; i < 2; i++) {
#ifdef _OPENMP
        omp_set_num_threads(i ? 3 : 1);
#endif
        Run r = forward(b, dtype, &c, qkv);
        backward(&r, b, dtype, &c, dout);
        out[i] = test_values(b, r.out);
        dqkv[i] = test_values(b, r.dqkv);
        finish(r, b);
    }
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
    (void)threads;
    assert_memory_equal(out[0], out[1], (size_t)out_numel(&c) * sizeof(double));
    assert_memory_equal(dqkv[0], dqkv[1], (size_t)qkv_numel(&c) * sizeof(double));
    free(qkv); free(dout); free(out[0]); free(out[1]); free(dqkv[0]); free(dqkv[1]);
}

/* Rows t0 .. t0+n-1 of every sample of values(B,T,width). */
static double *rows_of(const double *values, int B, int T, int64_t width, int t0, int n) {
    double *rows = numbers((int64_t)B * n * width);
    for (int b = 0; b < B; b++) memcpy(rows + b * n * width, values + ((int64_t)b * T + t0) * width, (size_t)(n * width) * sizeof *rows);
    return rows;
}

/* A prompt, single tokens and another piece through the cache give what the forward gives over the whole text: on the CPU the same
   bits, elsewhere the same up to rounding, that is, as near to the reference. The caches then hold exactly K and V, and nothing beyond. */
static void check_cached_case(const Backend *b, DType dtype, const Case *c, const int *pieces) {
    enum { SPARE = 3 };
    int64_t width = (int64_t)heads_of(c) * c->HS, out_width = (int64_t)c->NH * c->HS, kv_width = (int64_t)c->NKV * c->HS;
    double *qkv = random_values(qkv_numel(c), 1, dtype);
    Run whole = forward(b, dtype, c, qkv);
    double *whole_out = test_values(b, whole.out), *expected = numbers(out_numel(c));
    reference_forward(expected, NULL, qkv, c);
    Tensor k = test_tensor(b, dtype, NULL, 4, c->B, c->T + SPARE, c->NKV, c->HS);
    Tensor v = test_tensor(b, dtype, NULL, 4, c->B, c->T + SPARE, c->NKV, c->HS);
    for (int t0 = 0, n; t0 < c->T; t0 += n) {
        n = *pieces++;
        double *part = rows_of(qkv, c->B, c->T, width, t0, n), *expected_part = rows_of(expected, c->B, c->T, out_width, t0, n);
        double *whole_part = rows_of(whole_out, c->B, c->T, out_width, t0, n);
        Tensor d_part = test_tensor(b, dtype, part, 4, c->B, n, heads_of(c), c->HS);
        Tensor out = test_tensor(b, dtype, NULL, 4, c->B, n, c->NH, c->HS);
        b->op.attention_cached(out, k, v, d_part, c->NH, c->NKV, t0, NULL);
        expect_close("attention_cached", b, out, expected_part, FORWARD_SLACK);
        double *got = test_values(b, out);
        if (!strcmp(b->name, "cpu")) assert_memory_equal(got, whole_part, (size_t)(c->B * n * out_width) * sizeof *got);
        test_free(b, d_part); test_free(b, out);
        free(part); free(expected_part); free(whole_part); free(got);
    }
    double *k_rows = test_values(b, k), *v_rows = test_values(b, v);
    for (int s = 0; s < c->B; s++)
        for (int t = 0; t < c->T + SPARE; t++)
            for (int64_t i = 0; i < kv_width; i++) {
                int64_t at = ((int64_t)s * (c->T + SPARE) + t) * kv_width + i;
                if (t >= c->T) assert_true(isnan(k_rows[at]) && isnan(v_rows[at]));
                else assert_true(k_rows[at] == qkv[k_at(c, s, t, 0) + i] && v_rows[at] == qkv[v_at(c, s, t, 0) + i]);
            }
    finish(whole, b);
    test_free(b, k); test_free(b, v);
    free(qkv); free(whole_out); free(expected); free(k_rows); free(v_rows);
}

static void check_cached(const Backend *b, DType dtype) {
    static const int first[] = {30, 35, 1, 1, 62, 8}, second[] = {1, 1, 1, 100, 1, 26}, third[] = {257}, fourth[] = {3, 5};
    check_cached_case(b, dtype, &(Case){.B = 2, .T = 137, .NH = 6, .NKV = 2, .HS = 32}, first);
    check_cached_case(b, dtype, &(Case){.B = 1, .T = 130, .NH = 3, .NKV = 3, .HS = 64}, second);
    check_cached_case(b, dtype, &(Case){.B = 1, .T = 257, .NH = 6, .NKV = 1, .HS = 24}, third);
    check_cached_case(b, dtype, &(Case){.B = 3, .T = 8, .NH = 2, .NKV = 1, .HS = 33}, fourth);
}

static void reference(void **state) { (void)state; on_every_backend(check_reference); }
static void dropout(void **state) { (void)state; on_every_backend(check_dropout); }
static void settings(void **state) { (void)state; on_every_backend(check_settings); }
static void repeatable(void **state) { (void)state; on_every_backend(check_repeatable); }
static void single_key(void **state) { (void)state; on_every_backend(check_single_key); }
static void finite_differences(void **state) { (void)state; on_every_backend(check_finite_differences); }
static void big_scores(void **state) { (void)state; on_every_backend(check_big_scores); }
static void equal_scores(void **state) { (void)state; on_every_backend(check_equal_scores); }
static void causality(void **state) { (void)state; on_every_backend(check_causality); }
static void mask_keys(void **state) { (void)state; on_every_backend(check_mask_keys); }
static void mask_mean(void **state) { (void)state; on_every_backend(check_mask_mean); }
static void micro_batches(void **state) { (void)state; on_every_backend(check_micro_batches); }
static void threads(void **state) { (void)state; on_every_backend(check_threads); }
static void cached(void **state) { (void)state; on_every_backend(check_cached); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference),
        cmocka_unit_test(dropout),
        cmocka_unit_test(settings),
        cmocka_unit_test(repeatable),
        cmocka_unit_test(single_key),
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(big_scores),
        cmocka_unit_test(equal_scores),
        cmocka_unit_test(causality),
        cmocka_unit_test(mask_keys),
        cmocka_unit_test(mask_mean),
        cmocka_unit_test(micro_batches),
        cmocka_unit_test(threads),
        cmocka_unit_test(cached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
