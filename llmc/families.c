/* families.c: the tables. */
#include "families.h"

#include "error.h"
#include "huggingface.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- architectures ---------------------------------------------------------------------------------------------------------- */

/* The option that sets each property, and words for its values where they are not the option's own choices. */
static const struct { const char *option, *words; } properties[PROPERTIES] = {
    [POSITION] = {"pos", NULL}, [NORM] = {"norm", NULL}, [PLACE] = {"norm_place", NULL}, [ACTIVATION] = {"activation", NULL},
    [BIAS] = {"bias", "0|0 with qkv_bias 1|1"},
    [QK_NORM] = {"qk_norm", "0|1"},
    [KV_HEADS] = {"n_kv_head", "equal to n_head|less than n_head"},
    [HEAD_SIZE] = {"head_size", "of n_embd / n_head|other than n_embd / n_head|where n_head does not divide n_embd"},
};

/* What the architecture has of the property, in fresh memory. */
static char *property_word(const Config *c, Property p) {
    const char *words = properties[p].words ? properties[p].words : options_find(&train_options, properties[p].option)->choices;
    return option_choice_word(words, family_property(c, p));
}

int family_property(const Config *c, Property property) {
    switch (property) {
    case POSITION: return c->pos;
    case NORM: return c->norm;
    case PLACE: return c->norm_place;
    case ACTIVATION: return config_activation(c);
    case BIAS: return c->bias ? BIAS_ALL : c->qkv_bias ? BIAS_QKV : BIAS_NONE;
    case QK_NORM: return c->qk_norm;
    case KV_HEADS: return c->NKV != c->NH;
    case HEAD_SIZE: return c->NH * c->HS == c->C ? HEADS_DIVIDE_CHANNELS : c->C % c->NH == 0 ? HEADS_APART : HEADS_UNEVEN;
    default: check_failed("a property", __FILE__, __LINE__);
    }
}

#define ONLY(value) (1u << (value))
#define ANY ~0u
#define PLAIN_ACTIVATIONS (ONLY(ACTIVATION_SWIGLU) - 1)
#define DECODER(position, norm) [POSITION] = ONLY(position), [NORM] = ONLY(norm), [PLACE] = ONLY(NORM_PRE)

/* ---- tensors ---------------------------------------------------------------------------------------------------------------- */

static const TensorName llama_tensors[] = {
    {PARAMETER_wte, WHOLE, "embed_tokens.weight"},
    {PARAMETER_head, WHOLE, "lm_head.weight"},
    {PARAMETER_ln1w, WHOLE, "input_layernorm.weight"},
    {PARAMETER_qkvw, QUERIES, "self_attn.q_proj.weight"},
    {PARAMETER_qkvw, KEYS, "self_attn.k_proj.weight"},
    {PARAMETER_qkvw, VALUES, "self_attn.v_proj.weight"},
    {PARAMETER_qkvb, QUERIES, "self_attn.q_proj.bias"},
    {PARAMETER_qkvb, KEYS, "self_attn.k_proj.bias"},
    {PARAMETER_qkvb, VALUES, "self_attn.v_proj.bias"},
    {PARAMETER_qnormw, WHOLE, "self_attn.q_norm.weight"},
    {PARAMETER_knormw, WHOLE, "self_attn.k_norm.weight"},
    {PARAMETER_attprojw, WHOLE, "self_attn.o_proj.weight"},
    {PARAMETER_attprojb, WHOLE, "self_attn.o_proj.bias"},
    {PARAMETER_ln2w, WHOLE, "post_attention_layernorm.weight"},
    {PARAMETER_fcw, GATE, "mlp.gate_proj.weight"},
    {PARAMETER_fcw, UP, "mlp.up_proj.weight"},
    {PARAMETER_fcb, GATE, "mlp.gate_proj.bias"},
    {PARAMETER_fcb, UP, "mlp.up_proj.bias"},
    {PARAMETER_fcprojw, WHOLE, "mlp.down_proj.weight"},
    {PARAMETER_fcprojb, WHOLE, "mlp.down_proj.bias"},
    {PARAMETER_lnfw, WHOLE, "norm.weight"},
};

