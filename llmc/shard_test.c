/* shard_test.c: the formats of token files, and what is refused. */
#include "dataloader_test.h"

static void expect_refused(size_t size, uint32_t magic, uint32_t version, uint32_t count, bool headerless, const char *phrase) {
    unsigned char *bytes = shard_bytes(size, magic, version, count);
    Shard shard;
    bool accepted = shard_parse(&shard, bytes, size, "some.bin", headerless, error);
    free(bytes);
    if (accepted) fail_msg("accepted: %zu bytes, %u, %u, %u", size, magic, version, count);
    if (!strstr(error, phrase) || !strstr(error, "'some.bin'")) fail_msg("no \"%s\" in: %s", phrase, error);
}

static void test_shards_are_read_as_written(void **state) {
    (void)state;
    const int32_t tokens[] = { 0, 1, 255, 256, 65535, 7 }, wide[] = { 65536, -1, 0, 16777215, 3 };
    Shard shard;
    assert_true(shard_write(at("narrow.bin"), tokens, 6, 65536, error));
    assert_true(shard_open(&shard, at("narrow.bin"), false, error));
    assert_int_equal(shard.count, 6);
    assert_int_equal(shard.width, 2);
    assert_int_equal(shard.map.size, HEADER + 12);
    for (int i = 0; i < 6; i++) assert_int_equal(shard_token(&shard, i), tokens[i]);
    shard_close(&shard);
    assert_true(shard_write(at("wide.bin"), wide, 5, 16777216, error));
    assert_true(shard_open(&shard, at("wide.bin"), false, error));
    assert_int_equal(shard.count, 5);
    assert_int_equal(shard.width, 4);
    assert_int_equal(shard.map.size, HEADER + 20);
    for (int i = 0; i < 5; i++) assert_int_equal(shard_token(&shard, i), wide[i]);
    shard_close(&shard);
}

static void test_shards_have_llmc_bytes(void **state) {
    (void)state;
    const int32_t tokens[] = { 0x0201, 0x0403 };
    unsigned char *expected = shard_bytes(HEADER + 4, MAGIC16, 1, 2);
    memcpy(expected + HEADER, "\1\2\3\4", 4);
    FileMap map;
    assert_true(shard_write(at("bytes.bin"), tokens, 2, 50257, error));
    assert_true(file_map(&map, at("bytes.bin"), error));
    assert_int_equal(map.size, HEADER + 4);
    assert_memory_equal(map.data, expected, HEADER + 4);
    file_unmap(&map);
    free(expected);
}

static void test_unaligned_and_headerless_memory(void **state) {
    (void)state;
    Shard shard;
    unsigned char *bytes = shard_bytes(HEADER + 8, MAGIC32, 7, 2), *moved = xmalloc(HEADER + 9);
    put_u32(bytes + HEADER + 4, 123456789);
    memcpy(moved + 1, bytes, HEADER + 8);
    assert_true(shard_parse(&shard, moved + 1, HEADER + 8, "x", false, error));
    assert_int_equal(shard_token(&shard, 1), 123456789);
    memcpy(moved + 1, "\1\0\2\0\377\377", 6);
    assert_true(shard_parse(&shard, moved + 1, 6, "x", true, error));
    assert_int_equal(shard.count, 3);
    assert_int_equal(shard_token(&shard, 1), 2);
    assert_int_equal(shard_token(&shard, 2), 65535);
    assert_true(shard_parse(&shard, moved + 1, 2, "x", true, error));
    assert_int_equal(shard.count, 1);
    assert_true(shard_parse(&shard, bytes, HEADER + 8, "x", true, error));   /* a real shard stays one */
    assert_int_equal(shard.width, 4);
    free(bytes);
    free(moved);
}

static void test_shards_are_searched(void **state) {
    (void)state;
    const int32_t narrow[] = { 7, 65535, 3, 7, 9 }, wide[] = { 70000, -1, 3, 70000 };
    Shard shard;
    assert_true(shard_write(at("search.bin"), narrow, 5, 65536, error));
    assert_true(shard_open(&shard, at("search.bin"), false, error));
    assert_int_equal(shard_find(&shard, 7, 0, 5), 0);
    assert_int_equal(shard_find(&shard, 7, 1, 5), 3);
    assert_int_equal(shard_find(&shard, 7, 1, 3), -1);
    assert_int_equal(shard_find(&shard, 65535, 0, 5), 1);
    assert_int_equal(shard_find(&shard, 9, 5, 5), -1);
    shard_close(&shard);
    assert_true(shard_write(at("search.bin"), wide, 4, 70001, error));
    assert_true(shard_open(&shard, at("search.bin"), false, error));
    assert_int_equal(shard_find(&shard, 70000, 1, 4), 3);
    shard_close(&shard);
}

