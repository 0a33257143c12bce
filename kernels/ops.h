/* ops.h: the ops, declared once. This file is the contract between the model and its backends.

   The model is written against a table of ops (OpTable); a backend fills the table. Each op is one row of OP_LIST,
   one CPU body in NAME.c, one CUDA body in NAME.cu, and one test in NAME_test.c.

   Shapes    B batch, T time, C channels, L layers, NH query heads, NKV key/value heads, HS head size, F hidden width of the
             MLP, V vocabulary, Vp vocabulary padded to a multiple of 128. Tensors are dense and row-major. Where a matrix of
             N rows is asked for, any leading shape of N elements will do: (B,T,C) serves as (N,C).
   Dtypes    Parameters and activations are F32 or BF16, resolved inside the op at run time. Statistics (mean, rstd, lse,
             losses), gradients of parameters, master weights and moments are always F32; tokens and targets I32.
   Arguments outputs, saved statistics, inputs, weights, scalars, stream.
   Gradients of parameters are accumulated in F32 inside the op: `accumulate` 0 assigns (first micro-step), 1 adds, so that
             nothing ever clears them. Gradients of activations are assigned, except where a row says "adds".
             The embedding is the exception: with a tied head the head's matmul assigns dwte and embedding_backward always
             adds; untied, embedding_backward with accumulate 0 also clears the rows that the batch lacks.
   Loss      is the mean over the valid targets (target >= 0) of the whole global batch; StepState.loss_scale is one over
             their number, so micro-steps and ranks only ever add.
   Random    numbers are Philox4x32-10 keyed by seed, step, tensor and the element's index in the global batch (philox.h):
             a mask depends neither on micro-steps nor on ranks nor on the backend, and backward computes it again. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { F32, BF16, I32, I64, F64 } DType;

enum { TENSOR_MAX_RANK = 4 };
enum { MAX_HEAD_SIZE = 256, MAX_CHANNELS = 16384 };   /* attention and the norms keep rows of so many elements on the stack, or in registers */

/* A view of dense memory. data == NULL means "absent", for arguments that say they may be. */
typedef struct {
    void *data;
    DType dtype;
    int rank;
    int64_t shape[TENSOR_MAX_RANK];
} Tensor;

typedef enum { ACT_NONE, ACT_GELU, ACT_GELU_ERF, ACT_RELU, ACT_SILU, ACT_RELU2 } Activation;
typedef enum { ROPE_INTERLEAVED, ROPE_HALF } RopeLayout;

/* What changes from step to step. It lives in device memory, so that a captured graph of a step can be replayed. */
typedef struct {
    uint64_t seed;       /* of the run */
    int64_t sample;      /* number, within the global batch, of this micro-batch's first row */
    uint32_t step;       /* optimizer step, from 0: keys the dropout masks */
    float lr;            /* learning rate of this step */
    float loss_scale;    /* 1 / targets */
    float targets;       /* valid targets in the global batch, as the host expects them: all ranks alike, before they have counted */
    float max_norm;      /* clip above this gradient norm; 0 never clips */
    float spike_loss;    /* skip the update if the loss is above; 0: never */
    float spike_norm;    /* or the gradient norm; 0: never */
    /* written by global_norm */
    float loss;          /* mean over the valid targets of the global batch */
    float grad_norm;     /* the L2 norm before clipping, of the gradient of that mean */
    float clip_scale;    /* what the optimizers multiply the stored gradient by: targets/valid, times max_norm/(norm + 1e-6) if norm > max_norm */
    uint32_t skip;       /* a StepSkip; the optimizers change nothing unless it is 0 */
    uint32_t updates;    /* updates that were not skipped, this one included (Adam's t) */
} StepState;

/* Why an update is left out. */
typedef enum { SKIP_NOTHING, SKIP_NOT_FINITE, SKIP_SPIKE } StepSkip;

/* What is added up over the ranks besides the gradient: totals(TOTALS). */
enum { TOTAL_LOSS, TOTAL_VALID, TOTAL_VOTES, TOTALS };

typedef struct {
    float p;                  /* probability of dropping; 0 switches the op off */
    uint32_t tensor;          /* which mask of the model this is: layer * DROPOUT_SITES + site */
    const StepState *state;   /* seed, step and first sample */
} Dropout;

typedef struct {
    float beta1, beta2, eps, weight_decay;
} AdamW;

