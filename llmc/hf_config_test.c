/* hf_config_test.c: config.json of every family written, read, and damaged. */
#include "huggingface.h"
#include "config_test.h"

#include "error.h"
#include "families.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

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
    *error = 0;
    bool ok = config_read_json(c, json, error);
    json_free(json);
    return ok;
}

/* ---- written and read ------------------------------------------------------------------------------------------------------- */

static void check_round_trip(const Config *c) {
    Config back;
    char *text = json_of(c), *type = xprintf("\"model_type\": \"%s\"", family_of(c)->model_type);
    if (!config_of(&back, text)) fail_msg("%s in: %s", error, text);
    if (!config_same(c, &back, error) || !config_same(&back, c, error)) fail_msg("%s after reading: %s", error, text);
    if (back.Vp != c->Vp || back.maxT != c->maxT || back.dropout != c->dropout)
        fail_msg("Vp, maxT or dropout differ after reading: %s", text);
    if (!strstr(text, type)) fail_msg("no %s: %s", type, text);

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
    free(type);
    free(text);
}

/* Every combination of switches, with each of the shapes. */
static void test_round_trip(void **state) {
    (void)state;
    static const char *const shapes[] = {"", "n_kv_head=2\n", "head_size=20\n",
                                         "n_kv_head=1\nn_hidden=77\nnorm_eps=1.234567890123e-6\ndropout=0.1\n",
                                         "rope_base=123456.789\nmax_seq_len=1000\ndropout=0.3333333333333333\n",
                                         "n_head=5\nn_kv_head=1\nhead_size=16\n"};
    static const char *const positions[] = {"learned", "rope", "none"}, *const layouts[] = {"interleaved", "half"};
    static const char *const activations[] = {"gelu", "gelu-erf", "relu", "silu", "relu2", "swiglu"};
    static const char *const norms[] = {"layernorm", "rmsnorm", "none", "layernorm\nnorm_place=post", "rmsnorm\nnorm_place=post"};
    static const char *const biases[] = {"bias=1", "bias=0", "bias=0\nqkv_bias=1"};
    static const char *const types[] = {"gpt2", "llama", "qwen2", "qwen3", "gpt_neox", "train_gpt"};
    int checked = 0, seen[6] = {0};
    for (int bits = 0; bits < 3 * 2 * 6 * 5 * 3 * 2 * 2; bits++) {
        for (int s = 0; s < 6; s++) {
            char text[256];
            Config c;
            snprintf(text, sizeof text, "vocab_size=65\n%spos=%s\nrope_layout=%s\nactivation=%s\nnorm=%s\n%s\ntie=%d\nqk_norm=%d\n",
                     shapes[s],
                     positions[bits % 3], layouts[bits / 3 % 2], activations[bits / 6 % 6], norms[bits / 36 % 5], biases[bits / 180 % 3],
                     bits / 540 % 2, bits / 1080);
            if (!configure(&c, NULL, text)) fail_msg("%s: %s", text, error);
            check_round_trip(&c);
            checked++;
            for (int i = 0; i < 6; i++) seen[i] += strcmp(family_of(&c)->model_type, types[i]) == 0;
        }
    }
    assert_int_equal(checked, 6 * 2160);
    for (int i = 0; i < 6; i++) assert_true(seen[i] > 0);
}

/* Every scaling of RoPE in every family that has RoPE. */
static void test_scalings(void **state) {
    (void)state;
    static const char *const models[] = {"", "norm=rmsnorm\nactivation=swiglu\nbias=0\n", "norm=rmsnorm\nactivation=swiglu\nbias=0\nqkv_bias=1\n",
                                         "norm=rmsnorm\nactivation=swiglu\nbias=0\nqk_norm=1\nrope_layout=half\n", "norm=none\n"};
    static const struct { const char *settings, *members; } scalings[] = {
        {"rope_scaling=linear\nrope_factor=2.5\n", "\"rope_type\": \"linear\", \"factor\": 2.5"},
        {"rope_scaling=llama3\nrope_factor=32\nrope_original_len=8192\n",
         "\"rope_type\": \"llama3\", \"factor\": 32, \"original_max_position_embeddings\": 8192, \"low_freq_factor\": 1, \"high_freq_factor\": 4"},
        {"rope_scaling=llama3\nrope_factor=1.7\nrope_original_len=50\nrope_low_freq=0.3333333333333333\nrope_high_freq=9\nrope_base=777\n",
         "\"low_freq_factor\": 0.3333333333333333, \"high_freq_factor\": 9"},
        {"rope_scaling=yarn\nrope_factor=4\nrope_original_len=32768\n",
         "\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 32768, \"beta_slow\": 1, \"beta_fast\": 32"},
        {"rope_scaling=yarn\nrope_factor=4\nrope_original_len=64\nrope_magnitude=1.1\nrope_whole_pairs=0\n",
         "\"beta_fast\": 32, \"attention_factor\": 1.1, \"truncate\": false"},
        {"rope_scaling=yarn\nrope_factor=4\nrope_original_len=64\nrope_magnitude=2\n", "\"beta_fast\": 32, \"attention_factor\": 2.0"},
        {"rope_scaling=yarn\nrope_factor=1\nrope_original_len=64\nrope_low_freq=0.7\nrope_high_freq=1.9\n", "\"beta_slow\": 0.7"},
    };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
            char settings[300];
            Config c;
            snprintf(settings, sizeof settings, "vocab_size=65\n%s%s", models[m], scalings[i].settings);
            if (!configure(&c, NULL, settings)) fail_msg("%s: %s", settings, error);
            check_round_trip(&c);
            char *text = json_of(&c);
            int found = strstr(text, "\"rope_scaling\": {") ? 0 : -1;
            for (const char *at = text; (at = strstr(at, scalings[i].members)); at++) found++;
            if (found != 2) fail_msg("expected %s twice: %s", scalings[i].members, text);
            free(text);
        }
    Config plain;
    assert_true(configure(&plain, NULL, "vocab_size=65\n"));
    char *text = json_of(&plain);
    assert_null(strstr(text, "rope_scaling"));
    free(text);
}

/* ---- as Hugging Face publishes them: the members that matter here, and some that do not ------------------------------------- */

