/* dataloader_crc_test.c: the checksum that tells data apart: the same however they are cut into files, another when a token is. */
#include "dataloader_test.h"

static uint32_t crc_of(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size) {
    DataLoader *loader = open_quietly(pattern, order, T, vocab_size, 7);
    uint32_t crc = dataloader_crc32(loader);
    assert_int_equal(crc, dataloader_crc32(loader));
    dataloader_close(loader);
    return crc;
}

static void write_tokens(const char *path, const int32_t *tokens, int64_t count, int64_t vocab_size) {
    if (!shard_write(path, tokens, count, vocab_size, error)) fail_msg("%s", error);
}

static int32_t *draw_tokens(int64_t count) {
    int32_t *tokens = xmalloc((size_t)count * sizeof *tokens);
    for (int64_t i = 0; i < count; i++) tokens[i] = (int32_t)(i * 2654435761u >> 7 & 0xfff);
    return tokens;
}

static void test_formula(void **state) {
    (void)state;
    make("formula");
    const int32_t tokens[] = {3, 1, 4, 1, 5};
    const int64_t count = 5;
    write_tokens(at("formula/a.bin"), tokens, count, 10);
    assert_int_equal(crc_of(at("formula"), SAMPLE_CROPS, 2, 10), crc32_update(crc32_update(0, &count, sizeof count), tokens, sizeof tokens));
}

static void test_files_do_not_matter(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    int32_t *tokens = draw_tokens(COUNT);
    make("one"), make("three"), make("wide");
    write_tokens(at("one/a.bin"), tokens, COUNT, 5000);
    write_tokens(at("three/a.bin"), tokens, 1, 5000);   /* too short for a row, but data */
    write_tokens(at("three/b.bin"), tokens + 1, 3000, 5000);
    write_tokens(at("three/c.bin"), tokens + 3001, COUNT - 3001, 5000);
    write_tokens(at("wide/a.bin"), tokens, COUNT, 100000);
    uint32_t crc = crc_of(at("one"), SAMPLE_CROPS, 8, 5000);
    assert_int_equal(crc, crc_of(at("one"), SAMPLE_SHARDS, 100, 6000));
    assert_int_equal(crc, crc_of(at("three"), SAMPLE_CROPS, 8, 5000));
    assert_int_equal(crc, crc_of(at("wide"), SAMPLE_CROPS, 8, 5000));
    for (int i = 0; i < COUNT; i += 97) {
        tokens[i] ^= 1;
        write_tokens(at("one/a.bin"), tokens, COUNT, 5000);
        assert_true(crc != crc_of(at("one"), SAMPLE_CROPS, 8, 5000));
        tokens[i] ^= 1;
    }
    write_tokens(at("one/a.bin"), tokens, COUNT - 1, 5000);
    assert_true(crc != crc_of(at("one"), SAMPLE_CROPS, 8, 5000));
    free(tokens);
}

/* Only blocks of many tokens are looked at: the first, the last, and those of every 255th part between; so also across files. */
static void test_many(void **state) {
    (void)state;
    enum { COUNT = 3000000, STEP = (COUNT - 4096) / 255 };
    int32_t *tokens = draw_tokens(COUNT);
    make("many"), make("cut");
    write_tokens(at("many/a.bin"), tokens, COUNT, 5000);
    uint32_t crc = crc_of(at("many"), SAMPLE_CROPS, 8, 5000);
    write_tokens(at("cut/a.bin"), tokens, 100 * STEP + 5, 5000);
    write_tokens(at("cut/b.bin"), tokens + 100 * STEP + 5, COUNT - 100 * STEP - 5, 5000);
    assert_int_equal(crc, crc_of(at("cut"), SAMPLE_CROPS, 8, 5000));
    const struct { int64_t place; bool seen; } changes[] = {
        {0, true}, {4095, true}, {4096, false}, {100 * STEP, true}, {100 * STEP + 4095, true}, {100 * STEP - 1, false}, {255 * STEP + 4095, true}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        tokens[changes[i].place] ^= 1;
        write_tokens(at("many/a.bin"), tokens, COUNT, 5000);
        assert_int_equal(crc != crc_of(at("many"), SAMPLE_CROPS, 8, 5000), changes[i].seen);
        tokens[changes[i].place] ^= 1;
    }
    write_tokens(at("many/a.bin"), tokens, COUNT - 1, 5000);
    assert_true(crc != crc_of(at("many"), SAMPLE_CROPS, 8, 5000));
    free(tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formula), cmocka_unit_test(test_files_do_not_matter), cmocka_unit_test(test_many)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
