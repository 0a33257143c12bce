/* huggingface_test.c: directories as transformers writes them (dev/hf, made by dev/hf.py) give transformers' logits here, come out again as
   they went in, and are refused, with what is wrong, when anything in them is. */
#include "model_directory.h"

#include "families.h"
#include "model_test.h"
#include "weight_files.h"
#include "weights.h"

#include <errno.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const families[] = {"gpt2", "llama", "llama_shards", "qwen2", "qwen3", "gpt_neox", "llama3", "yarn", "linear"};
enum { FAMILIES = sizeof families / sizeof *families };

static int begin(void **state) {
#ifdef _OPENMP
    omp_set_num_threads(1);   /* models this small are fastest so */
#endif
    return make_directory(state);
}

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

/* A path in the test's directory, or among the committed ones; alive until the sixteenth call after it. */
static const char *path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *path_of(const char *format, ...) {
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof paths[0], format, arguments);
    va_end(arguments);
    return path;
}
static const char *committed(const char *family) { return path_of("dev/hf/%s", family); }
static const char *at(const char *name) { return path_of("%s/%s", directory, name); }

static void expect_error(const char *cause) {
    if (!strstr(error, cause)) fail_msg("\"%s\" does not say \"%s\"", error, cause);
}

static void put_text(const char *where, const char *name, const char *text) {
    if (!file_write_text(where, name, text, strlen(text), error)) fail_msg("%s", error);
}
static char *get_text(const char *path) {
    size_t length;
    char *text = file_read_text(path, 1 << 20, &length, error);
    if (!text) fail_msg("%s", error);
    return text;
}
static void copy_file(const char *from, const char *to, const char *name) {
    size_t length;
    char *source = path_join(from, name), *text = file_read_text(source, 1 << 20, &length, error);
    if (!text || !file_write_text(to, name, text, length, error)) fail_msg("%s", error);
    free(text);
    free(source);
}
static void new_directory(const char *path) {
    if (!directory_remove(path, error) || !directory_create(path, error)) fail_msg("%s", error);
}

/* How many paths match. */
static size_t count_paths(const char *pattern) {
    glob_t found;
    size_t count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return count;
}

static Config config_in(const char *where) {
    Config c;
    if (!model_directory_config(where, &c, error)) fail_msg("%s", error);
    return c;
}

/* The model of a directory, its RoPE rotating pairs of that layout. */
static void load_as(Model *m, const char *where, Config c, int64_t B, int64_t T) {
    ModelSpec spec = {.config = c, .dtype = F32, .mode = MODEL_EVALUATE, .B = B, .T = T};
    model_create(m, &spec, backend_find("cpu"));
    if (!model_read_directory(m, where, error)) fail_msg("%s", error);
}
static void load(Model *m, const char *where) { load_as(m, where, config_in(where), 1, 1); }

static void expect_same_weights(const Model *a, const Model *b) {
    assert_int_equal(a->table.elements, b->table.elements);
    assert_memory_equal(a->masters.data, b->masters.data, tensor_bytes(a->masters));
}

static void open_shards(WeightFiles *s, const char *where) {
    if (!weight_files_open(s, where, error)) fail_msg("%s", error);
}

/* ---- transformers' logits --------------------------------------------------------------------------------------------------- */

static const SafetensorsEntry *entry_of(const Safetensors *file, const char *name) {
    const SafetensorsEntry *entry = safetensors_find(file, name);
    if (!entry) fail_msg("no %s", name);
    return entry;
}

/* The two conditions of "to 1e-4 relative": of the whole, and of the worst element against the greatest. */
static void check_logits(const char *family, const float *got, const float *expected, int64_t n) {
    double worst = 0, greatest = 0, whole = difference(got, expected, n);
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - expected[i]));
        greatest = fmax(greatest, fabs((double)expected[i]));
        if (!isfinite(got[i])) fail_msg("%s: a logit is not finite", family);
    }
    if (!(greatest > 1 && whole <= 1e-4 && worst <= 1e-4 * greatest))
        fail_msg("%s: logits differ by %g, the worst by %g of %g", family, whole, worst, greatest);
}

static void check_against_transformers(const char *family, Config c) {
    Safetensors file;
    Model m;
    if (!safetensors_open(&file, path_of("dev/hf/%s/logits.safetensors", family), error)) fail_msg("%s", error);
    const SafetensorsEntry *tokens = entry_of(&file, "tokens"), *logits = entry_of(&file, "logits");
    int64_t B = tokens->shape[0], T = tokens->shape[1], n = B * T * c.V, wide[1];
    int32_t *batch = malloc((size_t)(B * T) * sizeof *batch);
    float *expected = malloc((size_t)n * sizeof *expected), *got = malloc((size_t)n * sizeof *got);
    assert_int_equal(logits->bytes, (size_t)n * sizeof *got);
    for (int64_t i = 0; i < B * T; i++) {
        safetensors_read_integers(tokens, i, 1, wide);
        batch[i] = (int32_t)wide[0];
    }
    safetensors_read_floats(logits, 0, n, expected);
    load_as(&m, committed(family), c, B, T);
    model_evaluate(&m, batch, batch);
    model_copy_logits(&m, got);
    check_logits(family, got, expected, n);
    model_free(&m);
    free(batch);
    free(expected);
    free(got);
    safetensors_close(&file);
}

