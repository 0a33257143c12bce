/* checkpoint_test.c: what is saved comes back bit for bit, a run that stopped goes on as if it had not, nothing damaged or half written is
   ever loaded, and whatever happens while a checkpoint is written, the one before it stays. */
#include "checkpoint_test.h"

#include "tokenizer.h"

#include <float.h>

/* ---- saving and loading ----------------------------------------------------------------------------------------------------- */

static void check_same_bits(const char *settings, DType dtype) {
    Model m, loaded;
    RunState state = {.step = 3, .samples = 123456789012, .best_val_loss = 1.0 / 3, .elapsed_s = 1234.5678901234567, .ranks = 6}, back;
    create_with(&m, settings, dtype, 1);
    train(&m, 0, 3);
    if (!try_save(at("bits"), &m, &state, &options, NULL, false)) fail_msg("%s", error);
    create_with(&loaded, settings, dtype, 2);
    train(&loaded, 0, 1);   /* neither zero nor equal anywhere */
    if (!checkpoint_load(at("bits/last"), &loaded, &back, error)) fail_msg("%s", error);
    expect_same_model(&m, &loaded);
    assert_int_equal(model_updates(&loaded), 3);
    assert_true(back.step == state.step && back.samples == state.samples && back.best_val_loss == state.best_val_loss
        && back.elapsed_s == state.elapsed_s && back.ranks == 6);
    state.best_val_loss = INFINITY;   /* before any evaluation */
    assert_true(try_save(at("bits"), &m, &state, &options, NULL, false));
    assert_true(checkpoint_load(at("bits/last"), &loaded, &back, error));
    assert_true(back.best_val_loss == INFINITY);
    model_free(&m);
    model_free(&loaded);
    assert_true(directory_remove(at("bits"), error));
}

static void test_same_bits(void **state) {
    (void)state;
    check_same_bits("", F32);
    check_same_bits("pos=learned\n", BF16);
    check_same_bits("tie=0\nn_kv_head=1\nbias=0\noptimizer=sgd\n", F32);
    check_same_bits("optimizer=sgd\n", BF16);
    /* in the names and the order of rows of other families; then of none */
    check_same_bits("norm=rmsnorm\nactivation=swiglu\nbias=0\nn_kv_head=1\n", F32);
    check_same_bits("norm=rmsnorm\nactivation=swiglu\nbias=0\nqkv_bias=1\ntie=0\n", BF16);
    check_same_bits("norm=rmsnorm\nactivation=swiglu\nbias=0\nqk_norm=1\nhead_size=12\n", F32);
    check_same_bits("norm_place=post\nqk_norm=1\nactivation=relu2\n", F32);
}

/* Six steps, and three, a checkpoint, a fresh model, and three more. */
static void test_resume_equals_never_stopping(void **state) {
    (void)state;
    static const char *const settings[] = {"", "pos=learned\ntie=0\n", "optimizer=sgd\n"};
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++)
        for (int dtype = F32; dtype <= BF16; dtype++) {
            Model straight, first, second;
            RunState back;
            create_with(&straight, settings[s], (DType)dtype, 1);
            train(&straight, 0, 6);
            create_with(&first, settings[s], (DType)dtype, 1);
            train(&first, 0, 3);
            save(at("resume"), &first, 3, true);
            create_with(&second, settings[s], (DType)dtype, 77);
            char *found = find(at("resume"), "auto");
            if (!found || !checkpoint_load(found, &second, &back, error)) fail_msg("%s", error);
            train(&second, back.step, 3);
            expect_same_model(&straight, &second);
            free(found);
            model_free(&straight);
            model_free(&first);
            model_free(&second);
        }
}

/* Outcomes of `count` steps from `first` on, with the smallest and the largest numbers among them. */
static SpikeGuard guard_of(int64_t first, int64_t count) {
    static const float odd[] = {FLT_MAX, FLT_MIN, FLT_TRUE_MIN, 0, -0.0f, 1.0f / 3, 16777215, 1 + FLT_EPSILON};
    SpikeGuard g;
    memset(&g, 0, sizeof g);
    test_seed = 3;
    for (int64_t i = 0; i < count; i++) {
        float loss = i % 3 ? odd[i % 8] : (float)test_uniform(), norm = i % 5 ? (float)test_uniform() : odd[i % 8];
        spikes_note(&g, 0, first + i, loss, norm);
    }
    return g;
}

/* The guard comes back bit for bit: empty, begun, where its ring begins anew, and full. */
static void test_spikes_are_kept(void **state) {
    (void)state;
    static const int64_t cases[][2] = {{0, 0}, {0, 1}, {3, 20}, {120, 40}, {7, 128}, {7, 500}};
    Model m;
    RunState back;
    create(&m);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RunState run = state_at(1000);
        run.spikes = guard_of(cases[i][0], cases[i][1]);
        assert_true(try_save(at("spikes"), &m, &run, &options, NULL, false));
        memset(&back, 255, sizeof back);
        if (!checkpoint_load(at("spikes/last"), &m, &back, error)) fail_msg("%s", error);
        assert_memory_equal(&back.spikes, &run.spikes, sizeof back.spikes);
    }
    model_free(&m);
}

