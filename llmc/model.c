/* model.c: the forward pass and the backward pass that mirrors it. Read it from embed_forward() on; memory comes after. */
#include "model.h"

#include "error.h"
#include "kernels/cpu.h"
#include "model_ranks.h"
#include "model_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- views ------------------------------------------------------------------------------------------------------------------ */

/* t as a matrix of `columns` columns. */
static Tensor matrix(Tensor t, int64_t columns) { return tensor(t.data, t.dtype, 2, tensor_numel(t) / columns, columns, 0, 0); }

/* Rows first ... first+count-1 of t seen as a matrix of `columns` columns. */
static Tensor rows_of(Tensor t, int64_t columns, int64_t first, int64_t count) {
    char *data = (char *)t.data + (size_t)(first * columns) * dtype_size(t.dtype);
    return tensor(data, t.dtype, 2, count, columns, 0, 0);
}

/* The masks of the model: three sites a layer, and the embedding's after the last layer's. */
enum { DROP_ATTENTION, DROP_ATTENTION_BRANCH, DROP_MLP_BRANCH, DROPOUT_SITES };
static Dropout dropout_at(const Model *m, int64_t layer, int site) {
    Dropout drop = {m->training ? (float)m->config.dropout : 0.0f, (uint32_t)(layer * DROPOUT_SITES + site), m->device_state};
    return drop;
}

/* ---- where the norms are ------------------------------------------------------------------------------------------------------ */

/* The residual stream passes 2L + 1 places: site 2l before block l's attention, 2l + 1 before its MLP, 2L before the head. What comes in at a
   site is `in`; what attention, the MLP or the head reads there is `out`, and the stream goes on as `stream`:

       pre-norm    out = norm(in), stream = in                 post-norm    out = stream = norm(in), but at site 0 as without a norm
       no norm     out = stream = in

   Post-norm's weights are named for what comes before them: the norm at site s has those that pre-norm has at site s - 1. */
typedef struct {
    Tensor in, out, stream, mean, rstd;
    Tensor w, b, dw, db;   /* w.data NULL: no norm here */
    int bucket;            /* in which they are; -1 */
} NormSite;

static NormSite norm_site(const Model *m, int64_t s) {
    const Config *c = &m->config;
    const Activations *a = &m->a;
    const ParameterTensors *p = &m->p, *d = &m->d;
    const bool head = s == 2 * c->L, mlp = s % 2 == 1;
    const int64_t l = s / 2, named = c->norm_place == NORM_POST ? s - 1 : s, k = named / 2;   /* whose weights */
    NormSite n;
    memset(&n, 0, sizeof n);
    n.in = mlp ? a->mid[l] : l > 0 ? a->out[l - 1] : a->embedded;
    n.out = n.stream = n.in;
    n.bucket = -1;
    if (c->norm == NORM_NONE || named < 0) return n;
    n.out = head ? a->lnf : mlp ? a->ln2[l] : a->ln1[l];
    n.mean = head ? a->lnf_mean : mlp ? a->ln2_mean[l] : a->ln1_mean[l];
    n.rstd = head ? a->lnf_rstd : mlp ? a->ln2_rstd[l] : a->ln1_rstd[l];
    if (c->norm_place == NORM_POST) n.stream = n.out;
    n.bucket = named == 2 * c->L ? m->table.bucket_of_norm : m->table.bucket_of_layer + (int)k;
    n.w = named == 2 * c->L ? p->lnfw : named % 2 ? p->ln2w[k] : p->ln1w[k];
    n.b = named == 2 * c->L ? p->lnfb : named % 2 ? p->ln2b[k] : p->ln1b[k];
    n.dw = named == 2 * c->L ? d->lnfw : named % 2 ? d->ln2w[k] : d->ln1w[k];
    n.db = named == 2 * c->L ? d->lnfb : named % 2 ? d->ln2b[k] : d->ln1b[k];
    return n;
}

