/* config.c: presets, checks and JSON of the architecture. */
#include "config.h"

#include "error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A preset is a name and the options it sets; learning rates are those of the GPT-3 paper for the size. */
typedef struct { const char *name; const char *settings[16]; } Preset;
#define GPT2(layers, heads, channels, rate)                                                                                         \
    {"n_layer=" layers, "n_head=" heads, "n_embd=" channels, "vocab_size=50257", "max_seq_len=1024", "seq_len=1024", "pos=learned", \
     "lr=" rate, "beta2=0.95", "warmup=700", "data_order=shards", NULL}
static const Preset presets[] = {
    {"baby", {"n_layer=6", "n_head=6", "n_embd=192", "seq_len=128", NULL}},
    {"gpt2-124M", GPT2("12", "12", "768", "6e-4")},
    {"gpt2-350M", GPT2("24", "16", "1024", "3e-4")},
    {"gpt2-774M", GPT2("36", "20", "1280", "2.5e-4")},
    {"gpt2-1558M", GPT2("48", "25", "1600", "2e-4")},
};
enum { PRESETS = sizeof presets / sizeof *presets };

static void set_if_open(Options *options, const char *key, const char *text, OptionSource source) {
    char error[ERROR_SIZE];
    if (!options_set(&train_options, options, key, text, source, error)) die("%s", error);
}

bool config_preset(Options *options, const char *name) {
    for (int i = 0; i < PRESETS; i++) {
        if (strcmp(presets[i].name, name) != 0) continue;
        for (const char *const *setting = presets[i].settings; *setting; setting++) {
            size_t n = strcspn(*setting, "=");
            char *key = xprintf("%.*s", (int)n, *setting);
            set_if_open(options, key, *setting + n + 1, FROM_MODEL);
            free(key);
        }
        return true;
    }
    return false;
}

const char *config_preset_names(void) {
    static char names[256];
    names[0] = 0;
    for (int i = 0; i < PRESETS; i++) {
        if (i > 0) strcat(names, ", ");
        strcat(names, presets[i].name);
    }
    return names;
}

void config_to_options(const Config *c, Options *options) {
    static const char *const positions[] = {"learned", "rope", "none"}, *const activations[] = {"", "gelu", "gelu-erf", "relu"};
    char text[64];
#define SET(key, ...) (snprintf(text, sizeof text, __VA_ARGS__), set_if_open(options, key, text, FROM_MODEL))
    SET("n_layer", "%lld", (long long)c->L);
    SET("n_head", "%lld", (long long)c->NH);
    SET("n_kv_head", "%lld", (long long)c->NKV);
    SET("head_size", "%lld", (long long)c->HS);
    SET("n_embd", "%lld", (long long)c->C);
    SET("n_hidden", "%lld", (long long)c->F);
    SET("vocab_size", "%lld", (long long)c->V);
    SET("max_seq_len", "%lld", (long long)c->maxT);
    SET("seq_len", "%lld", (long long)c->maxT);
    SET("pos", "%s", positions[c->pos]);
    SET("activation", "%s", activations[c->activation]);
    SET("bias", "%d", c->bias);
    SET("tie", "%d", c->tie);
    SET("rope_base", "%.17g", c->rope_base);
    SET("rope_layout", "%s", c->rope_layout == ROPE_HALF ? "half" : "interleaved");
    SET("norm_eps", "%.17g", c->norm_eps);
    SET("dropout", "%.17g", c->dropout);
#undef SET
}

bool config_from_options(Config *c, const Options *o, char error[ERROR_SIZE]) {
    memset(c, 0, sizeof *c);
    c->L = o->n_layer;
    c->NH = o->n_head;
    c->NKV = o->n_kv_head ? o->n_kv_head : o->n_head;
    c->C = o->n_embd;
    if (!o->head_size && c->C % c->NH != 0) {
        snprintf(error, ERROR_SIZE, "--n-head %lld does not divide --n-embd %lld; choose a divisor, or set --head-size", (long long)c->NH, (long long)c->C);
        return false;
    }
    c->HS = o->head_size ? o->head_size : c->C / c->NH;
    c->F = o->n_hidden ? o->n_hidden : 4 * c->C;
    c->V = o->vocab_size;
    c->maxT = o->max_seq_len ? o->max_seq_len : o->seq_len;
    c->pos = (Position)o->pos;
    c->rope_base = o->rope_base;
    c->rope_layout = (RopeLayout)o->rope_layout;
    c->activation = (Activation)(o->activation + ACT_GELU);
    c->bias = o->bias;
    c->tie = o->tie;
    c->norm_eps = o->norm_eps;
    c->dropout = o->dropout;
    return config_check(c, error);
}

