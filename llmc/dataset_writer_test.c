/* dataset_writer_test.c: which documents are for validation; shards cut from a stream; a dataset whole or not at all. */
#include "dataset_writer.h"
#include "dataloader_test.h"
#include "json.h"
#include "shard_set.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>

/* ---- The split ---- */

static void test_the_split_follows_from_seed_and_number(void **state) {
    (void)state;
    enum { DOCUMENTS = 100000 };
    int val = 0, pairs = 0, other = 0, nested = 0;
    for (int64_t d = 0; d < DOCUMENTS; d++) {
        DatasetSplit split = dataset_split(1, d, 0.1);
        assert_int_equal(split, dataset_split(1, d, 0.1));
        assert_int_equal(dataset_split(1, d, 0), TRAIN);
        val += split == VAL;
        pairs += split == VAL && dataset_split(1, d + 1, 0.1) == VAL;
        other += split != dataset_split(2, d, 0.1);
        nested += split == VAL && dataset_split(1, d, 0.2) != VAL;
    }
    /* Standard deviations: 95, 35 around 0.1 x 0.1 of all, and 121 around 2 x 0.1 x 0.9 of all. */
    assert_true(abs(val - 10000) < 5 * 95);
    assert_true(abs(pairs - 1000) < 5 * 35);
    assert_true(abs(other - 18000) < 5 * 121);
    assert_int_equal(nested, 0);
    assert_int_equal(dataset_split(1, (int64_t)1 << 40, 0.1), dataset_split(1, (int64_t)1 << 40, 0.1));
}

/* ---- Shards ---- */

static void read_shards(const char *where, const char *name, int32_t *tokens, int64_t *count, int *shards) {
    *count = *shards = 0;
    for (;; ++*shards) {
        Shard shard;
        char *path = xprintf("%s/%s_%06d.bin", where, name, *shards);
        bool good = shard_open(&shard, path, false, error);
        free(path);
        if (!good) return;
        for (int64_t i = 0; i < shard.count; i++) tokens[(*count)++] = shard_token(&shard, i);
        shard_close(&shard);
    }
}