/* Skipped updates are not counted, and the count, not the step, is Adam's. */
static void test_updates_are_kept(void **state) {
    (void)state;
    Model m, loaded;
    RunState back;
    create(&m);
    train(&m, 0, 2);
    model_set_updates(&m, 41);
    save(at("updates"), &m, 50, false);
    create(&loaded);
    assert_true(checkpoint_load(at("updates/last"), &loaded, &back, error));
    assert_int_equal(model_updates(&loaded), 41);
    train(&loaded, 50, 1);
    assert_int_equal(model_updates(&loaded), 42);
    model_free(&m);
    model_free(&loaded);
}

static void test_contents(void **state) {
    (void)state;
    Model m;
    RunState run = state_at(7);
    Tokenizer *tokenizer = tokenizer_of_characters("abc\n", 4, error);
    assert_true(directory_create(at("data"), error) && tokenizer_save(tokenizer, at("data"), error));
    tokenizer_free(tokenizer);
    create(&m);
    if (!try_save(at("new/run"), &m, &run, &options, at("data"), true)) fail_msg("%s", error);
    assert_string_equal(names_in(at("new/run")), "best last step_00000007 ");
    assert_string_equal(names_in(at("new/run/last")),
        "characters.json config.json generation_config.json model.safetensors optimizer.safetensors state.json ");
    expect_link(at("new/run/last"), "step_00000007");
    expect_link(at("new/run/best"), "step_00000007");
    assert_true(checkpoint_verify(at("new/run/last"), error));
    tokenizer = tokenizer_open(at("new/run/best"), error);
    assert_non_null(tokenizer);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 4);
    tokenizer_free(tokenizer);
    /* The vocabulary outlives the directory that it came from. */
    assert_true(directory_remove(at("data"), error));
    run.step = 9;
    if (!try_save(at("new/run"), &m, &run, &options, at("data"), true)) fail_msg("%s", error);
    assert_true(path_exists(at("new/run/step_00000009/characters.json")) && checkpoint_verify(at("new/run/last"), error));
    save(at("new/run"), &m, 10, false);
    expect_link(at("new/run/last"), "step_00000010");
    expect_link(at("new/run/best"), "step_00000009");
    model_free(&m);
}

static void test_replacing(void **state) {
    (void)state;
    Model m, loaded;
    RunState back;
    create(&m);
    create(&loaded);
    save(at("again"), &m, 3, false);
    train(&m, 0, 2);
    save(at("again"), &m, 3, true);
    assert_string_equal(names_in(at("again")), "best last step_00000003 ");
    assert_true(checkpoint_load(at("again/best"), &loaded, &back, error));
    expect_same_model(&m, &loaded);
    /* the same step of another run is another checkpoint */
    save(at("elsewhere"), &m, 3, false);
    assert_true(checkpoint_verify(at("elsewhere/last"), error));
    /* what a killed process left under the temporary name is in nobody's way */
    assert_true(directory_create(at("again/.writing-step_00000003/deeper"), error));
    save(at("again"), &m, 3, false);
    assert_string_equal(names_in(at("again")), "best last step_00000003 ");
    model_free(&m);
    model_free(&loaded);
}

static void test_pruning(void **state) {
    (void)state;
    Model m;
    create(&m);
    options.keep = 2;
    for (int64_t step = 1; step <= 12; step++) {
        save(at("pruned"), &m, step, step == 2 || step == 9);
        if (step == 3) assert_string_equal(names_in(at("pruned")), "best last step_00000002 step_00000003 ");
        if (step == 6) assert_string_equal(names_in(at("pruned")), "best last step_00000002 step_00000005 step_00000006 ");
        if (step == 9) assert_string_equal(names_in(at("pruned")), "best last step_00000008 step_00000009 ");
    }
    assert_string_equal(names_in(at("pruned")), "best last step_00000009 step_00000011 step_00000012 ");
    /* other things in the directory are not ours */
    assert_true(directory_create(at("pruned/step_5"), error) && directory_create(at("pruned/step_"), error)
        && directory_create(at("pruned/step_00000001.old"), error));
    options.keep = 1;
    save(at("pruned"), &m, 123456789, false);   /* longer than eight digits: still the newest */
    assert_string_equal(names_in(at("pruned")), "best last step_ step_00000001.old step_00000009 step_123456789 step_5 ");
    assert_int_equal(checkpoint_newest_step(at("pruned")), 123456789);
    expect_found(at("pruned"), "auto", at("pruned/step_123456789"));
    assert_true(checkpoint_verify(at("pruned/best"), error));
    model_free(&m);
}

