/* hf_config.c: config.json read, by the tables of families.c. */
#include "huggingface.h"

#include "error.h"
#include "families.h"
#include "hf_words.h"

#include <stdlib.h>
#include <string.h>

/* ---- reading members -------------------------------------------------------------------------------------------------------- */

static bool unusable(const char *key, const char *expected, char error[ERROR_SIZE]) {
    return file_error(error, "config.json has no usable '%s'; expected %s", key, expected);
}

/* The member, unless it is absent or null. */
static const Json *present(const Json *json, const char *key) {
    const Json *member = json_get(json, key);
    return member && member->type != JSON_NULL ? member : NULL;
}

static bool read_integer(const Json *json, const char *key, int64_t *value, char error[ERROR_SIZE]) {
    return json_get_integer(json, key, value) || unusable(key, "a whole number", error);
}
static bool integer_or(const Json *json, const char *key, int64_t fallback, int64_t *value, char error[ERROR_SIZE]) {
    *value = fallback;
    return !key || !present(json, key) || read_integer(json, key, value, error);
}
static bool number_or(const Json *json, const char *key, double fallback, double least, double most, double *value,
                      char error[ERROR_SIZE]) {
    *value = fallback;
    if (!key || !present(json, key)) return true;
    if (json_get_number(json, key, value) && *value >= least && *value <= most) return true;
    return file_error(error, "config.json has no usable '%s'; expected a number of %g to %g", key, least, most);
}
static bool flag_or(const Json *json, const char *key, bool fallback, bool *value, char error[ERROR_SIZE]) {
    *value = fallback;
    return !present(json, key) || json_get_bool(json, key, value) || unusable(key, "true or false", error);
}
/* *value: the number of the member's word among the option's choices. */
static bool choice_or(const Json *json, const char *key, const char *option, int fallback, int *value, char error[ERROR_SIZE]) {
    const char *word = json_get_string(json, key);
    *value = fallback;
    if (!json_get(json, key)) return true;
    *value = word ? option_choice_index(choices_of(option), word) : -1;
    return *value >= 0 || file_error(error, "config.json has no usable '%s'; expected one of %s", key, choices_of(option));
}

static bool lacking(const char *key, const char *value, char error[ERROR_SIZE]) {
    return file_error(error, "config.json has %s %.60s, which this engine lacks", key, value);
}

/* ---- what the engine lacks -------------------------------------------------------------------------------------------------- */

static bool check_switches(const Family *family, const Json *json, char error[ERROR_SIZE]) {
    for (const ConfigSwitch *s = family->switches; s->key; s++) {
        bool value;
        if (!flag_or(json, s->key, s->absent, &value, error)) return false;
        if (value == s->needed) continue;
        if (present(json, s->key)) return lacking(s->key, value ? "true" : "false", error);
        return file_error(error, "config.json lacks %s, which then is %s: this engine has only %s", s->key, value ? "true" : "false",
                          s->needed ? "true" : "false");
    }
    return true;
}

/* Members of relatives of the families, and what they mean. Those who do not know them would load something else without a word. */
static bool check_features(const Family *family, const Json *json, char error[ERROR_SIZE]) {
    static const struct { const char *key, *meaning; } features[] = {
        {"num_experts", "a mixture of experts"}, {"num_local_experts", "a mixture of experts"},
        {"n_routed_experts", "a mixture of experts"},
        {"quantization_config", "quantised weights"}, {"sliding_window", "attention to a sliding window"},
        {"attn_logit_softcapping", "capped attention"}, {"final_logit_softcapping", "capped logits"},
    };
    bool switched_window = strncmp(family->model_type, "qwen", 4) == 0;   /* there use_sliding_window decides */
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        if (!present(json, features[i].key) || (switched_window && strcmp(features[i].key, "sliding_window") == 0)) continue;
        return file_error(error, "config.json has %s: %s, which this engine lacks", features[i].key, features[i].meaning);
    }
    const Json *layers = present(json, "layer_types");
    if (layers && layers->type != JSON_ARRAY) return unusable("layer_types", "a list", error);
    for (size_t i = 0; layers && i < layers->count; i++) {
        const char *type = layers->items[i].type == JSON_STRING ? layers->items[i].string : "that are no words";
        if (strcmp(type, "full_attention") != 0) return lacking("layer_types", type, error);
    }
    int64_t slices;
    bool causal;
    if (!flag_or(json, "is_causal", true, &causal, error) || !integer_or(json, "pretraining_tp", 1, &slices, error)) return false;
    if (!causal) return lacking("is_causal", "false: attention to later tokens", error);
    return slices <= 1 || lacking("pretraining_tp", "above 1", error);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