static void norm_forward(Model *m, const NormSite *n) {
    const OpTable *op = &m->backend->op;
    float eps = (float)m->config.norm_eps;
    if (!n->w.data) return;
    ranks_need(m, n->bucket);
    if (m->config.norm == NORM_RMSNORM) op->rmsnorm_forward(n->out, n->rstd, n->in, n->w, eps, m->stream);
    else op->layernorm_forward(n->out, n->mean, n->rstd, n->in, n->w, n->b, eps, m->stream);
}

/* in = x + dropout(delta), and the norm that reads it */
static void residual_norm_forward(Model *m, const NormSite *n, Tensor x, Tensor delta, Dropout drop) {
    const OpTable *op = &m->backend->op;
    float eps = (float)m->config.norm_eps;
    ranks_need(m, n->bucket);
    if (!n->w.data) op->residual_forward(n->in, x, delta, drop, m->stream);
    else if (m->config.norm == NORM_RMSNORM) op->residual_rmsnorm_forward(n->in, n->out, n->rstd, x, delta, n->w, eps, drop, m->stream);
    else op->residual_layernorm_forward(n->in, n->out, n->mean, n->rstd, x, delta, n->w, n->b, eps, drop, m->stream);
}

/* dresidual comes as the gradient of the stream behind site s and leaves as that of what comes in; dnorm is the gradient of out. Behind the head
   there is no stream. */
static void norm_backward(Model *m, int64_t s, int accumulate) {
    const NormSite n = norm_site(m, s);
    const OpTable *op = &m->backend->op;
    const Dropout off = {0};
    Tensor dx = m->a.dresidual, dout = m->a.dnorm;
    const bool head = s == 2 * m->config.L, pre = m->config.norm_place == NORM_PRE;
    if (!head && !(pre && n.w.data)) {   /* out is the stream too: both gradients flow into the norm, or where there is none straight on */
        op->residual_forward(dx, dx, dout, off, m->stream);
        dout = dx;
    }
    if (!n.w.data) return;
    if (m->config.norm == NORM_RMSNORM) op->rmsnorm_backward(dx, n.dw, dout, n.in, n.w, n.rstd, pre && !head, accumulate, m->stream);
    else op->layernorm_backward(dx, n.dw, n.db, dout, n.in, n.w, n.mean, n.rstd, pre && !head, accumulate, m->stream);
}

/* Where the head leaves the gradient of what it read. */
static Tensor head_gradient(const Model *m) { return m->config.norm == NORM_NONE ? m->a.dresidual : m->a.dnorm; }

/* ---- forward ---------------------------------------------------------------------------------------------------------------- */

/* tokens(B,T) at positions t0.. -> the residual stream and its first norm */
static void embed_forward(Model *m, int64_t t0) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    Activations *a = &m->a;
    const NormSite first = norm_site(m, 0);
    Dropout drop = dropout_at(m, c->L, 0);
    ranks_need(m, BUCKET_EMBEDDING);
    Tensor wpe = m->p.wpe.data ? rows_of(m->p.wpe, c->C, t0, c->maxT - t0) : no_tensor();
    op->embedding_forward(a->embedded, a->tokens, m->p.wte, wpe, m->stream);
    if (drop.p > 0) op->dropout(a->embedded, a->embedded, drop, m->stream);
    norm_forward(m, &first);
}

/* The stream of site s + dropout(in w^T + bias) enters site s + 1. Without dropout the product can add the stream itself, in fp32. */
static void branch_forward(Model *m, int64_t s, Tensor in, Tensor w, Tensor bias, Dropout drop) {
    const OpTable *op = &m->backend->op;
    const NormSite here = norm_site(m, s), next = norm_site(m, s + 1);
    if (m->spec.residual_in_matmul && m->config.dropout == 0) {
        op->matmul_add_forward(next.in, in, w, bias, here.stream, m->stream);
        norm_forward(m, &next);
    } else {
        op->matmul_forward(m->a.branch, no_tensor(), in, w, bias, ACT_NONE, m->stream);
        residual_norm_forward(m, &next, here.stream, m->a.branch, drop);
    }
}

