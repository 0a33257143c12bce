/* model.h: the model: its memory, forward, backward and update, written once against the table of ops.

   The life of one optimizer step:
       model_begin_step(m, &settings)
       model_micro_step(m, tokens, targets, sample, i)     for each micro-batch i: forward, backward, gradients += (= for i 0); with several ranks the
                                                           last one also adds them up over the ranks, a layer at a time, while backward goes on
       model_update(m)                                     norm, clip, AdamW; skipped whole if the norm is not finite
       model_outcome(m, 0)                                 what happened; model_outcome(m, 1) what happened in the step before
   None of the first three waits for the device; model_outcome does. model.c has the passes and the memory, model_step.c the step, model_ranks.c what
   several ranks do together (ZeRO: Rajbhandari et al. 2020, stage 1), model_state.c weights and optimizer on their way in and out. */
#ifndef LLMC_MODEL_H
#define LLMC_MODEL_H

#include "arena.h"
#include "comm.h"
#include "parameters.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { MODEL_TRAIN, MODEL_EVALUATE, MODEL_GENERATE } ModelMode;
typedef enum { OPTIMIZER_ADAMW, OPTIMIZER_SGD } OptimizerKind;

/* What backward makes again instead of keeping it, each with what comes before: the MLP's activation; the norms of a block; all of a block but
   its input. */
typedef enum { RECOMPUTE_NONE, RECOMPUTE_MLP, RECOMPUTE_NORM, RECOMPUTE_BLOCK, RECOMPUTE_NEVER } Recompute;

/* Everything that decides how much memory a model takes. */
typedef struct {
    Config config;
    DType dtype;               /* of parameters and activations: F32 or BF16 */
    ModelMode mode;
    OptimizerKind optimizer;
    int64_t B, T;              /* of a micro-batch; MODEL_GENERATE: B is 1, T the longest context */
    Recompute recompute;
    bool residual_in_matmul;   /* without dropout: the product before a residual adds it, not the norm behind it */
    int64_t head_chunks;       /* pieces in which the logits of a micro-batch are made; 0: as few as a bound on their memory allows */
    int64_t rank, ranks;       /* this rank among those that train the model together; ranks 0 is 1 */
    bool zero;                 /* ZeRO-1: this rank keeps moments, and in bf16 master weights, of its piece of every bucket alone */
} ModelSpec;

/* What the options say of a spec, but for config, dtype and mode, which depend on more. */
void spec_from_options(ModelSpec *spec, const Options *options);

/* The activations, declared once: field, exists, dtype (A: the model's), rank, shape. LAYER tensors are kept for backward, one a layer, up to
   the level of recomputation named; from there on, and in MODEL_EVALUATE and MODEL_GENERATE, all layers share one. CACHE tensors are one a
   layer always; they come first, so that they stay where they are when the rest is laid out again for another number of positions. */
