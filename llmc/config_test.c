/* config_test.c: presets and their published sizes, what is refused, and config.json written, read and damaged. */
#include "config.h"

#include "error.h"
#include "parameters.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char error[ERROR_SIZE];

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

/* The config of a preset (NULL: none) with settings on top. */
static bool configure(Config *c, const char *preset, const char *settings) {
    Options o;
    options_defaults(&o);
    if (!options_parse_text(&o, settings, strlen(settings), "test", error)) fail_msg("%s", error);
    if (preset) assert_true(config_preset(&o, preset));
    bool ok = config_from_options(c, &o, error);
    options_release(&train_options, &o);
    return ok;
}

static Config good_config(const char *settings) {
    Config c;
    if (!configure(&c, NULL, settings)) fail_msg("%s: %s", settings, error);
    return c;
}

static char *json_of(const Config *c) {
    char *text;
    size_t length;
    FILE *f = open_memstream(&text, &length);
    config_write_json(f, c);
    fclose(f);
    return text;
}

static bool config_of(Config *c, const char *text) {
    char cause[ERROR_SIZE];
    Json *json = json_parse(text, strlen(text), cause, sizeof cause);
    if (!json) fail_msg("%s in: %s", cause, text);
    bool ok = config_read_json(c, json, error);
    json_free(json);
    return ok;
}

static int64_t count_parameters(const Config *c) {
    ParameterTable table;
    parameters_describe(&table, c);
    int64_t n = table.parameters;
    parameters_release(&table);
    return n;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------------------ */

static void test_presets(void **state) {
    (void)state;
    static const struct { const char *name, *settings; int64_t parameters; } expected[] = {
        {"gpt2-124M", "", 124439808}, {"gpt2-350M", "", 354823168}, {"gpt2-774M", "", 774030080}, {"gpt2-1558M", "", 1557611200},
        /* V C + L (12 C^2 + 13 C) + 2 C, and T C more with a position table */
        {"baby", "vocab_size=65\n", 65 * 192 + 6 * (12 * 192 * 192 + 13 * 192) + 2 * 192},
        {"baby", "vocab_size=65\npos=learned\n", 65 * 192 + 6 * (12 * 192 * 192 + 13 * 192) + 2 * 192 + 128 * 192},
        {"baby", "vocab_size=65\nbias=0\ntie=0\n", 2 * 65 * 192 + 6 * (12 * 192 * 192 + 2 * 192) + 192},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        Config c;
        if (!configure(&c, expected[i].name, expected[i].settings)) fail_msg("%s: %s", expected[i].name, error);
        assert_int_equal(count_parameters(&c), expected[i].parameters);
        assert_non_null(strstr(config_preset_names(), expected[i].name));
        assert_int_equal(c.Vp % 128, 0);
        assert_true(c.Vp >= c.V && c.Vp < c.V + 128);
    }
    Options o;
    options_defaults(&o);
    assert_false(config_preset(&o, "gpt2"));
    assert_false(config_preset(&o, ""));
    assert_false(config_preset(&o, "gpt2-124M "));
    assert_int_equal(o.n_layer, 6);
    options_release(&train_options, &o);
}

static void test_users_choice_beats_preset(void **state) {
    (void)state;
    Config c;
    assert_true(configure(&c, "gpt2-124M", "n_layer=2\npos=rope\nvocab_size=1000\n"));
    assert_int_equal(c.L, 2);
    assert_int_equal(c.pos, POS_ROPE);
    assert_int_equal(c.V, 1000);
    assert_int_equal(c.C, 768);
    assert_int_equal(c.maxT, 1024);
}

/* N by walking the table: every matrix but the position table, and but the input table where the head has its own. */
static int64_t count_matmul_parameters(const Config *c) {
    ParameterTable table;
    parameters_describe(&table, c);
    int64_t n = 0;
    for (int i = 0; i < table.count; i++) {
        const ParameterInfo *p = &table.info[i];
        bool position = strcmp(p->name, "transformer.wpe.weight") == 0;
        bool input_only = !c->tie && strcmp(p->name, "transformer.wte.weight") == 0;
        if (p->rows && !position && !input_only) n += p->file_rows * p->columns;
    }
    parameters_release(&table);
    return n;
}

static void test_flops(void **state) {
    (void)state;
    Config c;
    assert_true(configure(&c, "gpt2-124M", ""));
    assert_int_equal(config_matmul_parameters(&c), 12 * 12 * 768 * 768 + 50257 * 768);
    assert_true(config_flops_per_token(&c, 1024) == 6.0 * 123532032 + 6.0 * 12 * 768 * 1024);
    assert_true(config_flops_per_token(&c, 64) == 6.0 * 123532032 + 6.0 * 12 * 768 * 64);
    static const char *const variants[] = {"", "tie=0\n", "bias=0\n", "pos=learned\n", "n_kv_head=2\n", "n_kv_head=1\nhead_size=48\n",
        "n_hidden=100\n"};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        assert_true(configure(&c, "baby", variants[i][0] ? variants[i] : "vocab_size=65\n") || c.V == 0);
        c.V = 65;
        assert_true(config_check(&c, error));
        assert_int_equal(config_matmul_parameters(&c), count_matmul_parameters(&c));
        assert_true(config_flops_per_token(&c, 100) == 6.0 * (double)count_matmul_parameters(&c) + 6.0 * 6 * (double)(c.NH * c.HS) * 100);
    }
}