/* What attention reads: Q, K and V with their positions in them. */
static Tensor attention_input(const Model *m, int64_t l) { return m->config.qk_norm ? m->a.heads[l] : m->a.qkv[l]; }

/* in(B,T,C) -> Q, K and V of block l, normed and rotated where the model does that */
static void qkv_forward(Model *m, int64_t l, Tensor in, int64_t t0) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    const ParameterTensors *p = &m->p;
    Activations *a = &m->a;
    int NH = (int)c->NH, NKV = (int)c->NKV;
    bool rope_adds_bias = c->pos == POS_ROPE && !c->qk_norm;
    Tensor qkv = matrix(a->qkv[l], config_qkv_width(c)), bias = p->qkvb[l];
    op->matmul_forward(qkv, no_tensor(), in, p->qkvw[l], rope_adds_bias ? no_tensor() : bias, ACT_NONE, m->stream);
    if (rope_adds_bias) op->rope_forward(a->qkv[l], bias, m->rotations, NH, NKV, c->rope_layout, (int)t0, m->stream);
    if (c->qk_norm)
        op->qk_norm_forward(a->heads[l], a->heads_rstd[l], a->qkv[l], p->qnormw[l], p->knormw[l], m->rotations, NH, NKV, c->rope_layout, (int)t0,
                            (float)c->norm_eps, m->stream);
}

/* fc_act = act(in fcw^T + fcb), or with SwiGLU the one half's SiLU times the other half */
static void fc_forward(Model *m, int64_t l, Tensor in) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    const ParameterTensors *p = &m->p;
    Activations *a = &m->a;
    if (c->gated) {
        op->matmul_forward(a->fc[l], no_tensor(), in, p->fcw[l], p->fcb[l], ACT_NONE, m->stream);
        op->swiglu_forward(a->fc_act[l], a->fc[l], m->stream);
    } else {
        op->matmul_forward(a->fc_act[l], a->fc[l], in, p->fcw[l], p->fcb[l], c->activation, m->stream);
    }
}

/* From what enters the block's attention to the MLP's activation: all that the block keeps for backward. */
static void block_inside_forward(Model *m, int64_t l, int64_t t0) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    const ParameterTensors *p = &m->p;
    Activations *a = &m->a;
    int NH = (int)c->NH, NKV = (int)c->NKV;
    ranks_need(m, m->table.bucket_of_layer + (int)l);
    qkv_forward(m, l, norm_site(m, 2 * l).out, t0);
    if (m->spec.mode == MODEL_GENERATE)
        op->attention_cached(a->att[l], a->k_cache[l], a->v_cache[l], attention_input(m, l), NH, NKV, (int)t0, m->stream);
    else
        op->attention_forward(a->att[l], a->lse[l], attention_input(m, l), a->attention_scratch, NH, NKV, dropout_at(m, l, DROP_ATTENTION),
                              m->stream);
    branch_forward(m, 2 * l, matrix(a->att[l], c->NH * c->HS), p->attprojw[l], p->attprojb[l], dropout_at(m, l, DROP_ATTENTION_BRANCH));
    fc_forward(m, l, norm_site(m, 2 * l + 1).out);
}

/* The block, and the norm behind it: the next block's first, or the head's. */
static void block_forward(Model *m, int64_t l, int64_t t0) {
    block_inside_forward(m, l, t0);
    branch_forward(m, 2 * l + 1, m->a.fc_act[l], m->p.fcprojw[l], m->p.fcprojb[l], dropout_at(m, l, DROP_MLP_BRANCH));
}

/* What the head reads. */
static Tensor head_input(const Model *m) { return norm_site(m, 2 * m->config.L).out; }
static Tensor head_weight(const Model *m) { return m->p.head.data ? m->p.head : m->p.wte; }