typedef struct { const char *key, *value; } Member;
typedef struct { const char *name; const Member *members; int count; } Published;
#define PUBLISHED(members) {#members, members, sizeof members / sizeof *members}

static const Member gpt2[] = {
    {"model_type", "\"gpt2\""}, {"architectures", "[\"GPT2LMHeadModel\"]"}, {"activation_function", "\"gelu_new\""}, {"attn_pdrop", "0.1"},
    {"bos_token_id", "50256"}, {"embd_pdrop", "0.1"}, {"eos_token_id", "50256"}, {"initializer_range", "0.02"},
    {"layer_norm_epsilon", "1e-05"}, {"n_ctx", "1024"}, {"n_embd", "768"}, {"n_head", "12"}, {"n_inner", "null"}, {"n_layer", "12"},
    {"n_positions", "1024"}, {"resid_pdrop", "0.1"},
    {"summary_activation", "null"}, {"task_specific_params", "{\"text-generation\": {\"do_sample\": true, \"max_length\": 50}}"},
    {"vocab_size", "50257"}};
static const Member llama[] = {
    {"model_type", "\"llama\""}, {"architectures", "[\"LlamaForCausalLM\"]"}, {"attention_bias", "false"}, {"bos_token_id", "1"},
    {"eos_token_id", "[2, 3]"}, {"hidden_act", "\"silu\""}, {"hidden_size", "4096"}, {"intermediate_size", "11008"},
    {"max_position_embeddings", "4096"}, {"num_attention_heads", "32"}, {"num_hidden_layers", "32"}, {"num_key_value_heads", "8"},
    {"pretraining_tp", "1"}, {"rms_norm_eps", "1e-05"}, {"rope_scaling", "null"}, {"rope_theta", "500000.0"},
    {"tie_word_embeddings", "false"},
    {"torch_dtype", "\"float16\""}, {"vocab_size", "32000"}};
static const Member qwen2[] = {
    {"model_type", "\"qwen2\""}, {"hidden_act", "\"silu\""}, {"hidden_size", "896"}, {"intermediate_size", "4864"},
    {"max_position_embeddings", "32768"}, {"max_window_layers", "24"}, {"num_attention_heads", "14"}, {"num_hidden_layers", "24"},
    {"num_key_value_heads", "2"}, {"rms_norm_eps", "1e-06"}, {"rope_theta", "1000000.0"}, {"sliding_window", "32768"},
    {"tie_word_embeddings", "true"}, {"use_sliding_window", "false"}, {"vocab_size", "151936"}};
static const Member qwen3[] = {
    {"model_type", "\"qwen3\""}, {"attention_bias", "false"}, {"attention_dropout", "0.0"}, {"head_dim", "128"}, {"hidden_act", "\"silu\""},
    {"hidden_size", "1024"}, {"intermediate_size", "3072"}, {"max_position_embeddings", "40960"}, {"max_window_layers", "28"},
    {"num_attention_heads", "16"}, {"num_hidden_layers", "28"}, {"num_key_value_heads", "8"}, {"rms_norm_eps", "1e-06"},
    {"rope_scaling", "null"},
    {"rope_theta", "1000000"}, {"sliding_window", "null"}, {"tie_word_embeddings", "true"}, {"use_sliding_window", "false"},
    {"vocab_size", "151936"}};
static const Member gpt_neox[] = {
    {"model_type", "\"gpt_neox\""}, {"hidden_act", "\"gelu\""}, {"hidden_size", "512"}, {"intermediate_size", "2048"},
    {"layer_norm_eps", "1e-05"},
    {"max_position_embeddings", "2048"}, {"num_attention_heads", "8"}, {"num_hidden_layers", "6"}, {"rotary_emb_base", "10000"},
    {"rotary_pct", "1.0"}, {"tie_word_embeddings", "false"}, {"use_parallel_residual", "false"}, {"vocab_size", "50304"}};
static const Member train_gpt[] = {
    {"model_type", "\"train_gpt\""}, {"n_layer", "6"}, {"n_head", "6"}, {"n_embd", "192"}, {"n_inner", "768"}, {"n_positions", "128"},
    {"vocab_size", "65"}, {"activation_function", "\"gelu_new\""}, {"tie_word_embeddings", "true"}, {"layer_norm_epsilon", "1e-05"},
    {"num_key_value_heads", "3"}, {"head_dim", "32"}, {"use_bias", "false"}, {"position_embedding", "\"rope\""},
    {"rope_layout", "\"interleaved\""}, {"rope_theta", "10000"}};   /* as versions before RMSNorm wrote it */
static const Published published[] = {PUBLISHED(gpt2), PUBLISHED(llama), PUBLISHED(qwen2), PUBLISHED(qwen3), PUBLISHED(gpt_neox),
                                      PUBLISHED(train_gpt)};
enum { FAMILIES = sizeof published / sizeof *published };

static const Published *published_as(const char *name) {
    int i = 0;
    while (strcmp(published[i].name, name) != 0) i++;
    return &published[i];
}

/* That, with one member replaced or added (value NULL: left out). */
static char *json_with(const char *name, const char *key, const char *value) {
    const Published *p = published_as(name);
    char *text;
    size_t length;
    FILE *f = open_memstream(&text, &length);
    const char *separator = "{";
    for (int i = 0; i < p->count; i++) {
        if (strcmp(p->members[i].key, key) == 0) continue;
        fprintf(f, "%s\"%s\": %s", separator, p->members[i].key, p->members[i].value);
        separator = ", ";
    }
    if (value) fprintf(f, "%s\"%s\": %s", separator, key, value);
    fprintf(f, "}");
    fclose(f);
    return text;
}

static Config read_with(const char *name, const char *key, const char *value) {
    Config c;
    char *text = json_with(name, key, value);
    if (!config_of(&c, text)) fail_msg("%s in: %s", error, text);
    free(text);
    return c;
}