/* The same shards whatever the parts they come in. */
static void test_shards_of_equal_length(void **state) {
    (void)state;
    enum { TOKENS = 47 };
    int32_t tokens[TOKENS], found[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i * 3;
    for (int64_t vocab_size = 1000; vocab_size < 100000; vocab_size += 90000)
        for (int length = 3; length <= 48; length += length < 30 ? 10 : 5)
            for (int step = 1; step <= TOKENS; step += 9) {
                ShardSet set = { .directory = directory, .name = "set", .vocab_size = vocab_size, .shard_tokens = length };
                int64_t count;
                int shards;
                for (int i = 0; i < TOKENS; i += step)
                    assert_true(shard_set_append(&set, tokens + i, i + step < TOKENS ? step : TOKENS - i, error));
                assert_true(shard_set_close(&set, error));
                assert_int_equal(set.tokens, TOKENS);
                assert_int_equal(set.shards, (TOKENS + length - 1) / length);
                read_shards(directory, "set", found, &count, &shards);
                assert_int_equal(count, TOKENS);
                assert_int_equal(shards, set.shards);
                assert_memory_equal(found, tokens, sizeof tokens);
                for (int i = 0; i < shards; i++) {
                    char *path = xprintf("%s/set_%06d.bin", directory, i);
                    assert_int_equal(unlink(path), 0);
                    free(path);
                }
            }
}

static void test_a_shard_given_up_leaves_nothing(void **state) {
    (void)state;
    int32_t tokens[3] = { 1, 2, 3 };
    ShardSet set = { .directory = directory, .name = "lost", .vocab_size = 10, .shard_tokens = 2 };
    assert_true(shard_set_append(&set, tokens, 3, error));
    shard_set_discard(&set);
    assert_true(path_exists(at("lost_000000.bin")));
    assert_false(path_exists(at("lost_000001.bin")));
    assert_false(path_exists(at("lost_000001.bin.tmp")));
    set = (ShardSet){ .directory = "no such directory", .name = "lost", .vocab_size = 10, .shard_tokens = 2 };
    assert_false(shard_set_append(&set, tokens, 3, error));
    assert_non_null(strstr(error, "no such directory/lost_000000.bin"));
    shard_set_discard(&set);
}

/* ---- Datasets ---- */

enum { EOT = 7 };

static char *vocabulary(void) {
    char *path = path_join(directory, "vocabulary");
    assert_true(directory_create(path, error));
    char *file = path_join(path, "vocab.json");
    write_bytes(file, "{}", 2);
    free(file);
    return path;
}

static DatasetWriter *open_writer(const char *where, const char *vocab) {
    DatasetPlan plan = { where, vocab, "a \"source\"", 50, 4, EOT };
    DatasetWriter *writer = dataset_writer_open(&plan, error);
    if (!writer) fail_msg("%s", error);
    return writer;
}

static void add_document(DatasetWriter *writer, DatasetSplit split, int32_t token, int64_t tokens) {
    assert_true(dataset_writer_begin(writer, split, error));
    for (int64_t i = 0; i < tokens; i++) assert_true(dataset_writer_append(writer, &token, 1, 3, error));
}

static int files_in(const char *where) {
    char *pattern = path_join(where, "*");
    glob_t found;
    int count = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    free(pattern);
    return count;
}

static char *text_of(const char *where, const char *name) {
    size_t length;
    char *path = path_join(where, name), *text = file_read_text(path, 1 << 20, &length, error);
    free(path);
    if (!text) fail_msg("%s", error);
    return text;
}

static void test_a_dataset(void **state) {
    (void)state;
    char *vocab = vocabulary(), *where = xstrdup(at("deep/er/dataset"));
    DatasetWriter *writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 10, 5);
    add_document(writer, VAL, 20, 2);
    add_document(writer, TRAIN, 11, 1);
    DatasetCounts counts = dataset_writer_counts(writer, TRAIN);
    assert_true(counts.tokens == 8 && counts.bytes == 18 && counts.documents == 2 && counts.shards == 2);
    assert_true(dataset_writer_finish(writer, error));
    dataset_writer_close(writer);
    char *text = text_of(where, "dataset.json");
    assert_string_equal(text, "{\"vocab_size\": 50, \"tokenizer\": \"bpe\", \"source\": \"a \\\"source\\\"\", \"end_of_text\": 7, "
                              "\"tokens\": {\"train\": 8, \"val\": 3}, \"bytes\": {\"train\": 18, \"val\": 6}, "
                              "\"documents\": {\"train\": 2, \"val\": 1}, \"shard_tokens\": 4}\n");
    free(text);
    int32_t tokens[20];
    int64_t count;
    int shards;
    read_shards(where, "train", tokens, &count, &shards);
    assert_true(count == 8 && shards == 2);
    assert_memory_equal(tokens, ((int32_t[]){ EOT, 10, 10, 10, 10, 10, EOT, 11 }), 8 * sizeof *tokens);
    read_shards(where, "val", tokens, &count, &shards);
    assert_true(count == 3 && shards == 1);
    assert_memory_equal(tokens, ((int32_t[]){ EOT, 20, 20 }), 3 * sizeof *tokens);
    assert_int_equal(files_in(where), 5);   /* three shards, vocab.json, dataset.json */

    /* A smaller one in its place, of another vocabulary, leaves nothing of it; what is not a dataset's stays. */
    char *stays = path_join(where, "train_notes.bin"), *stale = path_join(where, "tokenizer.json");
    write_bytes(stays, "x", 1);
    write_bytes(stale, "x", 1);
    writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 12, 2);
    assert_int_equal(files_in(where), 8);   /* and new.tmp: all is there until the new one is whole */
    assert_true(dataset_writer_finish(writer, error));
    dataset_writer_close(writer);
    assert_int_equal(files_in(where), 4);
    assert_true(path_exists(stays));
    assert_false(path_exists(stale));
    free(stays);
    free(stale);
    free(where);
    free(vocab);
}

