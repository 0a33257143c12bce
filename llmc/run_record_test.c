/* run_record_test.c: run.json: that it says what it is told, what a resumed run keeps of it, and what is refused. */
#include "run_record.h"

#include "error.h"
#include "json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "directory_test.h"

static Options options;

static char *path_of_record(void) { return path_join(directory, "run.json"); }

static Json *read_record(void) {
    char *path = path_of_record(), cause[ERROR_SIZE];
    size_t length;
    char *text = file_read_text(path, 1 << 20, &length, error);
    if (!text) fail_msg("%s", error);
    Json *json = json_parse(text, length, cause, sizeof cause);
    if (!json) fail_msg("%s in: %s", cause, text);
    free(text);
    free(path);
    return json;
}

static void put_record(const char *text) { assert_true(file_write_text(directory, "run.json", text, strlen(text), error)); }

static char *command[] = {"./train_gpt", "-o", "a \"run\"\n"};
static RunFacts facts_of(int64_t step, bool resumed) {
    static Config config;
    Options sized = options;
    sized.vocab_size = 65;
    if (!config_from_options(&config, &sized, error)) fail_msg("%s", error);
    return (RunFacts){.options = &options, .config = &config, .description = "2 layers", .parameters = 27552, .flops_per_token = 166080,
                      .train = {"data/train.bin", 2, 1003854, 0xabc}, .val = {"data/val.bin", 1, 111540, 0xffffffff}, .vocab_size = 65,
                      .source = "a text", .peak_flops = 1.0 / 3 * 1e12, .peak_from = "measured", .host = "here", .device = "cpu, 2 threads",
                      .dtype = "fp32", .ranks = 2, .step = step, .resumed = resumed, .argc = 3, .argv = command};
}

static RunRecord *open_record(int64_t step, bool resumed) {
    RunFacts facts = facts_of(step, resumed);
    RunRecord *record = run_record_open(directory, &facts, error);
    if (!record) fail_msg("%s", error);
    return record;
}

static double number(const Json *object, const char *key) {
    double value;
    if (!json_get_number(object, key, &value)) fail_msg("no number '%s'", key);
    return value;
}

static void expect_text(const Json *object, const char *key, const char *text) {
    const char *found = json_get_string(object, key);
    if (!found || strcmp(found, text) != 0) fail_msg("'%s' is '%s', not '%s'", key, found ? found : "no text", text);
}

static void expect_type(const Json *object, const char *key, JsonType type) {
    const Json *value = json_get(object, key);
    if (!value || value->type != type) fail_msg("'%s' is not of type %d", key, type);
}

static void expect_time(const Json *object) {
    int year, month, day, hour, minute, second, length = 0;
    const char *text = json_get_string(object, "time");
    assert_non_null(text);
    int fields = sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &year, &month, &day, &hour, &minute, &second, &length);
    assert_true(fields == 6 && length == 20 && text[20] == 0);
}

static void test_members(void **state) {
    (void)state;
    run_record_close(open_record(0, false));
    Json *json = read_record();
    assert_true(number(json, "format") == 1);
    expect_text(json, "program", "train_gpt");
    expect_type(json, "commit", JSON_NULL);   /* only the trainer has one */
    expect_type(json, "compiler", JSON_STRING);
    expect_type(json, "end", JSON_NULL);
    assert_true(number(json, "peak_flops") == 1.0 / 3 * 1e12);
    expect_text(json, "peak_from", "measured");
    const Json *model = json_get(json, "model"), *data = json_get(json, "data"), *train = json_get(data, "train");
    expect_text(model, "description", "2 layers");
    assert_true(number(model, "parameters") == 27552 && number(model, "flops_per_token") == 166080);
    expect_text(train, "path", "data/train.bin");
    expect_text(train, "crc32", "00000abc");
    expect_text(json_get(data, "val"), "crc32", "ffffffff");
    assert_true(number(train, "files") == 2 && number(train, "tokens") == 1003854 && number(data, "vocab_size") == 65);
    expect_text(data, "source", "a text");
    const Json *starts = json_get(json, "starts"), *start = &starts->items[0];
    assert_int_equal(starts->count, 1);
    expect_time(start);
    expect_text(start, "host", "here");
    expect_text(start, "device", "cpu, 2 threads");
    expect_text(start, "dtype", "fp32");
    assert_true(number(start, "ranks") == 2 && number(start, "step") == 0);
    const Json *words = json_get(start, "command");
    assert_int_equal(words->count, 3);
    assert_string_equal(words->items[2].string, "a \"run\"\n");
    json_free(json);
}

/* Every option of the program, each of the type that it has there. */
static void test_options(void **state) {
    (void)state;
    assert_true(options_set(&train_options, &options, "lr", "1e-17", FROM_COMMAND_LINE, error));
    assert_true(options_set(&train_options, &options, "tie", "0", FROM_COMMAND_LINE, error));
    assert_true(options_set(&train_options, &options, "export", "a\\b", FROM_COMMAND_LINE, error));
    assert_true(options_set(&train_options, &options, "max_seq_len", "256", FROM_COMMAND_LINE, error));
    run_record_close(open_record(0, false));
    Json *json = read_record();
    const Json *written = json_get(json, "options");
    size_t rows = 0;
    for (int i = 0; i < train_options.count; i++) rows += train_options.rows[i].kind != OPTION_SECTION;
    assert_int_equal(written->count, rows);
    expect_type(written, "tie", JSON_FALSE);
    expect_type(written, "bias", JSON_TRUE);
    expect_text(written, "pos", "rope");
    expect_text(written, "model", "baby");
    expect_text(written, "sample_prompt", "\n");
    expect_text(written, "export", "a\\b");
    assert_true(number(written, "lr") == 1e-17 && number(written, "n_layer") == 6 && number(written, "dropout") == 0);
    /* what options leave open, as it came out, but the rows of this run */
    assert_true(number(written, "n_kv_head") == 6 && number(written, "head_size") == 32 && number(written, "n_hidden") == 768);
    assert_true(number(written, "vocab_size") == 65 && number(written, "max_seq_len") == 256 && number(written, "seq_len") == 128);
    expect_type(written, "qkv_bias", JSON_TRUE);
    json_free(json);
    options_release(&train_options, &options);
    options_defaults(&options);
}