/* A backend's queue of work. The CPU runs everything at once and passes NULL. */
typedef struct Stream Stream;

/* X(name, number of leading outputs, arguments, call, bytes that must move at least, floating-point operations)
   The last two are the op's cost function, over its own arguments, for --profile. */
#define OP_LIST(X)                                                                                                                  \
    /* out(B,T,C) = wte[tokens(B,T)] + wpe[t]; wte (Vp,C), wpe (maxT,C) or absent */                                                \
    X(embedding_forward, 1, (Tensor out, Tensor tokens, Tensor wte, Tensor wpe, Stream *s), (out, tokens, wte, wpe, s),             \
      2 * tensor_bytes(out), 0)                                                                                                     \
    /* dwte[token] += dout, dwpe[t] += sum over b of dout; either may be absent; deterministic */                                   \
    X(embedding_backward, 2, (Tensor dwte, Tensor dwpe, Tensor dout, Tensor tokens, int accumulate_wte, int accumulate_wpe,         \
      Stream *s), (dwte, dwpe, dout, tokens, accumulate_wte, accumulate_wpe, s), 2 * tensor_bytes(dout), 0)                         \
    /* out = (x - mean) * rstd * w + b over the last axis (Ba et al. 2016); b may be absent */                                      \
    X(layernorm_forward, 3, (Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b, float eps, Stream *s),             \
      (out, mean, rstd, x, w, b, eps, s), tensor_bytes(out) + tensor_bytes(x), 0)                                                   \
    /* residual = x + dropout(delta); out = layernorm(residual) */                                                                  \
    X(residual_layernorm_forward, 4, (Tensor residual, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor delta, Tensor w,      \
      Tensor b, float eps, Dropout drop, Stream *s), (residual, out, mean, rstd, x, delta, w, b, eps, drop, s),                     \
      4 * tensor_bytes(x), 0)                                                                                                       \
    /* dx = layernorm backward of dout, added to dx if add_dx (the residual's gradient), else dout may be dx;                       \
       dw, db accumulate; db may be absent */                                                                                       \
    X(layernorm_backward, 3, (Tensor dx, Tensor dw, Tensor db, Tensor dout, Tensor x, Tensor w, Tensor mean, Tensor rstd,           \
      int add_dx, int accumulate, Stream *s), (dx, dw, db, dout, x, w, mean, rstd, add_dx, accumulate, s),                          \
      (3 + add_dx) * tensor_bytes(x), 0)                                                                                            \
    /* out = x * rstd * w over the last axis, rstd = 1/sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019) */                           \
    X(rmsnorm_forward, 2, (Tensor out, Tensor rstd, Tensor x, Tensor w, float eps, Stream *s), (out, rstd, x, w, eps, s),           \
      tensor_bytes(out) + tensor_bytes(x), 0)                                                                                       \
    /* residual = x + dropout(delta); out = rmsnorm(residual) */                                                                    \
    X(residual_rmsnorm_forward, 3, (Tensor residual, Tensor out, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps,          \
      Dropout drop, Stream *s), (residual, out, rstd, x, delta, w, eps, drop, s), 4 * tensor_bytes(x), 0)                           \
    /* as layernorm_backward */                                                                                                     \
    X(rmsnorm_backward, 2, (Tensor dx, Tensor dw, Tensor dout, Tensor x, Tensor w, Tensor rstd, int add_dx, int accumulate,         \
      Stream *s), (dx, dw, dout, x, w, rstd, add_dx, accumulate, s), (3 + add_dx) * tensor_bytes(x), 0)                             \
    /* out = x + dropout(delta): the residual where no norm follows; out may be x */                                                \
    X(residual_forward, 1, (Tensor out, Tensor x, Tensor delta, Dropout drop, Stream *s), (out, x, delta, drop, s),                 \
      3 * tensor_bytes(x), 0)                                                                                                       \
    /* out(N,OC) = act(pre), pre = x(N,IC) w(OC,IC)^T + bias(OC); bias may be absent; pre absent: not kept (or act is ACT_NONE) */  \
    X(matmul_forward, 2, (Tensor out, Tensor pre, Tensor x, Tensor w, Tensor bias, Activation act, Stream *s),                      \
      (out, pre, x, w, bias, act, s), tensor_bytes(out) + tensor_bytes(pre) + tensor_bytes(x) + tensor_bytes(w),                    \
      2.0 * (double)tensor_numel(out) * (double)last_dim(x))                                                                        \
    /* out(N,OC) = add(N,OC) + x(N,IC) w(OC,IC)^T + bias(OC), rounded once; bias may be absent; out is not add */                   \
    X(matmul_add_forward, 1, (Tensor out, Tensor x, Tensor w, Tensor bias, Tensor add, Stream *s), (out, x, w, bias, add, s),       \
      tensor_bytes(out) + tensor_bytes(add) + tensor_bytes(x) + tensor_bytes(w),                                                    \
      2.0 * (double)tensor_numel(out) * (double)last_dim(x))                                                                        \
    /* dx(N,IC) = (dout(N,OC) w(OC,IC)) * act'(pre(N,IC)); ACT_NONE: pre absent */                                                  \
    X(matmul_backward_input, 1, (Tensor dx, Tensor dout, Tensor w, Tensor pre, Activation act, Stream *s),                          \
      (dx, dout, w, pre, act, s), tensor_bytes(dx) + tensor_bytes(dout) + tensor_bytes(w) + tensor_bytes(pre),                      \
      2.0 * (double)tensor_numel(dx) * (double)last_dim(dout))                                                                      \
    /* dw(OC,IC) (+)= dout(N,OC)^T x(N,IC); db(OC) (+)= column sums of dout; db may be absent */                                    \
    X(matmul_backward_weight, 2, (Tensor dw, Tensor db, Tensor dout, Tensor x, int accumulate, Stream *s),                          \
      (dw, db, dout, x, accumulate, s), (1 + accumulate) * tensor_bytes(dw) + tensor_bytes(dout) + tensor_bytes(x),                 \
      2.0 * (double)tensor_numel(dw) * (double)(tensor_numel(x) / last_dim(x)))                                                     \
    /* in place on qkv(B,T,NH+2NKV,HS): add bias((NH+2NKV)*HS, may be absent), then rotate Q and K by position t0+t                 \
       (Su et al. 2021); rotations(maxT,HS/2,2) holds cos, sin of t * base^(-2i/HS), or as llmc/rope_scaling.h has them */          \
    X(rope_forward, 1, (Tensor qkv, Tensor bias, Tensor rotations, int NH, int NKV, RopeLayout layout, int t0, Stream *s),          \
      (qkv, bias, rotations, NH, NKV, layout, t0, s),                                                                               \
      2 * tensor_bytes(qkv) / (size_t)(NH + 2 * NKV) * (size_t)(NH + (bias.data ? 2 : 1) * NKV), 0)                                 \
    /* in place on dqkv: rotate the gradients of Q and K back */                                                                    \
    X(rope_backward, 1, (Tensor dqkv, Tensor rotations, int NH, int NKV, RopeLayout layout, Stream *s),                             \
      (dqkv, rotations, NH, NKV, layout, s), 2 * tensor_bytes(dqkv) / (size_t)(NH + 2 * NKV) * (size_t)(NH + NKV), 0)               \
    /* QK-norm (Henry et al. 2020, as Qwen3 has it): out is qkv(B,T,NH+2NKV,HS) with each head of Q and K replaced by its rmsnorm,  \
       weights qw(HS) and kw(HS), then rotated as rope_forward does unless rotations is absent; V is copied. rstd(B,T,NH+NKV) */    \
    X(qk_norm_forward, 2, (Tensor out, Tensor rstd, Tensor qkv, Tensor qw, Tensor kw, Tensor rotations, int NH, int NKV,            \
      RopeLayout layout, int t0, float eps, Stream *s), (out, rstd, qkv, qw, kw, rotations, NH, NKV, layout, t0, eps, s),           \
      2 * tensor_bytes(qkv), 0)                                                                                                     \
    /* in place on dqkv: from the gradient of out to that of qkv; dqw, dkw accumulate */                                            \
    X(qk_norm_backward, 3, (Tensor dqkv, Tensor dqw, Tensor dkw, Tensor qkv, Tensor rstd, Tensor qw, Tensor kw, Tensor rotations,   \
      int NH, int NKV, RopeLayout layout, int accumulate, Stream *s),                                                               \
      (dqkv, dqw, dkw, qkv, rstd, qw, kw, rotations, NH, NKV, layout, accumulate, s),                                               \
      3 * tensor_bytes(qkv) / (size_t)(NH + 2 * NKV) * (size_t)(NH + NKV), 0)                                                       \
    /* out = act(pre), element by element: what matmul_forward wrote, made again; out may be pre */                                 \
    X(activation_forward, 1, (Tensor out, Tensor pre, Activation act, Stream *s), (out, pre, act, s),                               \
      tensor_bytes(out) + tensor_bytes(pre), 0)                                                                                     \
    /* SwiGLU (Shazeer 2020): out(N,F) = silu(gate) * up, gate and up the first and second F columns of pre(N,2F) */                \
    X(swiglu_forward, 1, (Tensor out, Tensor pre, Stream *s), (out, pre, s), tensor_bytes(out) + tensor_bytes(pre), 0)              \
    /* dpre(N,2F) from dout(N,F) */                                                                                                 \
    X(swiglu_backward, 1, (Tensor dpre, Tensor dout, Tensor pre, Stream *s), (dpre, dout, pre, s),                                  \
      tensor_bytes(dpre) + tensor_bytes(dout) + tensor_bytes(pre), 0)                                                               \
    /* causal softmax attention (Dao 2023), scale 1/sqrt(HS), no T x T tensor: out(B,T,NH,HS), lse(B,NH,T) the log-sum-exp of       \
       the scaled scores, from qkv(B,T,NH+2NKV,HS); query head h reads key/value head h / (NH/NKV); dropout on probabilities.       \
       scratch: the bytes that Backend.attention_scratch asks for, absent if that is 0; its content means nothing afterwards */     \
    X(attention_forward, 2, (Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Dropout drop, Stream *s),         \
      (out, lse, qkv, scratch, NH, NKV, drop, s), tensor_bytes(out) + tensor_bytes(qkv),                                            \
      2.0 * (double)tensor_numel(out) * (double)out.shape[1])                                                                       \
    /* dqkv from dout; delta(B,NH,T) receives the row sums of dout * out */                                                         \
    X(attention_backward, 2, (Tensor dqkv, Tensor delta, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH,   \
      int NKV, Dropout drop, Stream *s), (dqkv, delta, dout, out, lse, qkv, scratch, NH, NKV, drop, s),                             \
      2 * tensor_bytes(out) + 2 * tensor_bytes(qkv), 5.0 * (double)tensor_numel(out) * (double)out.shape[1])                        \
    /* generation: write K, V of qkv(B,T,NH+2NKV,HS) into the caches (B,maxT,NKV,HS) at rows t0.. and attend to rows 0..t0+t */     \
    X(attention_cached, 3, (Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, int NH, int NKV, int t0, Stream *s),            \
      (out, k_cache, v_cache, qkv, NH, NKV, t0, s), tensor_bytes(out) + tensor_bytes(qkv)                                           \
      + 2 * tensor_bytes(k_cache) / (size_t)k_cache.shape[1] * (size_t)(t0 + 2 * qkv.shape[1]), 0)                                  \
    /* out = x with elements zeroed with probability p and the rest scaled by 1/(1-p); the same call serves backward; out may be x  \
       The first axis of x is the batch: element indices start at state->sample * (elements per sample). */                         \
    X(dropout, 1, (Tensor out, Tensor x, Dropout drop, Stream *s), (out, x, drop, s), tensor_bytes(out) + tensor_bytes(x), 0)       \
    /* losses(N) = -log softmax(logits(N,Vp)[:, :V])[target], 0 where target < 0; if backward, logits become their own gradient:    \
       (softmax - onehot) * state->loss_scale, zero in the padding and where target < 0 */                                          \
    X(cross_entropy, 2, (Tensor losses, Tensor logits, Tensor targets, int V, int backward, const StepState *state, Stream *s),     \
      (losses, logits, targets, V, backward, state, s), (1 + backward) * tensor_bytes(logits), 0)                                   \
    /* sum(1) (+)= sum of losses(N) */                                                                                              \
    X(loss_sum, 1, (Tensor sum, Tensor losses, int accumulate, Stream *s), (sum, losses, accumulate, s), tensor_bytes(losses), 0)   \
    /* sum(1) F64 (+)= sum of the squares of x, F32 or BF16, in double; its order does not depend on threads */                     \
    X(sum_of_squares, 1, (Tensor sum, Tensor x, int accumulate, Stream *s), (sum, x, accumulate, s), tensor_bytes(x), 0)            \
    /* the fields of state that say so, from totals(TOTALS) F32 and squares(1) F64, both over all ranks: loss = losses/valid,       \
       norm = sqrt(squares) * targets/valid (a batch without valid targets has loss 0 and factor 1); skip if one is not finite or a \
       spike */                                                                                                                     \
    X(global_norm, 0, (StepState *state, Tensor totals, Tensor squares, Stream *s), (state, totals, squares, s), 0, 0)              \
    /* AdamW (Loshchilov and Hutter 2019) over flat buffers: param (F32: master itself, or BF16: a rounded copy), master, m, v,     \
       grad * clip_scale. segments(n+1) I64 cuts the buffer: even pieces are decayed, odd ones are not */                           \
    X(adamw, 4, (Tensor param, Tensor master, Tensor m, Tensor v, Tensor grad, Tensor segments, AdamW config,                       \
      const StepState *state, Stream *s), (param, master, m, v, grad, segments, config, state, s),                                  \
      tensor_bytes(param) * (param.dtype == BF16) + 2 * (tensor_bytes(master) + tensor_bytes(m) + tensor_bytes(v))                  \
      + tensor_bytes(grad), 0)                                                                                                      \
    /* plain gradient descent with decoupled decay: w -= lr * (grad * clip_scale + weight_decay * w) */                             \
    X(sgd, 2, (Tensor param, Tensor master, Tensor grad, Tensor segments, float weight_decay, const StepState *state, Stream *s),   \
      (param, master, grad, segments, weight_decay, state, s),                                                                      \
      tensor_bytes(param) * (param.dtype == BF16) + 2 * tensor_bytes(master) + tensor_bytes(grad), 0)

