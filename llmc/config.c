/* config.c: presets and checks of the architecture. */
#include "config.h"

#include "error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A preset is a name and the options it sets. Learning rates and warm-ups of GPT-2 and GPT-3 are those of the GPT-3 paper for the size. */
typedef struct { const char *name; const char *settings[20]; } Preset;
#define PRETRAINING(context, rate) "seq_len=" context, "lr=" rate, "beta2=0.95", "warmup=700", "data_order=shards"
#define GPT(layers, heads, channels, context, rate)                                                                                 \
    {"n_layer=" layers, "n_head=" heads, "n_embd=" channels, "vocab_size=50257", "pos=learned", "max_seq_len=" context,             \
     PRETRAINING(context, rate), NULL}
#define SWIGLU(layers, heads, kv_heads, channels, hidden)                                                                           \
    "n_layer=" layers, "n_head=" heads, "n_kv_head=" kv_heads, "n_embd=" channels, "n_hidden=" hidden, "norm=rmsnorm",              \
    "activation=swiglu", "bias=0"
#define LLAMA(layers, heads, kv_heads, channels, hidden, rate)                                                                      \
    {SWIGLU(layers, heads, kv_heads, channels, hidden), "rope_layout=half", "vocab_size=50257", PRETRAINING("2048", rate), NULL}
#define QWEN(layers, heads, kv_heads, channels, hidden, ...)                                                                        \
    {SWIGLU(layers, heads, kv_heads, channels, hidden), "rope_layout=half", "rope_base=1e6", "norm_eps=1e-6", "vocab_size=151936",  \
     PRETRAINING("2048", "3e-4"), __VA_ARGS__, NULL}
static const Preset presets[] = {
    {"baby", {"n_layer=6", "n_head=6", "n_embd=192", "seq_len=128", NULL}},
    {"gpt2-124M", GPT("12", "12", "768", "1024", "6e-4")},
    {"gpt2-350M", GPT("24", "16", "1024", "1024", "3e-4")},
    {"gpt2-774M", GPT("36", "20", "1280", "1024", "2.5e-4")},
    {"gpt2-1558M", GPT("48", "25", "1600", "1024", "2e-4")},
    {"gpt3-125M", GPT("12", "12", "768", "2048", "6e-4")},
    {"gpt3-350M", GPT("24", "16", "1024", "2048", "3e-4")},
    {"gpt3-760M", GPT("24", "16", "1536", "2048", "2.5e-4")},
    {"gpt3-1.3B", GPT("24", "16", "2048", "2048", "2e-4")},   /* the paper's 24 heads of 128 do not make its 2,048 channels */
    {"gpt3-2.7B", GPT("32", "32", "2560", "2048", "1.6e-4")},
    {"gpt3-6.7B", GPT("32", "32", "4096", "2048", "1.2e-4")},
    {"wikitext", {"n_layer=8", "n_head=8", "n_embd=512", "vocab_size=50257", "seq_len=256", "batch=8", "grad_accum=8", "steps=5000", "lr=1e-3",
                  "beta2=0.95", "warmup=200", NULL}},
    /* 327,680,000 tokens; --batch 8 --grad-accum 32 takes the same steps in less memory */
    {"tinystories-17M", {SWIGLU("4", "16", "16", "512", "1344"), "tie=0", "vocab_size=10000", "seq_len=256", "batch=256", "grad_accum=1",
                         "steps=5000", "lr=1e-3", "beta2=0.95", "warmup=200", NULL}},
    {"llama-125M", LLAMA("14", "12", "4", "768", "2048", "6e-4")},
    {"llama-350M", LLAMA("26", "16", "8", "1024", "2752", "3e-4")},
    {"llama-1B", LLAMA("16", "32", "8", "2048", "8192", "3e-4")},   /* Llama 3.2 1B but for vocabulary, context and RoPE's base and scaling */
    {"qwen2-0.5B", QWEN("24", "14", "2", "896", "4864", "qkv_bias=1")},
    {"qwen3-0.6B", QWEN("28", "16", "8", "1024", "3072", "head_size=128", "qk_norm=1")},
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
    static char names[512];
    names[0] = 0;
    for (int i = 0; i < PRESETS; i++) {
        if (i > 0) strcat(names, ", ");
        strcat(names, presets[i].name);
    }
    return names;
}