#define ACTIVATION_LIST(ONCE, LAYER, CACHE)                                                                                         \
    CACHE(k_cache,    generate,  A,   4, B, spec->T, c->NKV, c->HS)                                                                 \
    CACHE(v_cache,    generate,  A,   4, B, spec->T, c->NKV, c->HS)                                                                 \
    ONCE (tokens,     true,      I32, 2, B, T, 0, 0)                                                                                \
    ONCE (targets,    true,      I32, 2, B, T, 0, 0)                                                                                \
    ONCE (embedded,   true,      A,   3, B, T, c->C, 0)                /* enters layer 0 */                                         \
    LAYER(ln1,        RECOMPUTE_NORM,   norm,     A,   3, B, T, c->C, 0)                                                            \
    LAYER(ln1_mean,   RECOMPUTE_BLOCK,  mean,     F32, 2, B, T, 0, 0)                                                               \
    LAYER(ln1_rstd,   RECOMPUTE_BLOCK,  norm,     F32, 2, B, T, 0, 0)                                                               \
    LAYER(qkv,        RECOMPUTE_BLOCK,  true,     A,   4, B, T, c->NH + 2 * c->NKV, c->HS)                                          \
    LAYER(heads,      RECOMPUTE_BLOCK,  c->qk_norm, A, 4, B, T, c->NH + 2 * c->NKV, c->HS)   /* qkv after QK-norm */                \
    LAYER(heads_rstd, RECOMPUTE_BLOCK,  c->qk_norm, F32, 3, B, T, c->NH + c->NKV, 0)                                                \
    LAYER(att,        RECOMPUTE_BLOCK,  true,     A,   4, B, T, c->NH, c->HS)                                                       \
    LAYER(lse,        RECOMPUTE_BLOCK,  true,     F32, 3, B, c->NH, T, 0)                                                           \
    LAYER(mid,        RECOMPUTE_BLOCK,  true,     A,   3, B, T, c->C, 0)                /* residual after attention */              \
    LAYER(ln2,        RECOMPUTE_NORM,   norm,     A,   3, B, T, c->C, 0)                                                            \
    LAYER(ln2_mean,   RECOMPUTE_BLOCK,  mean,     F32, 2, B, T, 0, 0)                                                               \
    LAYER(ln2_rstd,   RECOMPUTE_BLOCK,  norm,     F32, 2, B, T, 0, 0)                                                               \
    LAYER(fc,         RECOMPUTE_BLOCK,  train || c->gated, A, 3, B, T, config_fc_width(c), 0)   /* before the activation */         \
    LAYER(fc_act,     RECOMPUTE_MLP,    true,     A,   3, B, T, c->F, 0)                                                            \
    LAYER(out,        RECOMPUTE_NEVER,  true,     A,   3, B, T, c->C, 0)                /* residual after the MLP */                \
    ONCE (branch,     true,      A,   3, B, T, c->C, 0)                /* what attention or the MLP adds to the residual */         \
    ONCE (lnf,        norm,      A,   3, B, T, c->C, 0)                                                                             \
    ONCE (lnf_mean,   mean,      F32, 2, B, T, 0, 0)                                                                                \
    ONCE (lnf_rstd,   norm,      F32, 2, B, T, 0, 0)                                                                                \
    ONCE (logits,     true,      A,   2, head_rows, c->Vp, 0, 0)       /* of one chunk of rows; then their gradient */              \
    ONCE (losses,     true,      F32, 2, B, T, 0, 0)                                                                                \
    ONCE (loss_sum,   true,      F32, 1, 1, 0, 0, 0)                   /* of this rank */                                           \
    ONCE (totals,     true,      F32, 1, TOTALS, 0, 0, 0)              /* over the ranks */                                         \
    ONCE (squares,    true,      F64, 1, 1, 0, 0, 0)                   /* of the gradient */                                        \
    ONCE (dresidual,  train,     A,   3, B, T, c->C, 0)                                                                             \
    ONCE (dbranch,    train && c->dropout > 0, A, 3, B, T, c->C, 0)                                                                 \
    ONCE (dnorm,      train,     A,   3, B, T, c->C, 0)                                                                             \
    ONCE (dfc,        train,     A,   3, B, T, config_fc_width(c), 0)                                                               \
    ONCE (dfc_act,    train && c->gated, A, 3, B, T, c->F, 0)                                                                       \
    ONCE (dqkv,       train,     A,   4, B, T, c->NH + 2 * c->NKV, c->HS)                                                           \
    ONCE (datt,       train,     A,   4, B, T, c->NH, c->HS)                                                                        \
    ONCE (delta,      train,     F32, 3, B, c->NH, T, 0)                                                                            \
    ONCE (attention_scratch, scratch > 0, F32, 1, (scratch + 3) / 4, 0, 0, 0)   /* as much as the backend asks for */

typedef struct {
#define ONCE(field, ...) Tensor field;
#define LAYER(field, ...) Tensor *field;
    ACTIVATION_LIST(ONCE, LAYER, LAYER)
#undef ONCE
#undef LAYER
} Activations;

typedef enum { ARENA_PARAMETERS, ARENA_MASTERS, ARENA_GRADIENTS, ARENA_MOMENTS, ARENA_ACTIVATIONS, ARENA_CONSTANTS, ARENAS } ArenaName;
extern const char *const arena_names[ARENAS];

typedef struct {
    size_t bytes[ARENAS];
    size_t total;
} MemoryPlan;

typedef struct {
    ModelSpec spec;
    Config config;                       /* spec.config */
    const Backend *backend;
    Stream *stream;
    Arena arenas[ARENAS];
    ParameterTable table;
    ParameterTensors p, d;               /* parameters and their gradients */
    /* flat; masters are the parameters in fp32. With ZeRO m, v, and in bf16 masters, hold this rank's pieces of the buckets, one behind the other.
       Between an update and the next step nobody but model_stats_measure reads the gradients: model_snapshot uses them as scratch. */
    Tensor parameters, masters, gradients, m, v, segments;
    Comm *comm;                          /* NULL: alone */
    Activations a;
    Tensor rotations;                    /* (T,HS/2,2) cos, sin for RoPE */
    StepState state, *device_state;      /* what the host sets for the next (micro-)step, and the device's copy */
    AdamW adamw;
    bool training;                       /* inside a training forward: dropout is on */
    bool vote;                           /* set by the host: this rank votes for stopping after the step whose last micro-step comes next */
    bool use_graphs;                     /* set it to have steps captured and replayed, where the backend can */
    struct Step *step;                   /* what is under way (model_step.c) */
    struct Ranks *together;              /* collectives under way (model_ranks.c) */
} Model;