static void test_logits(void **state) {
    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        Config c = config_in(committed(families[i]));
        check_against_transformers(families[i], c);
        if (c.pos != POS_ROPE) continue;
        assert_int_equal(c.rope_layout, ROPE_HALF);
        c.rope_layout = ROPE_INTERLEAVED;   /* the same model, its queries and keys in another order */
        check_against_transformers(families[i], c);
    }
}

static bool same_scaling(const RopeScaling *a, const RopeScaling *b) {
    return a->kind == b->kind && a->factor == b->factor && a->original_len == b->original_len && a->low_freq == b->low_freq
        && a->high_freq == b->high_freq && fabs(a->magnitude - b->magnitude) < 1e-12 && a->whole_pairs == b->whole_pairs;
}

/* What each directory says, beyond what its logits would show. */
static void test_configs(void **state) {
    (void)state;
    const struct {
        const char *name, *family;
        int64_t NKV, HS;
        bool bias, qkv_bias, tie, gated, qk_norm;
        double base, eps;
        RopeScaling scaling;
    } expected[] = {
        {"gpt2", "gpt2", 4, 8, true, true, true, false, false, 10000, 1e-5, {0}},
        {"llama", "llama", 2, 12, false, false, false, true, false, 5e5, 1e-6, {0}},
        {"llama_shards", "llama", 1, 8, true, true, false, true, false, 10000, 1e-5, {0}},
        {"qwen2", "qwen2", 2, 8, false, true, true, true, false, 1e6, 1e-6, {0}},
        {"qwen3", "qwen3", 2, 16, false, false, false, true, true, 10000, 1e-6, {0}},
        {"gpt_neox", "gpt_neox", 4, 8, true, true, false, false, false, 10000, 1e-5, {0}},
        {"llama3", "llama", 1, 16, false, false, false, true, false, 100, 1e-6,
         {.kind = SCALING_LLAMA3, .factor = 3, .original_len = 8, .low_freq = 0.2, .high_freq = 1}},
        {"yarn", "qwen2", 1, 8, false, true, false, true, false, 100, 1e-6,
         {.kind = SCALING_YARN, .factor = 3, .original_len = 8, .low_freq = 0.2, .high_freq = 1, .magnitude = 1 + log(3) / 10, .whole_pairs = true}},
        {"linear", "gpt_neox", 4, 8, true, true, false, false, false, 100, 1e-5, {.kind = SCALING_LINEAR, .factor = 3}},
    };
    assert_int_equal(sizeof expected / sizeof *expected, FAMILIES);
    for (int i = 0; i < FAMILIES; i++) {
        Config c = config_in(committed(expected[i].name));
        const char *family = huggingface_family(&c, error);
        assert_string_equal(family, expected[i].family);
        bool same = c.L == 2 && c.NH == 4 && c.C == 32 && c.V == 67 && c.maxT == 24 && c.NKV == expected[i].NKV && c.HS == expected[i].HS
                 && c.bias == expected[i].bias && c.qkv_bias == expected[i].qkv_bias && c.tie == expected[i].tie
                 && c.gated == expected[i].gated && c.qk_norm == expected[i].qk_norm
                 && c.rope_base == expected[i].base && c.norm_eps == expected[i].eps && same_scaling(&c.rope_scaling, &expected[i].scaling);
        if (!same) fail_msg("the config of %s is read wrongly", expected[i].name);
    }
}

/* ---- out and in again ------------------------------------------------------------------------------------------------------- */

/* The tensors of both directories have the same names and shapes, and, where exact, the same bits as floats. */
static void expect_same_tensors(const char *a, const char *b, bool exact) {
    WeightFiles in_a, in_b;
    open_shards(&in_a, a);
    open_shards(&in_b, b);
    TensorIndex x = tensors_of_files(in_a.files, in_a.count), y = tensors_of_files(in_b.files, in_b.count);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) {
        const SafetensorsEntry *p = x.entries[i], *q = y.entries[i];
        assert_string_equal(p->name, q->name);
        assert_int_equal(p->rank, q->rank);
        assert_memory_equal(p->shape, q->shape, sizeof p->shape);
        int64_t n = 1;
        for (int k = 0; k < p->rank; k++) n *= p->shape[k];
        float *u = malloc((size_t)n * sizeof *u), *v = malloc((size_t)n * sizeof *v);
        safetensors_read_floats(p, 0, n, u);
        safetensors_read_floats(q, 0, n, v);
        if (exact && memcmp(u, v, (size_t)n * sizeof *u) != 0) fail_msg("%s differs", p->name);
        free(u);
        free(v);
    }
    tensors_release(&x);
    tensors_release(&y);
    weight_files_close(&in_a);
    weight_files_close(&in_b);
}

static void expect_mode_and_names(const char *where, bool tokenizer) {
    static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors", "vocab.json", "merges.txt"};
    for (int i = 0; i < 5; i++)
        if (path_exists(path_of("%s/%s", where, names[i])) != (i < 3 || tokenizer)) fail_msg("%s: %s", where, names[i]);
}