BackendSettings settings_from_options(const Options *o) {
    BackendSettings settings = {
        .attention = (AttentionKind)o->attention, .tf32 = (int)o->tf32, .deterministic = (int)o->deterministic,
        .autotune = o->autotune && !o->deterministic,   /* what is timed may come out otherwise next time */
    };
    if (settings.autotune && o->algorithms[0]) settings.algorithms = o->algorithms;
    return settings;
}

AdamW adamw_from_options(const Options *o) {
    return (AdamW){(float)o->beta1, (float)o->beta2, (float)o->eps, (float)o->weight_decay};
}

bool config_check(Config *c, char error[ERROR_SIZE]) {
    static const struct { const char *name; size_t field; int64_t most; } sizes[] = {
        {"n_layer", offsetof(Config, L), 1024}, {"n_head", offsetof(Config, NH), 4096}, {"n_kv_head", offsetof(Config, NKV), 4096},
        {"head_size", offsetof(Config, HS), MAX_HEAD_SIZE}, {"n_embd", offsetof(Config, C), MAX_CHANNELS}, {"n_hidden", offsetof(Config, F), 1048576},
        {"vocab_size", offsetof(Config, V), 16777216}, {"max_seq_len", offsetof(Config, maxT), 1048576},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t value = *(const int64_t *)((const char *)c + sizes[i].field);
        if (value < 1 || value > sizes[i].most) {
            snprintf(error, ERROR_SIZE, "%s is %lld; expected 1 to %lld", sizes[i].name, (long long)value, (long long)sizes[i].most);
            return false;
        }
    }
    if (c->NH % c->NKV != 0) {
        snprintf(error, ERROR_SIZE, "%lld key/value heads do not divide %lld query heads; choose a divisor", (long long)c->NKV, (long long)c->NH);
        return false;
    }
    if (c->pos == POS_ROPE && c->HS % 2 != 0) {
        snprintf(error, ERROR_SIZE, "RoPE rotates pairs of channels, but the head size is %lld; choose an even --head-size", (long long)c->HS);
        return false;
    }
    c->Vp = (c->V + 127) / 128 * 128;
    return true;
}

bool config_same(const Config *a, const Config *b, char error[ERROR_SIZE]) {
#define DIFFERS(name, field, format, type)                                                                                          \
    if (a->field != b->field) {                                                                                                     \
        snprintf(error, ERROR_SIZE, "%s is " format " in the checkpoint, but " format " was asked for", name, (type)a->field, (type)b->field); \
        return false;                                                                                                               \
    }
    DIFFERS("n_layer", L, "%lld", long long)
    DIFFERS("n_head", NH, "%lld", long long)
    DIFFERS("n_kv_head", NKV, "%lld", long long)
    DIFFERS("head_size", HS, "%lld", long long)
    DIFFERS("n_embd", C, "%lld", long long)
    DIFFERS("n_hidden", F, "%lld", long long)
    DIFFERS("vocab_size", V, "%lld", long long)
    DIFFERS("pos (0 learned, 1 rope, 2 none)", pos, "%d", int)
    if (a->pos == POS_LEARNED) DIFFERS("max_seq_len", maxT, "%lld", long long)
    if (a->pos == POS_ROPE) {
        DIFFERS("rope_base", rope_base, "%g", double)
        DIFFERS("rope_layout (0 interleaved, 1 half)", rope_layout, "%d", int)
    }
    DIFFERS("activation (1 gelu, 2 gelu-erf, 3 relu)", activation, "%d", int)
    DIFFERS("bias", bias, "%d", int)
    DIFFERS("tie", tie, "%d", int)
    DIFFERS("norm_eps", norm_eps, "%g", double)
#undef DIFFERS
    return true;
}