static bool read_sizes(const Family *family, const Json *json, Config *c, char error[ERROR_SIZE]) {
    const ConfigKeys *keys = &family->keys;
    bool gpt2 = strcmp(keys->F, "n_inner") == 0;   /* 4 C, where it is not said */
    if (!read_integer(json, keys->L, &c->L, error) || !read_integer(json, keys->NH, &c->NH, error)
        || !read_integer(json, keys->C, &c->C, error) || !read_integer(json, keys->maxT, &c->maxT, error)
        || !read_integer(json, "vocab_size", &c->V, error)) return false;
    if (c->NH < 1) return unusable(keys->NH, "a number from 1 on", error);
    int64_t four_times = c->C <= MAX_CHANNELS ? 4 * c->C : 0;
    if (gpt2 ? !integer_or(json, keys->F, four_times, &c->F, error) : !read_integer(json, keys->F, &c->F, error)) return false;
    if (!integer_or(json, keys->NKV, c->NH, &c->NKV, error)) return false;
    int64_t head_size = family->head_size ? family->head_size : c->C % c->NH == 0 ? c->C / c->NH : 0;
    if (!integer_or(json, keys->HS, head_size, &c->HS, error)) return false;
    if (head_size > 0 || (keys->HS && present(json, keys->HS))) return true;
    return file_error(error, "config.json has %s %lld, which does not divide %s %lld", keys->NH, (long long)c->NH, keys->C,
                      (long long)c->C);
}

static bool read_activation(const Family *family, const Json *json, Config *c, char error[ERROR_SIZE]) {
    const char *key = family->keys.activation, *name = json_get_string(json, key);
    c->activation = family->activation;
    if (json_get(json, key) && !name) return unusable(key, "the name of an activation", error);
    if (name && !activation_named(&c->activation, name)) return lacking(key, name, error);
    if (!c->gated || c->activation == ACT_SILU) return true;
    return file_error(error, "config.json has a gated MLP with %s %s; the only one in this engine is silu", key,
                      activation_name(c->activation));
}

/* The one object about RoPE that counts: as in transformers, a rope_scaling that is not empty stands in the place of rope_parameters. */
static const char *rope_object(const Json *json) {
    const Json *scaling = present(json, "rope_scaling");
    bool empty = !scaling || (scaling->type == JSON_OBJECT && scaling->count == 0);
    return empty ? "rope_parameters" : "rope_scaling";
}

/* attention_factor; or what follows from mscale and mscale_all_dim, or from neither. */
static bool read_magnitude(const Json *rope, RopeScaling *s, char error[ERROR_SIZE]) {
    double scale, scale_all;
    if (!number_or(rope, "mscale", 0, 0, 1000, &scale, error) || !number_or(rope, "mscale_all_dim", 0, 0, 1000, &scale_all, error)
        || !number_or(rope, "attention_factor", 0, 1e-6, 1000, &s->magnitude, error)) return false;
    double growth = yarn_magnitude(s->factor) - 1;
    if (s->magnitude == 0 && scale > 0 && scale_all > 0) s->magnitude = (1 + scale * growth) / (1 + scale_all * growth);
    return true;
}

/* What scales, of the object about RoPE. As in transformers, the original context is the model's where it is not said, and YaRN's factor where
   it is null is the quotient of the two. */
static bool read_scaling(const Json *json, const Json *rope, ScalingKind kind, Config *c, char error[ERROR_SIZE]) {
    static const char original[] = "original_max_position_embeddings";
    RopeScaling s = {.kind = kind};
    bool yarn = kind == SCALING_YARN, llama3 = kind == SCALING_LLAMA3;
    const char *low = yarn ? "beta_slow" : "low_freq_factor", *high = yarn ? "beta_fast" : "high_freq_factor";
    if (!integer_or(present(json, original) ? json : rope, original, c->maxT, &s.original_len, error)) return false;
    double longer = yarn && s.original_len > 0 ? (double)c->maxT / (double)s.original_len : 0;
    if (!number_or(rope, "factor", longer, 1, 1e6, &s.factor, error) || !number_or(rope, low, 0, 0, 1e6, &s.low_freq, error)
        || !number_or(rope, high, 0, 0, 1e6, &s.high_freq, error) || !flag_or(rope, "truncate", true, &s.whole_pairs, error)
        || (yarn && !read_magnitude(rope, &s, error))) return false;
    if (!(s.factor > 0)) return unusable("factor", "a number of 1 to 1e+06", error);
    if (llama3 && !(s.low_freq > 0 && s.high_freq > 0)) return unusable(s.low_freq > 0 ? high : low, "a number above 0", error);
    c->rope_scaling = rope_scaling_settled(s);
    return true;
}