static void check_round_trip(const char *family, RopeLayout layout) {
    Model m, back;
    Config c = config_in(committed(family));
    const char *out = at("export");
    if (c.pos == POS_ROPE) c.rope_layout = layout;
    load_as(&m, committed(family), c, 1, 1);
    assert_true(directory_remove(out, error));
    if (!model_export(&m, out, committed(family), F32, error)) fail_msg("%s", error);
    assert_int_equal(count_paths(at("export.writing*")), 0);
    expect_mode_and_names(out, false);
    expect_same_tensors(committed(family), out, true);
    Config again = config_in(out);
    if (!config_same(&c, &again, error)) fail_msg("%s: %s", family, error);
    char *text = get_text(path_of("%s/config.json", out)), *generation = get_text(path_of("%s/generation_config.json", out));
    bool marked = strstr(text, "\"train_gpt_rope_layout\": \"interleaved\"") != NULL;
    assert_int_equal(marked, c.pos == POS_ROPE && layout == ROPE_INTERLEAVED);
    assert_non_null(strstr(text, "\"dtype\": \"float32\""));
    assert_non_null(strstr(text, "\"eos_token_id\": 2"));
    assert_non_null(strstr(generation, "\"bos_token_id\": 1,\n  \"eos_token_id\": 2"));
    load(&back, out);
    expect_same_weights(&m, &back);
    assert_false(model_export(&m, out, NULL, F32, error));
    expect_error("exists already");
    free(text);
    free(generation);
    model_free(&m);
    model_free(&back);
}

static void test_round_trip(void **state) {
    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        check_round_trip(families[i], ROPE_HALF);
        check_round_trip(families[i], ROPE_INTERLEAVED);
    }
}

/* The bits of a rounded export are those of the bf16 directory it came from. */
static void test_bf16_export(void **state) {
    (void)state;
    Model m;
    WeightFiles s;
    load(&m, committed("llama_shards"));
    assert_true(directory_remove(at("half"), error));
    put_text(directory, "vocab.json", "{}");
    put_text(directory, "merges.txt", "");
    if (!model_export(&m, path_of("%s/half//", directory), directory, BF16, error)) fail_msg("%s", error);
    expect_mode_and_names(at("half"), true);
    expect_same_tensors(committed("llama_shards"), at("half"), true);
    open_shards(&s, at("half"));
    for (size_t i = 0; i < s.files[0].count; i++) assert_int_equal(s.files[0].entries[i].dtype, ST_BF16);
    char *text = get_text(at("half/config.json"));
    assert_non_null(strstr(text, "\"dtype\": \"bfloat16\""));
    assert_non_null(strstr(text, "\"bos_token_id\": null"));
    free(text);
    weight_files_close(&s);
    model_free(&m);
}