static const TensorName gpt_neox_tensors[] = {
    {PARAMETER_wte, WHOLE, "embed_in.weight"},
    {PARAMETER_head, WHOLE, "embed_out.weight"},
    {PARAMETER_ln1w, WHOLE, "input_layernorm.weight"},
    {PARAMETER_ln1b, WHOLE, "input_layernorm.bias"},
    {PARAMETER_qkvw, PACKED, "attention.query_key_value.weight"},
    {PARAMETER_qkvb, PACKED, "attention.query_key_value.bias"},
    {PARAMETER_attprojw, WHOLE, "attention.dense.weight"},
    {PARAMETER_attprojb, WHOLE, "attention.dense.bias"},
    {PARAMETER_ln2w, WHOLE, "post_attention_layernorm.weight"},
    {PARAMETER_ln2b, WHOLE, "post_attention_layernorm.bias"},
    {PARAMETER_fcw, WHOLE, "mlp.dense_h_to_4h.weight"},
    {PARAMETER_fcb, WHOLE, "mlp.dense_h_to_4h.bias"},
    {PARAMETER_fcprojw, WHOLE, "mlp.dense_4h_to_h.weight"},
    {PARAMETER_fcprojb, WHOLE, "mlp.dense_4h_to_h.bias"},
    {PARAMETER_lnfw, WHOLE, "final_layer_norm.weight"},
    {PARAMETER_lnfb, WHOLE, "final_layer_norm.bias"},
};

/* ---- families --------------------------------------------------------------------------------------------------------------- */

#define GPT2_KEYS                                                                                                                   \
    .L = "n_layer", .NH = "n_head", .C = "n_embd", .F = "n_inner", .maxT = "n_positions", .activation = "activation_function",      \
    .norm_eps = "layer_norm_epsilon", .dropouts = {"embd_pdrop", "attn_pdrop", "resid_pdrop"}
#define COMMON_KEYS                                                                                                                 \
    .L = "num_hidden_layers", .NH = "num_attention_heads", .C = "hidden_size", .F = "intermediate_size",                            \
    .maxT = "max_position_embeddings", .activation = "hidden_act"
#define LLAMA_KEYS                                                                                                                  \
    COMMON_KEYS, .NKV = "num_key_value_heads", .HS = "head_dim", .norm_eps = "rms_norm_eps", .rope_base = "rope_theta",     \
    .dropouts = {"attention_dropout"}
#define LLAMA_TENSORS                                                                                                               \
    .base = "model.", .layers = "layers.", .tensors = llama_tensors, .tensor_count = sizeof llama_tensors / sizeof *llama_tensors