/* Logits and losses of B*T rows, a chunk at a time; in training also their way back: head_gradient, and the gradient of the head's weight. */
static void head(Model *m, bool first_micro) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    Activations *a = &m->a;
    Tensor w = head_weight(m), dw = m->p.head.data ? m->d.head : m->d.wte, in = head_input(m), din = head_gradient(m);
    int64_t N = tensor_numel(a->tokens), chunk = a->logits.shape[0];
    ranks_need(m, m->p.head.data ? m->table.bucket_of_head : BUCKET_EMBEDDING);
    for (int64_t row = 0; row < N; row += chunk) {
        int64_t n = N - row < chunk ? N - row : chunk;
        Tensor x = rows_of(in, c->C, row, n), logits = rows_of(a->logits, c->Vp, 0, n);
        op->matmul_forward(logits, no_tensor(), x, w, no_tensor(), ACT_NONE, m->stream);
        op->cross_entropy(rows_of(a->losses, 1, row, n), logits, rows_of(a->targets, 1, row, n), (int)c->V, m->training, m->device_state, m->stream);
        if (!m->training) continue;
        op->matmul_backward_input(rows_of(din, c->C, row, n), logits, w, no_tensor(), ACT_NONE, m->stream);
        op->matmul_backward_weight(dw, no_tensor(), logits, x, !first_micro || row > 0, m->stream);
    }
    op->loss_sum(a->loss_sum, a->losses, m->training && !first_micro, m->stream);
    if (!m->training) return;
    op->loss_sum(tensor(a->totals.data, F32, 1, 1, 0, 0, 0), a->loss_sum, false, m->stream);   /* TOTAL_LOSS */
    ranks_give_totals(m);
    ranks_give(m, m->table.bucket_of_head);
}

/* ---- backward --------------------------------------------------------------------------------------------------------------- */

/* The gradient of a branch: the residual's, through the branch's dropout. */
static Tensor branch_gradient(Model *m, int64_t l, int site) {
    Dropout drop = dropout_at(m, l, site);
    if (drop.p == 0) return m->a.dresidual;
    m->backend->op.dropout(m->a.dbranch, m->a.dresidual, drop, m->stream);
    return m->a.dbranch;
}

/* Makes again what --recompute did not keep of block l. The last block's is all still there. */
static void block_recompute(Model *m, int64_t l) {
    Recompute recompute = m->spec.recompute;
    const NormSite attention = norm_site(m, 2 * l), mlp = norm_site(m, 2 * l + 1);
    if (l == m->config.L - 1) return;
    if (recompute >= RECOMPUTE_NORM) norm_forward(m, &attention);
    if (recompute == RECOMPUTE_NORM) norm_forward(m, &mlp);
    if (recompute == RECOMPUTE_BLOCK) block_inside_forward(m, l, 0);
    else if (recompute != RECOMPUTE_NONE && m->config.gated) m->backend->op.swiglu_forward(m->a.fc_act[l], m->a.fc[l], m->stream);
    else if (recompute != RECOMPUTE_NONE) m->backend->op.activation_forward(m->a.fc_act[l], m->a.fc[l], m->config.activation, m->stream);
}

/* dbranch, the gradient of the MLP's output -> dnorm, that of its input */
static void mlp_backward(Model *m, int64_t l, Tensor dbranch, int accumulate) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    const ParameterTensors *p = &m->p, *d = &m->d;
    Activations *a = &m->a;
    Stream *s = m->stream;
    op->matmul_backward_weight(d->fcprojw[l], d->fcprojb[l], dbranch, a->fc_act[l], accumulate, s);
    if (c->gated) {
        op->matmul_backward_input(a->dfc_act, dbranch, p->fcprojw[l], no_tensor(), ACT_NONE, s);
        op->swiglu_backward(a->dfc, a->dfc_act, a->fc[l], s);
    } else {
        op->matmul_backward_input(a->dfc, dbranch, p->fcprojw[l], a->fc[l], c->activation, s);
    }
    op->matmul_backward_weight(d->fcw[l], d->fcb[l], a->dfc, norm_site(m, 2 * l + 1).out, accumulate, s);
    op->matmul_backward_input(a->dnorm, a->dfc, p->fcw[l], no_tensor(), ACT_NONE, s);
}