/* Files of the vocabulary that we do not read go along, byte by byte. */
static void test_companions(void **state) {
    (void)state;
    static const char *const names[] = {"tokenizer.model", "added_tokens.json", "chat_template.jinja", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    static const char bytes[] = "\n\0\xFFpiece";
    Model m;
    load(&m, committed("gpt2"));
    new_directory(at("companions"));
    for (int i = 0; i < 5; i++)
        if (!file_write_text(at("companions"), names[i], bytes, sizeof bytes, error)) fail_msg("%s", error);
    put_text(at("companions"), "README.md", "of another model");
    if (!model_export(&m, at("with_companions"), at("companions"), F32, error)) fail_msg("%s", error);
    for (int i = 0; i < 5; i++) {
        size_t length;
        char *text = file_read_text(path_of("%s/%s", at("with_companions"), names[i]), 100, &length, error);
        if (!text) fail_msg("%s", error);
        assert_int_equal(length, sizeof bytes);
        assert_memory_equal(text, bytes, length);
        free(text);
    }
    assert_false(path_exists(at("with_companions/README.md")));
    model_free(&m);
}

/* The file has these values of bos, eos and pad. */
static void expect_tokens(const char *name, const char *values) {
    char *text = get_text(path_of("%s/%s", at("tokens"), name)), found[100] = "";
    static const char *const keys[] = {"\"bos_token_id\": ", "\"eos_token_id\": ", "\"pad_token_id\": "};
    for (int i = 0; i < 3; i++) {
        const char *place = strstr(text, keys[i]);
        if (!place) fail_msg("%s lacks %s", name, keys[i]);
        place += strlen(keys[i]);
        size_t used = strlen(found), length = strcspn(place, "\n");
        length -= place[length - 1] == ',';
        snprintf(found + used, sizeof found - used, "%s%.*s", i ? " " : "", (int)length, place);
    }
    if (strcmp(found, values) != 0) fail_msg("%s has %s; expected %s", name, found, values);
    free(text);
}

static void write_model(const char *path, Model *m, const char *tokenizer_directory) {
    Snapshot s = {0};
    model_snapshot(m, &s, false, false);
    if (!model_directory_write(path, &s, F32, tokenizer_directory, error)) fail_msg("%s", error);
    snapshot_release(&s);
}

/* Each token by itself, from the file of the same name first, then from the other; ids that the vocabulary lacks (of 67) from neither. */
static void test_special_tokens(void **state) {
    (void)state;
    static const struct { const char *config, *generation, *in_config, *in_generation; } cases[] = {
        {"{\"bos_token_id\": 1, \"eos_token_id\": 2}", "{\"eos_token_id\": [2, 900, 5], \"pad_token_id\": 7}", "1 2 7", "1 [2, 5] 7"},
        {"{\"pad_token_id\": 0, \"eos_token_id\": [67, 68]}", "{\"bos_token_id\": 66}", "66 null 0", "66 null 0"},
        {"{\"bos_token_id\": 4, \"eos_token_id\": 6, \"pad_token_id\": 8}",
         "{\"bos_token_id\": 3, \"eos_token_id\": 5, \"pad_token_id\": -1}", "4 6 8", "3 5 8"},
    };
    Model m;
    load(&m, committed("gpt2"));
    new_directory(at("vocabulary"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(at("vocabulary"), "config.json", cases[i].config);
        put_text(at("vocabulary"), "generation_config.json", cases[i].generation);
        new_directory(at("tokens"));
        write_model(at("tokens"), &m, at("vocabulary"));
        expect_tokens("config.json", cases[i].in_config);
        expect_tokens("generation_config.json", cases[i].in_generation);
    }
    model_free(&m);
}

/* Where no family fits, names are ours, and a RoPE of either layout is read into a model of either. */
static void test_native(void **state) {
    (void)state;
    static const char *const settings[] = {
        "norm=rmsnorm\n", "norm=none\npos=learned\n", "norm_place=post\ntie=0\n", "qk_norm=1\nrope_layout=half\n",
        "activation=swiglu\nqkv_bias=1\nbias=0\n", "n_kv_head=2\nhead_size=10\n", "qk_norm=1\nnorm=rmsnorm\nactivation=relu2\nbias=0\n"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        Model m, back, turned;
        ModelSpec spec = spec_of(settings[i], F32, MODEL_EVALUATE, 1);
        create_on(backend_find("cpu"), &m, &spec);
        new_directory(at("native"));
        assert_null(huggingface_family(&spec.config, error));
        assert_false(model_export(&m, at("refused"), NULL, F32, error));
        expect_error("no Hugging Face family has this architecture");
        assert_false(path_exists(at("refused")));
        write_model(at("native"), &m, NULL);
        assert_false(path_exists(at("native/generation_config.json")));
        Config c = config_in(at("native"));
        if (!config_same(&c, &spec.config, error)) fail_msg("%s", error);
        load(&back, at("native"));
        expect_same_weights(&m, &back);
        if (c.pos == POS_ROPE) {   /* there and back */
            c.rope_layout = c.rope_layout == ROPE_HALF ? ROPE_INTERLEAVED : ROPE_HALF;
            load_as(&turned, at("native"), c, 1, 1);
            assert_true(memcmp(turned.masters.data, m.masters.data, tensor_bytes(m.masters)) != 0);
            new_directory(at("turned"));
            write_model(at("turned"), &turned, NULL);
            model_free(&back);
            load_as(&back, at("turned"), spec.config, 1, 1);
            expect_same_weights(&m, &back);
            model_free(&turned);
        }
        model_free(&m);
        model_free(&back);
    }
}

/* Before there were families, a GPT-2 with RoPE was saved as train_gpt's own. */
static void test_earlier_checkpoint(void **state) {
    (void)state;
    Model m, back;
    ModelSpec spec = spec_of("tie=0\n", F32, MODEL_EVALUATE, 1);
    create_on(backend_find("cpu"), &m, &spec);
    new_directory(at("earlier"));
    put_text(at("earlier"), "config.json",
             "{\"model_type\": \"train_gpt\", \"n_layer\": 2, \"n_head\": 4, \"n_embd\": 32, \"n_inner\": 128, \"n_positions\": 16,"
             " \"vocab_size\": 65, \"activation_function\": \"gelu_new\", \"tie_word_embeddings\": false, \"layer_norm_epsilon\": 1e-05,"
             " \"num_key_value_heads\": 4, \"head_dim\": 8, \"use_bias\": true, \"position_embedding\": \"rope\","
             " \"rope_layout\": \"interleaved\", \"rope_theta\": 10000}");
    char *path = path_join(at("earlier"), "model.safetensors");
    SafetensorsWriter *w = safetensors_create(path);
    parameters_declare(w, &m.table, "");
    safetensors_begin(w);
    parameters_write(w, &m.table, (const float *)m.masters.data);
    if (!safetensors_finish(w, NULL, error)) fail_msg("%s", error);
    Config c = config_in(at("earlier"));
    assert_true(config_same(&c, &spec.config, error));
    load(&back, at("earlier"));
    expect_same_weights(&m, &back);
    model_free(&m);
    model_free(&back);
    free(path);
}

/* Which family each architecture is saved in, or what stands against it. */
static void test_families(void **state) {
    (void)state;
    static const char rms[] = "norm=rmsnorm\nactivation=swiglu\nbias=0\n";
    static const struct { bool modern; const char *settings, *family, *nearest, *lacks; } expected[] = {
        {false, "pos=learned\n", "gpt2", NULL, NULL}, {false, "pos=learned\nactivation=silu\ntie=0\n", "gpt2", NULL, NULL},
        {false, "", "gpt_neox", NULL, NULL}, {false, "activation=relu2\ntie=0\nrope_layout=half\n", "gpt_neox", NULL, NULL},
        {true, "", "llama", NULL, NULL}, {true, "n_kv_head=2\nhead_size=12\ntie=0\n", "llama", NULL, NULL},
        {true, "bias=1\n", "llama", NULL, NULL}, {true, "qkv_bias=1\n", "qwen2", NULL, NULL},
        {true, "qkv_bias=1\nn_kv_head=1\n", "qwen2", NULL, NULL},
        {true, "qk_norm=1\n", "qwen3", NULL, NULL}, {true, "qk_norm=1\nhead_size=16\nn_kv_head=2\n", "qwen3", NULL, NULL},
        {true, "qk_norm=1\nn_head=3\nn_kv_head=1\nhead_size=16\n", "qwen3", NULL, NULL},
        {false, "bias=0\n", NULL, "gpt_neox", "no bias 0"}, {false, "n_kv_head=2\n", NULL, "gpt_neox", "no n_kv_head less than n_head"},
        {false, "head_size=4\n", NULL, "gpt_neox", "no head_size other than n_embd / n_head"},
        {false, "pos=none\n", NULL, "gpt2", "no pos none"}, {false, "norm_place=post\n", NULL, "gpt_neox", "no norm_place post"},
        {false, "norm=none\n", NULL, "gpt_neox", "no norm none"}, {false, "norm=rmsnorm\n", NULL, "llama", "no activation gelu"},
        {false, "qk_norm=1\n", NULL, "gpt_neox", "no qk_norm 1"}, {false, "activation=swiglu\n", NULL, "llama", "no norm layernorm"},
        {true, "activation=gelu\n", NULL, "llama", "no activation gelu"}, {true, "qk_norm=1\nqkv_bias=1\n", NULL, "qwen2", "no qk_norm 1"},
        {true, "n_head=3\nn_kv_head=1\nhead_size=16\n", NULL, "llama", "no head_size where n_head does not divide n_embd"},
        {true, "pos=learned\nnorm_place=post\n", NULL, "llama", "no pos learned, and no norm_place post"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        ModelSpec spec = spec_of(path_of("%s%s", expected[i].modern ? rms : "", expected[i].settings), F32, MODEL_EVALUATE, 1);
        const char *family = huggingface_family(&spec.config, error);
        if (expected[i].family) {
            if (!family || strcmp(family, expected[i].family) != 0) fail_msg("%s: %s", expected[i].settings, family ? family : error);
        } else {
            if (family) fail_msg("%s: %s", expected[i].settings, family);
            expect_error(path_of("the nearest, %s, has", expected[i].nearest));
            expect_error(expected[i].lacks);
        }
    }
}

/* ---- other spellings -------------------------------------------------------------------------------------------------------- */

typedef enum { KEEP, LEAVE_OUT, RENAME, SHORTER, LONGER, OTHER_RANK, INTEGERS, HOLD_NAN, HOLD_INF, ADD } Change;

/* A family's tensors as one file of another directory: those whose name contains `named` changed; ADD: one more, of that name; strip: taken
   off the beginning of all names that have it. */
static void rewrite_as(const char *to, const char *family, const char *named, Change change, const char *strip) {
    WeightFiles s;
    open_shards(&s, committed(family));
    TensorIndex index = tensors_of_files(s.files, s.count);
    char *path = path_join(to, "model.safetensors");
    SafetensorsWriter *w = safetensors_create(path);
    const int64_t four[] = {2, 2};
    float floats[8192] = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < index.count; i++) {
            const SafetensorsEntry *e = index.entries[i];
            Change now = change != ADD && named && strstr(e->name, named) ? change : KEEP;
            int rank = e->rank;
            int64_t shape[3] = {e->shape[0], e->shape[1], 1}, held = e->shape[0] * (rank == 2 ? e->shape[1] : 1);
            if (now == LEAVE_OUT) continue;
            shape[0] += (now == LONGER) - (now == SHORTER);
            if (now == OTHER_RANK) shape[rank++] = 1;
            int64_t n = shape[0] * (rank >= 2 ? shape[1] : 1);
            assert_true(n <= 8192);
            size_t skipped = strip && strncmp(e->name, strip, strlen(strip)) == 0 ? strlen(strip) : 0;
            if (pass == 0) {
                char *name = xprintf("%s%s", now == RENAME ? "x" : "", e->name + skipped);
                safetensors_declare(w, name, now == INTEGERS ? ST_I32 : ST_F32, rank, shape);
                free(name);
                continue;
            }
            safetensors_read_floats(e, 0, held < n ? held : n, floats);
            if (now == HOLD_NAN) floats[n - 1] = NAN;
            if (now == HOLD_INF) floats[n / 2] = -INFINITY;
            safetensors_write(w, floats, (size_t)n * sizeof *floats);
        }
        if (change == ADD && pass == 0) safetensors_declare(w, named, ST_BOOL, 2, four);
        if (change == ADD && pass == 1) safetensors_write(w, "abcd", 4);
        if (pass == 0) safetensors_begin(w);
    }
    if (!safetensors_finish(w, NULL, error)) fail_msg("%s", error);
    copy_file(committed(family), to, "config.json");
    tensors_release(&index);
    weight_files_close(&s);
    free(path);
}

static bool reads_as(const char *where, Config c) {
    Model m;
    ModelSpec spec = {.config = c, .dtype = F32, .mode = MODEL_EVALUATE, .B = 1, .T = 1};
    model_create(&m, &spec, backend_find("cpu"));
    for (int64_t i = 0; i < m.table.elements; i++) ((float *)m.masters.data)[i] = 7;
    bool ok = model_read_directory(&m, where, error);
    for (int64_t i = 0; i < m.table.elements && !ok; i++)
        if (((float *)m.masters.data)[i] != 7) fail_msg("refused (%s), yet memory has changed", error);
    model_free(&m);
    return ok;
}

static bool reads(const char *where) { return reads_as(where, config_in(where)); }

static void test_spellings(void **state) {
    (void)state;
    static const struct { const char *family, *base; } bases[] = {
        {"gpt2", "transformer."}, {"llama", "model."}, {"qwen2", "model."}, {"qwen3", "model."}, {"gpt_neox", "gpt_neox."}};
    Model plain, stripped;
    new_directory(at("other"));
    for (int i = 0; i < 5; i++) {
        rewrite_as(at("other"), bases[i].family, NULL, KEEP, bases[i].base);
        load(&stripped, at("other"));
        load(&plain, committed(bases[i].family));
        expect_same_weights(&plain, &stripped);
        model_free(&plain);
        model_free(&stripped);
    }
    static const struct { const char *family, *buffer; } buffers[] = {
        {"gpt2", "transformer.h.0.attn.bias"}, {"gpt2", "h.1.attn.masked_bias"}, {"gpt_neox", "gpt_neox.layers.0.attention.bias"},
        {"gpt_neox", "gpt_neox.layers.1.attention.masked_bias"}, {"gpt_neox", "gpt_neox.layers.1.attention.rotary_emb.inv_freq"},
        {"llama", "model.layers.1.self_attn.rotary_emb.inv_freq"}};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        rewrite_as(at("other"), buffers[i].family, buffers[i].buffer, ADD, NULL);
        if (!reads(at("other"))) fail_msg("%s: %s", buffers[i].buffer, error);
    }
}

