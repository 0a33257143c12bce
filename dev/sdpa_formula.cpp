/* sdpa_formula: the attention that kernels/sdpa.cu asks cuDNN for, against its formulas in double precision, on any machine:
   dev/cudnn_standin.cpp works the graphs out. Prints a line for each shape, with errors as parts of what is allowed, and last
   "N passed, N failed"; exit status 1 if one failed.

   Allowed is what kernels/op_test.h allows: lse and delta, which are fp32, may be off by 2e-6 of their norm; out and the gradients by twice
   the error that the formulas have when they round to bf16 where cuDNN does: p and ds, the gradient of each head in a group, the result. */
#include "kernels/cu.h"
#include "kernels/sdpa.cuh"

#include <functional>
#include <math.h>
#include <random>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

/* sdpa.cu asks these for `deterministic` only. */
BackendSettings cuda_settings = {ATTENTION_CUDNN, 0, 0, 0, NULL};

struct Case {
    int64_t B, T;
    int NH, NKV, HS;
    int cold;   /* all scores near -100: what is masked must not come back as exp(0 - lse), which overflows */
};

static const Case cases[] = {
    {2, 40, 4, 4, 16, 0}, {1, 33, 6, 2, 8, 0},  {2, 17, 4, 1, 24, 0}, {1, 131, 2, 2, 64, 0}, {1, 128, 4, 2, 32, 0},
    {3, 2, 3, 3, 8, 0},   {1, 77, 8, 4, 40, 0}, {2, 29, 3, 3, 56, 0}, {1, 50, 2, 2, 64, 1},  {2, 37, 4, 2, 16, 1},
};

static int passed, failed;
static void report(bool right) {
    if (right) passed++;
    else failed++;
}

/* ---- data ----------------------------------------------------------------------------------------------------------------------- */

typedef std::vector<double> Values;

typedef double (*Rounding)(double);
static double exact(double x) { return x; }
static double to_bf16(double x) { return to_float(from_float<bf16>((float)x)); }

/* n values that bf16 has, nearly normal: sums of twelve uniform ones. */
static Values random_values(int64_t n) {
    static std::mt19937 bits(1);
    Values values((size_t)n, -6.0);
    for (double &value : values) {
        for (int i = 0; i < 12; i++) value += (double)bits() * 0x1p-32;
        value = to_bf16(value);
    }
    return values;
}

/* A tensor's memory, filled with values or else with NaN. Behind it lie bytes that nobody may write. */
enum { GUARD = 256, GUARD_BYTE = 0xA5 };
static Tensor filled(DType dtype, const Values *values, int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    Tensor t = tensor((void *)1, dtype, rank, d0, d1, d2, d3);
    const size_t bytes = tensor_bytes(t);
    t.data = aligned_alloc(256, (bytes + GUARD + 255) / 256 * 256);
    memset(t.data, 0xFF, bytes);
    memset((char *)t.data + bytes, GUARD_BYTE, GUARD);
    for (size_t i = 0; values && i < values->size(); i++) ((bf16 *)t.data)[i] = from_float<bf16>((float)(*values)[i]);
    return t;
}
/* Frees the memory; false if it was written behind its end. */
static bool close(Tensor t) {
    const unsigned char *guard = (const unsigned char *)t.data + tensor_bytes(t);
    bool intact = true;
    for (int i = 0; i < GUARD; i++) intact &= guard[i] == GUARD_BYTE;
    free(t.data);
    return intact;
}
static Values values_of(Tensor t) {
    Values values((size_t)tensor_numel(t));
    for (size_t i = 0; i < values.size(); i++) values[i] = t.dtype == BF16 ? to_float(((bf16 *)t.data)[i]) : ((float *)t.data)[i];
    return values;
}

/* ---- the formulas --------------------------------------------------------------------------------------------------------------- */

/* qkv(B,T,NH+2NKV,HS), out and dout(B,T,NH,HS), lse and delta(B,NH,T), as in ops.h. */
struct Attention {
    Case c;
    Values qkv, dout, out, lse, delta, dqkv;

