/* tokenizer_test.c: character vocabularies: UTF-8, round trips, files, and every refusal; byte pairs behind the same calls. */
#include "tokenizer.h"
#include "directory_test.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Tokenizer *tokenizer_of(const char *text) {
    Tokenizer *tokenizer = tokenizer_of_characters(text, strlen(text), error);
    if (!tokenizer) fail_msg("%s", error);
    return tokenizer;
}

static void write_vocabulary(const char *text) {
    char *path = path_join(directory, "characters.json");
    FileWriter *file = file_create(path);
    file_write(file, text, strlen(text));
    assert_true(file_close(file, NULL, error));
    free(path);
}

static void expect_error(const char *phrase) {
    if (!strstr(error, phrase)) fail_msg("no \"%s\" in: %s", phrase, error);
}

static void expect_round_trip(const Tokenizer *tokenizer, const char *text) {
    int64_t count;
    size_t at = 0, size;
    int32_t *tokens = tokenizer_encode(tokenizer, text, strlen(text), &count, error);
    if (!tokens) fail_msg("%s", error);
    for (int64_t i = 0; i < count; i++) {
        const char *bytes = tokenizer_token(tokenizer, tokens[i], &size);
        assert_non_null(bytes);
        assert_true(at + size <= strlen(text));
        assert_memory_equal(bytes, text + at, size);
        at += size;
    }
    assert_int_equal(at, strlen(text));
    free(tokens);
}

/* One, two, three and four bytes a character, with the first and last code point of each length. */
static const char every_length[] = "\x01 a\n\x7F \xC2\x80\u00e9\u07ff \u0800\u20ac\ud7ff\ue000\uffff \U00010000\U0001F600\U0010FFFF";

static void test_vocabulary_is_sorted(void **state) {
    (void)state;
    Tokenizer *tokenizer = tokenizer_of("b\u20acab\na\u00e9");
    const char *expected[] = { "\n", "a", "b", "\u00e9", "\u20ac" };
    size_t size;
    assert_int_equal(tokenizer_vocab_size(tokenizer), 5);
    for (int i = 0; i < 5; i++) assert_string_equal(tokenizer_token(tokenizer, i, &size), expected[i]);
    assert_int_equal(size, 3);
    assert_null(tokenizer_token(tokenizer, 5, &size));
    assert_null(tokenizer_token(tokenizer, -1, &size));
    assert_string_equal(tokenizer_kind(tokenizer), "characters");
    assert_int_equal(tokenizer_end_of_text(tokenizer), -1);
    tokenizer_free(tokenizer);
}

static void test_round_trips(void **state) {
    (void)state;
    Tokenizer *tokenizer = tokenizer_of(every_length);
    int64_t count;
    assert_int_equal(tokenizer_vocab_size(tokenizer), 16);
    expect_round_trip(tokenizer, every_length);
    expect_round_trip(tokenizer, "\U0001F600a\u20ac\u20ac");
    int32_t *tokens = tokenizer_encode(tokenizer, "", 0, &count, error);
    assert_non_null(tokens);
    assert_int_equal(count, 0);
    free(tokens);
    tokens = tokenizer_encode(tokenizer, "\n\U0010FFFF\x01", 6, &count, error);
    assert_int_equal(count, 3);
    assert_true(tokens[0] == 1 && tokens[1] == 15 && tokens[2] == 0);
    free(tokens);
    tokenizer_free(tokenizer);
}

static void test_saved_and_opened(void **state) {
    (void)state;
    Tokenizer *tokenizer = tokenizer_of(every_length), *opened;
    char *copy = path_join(directory, "copy");
    Tokenizer *quotes = tokenizer_of("\"\\/\t\r\n");
    assert_true(directory_create(copy, error));
    assert_true(tokenizer_copy(copy, directory, error));   /* nothing there is no error */
    assert_true(tokenizer_save(tokenizer, directory, error));
    assert_true(tokenizer_copy(directory, copy, error));
    opened = tokenizer_open(copy, error);
    if (!opened) fail_msg("%s", error);
    assert_int_equal(tokenizer_vocab_size(opened), tokenizer_vocab_size(tokenizer));
    for (int i = 0; i < 16; i++) {
        size_t size;
        assert_string_equal(tokenizer_token(opened, i, &size), tokenizer_token(tokenizer, i, &size));
    }
    expect_round_trip(opened, every_length);
    tokenizer_free(opened);
    assert_true(tokenizer_save(quotes, directory, error));
    opened = tokenizer_open(directory, error);
    assert_non_null(opened);
    expect_round_trip(opened, "\\\"\"/\r\n\t");
    tokenizer_free(opened);
    tokenizer_free(quotes);
    tokenizer_free(tokenizer);
    free(copy);
}