/* dbranch, the gradient of attention's output -> dnorm, that of its input */
static void attention_block_backward(Model *m, int64_t l, Tensor dbranch, int accumulate) {
    const Config *c = &m->config;
    const OpTable *op = &m->backend->op;
    const ParameterTensors *p = &m->p, *d = &m->d;
    Activations *a = &m->a;
    Stream *s = m->stream;
    int NH = (int)c->NH, NKV = (int)c->NKV;
    Tensor dqkv = matrix(a->dqkv, config_qkv_width(c)), datt = matrix(a->datt, c->NH * c->HS), att = matrix(a->att[l], c->NH * c->HS);
    op->matmul_backward_weight(d->attprojw[l], d->attprojb[l], dbranch, att, accumulate, s);
    op->matmul_backward_input(datt, dbranch, p->attprojw[l], no_tensor(), ACT_NONE, s);
    op->attention_backward(a->dqkv, a->delta, a->datt, a->att[l], a->lse[l], attention_input(m, l), a->attention_scratch, NH, NKV,
                           dropout_at(m, l, DROP_ATTENTION), s);
    if (c->qk_norm)
        op->qk_norm_backward(a->dqkv, d->qnormw[l], d->knormw[l], a->qkv[l], a->heads_rstd[l], p->qnormw[l], p->knormw[l], m->rotations, NH, NKV,
                             c->rope_layout, accumulate, s);
    else if (c->pos == POS_ROPE)
        op->rope_backward(a->dqkv, m->rotations, NH, NKV, c->rope_layout, s);
    op->matmul_backward_weight(d->qkvw[l], d->qkvb[l], dqkv, norm_site(m, 2 * l).out, accumulate, s);
    op->matmul_backward_input(a->dnorm, dqkv, p->qkvw[l], no_tensor(), ACT_NONE, s);
}

/* block_forward, last line first; dresidual holds the gradient of what the block puts out and leaves as that of what it takes in */
static void block_backward(Model *m, int64_t l, int accumulate) {
    block_recompute(m, l);
    mlp_backward(m, l, branch_gradient(m, l, DROP_MLP_BRANCH), accumulate);
    norm_backward(m, 2 * l + 1, accumulate);
    attention_block_backward(m, l, branch_gradient(m, l, DROP_ATTENTION_BRANCH), accumulate);
    norm_backward(m, 2 * l, accumulate);
}

static void embed_backward(Model *m, int accumulate) {
    const OpTable *op = &m->backend->op;
    Activations *a = &m->a;
    Dropout drop = dropout_at(m, m->config.L, 0);
    bool tied = m->config.tie;   /* the head's gradient is in dwte already: add to it */
    if (drop.p > 0) op->dropout(a->dresidual, a->dresidual, drop, m->stream);
    op->embedding_backward(m->d.wte, m->d.wpe, a->dresidual, a->tokens, tied || accumulate, accumulate, m->stream);
}

void model_forward(Model *m, bool first_micro) {
    embed_forward(m, 0);
    for (int64_t l = 0; l < m->config.L; l++) block_forward(m, l, 0);
    head(m, first_micro);
}

/* A bucket is given when nothing adds to it any more. Of block l that is so after its own backward: of its norms, those that post-norm puts behind
   it had their turn before. */
void model_backward(Model *m, bool first_micro) {
    int accumulate = !first_micro;
    norm_backward(m, 2 * m->config.L, accumulate);
    ranks_give(m, m->table.bucket_of_norm);
    for (int64_t l = m->config.L - 1; l >= 0; l--) {
        block_backward(m, l, accumulate);
        ranks_give(m, m->table.bucket_of_layer + (int)l);
    }
    embed_backward(m, accumulate);
    ranks_give(m, BUCKET_EMBEDDING);
}