/* They are the presets of that name, or those with settings on top. */
static void test_published(void **state) {
    (void)state;
    static const struct { const char *name, *preset, *settings; } same[] = {
        {"gpt2", "gpt2-124M", ""}, {"qwen2", "qwen2-0.5B", "max_seq_len=32768\n"}, {"qwen3", "qwen3-0.6B", "max_seq_len=40960\n"},
        {"llama", "llama-1B", "n_layer=32\nn_embd=4096\nn_hidden=11008\nvocab_size=32000\ntie=0\nrope_base=500000\nmax_seq_len=4096\n"},
        {"gpt_neox", "baby", "n_head=8\nn_embd=512\nvocab_size=50304\nactivation=gelu-erf\nrope_layout=half\ntie=0\nmax_seq_len=2048\n"},
        {"train_gpt", "baby", "n_kv_head=3\nbias=0\nvocab_size=65\n"}};
    for (int i = 0; i < FAMILIES; i++) {
        Config c = read_with(same[i].name, "none", NULL), expected;
        if (!configure(&expected, same[i].preset, same[i].settings)) fail_msg("%s: %s", same[i].preset, error);
        if (!config_same(&c, &expected, error)) fail_msg("%s: %s", same[i].name, error);
        assert_int_equal(c.maxT, expected.maxT);
        assert_string_equal(family_of(&c)->model_type, same[i].name);
        assert_int_equal(c.dropout == 0.1, i == 0);
    }
}

/* The small models that many begin with, each as its config.json has it, and its number of parameters. */
static const struct { const char *name, *json; int64_t parameters, context; double base; ScalingKind scaling; } common[] = {
    {"Llama 3.2 1B",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 128000,"
     " \"eos_token_id\": 128001, \"head_dim\": 64, \"hidden_act\": \"silu\", \"hidden_size\": 2048, \"initializer_range\": 0.02,"
     " \"intermediate_size\": 8192, \"max_position_embeddings\": 131072, \"mlp_bias\": false, \"model_type\": \"llama\","
     " \"num_attention_heads\": 32, \"num_hidden_layers\": 16, \"num_key_value_heads\": 8, \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05,"
     " \"rope_scaling\": {\"factor\": 32.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0,"
     " \"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}, \"rope_theta\": 500000.0, \"tie_word_embeddings\": true,"
     " \"torch_dtype\": \"bfloat16\", \"transformers_version\": \"4.45.0.dev0\", \"use_cache\": true, \"vocab_size\": 128256}",
     1235814400, 131072, 5e5, SCALING_LLAMA3},
    {"Llama 3.2 3B, as transformers 5 saves it",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 128000,"
     " \"dtype\": \"bfloat16\", \"eos_token_id\": [128001, 128008, 128009], \"head_dim\": 128, \"hidden_act\": \"silu\","
     " \"hidden_size\": 3072, \"initializer_range\": 0.02, \"intermediate_size\": 8192, \"max_position_embeddings\": 131072,"
     " \"mlp_bias\": false, \"model_type\": \"llama\", \"num_attention_heads\": 24, \"num_hidden_layers\": 28,"
     " \"num_key_value_heads\": 8, \"pad_token_id\": null, \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05,"
     " \"rope_parameters\": {\"factor\": 32.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0,"
     " \"original_max_position_embeddings\": 8192, \"rope_theta\": 500000.0, \"rope_type\": \"llama3\"},"
     " \"tie_word_embeddings\": true, \"transformers_version\": \"5.0.0\", \"use_cache\": true, \"vocab_size\": 128256}",
     3212749824, 131072, 5e5, SCALING_LLAMA3},
    {"SmolLM2 135M",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 0,"
     " \"eos_token_id\": 0, \"hidden_act\": \"silu\", \"hidden_size\": 576, \"initializer_range\": 0.041666666666666664,"
     " \"intermediate_size\": 1536, \"is_llama_config\": true, \"max_position_embeddings\": 8192, \"model_type\": \"llama\","
     " \"num_attention_heads\": 9, \"num_hidden_layers\": 30, \"num_key_value_heads\": 3, \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05,"
     " \"rope_interleaved\": false, \"rope_scaling\": null, \"rope_theta\": 100000, \"tie_word_embeddings\": true,"
     " \"torch_dtype\": \"bfloat16\", \"transformers_version\": \"4.40.1\", \"use_cache\": true, \"vocab_size\": 49152}",
     134515008, 8192, 1e5, SCALING_NONE},
    {"SmolLM2 360M",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 0,"
     " \"eos_token_id\": 0, \"hidden_act\": \"silu\", \"hidden_size\": 960, \"initializer_range\": 0.02, \"intermediate_size\": 2560,"
     " \"is_llama_config\": true, \"max_position_embeddings\": 8192, \"mlp_bias\": false, \"model_type\": \"llama\","
     " \"num_attention_heads\": 15, \"num_hidden_layers\": 32, \"num_key_value_heads\": 5, \"pad_token_id\": null, \"pretraining_tp\": 1,"
     " \"rms_norm_eps\": 1e-05, \"rope_interleaved\": false, \"rope_scaling\": null, \"rope_theta\": 100000,"
     " \"tie_word_embeddings\": true, \"torch_dtype\": \"float32\", \"transformers.js_config\": {\"dtype\": \"q4\"}, \"vocab_size\": 49152}",
     361821120, 8192, 1e5, SCALING_NONE},
    {"TinyLlama 1.1B",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"bos_token_id\": 1, \"eos_token_id\": 2, \"hidden_act\": \"silu\","
     " \"hidden_size\": 2048, \"initializer_range\": 0.02, \"intermediate_size\": 5632, \"max_position_embeddings\": 2048,"
     " \"model_type\": \"llama\", \"num_attention_heads\": 32, \"num_hidden_layers\": 22, \"num_key_value_heads\": 4, \"pretraining_tp\": 1,"
     " \"rms_norm_eps\": 1e-05, \"rope_scaling\": null, \"tie_word_embeddings\": false, \"torch_dtype\": \"float32\","
     " \"transformers_version\": \"4.31.0.dev0\", \"use_cache\": true, \"vocab_size\": 32000}",
     1100048384, 2048, 1e4, SCALING_NONE},
    {"Qwen2.5 0.5B",
     "{\"architectures\": [\"Qwen2ForCausalLM\"], \"attention_dropout\": 0.0, \"bos_token_id\": 151643, \"eos_token_id\": 151643,"
     " \"hidden_act\": \"silu\", \"hidden_size\": 896, \"initializer_range\": 0.02, \"intermediate_size\": 4864,"
     " \"max_position_embeddings\": 32768, \"max_window_layers\": 24, \"model_type\": \"qwen2\", \"num_attention_heads\": 14,"
     " \"num_hidden_layers\": 24, \"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0,"
     " \"sliding_window\": 32768, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\", \"transformers_version\": \"4.40.1\","
     " \"use_cache\": true, \"use_mrope\": false, \"use_sliding_window\": false, \"vocab_size\": 151936}",
     494032768, 32768, 1e6, SCALING_NONE},
    {"Qwen2.5 1.5B with the YaRN of its model card",
     "{\"architectures\": [\"Qwen2ForCausalLM\"], \"attention_dropout\": 0.0, \"bos_token_id\": 151643, \"eos_token_id\": 151645,"
     " \"hidden_act\": \"silu\", \"hidden_size\": 1536, \"initializer_range\": 0.02, \"intermediate_size\": 8960,"
     " \"max_position_embeddings\": 32768, \"max_window_layers\": 21, \"model_type\": \"qwen2\", \"num_attention_heads\": 12,"
     " \"num_hidden_layers\": 28, \"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-06, \"rope_scaling\": {\"factor\": 4.0,"
     " \"original_max_position_embeddings\": 32768, \"type\": \"yarn\"}, \"rope_theta\": 1000000.0, \"sliding_window\": 32768,"
     " \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\", \"use_sliding_window\": false, \"vocab_size\": 151936}",
     1543714304, 32768, 1e6, SCALING_YARN},
    {"Qwen3 0.6B",
     "{\"architectures\": [\"Qwen3ForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 151643,"
     " \"eos_token_id\": 151645, \"head_dim\": 128, \"hidden_act\": \"silu\", \"hidden_size\": 1024, \"initializer_range\": 0.02,"
     " \"intermediate_size\": 3072, \"max_position_embeddings\": 40960, \"max_window_layers\": 28, \"model_type\": \"qwen3\","
     " \"num_attention_heads\": 16, \"num_hidden_layers\": 28, \"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-06, \"rope_scaling\": null,"
     " \"rope_theta\": 1000000, \"sliding_window\": null, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\","
     " \"use_cache\": true, \"use_sliding_window\": false, \"vocab_size\": 151936}",
     596049920, 40960, 1e6, SCALING_NONE},
    {"Qwen3 1.7B, as transformers 5 saves it",
     "{\"architectures\": [\"Qwen3ForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 151643,"
     " \"dtype\": \"bfloat16\", \"eos_token_id\": 151645, \"head_dim\": 128, \"hidden_act\": \"silu\", \"hidden_size\": 2048,"
     " \"initializer_range\": 0.02, \"intermediate_size\": 6144, \"layer_types\": [\"full_attention\", \"full_attention\"],"
     " \"max_position_embeddings\": 40960, \"max_window_layers\": 28, \"model_type\": \"qwen3\", \"num_attention_heads\": 16,"
     " \"num_hidden_layers\": 28, \"num_key_value_heads\": 8, \"pad_token_id\": null, \"rms_norm_eps\": 1e-06,"
     " \"rope_parameters\": {\"rope_theta\": 1000000, \"rope_type\": \"default\"}, \"sliding_window\": null,"
     " \"tie_word_embeddings\": true, \"use_cache\": true, \"use_sliding_window\": false, \"vocab_size\": 151936}",
     1720574976, 40960, 1e6, SCALING_NONE},
    {"DistilGPT-2",
     "{\"_num_labels\": 1, \"activation_function\": \"gelu_new\", \"architectures\": [\"GPT2LMHeadModel\"], \"attn_pdrop\": 0.1,"
     " \"bos_token_id\": 50256, \"embd_pdrop\": 0.1, \"eos_token_id\": 50256, \"id2label\": {\"0\": \"LABEL_0\"},"
     " \"initializer_range\": 0.02, \"label2id\": {\"LABEL_0\": 0}, \"layer_norm_epsilon\": 1e-05, \"model_type\": \"gpt2\", \"n_ctx\": 1024,"
     " \"n_embd\": 768, \"n_head\": 12, \"n_layer\": 6, \"n_positions\": 1024, \"resid_pdrop\": 0.1, \"summary_first_dropout\": 0.1,"
     " \"summary_use_proj\": true, \"vocab_size\": 50257}",
     81912576, 1024, 1e4, SCALING_NONE},
};