/* ---- refusals --------------------------------------------------------------------------------------------------------------- */

static void test_derived_sizes(void **state) {
    (void)state;
    Config c = good_config("vocab_size=129\nn_embd=96\nn_head=4\nn_layer=3\nseq_len=37\n");
    assert_int_equal(c.HS, 24);
    assert_int_equal(c.NKV, 4);
    assert_int_equal(c.F, 384);
    assert_int_equal(c.Vp, 256);
    assert_int_equal(c.maxT, 37);
    assert_int_equal(config_qkv_width(&c), 288);
    c = good_config("vocab_size=128\nn_embd=100\nn_head=3\nn_kv_head=1\nhead_size=16\nn_hidden=7\nmax_seq_len=50\nactivation=relu\n");
    assert_int_equal(c.HS, 16);
    assert_int_equal(c.F, 7);
    assert_int_equal(c.Vp, 128);
    assert_int_equal(c.maxT, 50);
    assert_int_equal(c.activation, ACT_RELU);
    assert_int_equal(config_qkv_width(&c), 80);
}

static void test_contradictions(void **state) {
    (void)state;
    static const struct { const char *settings, *cause; } wrong[] = {
        {"vocab_size=65\nn_head=5\n", "--n-head 5 does not divide --n-embd 192"},
        {"vocab_size=65\nn_head=6\nn_kv_head=4\n", "4 key/value heads do not divide 6 query heads"},
        {"vocab_size=65\nn_head=2\nn_kv_head=4\n", "4 key/value heads do not divide 2 query heads"},
        {"vocab_size=65\nn_head=64\nn_embd=192\n", "head size is 3"},
        {"vocab_size=65\nhead_size=33\n", "head size is 33"},
        {"", "vocab_size is 0"},
        {"vocab_size=65\nn_embd=16384\nn_head=8\n", "head_size is 2048"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Config c;
        if (configure(&c, NULL, wrong[i].settings)) fail_msg("accepted: %s", wrong[i].settings);
        if (!strstr(error, wrong[i].cause)) fail_msg("\"%s\" does not say \"%s\"", error, wrong[i].cause);
    }
    good_config("vocab_size=65\nhead_size=33\npos=learned\n");   /* odd is no matter without RoPE */
    good_config("vocab_size=65\nn_head=5\nhead_size=32\n");
}

/* A config from anywhere may hold what the options allow, and no more. */
static void test_size_limits(void **state) {
    (void)state;
    static const struct { const char *name; size_t field; } sizes[] = {
        {"n_layer", offsetof(Config, L)}, {"n_head", offsetof(Config, NH)}, {"n_kv_head", offsetof(Config, NKV)},
        {"head_size", offsetof(Config, HS)},
        {"n_embd", offsetof(Config, C)}, {"n_hidden", offsetof(Config, F)}, {"vocab_size", offsetof(Config, V)},
        {"max_seq_len", offsetof(Config, maxT)}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t most = 0;
        for (int r = 0; r < train_options.count; r++)
            if (strcmp(train_options.rows[r].name, sizes[i].name) == 0) most = (int64_t)train_options.rows[r].most;
        const int64_t values[] = {0, -1, INT64_MIN, most + 1, INT64_MAX, most};
        for (size_t k = 0; k < 6; k++) {
            Config c = good_config("vocab_size=65\n");
            memcpy((char *)&c + sizes[i].field, &values[k], sizeof values[k]);
            if (strcmp(sizes[i].name, "n_kv_head") == 0) c.NH = 4096;
            if (strcmp(sizes[i].name, "n_head") == 0) c.NKV = c.NH;
            bool ok = config_check(&c, error);
            if (ok != (values[k] == most)) fail_msg("%s = %lld is %s", sizes[i].name, (long long)values[k], ok ? "accepted" : error);
            if (!ok && !strstr(error, sizes[i].name)) fail_msg("\"%s\" does not name %s", error, sizes[i].name);
        }
    }
}

/* ---- sameness --------------------------------------------------------------------------------------------------------------- */

static void test_same(void **state) {
    (void)state;
    static const struct { const char *base, *other, *name; } pairs[] = {
        {"", "n_layer=5\n", "n_layer"}, {"", "n_head=3\n", "n_head"}, {"n_kv_head=6\n", "n_kv_head=2\n", "n_kv_head"},
        {"", "head_size=16\n", "head_size"}, {"", "n_embd=96\n", "head_size"}, {"head_size=32\n", "head_size=32\nn_embd=96\n", "n_embd"},
        {"", "n_hidden=512\n", "n_hidden"}, {"", "vocab_size=66\n", "vocab_size"}, {"", "pos=none\n", "pos"},
        {"pos=learned\n", "pos=learned\nmax_seq_len=256\n", "max_seq_len"}, {"", "rope_base=20000\n", "rope_base"},
        {"", "rope_layout=half\n", "rope_layout"}, {"", "activation=relu\n", "activation"}, {"", "bias=0\n", "bias"},
        {"", "tie=0\n", "tie"}, {"", "norm_eps=1e-6\n", "norm_eps"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s%s", strstr(pairs[i].other, "vocab_size") ? "" : "vocab_size=65\n", pairs[i].other);
        Config b = good_config(text);
        snprintf(text, sizeof text, "vocab_size=65\n%s", pairs[i].base);
        Config a = good_config(text);
        assert_true(config_same(&a, &a, error));
        if (config_same(&a, &b, error) || config_same(&b, &a, error)) fail_msg("'%s' makes no difference", pairs[i].other);
        if (strncmp(error, pairs[i].name, strlen(pairs[i].name)) != 0) fail_msg("\"%s\" does not name %s", error, pairs[i].name);
    }
    static const char *const no_matter[] = {"dropout=0.5\n", "max_seq_len=512\n", "seq_len=64\n"};
    for (size_t i = 0; i < sizeof no_matter / sizeof *no_matter; i++) {
        char text[128];
        snprintf(text, sizeof text, "vocab_size=65\n%s", no_matter[i]);
        Config a = good_config("vocab_size=65\n"), b = good_config(text);
        if (!config_same(&a, &b, error)) fail_msg("'%s': %s", no_matter[i], error);
    }
    Config a = good_config("vocab_size=65\n"), b = good_config("vocab_size=65\nn_layer=5\n");
    assert_false(config_same(&a, &b, error));
    assert_string_equal(error, "n_layer is 6 in the checkpoint, but 5 was asked for");
    a = good_config("vocab_size=65\npos=none\n"), b = good_config("vocab_size=65\npos=none\nrope_base=1e6\nrope_layout=half\n");
    assert_true(config_same(&a, &b, error));   /* nothing is rotated */
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------- */

static void check_json(const Config *c) {
    Config back;
    char *text = json_of(c);
    if (!config_of(&back, text)) fail_msg("%s in: %s", error, text);
    if (!config_same(c, &back, error) || !config_same(&back, c, error)) fail_msg("%s after reading: %s", error, text);
    if (back.Vp != c->Vp || back.maxT != c->maxT || back.dropout != c->dropout)
        fail_msg("Vp, maxT or dropout differ after reading: %s", text);
    bool gpt2 = c->pos == POS_LEARNED && c->bias && c->NKV == c->NH && c->NH * c->HS == c->C;
    if (!strstr(text, gpt2 ? "\"model_type\": \"gpt2\"" : "\"model_type\": \"train_gpt\"")) fail_msg("wrong model_type: %s", text);

    /* Continuing from it needs no flags, and what the user asked for stays. */
    Options o;
    options_defaults(&o);
    assert_true(options_set(&train_options, &o, "n_layer", "9", FROM_COMMAND_LINE, error));
    config_to_options(&back, &o);
    assert_int_equal(o.n_layer, 9);
    o.n_layer = c->L;
    Config again;
    if (!config_from_options(&again, &o, error) || !config_same(c, &again, error)) fail_msg("%s by way of the options: %s", error, text);
    assert_true(again.dropout == c->dropout && again.maxT == c->maxT);
    options_release(&train_options, &o);
    free(text);
}

static void test_json_round_trip(void **state) {
    (void)state;
    static const char *const shapes[] = {"", "n_kv_head=2\n", "head_size=20\n",
                                         "n_kv_head=1\nn_hidden=77\nnorm_eps=1.234567890123e-6\ndropout=0.1\n",
                                         "rope_base=123456.789\nmax_seq_len=1000\ndropout=0.3333333333333333\n"};
    static const char *const positions[] = {"learned", "rope", "none"}, *const layouts[] = {"interleaved", "half"};
    static const char *const activations[] = {"gelu", "gelu-erf", "relu"};
    int checked = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int bits = 0; bits < 3 * 2 * 3 * 2 * 2; bits++) {
            char text[256];
            snprintf(text, sizeof text, "vocab_size=65\n%spos=%s\nrope_layout=%s\nactivation=%s\nbias=%d\ntie=%d\n", shapes[s],
                     positions[bits % 3], layouts[bits / 3 % 2], activations[bits / 6 % 3], bits / 18 % 2, bits / 36);
            Config c = good_config(text);
            check_json(&c);
            checked++;
        }
    assert_int_equal(checked, 5 * 72);
}

/* config.json as Hugging Face publishes it for GPT-2 (its fields, our order). */
static const struct { const char *key, *value; } gpt2_members[] = {
    {"model_type", "\"gpt2\""}, {"architectures", "[\"GPT2LMHeadModel\"]"}, {"activation_function", "\"gelu_new\""}, {"attn_pdrop", "0.1"},
    {"bos_token_id", "50256"}, {"embd_pdrop", "0.1"}, {"eos_token_id", "50256"}, {"initializer_range", "0.02"},
    {"layer_norm_epsilon", "1e-05"},
    {"n_ctx", "1024"}, {"n_embd", "768"}, {"n_head", "12"}, {"n_inner", "null"}, {"n_layer", "12"}, {"n_positions", "1024"},
    {"resid_pdrop", "0.1"},
    {"summary_activation", "null"}, {"task_specific_params", "{\"text-generation\": {\"do_sample\": true, \"max_length\": 50}}"},
    {"vocab_size", "50257"},
};
enum { GPT2_MEMBERS = sizeof gpt2_members / sizeof *gpt2_members };

/* That, with one member replaced or added (value NULL: left out). */
static char *gpt2_json(const char *key, const char *value) {
    char *text;
    size_t length;
    FILE *f = open_memstream(&text, &length);
    const char *separator = "{";
    for (int i = 0; i < GPT2_MEMBERS; i++) {
        if (strcmp(gpt2_members[i].key, key) == 0) continue;
        fprintf(f, "%s\"%s\": %s", separator, gpt2_members[i].key, gpt2_members[i].value);
        separator = ", ";
    }
    if (value) fprintf(f, "%s\"%s\": %s", separator, key, value);
    fprintf(f, "}");
    fclose(f);
    return text;
}

static void test_published_gpt2(void **state) {
    (void)state;
    Config c, preset;
    char *text = gpt2_json("none", NULL);
    if (!config_of(&c, text)) fail_msg("%s", error);
    free(text);
    assert_true(configure(&preset, "gpt2-124M", ""));
    if (!config_same(&c, &preset, error)) fail_msg("%s", error);
    assert_true(c.dropout == 0.1);
    assert_int_equal(count_parameters(&c), 124439808);
}

static void test_json_features(void **state) {
    (void)state;
    static const struct { const char *key, *value; } accepted[] = {
        {"n_inner", "3072"}, {"n_inner", "1"}, {"reorder_and_upcast_attn", "false"}, {"scale_attn_by_inverse_layer_idx", "false"},
        {"scale_attn_weights", "true"}, {"tie_word_embeddings", "false"}, {"resid_pdrop", "0"}, {"some_new_field", "[1, 2]"},
        {"layer_norm_epsilon", "null"},
    };
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        Config c;
        char *text = gpt2_json(accepted[i].key, accepted[i].value);
        if (!config_of(&c, text)) fail_msg("%s in: %s", error, text);
        free(text);
    }
    /* The second name is the option's, which the checks of sizes use. */
    static const struct { const char *key, *value, *name; } refused[] = {
        {"model_type", NULL, "model_type"}, {"model_type", "\"llama\"", "model_type"}, {"model_type", "7", "model_type"},
        {"scale_attn_by_inverse_layer_idx", "true", "scale_attn_by_inverse_layer_idx"},
        {"add_cross_attention", "true", "add_cross_attention"},
        {"scale_attn_weights", "false", "scale_attn_weights"},
        {"n_layer", NULL, "n_layer"}, {"n_layer", "\"12\"", "n_layer"}, {"n_layer", "12.5", "n_layer"}, {"n_layer", "0", "n_layer"},
        {"n_layer", "-12", "n_layer"}, {"n_layer", "1e300", "n_layer"}, {"n_layer", "9007199254740992", "n_layer"},
        {"n_layer", "null", "n_layer"},
        {"n_head", NULL, "n_head"}, {"n_head", "0", "n_head"}, {"n_head", "-1", "n_head"}, {"n_head", "true", "n_head"},
        {"n_head", "9007199254740991", "n_head"},
        {"n_head", "7", "n_head"},
        {"n_embd", NULL, "n_embd"}, {"n_embd", "0", ""}, {"n_embd", "-768", ""}, {"n_embd", "1e15", ""}, {"n_embd", "{}", "n_embd"},
        {"vocab_size", NULL, "vocab_size"}, {"vocab_size", "0", "vocab_size"}, {"vocab_size", "1e10", "vocab_size"},
        {"vocab_size", "[]", "vocab_size"},
        {"n_positions", NULL, "n_positions"}, {"n_positions", "-1", "max_seq_len"}, {"n_positions", "1e12", "max_seq_len"},
        {"n_inner", "0", "n_hidden"}, {"n_inner", "-5", "n_hidden"}, {"n_inner", "1e9", "n_hidden"}, {"n_inner", "\"x\"", "n_inner"},
        {"num_key_value_heads", "0", "n_kv_head"}, {"num_key_value_heads", "5", "5 key/value heads"},
        {"num_key_value_heads", "1.5", "num_key_value_heads"},
        {"head_dim", "0", "head_size"}, {"head_dim", "-64", "head_size"}, {"head_dim", "5000", "head_size"},
        {"head_dim", "false", "head_dim"},
        {"layer_norm_epsilon", "0", "layer_norm_epsilon"}, {"layer_norm_epsilon", "-1e-5", "layer_norm_epsilon"},
        {"layer_norm_epsilon", "2", "layer_norm_epsilon"},
        {"layer_norm_epsilon", "\"1e-5\"", "layer_norm_epsilon"}, {"resid_pdrop", "1", "resid_pdrop"},
        {"resid_pdrop", "-0.1", "resid_pdrop"},
        {"resid_pdrop", "\"no\"", "resid_pdrop"}, {"rope_theta", "0", "rope_theta"}, {"rope_theta", "-1", "rope_theta"},
        {"rope_theta", "1e300", "rope_theta"},
        {"use_bias", "1", "use_bias"}, {"use_bias", "\"yes\"", "use_bias"}, {"tie_word_embeddings", "0", "tie_word_embeddings"},
        {"activation_function", "\"silu\"", "activation_function"}, {"activation_function", "\"\"", "activation_function"},
        {"activation_function", "3", "activation_function"},
        {"position_embedding", "\"alibi\"", "position_embedding"}, {"position_embedding", "1", "position_embedding"},
        {"rope_layout", "\"third\"", "rope_layout"}, {"rope_layout", "{}", "rope_layout"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        Config c;
        char *text = gpt2_json(refused[i].key, refused[i].value);
        *error = 0;
        if (config_of(&c, text)) fail_msg("accepted: %s", text);
        if (!*error || !strstr(error, refused[i].name)) fail_msg("\"%s\" does not name %s, in: %s", error, refused[i].name, text);
        free(text);
    }
    static const char *const not_objects[] = {"{}", "[]", "null", "3", "\"gpt2\"", "[\"model_type\", \"gpt2\"]"};
    for (size_t i = 0; i < sizeof not_objects / sizeof *not_objects; i++) {
        Config c;
        if (config_of(&c, not_objects[i])) fail_msg("accepted: %s", not_objects[i]);
        assert_non_null(strstr(error, "model_type"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets), cmocka_unit_test(test_users_choice_beats_preset), cmocka_unit_test(test_flops),
        cmocka_unit_test(test_derived_sizes), cmocka_unit_test(test_contradictions), cmocka_unit_test(test_size_limits),
        cmocka_unit_test(test_same), cmocka_unit_test(test_json_round_trip), cmocka_unit_test(test_published_gpt2),
        cmocka_unit_test(test_json_features),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
