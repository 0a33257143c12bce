/* config.h: the architecture of a model: the one struct, its checks and its presets. */
#ifndef LLMC_CONFIG_H
#define LLMC_CONFIG_H

#include "files.h"
#include "kernels/ops.h"
#include "options.h"
#include "rope_scaling.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { POS_LEARNED, POS_ROPE, POS_NONE } Position;
typedef enum { NORM_LAYERNORM, NORM_RMSNORM, NORM_NONE } Norm;
typedef enum { NORM_PRE, NORM_POST } NormPlace;   /* x + f(norm(x)), with a norm before the head; or norm(x + f(x)), with none */

typedef struct {
    int64_t L, NH, NKV, HS, C, F;   /* layers, query heads, key/value heads, head size, channels, hidden width of the MLP */
    int64_t V, Vp;                  /* vocabulary, and the same padded to a multiple of 128 */
    int64_t maxT;                   /* rows of the position table; for RoPE and no position, the context it was trained at */
    Position pos;
    double rope_base;
    RopeLayout rope_layout;
    RopeScaling rope_scaling;
    Activation activation;
    bool gated;                     /* SwiGLU: the activation (SILU) of one half of the MLP's first product times the other half */
    Norm norm;
    NormPlace norm_place;
    bool qk_norm;                   /* RMSNorm of every query and key head, before RoPE */
    bool bias, qkv_bias, tie;       /* qkv_bias: of Q, K and V; bias: of everything, and then qkv_bias is true too */
    double norm_eps, dropout;
} Config;

/* Fills the options that the user left open from a preset ("gpt2-124M"). False if there is none of that name. */
bool config_preset(Options *options, const char *name);
/* Names of the presets, comma-separated, for messages. */
const char *config_preset_names(void);
/* The architecture in a few words, for the banner. Valid until the next call. */
const char *config_describe(const Config *config);
/* Copies a model's architecture, and its context as seq_len, into the options that the user left open: continuing it needs no repeated
   flags. */
void config_to_options(const Config *config, Options *options);

/* The architecture that the options describe, with derived sizes filled in; vocab_size must be known by now. False with the reason if
   the sizes contradict each other. */
bool config_from_options(Config *config, const Options *options, char error[ERROR_SIZE]);
/* What the options say to the backend before its first op, and to AdamW. The settings point into the options. */
BackendSettings settings_from_options(const Options *options);
/* Configures it so. keeps: the file of algorithms is read, and written when new ones are timed; else it is only read, as by all ranks but the
   first. */
void configure_from_options(const Backend *backend, const Options *options, bool keeps);
AdamW adamw_from_options(const Options *options);
/* The checks of config_from_options, for a config from anywhere; sets Vp. */
bool config_check(Config *config, char error[ERROR_SIZE]);
/* False, with the first field that differs and both values, unless a and b are the same architecture (dropout and maxT of a model without
   a position table aside). */
bool config_same(const Config *a, const Config *b, char error[ERROR_SIZE]);

/* Floating-point operations to train on one token: 6N + 6 L (NH HS) T, where N counts the parameters used in matrix products. */
double config_flops_per_token(const Config *config, int64_t T);
int64_t config_matmul_parameters(const Config *config);

/* The number of the word of --activation: its words name the Activations from GELU on, in their order, and last the gated MLP. */
enum { ACTIVATION_SWIGLU = ACT_RELU2 - ACT_GELU + 1 };
static inline int config_activation(const Config *c) { return c->gated ? (int)ACTIVATION_SWIGLU : (int)(c->activation - ACT_GELU); }

static inline int64_t config_qkv_width(const Config *c) { return (c->NH + 2 * c->NKV) * c->HS; }
/* Columns of the MLP's first product: with SwiGLU the gate's F, then the other F. */
static inline int64_t config_fc_width(const Config *c) { return (c->gated ? 2 : 1) * c->F; }
/* RMSNorm has no bias. */
static inline bool config_norm_bias(const Config *c) { return c->bias && c->norm == NORM_LAYERNORM; }
static inline bool config_has_final_norm(const Config *c) { return c->norm != NORM_NONE && c->norm_place == NORM_PRE; }

#ifdef __cplusplus
}
#endif
#endif