/* ---- looking at results ------------------------------------------------------------------------------------------------------ */

void model_copy_losses(const Model *m, float *losses) {
    m->backend->download(losses, m->a.losses.data, tensor_bytes(m->a.losses), m->stream);
}

/* Host floats of n elements of a device tensor from `first` on. */
static void download_floats(const Model *m, Tensor t, int64_t first, int64_t n, float *out) {
    size_t size = dtype_size(t.dtype);
    const char *from = (const char *)t.data + (size_t)first * size;
    if (t.dtype == F32) {
        m->backend->download(out, from, (size_t)n * size, m->stream);
        return;
    }
    uint16_t *half = (uint16_t *)xmalloc((size_t)n * size);
    m->backend->download(half, from, (size_t)n * size, m->stream);
    bf16_to_floats(out, half, n);
    free(half);
}

void model_copy_logits(Model *m, float *logits) {
    const Config *c = &m->config;
    int64_t N = tensor_numel(m->a.tokens), chunk = m->a.logits.shape[0];
    for (int64_t row = 0; row < N; row += chunk) {
        int64_t n = N - row < chunk ? N - row : chunk;
        Tensor x = rows_of(head_input(m), c->C, row, n);
        m->backend->op.matmul_forward(rows_of(m->a.logits, c->Vp, 0, n), no_tensor(), x, head_weight(m), no_tensor(), ACT_NONE, m->stream);
        for (int64_t r = 0; r < n; r++) download_floats(m, m->a.logits, r * c->Vp, c->V, logits + (row + r) * c->V);
    }
}

/* ---- memory ----------------------------------------------------------------------------------------------------------------- */

void spec_from_options(ModelSpec *spec, const Options *o) {
    spec->optimizer = (OptimizerKind)o->optimizer;
    spec->B = o->batch;
    spec->T = o->seq_len;
    spec->recompute = (Recompute)o->recompute;
    spec->residual_in_matmul = o->residual == 1;
    spec->head_chunks = o->head_chunks;
}

const char *const arena_names[ARENAS] = {"parameters", "master weights", "gradients", "optimizer moments", "activations", "constants"};

/* Unless --head-chunks says otherwise, at most so many bytes of logits at once: what a CPU's memory gladly spares, and what keeps a GPU's
   matrix products large. A vocabulary of 50,257 then goes in chunks of rows. */
enum { HOST_LOGITS_BYTES = 64 << 20, DEVICE_LOGITS_BYTES = 1 << 30 };

static int64_t head_rows_of(const ModelSpec *spec, const Backend *backend) {
    int64_t N = spec->mode == MODEL_GENERATE ? 1 : spec->B * spec->T;
    int64_t bytes = backend->host_memory ? HOST_LOGITS_BYTES : DEVICE_LOGITS_BYTES;
    int64_t most = bytes / (spec->config.Vp * (int64_t)dtype_size(spec->dtype));
    int64_t chunks = spec->head_chunks > 0 ? spec->head_chunks : most > 0 ? (N + most - 1) / most : N;
    return (N + chunks - 1) / chunks;
}