static const char *const activation_names[] = {"", "gelu_new", "gelu", "relu"};   /* Hugging Face's, by Activation */

static bool is_gpt2(const Config *c) { return c->pos == POS_LEARNED && c->bias && c->NKV == c->NH && c->HS * c->NH == c->C; }

void config_write_json(FILE *f, const Config *c) {
    bool gpt2 = is_gpt2(c);
    fprintf(f, "{\n  \"model_type\": \"%s\",\n  \"architectures\": [\"%s\"],\n", gpt2 ? "gpt2" : "train_gpt", gpt2 ? "GPT2LMHeadModel" : "TrainGPT");
    fprintf(f, "  \"n_layer\": %lld,\n  \"n_head\": %lld,\n  \"n_embd\": %lld,\n", (long long)c->L, (long long)c->NH, (long long)c->C);
    fprintf(f, "  \"n_inner\": %lld,\n  \"n_positions\": %lld,\n  \"vocab_size\": %lld,\n", (long long)c->F, (long long)c->maxT, (long long)c->V);
    fprintf(f, "  \"activation_function\": \"%s\",\n  \"tie_word_embeddings\": %s,\n", activation_names[c->activation], c->tie ? "true" : "false");
    fprintf(f, "  \"layer_norm_epsilon\": ");
    json_write_number(f, c->norm_eps);
    static const char *const dropouts[] = {"embd_pdrop", "attn_pdrop", "resid_pdrop"};
    for (int i = 0; i < 3; i++) {
        fprintf(f, ",\n  \"%s\": ", dropouts[i]);
        json_write_number(f, c->dropout);
    }
    if (!gpt2) {
        static const char *const positions[] = {"learned", "rope", "none"};
        fprintf(f, ",\n  \"num_key_value_heads\": %lld,\n  \"head_dim\": %lld,\n  \"use_bias\": %s,\n", (long long)c->NKV, (long long)c->HS, c->bias ? "true" : "false");
        fprintf(f, "  \"position_embedding\": \"%s\",\n  \"rope_layout\": \"%s\",\n  \"rope_theta\": ", positions[c->pos], c->rope_layout == ROPE_HALF ? "half" : "interleaved");
        json_write_number(f, c->rope_base);
    }
    fprintf(f, "\n}\n");
}

/* Index of word in names[n], or -1. */
static int name_index(const char *const *names, int n, const char *word) {
    for (int i = 0; i < n; i++)
        if (word && *names[i] && strcmp(names[i], word) == 0) return i;
    return -1;
}

static bool missing(const char *key, char error[ERROR_SIZE]) {
    snprintf(error, ERROR_SIZE, "config.json has no usable '%s'", key);
    return false;
}

/* The member's value, or fallback where it is absent or null; false if it is of another kind. */
static bool integer_or(const Json *json, const char *key, int64_t fallback, int64_t *value, char error[ERROR_SIZE]) {
    const Json *member = json_get(json, key);
    *value = fallback;
    return !member || member->type == JSON_NULL || json_get_integer(json, key, value) || missing(key, error);
}
static bool number_or(const Json *json, const char *key, double fallback, double *value, char error[ERROR_SIZE]) {
    const Json *member = json_get(json, key);
    *value = fallback;
    return !member || member->type == JSON_NULL || json_get_number(json, key, value) || missing(key, error);
}
static bool bool_or(const Json *json, const char *key, bool fallback, bool *value, char error[ERROR_SIZE]) {
    const Json *member = json_get(json, key);
    *value = fallback;
    return !member || member->type == JSON_NULL || json_get_bool(json, key, value) || missing(key, error);
}
static bool word_or(const Json *json, const char *key, const char *const *names, int n, int fallback, int *value, char error[ERROR_SIZE]) {
    const Json *member = json_get(json, key);
    *value = fallback;
    if (!member) return true;
    *value = member->type == JSON_STRING ? name_index(names, n, member->string) : -1;
    return *value >= 0 || missing(key, error);
}