/* ---- damage ----------------------------------------------------------------------------------------------------------------- */

static void expect_refused(const char *checkpoint, const char *named) {
    *error = 0;
    if (checkpoint_verify(checkpoint, error)) fail_msg("%s: damage to %s is not seen", checkpoint, named);
    if (!strstr(error, named)) fail_msg("\"%s\" does not name %s", error, named);
}

/* One byte of a file, in place. */
static void put_byte(int file, size_t place, char byte) { assert_int_equal(pwrite(file, &byte, 1, (off_t)place), 1); }

static void test_damaged_files(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "optimizer.safetensors", "characters.json",
                                        "state.json"};
    Model m;
    RunState run = state_at(4);
    Tokenizer *tokenizer = tokenizer_of_characters("abc\n", 4, error);
    assert_true(directory_create(at("characters"), error) && tokenizer_save(tokenizer, at("characters"), error));
    tokenizer_free(tokenizer);
    create(&m);
    train(&m, 0, 2);
    assert_true(try_save(at("damage"), &m, &run, &options, at("characters"), false));
    char *checkpoint = strdup(at("damage/step_00000004"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_join(checkpoint, files[i]);
        Bytes whole = file_bytes(path);
        /* a byte changed: every one of state.json, elsewhere some */
        bool every = strcmp(files[i], "state.json") == 0;
        int file = open(path, O_WRONLY);
        for (size_t k = 0; k < whole.size; k += every ? 1 : whole.size / 7 + 1) {
            put_byte(file, k, whole.bytes[k] ^ (char)(1 << (k % 8)));
            expect_refused(checkpoint, files[i]);
            put_byte(file, k, whole.bytes[k]);
        }
        close(file);
        static const size_t cuts[] = {1, 2, 100};
        for (size_t k = 0; k < 3; k++) {
            put_bytes(path, whole.bytes, whole.size > cuts[k] ? whole.size - cuts[k] : 0);
            expect_refused(checkpoint, files[i]);
        }
        put_bytes(path, whole.bytes, 0);
        expect_refused(checkpoint, files[i]);
        put_bytes(path, whole.bytes, whole.size + 1);   /* the NUL that ends it in memory */
        expect_refused(checkpoint, files[i]);
        unlink(path);
        expect_refused(checkpoint, files[i]);
        assert_null(find(at("damage"), checkpoint));
        put_bytes(path, whole.bytes, whole.size);
        expect_found(at("damage"), checkpoint, checkpoint);
        free(whole.bytes);
        free(path);
    }
    assert_false(checkpoint_verify(at("damage"), error));
    assert_false(checkpoint_verify(at("nowhere"), error));
    free(checkpoint);
    model_free(&m);
}

/* state.json with a checksum that is right: only its contents are wrong. */
static void put_state(const char *checkpoint, const char *members) {
    char *path = path_join(checkpoint, "state.json"), *body = xprintf("{\n%s,\n  \"checksum\": ", members);
    char *text = xprintf("%s%u\n}\n", body, (unsigned)crc32_update(0, body, strlen(body)));
    put_bytes(path, text, strlen(text));
    free(path);
    free(body);
    free(text);
}