/* Hands out the activations for micro-batches of B x T, T at most spec->T. */
static void bind_activations(Activations *a, const ModelSpec *spec, const Backend *backend, int64_t B, int64_t T, Arena *arena) {
    const Config *c = &spec->config;
    DType A = spec->dtype;
    bool train = spec->mode == MODEL_TRAIN, generate = spec->mode == MODEL_GENERATE, norm = c->norm != NORM_NONE, mean = c->norm == NORM_LAYERNORM;
    int64_t head_rows = head_rows_of(spec, backend);
    int64_t scratch = 0;
    if (!generate) scratch = (int64_t)backend->attention_scratch(B, T, (int)c->NH, (int)c->NKV, (int)c->HS, A, train && c->dropout > 0, train);
#define ONCE(field, exists, dtype, ...) a->field = (exists) ? arena_take(arena, dtype, __VA_ARGS__) : no_tensor();
#define LAYER(field, dropped_from, exists, dtype, ...)                                                                              \
    for (int64_t l = 0; l < c->L; l++)                                                                                              \
        a->field[l] = !(exists) ? no_tensor()                                                                                       \
                    : l == 0 || (train && spec->recompute < dropped_from) ? arena_take(arena, dtype, __VA_ARGS__) : a->field[0];
#define CACHE(field, exists, dtype, ...)                                                                                            \
    for (int64_t l = 0; l < c->L; l++) a->field[l] = (exists) ? arena_take(arena, dtype, __VA_ARGS__) : no_tensor();
    ACTIVATION_LIST(ONCE, LAYER, CACHE)
#undef ONCE
#undef LAYER
#undef CACHE
}

static void allocate_layers(Activations *a, int64_t L) {
#define ONCE(...)
#define LAYER(field, ...) a->field = (Tensor *)xcalloc((size_t)L, sizeof(Tensor));
    ACTIVATION_LIST(ONCE, LAYER, LAYER)
#undef ONCE
#undef LAYER
}

static void free_layers(Activations *a) {
#define ONCE(...)
#define LAYER(field, ...) free(a->field);
    ACTIVATION_LIST(ONCE, LAYER, LAYER)
#undef ONCE
#undef LAYER
}

/* Everything a model holds, taken from its arenas: run once to measure, once more to hand out. */
static void bind_all(Model *m) {
    const ModelSpec *spec = &m->spec;
    const Config *c = &m->config;
    int64_t n = m->table.elements, shares = m->spec.zero && m->spec.ranks > 0 ? n / m->spec.ranks : n;
    bool train = spec->mode == MODEL_TRAIN, rope = c->pos == POS_ROPE, adam = train && spec->optimizer == OPTIMIZER_ADAMW;
    for (int i = 0; i < ARENAS; i++) m->arenas[i].used = 0;
    m->parameters = arena_take(&m->arenas[ARENA_PARAMETERS], spec->dtype, 1, n, 0, 0, 0);
    m->masters = train && spec->dtype != F32 ? arena_take(&m->arenas[ARENA_MASTERS], F32, 1, shares, 0, 0, 0)
               : spec->dtype == F32 ? m->parameters : no_tensor();
    m->gradients = train ? arena_take(&m->arenas[ARENA_GRADIENTS], F32, 1, n, 0, 0, 0) : no_tensor();
    m->m = adam ? arena_take(&m->arenas[ARENA_MOMENTS], F32, 1, shares, 0, 0, 0) : no_tensor();
    m->v = adam ? arena_take(&m->arenas[ARENA_MOMENTS], F32, 1, shares, 0, 0, 0) : no_tensor();
    m->rotations = rope ? arena_take(&m->arenas[ARENA_CONSTANTS], F32, 3, spec->T, c->HS / 2, 2, 0) : no_tensor();
    m->segments = arena_take(&m->arenas[ARENA_CONSTANTS], I64, 1, m->together->segment_count, 0, 0, 0);
    m->device_state = (StepState *)arena_take(&m->arenas[ARENA_CONSTANTS], I32, 1, sizeof(StepState) / 4, 0, 0, 0).data;
    bind_activations(&m->a, spec, m->backend, spec->B, spec->T, &m->arenas[ARENA_ACTIVATIONS]);
}

static void measure(Model *m, const ModelSpec *spec, const Backend *backend) {
    memset(m, 0, sizeof *m);
    m->backend = backend;
    m->spec = *spec;
    m->config = spec->config;
    model_table(&m->table, spec);
    ranks_open(m);
    allocate_layers(&m->a, m->config.L);
    bind_all(m);
}