/* A longer position table is cropped to the context that is asked for; a shorter one is refused. */
static void test_crop(void **state) {
    (void)state;
    Model whole, cropped;
    Config c = config_in(committed("gpt2"));
    load(&whole, committed("gpt2"));
    c.maxT = 10;
    load_as(&cropped, committed("gpt2"), c, 1, 10);
    assert_memory_equal(whole.p.wpe.data, cropped.p.wpe.data, 10 * 32 * sizeof(float));
    assert_memory_equal(whole.p.lnfb.data, cropped.p.lnfb.data, 32 * sizeof(float));
    model_free(&whole);
    model_free(&cropped);
    c.maxT = 25;
    ModelSpec spec = {.config = c, .dtype = F32, .mode = MODEL_EVALUATE, .B = 1, .T = 1};
    model_create(&whole, &spec, backend_find("cpu"));
    assert_false(model_read_directory(&whole, committed("gpt2"), error));
    expect_error("'transformer.wpe.weight' has the shape (24, 32); expected (25, 32)");
    model_free(&whole);
}

/* ---- refusals --------------------------------------------------------------------------------------------------------------- */

/* The directory's config with settings on top, as --model and other options make it. */
static Config config_with(const char *where, const char *settings) {
    Options o;
    Config saved = config_in(where), c;
    options_defaults(&o);
    if (!options_parse_text(&o, settings, strlen(settings), "test", error)) fail_msg("%s", error);
    config_to_options(&saved, &o);
    if (!config_from_options(&c, &o, error)) fail_msg("%s", error);
    options_release(&train_options, &o);
    return c;
}