    int heads() const { return c.NH + 2 * c.NKV; }
    /* The first element of a head's vector: heads of q, then of k, then of v; and of out. */
    size_t packed(int64_t b, int64_t t, int head) const { return (size_t)(((b * c.T + t) * heads() + head) * c.HS); }
    size_t plain(int64_t b, int64_t t, int h) const { return (size_t)(((b * c.T + t) * c.NH + h) * c.HS); }
    size_t row(int64_t b, int64_t t, int h) const { return (size_t)((b * c.NH + h) * c.T + t); }
    int key_head(int h) const { return c.NH + h / (c.NH / c.NKV); }
    int value_head(int h) const { return key_head(h) + c.NKV; }
};

static double dot(const double *x, const double *y, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}
static void add(double *y, double scale, const double *x, int n) {
    for (int i = 0; i < n; i++) y[i] += scale * x[i];
}

static void for_each_query(const Case &c, const std::function<void(int64_t b, int64_t t, int h)> &f) {
    for (int64_t b = 0; b < c.B; b++)
        for (int h = 0; h < c.NH; h++)
            for (int64_t t = 0; t < c.T; t++) f(b, t, h);
}

/* The probabilities of keys 0 ... t, and in lse the log-sum-exp of their scores. */
static Values softmax(const Attention &a, int64_t b, int64_t t, int h, double *lse) {
    Values p;
    double sum = 0;
    for (int64_t j = 0; j <= t; j++)
        p.push_back(dot(&a.qkv[a.packed(b, t, h)], &a.qkv[a.packed(b, j, a.key_head(h))], a.c.HS) / sqrt(a.c.HS));
    double top = p[0];
    for (double score : p) top = fmax(top, score);
    for (double score : p) sum += exp(score - top);
    *lse = top + log(sum);
    for (double &score : p) score = exp(score - *lse);
    return p;
}

/* out and lse */
static void formula_forward(Attention &a, Rounding rounded) {
    a.out.assign(a.dout.size(), 0.0);
    a.lse.assign((size_t)(a.c.B * a.c.NH * a.c.T), 0.0);
    for_each_query(a.c, [&](int64_t b, int64_t t, int h) {
        const Values p = softmax(a, b, t, h, &a.lse[a.row(b, t, h)]);
        double *out = &a.out[a.plain(b, t, h)];
        for (int64_t j = 0; j <= t; j++) add(out, rounded(p[(size_t)j]), &a.qkv[a.packed(b, j, a.value_head(h))], a.c.HS);
        for (int i = 0; i < a.c.HS; i++) out[i] = rounded(out[i]);
    });
}

/* Into dqkv, where each head of k and v gets the sum over its group of dk and dv(B,T,NH,HS). */
static void sum_groups(Attention &a, const Values &dk, const Values &dv, Rounding rounded) {
    for_each_query(a.c, [&](int64_t b, int64_t t, int h) {
        for (size_t i = 0; i < (size_t)a.c.HS; i++) {
            a.dqkv[a.packed(b, t, a.key_head(h)) + i] += rounded(dk[a.plain(b, t, h) + i]);
            a.dqkv[a.packed(b, t, a.value_head(h)) + i] += rounded(dv[a.plain(b, t, h) + i]);
        }
    });
    for (double &gradient : a.dqkv) gradient = rounded(gradient);
}

/* delta and dqkv, of out as it stands in a */
static void formula_backward(Attention &a, Rounding rounded) {
    Values dk(a.dout.size(), 0.0), dv(a.dout.size(), 0.0);
    a.delta.assign((size_t)(a.c.B * a.c.NH * a.c.T), 0.0);
    a.dqkv.assign(a.qkv.size(), 0.0);
    for_each_query(a.c, [&](int64_t b, int64_t t, int h) {
        double lse;
        const Values p = softmax(a, b, t, h, &lse);
        const double *dout = &a.dout[a.plain(b, t, h)], *q = &a.qkv[a.packed(b, t, h)];
        const double delta = a.delta[a.row(b, t, h)] = dot(dout, &a.out[a.plain(b, t, h)], a.c.HS);
        for (int64_t j = 0; j <= t; j++) {
            const double *k = &a.qkv[a.packed(b, j, a.key_head(h))], *v = &a.qkv[a.packed(b, j, a.value_head(h))];
            const double ds = rounded(p[(size_t)j] * (dot(dout, v, a.c.HS) - delta) / sqrt(a.c.HS));
            add(&a.dqkv[a.packed(b, t, h)], ds, k, a.c.HS);
            add(&dk[a.plain(b, j, h)], ds, q, a.c.HS);
            add(&dv[a.plain(b, j, h)], rounded(p[(size_t)j]), dout, a.c.HS);
        }
    });
    sum_groups(a, dk, dv, rounded);
}