static void test_wrong_states(void **state) {
    (void)state;
    Model m;
    RunState back;
    create(&m);
    save(at("wrong"), &m, 1, false);
    const char *checkpoint = at("wrong/step_00000001");
    static const char *const broken[] = {
        "\"format\": \"another\", \"options\": {}, \"files\": {}", "\"options\": {}, \"files\": {}",
        "\"format\": \"train_gpt checkpoint\", \"files\": {}",
        "\"format\": \"train_gpt checkpoint\", \"options\": {}", "\"format\": \"train_gpt checkpoint\", \"options\": {}, \"files\": []",
        "\"format\": \"train_gpt checkpoint\", \"options\": {}, \"files\": {}",   /* needed files are not listed */
        "\"format\": \"train_gpt checkpoint\", \"options\": {}, "
        "\"files\": {\"config.json\": 1, \"model.safetensors\": 1, \"optimizer.safetensors\": 1}",
        "\"format\": \"train_gpt checkpoint\", \"options\": {}, "
        "\"files\": {\"config.json\": {}, \"model.safetensors\": {}, \"optimizer.safetensors\": {}}",
        "\"format\": 1",
        "not JSON",
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        *error = 0;
        put_state(checkpoint, broken[i]);
        if (checkpoint_verify(checkpoint, error)) fail_msg("accepted: %s", broken[i]);
        if (!strstr(error, "state.json")) fail_msg("\"%s\" does not name state.json, for %s", error, broken[i]);
    }
    static const char *const incomplete[] = {"\"samples\": 1, \"updates\": 1, \"elapsed_s\": 1",
                                             "\"step\": 1, \"updates\": 1, \"elapsed_s\": 1",
                                             "\"step\": 1, \"samples\": 1, \"elapsed_s\": 1", "\"step\": 1, \"samples\": 1, \"updates\": 1",
                                             "\"step\": -1, \"samples\": 1, \"updates\": 1, \"elapsed_s\": 1",
                                             "\"step\": \"1\", \"samples\": 1, \"updates\": 1, \"elapsed_s\": 1"};
    for (size_t i = 0; i < sizeof incomplete / sizeof *incomplete; i++) {
        char *members = xprintf("\"format\": \"train_gpt checkpoint\", \"options\": {}, \"files\": {}, %s", incomplete[i]);
        put_state(checkpoint, members);
        if (checkpoint_load(checkpoint, &m, &back, error)) fail_msg("accepted: %s", incomplete[i]);
        assert_non_null(strstr(error, "lacks step, samples, updates or elapsed_s"));
        free(members);
    }
    Options o;
    options_defaults(&o);
    put_state(checkpoint, "\"format\": \"train_gpt checkpoint\", \"files\": {}, \"options\": {\"lr\": \"0.5\", \"out\": \"elsewhere\"}");
    assert_true(checkpoint_read_options(checkpoint, &o, error));
    assert_true(o.lr == 0.5);
    assert_string_equal(o.out, "out");   /* belongs to an invocation, not to the run */
    put_state(checkpoint, "\"format\": \"train_gpt checkpoint\", \"files\": {}, \"options\": {\"lr\": 1}");
    assert_false(checkpoint_read_options(checkpoint, &o, error));
    assert_non_null(strstr(error, "'lr' is not a text"));
    put_state(checkpoint, "\"format\": \"train_gpt checkpoint\", \"files\": {}, \"options\": {\"learning\": \"1\"}");
    assert_false(checkpoint_read_options(checkpoint, &o, error));
    assert_non_null(strstr(error, "learning"));
    put_state(checkpoint, "\"format\": \"train_gpt checkpoint\", \"files\": {}, \"options\": {\"lr\": \"-1\"}");
    assert_false(checkpoint_read_options(checkpoint, &o, error));
    assert_non_null(strstr(error, "--lr is '-1'"));
    options_release(&train_options, &o);
    model_free(&m);
}

/* What a checkpoint of an earlier version does not have, and what no version writes. */
static void test_ranks_and_spikes(void **state) {
    (void)state;
    static const char usual[] = "\"format\": \"train_gpt checkpoint\", \"options\": {}, \"files\": {}, \"step\": 9, \"samples\": 1, \"updates\": 1, "
                                "\"elapsed_s\": 1";
    static const struct { const char *members, *said; } wrong[] = {
        {"\"ranks\": 0", "'ranks'"}, {"\"ranks\": -2", "'ranks'"}, {"\"ranks\": 1.5", "'ranks'"}, {"\"ranks\": \"2\"", "'ranks'"},
        {"\"spikes\": 1", "'spikes'"}, {"\"spikes\": {}", "'spikes'"}, {"\"spikes\": {\"newest\": 5, \"losses\": [1, 2]}", "'spikes'"},
        {"\"spikes\": {\"newest\": 5, \"losses\": [1, 2], \"norms\": [1]}", "'spikes'"},
        {"\"spikes\": {\"newest\": 5, \"losses\": [1, 2], \"norms\": [1, 2, 3]}", "'spikes'"},
        {"\"spikes\": {\"newest\": 5, \"losses\": [1, \"2\"], \"norms\": [1, 2]}", "'spikes'"},
        {"\"spikes\": {\"newest\": 5, \"losses\": [1, 1e39], \"norms\": [1, 2]}", "'spikes'"},
        {"\"spikes\": {\"newest\": 5, \"losses\": [1, 2], \"norms\": [1, null]}", "'spikes'"},
        {"\"spikes\": {\"newest\": 0, \"losses\": [1, 2], \"norms\": [1, 2]}", "'spikes'"},
        {"\"spikes\": {\"newest\": \"5\", \"losses\": [1, 2], \"norms\": [1, 2]}", "'spikes'"},
        {"\"spikes\": {\"losses\": [1, 2], \"norms\": [1, 2]}", "'spikes'"}};
    Model m;
    RunState back;
    int64_t ranks = 7, step = 0;
    create(&m);
    save(at("members"), &m, 9, false);
    const char *checkpoint = at("members/step_00000009");
    put_state(checkpoint, usual);
    memset(&back, 255, sizeof back);
    if (!checkpoint_load(checkpoint, &m, &back, error)) fail_msg("%s", error);
    assert_true(back.step == 9 && back.ranks == 1 && back.spikes.count == 0 && back.spikes.newest == 0);
    assert_true(checkpoint_read_ranks(checkpoint, &ranks, &step, error));
    assert_true(ranks == 1 && step == 9);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *members = xprintf("%s, %s", usual, wrong[i].members);
        put_state(checkpoint, members);
        back.step = 77;
        if (checkpoint_load(checkpoint, &m, &back, error)) fail_msg("accepted: %s", wrong[i].members);
        if (!strstr(error, wrong[i].said)) fail_msg("\"%s\" does not name %s", error, wrong[i].said);
        assert_int_equal(back.step, 77);
        assert_int_equal(checkpoint_read_ranks(checkpoint, &ranks, &step, error), strcmp(wrong[i].said, "'ranks'") != 0);
        free(members);
    }
    /* as many as a guard has, and one more */
    for (int count = SPIKE_WINDOW; count <= SPIKE_WINDOW + 1; count++) {
        char list[2 * SPIKE_WINDOW + 4] = "1";
        for (int i = 1; i < count; i++) strcat(list, ",1");
        char *members = xprintf("%s, \"ranks\": 3, \"spikes\": {\"newest\": 500, \"losses\": [%s], \"norms\": [%s]}", usual, list, list);
        put_state(checkpoint, members);
        assert_int_equal(checkpoint_load(checkpoint, &m, &back, error), count == SPIKE_WINDOW);
        assert_true(checkpoint_read_ranks(checkpoint, &ranks, &step, error));
        assert_int_equal(ranks, 3);
        free(members);
    }
    assert_false(checkpoint_read_ranks(at("nowhere"), &ranks, &step, error));
    model_free(&m);
}