static void test_order_of_the_file_is_kept(void **state) {
    (void)state;
    int64_t count;
    write_vocabulary("{\"characters\": [\"z\", \"\\u00e9\", \"a\", \"\\ud83d\\ude00\"], \"type\": \"characters\"}");
    Tokenizer *tokenizer = tokenizer_open(directory, error);
    assert_non_null(tokenizer);
    int32_t *tokens = tokenizer_encode(tokenizer, "az\u00e9\U0001F600", 8, &count, error);
    assert_int_equal(count, 4);
    assert_true(tokens[0] == 2 && tokens[1] == 0 && tokens[2] == 1 && tokens[3] == 3);
    free(tokens);
    tokenizer_free(tokenizer);
}

static void test_unknown_characters_are_named(void **state) {
    (void)state;
    Tokenizer *tokenizer = tokenizer_of("abc\n\u00e9");
    int64_t count;
    assert_null(tokenizer_encode(tokenizer, "ab\nc\u00e9\u20aca", 9, &count, error));
    expect_error("line 2, character 3: '\u20ac' (U+20AC)");
    expect_error("5 characters");
    assert_null(tokenizer_encode(tokenizer, "a\tb", 3, &count, error));
    expect_error("line 1, character 2: (U+0009)");
    tokenizer_free(tokenizer);
}

static void test_text_that_is_not_utf8_is_refused(void **state) {
    (void)state;
    static const struct { const char *bytes; size_t length; } bad[] = {
        { "\x80", 1 }, { "\xBF", 1 }, { "\xC3", 1 }, { "\xC3\x28", 2 }, { "\xE2\x82", 2 }, { "\xE2\x28\xA1", 3 }, { "\xF0\x9F\x98", 3 },
        { "\xC0\xAF", 2 }, { "\xC1\xBF", 2 }, { "\xE0\x9F\xBF", 3 }, { "\xF0\x8F\xBF\xBF", 4 },   /* overlong */
        { "\xED\xA0\x80", 3 }, { "\xED\xBF\xBF", 3 },                                             /* surrogates */
        { "\xF4\x90\x80\x80", 4 }, { "\xF8\x88\x80\x80\x80", 5 }, { "\xFE", 1 }, { "\xFF", 1 } };
    Tokenizer *tokenizer = tokenizer_of("ab\n");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        /* In memory that ends where the text ends, so that AddressSanitizer sees a read beyond it. */
        size_t length = 4 + bad[i].length;
        int64_t count;
        char *text = xmalloc(length);
        memcpy(text, "a\n\nb", 4);
        memcpy(text + 4, bad[i].bytes, bad[i].length);
        error[0] = 0;
        assert_null(tokenizer_of_characters(text, length, error));
        expect_error("line 3, character 2 (byte 4)");
        error[0] = 0;
        assert_null(tokenizer_encode(tokenizer, text, length, &count, error));
        expect_error("is not UTF-8");
        free(text);
    }
    tokenizer_free(tokenizer);
}

static void test_empty_and_nul_texts_are_refused(void **state) {
    (void)state;
    assert_null(tokenizer_of_characters("", 0, error));
    expect_error("empty");
    assert_null(tokenizer_of_characters("a\0b", 3, error));
    expect_error("NUL");
}