static void test_maps_come_and_go(void **state) {
    (void)state;
    const int32_t tokens[] = { 5, 6, 7, 8 };
    Shard shard;
    assert_true(shard_write(at("again.bin"), tokens, 3, 100, error));
    assert_true(shard_open(&shard, at("again.bin"), false, error));
    shard_unmap(&shard);
    assert_true(!shard.tokens && shard.count == 3 && shard.width == 2 && shard.path);
    assert_true(shard_map(&shard, error));
    assert_true(shard_map(&shard, error));   /* already there */
    assert_int_equal(shard_token(&shard, 2), 7);
    shard_unmap(&shard);
    assert_true(shard_write(at("again.bin"), tokens, 4, 100, error));
    assert_false(shard_map(&shard, error));
    assert_non_null(strstr(error, "again.bin' has changed while it was in use: it held 3 tokens of 2 bytes, and now holds 4 of 2"));
    assert_int_equal(unlink(at("again.bin")), 0);
    assert_false(shard_map(&shard, error));
    assert_non_null(strstr(error, "cannot open"));
    shard_close(&shard);
    write_bytes(at("again.bin"), "\1\0\2\0", 4);
    assert_true(shard_open(&shard, at("again.bin"), true, error));
    shard_unmap(&shard);
    assert_true(shard_map(&shard, error));
    assert_int_equal(shard_token(&shard, 1), 2);
    shard_close(&shard);
}

static void test_damaged_shards_are_refused(void **state) {
    (void)state;
    expect_refused(0, MAGIC16, 1, 0, false, "is empty");
    expect_refused(0, MAGIC16, 1, 0, true, "is empty");
    expect_refused(3, MAGIC16, 1, 0, false, "no token shard");
    expect_refused(4, MAGIC16, 1, 0, false, "cut off");
    expect_refused(HEADER - 1, MAGIC32, 7, 1, true, "cut off: it has 1023 bytes");
    expect_refused(HEADER + 2, MAGIC16, 2, 1, false, "version 2");
    expect_refused(HEADER + 4, MAGIC32, 1, 1, false, "version 1");
    expect_refused(HEADER, MAGIC16, 1, 0, false, "no tokens");
    expect_refused(HEADER + 2, MAGIC16, 1, 0xFFFFFFFFu, false, "no tokens: its header counts -1");
    expect_refused(HEADER + 20, MAGIC16, 1, 11, false, "counts 11 tokens (22 bytes), but 20 bytes follow");
    expect_refused(HEADER + 21, MAGIC16, 1, 10, false, "counts 10 tokens (20 bytes), but 21 bytes follow");
    expect_refused(HEADER + 20, MAGIC32, 7, 10, true, "counts 10 tokens (40 bytes), but 20 bytes follow");
    expect_refused(HEADER + 4, MAGIC32, 7, 0x7FFFFFFF, false, "counts 2147483647 tokens (8589934588 bytes)");
    expect_refused(100, 1234567, 0, 0, false, "begins with 1234567");
    expect_refused(100, 1234567, 0, 0, false, "--vocab-size");
    expect_refused(101, 1234567, 0, 0, true, "odd number of bytes, 101");
}

static void test_shard_write_refuses(void **state) {
    (void)state;
    int32_t token = 0;
    assert_false(shard_write(at("none.bin"), &token, 0, 10, error));
    assert_false(path_exists(at("none.bin")));
    assert_false(shard_write(at("no such directory/x.bin"), &token, 1, 10, error));
    assert_non_null(strstr(error, "no such directory"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_are_read_as_written),
        cmocka_unit_test(test_shards_have_llmc_bytes),
        cmocka_unit_test(test_unaligned_and_headerless_memory),
        cmocka_unit_test(test_shards_are_searched),
        cmocka_unit_test(test_maps_come_and_go),
        cmocka_unit_test(test_damaged_shards_are_refused),
        cmocka_unit_test(test_shard_write_refuses),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