static void test_common_models(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        Config c;
        ParameterTable table;
        if (!config_of(&c, common[i].json)) fail_msg("%s: %s", common[i].name, error);
        parameters_describe(&table, &c);
        if (table.parameters != common[i].parameters) fail_msg("%s: %lld parameters", common[i].name, (long long)table.parameters);
        parameters_release(&table);
        if (c.maxT != common[i].context || c.rope_scaling.kind != common[i].scaling || (c.pos == POS_ROPE && c.rope_base != common[i].base))
            fail_msg("%s: context, base or scaling is read wrongly", common[i].name);
        check_round_trip(&c);
    }
    Config c;   /* Pythia 70M */
    assert_false(config_of(&c, "{\"architectures\": [\"GPTNeoXForCausalLM\"], \"bos_token_id\": 0, \"eos_token_id\": 0, \"hidden_act\": \"gelu\","
                               " \"hidden_size\": 512, \"initializer_range\": 0.02, \"intermediate_size\": 2048, \"layer_norm_eps\": 1e-05,"
                               " \"max_position_embeddings\": 2048, \"model_type\": \"gpt_neox\", \"num_attention_heads\": 8,"
                               " \"num_hidden_layers\": 6, \"rotary_emb_base\": 10000, \"rotary_pct\": 0.25, \"tie_word_embeddings\": false,"
                               " \"torch_dtype\": \"float16\", \"use_cache\": true, \"use_parallel_residual\": true, \"vocab_size\": 50304}"));
    assert_string_equal(error, "config.json has use_parallel_residual true, which this engine lacks");
}

