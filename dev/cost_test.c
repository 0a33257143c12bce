/* cost_test.c: each op's cost function states the bytes that must move at least (ops.h). Here the emulator counts the distinct bytes of
   device memory that the op's kernels read and write, at a medium shape in bf16 (the flat ops in their own dtypes), and the count has to
   lie within LOW and HIGH of the statement. More than HIGH: the kernels touch what the statement leaves out, or it states too little;
   less than LOW: it states too much. The third column is what all accesses move, caches left out of account. Matrix products are not
   counted: in the emulator loops of the host do them. Nor is global_norm, which states none: it touches a few dozen bytes. */
#include "kernels/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void emu_count_begin(void);
double emu_count_end(double *all_bytes);

static const double LOW = 1, HIGH = 1.25;
enum { B = 2, T = 128, C = 256, NH = 4, HS = 64, V = 2000, Vp = 2048, N = B * T };

static const Backend *emu;
static int passed, failed;

/* Device memory of numbers near 1, or of whole numbers below 1000 for I32. */
static Tensor filled(DType dtype, int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    Tensor t = tensor((void *)1, dtype, rank, d0, d1, d2, d3);
    const int64_t n = tensor_numel(t);
    char *host = malloc(tensor_bytes(t));
    for (int64_t i = 0; i < n; i++) {
        const float value = 1.0f + (float)(i % 17) / 16.0f;
        if (dtype == F32) ((float *)host)[i] = value;
        else if (dtype == BF16) ((uint16_t *)host)[i] = bf16_of_float(value);
        else if (dtype == I32) ((int32_t *)host)[i] = (int32_t)(i % 1000);
        else ((int64_t *)host)[i] = 0;   /* I64, or F64 */
    }
    t.data = emu->alloc(tensor_bytes(t));
    emu->upload(t.data, host, tensor_bytes(t), NULL);
    free(host);
    return t;
}
static Tensor rows(DType dtype) { return filled(dtype, 3, B, T, C, 0); }
static Tensor vector(DType dtype, int64_t n) { return filled(dtype, 1, n, 0, 0, 0); }

/* Ops that may lie elsewhere, and why. */
static const struct { const char *op; double low, high; const char *reason; } exceptions[] = {
    {"embedding_backward", 1, 2.6, "fp32 rows of dwte are read and written: how many depends on the tokens, here all different"},
    {"cross_entropy", 0.95, 1.25, "the padding of a row is written but not read"},
};

static void judge(const char *op, double stated) {
    double all, counted = emu_count_end(&all), low = LOW, high = HIGH;
    const char *reason = "";
    for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++)
        if (!strcmp(op, exceptions[i].op)) low = exceptions[i].low, high = exceptions[i].high, reason = exceptions[i].reason;
    const int right = stated > 0 && counted >= low * stated && counted <= high * stated;
    printf("%-28s stated %9.0f  counted %9.0f (%.2f)  all accesses %11.0f  %s%s\n", op, stated, counted, counted / stated, all,
           right ? "" : "FAILED ", reason);
    if (right) passed++;
    else failed++;
}

/* Runs an op with its kernels counted, and judges its row of OP_LIST. */
#define X(name, outputs, arguments, call, bytes, flops)                                                                              \
    __attribute__((unused)) static void count_##name arguments {                                                                     \
        emu_count_begin();                                                                                                           \
        emu->op.name call;                                                                                                           \
        judge(#name, (double)(bytes));                                                                                               \
    }
OP_LIST(X)
#undef X

static StepState *step_state(void) {
    const StepState state = {.seed = 1, .lr = 0.1f, .loss_scale = 1.0f / N, .max_norm = 1, .clip_scale = 1, .updates = 1};
    StepState *device = emu->alloc(sizeof state);
    emu->upload(device, &state, sizeof state, NULL);
    return device;
}
static Tensor scratch(int backward) {
    const size_t bytes = emu->attention_scratch(B, T, NH, NH, HS, BF16, 0, backward);
    return bytes ? tensor(emu->alloc(bytes), F32, 1, (int64_t)(bytes / 4), 0, 0, 0) : no_tensor();
}