MemoryPlan model_plan(const ModelSpec *spec, const Backend *backend) {
    Model m;
    MemoryPlan plan = {{0}, 0};
    measure(&m, spec, backend);
    for (int i = 0; i < ARENAS; i++) {
        plan.bytes[i] = m.arenas[i].used;
        plan.total += m.arenas[i].used;
    }
    free_layers(&m.a);
    ranks_close(&m);
    parameters_release(&m.table);
    return plan;
}

/* cos, sin of t times each pair's frequency, computed in double, and both times the magnitude that queries and keys get. */
static void upload_rotations(Model *m) {
    const Config *c = &m->config;
    int64_t n = tensor_numel(m->rotations), pairs = c->HS / 2;
    if (n == 0) return;
    float *table = (float *)xmalloc((size_t)n * sizeof *table);
    double magnitude = rope_magnitude(&c->rope_scaling);
    for (int64_t i = 0; i < pairs; i++) {
        double frequency = rope_frequency(&c->rope_scaling, c->rope_base, c->HS, i);
        for (int64_t t = 0; t < m->spec.T; t++) {
            table[(t * pairs + i) * 2] = (float)(magnitude * cos((double)t * frequency));
            table[(t * pairs + i) * 2 + 1] = (float)(magnitude * sin((double)t * frequency));
        }
    }
    m->backend->upload(m->rotations.data, table, tensor_bytes(m->rotations), m->stream);
    m->backend->synchronize(m->stream);
    free(table);
}

void model_create(Model *m, const ModelSpec *spec, const Backend *backend) {
    measure(m, spec, backend);
    for (int i = 0; i < ARENAS; i++)
        if (m->arenas[i].used) m->arenas[i].base = (char *)backend->alloc(m->arenas[i].used);
    bind_all(m);
    parameters_bind(&m->p, &m->table, &m->config, m->parameters.data, spec->dtype);
    parameters_bind(&m->d, &m->table, &m->config, m->gradients.data, F32);
    m->stream = backend->stream_open(0);
    step_open(m);
    upload_rotations(m);
    backend->upload(m->segments.data, m->together->segments, tensor_bytes(m->segments), m->stream);
}

void model_free(Model *m) {
    ranks_need_all(m);   /* no collective may find its memory gone */
    ranks_await_given(m);
    m->backend->synchronize(m->stream);
    step_close(m);
    ranks_close(m);
    for (int i = 0; i < ARENAS; i++)
        if (m->arenas[i].base) m->backend->release(m->arenas[i].base);
    m->backend->stream_close(m->stream);
    free_layers(&m->a);
    parameters_unbind(&m->p);
    parameters_unbind(&m->d);
    parameters_release(&m->table);
    memset(m, 0, sizeof *m);
}

/* ---- generation ------------------------------------------------------------------------------------------------------------- */

void model_generate(Model *m, const int32_t *tokens, int64_t n, int64_t t0, float *logits) {
    const Config *c = &m->config;
    CHECK(m->spec.mode == MODEL_GENERATE && n >= 1 && t0 >= 0 && t0 + n <= m->spec.T);
    /* The same memory, laid out for a micro-batch of n positions. */
    m->arenas[ARENA_ACTIVATIONS].used = 0;
    bind_activations(&m->a, &m->spec, m->backend, 1, n, &m->arenas[ARENA_ACTIVATIONS]);
    m->backend->upload(m->a.tokens.data, tokens, (size_t)n * sizeof *tokens, m->stream);
    embed_forward(m, t0);
    for (int64_t l = 0; l < c->L; l++) block_forward(m, l, t0);
    m->backend->op.matmul_forward(m->a.logits, no_tensor(), rows_of(head_input(m), c->C, n - 1, 1), head_weight(m), no_tensor(), ACT_NONE, m->stream);
    download_floats(m, m->a.logits, 0, c->V, logits);
}