/* What a rope_scaling of Llama's (a context of 4096) comes to. */
static void test_read_scalings(void **state) {
    (void)state;
    static const struct { const char *object; RopeScaling expected; } cases[] = {
        {"{\"type\": \"linear\", \"factor\": 2.0}", {SCALING_LINEAR, 2, 0, 0, 0, 0, false}},
        {"{\"rope_type\": \"linear\", \"type\": \"linear\", \"factor\": 1, \"beta_fast\": 7}", {SCALING_LINEAR, 1, 0, 0, 0, 0, false}},
        {"{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.5, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 512}",
         {SCALING_LLAMA3, 8, 512, 1.5, 4, 0, false}},
        {"{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 2}", {SCALING_LLAMA3, 8, 4096, 1, 2, 0, false}},
        {"{\"type\": \"yarn\", \"factor\": 1}", {SCALING_YARN, 1, 4096, 1, 32, 1, true}},
        {"{\"type\": \"yarn\", \"factor\": null, \"original_max_position_embeddings\": 1024, \"attention_factor\": 1.5}",
         {SCALING_YARN, 4, 1024, 1, 32, 1.5, true}},
        {"{\"type\": \"yarn\", \"original_max_position_embeddings\": 4096}", {SCALING_YARN, 1, 4096, 1, 32, 1, true}},
        {"{\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": 16, \"beta_slow\": 2, \"truncate\": false, \"attention_factor\": 1}",
         {SCALING_YARN, 2, 4096, 2, 16, 1, false}},
        {"{\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": null, \"mscale\": 1, \"mscale_all_dim\": 1}", {SCALING_YARN, 2, 4096, 1, 32, 1, true}},
        {"{\"type\": \"yarn\", \"factor\": 2, \"mscale\": 1, \"mscale_all_dim\": 0.5, \"attention_factor\": 3}",
         {SCALING_YARN, 2, 4096, 1, 32, 3, true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c = read_with("llama", "rope_scaling", cases[i].object);
        const RopeScaling *s = &c.rope_scaling, *e = &cases[i].expected;
        if (s->kind != e->kind || s->factor != e->factor || s->original_len != e->original_len || s->low_freq != e->low_freq
            || s->high_freq != e->high_freq || s->magnitude != e->magnitude || s->whole_pairs != e->whole_pairs)
            fail_msg("%s is read as %d %g %d %g %g %g %d", cases[i].object, s->kind, s->factor, (int)s->original_len, s->low_freq, s->high_freq,
                     s->magnitude, s->whole_pairs);
    }
    Config c = read_with("llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 10, \"mscale\": 2, \"mscale_all_dim\": 0.5}");
    double tenth = log(10) / 10;
    assert_true(fabs(c.rope_scaling.magnitude - (1 + 2 * tenth) / (1 + tenth / 2)) < 1e-12);
    /* where it stands beside the object, it comes first */
    char *text = json_with("llama", "original_max_position_embeddings", "1024");
    char *both = xprintf("%.*s, \"rope_parameters\": {\"type\": \"yarn\", \"factor\": 2, \"original_max_position_embeddings\": 7}}",
                         (int)strlen(text) - 1, text);
    if (!config_of(&c, both)) fail_msg("%s", error);
    assert_int_equal(c.rope_scaling.original_len, 1024);
    free(text);
    free(both);
}

static void test_other_spellings(void **state) {
    (void)state;
    static const struct { const char *name, *key, *value; } accepted[] = {
        {"gpt2", "n_inner", "3072"}, {"gpt2", "n_inner", "1"}, {"gpt2", "reorder_and_upcast_attn", "false"},
        {"gpt2", "scale_attn_weights", "true"},
        {"gpt2", "tie_word_embeddings", "false"}, {"gpt2", "resid_pdrop", "0"}, {"gpt2", "some_new_field", "[1, 2]"},
        {"gpt2", "layer_norm_epsilon", "null"}, {"gpt2", "activation_function", "\"swish\""}, {"gpt2", "head_dim", "7"},
        {"llama", "mlp_bias", "false"}, {"llama", "attention_bias", "null"}, {"llama", "hidden_act", "\"swish\""},
        {"llama", "head_dim", "64"},
        {"llama", "head_dim", "null"}, {"llama", "sliding_window", "null"}, {"llama", "num_key_value_heads", "null"},
        {"llama", "rope_scaling", "{\"rope_type\": \"default\"}"}, {"llama", "rope_scaling", "{\"type\": \"default\"}"},
        {"llama", "partial_rotary_factor", "1.0"}, {"llama", "pretraining_tp", "null"}, {"llama", "quantization_config", "null"},
        {"qwen2", "layer_types", "[\"full_attention\", \"full_attention\"]"}, {"qwen2", "use_sliding_window", NULL},
        {"qwen2", "num_experts", "null"},
        {"gpt_neox", "attention_bias", "true"}, {"gpt_neox", "hidden_dropout", "0.1"}, {"gpt_neox", "head_dim", "64"},
        {"gpt_neox", "partial_rotary_factor", "0.5"},   /* rotary_pct is its name here */
        {"qwen2", "is_causal", "true"}, {"qwen2", "is_causal", "null"},
        {"gpt_neox", "rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 10000.0, \"partial_rotary_factor\": 1.0}"},
        {"train_gpt", "norm", "\"none\""}, {"train_gpt", "qkv_bias", "true"}, {"train_gpt", "use_bias", "true"},
    };
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) read_with(accepted[i].name, accepted[i].key, accepted[i].value);
    static const struct { const char *name; Activation activation; } activations[] = {
        {"gelu_new", ACT_GELU}, {"gelu_pytorch_tanh", ACT_GELU}, {"gelu_fast", ACT_GELU}, {"gelu", ACT_GELU_ERF},
        {"gelu_python", ACT_GELU_ERF},
        {"relu", ACT_RELU}, {"silu", ACT_SILU}, {"swish", ACT_SILU}, {"relu2", ACT_RELU2}};
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++) {
        char quoted[32];
        snprintf(quoted, sizeof quoted, "\"%s\"", activations[i].name);
        assert_int_equal(read_with("gpt2", "activation_function", quoted).activation, activations[i].activation);
        assert_int_equal(read_with("gpt_neox", "hidden_act", quoted).activation, activations[i].activation);
    }
}