bool config_read_json(Config *c, const Json *json, char error[ERROR_SIZE]) {
    static const char *const positions[] = {"learned", "rope", "none"}, *const layouts[] = {"interleaved", "half"};
    memset(c, 0, sizeof *c);
    const char *type = json_get_string(json, "model_type");
    if (!type || (strcmp(type, "gpt2") != 0 && strcmp(type, "train_gpt") != 0)) {
        snprintf(error, ERROR_SIZE, "config.json has model_type '%.60s'; this engine reads gpt2 and train_gpt", type ? type : "(none)");
        return false;
    }
    static const struct { const char *name; JsonType lacking; } unsupported[] = {
        {"scale_attn_by_inverse_layer_idx", JSON_TRUE}, {"add_cross_attention", JSON_TRUE}, {"reorder_and_upcast_attn", JSON_TRUE},
        {"scale_attn_weights", JSON_FALSE}};
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const Json *feature = json_get(json, unsupported[i].name);
        if (feature && feature->type == unsupported[i].lacking) {
            const char *value = feature->type == JSON_TRUE ? "true" : "false";
            snprintf(error, ERROR_SIZE, "config.json has %s %s, which this engine lacks", unsupported[i].name, value);
            return false;
        }
    }
    int pos, layout, activation;
    if (!json_get_integer(json, "n_layer", &c->L)) return missing("n_layer", error);
    if (!json_get_integer(json, "n_head", &c->NH) || c->NH < 1) return missing("n_head", error);
    if (!json_get_integer(json, "n_embd", &c->C)) return missing("n_embd", error);
    if (!json_get_integer(json, "vocab_size", &c->V)) return missing("vocab_size", error);
    if (!json_get_integer(json, "n_positions", &c->maxT)) return missing("n_positions", error);
    if (!integer_or(json, "n_inner", c->C <= MAX_CHANNELS ? 4 * c->C : 0, &c->F, error)) return false;
    if (!integer_or(json, "num_key_value_heads", c->NH, &c->NKV, error)) return false;
    if (!integer_or(json, "head_dim", c->C % c->NH == 0 ? c->C / c->NH : -1, &c->HS, error)) return false;
    if (c->HS == -1) {
        snprintf(error, ERROR_SIZE, "config.json has n_head %lld, which does not divide n_embd %lld", (long long)c->NH, (long long)c->C);
        return false;
    }
    if (!number_or(json, "layer_norm_epsilon", 1e-5, &c->norm_eps, error)) return false;
    if (!number_or(json, "resid_pdrop", 0, &c->dropout, error)) return false;
    if (!number_or(json, "rope_theta", 10000, &c->rope_base, error)) return false;
    if (!bool_or(json, "use_bias", true, &c->bias, error) || !bool_or(json, "tie_word_embeddings", true, &c->tie, error)) return false;
    if (!word_or(json, "activation_function", activation_names, 4, ACT_GELU, &activation, error)) return false;
    if (!word_or(json, "position_embedding", positions, 3, POS_LEARNED, &pos, error)) return false;
    if (!word_or(json, "rope_layout", layouts, 2, ROPE_INTERLEAVED, &layout, error)) return false;
    c->activation = (Activation)activation;
    c->pos = (Position)pos;
    c->rope_layout = (RopeLayout)layout;
    if (!(c->norm_eps > 0 && c->norm_eps <= 1)) return missing("layer_norm_epsilon", error);
    if (!(c->dropout >= 0 && c->dropout <= 0.95)) return missing("resid_pdrop", error);
    if (!(c->rope_base >= 1 && c->rope_base <= 1e12)) return missing("rope_theta", error);
    return config_check(c, error);
}

int64_t config_matmul_parameters(const Config *c) {
    int64_t attention = c->C * config_qkv_width(c) + c->NH * c->HS * c->C, mlp = 2 * c->C * c->F;
    return c->L * (attention + mlp) + c->V * c->C;
}

double config_flops_per_token(const Config *c, int64_t T) {
    return 6.0 * (double)config_matmul_parameters(c) + 6.0 * (double)(c->L * c->NH * c->HS) * (double)T;
}