/* Each of the three files must be listed; here one at a time goes by another name. */
static void test_unlisted_files(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors", "optimizer.safetensors"};
    Model m;
    create(&m);
    save(at("unlisted"), &m, 1, false);
    Bytes whole = file_bytes(at("unlisted/last/state.json"));
    char *members = whole.bytes + 2, *last = strstr(members, ",\n  \"checksum\"");   /* between the first brace and the checksum */
    *last = 0;
    put_state(at("unlisted/last"), members);
    if (!checkpoint_verify(at("unlisted/last"), error)) fail_msg("%s", error);
    for (int i = 0; i < 3; i++) {
        char cause[64], *listed = strstr(members, files[i]);
        *listed = 'X';
        put_state(at("unlisted/last"), members);
        *listed = *files[i];
        snprintf(cause, sizeof cause, "lists no %s", files[i]);
        assert_false(checkpoint_verify(at("unlisted/last"), error));
        if (!strstr(error, cause)) fail_msg("\"%s\" does not say \"%s\"", error, cause);
    }
    free(whole.bytes);
    model_free(&m);
}

/* "auto" takes the newest that is whole, and sets the damaged ones above it aside; with none whole it changes nothing. */
static void test_auto(void **state) {
    (void)state;
    Model m;
    create(&m);
    options.keep = 10;
    char *run = strdup(at("auto"));
    assert_null(find(run, "auto"));
    assert_non_null(strstr(error, "no checkpoint"));
    for (int64_t step = 1; step <= 4; step++) save(run, &m, step, step == 4);
    expect_found(run, "auto", at("auto/step_00000004"));
    unlink(at("auto/step_00000004/model.safetensors"));
    unlink(at("auto/step_00000003/state.json"));
    unlink(at("auto/step_00000001/config.json"));
    assert_true(directory_create(at("auto/.writing-step_00000009"), error));
    put_bytes(at("auto/.writing-step_00000009/config.json"), "{", 1);
    expect_found(run, "auto", at("auto/step_00000002"));
    assert_string_equal(names_in(run),
        ".writing-step_00000009 best damaged_step_00000003 damaged_step_00000004 last step_00000001 step_00000002 ");
    assert_int_equal(checkpoint_newest_step(run), 2);
    assert_true(checkpoint_clean(run, error));
    assert_string_equal(names_in(run), "best damaged_step_00000003 damaged_step_00000004 last step_00000001 step_00000002 ");

    unlink(at("auto/step_00000002/optimizer.safetensors"));
    assert_null(find(run, "auto"));
    assert_non_null(strstr(error, "no complete checkpoint"));
    assert_non_null(strstr(error, "optimizer.safetensors"));
    assert_string_equal(names_in(run), "best damaged_step_00000003 damaged_step_00000004 last step_00000001 step_00000002 ");
    /* The links to what was set aside are replaced by the next save. */
    save(run, &m, 3, true);
    expect_found(run, "auto", at("auto/step_00000003"));
    expect_link(at("auto/best"), "step_00000003");
    options.keep = 1;
    free(run);
    model_free(&m);
}