/* The table of such a model: with ZeRO, every bucket is padded to as many equal pieces as ranks. parameters_release it. */
void model_table(ParameterTable *table, const ModelSpec *spec);
/* Bytes per arena of this rank, without allocating anything. */
MemoryPlan model_plan(const ModelSpec *spec, const Backend *backend);
/* Allocates all memory. Weights and moments are zero; give them values with model_init_weights or model_read_weights. */
void model_create(Model *m, const ModelSpec *spec, const Backend *backend);
/* Right after model_create on several ranks: comm has spec->rank and spec->ranks, and outlives the model. */
void model_join(Model *m, Comm *comm);
/* CRC-32 of this rank's parameters, all of them. Waits. */
uint32_t model_parameters_crc(Model *m);
void model_free(Model *m);

/* scheme 0 gpt2, 1 xavier, 2 kaiming. */
void model_init_weights(Model *m, int scheme, uint64_t seed);
/* Weights from a directory of any family (weights.h). Refused whole, nothing changed. */
bool model_read_directory(Model *m, const char *directory, char error[ERROR_SIZE]);
/* Weights from one safetensors file, under our own names and a prefix, as dumps have them. Refused whole, nothing changed. */
bool model_read_weights(Model *m, const char *path, const char *prefix, char error[ERROR_SIZE]);
/* The parameters of another model of the same architecture, dtype, ranks and zero, on the same device, as they are after its last update. Waits. */
void model_copy_parameters(Model *m, const Model *from);
/* A copy of the flat fp32 buffer: weights (ARENA_MASTERS, without ZeRO) or gradients (ARENA_GRADIENTS). free() it. Laid out by m->table. */
float *model_copy_flat(const Model *m, ArenaName which);

/* Moments from optimizer.safetensors. Refused whole, nothing changed. */
bool model_read_optimizer(Model *m, const char *path, char error[ERROR_SIZE]);
uint32_t model_updates(const Model *m);
void model_set_updates(Model *m, uint32_t updates);

typedef struct {
    int64_t step;
    double lr, max_norm;
    int64_t valid;              /* targets >= 0 in this rank's part of the batch */
    int64_t targets;            /* targets in the global batch if all were valid, the same on every rank; 0, for one rank: as many as valid */
    int64_t micro_steps;        /* in this step; needed where there are several ranks */
    double spike_loss, spike_norm;
} StepSettings;
void model_begin_step(Model *m, const StepSettings *settings);
/* tokens(B,T), targets(B,T) in host memory, free again on return; sample is the number of their first row within the global batch; micro
   counts from 0. */
void model_micro_step(Model *m, const int32_t *tokens, const int32_t *targets, int64_t sample, int64_t micro);
void model_update(Model *m);

typedef struct {
    double loss, grad_norm;      /* mean over the valid targets of the step; L2 norm before clipping; the same on every rank */
    double own_loss;             /* sum of the losses of this rank's part: tells which rank has one that is not finite */
    StepSkip skip;               /* unless SKIP_NOTHING, parameters and moments are as they were */
    int votes;                   /* ranks that voted for stopping */
} StepOutcome;
/* Of the last step that was updated (back 0), or the one before (back 1). Waits for it, and only for it. */
StepOutcome model_outcome(const Model *m, int back);

/* The same, waiting for all that is under way: the loss over the micro-batches of this step so far; what the last update saw. */
double model_loss(const Model *m);
double model_grad_norm(const Model *m);
bool model_skipped(const Model *m);

/* Sum of the losses of a batch, without dropout and gradients. */
double model_evaluate(Model *m, const int32_t *tokens, const int32_t *targets);
/* After model_evaluate: losses(B*T), and logits(B*T,V) computed again from the last norm, both in host memory. */
void model_copy_losses(const Model *m, float *losses);
void model_copy_logits(Model *m, float *logits);

/* MODEL_GENERATE: feeds tokens[n] at positions t0 ... t0+n-1 (t0 + n <= T) into the cache; logits(V) of the last one to host memory. */
void model_generate(Model *m, const int32_t *tokens, int64_t n, int64_t t0, float *logits);

#ifdef __cplusplus
}
#endif
#endif