/* Weights of one architecture make no other, whether tensors would fit or not. */
static void test_other_architectures(void **state) {
    (void)state;
    static const struct { const char *name, *settings, *field, *held, *asked; } cases[] = {
        {"llama", "activation=gelu\n", "activation", "swiglu", "gelu"},
        {"llama_shards", "activation=relu2\n", "activation", "swiglu", "relu2"},
        {"llama", "activation=silu\nn_hidden=96\n", "activation", "swiglu", "silu"},
        {"gpt_neox", "activation=relu\n", "activation", "gelu-erf", "relu"},
        {"gpt2", "pos=rope\n", "pos", "learned", "rope"}, {"llama", "pos=learned\n", "pos", "rope", "learned"},
        {"llama", "norm=layernorm\n", "norm", "rmsnorm", "layernorm"}, {"llama", "norm=layernorm\nbias=1\n", "bias", "0", "1"},
        {"llama", "norm=none\n", "norm", "rmsnorm", "none"}, {"llama", "norm_place=post\n", "norm_place", "pre", "post"},
        {"gpt_neox", "qk_norm=1\n", "qk_norm", "0", "1"}, {"qwen3", "qk_norm=0\n", "qk_norm", "1", "0"},
        {"llama", "qkv_bias=1\n", "qkv_bias", "0", "1"}, {"llama", "tie=1\n", "tie", "0", "1"}, {"qwen2", "tie=0\n", "tie", "1", "0"},
        {"gpt2", "tie=0\n", "tie", "1", "0"}, {"gpt2", "n_head=2\nn_kv_head=2\nhead_size=16\n", "n_head", "4", "2"},
        {"qwen3", "n_kv_head=4\n", "n_kv_head", "2", "4"}, {"gpt2", "vocab_size=60\n", "vocab_size", "67", "60"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c = config_with(committed(cases[i].name), cases[i].settings);
        if (reads_as(committed(cases[i].name), c)) fail_msg("%s is read with %s", cases[i].name, cases[i].settings);
        expect_error(path_of("%s holds a ", committed(cases[i].name)));
        expect_error(path_of("%s is %s in the checkpoint, but %s was asked for; leave", cases[i].field, cases[i].held, cases[i].asked));
    }
    static const char *const accepted[] = {"dropout=0.3\n", "rope_base=777\n", "norm_eps=1e-3\n", "max_seq_len=100\n",
                                           "rope_layout=interleaved\n", "rope_scaling=linear\nrope_factor=2\n",
                                           "rope_scaling=yarn\nrope_factor=4\n"};
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++)
        if (!reads_as(committed("llama"), config_with(committed("llama"), accepted[i]))) fail_msg("%s: %s", accepted[i], error);
}