/* One byte of any file changed, or any file cut short, and the run goes on from the checkpoint before. */
static void test_fall_back(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "optimizer.safetensors", "state.json"};
    Model m;
    create(&m);
    options.keep = 10;
    save(at("fall_back"), &m, 1, false);
    for (int i = 0; i < 10; i++) {
        save(at("fall_back"), &m, 2, false);
        Bytes whole = file_bytes(at("fall_back/step_00000002/%s", files[i / 2]));
        if (i % 2) whole.size -= whole.size / 3;
        else whole.bytes[whole.size / 2] ^= 4;
        put_bytes(at("fall_back/step_00000002/%s", files[i / 2]), whole.bytes, whole.size);
        expect_found(at("fall_back"), "auto", at("fall_back/step_00000001"));
        expect_refused(at("fall_back/damaged_step_00000002"), files[i / 2]);
        free(whole.bytes);
    }
    options.keep = 1;
    model_free(&m);
}

/* ---- other models ----------------------------------------------------------------------------------------------------------- */

static void test_other_architecture(void **state) {
    (void)state;
    static const struct { const char *settings, *named; } others[] = {
        {"n_layer=3\n", "n_layer"}, {"n_embd=32\nhead_size=8\n", "n_embd"}, {"n_head=4\nhead_size=4\n", "n_head"},
        {"n_hidden=20\n", "n_hidden"},
        {"vocab_size=51\n", "vocab_size"}, {"pos=none\n", "pos"}, {"pos=learned\n", "pos"}, {"rope_base=500\n", "rope_base"},
        {"rope_scaling=linear\nrope_factor=2\n", "rope_scaling"},
        {"rope_layout=half\n", "rope_layout"}, {"bias=0\n", "bias"}, {"tie=0\n", "tie"}, {"activation=relu\n", "activation"},
        {"norm_eps=1e-6\n", "norm_eps"}, {"n_kv_head=1\n", "n_kv_head"}, {"norm=rmsnorm\n", "norm"}, {"norm_place=post\n", "norm_place"},
        {"qk_norm=1\n", "qk_norm"}, {"activation=swiglu\nn_hidden=64\n", "activation"}};
    Model m, other;
    RunState back;
    create(&m);
    save(at("architecture"), &m, 1, false);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        create_with(&other, others[i].settings, F32, 1);
        if (checkpoint_load(at("architecture/last"), &other, &back, error)) fail_msg("loaded into %s", others[i].settings);
        if (strncmp(error, others[i].named, strlen(others[i].named)) != 0) fail_msg("\"%s\" does not name %s", error, others[i].named);
        model_free(&other);
    }
    /* Dropout and the sort of numbers may change. */
    create_with(&other, "dropout=0\n", BF16, 1);
    if (!checkpoint_load(at("architecture/last"), &other, &back, error)) fail_msg("%s", error);
    model_free(&other);
    /* AdamW needs moments that plain descent has not saved; the other way round they are not missed. */
    create_with(&other, "optimizer=sgd\n", F32, 1);
    if (!checkpoint_load(at("architecture/last"), &other, &back, error)) fail_msg("%s", error);
    save(at("descent"), &other, 1, false);
    assert_false(checkpoint_load(at("descent/last"), &m, &back, error));
    assert_non_null(strstr(error, "exp_avg."));
    model_free(&other);
    model_free(&m);
}

/* ---- options ---------------------------------------------------------------------------------------------------------------- */

