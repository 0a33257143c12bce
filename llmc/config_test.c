/* config_test.c: presets and their published sizes, what is refused, and what makes two architectures differ. */
#include "config.h"
#include "config_test.h"

#include "error.h"
#include "parameters.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

static Config good_config(const char *settings) {
    Config c;
    if (!configure(&c, NULL, settings)) fail_msg("%s: %s", settings, error);
    return c;
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
        {"gpt3-125M", "", 124439808 + 1024 * 768}, {"gpt3-350M", "", 354823168 + 1024 * 1024}, {"gpt3-760M", "", 760300032},
        {"gpt3-1.3B", "", 1315723264}, {"gpt3-2.7B", "", 2651553280}, {"gpt3-6.7B", "", 6658404352},
        {"wikitext", "", 50257 * 512 + 8 * (12 * 512 * 512 + 13 * 512) + 2 * 512},
        {"tinystories-17M", "", 22696448}, {"tinystories-17M", "n_kv_head=1\n", 22696448 - 4 * 2 * 512 * 15 * 32},
        {"llama-125M", "", 126700032}, {"llama-350M", "", 353114112}, {"llama-1B", "", 1076072448},
        /* as published: Llama 3.2 1B; SmolLM 135M and 360M; TinyLlama 1.1B; Qwen2 0.5B; Qwen3 0.6B */
        {"llama-1B", "vocab_size=128256\n", 1235814400},
        {"llama-125M", "n_layer=30\nn_head=9\nn_kv_head=3\nn_embd=576\nn_hidden=1536\nvocab_size=49152\n", 134515008},
        {"llama-350M", "n_layer=32\nn_head=15\nn_kv_head=5\nn_embd=960\nn_hidden=2560\nvocab_size=49152\n", 361821120},
        {"llama-1B", "n_layer=22\nn_kv_head=4\nn_hidden=5632\nvocab_size=32000\ntie=0\n", 1100048384},
        {"qwen2-0.5B", "", 494032768}, {"qwen3-0.6B", "", 596049920},
    };
    Config stories;
    assert_true(configure(&stories, "tinystories-17M", ""));
    assert_int_equal(count_parameters(&stories) - stories.V * stories.C, 17576448);   /* without the input embedding */
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
        "n_hidden=100\n", "activation=swiglu\n", "norm=none\nactivation=swiglu\nn_hidden=72\n", "qk_norm=1\nnorm_place=post\n"};
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