static void test_damaged_tensors(void **state) {
    (void)state;
    static const struct { const char *family, *tensor; } tensors[] = {
        {"gpt2", "transformer.wte.weight"}, {"gpt2", "transformer.h.1.mlp.c_fc.weight"}, {"llama", "lm_head.weight"},
        {"llama", "model.layers.0.self_attn.k_proj.weight"}, {"llama", "model.layers.1.mlp.up_proj.weight"}, {"llama", "model.norm.weight"},
        {"qwen2", "model.layers.1.self_attn.v_proj.bias"}, {"qwen3", "model.layers.0.self_attn.q_norm.weight"},
        {"gpt_neox", "gpt_neox.layers.1.attention.query_key_value.bias"}, {"gpt_neox", "embed_out.weight"}};
    static const struct { Change change; const char *cause; } changes[] = {
        {LEAVE_OUT, "is missing"}, {RENAME, "is missing"}, {SHORTER, "has the shape ("}, {LONGER, "has the shape ("},
        {OTHER_RANK, "has the shape ("}, {INTEGERS, "holds integers"}, {HOLD_NAN, "not finite"}, {HOLD_INF, "not finite"}};
    new_directory(at("damaged"));
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        for (size_t k = 0; k < sizeof changes / sizeof *changes; k++) {
            rewrite_as(at("damaged"), tensors[i].family, tensors[i].tensor, changes[k].change, NULL);
            if (reads(at("damaged"))) fail_msg("%s: change %d is accepted", tensors[i].tensor, (int)changes[k].change);
            expect_error(path_of("tensor '%s' ", tensors[i].tensor));
            expect_error(changes[k].cause);
            expect_error(at("damaged"));
        }
    static const struct { const char *family, *name; } extra[] = {
        {"llama", "model.layers.2.input_layernorm.weight"}, {"llama", "model.layers.0.self_attn.q_proj.bias"}, {"gpt2", "score.weight"},
        {"qwen3", "model.layers.0.self_attn.q_proj.bias"}, {"gpt_neox", "gpt_neox.layers.0.attention.rotary"}, {"gpt2", "attn.biased"}};
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        rewrite_as(at("damaged"), extra[i].family, extra[i].name, ADD, NULL);
        if (reads(at("damaged"))) fail_msg("%s is accepted", extra[i].name);
        expect_error(path_of("tensor '%s' belongs to nothing", extra[i].name));
    }
}

/* A tied model's file may hold the head, if it is the embedding. */
static void test_tied_head(void **state) {
    (void)state;
    Safetensors from;
    new_directory(at("tied"));
    copy_file(committed("qwen2"), at("tied"), "config.json");
    if (!safetensors_open(&from, "dev/hf/qwen2/model.safetensors", error)) fail_msg("%s", error);
    for (int changed = 0; changed < 2; changed++) {
        char *path = path_join(at("tied"), "model.safetensors");
        SafetensorsWriter *w = safetensors_create(path);
        for (size_t i = 0; i < from.count; i++)
            safetensors_declare(w, from.entries[i].name, from.entries[i].dtype, from.entries[i].rank, from.entries[i].shape);
        const SafetensorsEntry *wte = entry_of(&from, "model.embed_tokens.weight");
        safetensors_declare(w, "lm_head.weight", wte->dtype, wte->rank, wte->shape);
        safetensors_begin(w);
        for (size_t i = 0; i < from.count; i++) safetensors_write(w, from.entries[i].data, from.entries[i].bytes);
        float *head = malloc(wte->bytes);
        memcpy(head, wte->data, wte->bytes);
        if (changed) head[66 * 32 + 31] += 1;
        safetensors_write(w, head, wte->bytes);
        if (!safetensors_finish(w, NULL, error)) fail_msg("%s", error);
        if (reads(at("tied")) == changed) fail_msg("a head that is %s: %s", changed ? "another" : "the embedding", error);
        free(head);
        free(path);
    }
    expect_error("tensor 'lm_head.weight' differs from the embedding");
    safetensors_close(&from);
}

static const char *const shard_files[] = {"config.json", "model.safetensors.index.json", "model-00001-of-00004.safetensors",
                                          "model-00002-of-00004.safetensors", "model-00003-of-00004.safetensors",
                                          "model-00004-of-00004.safetensors"};

static void copy_shards(void) {
    new_directory(at("shards"));
    for (int i = 0; i < 6; i++) copy_file(committed("llama_shards"), at("shards"), shard_files[i]);
}

/* The index with the first `from` in it replaced. */
static void edit_index(const char *from, const char *to) {
    copy_shards();
    char *text = get_text(at("shards/model.safetensors.index.json")), *place = strstr(text, from);
    if (!place) fail_msg("no '%s' in the index", from);
    char *edited = xprintf("%.*s%s%s", (int)(place - text), text, to, place + strlen(from));
    put_text(at("shards"), "model.safetensors.index.json", edited);
    free(edited);
    free(text);
}