/* The table the model calls through. */
typedef struct {
#define X(name, outputs, arguments, call, bytes, flops) void (*name) arguments;
    OP_LIST(X)
#undef X
} OpTable;

/* The names every backend implements; the bodies are spelled out in NAME.c and NAME.cu, where grep finds them. */
#define X(name, outputs, arguments, call, bytes, flops) void cpu_##name arguments; void cuda_##name arguments;
OP_LIST(X)
#undef X

/* Which attention the backend runs. AUTO: the fastest that can do what is asked. OWN: the flash kernels of this project, or PLAIN where they
   cannot do the head size. CUDNN: cuDNN's, for bf16 without dropout (else OWN). PLAIN: the reference, slow. The CPU has one, and takes AUTO, OWN
   and PLAIN for it. */
typedef enum { ATTENTION_AUTO, ATTENTION_OWN, ATTENTION_CUDNN, ATTENTION_PLAIN } AttentionKind;

typedef struct {
    AttentionKind attention;
    int tf32;                  /* fp32 matrix products may round their inputs to TF32 */
    int deterministic;         /* the same bits on every run: no float atomics, matmul algorithms fixed */
    int autotune;              /* time the matmul algorithms of each shape on first use, and keep the fastest */
    const char *algorithms;    /* file in which the choices are kept between runs; NULL: none */
} BackendSettings;