/* With SwiGLU, 8/3 C to the nearest multiple of 64. */
static void test_swiglu_width(void **state) {
    (void)state;
    static const struct { int channels, width; } expected[] = {{8, 64}, {192, 512}, {512, 1344}, {768, 2048}, {1024, 2752}, {2048, 5440}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char text[100];
        snprintf(text, sizeof text, "vocab_size=65\nn_head=2\nhead_size=4\nactivation=swiglu\nn_embd=%d\n", expected[i].channels);
        Config c = good_config(text);
        assert_true(c.gated && c.activation == ACT_SILU);
        assert_int_equal(c.F, expected[i].width);
        assert_int_equal(config_fc_width(&c), 2 * c.F);
    }
    assert_int_equal(good_config("vocab_size=65\nactivation=swiglu\nn_hidden=7\n").F, 7);
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
        {"vocab_size=65\nnorm=none\nnorm_place=post\n", "there is no norm to place"},
        {"vocab_size=65\nhead_size=1\npos=none\nqk_norm=1\n", "QK-norm of heads of one channel"},
        {"vocab_size=65\nrope_factor=2\n", "rope_factor is 2, of which rope_scaling none knows nothing"},
        {"vocab_size=65\nrope_original_len=2\n", "rope_original_len is 2, of which rope_scaling none"},
        {"vocab_size=65\nrope_scaling=linear\nrope_factor=2\nrope_low_freq=2\n", "rope_low_freq is 2, of which rope_scaling linear"},
        {"vocab_size=65\nrope_scaling=linear\nrope_factor=2\nrope_high_freq=2\n", "rope_high_freq is 2, of which rope_scaling linear"},
        {"vocab_size=65\nrope_scaling=llama3\nrope_factor=2\nrope_magnitude=2\n", "rope_magnitude is 2, of which rope_scaling llama3"},
        {"vocab_size=65\nrope_scaling=llama3\nrope_factor=2\nrope_whole_pairs=0\n", "rope_whole_pairs is 0, of which rope_scaling llama3"},
        {"vocab_size=65\nrope_scaling=linear\n", "rope_factor is 0; expected 1 to 1e6"},
        {"vocab_size=65\nrope_scaling=linear\nrope_factor=0.5\n", "rope_factor is 0.5"},
        {"vocab_size=65\nrope_scaling=llama3\nrope_factor=8\n", "rope_original_len is 0"},
        {"vocab_size=65\nrope_scaling=llama3\nrope_factor=8\nrope_original_len=64\nrope_low_freq=5\n",
         "rope_low_freq is 5 and rope_high_freq 4"},
        {"vocab_size=65\nrope_scaling=yarn\nrope_factor=8\nrope_original_len=64\nrope_base=1\n", "rope_base 1"},
        {"vocab_size=65\nrope_scaling=linear\nrope_factor=2\npos=learned\n", "there is no RoPE that it could act on"},
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

/* A backend that remembers what it was told. */
static BackendSettings told;
static char taken_over[64];
static void remember_settings(const BackendSettings *settings) { told = *settings; }
static int remember_algorithms(const char *text) {
    snprintf(taken_over, sizeof taken_over, "%s", text);
    return 1;
}

/* One rank keeps the file of algorithms, the others read it. */
static void test_file_of_algorithms(void **state) {
    (void)state;
    char path[] = P_tmpdir "/config_testXXXXXX", text[64];
    FILE *file = fdopen(mkstemp(path), "w");
    fputs("a = b\n", file);
    fclose(file);
    const Backend backend = {.configure = remember_settings, .set_algorithms = remember_algorithms};
    Options o;
    options_defaults(&o);
    snprintf(text, sizeof text, "algorithms=%s\n", path);
    assert_true(options_parse_text(&o, text, strlen(text), "test", error));
    configure_from_options(&backend, &o, true);
    assert_string_equal(told.algorithms, path);
    assert_string_equal(taken_over, "");
    configure_from_options(&backend, &o, false);
    assert_null(told.algorithms);
    assert_true(told.autotune);
    assert_string_equal(taken_over, "a = b\n");
    taken_over[0] = 0;
    remove(path);
    configure_from_options(&backend, &o, false);   /* there is none yet */
    assert_null(told.algorithms);
    assert_string_equal(taken_over, "");
    o.deterministic = 1;
    configure_from_options(&backend, &o, true);
    assert_null(told.algorithms);
    options_release(&train_options, &o);
}

#define LINEAR "rope_scaling=linear\n"
#define LLAMA3 "rope_scaling=llama3\n"
#define YARN "rope_scaling=yarn\nrope_factor=4\nrope_original_len=64\n"
static void test_same(void **state) {
    (void)state;
    static const struct { const char *base, *other, *name; } pairs[] = {
        {"", "n_layer=5\n", "n_layer"}, {"", "n_head=3\n", "n_head"}, {"n_kv_head=6\n", "n_kv_head=2\n", "n_kv_head"},
        {"", "head_size=16\n", "head_size"}, {"", "n_embd=96\n", "n_embd"}, {"head_size=32\n", "head_size=32\nn_embd=96\n", "n_embd"},
        {"", "n_hidden=512\n", "n_hidden"}, {"", "vocab_size=66\n", "vocab_size"}, {"", "pos=none\n", "pos"},
        {"pos=learned\n", "pos=learned\nmax_seq_len=256\n", "max_seq_len"}, {"", "rope_base=20000\n", "rope_base"},
        {"", "rope_layout=half\n", "rope_layout"}, {"", "activation=relu\n", "activation"}, {"", "bias=0\n", "bias"},
        {"", "tie=0\n", "tie"}, {"", "norm_eps=1e-6\n", "norm_eps"}, {"", "norm=rmsnorm\n", "norm"}, {"", "norm=none\n", "norm"},
        {"", "norm_place=post\n", "norm_place"}, {"", "qk_norm=1\n", "qk_norm"}, {"bias=0\n", "bias=0\nqkv_bias=1\n", "qkv_bias"},
        {"", "activation=silu\n", "activation"}, {"n_hidden=64\nactivation=silu\n", "n_hidden=64\nactivation=swiglu\n", "activation"},
        {"", "activation=relu2\n", "activation"}, {"", LINEAR "rope_factor=2\n", "rope_scaling"},
        {LINEAR "rope_factor=2\n", LINEAR "rope_factor=3\n", "rope_factor"}, {YARN, YARN "rope_low_freq=2\n", "rope_low_freq"},
        {YARN, YARN "rope_high_freq=30\n", "rope_high_freq"}, {YARN, YARN "rope_magnitude=2\n", "rope_magnitude"},
        /* from which others follow */
        {"", "n_head=3\nn_embd=96\n", "n_head"}, {"activation=silu\n", "activation=swiglu\n", "activation"},
        {YARN, YARN "rope_whole_pairs=0\n", "rope_whole_pairs"}, {YARN, YARN "rope_original_len=60\n", "rope_original_len"},
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
    a = good_config("vocab_size=65\nnorm=none\n"), b = good_config("vocab_size=65\nnorm=none\nnorm_eps=1e-3\n");
    assert_true(config_same(&a, &b, error));   /* nothing is normed */
    a = good_config("vocab_size=65\nqkv_bias=1\n"), b = good_config("vocab_size=65\n");
    assert_true(config_same(&a, &b, error));   /* biases are everywhere already */
    a = good_config("vocab_size=65\n" YARN), b = good_config("vocab_size=65\nrope_low_freq=1\nrope_high_freq=32\n" YARN);
    assert_true(config_same(&a, &b, error));   /* they are yarn's own */
    a = good_config("vocab_size=65\n" LINEAR "rope_factor=2\n"), b = good_config("vocab_size=65\n");
    assert_false(config_same(&a, &b, error));
    assert_string_equal(error, "rope_scaling is linear in the checkpoint, but none was asked for");
}

/* A directory's scaling with a user's settings on top, as --model DIR has it. */
static void test_scaling_of_directory(void **state) {
    (void)state;
    static const struct { const char *directory, *asked; RopeScaling expected; } cases[] = {
        {LINEAR "rope_factor=2\n", "", {SCALING_LINEAR, 2, 0, 0, 0, 0, false}},
        {LINEAR "rope_factor=2\n", "rope_factor=3\n", {SCALING_LINEAR, 3, 0, 0, 0, 0, false}},
        {LINEAR "rope_factor=2\n", "rope_scaling=none\n", {SCALING_NONE, 0, 0, 0, 0, 0, false}},
        {"", LLAMA3 "rope_factor=8\n", {SCALING_LLAMA3, 8, 96, 1, 4, 0, false}},
        {"", LLAMA3 "rope_factor=8\nrope_original_len=50\n", {SCALING_LLAMA3, 8, 50, 1, 4, 0, false}},
        {YARN "rope_magnitude=2\n", "", {SCALING_YARN, 4, 64, 1, 32, 2, true}},
        {YARN, "rope_whole_pairs=0\n", {SCALING_YARN, 4, 64, 1, 32, 1 + 0.1 * 1.3862943611198906, false}},
        {YARN, "rope_factor=1\n", {SCALING_YARN, 1, 64, 1, 32, 1, true}},
        {YARN "rope_low_freq=2\nrope_whole_pairs=0\n", LLAMA3 "rope_factor=3\n", {SCALING_LLAMA3, 3, 64, 1, 4, 0, false}},
        {YARN, "rope_scaling=none\npos=none\n", {SCALING_NONE, 0, 0, 0, 0, 0, false}},
        {YARN, "pos=none\n", {SCALING_NONE, 0, 0, 0, 0, 0, false}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "vocab_size=65\nseq_len=96\n%s", cases[i].directory);
        Config directory = good_config(text), c;
        Options o;
        options_defaults(&o);
        if (!options_parse_text(&o, cases[i].asked, strlen(cases[i].asked), "test", error)) fail_msg("%s", error);
        config_to_options(&directory, &o);
        if (!config_from_options(&c, &o, error)) fail_msg("%s on %s: %s", cases[i].asked, cases[i].directory, error);
        const RopeScaling *s = &c.rope_scaling, *e = &cases[i].expected;
        if (s->kind != e->kind || s->factor != e->factor || s->original_len != e->original_len || s->low_freq != e->low_freq
            || s->high_freq != e->high_freq || s->magnitude != e->magnitude || s->whole_pairs != e->whole_pairs)
            fail_msg("'%s' on '%s' comes out otherwise: %d %g %d %g %g %.17g %d", cases[i].asked, cases[i].directory, s->kind, s->factor,
                     (int)s->original_len, s->low_freq, s->high_freq, s->magnitude, s->whole_pairs);
        options_release(&train_options, &o);
    }
    Config c = good_config("vocab_size=65\n" YARN);
    assert_non_null(strstr(config_describe(&c), "RoPE (yarn, factor 4)"));
    c = good_config("vocab_size=65\n");
    assert_null(strstr(config_describe(&c), "RoPE ("));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets), cmocka_unit_test(test_users_choice_beats_preset), cmocka_unit_test(test_flops),
        cmocka_unit_test(test_derived_sizes), cmocka_unit_test(test_swiglu_width), cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_size_limits), cmocka_unit_test(test_file_of_algorithms),
        cmocka_unit_test(test_same), cmocka_unit_test(test_scaling_of_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