static Attention random_attention(const Case &c) {
    Attention a = {c, {}, {}, {}, {}, {}, {}};
    a.qkv = random_values(c.B * c.T * a.heads() * c.HS);
    a.dout = random_values(c.B * c.T * c.NH * c.HS);
    for (size_t i = 0; c.cold && i < a.qkv.size(); i += (size_t)c.HS) {   /* every query times every key */
        const int head = (int)(i / (size_t)c.HS % (size_t)a.heads());
        if (head < c.NH) a.qkv[i] = to_bf16(-100 * sqrt(c.HS));
        else if (head < c.NH + c.NKV) a.qkv[i] = 1;
    }
    return a;
}

/* ---- one against the other ------------------------------------------------------------------------------------------------------ */

static double relative_error(const Values &got, const Values &reference) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < got.size(); i++) {
        difference += (got[i] - reference[i]) * (got[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-30);
}

/* in_bf16: the reference with its roundings; the reference itself where the result is fp32. */
static void compare(const char *what, const Values &got, const Values &reference, const Values &in_bf16) {
    const double allowed = 2e-6 + 2 * relative_error(in_bf16, reference);
    const double error = relative_error(got, reference) / allowed;
    const bool right = error <= 1;   /* NaN is not */
    printf(" %s %.2f%s", what, error, right ? "" : " WRONG");
    report(right);
}

/* Heads first ... first + count - 1 of each row of heads. */
static Values heads_of(const Attention &a, const Values &packed, int first, int count) {
    Values some;
    for (size_t i = 0; i < packed.size(); i++) {
        const int head = (int)(i / (size_t)a.c.HS % (size_t)a.heads());
        if (head >= first && head < first + count) some.push_back(packed[i]);
    }
    return some;
}

static void compare_heads(const char *what, const Attention &a, const Values &dqkv, const Values &in_bf16, int first, int count) {
    compare(what, heads_of(a, dqkv, first, count), heads_of(a, a.dqkv, first, count), heads_of(a, in_bf16, first, count));
}

static Tensor scratch_for(const Case &c, int backward) {
    return filled(F32, NULL, 1, (int64_t)sdpa_workspace(c.B, c.T, c.NH, c.NKV, c.HS, backward) / 4, 0, 0, 0);
}

/* The device's side of an attention. */
struct Device {
    Tensor qkv, dout, out, lse, delta, dqkv;
};
static Device open_device(const Attention &a) {
    const Case &c = a.c;
    return {filled(BF16, &a.qkv, 4, c.B, c.T, a.heads(), c.HS), filled(BF16, &a.dout, 4, c.B, c.T, c.NH, c.HS),
            filled(BF16, NULL, 4, c.B, c.T, c.NH, c.HS),        filled(F32, NULL, 3, c.B, c.NH, c.T, 0),
            filled(F32, NULL, 3, c.B, c.NH, c.T, 0),            filled(BF16, NULL, 4, c.B, c.T, a.heads(), c.HS)};
}
static bool close_device(const Device &d) {
    bool intact = true;
    for (Tensor t : {d.qkv, d.dout, d.out, d.lse, d.delta, d.dqkv}) intact &= close(t);
    return intact;
}

/* Both ops, each with scratch of its own. False if something was written behind an end. */
static bool run_sdpa(const Case &c, const Device &d) {
    Tensor scratch = scratch_for(c, 0);
    sdpa_forward(d.out, d.lse, d.qkv, scratch, c.NH, c.NKV, NULL);
    const bool intact = close(scratch);
    scratch = scratch_for(c, 1);
    sdpa_backward(d.dqkv, d.delta, d.dout, d.out, d.lse, d.qkv, scratch, c.NH, c.NKV, NULL);
    return close(scratch) && intact;
}

static void check(const Case &c, int deterministic) {
    cuda_settings.deterministic = deterministic;
    printf("B=%lld T=%lld NH=%d NKV=%d HS=%d%s%s:", (long long)c.B, (long long)c.T, c.NH, c.NKV, c.HS, c.cold ? " cold" : "",
           deterministic ? " deterministic" : "");
    fflush(stdout);   /* the stand-in may end the program */
    if (!sdpa_can(c.B, c.T, c.NH, c.NKV, c.HS, 0) || !sdpa_can(c.B, c.T, c.NH, c.NKV, c.HS, 1)) {
        printf(" refused: %s\n", sdpa_refusal());
        report(false);
        return;
    }
    Attention a = random_attention(c), rounded = a;
    const Device d = open_device(a);
    const bool intact = run_sdpa(c, d);
    formula_forward(a, exact);
    formula_forward(rounded, to_bf16);
    compare("out", values_of(d.out), a.out, rounded.out);
    compare("lse", values_of(d.lse), a.lse, a.lse);
    a.out = rounded.out = values_of(d.out);   /* the backward is defined by out as it was stored */
    formula_backward(a, exact);
    formula_backward(rounded, to_bf16);
    compare("delta", values_of(d.delta), a.delta, a.delta);
    compare_heads("dq", a, values_of(d.dqkv), rounded.dqkv, 0, c.NH);
    compare_heads("dk", a, values_of(d.dqkv), rounded.dqkv, c.NH, c.NKV);
    compare_heads("dv", a, values_of(d.dqkv), rounded.dqkv, c.NH + c.NKV, c.NKV);
    const bool all_intact = close_device(d) && intact;
    printf("%s\n", all_intact ? "" : " WROTE BEHIND AN END");
    report(all_intact);
}

/* dq has its fp32 sum in the scratch where atomics add it up, and only there. */
static void check_scratch(const Case &c) {
    size_t bytes[2];
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        cuda_settings.deterministic = deterministic;
        bytes[deterministic] = sdpa_workspace(c.B, c.T, c.NH, c.NKV, c.HS, 1);
    }
    const size_t sum = ((size_t)(c.B * c.T * c.NH * c.HS) * sizeof(float) + 255) / 256 * 256;
    const bool right = bytes[0] == bytes[1] + sum;
    printf("scratch of the backward: %zu bytes, deterministic %zu%s\n", bytes[0], bytes[1], right ? "" : " WRONG");
    report(right);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------------- */

/* got is to begin with expected. */
static void expect(const char *what, const char *got, const char *expected) {
    const bool right = strncmp(got, expected, strlen(expected)) == 0;
    printf("%s: %s%s\n", what, got, right ? "" : " WRONG");
    report(right);
}

static const Case usual = {1, 100, 2, 1, 8, 0}, of_128 = {1, 128, 2, 1, 8, 0};

/* "can", or why not. */
static const char *answer(const Case &c, int backward) {
    const int can = sdpa_can(c.B, c.T, c.NH, c.NKV, c.HS, backward);
    const size_t scratch = sdpa_workspace(c.B, c.T, c.NH, c.NKV, c.HS, backward);
    return can != (scratch > 0) ? "contradicts itself" : can ? "can" : sdpa_refusal();
}

/* Runs f in a process whose environment has variable=value, and compares its exit status and what it says on standard error, one line. It
   is a process of its own because a library is loaded once, and because a refused launch ends the program. */
static void expect_of_child(const char *what, const char *variable, const char *value, void (*f)(void), int status, const char *expected) {
    int ends[2], ended;
    fflush(stdout);
    if (pipe(ends) != 0) exit(1);
    const pid_t child = fork();
    if (child == 0) {
        setenv(variable, value, 1);
        dup2(ends[1], 2);
        f();
        _exit(0);
    }
    ::close(ends[1]);
    std::string said;
    char c;
    while (read(ends[0], &c, 1) == 1) said += c;
    ::close(ends[0]);
    waitpid(child, &ended, 0);
    const size_t first_end = said.find('\n');
    const bool one_line = first_end != std::string::npos && first_end + 1 == said.size();
    if (one_line) said.pop_back();
    const bool right = one_line && WIFEXITED(ended) && WEXITSTATUS(ended) == status;
    expect(what, right ? said.c_str() : ("NOT AS IT SHOULD END: " + said).c_str(), right ? expected : "a proper end");
}

static void say_library(void) {
    if (sdpa_library()) fprintf(stderr, "takes %s\n", sdpa_library());
    else fprintf(stderr, "refuses %s\n", sdpa_refusal());
}
static void say_forward(void) { fprintf(stderr, "%s\n", answer(usual, 0)); }
static void say_backward(void) { fprintf(stderr, "%s\n", answer(usual, 1)); }
static void say_backward_of_128(void) { fprintf(stderr, "%s\n", answer(of_128, 1)); }

static Device usual_device(void) { return open_device(random_attention(usual)); }
static void launch_forward(void) {
    const Device d = usual_device();
    sdpa_forward(d.out, d.lse, d.qkv, scratch_for(usual, 0), usual.NH, usual.NKV, NULL);
}
static void launch_backward(void) {
    const Device d = usual_device();
    sdpa_backward(d.dqkv, d.delta, d.dout, d.out, d.lse, d.qkv, scratch_for(usual, 1), usual.NH, usual.NKV, NULL);
}

/* Before this process loads the library: its children each load their own. */
static void check_versions(void) {
    static const char variable[] = "CUDNN_STANDIN_VERSION";
    expect_of_child("version 9.5", variable, "90500", say_library, 0, "refuses cuDNN 9.5 is too old");
    expect_of_child("version 9.6", variable, "90600", say_library, 0, "takes cuDNN 9.6");
    expect_of_child("version 9.10.0", variable, "91000", say_library, 0, "refuses cuDNN 9.10");
    expect_of_child("version 9.10.1", variable, "91001", say_library, 0, "refuses cuDNN 9.10");
    expect_of_child("version 9.10.2", variable, "91002", say_library, 0, "takes cuDNN 9.10");
    expect_of_child("version 9.15, T=100, backward", variable, "91500", say_backward, 0, "up to cuDNN 9.15 T must be a multiple of 128");
    expect_of_child("version 9.15, T=128, backward", variable, "91500", say_backward_of_128, 0, "can");
    expect_of_child("version 9.15, T=100, forward", variable, "91500", say_forward, 0, "can");
    expect_of_child("version 9.16, T=100, backward", variable, "91600", say_backward, 0, "can");
}

static void check_refusals(void) {
    static const char variable[] = "CUDNN_STANDIN_REFUSES";
    expect("HS=12", answer({1, 100, 2, 1, 12, 0}, 0), "the head size is not a multiple of 8");
    expect("T=1", answer({1, 1, 2, 1, 8, 0}, 1), "there is no attention over a single position");
    expect_of_child("no plan", variable, "plan", say_forward, 0, "no kernel for these shapes: refused as asked by the stand-in");
    expect_of_child("no plan, forward", variable, "plan", launch_forward, 1,
                    "attention_forward by cuDNN 9.99 failed at B=1 T=100 NH=2 NKV=1 HS=8: no kernel for these shapes");
    expect_of_child("no launch, forward", variable, "launch", launch_forward, 1,
                    "attention_forward by cuDNN 9.99 failed at B=1 T=100 NH=2 NKV=1 HS=8: the launch: refused as asked by the stand-in");
    expect_of_child("no launch, backward", variable, "launch", launch_backward, 1,
                    "attention_backward by cuDNN 9.99 failed at B=1 T=100 NH=2 NKV=1 HS=8: the launch: refused as asked by the stand-in");
}

int main(void) {
    check_versions();
    const char *library = sdpa_library();
    if (!library || strcmp(library, "cuDNN 9.99") != 0) {
        fprintf(stderr, "sdpa_formula: needs the stand-in for cuDNN and found %s; run it by make test-sdpa\n", library ? library : "none");
        return 1;
    }
    for (int deterministic = 0; deterministic < 2; deterministic++)
        for (const Case &c : cases) check(c, deterministic);
    check_scratch(cases[1]);
    check_refusals();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