/* A point in a stream that the host can wait for; a captured sequence of work that can be launched again. */
typedef struct Event Event;
typedef struct Graph Graph;

/* Device memory, order of work, and ops. All of these die with a clear message when the device refuses. The CPU does everything at once, has one
   stream called NULL, and no graphs: graph_begin is NULL. */
typedef struct {
    const char *name;
    const char *(*missing)(void);                       /* NULL if this machine has the device, else why it cannot be used */
    int host_memory;                                    /* 1: the host may read and write device memory directly */
    void *(*alloc)(size_t bytes);                       /* aligned to 256 bytes, zeroed */
    void (*release)(void *memory);
    void *(*alloc_host)(size_t bytes);                  /* host memory from and to which the device copies while the host goes on; zeroed */
    void (*release_host)(void *memory);
    /* From memory of alloc_host: read when the stream gets there; from other memory: read on return. */
    void (*upload)(void *device, const void *host, size_t bytes, Stream *s);
    void (*download)(void *host, const void *device, size_t bytes, Stream *s);         /* waits until the bytes are there */
    void (*download_later)(void *host, const void *device, size_t bytes, Stream *s);   /* into memory of alloc_host; wait for an event after it */
    /* How many devices there are here, and which of them the calling thread works on from now on: number index modulo their count. select returns
       a name, until its next call, that no other device of this machine has ("" where ranks share the device as they like: the CPU). */
    int (*devices)(void);
    const char *(*select)(int index);
    Stream *(*stream_open)(int urgent);                 /* urgent: its work goes before that of the others */
    void (*stream_close)(Stream *s);
    void (*synchronize)(Stream *s);
    Event *(*event_open)(void);
    void (*event_close)(Event *e);
    void (*event_record)(Event *e, Stream *s);
    void (*event_wait)(Event *e);                       /* the host waits; at once if e was never recorded */
    int (*event_over)(Event *e);                        /* 1 if event_wait would not wait */
    void (*stream_wait)(Stream *s, Event *e);           /* what is put into s from now on waits for e as recorded last */
    void (*graph_begin)(Stream *s);                     /* from here on ops are noted, not run */
    Graph *(*graph_end)(Stream *s);
    void (*graph_launch)(Graph *g, Stream *s);
    void (*graph_close)(Graph *g);
    double (*free_memory)(void);                        /* bytes that alloc can still give */
    double (*own_memory)(void);                         /* bytes that configure took for libraries and reductions */
    int (*supports_bf16)(void);
    void (*configure)(const BackendSettings *settings); /* before the first op; dies if the settings cannot be had */
    const char *(*describe)(void);                      /* the device and the libraries in use, for the banner */
    /* Bytes of scratch that attention over these shapes wants. */
    size_t (*attention_scratch)(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward);
    /* The matmul algorithms chosen so far, as text to keep in a checkpoint ("" if there are none to choose), and back: 0 if it is not of this
       device and library, and then nothing is taken over. */
    const char *(*algorithms)(void);
    int (*set_algorithms)(const char *text);
    OpTable op;
} Backend;