static void test_given_up(void **state) {
    (void)state;
    char *vocab = vocabulary(), *where = xstrdup(at("given up"));
    DatasetWriter *writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 10, 9);
    dataset_writer_close(writer);
    assert_false(path_exists(where));
    writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 10, 9);
    assert_true(dataset_writer_finish(writer, error));
    dataset_writer_close(writer);
    char *before = text_of(where, "dataset.json");
    writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 11, 2);
    dataset_writer_close(writer);
    char *after = text_of(where, "dataset.json");
    assert_string_equal(before, after);
    assert_int_equal(files_in(where), 5);
    free(before);
    free(after);
    free(where);
    free(vocab);
}

/* Of a run that was killed. */
static void test_leftovers_are_removed(void **state) {
    (void)state;
    char *vocab = vocabulary(), *where = xstrdup(at("killed")), *work = path_join(where, "new.tmp");
    char *left = path_join(work, "train_000009.bin"), *old = path_join(where, "train_000009.bin");
    assert_true(directory_create(work, error));
    write_bytes(left, "x", 1);
    write_bytes(old, "x", 1);
    DatasetWriter *writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 10, 1);
    assert_true(dataset_writer_finish(writer, error));
    dataset_writer_close(writer);
    assert_int_equal(files_in(where), 3);
    assert_false(path_exists(old));
    free(vocab);
    free(where);
    free(work);
    free(left);
    free(old);
}

/* In place of the library's: a directory that cannot be listed, also where the tests have all rights. */
static const char *unlisted;
DIR *opendir(const char *path) {
    if (unlisted && strcmp(path, unlisted) == 0) {
        errno = EACCES;
        return NULL;
    }
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return descriptor < 0 ? NULL : fdopendir(descriptor);
}

/* What cannot be listed cannot be replaced: the older dataset stays whole. */
static void test_a_directory_that_cannot_be_listed(void **state) {
    (void)state;
    char *vocab = vocabulary(), *where = xstrdup(at("unlisted")), *work = path_join(where, "new.tmp");
    DatasetWriter *writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 10, 9);
    assert_true(dataset_writer_finish(writer, error));
    dataset_writer_close(writer);
    const char *places[] = { where, work };
    for (int i = 0; i < 2; i++) {
        writer = open_writer(where, vocab);
        add_document(writer, TRAIN, 11, 2);
        unlisted = places[i];
        assert_false(dataset_writer_finish(writer, error));
        unlisted = NULL;
        assert_non_null(strstr(error, "cannot list the directory"));
        dataset_writer_close(writer);
        assert_int_equal(files_in(where), 5);
    }
    free(vocab);
    free(where);
    free(work);
}

static void test_one_run_at_a_time(void **state) {
    (void)state;
    char *vocab = vocabulary(), *where = xstrdup(at("locked"));
    DatasetPlan plan = { where, vocab, "", 50, 4, EOT };
    DatasetWriter *writer = open_writer(where, vocab);
    add_document(writer, TRAIN, 10, 9);
    assert_null(dataset_writer_open(&plan, error));
    assert_non_null(strstr(error, "another run is writing a dataset into"));
    assert_true(dataset_writer_finish(writer, error));
    dataset_writer_close(writer);
    assert_int_equal(files_in(where), 5);
    free(vocab);
    free(where);
}

static void test_refused_places(void **state) {
    (void)state;
    char *vocab = vocabulary();
    DatasetPlan plan = { at("characters"), vocab, "", 50, 4, EOT };
    assert_true(directory_create(plan.directory, error));
    char *path = path_join(plan.directory, "characters.json");
    write_bytes(path, "{}", 2);
    assert_null(dataset_writer_open(&plan, error));
    assert_non_null(strstr(error, "holds a dataset of characters"));
    plan.directory = path;
    assert_null(dataset_writer_open(&plan, error));
    assert_non_null(strstr(error, "cannot create the directory"));
    assert_true(path_exists(path));
    free(path);
    free(vocab);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_split_follows_from_seed_and_number),
        cmocka_unit_test(test_shards_of_equal_length),
        cmocka_unit_test(test_a_shard_given_up_leaves_nothing),
        cmocka_unit_test(test_a_dataset),
        cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_leftovers_are_removed),
        cmocka_unit_test(test_a_directory_that_cannot_be_listed),
        cmocka_unit_test(test_one_run_at_a_time),
        cmocka_unit_test(test_refused_places),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