/* The number of rope_type, or of type, its older name; -1 with a sentence if there is no such scaling here. */
static int read_scaling_kind(const Json *rope, const char *key, char error[ERROR_SIZE]) {
    const char *name = json_get(rope, "rope_type") ? "rope_type" : "type", *type = json_get_string(rope, name);
    if (!json_get(rope, name)) return SCALING_NONE;
    for (int kind = SCALING_NONE; type && kind <= SCALING_YARN; kind++)
        if (strcmp(type, scaling_names[kind]) == 0) return kind;
    if (!type) unusable(name, "a word", error);
    else file_error(error, "config.json has %s of type '%.40s', which this engine lacks; it has default, linear, llama3 and yarn", key, type);
    return -1;
}

/* {"rope_type": "default", "rope_theta": ..., "partial_rotary_factor": ...}, all of it optional, and what a scaling has besides */
static bool read_rope_object(const Json *json, Config *c, double *rotated, char error[ERROR_SIZE]) {
    const char *key = rope_object(json);
    const Json *rope = present(json, key);
    if (!rope) return true;
    if (rope->type != JSON_OBJECT) return unusable(key, "an object", error);
    for (size_t i = 0; i < rope->count; i++)
        if (rope->items[i].type == JSON_OBJECT) return lacking(key, "of each kind of layer", error);
    int kind = read_scaling_kind(rope, key, error);
    return kind >= 0 && number_or(rope, "rope_theta", c->rope_base, 1, 1e12, &c->rope_base, error)
        && number_or(rope, "partial_rotary_factor", *rotated, 0, 1, rotated, error)
        && (kind == SCALING_NONE || read_scaling(json, rope, (ScalingKind)kind, c, error));
}

static bool refuse_rotated(const Json *json, const char *object, const char *key, double rotated, char error[ERROR_SIZE]) {
    static const char in_object[] = "partial_rotary_factor", meaning[] = "RoPE on a part of each head, which this engine lacks";
    if (present(present(json, object), in_object))
        return file_error(error, "config.json has %s.%s %g: %s", object, in_object, rotated, meaning);
    if (present(json, key)) return file_error(error, "config.json has %s %g: %s", key, rotated, meaning);
    return file_error(error, "config.json lacks %s, which then is %g: %s", key, rotated, meaning);
}

/* Where heads have no key for their size, head_dim still is the number of channels that transformers rotates. */
static bool check_head_dim(const Json *json, const Config *c, char error[ERROR_SIZE]) {
    int64_t rotated;
    if (!integer_or(json, "head_dim", c->HS, &rotated, error)) return false;
    return rotated == c->HS || file_error(error, "config.json has head_dim %lld, where heads have %lld channels; this engine rotates all "
                                                 "of them, and no more", (long long)rotated, (long long)c->HS);
}

/* The base, and that all of each head is rotated. */
static bool read_rope(const Family *family, const Json *json, Config *c, char error[ERROR_SIZE]) {
    const char *object = rope_object(json), *key = family->keys.rotated ? family->keys.rotated : "partial_rotary_factor";
    double rotated;
    int layout;
    if (!number_or(json, family->keys.rope_base, 10000, 1, 1e12, &c->rope_base, error)
        || !number_or(json, key, family->rotated, 0, 1, &rotated, error) || !read_rope_object(json, c, &rotated, error)
        || !choice_or(json, rope_layout_key, "rope_layout", ROPE_HALF, &layout, error)
        || (!family->keys.HS && !check_head_dim(json, c, error))) return false;
    c->rope_layout = (RopeLayout)layout;
    return rotated == 1 || refuse_rotated(json, object, key, rotated, error);
}

static bool read_native(const Json *json, Config *c, char error[ERROR_SIZE]) {
    int pos, layout, norm, place;
    double rotated = 1;   /* whose object about RoPE has no such member */
    if (!choice_or(json, "position_embedding", "pos", POS_LEARNED, &pos, error)
        || !choice_or(json, "rope_layout", "rope_layout", ROPE_INTERLEAVED, &layout, error)
        || !choice_or(json, "norm", "norm", NORM_LAYERNORM, &norm, error)
        || !choice_or(json, "norm_place", "norm_place", NORM_PRE, &place, error)
        || !number_or(json, "rope_theta", 10000, 1, 1e12, &c->rope_base, error) || !flag_or(json, "gated", false, &c->gated, error)
        || !flag_or(json, "qk_norm", false, &c->qk_norm, error) || !flag_or(json, "use_bias", true, &c->bias, error)
        || !flag_or(json, "qkv_bias", c->bias, &c->qkv_bias, error)) return false;
    c->pos = (Position)pos;
    c->rope_layout = (RopeLayout)layout;
    c->norm = (Norm)norm;
    c->norm_place = (NormPlace)place;
    if (c->bias && !c->qkv_bias)
        return file_error(error, "config.json has use_bias true, but qkv_bias false; expected both true, or use_bias false");
    return c->pos != POS_ROPE || read_rope_object(json, c, &rotated, error);
}