/* Ends the program with that sentence, as when the device refuses: it is printed on stderr and the exit status is 1, unless backend_on_failure
   has given the sentence to somebody else, who does not return. */
void backend_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void backend_on_failure(void (*hook)(const char *message));

/* The backend called `name` ("auto": the best one present), or NULL if this build or machine has none of that name. */
const Backend *backend_find(const char *name);
/* Why `name`, or with "auto" the best backend of this build, cannot be used here; NULL if it can, or if the build has none of that name. */
const char *backend_missing(const char *name);
/* Comma-separated names of the backends that can be used here, for messages. */
const char *backend_names(void);

/* A backend that runs `inner`'s ops and scans each output for NaN and Inf; the first bad one is reported through on_bad with the
   op's name and the output's number, from 0. Slow: for --check-numerics. One at a time in a process. */
const Backend *backend_checked(const Backend *inner, void (*on_bad)(const char *op, int output));

/* A backend that runs and times `inner`'s ops, for --profile. One at a time in a process. */
const Backend *backend_timed(const Backend *inner);
#define X(name, outputs, arguments, call, bytes, flops) + 1
enum { BACKEND_OPS = 0 OP_LIST(X) };
#undef X
/* The calls of an op, together; `floor` is the time that they take at least, at the rates given: of each call the greater of moving and computing. */
typedef struct {
    const char *name;
    long long calls;
    double seconds, bytes, flops, floor;
} OpTime;
/* The ops that ran since backend_timed, largest total first, at rates measured (bytes/s, FLOP/s). Returns their number. */
int backend_timed_ops(OpTime ops[BACKEND_OPS], double bytes_per_second, double flops_per_second);
/* The same, printed to a FILE, a line an op: calls, time, share, rates, and time over floor. */
void backend_timed_report(void *file, double bytes_per_second, double flops_per_second);

static inline int64_t tensor_numel(Tensor t) {
    int64_t n = t.data != NULL;
    for (int i = 0; i < t.rank; i++) n *= t.shape[i];
    return n;
}
static inline int64_t last_dim(Tensor t) { return t.rank > 0 ? t.shape[t.rank - 1] : 1; }
static inline size_t dtype_size(DType d) { return d == BF16 ? 2 : d == I64 || d == F64 ? 8 : 4; }
static inline size_t tensor_bytes(Tensor t) { return (size_t)tensor_numel(t) * dtype_size(t.dtype); }

/* tensor(data, dtype, rank, d0, d1, d2, d3): trailing dimensions beyond the rank are ignored. */
static inline Tensor tensor(void *data, DType dtype, int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    Tensor t;
    t.data = data; t.dtype = dtype; t.rank = rank;
    t.shape[0] = d0; t.shape[1] = d1; t.shape[2] = d2; t.shape[3] = d3;
    return t;
}
static inline Tensor no_tensor(void) { return tensor(NULL, F32, 0, 0, 0, 0, 0); }

#ifdef __cplusplus
}
#endif
#endif