/* The base of RoPE, wherever it stands; what rope_parameters says comes first, as in transformers. */
static void test_rope(void **state) {
    (void)state;
    static const char five[] = "{\"rope_type\": \"default\", \"rope_theta\": 2500.5, \"partial_rotary_factor\": 1}";
    assert_true(read_with("llama", "rope_parameters", five).rope_base == 2500.5);
    assert_true(read_with("qwen3", "rope_parameters", five).rope_base == 2500.5);
    assert_true(read_with("gpt_neox", "rope_parameters", five).rope_base == 2500.5);
    assert_true(read_with("gpt_neox", "rotary_emb_base", "5000").rope_base == 5000);
    assert_true(read_with("llama", "rope_theta", NULL).rope_base == 10000);
    assert_true(read_with("llama", "rope_parameters", "{}").rope_base == 500000);
    assert_int_equal(read_with("llama", "none", NULL).rope_layout, ROPE_HALF);
    assert_int_equal(read_with("llama", "train_gpt_rope_layout", "\"interleaved\"").rope_layout, ROPE_INTERLEAVED);
    Config c;
    char *text = json_with("gpt_neox", "rotary_pct", NULL);   /* a quarter, then, whatever a key says that is not its own */
    char *foreign = xprintf("%.*s, \"partial_rotary_factor\": 1}", (int)strlen(text) - 1, text);
    const char *const quarter[] = {text, foreign};
    for (int i = 0; i < 2; i++) {
        assert_false(config_of(&c, quarter[i]));
        assert_non_null(strstr(error, "config.json lacks rotary_pct, which then is 0.25: RoPE on a part of each head"));
    }
    free(foreign);
    free(text);
    text = json_with("gpt_neox", "use_parallel_residual", NULL);
    assert_false(config_of(&c, text));
    assert_string_equal(error, "config.json lacks use_parallel_residual, which then is true: this engine has only false");
    free(text);
}