/* Sets an option to its word of that number. */
static void set_word_if_open(Options *options, const char *key, int64_t number) {
    char *word = option_choice_word(options_find(&train_options, key)->choices, number);
    set_if_open(options, key, word, FROM_MODEL);
    free(word);
}

#define SET(key, ...) (snprintf(text, sizeof text, __VA_ARGS__), set_if_open(options, key, text, FROM_MODEL))

/* Where the user asks for a scaling of another kind, of the model's own only the original context is left. */
static void scaling_to_options(const Config *c, Options *options) {
    char text[64];
    const RopeScaling *s = &c->rope_scaling;
    set_word_if_open(options, "rope_scaling", s->kind);
    if (options->rope_scaling != s->kind) {
        if (options->rope_scaling > SCALING_LINEAR) SET("rope_original_len", "%lld", (long long)(s->original_len ? s->original_len : c->maxT));
        return;
    }
    SET("rope_factor", "%.17g", s->factor);
    SET("rope_original_len", "%lld", (long long)s->original_len);
    SET("rope_low_freq", "%.17g", s->low_freq);
    SET("rope_high_freq", "%.17g", s->high_freq);
    if (options->rope_factor == s->factor) SET("rope_magnitude", "%.17g", s->magnitude);   /* else it follows from the new one */
    if (s->kind == SCALING_YARN) SET("rope_whole_pairs", "%d", s->whole_pairs);
}

void config_to_options(const Config *c, Options *options) {
    char text[64];
    SET("n_layer", "%lld", (long long)c->L);
    SET("n_head", "%lld", (long long)c->NH);
    SET("n_kv_head", "%lld", (long long)c->NKV);
    SET("head_size", "%lld", (long long)c->HS);
    SET("n_embd", "%lld", (long long)c->C);
    SET("n_hidden", "%lld", (long long)c->F);
    SET("vocab_size", "%lld", (long long)c->V);
    SET("max_seq_len", "%lld", (long long)c->maxT);
    SET("seq_len", "%lld", (long long)c->maxT);
    SET("qk_norm", "%d", c->qk_norm);
    SET("bias", "%d", c->bias);
    SET("qkv_bias", "%d", c->qkv_bias);
    SET("tie", "%d", c->tie);
    SET("rope_base", "%.17g", c->rope_base);
    SET("norm_eps", "%.17g", c->norm_eps);
    SET("dropout", "%.17g", c->dropout);
    set_word_if_open(options, "pos", c->pos);
    set_word_if_open(options, "rope_layout", c->rope_layout);
    set_word_if_open(options, "norm", c->norm);
    set_word_if_open(options, "norm_place", c->norm_place);
    set_word_if_open(options, "activation", config_activation(c));
    scaling_to_options(c, options);
}
#undef SET

/* 8/3 C to the nearest multiple of 64: as many parameters in SwiGLU's three matrices as in two of 4C. */
static int64_t swiglu_width(int64_t C) {
    int64_t width = (8 * C / 3 + 32) / 64 * 64;
    return width > 0 ? width : 64;
}

/* False, with a sentence, if the user sets what the scaling does not heed: it would pass without effect. */
static bool check_scaling_options(const Options *o, char error[ERROR_SIZE]) {
    static const struct { const char *option; ScalingKind from; } heeded[] = {   /* by the kinds from that one on */
        {"rope_factor", SCALING_LINEAR}, {"rope_original_len", SCALING_LLAMA3}, {"rope_low_freq", SCALING_LLAMA3},
        {"rope_high_freq", SCALING_LLAMA3}, {"rope_magnitude", SCALING_YARN}, {"rope_whole_pairs", SCALING_YARN},
    };
    char *kind = option_choice_word(options_find(&train_options, "rope_scaling")->choices, o->rope_scaling);
    bool good = o->pos == POS_ROPE || o->rope_scaling == SCALING_NONE || o->from.rope_scaling < FROM_FILE
             || file_error(error, "rope_scaling is %s, but there is no RoPE that it could act on; leave it out, or choose --pos rope", kind);
    for (size_t i = 0; i < sizeof heeded / sizeof *heeded && good; i++) {
        const OptionRow *row = options_find(&train_options, heeded[i].option);
        char *text = options_format(row, o);
        bool given = *(const OptionSource *)((const char *)o + row->source) >= FROM_FILE && strcmp(text, row->fallback) != 0;
        if (given && o->rope_scaling < (int64_t)heeded[i].from)
            good = file_error(error, "%s is %s, of which rope_scaling %s knows nothing; leave it out, or choose another scaling", row->name, text,
                              kind);
        free(text);
    }
    free(kind);
    return good;
}