static void elementwise_and_norms(const StepState *state) {
    const Dropout drop = {0.1f, 1, state};
    const Tensor mean = vector(F32, N), rstd = vector(F32, N), w = vector(BF16, C), b = vector(BF16, C), none = no_tensor();
    const Tensor tokens = filled(I32, 2, B, T, 0, 0), wte = filled(BF16, 2, Vp, C, 0, 0), dwte = filled(F32, 2, Vp, C, 0, 0);
    count_embedding_forward(rows(BF16), tokens, wte, none, NULL);
    count_embedding_backward(dwte, none, rows(BF16), tokens, 1, 0, NULL);
    count_layernorm_forward(rows(BF16), mean, rstd, rows(BF16), w, b, 1e-5f, NULL);
    count_residual_layernorm_forward(rows(BF16), rows(BF16), mean, rstd, rows(BF16), rows(BF16), w, b, 1e-5f, drop, NULL);
    count_layernorm_backward(rows(BF16), vector(F32, C), vector(F32, C), rows(BF16), rows(BF16), w, mean, rstd, 1, 1, NULL);
    count_rmsnorm_forward(rows(BF16), rstd, rows(BF16), w, 1e-5f, NULL);
    count_residual_rmsnorm_forward(rows(BF16), rows(BF16), rstd, rows(BF16), rows(BF16), w, 1e-5f, drop, NULL);
    count_rmsnorm_backward(rows(BF16), vector(F32, C), rows(BF16), rows(BF16), w, rstd, 1, 1, NULL);
    count_residual_forward(rows(BF16), rows(BF16), rows(BF16), drop, NULL);
    count_dropout(rows(BF16), rows(BF16), drop, NULL);
    count_activation_forward(rows(BF16), rows(BF16), ACT_GELU, NULL);
    count_swiglu_forward(rows(BF16), filled(BF16, 3, B, T, 2 * C, 0), NULL);
    count_swiglu_backward(filled(BF16, 3, B, T, 2 * C, 0), rows(BF16), filled(BF16, 3, B, T, 2 * C, 0), NULL);
}
static void attention(const StepState *state) {
    const Dropout off = {0, 1, state};
    const Tensor qkv = filled(BF16, 4, B, T, 3 * NH, HS), out = filled(BF16, 4, B, T, NH, HS), lse = filled(F32, 3, B, NH, T, 0);
    const Tensor cache = filled(BF16, 4, B, T, NH, HS);
    count_rope_forward(qkv, no_tensor(), filled(F32, 3, T, HS / 2, 2, 0), NH, NH, ROPE_HALF, 0, NULL);
    count_rope_backward(qkv, filled(F32, 3, T, HS / 2, 2, 0), NH, NH, ROPE_HALF, NULL);
    const Tensor qk_rstd = filled(F32, 3, B, T, 2 * NH, 0), qw = vector(BF16, HS), kw = vector(BF16, HS);
    const Tensor normalized = filled(BF16, 4, B, T, 3 * NH, HS), rotations = filled(F32, 3, T, HS / 2, 2, 0);
    count_qk_norm_forward(normalized, qk_rstd, qkv, qw, kw, rotations, NH, NH, ROPE_HALF, 0, 1e-6f, NULL);
    count_qk_norm_backward(normalized, vector(F32, HS), vector(F32, HS), qkv, qk_rstd, qw, kw, rotations, NH, NH, ROPE_HALF, 1, NULL);
    count_attention_forward(out, lse, qkv, scratch(0), NH, NH, off, NULL);
    count_attention_backward(filled(BF16, 4, B, T, 3 * NH, HS), filled(F32, 3, B, NH, T, 0), filled(BF16, 4, B, T, NH, HS), out, lse, qkv,
                             scratch(1), NH, NH, off, NULL);
    count_attention_cached(out, cache, filled(BF16, 4, B, T, NH, HS), qkv, NH, NH, 0, NULL);
}
static void loss_and_update(StepState *state) {
    const int64_t n = 1 << 16;
    const Tensor segments = vector(I64, 2), param = vector(BF16, n), master = vector(F32, n), grad = vector(F32, n);
    const int64_t whole[] = {0, n};
    emu->upload(segments.data, whole, sizeof whole, NULL);
    count_cross_entropy(vector(F32, N), filled(BF16, 2, N, Vp, 0, 0), vector(I32, N), V, 1, state, NULL);
    count_loss_sum(vector(F32, 1), vector(F32, 1 << 14), 0, NULL);
    count_adamw(param, master, vector(F32, n), vector(F32, n), grad, segments, (AdamW){0.9f, 0.95f, 1e-8f, 0.1f}, state, NULL);
    count_sgd(param, master, grad, segments, 0.1f, state, NULL);
    count_sum_of_squares(vector(F64, 1), grad, 0, NULL);
}

int main(void) {
    emu = backend_find("emu");
    if (!emu) {
        fprintf(stderr, "cost_test: the backend emu is not in this build\n");
        return 1;
    }
    StepState *state = step_state();
    elementwise_and_norms(state);
    attention(state);
    loss_and_update(state);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