static bool same_option(const OptionRow *row, const Options *a, const Options *b) {
    char *x = options_format(row, a), *y = options_format(row, b);
    bool same = strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

/* Another value than the default one, of each kind. */
static void set_odd_value(const OptionRow *row, Options *o) {
    char text[64], *now = options_format(row, o);
    double middle = row->least + (row->most - row->least) / 3;
    if (row->kind == OPTION_REAL) snprintf(text, sizeof text, "%.17g", middle);
    if (row->kind == OPTION_INT) snprintf(text, sizeof text, "%.0f", row->most - row->least > 1 ? floor(middle) : row->most);
    if (row->kind == OPTION_FLAG) snprintf(text, sizeof text, "%d", *now == '0');
    if (row->kind == OPTION_CHOICE) snprintf(text, sizeof text, "%s", strrchr(row->choices, '|') + 1);
    if (row->kind == OPTION_TEXT) snprintf(text, sizeof text, "a \"new\" \\ text\n# = \xC3\xA9 of %s", row->name);
    if (!options_set(&train_options, o, row->name, text, FROM_COMMAND_LINE, error)) fail_msg("%s", error);
    free(now);
}

static void test_options(void **state) {
    (void)state;
    static const char invocation[] = " out resume config plan profile eval_only check_numerics max_time device print_config export_ gpus comm ranks "
                                     "comm_timeout check_ranks link_speed matmul_speed plan_memory checkpoint_async quiet live ";
    Model m;
    Options odd, back, fresh;
    RunState run = state_at(1);
    options_defaults(&odd);
    options_defaults(&back);
    options_defaults(&fresh);
    for (int i = 0; i < train_options.count; i++)
        if (train_options.rows[i].kind != OPTION_SECTION) set_odd_value(&train_options.rows[i], &odd);
    create(&m);
    assert_true(try_save(at("options"), &m, &run, &odd, NULL, false));
    assert_true(options_set(&train_options, &back, "lr", "0.125", FROM_COMMAND_LINE, error));
    assert_true(options_set(&train_options, &back, "n_layer", "3", FROM_MODEL, error));
    if (!checkpoint_read_options(at("options/last"), &back, error)) fail_msg("%s", error);
    for (int i = 0; i < train_options.count; i++) {
        const OptionRow *row = &train_options.rows[i];
        char word[64];
        if (row->kind == OPTION_SECTION || strcmp(row->name, "lr") == 0) continue;
        snprintf(word, sizeof word, " %s ", row->name);
        bool kept = strstr(invocation, word) == NULL;   /* belongs to the run */
        if (!same_option(row, &back, kept ? &odd : &fresh)) fail_msg("--%s is not what it was", row->name);
        if (same_option(row, &odd, &fresh)) fail_msg("--%s was not changed", row->name);
    }
    assert_true(back.lr == 0.125);   /* the command line wins, a preset does not */
    assert_int_equal(back.from.n_layer, FROM_CHECKPOINT);
    options_release(&train_options, &odd);
    options_release(&train_options, &back);
    options_release(&train_options, &fresh);
    model_free(&m);
}

/* ---- trouble while writing -------------------------------------------------------------------------------------------------- */

/* In a child whose files may not grow beyond `limit` bytes. 0: refused with a sentence, as it should be. */
static int save_with_limit(Model *m, rlim_t limit) {
    struct rlimit l = {limit, limit};
    RunState state = state_at(2);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &l);
    *error = 0;
    if (try_save(at("full"), m, &state, &options, NULL, true)) return 1;
    return strstr(error, "cannot write") ? 0 : 2;
}

static void test_full_disk(void **state) {
    (void)state;
    Model m, loaded;
    RunState back;
    create(&m);
    create(&loaded);
    save(at("full"), &m, 1, false);
    size_t weights = file_size(at("full/last/model.safetensors"));
    const rlim_t limits[] = {0, 100, file_size(at("full/last/config.json")) - 1, file_size(at("full/last/state.json")) - 1, weights - 1,
        file_size(at("full/last/optimizer.safetensors")) - 1};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) _exit(save_with_limit(&m, limits[i]));
        waitpid(child, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("limit %zu: status %d", (size_t)limits[i], status);
        assert_string_equal(names_in(at("full")), "last step_00000001 ");
        if (!checkpoint_verify(at("full/last"), error) || !checkpoint_load(at("full/last"), &loaded, &back, error)) fail_msg("%s", error);
        expect_same_model(&m, &loaded);
    }
    model_free(&m);
    model_free(&loaded);
}

static void test_nowhere_to_write(void **state) {
    (void)state;
    Model m;
    RunState run = state_at(1);
    create(&m);
    put_bytes(at("file"), "x", 1);
    assert_false(try_save(at("file"), &m, &run, &options, NULL, false));
    assert_non_null(strstr(error, "file"));
    assert_false(try_save(at("file/below"), &m, &run, &options, NULL, false));
    assert_int_equal(file_size(at("file")), 1);
    /* a directory where a link should be is left alone */
    assert_true(directory_create(at("occupied/last/mine"), error));
    assert_false(try_save(at("occupied"), &m, &run, &options, NULL, false));
    assert_non_null(strstr(error, "last"));
    assert_true(path_is_directory(at("occupied/last/mine")));
    model_free(&m);
}

/* An old checkpoint that cannot be removed does not make the new one a failure. */
static void test_unremovable(void **state) {
    (void)state;
    Model m;
    create(&m);
    assert_true(directory_create(at("stuck"), error));
    put_bytes(at("stuck/step_00000001"), "x", 1);
    listen_begin();
    save(at("stuck"), &m, 2, true);
    char *said = listen_end();
    assert_non_null(strstr(said, "an older checkpoint could not be removed: "));
    assert_non_null(strstr(said, "step_00000001"));
    assert_true(checkpoint_verify(at("stuck/best"), error));
    free(said);
    model_free(&m);
}

