/* parameters.h: the parameters of a model, declared once. A row gives the field of the struct, when it exists, its shape in memory (rows,
   columns; rows 0 for a vector), how it begins, whether weight decay applies, whether the file holds it transposed (Hugging Face's
   GPT-2 stores its linear layers in x out), and its name in files. Order in memory: embeddings and head, then layer by layer, then the
   final norm, so that a layer's gradients are one piece; in each of these, decayed tensors come first, so that the optimizer sees few
   pieces. Every tensor begins at a multiple of 64 elements.

     ONCE  one tensor                LAYER  one for each of the L layers, named transformer.h.N.<name>               */
#ifndef LLMC_PARAMETERS_H
#define LLMC_PARAMETERS_H

#include "config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { INIT_ZERO, INIT_ONE, INIT_EMBEDDING, INIT_LINEAR, INIT_RESIDUAL } InitKind;

/*        field      exists              rows      columns             init            decay  file transposed, name */
#define PARAMETER_LIST(ONCE, LAYER)                                                                                                 \
    ONCE (wte,       true,               c->Vp,    c->C,               INIT_EMBEDDING, 1, 0, "transformer.wte.weight")              \
    ONCE (wpe,       c->pos == POS_LEARNED, c->maxT, c->C,             INIT_EMBEDDING, 1, 0, "transformer.wpe.weight")              \
    ONCE (head,      !c->tie,            c->Vp,    c->C,               INIT_EMBEDDING, 1, 0, "lm_head.weight")                      \
    LAYER(qkvw,      true,               config_qkv_width(c), c->C,    INIT_LINEAR,    1, 1, "attn.c_attn.weight")                  \
    LAYER(attprojw,  true,               c->C,     c->NH * c->HS,      INIT_RESIDUAL,  1, 1, "attn.c_proj.weight")                  \
    LAYER(fcw,       true,               config_fc_width(c), c->C,     INIT_LINEAR,    1, 1, "mlp.c_fc.weight")                     \
    LAYER(fcprojw,   true,               c->C,     c->F,               INIT_RESIDUAL,  1, 1, "mlp.c_proj.weight")                   \
    LAYER(ln1w,      c->norm != NORM_NONE, 0,      c->C,               INIT_ONE,       0, 0, "ln_1.weight")                         \
    LAYER(ln1b,      config_norm_bias(c), 0,        c->C,               INIT_ZERO,      0, 0, "ln_1.bias")                          \
    LAYER(qkvb,      c->qkv_bias,        0,        config_qkv_width(c), INIT_ZERO,     0, 0, "attn.c_attn.bias")                    \
    LAYER(qnormw,    c->qk_norm,         0,        c->HS,              INIT_ONE,       0, 0, "attn.q_norm.weight")                  \
    LAYER(knormw,    c->qk_norm,         0,        c->HS,              INIT_ONE,       0, 0, "attn.k_norm.weight")                  \
    LAYER(attprojb,  c->bias,            0,        c->C,               INIT_ZERO,      0, 0, "attn.c_proj.bias")                    \
    LAYER(ln2w,      c->norm != NORM_NONE, 0,      c->C,               INIT_ONE,       0, 0, "ln_2.weight")                         \
    LAYER(ln2b,      config_norm_bias(c), 0,        c->C,               INIT_ZERO,      0, 0, "ln_2.bias")                          \
    LAYER(fcb,       c->bias,            0,        config_fc_width(c), INIT_ZERO,      0, 0, "mlp.c_fc.bias")                       \
    LAYER(fcprojb,   c->bias,            0,        c->C,               INIT_ZERO,      0, 0, "mlp.c_proj.bias")                     \
    ONCE (lnfw,      config_has_final_norm(c), 0,  c->C,               INIT_ONE,       0, 0, "transformer.ln_f.weight")             \
    ONCE (lnfb,      config_has_final_norm(c) && config_norm_bias(c), 0, c->C, INIT_ZERO,      0, 0, "transformer.ln_f.bias")

/* The parameters (or their gradients) as tensors; p->qkvw[l] is layer l's. Absent ones have data NULL. */
typedef struct {
#define ONCE(field, ...) Tensor field;
#define LAYER(field, ...) Tensor *field;
    PARAMETER_LIST(ONCE, LAYER)
#undef ONCE
#undef LAYER
} ParameterTensors;

typedef enum {
#define KIND(field, ...) PARAMETER_##field,
    PARAMETER_LIST(KIND, KIND)
#undef KIND
    PARAMETER_KINDS
} ParameterKind;

/* One tensor of the flat buffer. */
typedef struct {
    char *name;                   /* in files */
    ParameterKind kind;
    int64_t layer;                /* -1: not of a layer */
    int64_t rows, columns;        /* in memory; rows 0: a vector of `columns` */
    int64_t file_rows;            /* rows that files hold: V, where memory has Vp */
    int64_t offset, count;        /* in elements, in the flat buffer */
    bool decay, transposed;
    InitKind init;
} ParameterInfo;

/* A piece of the flat buffer whose gradients are ready at one moment of the backward pass: what ranks exchange at once. */
typedef struct { int64_t offset, count; } ParameterBucket;

/* Buckets in memory order: token and position embeddings; an untied head; each layer; the final norm. bucket_of_layer + l is layer l's. */
enum { BUCKET_EMBEDDING = 0 };

typedef struct {
    ParameterInfo *info;
    int count;
    int64_t elements;             /* of the flat buffer, gaps included */
    int64_t parameters;           /* of the model, as published: no padding */
    int64_t *segments;            /* boundaries of decayed (even) and undecayed (odd) pieces */
    int segment_count;            /* boundaries, one more than pieces */
    ParameterBucket *buckets;
    int bucket_count, bucket_of_head, bucket_of_layer, bucket_of_norm;   /* -1: the model has none */
} ParameterTable;

void parameters_describe(ParameterTable *table, const Config *config);
/* The same, with every bucket padded to a multiple of so many elements, itself a multiple of 64: for pieces of equal size on several ranks. */
void parameters_describe_padded(ParameterTable *table, const Config *config, int64_t multiple);
void parameters_release(ParameterTable *table);
/* Points every tensor into a flat buffer of that dtype; memory may be NULL to get shapes only. */
void parameters_bind(ParameterTensors *tensors, const ParameterTable *table, const Config *config, void *memory, DType dtype);
void parameters_unbind(ParameterTensors *tensors);

/* Initial values into the flat fp32 buffer. gpt2: N(0, 0.02), residual projections N(0, 0.02/sqrt(2L)); xavier: uniform within
   sqrt(6/(in+out)) of the matrix as it is kept, so that Q, K and V count as one, as in PyTorch's MultiheadAttention, and so do gate and up; kaiming:
   N(0, 2/in); embeddings are N(0, 0.02) under all three. The numbers depend on seed and tensor only. */
void parameters_init(float *memory, const ParameterTable *table, const Config *config, int scheme, uint64_t seed);

/* How a file holds one tensor under its own name, padding left out: the number of its elements, its shape, and its contents. How tensors go
   to files and come from them is weights.h's matter. */
int64_t parameter_file_count(const ParameterInfo *info);
void parameter_file_shape(const ParameterInfo *info, int *rank, int64_t shape[2]);
void parameter_to_file(const ParameterInfo *info, const float *memory, float *file);

#ifdef __cplusplus
}
#endif
#endif