static void test_broken_vocabularies_are_refused(void **state) {
    (void)state;
    static const struct { const char *text, *phrase; } bad[] = {
        { "", "broken" },
        { "{\"type\": \"characters\", \"characters\": [\"a\"", "broken" },
        { "[]", "no character vocabulary" },
        { "{\"characters\": [\"a\"]}", "no character vocabulary" },
        { "{\"type\": \"bpe\", \"characters\": [\"a\"]}", "no character vocabulary" },
        { "{\"type\": \"characters\", \"characters\": \"abc\"}", "no character vocabulary" },
        { "{\"type\": \"characters\", \"characters\": []}", "no character vocabulary" },
        { "{\"type\": \"characters\", \"characters\": [\"a\", \"bc\"]}", "entry 1 of characters is not one character" },
        { "{\"type\": \"characters\", \"characters\": [\"\"]}", "entry 0 of characters is not one character" },
        { "{\"type\": \"characters\", \"characters\": [\"a\", \"b\", 7]}", "entry 2 of characters is not one character" },
        { "{\"type\": \"characters\", \"characters\": [\"a\", \"b\", \"a\"]}", "entries 0 and 2 of characters are the same" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_vocabulary(bad[i].text);
        error[0] = 0;
        if (tokenizer_open(directory, error)) fail_msg("accepted: %s", bad[i].text);
        expect_error(bad[i].phrase);
        expect_error("characters.json");
    }
    assert_null(tokenizer_open("no such directory", error));
    expect_error("no vocabulary in 'no such directory'");
}

static void test_saving_where_it_cannot_be(void **state) {
    (void)state;
    Tokenizer *tokenizer = tokenizer_of("ab");
    assert_false(tokenizer_save(tokenizer, "no such directory", error));
    expect_error("no such directory");
    tokenizer_free(tokenizer);
}

/* The small vocabulary behind the same calls; its files go where a checkpoint goes. */
static void test_byte_pairs(void **state) {
    (void)state;
    static const char *const names[] = { "tokenizer.json", "vocab.json", "merges.txt" };
    char *copy = path_join(directory, "byte_pairs");
    int64_t count;
    size_t size;
    assert_true(directory_create(copy, error) && tokenizer_copy("dev/tokenizer/small", copy, error));
    for (int i = 0; i < 3; i++) {
        char *path = path_join(copy, names[i]);
        assert_true(path_exists(path));
        free(path);
    }
    Tokenizer *tokenizer = tokenizer_open(copy, error);
    if (!tokenizer) fail_msg("%s", error);
    assert_string_equal(tokenizer_kind(tokenizer), "bpe");
    assert_int_equal(tokenizer_vocab_size(tokenizer), 2000);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 0);
    assert_string_equal(tokenizer_token(tokenizer, 0, &size), "<|endoftext|>");
    assert_null(tokenizer_token(tokenizer, 2000, &size));
    assert_true(tokenizer_save(tokenizer, copy, error));
    int32_t *tokens = tokenizer_encode(tokenizer, "the<|endoftext|>", 16, &count, error);
    if (tokens) {
        assert_int_equal(tokens[count - 1], 0);
        expect_round_trip(tokenizer, "the <|endoftext|> caf\u00e9\xff\xe2\x82");
        free(tokenizer_encode(tokenizer, "", 0, &count, error));
        assert_int_equal(count, 0);
    } else {
        expect_error("PCRE2");
    }
    free(tokens);
    tokenizer_free(tokenizer);
    free(copy);
}

static void write_json(const char *name, const char *text) {
    assert_true(file_write_text(directory, name, text, strlen(text), error));
}

/* What a model's directory has beside a vocabulary says which tokens end a text: a list, one token, or nothing. */
static void test_ends_of_texts(void **state) {
    (void)state;
    static const struct { const char *generation, *config; int ends[3]; } cases[] = {
        { "{\"eos_token_id\": [5, 7]}", "{\"eos_token_id\": 6}", { 1, 0, 1 } },
        { "{\"eos_token_id\": 6}", "{}", { 0, 1, 0 } },
        { "{\"eos_token_id\": null}", "{\"eos_token_id\": 7}", { 0, 0, 1 } },
        { "{", "[]", { 0, 0, 0 } },
    };
    char *path = path_join(directory, "characters.json");
    unlink(path);
    free(path);
    assert_true(tokenizer_copy("dev/tokenizer/llama3", directory, error));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_json("generation_config.json", cases[i].generation);
        write_json("config.json", cases[i].config);
        Tokenizer *tokenizer = tokenizer_open(directory, error);
        if (!tokenizer) fail_msg("%s", error);
        for (int token = 5; token <= 7; token++) assert_int_equal(tokenizer_ends_text(tokenizer, token), cases[i].ends[token - 5]);
        assert_true(tokenizer_ends_text(tokenizer, bpe_special(tokenizer_bpe(tokenizer), "<|end_of_text|>")));
        tokenizer_free(tokenizer);
    }
}

/* Llama 3's first token goes before a prompt, as add_special_tokens has it, and before nothing else. */
static void test_prompts(void **state) {
    (void)state;
    Tokenizer *tokenizer = tokenizer_open("dev/tokenizer/llama3", error);
    int64_t count, prompt_count;
    if (!tokenizer) fail_msg("%s", error);
    int32_t first = tokenizer_begin_of_text(tokenizer), *tokens = tokenizer_encode(tokenizer, "the fox", 7, &count, error);
    int32_t *prompt = tokenizer_encode_prompt(tokenizer, "the fox", 7, &prompt_count, error);
    assert_int_equal(first, bpe_special(tokenizer_bpe(tokenizer), "<|begin_of_text|>"));
    if (tokens) {
        assert_int_equal(prompt_count, count + 1);
        assert_int_equal(prompt[0], first);
        assert_memory_equal(prompt + 1, tokens, (size_t)count * sizeof *tokens);
    }
    free(tokens);
    free(prompt);
    tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary_is_sorted),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_saved_and_opened),
        cmocka_unit_test(test_order_of_the_file_is_kept),
        cmocka_unit_test(test_unknown_characters_are_named),
        cmocka_unit_test(test_text_that_is_not_utf8_is_refused),
        cmocka_unit_test(test_empty_and_nul_texts_are_refused),
        cmocka_unit_test(test_broken_vocabularies_are_refused),
        cmocka_unit_test(test_saving_where_it_cannot_be),
        cmocka_unit_test(test_byte_pairs),
        cmocka_unit_test(test_ends_of_texts),
        cmocka_unit_test(test_prompts),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