static RopeScaling scaling_from_options(const Options *o) {
    RopeScaling s = {.kind = o->pos == POS_ROPE ? (ScalingKind)o->rope_scaling : SCALING_NONE, .factor = o->rope_factor,
                     .original_len = o->rope_original_len, .low_freq = o->rope_low_freq, .high_freq = o->rope_high_freq,
                     .magnitude = o->rope_magnitude, .whole_pairs = o->rope_whole_pairs};
    return rope_scaling_settled(s);
}

bool config_from_options(Config *c, const Options *o, char error[ERROR_SIZE]) {
    memset(c, 0, sizeof *c);
    c->L = o->n_layer;
    c->NH = o->n_head;
    c->NKV = o->n_kv_head ? o->n_kv_head : o->n_head;
    c->C = o->n_embd;
    if (!o->head_size && c->C % c->NH != 0) {
        snprintf(error, ERROR_SIZE, "--n-head %lld does not divide --n-embd %lld; choose a divisor, or set --head-size", (long long)c->NH,
                 (long long)c->C);
        return false;
    }
    c->HS = o->head_size ? o->head_size : c->C / c->NH;
    c->gated = o->activation == ACTIVATION_SWIGLU;
    c->F = o->n_hidden ? o->n_hidden : c->gated ? swiglu_width(c->C) : 4 * c->C;
    c->V = o->vocab_size;
    c->maxT = o->max_seq_len ? o->max_seq_len : o->seq_len;
    c->pos = (Position)o->pos;
    c->rope_base = o->rope_base;
    c->rope_layout = (RopeLayout)o->rope_layout;
    c->rope_scaling = scaling_from_options(o);
    c->activation = c->gated ? ACT_SILU : (Activation)(o->activation + ACT_GELU);
    c->norm = (Norm)o->norm;
    c->norm_place = (NormPlace)o->norm_place;
    c->qk_norm = o->qk_norm;
    c->bias = o->bias;
    c->qkv_bias = o->bias || o->qkv_bias;
    c->tie = o->tie;
    c->norm_eps = o->norm_eps;
    c->dropout = o->dropout;
    return check_scaling_options(o, error) && config_check(c, error);
}

BackendSettings settings_from_options(const Options *o) {
    BackendSettings settings = {
        .attention = (AttentionKind)o->attention, .tf32 = (int)o->tf32, .deterministic = (int)o->deterministic,
        .autotune = o->autotune && !o->deterministic,   /* what is timed may come out otherwise next time */
    };
    if (settings.autotune && o->algorithms[0]) settings.algorithms = o->algorithms;
    return settings;
}

void configure_from_options(const Backend *backend, const Options *o, bool keeps) {
    enum { MOST_BYTES = 16 << 20 };
    char ignored[ERROR_SIZE];
    size_t length;
    BackendSettings settings = settings_from_options(o);
    char *text = settings.algorithms && !keeps ? file_read_text(settings.algorithms, MOST_BYTES, &length, ignored) : NULL;
    if (!keeps) settings.algorithms = NULL;
    backend->configure(&settings);
    if (text) backend->set_algorithms(text);   /* which heeds nothing of another machine's */
    free(text);
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
    if (!rope_scaling_check(&c->rope_scaling, c->rope_base, error)) return false;
    if (c->norm == NORM_NONE && c->norm_place == NORM_POST) {
        snprintf(error, ERROR_SIZE, "norm_place is post, but norm is none: there is no norm to place; leave --norm-place out, or choose a --norm");
        return false;
    }
    if (c->qk_norm && c->HS < 2) {
        snprintf(error, ERROR_SIZE, "QK-norm of heads of one channel would leave nothing but signs; choose a larger --head-size");
        return false;
    }
    c->qkv_bias = c->qkv_bias || c->bias;
    c->Vp = (c->V + 127) / 128 * 128;
    return true;
}