/* Killed while it saves one checkpoint after the other, a process leaves a whole one behind, and nothing that looks like one and is not. */
static void test_killed(void **state) {
    (void)state;
    Model m;
    create(&m);
    options.keep = 2;
    save(at("killed"), &m, 1, true);
    int64_t newest = 1;
    test_seed = (uint64_t)getpid();
    for (int round = 0; round < 12; round++) {
        int ends[2];
        char byte;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            for (int64_t step = newest + 1;; step++) {
                save(at("killed"), &m, step, step % 3 == 0);
                if (step == newest + 1 && write(ends[1], "", 1) != 1) _exit(1);
            }
        }
        assert_int_equal(read(ends[0], &byte, 1), 1);   /* it has got at least one step further */
        usleep((useconds_t)test_below(20000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(ends[0]);
        close(ends[1]);
        char *found = find(at("killed"), "auto");
        if (!found) fail_msg("%s", error);
        assert_true(checkpoint_newest_step(at("killed")) > newest);
        newest = checkpoint_newest_step(at("killed"));
        assert_string_equal(found, at("killed/step_%08d", (int)newest));
        assert_null(strstr(names_in(at("killed")), "damaged"));
        assert_true(checkpoint_verify(at("killed/last"), error));
        assert_true(checkpoint_clean(at("killed"), error));
        assert_null(strstr(names_in(at("killed")), ".writing"));
        free(found);
    }
    options.keep = 1;
    model_free(&m);
}

/* ---- directories ------------------------------------------------------------------------------------------------------------ */

static void test_run_exists(void **state) {
    (void)state;
    Model m;
    create(&m);
    assert_false(checkpoint_run_exists(at("missing")));
    assert_int_equal(checkpoint_newest_step(at("missing")), -1);
    assert_true(checkpoint_clean(at("missing"), error));
    assert_true(directory_create(at("empty"), error));
    assert_false(checkpoint_run_exists(at("empty")));
    put_bytes(at("empty/log.jsonl"), "", 0);
    assert_true(checkpoint_run_exists(at("empty")));
    /* names that only look like a checkpoint's */
    assert_true(directory_create(at("one/step_5"), error) && directory_create(at("one/step_"), error)
        && directory_create(at("one/step_-0000001"), error));
    assert_int_equal(checkpoint_newest_step(at("one")), -1);
    save(at("one"), &m, 0, false);
    assert_true(checkpoint_run_exists(at("one")));
    assert_int_equal(checkpoint_newest_step(at("one")), 0);
    model_free(&m);
}

static void expect_model_directory(const char *path, const char *expected) {
    char *found = model_directory(path, error);
    if (!found) fail_msg("%s", error);
    assert_string_equal(found, expected);
    free(found);
}

static void test_model_directory(void **state) {
    (void)state;
    Model m;
    Config config;
    create(&m);
    save(at("where"), &m, 1, false);
    expect_model_directory(at("where"), at("where/last"));
    expect_model_directory(at("where/step_00000001"), at("where/step_00000001"));
    save(at("where"), &m, 2, true);
    save(at("where"), &m, 3, false);
    expect_model_directory(at("where"), at("where/best"));
    expect_link(at("where/best"), "step_00000002");
    assert_true(model_directory_config(at("where/best"), &config, error));
    assert_true(config_same(&config, &m.config, error));
    /* A bare model, as others write it, has no checksums; a checkpoint's weights are checked, its optimizer is of no interest. */
    assert_true(model_directory_verify(at("where/best"), error));
    unlink(at("where/best/optimizer.safetensors"));
    assert_true(model_directory_verify(at("where/best"), error));
    put_bytes(at("where/best/model.safetensors"), "x", 1);
    assert_false(model_directory_verify(at("where/best"), error));
    assert_non_null(strstr(error, "model.safetensors"));
    unlink(at("where/best/state.json"));
    assert_true(model_directory_verify(at("where/best"), error));

    assert_null(model_directory(at("absent"), error));
    assert_non_null(strstr(error, "not a directory"));
    assert_true(directory_create(at("bare"), error));
    assert_null(model_directory(at("bare"), error));
    assert_non_null(strstr(error, "holds no model"));
    put_bytes(at("bare/config.json"), "{\"model_type\": \"gpt2\"}", 22);
    assert_false(model_directory_config(at("bare"), &config, error));
    assert_non_null(strstr(error, "bare"));
    assert_non_null(strstr(error, "n_layer"));
    model_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_resume_equals_never_stopping), cmocka_unit_test(test_updates_are_kept),
        cmocka_unit_test(test_spikes_are_kept), cmocka_unit_test(test_contents), cmocka_unit_test(test_replacing),
        cmocka_unit_test(test_pruning), cmocka_unit_test(test_damaged_files), cmocka_unit_test(test_wrong_states),
        cmocka_unit_test(test_unlisted_files), cmocka_unit_test(test_ranks_and_spikes), cmocka_unit_test(test_auto),
        cmocka_unit_test(test_fall_back), cmocka_unit_test(test_other_architecture), cmocka_unit_test(test_options),
        cmocka_unit_test(test_full_disk), cmocka_unit_test(test_nowhere_to_write), cmocka_unit_test(test_unremovable),
        cmocka_unit_test(test_killed), cmocka_unit_test(test_run_exists), cmocka_unit_test(test_model_directory),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