/* As in transformers, a rope_scaling that is not empty takes the place of all of rope_parameters. */
static void test_rope_objects(void **state) {
    (void)state;
    static const struct { const char *scaling, *parameters; double base; const char *refused; } cases[] = {
        {"{\"rope_type\": \"default\"}", "{\"rope_theta\": 2500}", 5e5, NULL},
        {"{\"type\": \"default\", \"rope_theta\": 700}", "{\"rope_theta\": 2500}", 700, NULL},
        {"{}", "{\"rope_theta\": 2500}", 2500, NULL}, {"null", "{\"rope_theta\": 2500}", 2500, NULL},
        {"{\"rope_type\": \"default\"}", "{\"rope_type\": \"yarn\"}", 5e5, NULL},
        {"{\"rope_type\": \"linear\", \"factor\": 2}", "{\"rope_theta\": 2500, \"rope_type\": \"yarn\"}", 5e5, NULL},
        {"{\"rope_type\": \"dynamic\"}", "{\"rope_type\": \"default\"}", 0, "rope_scaling of type 'dynamic'"},
        {"{}", "{\"rope_type\": \"longrope\"}", 0, "rope_parameters of type 'longrope'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        char *one = json_with("llama", "rope_scaling", cases[i].scaling);
        char *both = xprintf("%.*s, \"rope_parameters\": %s}", (int)strlen(one) - 1, one, cases[i].parameters);
        bool read = config_of(&c, both);
        if (read != !cases[i].refused) fail_msg("%s: %s", both, read ? "accepted" : error);
        if (read && c.rope_base != cases[i].base) fail_msg("a base of %g from %s", c.rope_base, both);
        if (!read && !strstr(error, cases[i].refused)) fail_msg("\"%s\" does not say %s", error, cases[i].refused);
        free(one);
        free(both);
    }
}

/* What config_of prints on stderr goes into text. */
static double dropout_of(const char *name, const char *key, const char *value, char *text, size_t size) {
    FILE *file = tmpfile();
    int before = dup(STDERR_FILENO);
    assert_true(file && before >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    Config c = read_with(name, key, value);
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    close(before);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
    return c.dropout;
}

/* One for all, if those that are given agree; else the last, with one warning, however often it is read: this test comes first. */
static void test_dropouts(void **state) {
    (void)state;
    char text[512];
    assert_true(dropout_of("gpt2", "resid_pdrop", "0.1", text, sizeof text) == 0.1 && !*text);
    assert_true(dropout_of("gpt2", "resid_pdrop", NULL, text, sizeof text) == 0.1 && !*text);
    assert_true(dropout_of("gpt_neox", "attention_dropout", "0.2", text, sizeof text) == 0.2 && !*text);
    assert_true(dropout_of("gpt2", "resid_pdrop", "0.25", text, sizeof text) == 0.25);
    if (!strstr(text, "warning: config.json has attn_pdrop 0.1, but resid_pdrop 0.25; this engine has one dropout for all, and takes 0.25"))
        fail_msg("%s", text);
    assert_true(dropout_of("gpt2", "attn_pdrop", "0", text, sizeof text) == 0.1 && !*text);
}

/* Flags about biases, which must agree. */
static void test_biases(void **state) {
    (void)state;
    Config c;
    char *text = json_with("llama", "mlp_bias", "true");
    assert_false(config_of(&c, text));
    assert_string_equal(error, "config.json has attention_bias false, but mlp_bias true; this engine has biases in both, or in neither");
    free(text);
    text = json_with("llama", "attention_bias", "true");
    assert_false(config_of(&c, text));
    assert_non_null(strstr(error, "attention_bias true, but mlp_bias false"));
    char *both = xprintf("%.*s, \"mlp_bias\": true}", (int)strlen(text) - 1, text);
    assert_true(config_of(&c, both));
    assert_true(c.bias && c.qkv_bias && c.norm == NORM_RMSNORM);
    free(both);
    free(text);
}

/* ---- refusals --------------------------------------------------------------------------------------------------------------- */

static void expect_refusal(const char *family, const char *key, const char *value, const char *named) {
    Config c;
    char *text = json_with(family, key, value);
    if (config_of(&c, text)) fail_msg("accepted: %s", text);
    if (!*error || !strstr(error, named)) fail_msg("\"%s\" does not name %s, in: %s", error, named, text);
    if (strchr(error, '\n')) fail_msg("more than a sentence: %s", error);
    free(text);
}

/* In every family, by its own keys: sizes missing, of another kind, impossible. The option's name is what config_check uses. */
static void test_sizes(void **state) {
    (void)state;
    static const char *const wrong[] = {"\"12\"", "12.5", "true", "[]", "{}", "1e300", "9007199254740992", "0", "-12"};
    for (int i = 0; i < FAMILIES; i++) {
        const char *name = published[i].name;
        const ConfigKeys *k = &family_named(name)->keys;
        const struct { const char *key, *option; bool needed; } sizes[] = {
            {k->L, "n_layer", true}, {k->NH, "n_head", true}, {k->C, "n_embd", true}, {k->F, "n_hidden", k->F[0] == 'i'},
            {k->maxT, "max_seq_len", true}, {"vocab_size", "vocab_size", true}, {k->NKV, "n_kv_head", false}, {k->HS, "head_size", false}};
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            if (!sizes[s].key) continue;
            if (sizes[s].needed) expect_refusal(name, sizes[s].key, NULL, sizes[s].key);
            if (sizes[s].needed) expect_refusal(name, sizes[s].key, "null", sizes[s].key);
            for (int w = 0; w < 6; w++) expect_refusal(name, sizes[s].key, wrong[w], sizes[s].key);
            Config c;
            for (int w = 6; w < 9; w++) {
                char *text = json_with(name, sizes[s].key, wrong[w]);
                if (config_of(&c, text)) fail_msg("accepted: %s", text);
                if (!*error) fail_msg("no reason: %s", text);
                free(text);
            }
        }
        expect_refusal(name, k->norm_eps, "0", k->norm_eps);
        expect_refusal(name, k->norm_eps, "\"1e-5\"", k->norm_eps);
        expect_refusal(name, k->norm_eps, "2", k->norm_eps);
        for (const char *const *dropout = k->dropouts; *dropout; dropout++) {
            expect_refusal(name, *dropout, "1", *dropout);
            expect_refusal(name, *dropout, "-0.1", *dropout);
            expect_refusal(name, *dropout, "\"no\"", *dropout);
        }
        expect_refusal(name, k->activation, "\"mish\"", "mish");
        expect_refusal(name, k->activation, "3", k->activation);
        expect_refusal(name, k->activation, "\"\"", k->activation);
        expect_refusal(name, "tie_word_embeddings", "0", "tie_word_embeddings");
        expect_refusal(name, "model_type", NULL, "model_type");
        expect_refusal(name, "model_type", "7", "model_type");
        expect_refusal(name, "model_type", "\"mixtral\"", "mixtral");
        if (k->NKV) expect_refusal(name, k->NKV, "5", "5 key/value heads do not divide");
        if (k->rope_base) expect_refusal(name, k->rope_base, "0", k->rope_base);
        if (k->rope_base) expect_refusal(name, k->rope_base, "1e300", k->rope_base);
        if (k->rope_base) expect_refusal(name, k->rope_base, "\"10000\"", k->rope_base);
        expect_refusal(name, "num_experts", "8", "num_experts");
        expect_refusal(name, "num_local_experts", "8", "num_local_experts");
        expect_refusal(name, "quantization_config", "{\"bits\": 4}", "quantization_config");
        expect_refusal(name, "layer_types", "[\"full_attention\", \"sliding_attention\"]", "sliding_attention");
        expect_refusal(name, "layer_types", "[\"linear_attention\"]", "linear_attention");
        expect_refusal(name, "layer_types", "[7]", "layer_types");
        expect_refusal(name, "layer_types", "\"full_attention\"", "layer_types");
    }
}

#define LLAMA3(factor, low, high, original)                                                                                         \
    "{\"rope_type\": \"llama3\", \"factor\": " factor ", \"low_freq_factor\": " low ", \"high_freq_factor\": " high                        \
    ", \"original_max_position_embeddings\": " original "}"

static void test_features(void **state) {
    (void)state;
    static const struct { const char *family, *key, *value, *named; } refused[] = {
        {"gpt2", "scale_attn_by_inverse_layer_idx", "true", "scale_attn_by_inverse_layer_idx true"},
        {"gpt2", "add_cross_attention", "true", "add_cross_attention"}, {"gpt2", "scale_attn_weights", "false", "scale_attn_weights false"},
        {"gpt2", "scale_attn_weights", "\"yes\"", "scale_attn_weights"},
        {"gpt2", "n_head", "7", "n_head 7, which does not divide n_embd 768"},
        {"llama", "rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}",
         "rope_scaling of type 'dynamic', which this engine lacks; it has default, linear, llama3 and yarn"},
        {"llama", "rope_scaling", "{\"rope_type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [2]}", "rope_scaling of type 'longrope'"},
        {"qwen2", "rope_scaling", "{\"rope_type\": \"mrope\", \"mrope_section\": [1]}", "rope_scaling of type 'mrope'"},
        {"llama", "rope_scaling", "{\"rope_type\": \"none\"}", "rope_scaling of type 'none'"},
        {"llama", "rope_scaling", "{\"rope_type\": \"linear\"}", "'factor'"}, {"llama", "rope_scaling", LLAMA3("\"8\"", "1", "4", "9"), "'factor'"},
        {"llama", "rope_scaling", LLAMA3("0.5", "1", "4", "9"), "'factor'"}, {"llama", "rope_scaling", LLAMA3("null", "1", "4", "9"), "'factor'"},
        {"llama", "rope_scaling", LLAMA3("8", "0", "4", "9"), "'low_freq_factor'"},
        {"llama", "rope_scaling", LLAMA3("8", "null", "4", "9"), "'low_freq_factor'"},
        {"llama", "rope_scaling", LLAMA3("8", "1", "null", "9"), "'high_freq_factor'"},
        {"llama", "rope_scaling", LLAMA3("8", "4", "1", "9"), "rope_low_freq is 4 and rope_high_freq 1"},
        {"llama", "rope_scaling", LLAMA3("8", "1", "1", "9"), "rope_low_freq is 1 and rope_high_freq 1"},
        {"llama", "rope_scaling", LLAMA3("8", "1", "4", "0"), "rope_original_len is 0"},
        {"llama", "rope_scaling", LLAMA3("8", "1", "4", "8192.5"), "original_max_position_embeddings"},
        {"llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}", "attention_factor"},
        {"llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": \"1\"}", "attention_factor"},
        {"llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": -1}", "beta_fast"},
        {"llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"truncate\": 1}", "truncate"},
        {"llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"rope_theta\": 1}", "rope_base 1"},
        {"llama", "rope_scaling", "{\"type\": \"yarn\", \"original_max_position_embeddings\": 5000}", "rope_factor is 0.8192"},
        {"train_gpt", "rope_scaling", "{\"rope_type\": \"dynamic\"}", "rope_scaling of type 'dynamic'"},
        {"llama", "rope_scaling", "{\"type\": 7}", "'type'"}, {"llama", "rope_scaling", "\"yarn\"", "rope_scaling"},
        {"llama", "rope_parameters", "{\"rope_type\": \"su\", \"rope_theta\": 1e4}", "rope_parameters of type 'su'"},
        {"llama", "rope_parameters", "{\"rope_theta\": \"1e4\"}", "rope_theta"},
        {"llama", "rope_parameters", "{\"rope_theta\": 0}", "rope_theta"},
        {"llama", "rope_parameters", "{\"full_attention\": {\"rope_theta\": 1e4}}", "rope_parameters of each kind of layer"},
        {"llama", "rope_parameters", "[]", "rope_parameters"}, {"llama", "partial_rotary_factor", "0.5", "partial_rotary_factor 0.5"},
        {"llama", "rope_parameters", "{\"partial_rotary_factor\": 0.5}", "config.json has rope_parameters.partial_rotary_factor 0.5"},
        {"llama", "is_causal", "false", "is_causal false"}, {"qwen2", "is_causal", "false", "is_causal false"},
        {"gpt2", "is_causal", "0", "is_causal"},
        {"gpt_neox", "head_dim", "32", "head_dim 32, where heads have 64 channels"}, {"gpt_neox", "head_dim", "\"64\"", "head_dim"},
        {"llama", "pretraining_tp", "2", "pretraining_tp"}, {"llama", "pretraining_tp", "\"2\"", "pretraining_tp"},
        {"llama", "hidden_act", "\"gelu\"", "a gated MLP with hidden_act gelu"}, {"llama", "sliding_window", "4096", "sliding_window"},
        {"llama", "mlp_bias", "1", "mlp_bias"}, {"llama", "num_attention_heads", "31", "31"},
        {"llama", "head_dim", "127", "head size is 127"},
        {"llama", "train_gpt_rope_layout", "\"thirds\"", "train_gpt_rope_layout"},
        {"qwen2", "use_sliding_window", "true", "use_sliding_window true"}, {"qwen2", "use_sliding_window", "1", "use_sliding_window"},
        {"qwen3", "use_sliding_window", "true", "use_sliding_window true"}, {"qwen3", "attention_bias", "true", "attention_bias true"},
        {"gpt_neox", "use_parallel_residual", "true", "use_parallel_residual true"},
        {"gpt_neox", "use_parallel_residual", "0", "use_parallel_residual"},
        {"gpt_neox", "rotary_pct", "0.25", "rotary_pct 0.25"}, {"gpt_neox", "rotary_pct", "\"1\"", "rotary_pct"},
        {"gpt_neox", "attention_bias", "false", "attention_bias false"},
        {"gpt_neox", "num_attention_heads", "7", "7, which does not divide hidden_size 512"},
        {"gpt_neox", "rope_parameters", "{\"partial_rotary_factor\": 0.25}", "rope_parameters.partial_rotary_factor 0.25"},
        {"train_gpt", "position_embedding", "\"alibi\"", "position_embedding"},
        {"train_gpt", "position_embedding", "1", "position_embedding"},
        {"train_gpt", "rope_layout", "\"third\"", "rope_layout"}, {"train_gpt", "rope_layout", "{}", "rope_layout"},
        {"train_gpt", "norm", "\"batchnorm\"", "norm"}, {"train_gpt", "norm_place", "\"sandwich\"", "norm_place"},
        {"train_gpt", "norm_place", "1", "norm_place"},
        {"train_gpt", "qk_norm", "\"yes\"", "qk_norm"}, {"train_gpt", "gated", "true", "a gated MLP with activation_function gelu_new"},
        {"train_gpt", "gated", "1", "gated"}, {"train_gpt", "use_bias", "1", "use_bias"}, {"train_gpt", "qkv_bias", "{}", "qkv_bias"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        expect_refusal(refused[i].family, refused[i].key, refused[i].value, refused[i].named);
    static const char *const not_objects[] = {"{}", "[]", "null", "3", "\"gpt2\"", "[\"model_type\", \"gpt2\"]"};
    for (size_t i = 0; i < sizeof not_objects / sizeof *not_objects; i++) {
        Config c;
        if (config_of(&c, not_objects[i])) fail_msg("accepted: %s", not_objects[i]);
        assert_non_null(strstr(error, "model_type"));
    }
}

/* ---- special tokens --------------------------------------------------------------------------------------------------------- */

static char *generation_of(const char *json) {
    Json *tree = json_parse(json, strlen(json), NULL, 0);
    char *text;
    size_t length;
    FILE *f = open_memstream(&text, &length);
    generation_config_write(f, (SpecialTokens){json_get(tree, "bos"), json_get(tree, "eos"), json_get(tree, "pad")}, 128002);
    fclose(f);
    json_free(tree);
    return text;
}

static void test_special_tokens(void **state) {
    (void)state;
    static const struct { const char *json, *bos, *eos, *pad; } cases[] = {
        {"{}", "null", "null", "null"}, {"{\"bos\": 50256, \"eos\": 50256, \"pad\": 3}", "50256", "50256", "3"},
        {"{\"eos\": [128001, 7, 0]}", "null", "[128001, 7, 0]", "null"},
        {"{\"eos\": [128002, 7, 1e9, -1, 0.5, \"x\", 0]}", "null", "[7, 0]", "null"},
        {"{\"bos\": 128002, \"eos\": -1, \"pad\": -1}", "null", "null", "null"},
        {"{\"bos\": 0, \"eos\": []}", "0", "[]", "null"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = generation_of(cases[i].json), *expected;
        expected = xprintf("{\n  \"bos_token_id\": %s,\n  \"eos_token_id\": %s,\n  \"pad_token_id\": %s\n}\n", cases[i].bos, cases[i].eos,
                           cases[i].pad);
        assert_string_equal(text, expected);
        free(text);
        free(expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dropouts), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_scalings),
        cmocka_unit_test(test_published), cmocka_unit_test(test_common_models), cmocka_unit_test(test_read_scalings),
        cmocka_unit_test(test_other_spellings), cmocka_unit_test(test_rope), cmocka_unit_test(test_rope_objects),
        cmocka_unit_test(test_biases), cmocka_unit_test(test_sizes), cmocka_unit_test(test_features), cmocka_unit_test(test_special_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