/* Sizes, then what makes it differ from a plain GPT. */
const char *config_describe(const Config *c) {
    static char text[256];
    static const char *const positions[] = {"learned positions", "RoPE", "no positions"}, *const norms[] = {"", ", RMSNorm", ", no norms"};
    static const char *const activations[] = {"", "", "", ", ReLU", ", SiLU", ", ReLU^2"};
    char kv_heads[48] = "", scaling[48] = "", *kind = option_choice_word(options_find(&train_options, "rope_scaling")->choices, c->rope_scaling.kind);
    if (c->NKV != c->NH) snprintf(kv_heads, sizeof kv_heads, " (%lld for keys and values)", (long long)c->NKV);
    if (c->rope_scaling.kind) snprintf(scaling, sizeof scaling, " (%s, factor %g)", kind, c->rope_scaling.factor);
    free(kind);
    snprintf(text, sizeof text, "%lld layers, %lld heads%s, %lld channels, vocabulary %lld, %s%s%s%s%s%s", (long long)c->L, (long long)c->NH,
             kv_heads, (long long)c->C, (long long)c->V, positions[c->pos], scaling, norms[c->norm],
             c->norm_place == NORM_POST ? ", post-norm" : "", c->qk_norm ? ", QK-norm" : "", c->gated ? ", SwiGLU" : activations[c->activation]);
    size_t used = strlen(text);
    if (c->dropout > 0) snprintf(text + used, sizeof text - used, ", dropout %g", c->dropout);
    return text;
}

/* The options that make an architecture, those aside that this one does not heed. */
static bool matters(const char *option, const Config *c) {
    static const char *const always[] = {"n_layer", "n_head", "n_kv_head", "head_size", "n_embd", "n_hidden", "vocab_size", "pos", "activation",
                                         "norm", "qk_norm", "bias", "qkv_bias", "tie"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strcmp(option, always[i]) == 0) return true;
    if (strncmp(option, "rope_", 5) == 0) return c->pos == POS_ROPE;
    if (strcmp(option, "max_seq_len") == 0) return c->pos == POS_LEARNED;
    if (strcmp(option, "norm_place") == 0) return c->norm != NORM_NONE;
    return strcmp(option, "norm_eps") == 0 && (c->norm != NORM_NONE || c->qk_norm);
}

/* Unless they are given, these follow from others. */
static bool follows(const char *option) {
    return strcmp(option, "n_kv_head") == 0 || strcmp(option, "head_size") == 0 || strcmp(option, "n_hidden") == 0;
}

bool config_same(const Config *a, const Config *b, char error[ERROR_SIZE]) {
    Options in_a, in_b;
    bool same = true;
    options_defaults(&in_a);
    options_defaults(&in_b);
    config_to_options(a, &in_a);
    config_to_options(b, &in_b);
    /* Those that follow come last: what the user gave shall be named. */
    for (int i = 0; i < 2 * train_options.count && same; i++) {
        const OptionRow *row = &train_options.rows[i % train_options.count];
        bool last = i >= train_options.count;
        if (row->kind == OPTION_SECTION || !matters(row->name, a) || follows(row->name) != last) continue;
        char *text_a = options_format(row, &in_a), *text_b = options_format(row, &in_b);
        same = strcmp(text_a, text_b) == 0;
        if (!same) snprintf(error, ERROR_SIZE, "%s is %s in the checkpoint, but %s was asked for", row->name, text_a, text_b);
        free(text_a);
        free(text_b);
    }
    options_release(&train_options, &in_a);
    options_release(&train_options, &in_b);
    return same;
}

int64_t config_matmul_parameters(const Config *c) {
    int64_t attention = c->C * config_qkv_width(c) + c->NH * c->HS * c->C, mlp = c->C * (config_fc_width(c) + c->F);
    return c->L * (attention + mlp) + c->V * c->C;
}

double config_flops_per_token(const Config *c, int64_t T) {
    return 6.0 * (double)config_matmul_parameters(c) + 6.0 * (double)(c->L * c->NH * c->HS) * (double)T;
}