static const Family families[] = {
    {
        .model_type = "gpt2", .architecture = "GPT2LMHeadModel",
        .expresses = {DECODER(POS_LEARNED, NORM_LAYERNORM), [ACTIVATION] = PLAIN_ACTIVATIONS, [BIAS] = ONLY(BIAS_ALL), [QK_NORM] = ONLY(0),
                      [KV_HEADS] = ONLY(0), [HEAD_SIZE] = ONLY(HEADS_DIVIDE_CHANNELS)},
        .tie = true, .norm_eps = 1e-5, .rotated = 1, .activation = ACT_GELU,
        .keys = {GPT2_KEYS},
        .switches = {{"scale_attn_weights", true, true}, {"scale_attn_by_inverse_layer_idx", false, false},
                     {"reorder_and_upcast_attn", false, false}, {"add_cross_attention", false, false}},
        .base = "transformer.", .layers = "h.",
    }, {
        .model_type = "llama", .architecture = "LlamaForCausalLM",
        .expresses = {DECODER(POS_ROPE, NORM_RMSNORM), [ACTIVATION] = ONLY(ACTIVATION_SWIGLU), [BIAS] = ONLY(BIAS_NONE) | ONLY(BIAS_ALL),
                      [QK_NORM] = ONLY(0), [KV_HEADS] = ANY, [HEAD_SIZE] = ONLY(HEADS_DIVIDE_CHANNELS) | ONLY(HEADS_APART)},
        .norm_eps = 1e-6, .rotated = 1, .activation = ACT_SILU,
        .keys = {LLAMA_KEYS, .biases = {"attention_bias", "mlp_bias"}},
        LLAMA_TENSORS,
    }, {
        .model_type = "qwen2", .architecture = "Qwen2ForCausalLM",
        .expresses = {DECODER(POS_ROPE, NORM_RMSNORM), [ACTIVATION] = ONLY(ACTIVATION_SWIGLU), [BIAS] = ONLY(BIAS_QKV), [QK_NORM] = ONLY(0),
                      [KV_HEADS] = ANY, [HEAD_SIZE] = ONLY(HEADS_DIVIDE_CHANNELS)},
        .norm_eps = 1e-6, .rotated = 1, .activation = ACT_SILU,
        .keys = {LLAMA_KEYS},
        .switches = {{"use_sliding_window", false, false}},
        LLAMA_TENSORS,
    }, {
        .model_type = "qwen3", .architecture = "Qwen3ForCausalLM",
        .expresses = {DECODER(POS_ROPE, NORM_RMSNORM), [ACTIVATION] = ONLY(ACTIVATION_SWIGLU), [BIAS] = ONLY(BIAS_NONE),
                      [QK_NORM] = ONLY(1),
                      [KV_HEADS] = ANY, [HEAD_SIZE] = ANY},
        .head_size = 128, .norm_eps = 1e-6, .rotated = 1, .activation = ACT_SILU,
        .keys = {LLAMA_KEYS},
        .switches = {{"use_sliding_window", false, false}, {"attention_bias", false, false}},
        LLAMA_TENSORS,
    }, {
        .model_type = "gpt_neox", .architecture = "GPTNeoXForCausalLM",
        .expresses = {DECODER(POS_ROPE, NORM_LAYERNORM), [ACTIVATION] = PLAIN_ACTIVATIONS, [BIAS] = ONLY(BIAS_ALL), [QK_NORM] = ONLY(0),
                      [KV_HEADS] = ONLY(0), [HEAD_SIZE] = ONLY(HEADS_DIVIDE_CHANNELS)},
        .norm_eps = 1e-5, .rotated = 0.25, .activation = ACT_GELU_ERF,
        .keys = {COMMON_KEYS, .norm_eps = "layer_norm_eps", .dropouts = {"attention_dropout", "hidden_dropout"},
                 .rope_base = "rotary_emb_base", .rotated = "rotary_pct"},
        .switches = {{"use_parallel_residual", false, true}, {"attention_bias", true, true}},
        .base = "gpt_neox.", .layers = "layers.", .tensors = gpt_neox_tensors,
        .tensor_count = sizeof gpt_neox_tensors / sizeof *gpt_neox_tensors,
    }, {
        .model_type = "train_gpt", .architecture = "TrainGPT", .native = true,
        .expresses = {ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY},
        .tie = true, .norm_eps = 1e-5, .rotated = 1, .activation = ACT_GELU,
        .keys = {GPT2_KEYS, .NKV = "num_key_value_heads", .HS = "head_dim", .rope_base = "rope_theta"},
        .base = "transformer.", .layers = "h.",
    },
};
enum { FAMILIES = sizeof families / sizeof *families, NATIVE = FAMILIES - 1 };

const Family *family_named(const char *model_type) {
    for (int i = 0; i < FAMILIES; i++)
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    return NULL;
}

char *family_names(void) {
    char *names = xstrdup(families[0].model_type);
    for (int i = 1; i < FAMILIES; i++) {
        char *longer = xprintf("%s, %s", names, families[i].model_type);
        free(names);
        names = longer;
    }
    return names;
}

static bool expresses(const Family *family, const Config *c, Property p) { return family->expresses[p] >> family_property(c, p) & 1; }

static int count_lacking(const Family *family, const Config *c) {
    int lacking = 0;
    for (int p = 0; p < PROPERTIES; p++) lacking += !expresses(family, c, p);
    return lacking;
}

const Family *family_of(const Config *c) {
    int i = 0;
    while (count_lacking(&families[i], c) > 0) i++;
    return &families[i];
}

const char *huggingface_family(const Config *c, char error[ERROR_SIZE]) {
    const Family *nearest = family_of(c);
    if (nearest != &families[NATIVE]) return nearest->model_type;
    nearest = &families[0];
    for (int i = 1; i < NATIVE; i++)
        if (count_lacking(&families[i], c) < count_lacking(nearest, c)) nearest = &families[i];
    int used = snprintf(error, ERROR_SIZE, "no Hugging Face family has this architecture: the nearest, %s, has no", nearest->model_type);
    const char *separator = " ";
    for (int p = 0; p < PROPERTIES; p++) {
        if (expresses(nearest, c, p)) continue;
        char *word = property_word(c, (Property)p);
        used += snprintf(error + used, (size_t)(ERROR_SIZE - used), "%s%s %s", separator, properties[p].option, word);
        free(word);
        separator = ", and no ";
    }
    return NULL;
}

const TensorName *family_tensor(const Family *family, ParameterKind parameter, int n) {
    for (int i = 0; i < family->tensor_count; i++)
        if (family->tensors[i].parameter == parameter && n-- == 0) return &family->tensors[i];
    return NULL;
}
