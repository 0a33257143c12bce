/* dataset_info_test.c: what dataset.json says, what is refused, and bits per byte. */
#include "dataloader_test.h"

#include <math.h>

static void test_dataset_info(void **state) {
    (void)state;
    static const char whole[] = "{\"vocab_size\": 65, \"tokenizer\": \"characters\", \"source\": \"a \\\"book\\\"\", \"sha256\": \"0f\", "
                                "\"tokens\": {\"train\": 9, \"val\": 1}, \"bytes\": {\"train\": 12, \"val\": 2}, \"end_of_text\": 64}";
    DatasetInfo info;
    make("info");
    assert_true(dataset_info_read(&info, at("info/train.bin"), error));
    assert_true(info.vocab_size == 0 && !info.tokenizer && !info.source && !info.sha256 && !info.directory);
    assert_true(info.end_of_text == -1 && info.tokens.val == 0 && info.bytes.val == 0);
    write_bytes(at("info/dataset.json"), whole, strlen(whole));
    const char *names[] = { "info/train.bin", "info", "info/*.bin" };
    for (int i = 0; i < 3; i++) {
        assert_true(dataset_info_read(&info, at(names[i]), error));
        assert_int_equal(info.vocab_size, 65);
        assert_string_equal(info.tokenizer, "characters");
        assert_string_equal(info.source, "a \"book\"");
        assert_string_equal(info.sha256, "0f");
        assert_int_equal(info.end_of_text, 64);
        assert_true(info.tokens.train == 9 && info.tokens.val == 1 && info.bytes.train == 12 && info.bytes.val == 2);
        assert_string_equal(info.directory, at("info"));
        dataset_info_free(&info);
    }
    write_bytes(at("info/dataset.json"), "{}", 2);
    assert_true(dataset_info_read(&info, at("info"), error));
    assert_true(info.vocab_size == 0 && !info.tokenizer && info.directory);
    dataset_info_free(&info);
}

static void test_broken_dataset_info_is_refused(void **state) {
    (void)state;
    const char *texts[] = { "", "{", "[]", "{\"vocab_size\": 0}", "{\"vocab_size\": 2.5}", "{\"vocab_size\": \"65\"}",
                            "{\"vocab_size\": 2147483648}", "{\"tokenizer\": 1}", "{\"vocab_size\": 65, \"source\": null}",
                            "{\"sha256\": []}", "{\"end_of_text\": -1}", "{\"end_of_text\": \"x\"}",
                            "{\"vocab_size\": 10, \"end_of_text\": 10}", "{\"tokens\": 5}", "{\"bytes\": {\"train\": -1, \"val\": 2}}",
                            "{\"bytes\": {\"train\": 1, \"val\": 0.5}}" };
    make("broken");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        DatasetInfo info;
        write_bytes(at("broken/dataset.json"), texts[i], strlen(texts[i]));
        if (dataset_info_read(&info, at("broken/train.bin"), error)) fail_msg("accepted: %s", texts[i]);
        assert_non_null(strstr(error, "broken/dataset.json"));
        assert_true(!info.tokenizer && !info.directory && info.vocab_size == 0);
    }
}

static void test_bits_per_byte(void **state) {
    (void)state;
    DatasetInfo info = { .tokens = { 1000, 400 }, .bytes = { 2500, 1200 } }, silent = { .tokens = { 1000, 400 } };
    assert_true(dataset_bytes_per_token(&info, 400) == 3);
    assert_true(dataset_bytes_per_token(&info, 1000) == 2.5);
    assert_true(dataset_bytes_per_token(&info, 399) == 0);      /* some of the shards, or other ones */
    assert_true(dataset_bytes_per_token(&silent, 400) == 0);
    assert_true(dataset_bytes_per_token(&(DatasetInfo){ 0 }, 0) == 0);
    /* A model that gives every one of 256 bytes the same probability: 8 bits a byte, however many bytes are a token. */
    assert_true(fabs(bits_per_byte(log(256), 1) - 8) < 1e-12);
    assert_true(fabs(bits_per_byte(3 * log(256), 3) - 8) < 1e-12);
    assert_true(bits_per_byte(2, 0) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dataset_info),
        cmocka_unit_test(test_broken_dataset_info_is_refused),
        cmocka_unit_test(test_bits_per_byte),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