static void test_unknown(void **state) {
    (void)state;
    RunFacts facts = facts_of(0, false);
    facts.source = NULL;
    facts.peak_flops = 0;
    facts.peak_from = NULL;
    RunRecord *record = run_record_open(directory, &facts, error);
    RunEnd end = {.status = "diverged"};
    assert_true(run_record_end(record, &end, error));
    assert_true(run_record_end(NULL, &end, error));   /* of other ranks */
    run_record_close(record);
    Json *json = read_record();
    assert_null(json_get(json, "peak_flops"));
    assert_null(json_get(json, "peak_from"));
    expect_type(json_get(json, "data"), "source", JSON_NULL);
    expect_text(json_get(json, "end"), "status", "diverged");
    json_free(json);
}

static void test_end(void **state) {
    (void)state;
    RunRecord *record = open_record(0, false);
    RunEnd end = {"max-time", 600, 614400, 12.5, 1.5, 1e9, 2e12};
    assert_true(run_record_end(record, &end, error));
    run_record_close(record);
    Json *json = read_record();
    const Json *written = json_get(json, "end");
    expect_text(written, "status", "max-time");
    expect_time(written);
    assert_true(number(written, "step") == 600 && number(written, "tokens") == 614400 && number(written, "elapsed_s") == 12.5);
    assert_true(number(written, "best_val_loss") == 1.5 && number(written, "peak_memory") == 1e9);
    assert_true(number(json, "peak_flops") == 2e12);   /* risen since the start */
    expect_text(json, "peak_from", "measured");
    json_free(json);

    record = open_record(600, true);
    json = read_record();
    expect_type(json, "end", JSON_NULL);   /* it is under way again */
    assert_int_equal(json_get(json, "starts")->count, 2);
    assert_true(number(&json_get(json, "starts")->items[1], "step") == 600);
    json_free(json);
    end.best_val_loss = INFINITY;
    assert_true(run_record_end(record, &end, error));
    run_record_close(record);
    json = read_record();
    expect_type(json_get(json, "end"), "best_val_loss", JSON_NULL);
    json_free(json);
}

/* What an earlier program said of its start is kept, whatever it is. */
static void test_starts_are_kept(void **state) {
    (void)state;
    put_record("{\"format\": 1, \"starts\": [{\"step\": 0, \"more\": [true, null, {\"x\": \"\\u00e9\"}], \"y\": 0.1}, 7]}");
    run_record_close(open_record(3, true));
    Json *json = read_record();
    const Json *starts = json_get(json, "starts"), *more = json_get(&starts->items[0], "more");
    assert_int_equal(starts->count, 3);
    assert_true(more->items[0].type == JSON_TRUE && more->items[1].type == JSON_NULL && number(&starts->items[0], "y") == 0.1);
    expect_text(&more->items[2], "x", "\xc3\xa9");
    assert_true(starts->items[1].number == 7);
    json_free(json);
    run_record_close(open_record(0, false));   /* a run that begins has nothing to keep */
    json = read_record();
    assert_int_equal(json_get(json, "starts")->count, 1);
    json_free(json);
}

static void expect_refused(const char *text, const char *why) {
    RunFacts facts = facts_of(3, true);
    if (text) put_record(text);
    if (run_record_open(directory, &facts, error)) fail_msg("taken: %s", text ? text : "");
    if (!strstr(error, "run.json") || !strstr(error, why)) fail_msg("'%s' lacks '%s'", error, why);
}

static void test_refused(void **state) {
    (void)state;
    expect_refused("{\"format\": 1, \"starts\": [", "damaged");
    expect_refused("", "damaged");
    expect_refused("{\"format\": 2, \"starts\": []}", "not a record of format 1");
    expect_refused("{\"starts\": []}", "not a record of format 1");
    expect_refused("{\"format\": 1, \"starts\": {}}", "not a record of format 1");
    expect_refused("[]", "not a record of format 1");
    char *path = path_of_record();
    size_t length;
    char *text = file_read_text(path, 1 << 20, &length, error);
    assert_string_equal(text, "[]");   /* as it was */
    free(text);
    unlink(path);
    assert_true(directory_create(path, error));
    RunFacts facts = facts_of(0, false);
    assert_null(run_record_open(directory, &facts, error));
    assert_non_null(strstr(error, "run.json"));
    assert_true(directory_remove(path, error));
    free(path);
}

static int set_up(void **state) {
    options_defaults(&options);
    return make_directory(state);
}
static int tear_down(void **state) {
    options_release(&train_options, &options);
    return remove_directory(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members), cmocka_unit_test(test_options), cmocka_unit_test(test_unknown), cmocka_unit_test(test_end),
        cmocka_unit_test(test_starts_are_kept), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
