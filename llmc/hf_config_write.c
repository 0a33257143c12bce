/* hf_config_write.c: config.json and generation_config.json written, by the tables of families.c. */
#include "huggingface.h"

#include "families.h"
#include "hf_words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A key of an object whose first member is written already. */
static void write_key(FILE *f, const char *key) { fprintf(f, ",\n  \"%s\": ", key); }

static void write_integer(FILE *f, const char *key, int64_t value) {
    if (!key) return;
    write_key(f, key);
    fprintf(f, "%lld", (long long)value);
}
static void write_number(FILE *f, const char *key, double value) {
    if (!key) return;
    write_key(f, key);
    json_write_number(f, value);
}
static void write_word(FILE *f, const char *key, const char *word) {
    write_key(f, key);
    json_write_string(f, word);
}
static void write_flag(FILE *f, const char *key, bool value) {
    write_key(f, key);
    fputs(value ? "true" : "false", f);
}

bool is_token(const Json *id, int64_t V) {
    int64_t number;
    return json_integer(id, &number) && number >= 0 && number < V;
}

/* A token id, a list of them, or null. */
static void write_tokens(FILE *f, const Json *ids, int64_t V) {
    if (is_token(ids, V)) {
        json_write_number(f, ids->number);
    } else if (ids && ids->type == JSON_ARRAY) {
        const char *separator = "";
        fputs("[", f);
        for (size_t i = 0; i < ids->count; i++) {
            if (!is_token(&ids->items[i], V)) continue;
            fputs(separator, f);
            json_write_number(f, ids->items[i].number);
            separator = ", ";
        }
        fputs("]", f);
    } else {
        fputs("null", f);
    }
}

/* The value of "bos_token_id", whose key is written already, and the other two. */
static void write_special(FILE *f, SpecialTokens special, int64_t V) {
    write_tokens(f, special.bos, V);
    write_key(f, "eos_token_id");
    write_tokens(f, special.eos, V);
    write_key(f, "pad_token_id");
    write_tokens(f, special.pad, V);
}

static void write_choice(FILE *f, const char *key, const char *option, int number) {
    char *word = option_choice_word(choices_of(option), number);
    write_word(f, key, word);
    free(word);
}

static void write_sizes(FILE *f, const ConfigKeys *keys, const Config *c) {
    write_integer(f, keys->L, c->L);
    write_integer(f, keys->NH, c->NH);
    write_integer(f, keys->NKV, c->NKV);
    write_integer(f, keys->HS, c->HS);
    write_integer(f, keys->C, c->C);
    write_integer(f, keys->F, c->F);
    write_integer(f, keys->maxT, c->maxT);
    write_integer(f, "vocab_size", c->V);
}

/* The first members of an object about RoPE. Whole pairs, and YaRN's own magnitude for the factor, are what is meant where they are not said. */
static void write_scaling(FILE *f, const RopeScaling *s) {
    fprintf(f, "{\"rope_type\": \"%s\"", scaling_names[s->kind]);
    if (s->kind == SCALING_NONE) return;
    json_write_number_member(f, "factor", s->factor);
    if (s->kind == SCALING_LINEAR) return;
    bool yarn = s->kind == SCALING_YARN;
    json_write_number_member(f, "original_max_position_embeddings", (double)s->original_len);
    json_write_number_member(f, yarn ? "beta_slow" : "low_freq_factor", s->low_freq);
    json_write_number_member(f, yarn ? "beta_fast" : "high_freq_factor", s->high_freq);
    if (yarn && s->magnitude != yarn_magnitude(s->factor)) {
        json_write_number_member(f, "attention_factor", s->magnitude);
        if (s->magnitude == floor(s->magnitude)) fputs(".0", f);   /* transformers wants a float */
    }
    if (yarn && !s->whole_pairs) fprintf(f, ", \"truncate\": false");
}

/* Twice: transformers has read the base from a field of its own and the scaling from rope_scaling; since its release 5 it reads both from
   rope_parameters, unless there is a rope_scaling, to which it adds the base. */
static void write_rope(FILE *f, const Family *family, const Config *c) {
    write_number(f, family->keys.rope_base, c->rope_base);
    if (family->keys.rotated) write_number(f, family->keys.rotated, 1);
    if (c->rope_scaling.kind != SCALING_NONE) {
        write_key(f, "rope_scaling");
        write_scaling(f, &c->rope_scaling);
        fputs("}", f);
    }
    write_key(f, "rope_parameters");
    write_scaling(f, &c->rope_scaling);
    json_write_number_member(f, "rope_theta", c->rope_base);
    if (family->keys.rotated) fprintf(f, ", \"partial_rotary_factor\": 1.0");
    fputs("}", f);
    if (!family->native && c->rope_layout == ROPE_INTERLEAVED) write_choice(f, rope_layout_key, "rope_layout", ROPE_INTERLEAVED);
}

static void write_native(FILE *f, const Config *c) {
    write_choice(f, "position_embedding", "pos", c->pos);
    write_choice(f, "rope_layout", "rope_layout", c->rope_layout);
    write_choice(f, "norm", "norm", c->norm);
    write_choice(f, "norm_place", "norm_place", c->norm_place);
    write_flag(f, "qk_norm", c->qk_norm);
    write_flag(f, "gated", c->gated);
    write_flag(f, "use_bias", c->bias);
    write_flag(f, "qkv_bias", c->qkv_bias);
}

void config_write(FILE *f, const Config *c, DType dtype, SpecialTokens special) {
    const Family *family = family_of(c);
    const ConfigKeys *keys = &family->keys;
    const char *dtype_name = dtype == BF16 ? "bfloat16" : "float32";
    fprintf(f, "{\n  \"model_type\": \"%s\",\n  \"architectures\": [\"%s\"]", family->model_type, family->architecture);
    write_sizes(f, keys, c);
    write_word(f, keys->activation, activation_name(c->activation));
    write_number(f, keys->norm_eps, c->norm_eps);
    for (int i = 0; keys->dropouts[i]; i++) write_number(f, keys->dropouts[i], c->dropout);
    for (int i = 0; keys->biases[i]; i++) write_flag(f, keys->biases[i], c->bias);
    for (int i = 0; family->switches[i].key; i++) write_flag(f, family->switches[i].key, family->switches[i].needed);
    write_flag(f, "tie_word_embeddings", c->tie);
    if (family->native) write_native(f, c);
    if (c->pos == POS_ROPE) write_rope(f, family, c);
    write_key(f, "bos_token_id");
    write_special(f, special, c->V);
    write_word(f, "dtype", dtype_name);
    write_word(f, "torch_dtype", dtype_name);   /* the name of dtype in transformers before its release 5 */
    fprintf(f, "\n}\n");
}

void generation_config_write(FILE *f, SpecialTokens special, int64_t V) {
    fprintf(f, "{\n  \"bos_token_id\": ");
    write_special(f, special, V);
    fprintf(f, "\n}\n");
}

void config_write_json(FILE *f, const Config *c) { config_write(f, c, F32, (SpecialTokens){NULL, NULL, NULL}); }