static void test_shards(void **state) {
    (void)state;
    static const struct { const char *from, *to, *cause; } edits[] = {
        {"\"lm_head.weight\": \"model-00004", "\"lm_head.weight\": \"model-00001",
         "'lm_head.weight' lies in 'model-00004-of-00004.safetensors', but belongs"},
        {"\"lm_head.weight\"", "\"other\"", "'lm_head.weight' lies in 'model-00004-of-00004.safetensors', but the index lacks it"},
        {"\"weight_map\": {", "\"weight_map\": {\"a\": \"model-00001-of-00004.safetensors\", ",
         "'a' is missing from 'model-00001-of-00004.safetensors'"},
        {"\"model-00004-of", "\"sub/model-00004-of", "'lm_head.weight' into no file of this directory"},
        {"\"model-00004-of-00004.safetensors\"", "\"..\"", "'lm_head.weight' into no file"},
        {"\"model-00004-of-00004.safetensors\"", "\"\"", "'lm_head.weight' into no file"},
        {"\"model-00004-of-00004.safetensors\"", "4", "'lm_head.weight' into no file"},
        {"\"model-00004-of-00004.safetensors\"", "\"model-5\"", "model-5"},
        {"\"weight_map\"", "\"map\"", "no weight_map"}, {"{", "[", "not valid JSON"},
    };
    copy_shards();
    if (!reads(at("shards"))) fail_msg("%s", error);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        edit_index(edits[i].from, edits[i].to);
        if (reads(at("shards"))) fail_msg("accepted: %s", edits[i].to);
        expect_error(edits[i].cause);
    }
    copy_shards();
    put_text(at("shards"), "model.safetensors.index.json", "{\"weight_map\": {}}");
    assert_false(reads(at("shards")));
    expect_error("no weight_map");
    for (int i = 2; i < 6; i++) {
        copy_shards();
        unlink(path_of("%s/%s", at("shards"), shard_files[i]));
        assert_false(reads(at("shards")));
        expect_error(shard_files[i]);
    }
    copy_shards();   /* the same tensors twice */
    edit_index("\"weight_map\": {", "\"weight_map\": {\"again\": \"more.safetensors\", ");
    size_t length;
    char *bytes = file_read_text(at("shards/model-00001-of-00004.safetensors"), 1 << 20, &length, error);
    assert_true(file_write_text(at("shards"), "more.safetensors", bytes, length, error));
    free(bytes);
    assert_false(reads(at("shards")));
    expect_error("lies in 'more.safetensors', but belongs into 'model-00001-of-00004.safetensors' alone");
}

static void test_other_directories(void **state) {
    (void)state;
    new_directory(at("bare"));
    copy_file(committed("gpt2"), at("bare"), "config.json");
    assert_false(reads(at("bare")));
    expect_error("holds neither model.safetensors nor model.safetensors.index.json");
    put_text(at("bare"), "pytorch_model.bin", "PK");
    assert_false(reads(at("bare")));
    expect_error("save_pretrained()");
    put_text(at("bare"), "adapter_config.json", "{}");
    assert_false(reads(at("bare")));
    expect_error("holds adapter_config.json: an adapter, which this engine lacks");
    unlink(at("bare/adapter_config.json"));
    put_text(at("bare"), "model.safetensors", "short");
    assert_false(reads(at("bare")));
    expect_error("too short");
    /* the weights of one family under the config of another */
    copy_file(committed("llama"), at("bare"), "model.safetensors");
    assert_false(reads(at("bare")));
    expect_error("tensor '");
    Config c;
    put_text(at("bare"), "config.json", "{\"model_type\": \"mamba\"}");
    assert_false(model_directory_config(at("bare"), &c, error));
    expect_error("model_type 'mamba'; this engine reads gpt2, llama, qwen2, qwen3, gpt_neox, train_gpt");
    put_text(at("bare"), "config.json", "{");
    assert_false(model_directory_config(at("bare"), &c, error));
    expect_error("config.json");
    unlink(at("bare/config.json"));
    assert_false(model_directory_config(at("bare"), &c, error));
    expect_error("config.json");
}

static void test_export_failures(void **state) {
    (void)state;
    Model m;
    load(&m, committed("gpt2"));
    put_text(directory, "file", "");
    assert_false(model_export(&m, at("file/below"), NULL, F32, error));
    expect_error("file");
    assert_false(model_export(&m, at("file"), NULL, F32, error));
    expect_error("exists already");
    new_directory(at("name"));
    assert_false(model_export(&m, at("name"), NULL, F32, error));
    expect_error("exists already");
    /* whatever names like its own there are, it makes a new one, and removes no other */
    assert_true(directory_remove(at("name"), error));
    const char *others[] = {at("name.writing"), path_of("%s/name.writing-%d-0", directory, (int)getpid())};
    for (int i = 0; i < 2; i++) {
        new_directory(others[i]);
        put_text(others[i], "mine", "mine");
    }
    if (!model_export(&m, at("name"), NULL, F32, error)) fail_msg("%s", error);
    assert_int_equal(count_paths(at("name/*")), 3);
    if (!model_export(&m, at("not/yet/there/"), NULL, F32, error)) fail_msg("%s", error);
    assert_int_equal(count_paths(at("not/yet/*")), 1);
    /* nor does it leave one that it could not finish */
    assert_true(directory_remove(at("name"), error));
    new_directory(at("odd"));
    new_directory(at("odd/merges.txt"));
    assert_false(model_export(&m, at("name"), at("odd"), F32, error));
    assert_int_equal(count_paths(at("name.writing*")), 2);
    for (int i = 0; i < 2; i++) assert_true(path_exists(path_of("%s/mine", others[i])));
    struct stat status;
    mode_t mask = umask(027);
    bool exported = model_export(&m, at("name"), NULL, F32, error);
    umask(mask);
    assert_true(exported && stat(at("name"), &status) == 0);
    assert_int_equal(status.st_mode & 0777, 0750);
    model_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits), cmocka_unit_test(test_configs), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bf16_export), cmocka_unit_test(test_native), cmocka_unit_test(test_earlier_checkpoint),
        cmocka_unit_test(test_families), cmocka_unit_test(test_spellings), cmocka_unit_test(test_crop),
        cmocka_unit_test(test_other_architectures), cmocka_unit_test(test_companions), cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_damaged_tensors), cmocka_unit_test(test_tied_head), cmocka_unit_test(test_shards),
        cmocka_unit_test(test_other_directories), cmocka_unit_test(test_export_failures),
    };
    return cmocka_run_group_tests(tests, begin, remove_directory);
}