static int least_bit(unsigned bits) { return __builtin_ctz(bits); }

/* What the family alone says; and, where it leaves a choice, the flags about biases. */
static bool read_architecture(const Family *family, const Json *json, Config *c, char error[ERROR_SIZE]) {
    c->pos = (Position)least_bit(family->expresses[POSITION]);
    c->norm = (Norm)least_bit(family->expresses[NORM]);
    c->norm_place = (NormPlace)least_bit(family->expresses[PLACE]);
    c->gated = least_bit(family->expresses[ACTIVATION]) == ACTIVATION_SWIGLU;
    c->qk_norm = least_bit(family->expresses[QK_NORM]);
    c->bias = least_bit(family->expresses[BIAS]) == BIAS_ALL;
    c->qkv_bias = least_bit(family->expresses[BIAS]) != BIAS_NONE;
    const char *const *keys = family->keys.biases;
    for (int i = 0; keys[i]; i++) {
        bool flag;
        if (!flag_or(json, keys[i], false, &flag, error)) return false;
        if (i > 0 && flag != c->bias)
            return file_error(error, "config.json has %s %s, but %s %s; this engine has biases in both, or in neither", keys[0],
                              c->bias ? "true" : "false", keys[i], flag ? "true" : "false");
        c->bias = c->qkv_bias = flag;
    }
    c->rope_base = 10000;
    c->rope_layout = ROPE_INTERLEAVED;
    return c->pos != POS_ROPE || read_rope(family, json, c, error);
}

/* The engine has one probability. Of several it takes the last, the residual branches', and says so, once. */
static bool read_dropout(const Family *family, const Json *json, Config *c, char error[ERROR_SIZE]) {
    static bool said;
    const char *last = NULL, *other = NULL;
    double p, of_other = 0;
    c->dropout = 0;
    for (const char *const *key = family->keys.dropouts; *key; key++) {
        if (!number_or(json, *key, 0, 0, 0.95, &p, error)) return false;
        if (!present(json, *key)) continue;
        if (last && p != c->dropout) {
            other = last;
            of_other = c->dropout;
        }
        last = *key;
        c->dropout = p;
    }
    if (other && !said)
        warn("config.json has %s %g, but %s %g; this engine has one dropout for all, and takes %g", other, of_other, last, c->dropout,
             c->dropout);
    said = said || other;
    return true;
}

bool config_read_json(Config *c, const Json *json, char error[ERROR_SIZE]) {
    memset(c, 0, sizeof *c);
    const char *type = json_get_string(json, "model_type");
    const Family *family = type ? family_named(type) : NULL;
    if (!family) {
        char *names = family_names();
        file_error(error, "config.json has model_type '%.60s'; this engine reads %s", type ? type : "(none)", names);
        free(names);
        return false;
    }
    const ConfigKeys *keys = &family->keys;
    return check_switches(family, json, error) && check_features(family, json, error) && read_sizes(family, json, c, error)
        && (family->native ? read_native(json, c, error) : read_architecture(family, json, c, error))
        && read_activation(family, json, c, error)
        && number_or(json, keys->norm_eps, family->norm_eps, 1e-12, 1, &c->norm_eps, error)
        && read_dropout(family, json, c, error)
        && flag_or(json, "tie_word_embeddings", family->tie, &c->tie, error) && config_check(c, error);
}

bool config_read_directory(const char *directory, Config *config, const Family **family, char error[ERROR_SIZE]) {
    enum { MOST_BYTES = 16 << 20 };
    char cause[ERROR_SIZE], *path = path_join(directory, "config.json");
    size_t length;
    char *text = file_read_text(path, MOST_BYTES, &length, error);
    Json *json = text ? json_parse(text, length, cause, sizeof cause) : NULL;
    bool good = json && config_read_json(config, json, cause);
    if (good) *family = family_named(json_get_string(json, "model_type"));
    else if (text) file_error(error, "%.200s: %.300s", path, cause);
    json_free(json);
    free(text);
    free(path);
    return good;
}
