/* bpe_others_test.c: vocabularies of other pre-tokenisations than GPT-2's (dev/tokenizer/others.py): the tokens that tokenizers gives, whole
   and in pieces, what they decode to, and the same again after they were written. */
#include "bpe_parts.h"
#include "directory_test.h"
#include "error.h"
#include "expected_test.h"
#include "nfc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const char *const directories[] = { "dev/tokenizer/llama3", "dev/tokenizer/qwen2", "dev/tokenizer/smollm" };
enum { VOCABULARIES = sizeof directories / sizeof *directories };

static Bpe *opened(const char *path) {
    Bpe *bpe = bpe_open(path, error);
    if (!bpe) fail_msg("%s", error);
    return bpe;
}

/* NULL, and the test is not for this build, if it lacks a library. */
static BpeEncoder *encoder_of(const Bpe *bpe) {
    BpeEncoder *encoder = bpe_encoder_open(bpe, error);
    if (!encoder && !strstr(error, "was missing: install")) fail_msg("%s", error);
    if (!encoder) printf("skipped: %s\n", error);
    return encoder;
}

static const char *column_of(const char *line, int column) {
    while (column-- > 0) line = strchr(line, '\t') + 1;
    return line;
}

static void expect_decoded(const Bpe *bpe, const TokenBuffer *tokens, const char *text, size_t length) {
    size_t at = 0, size;
    for (int64_t i = 0; i < tokens->count; i++, at += size) {
        const char *bytes = bpe_token(bpe, tokens->tokens[i], &size);
        assert_true(bytes && at + size <= length);
        assert_memory_equal(bytes, text + at, size);
    }
    assert_int_equal(at, length);
}

/* Encoded in two parts at every place where it may be cut, however little was seen of what follows. */
static void expect_pieces(const Bpe *bpe, BpeEncoder *encoder, const char *line, const char *text, size_t length, bool specials,
                          const TokenBuffer *whole) {
    size_t last = 0;
    for (size_t seen = 1; seen <= length && length < 500; seen++) {
        TokenBuffer out = { 0 };
        size_t cut = bpe_cut(bpe, text, seen, specials);
        if (cut == last || cut == 0) continue;
        last = cut;
        bpe_encode(encoder, text, cut, specials, &out);
        bpe_encode(encoder, text + cut, length - cut, specials, &out);
        expect_tokens(line, out.tokens, out.count, whole->tokens, whole->count);
        token_buffer_free(&out);
    }
}

static void expect_case(const Bpe *bpe, BpeEncoder *encoder, const char *line) {
    size_t length, normal_length;
    char *text = text_written(line, &length);
    const char *normal = column_of(line, 4);
    for (int letters = 0; letters < 2; letters++) {
        TokenBuffer expected = tokens_written(column_of(line, 2 + letters)), out = { 0 };
        bpe_encode(encoder, text, length, !letters, &out);
        expect_tokens(line, out.tokens, out.count, expected.tokens, expected.count);
        expect_pieces(bpe, encoder, line, text, length, !letters, &out);
        if (!bpe->rules.nfc) expect_decoded(bpe, &out, text, length);
        token_buffer_free(&expected);
        if (*normal != '-') {
            char *written = xprintf("1\t%s\t", normal), *decoded = text_written(written, &normal_length);
            expect_decoded(bpe, &out, decoded, normal_length);
            free(decoded);
            free(written);
        }
        token_buffer_free(&out);
    }
    free(text);
}

static void expect_cases(const Bpe *bpe, const char *path) {
    char *name = path_join(path, "expected.txt"), *file = file_read_text(name, 1 << 24, NULL, error), *save = NULL;
    BpeEncoder *encoder = encoder_of(bpe);
    size_t cases = 0;
    if (!file) fail_msg("%s", error);
    for (char *line = strtok_r(file, "\n", &save); encoder && line; line = strtok_r(NULL, "\n", &save), cases++) expect_case(bpe, encoder, line);
    assert_true(cases > 900 || !encoder);
    bpe_encoder_close(encoder);
    free(file);
    free(name);
}

static void test_tokens_as_tokenizers(void **state) {
    (void)state;
    for (int v = 0; v < VOCABULARIES; v++) {
        Bpe *bpe = opened(directories[v]);
        expect_cases(bpe, directories[v]);
        bpe_free(bpe);
    }
}

static void test_the_same_after_writing(void **state) {
    (void)state;
    for (int v = 0; v < VOCABULARIES; v++) {
        Bpe *bpe = opened(directories[v]), *again;
        if (!bpe_save(bpe, directory, error)) fail_msg("%s", error);
        again = opened(directory);
        assert_int_equal(bpe_first(again), bpe_first(bpe));
        assert_int_equal(bpe_vocab_size(again), bpe_vocab_size(bpe));
        expect_cases(again, directories[v]);
        bpe_free(again);
        bpe_free(bpe);
    }
}

static void test_first_tokens(void **state) {
    (void)state;
    Bpe *llama3 = opened("dev/tokenizer/llama3"), *qwen2 = opened("dev/tokenizer/qwen2");
    assert_int_equal(bpe_first(llama3), bpe_special(llama3, "<|begin_of_text|>"));
    assert_true(bpe_first(llama3) > 0);
    assert_int_equal(bpe_first(qwen2), -1);
    assert_true(bpe_special(qwen2, "<think>") > 0);
    bpe_free(llama3);
    bpe_free(qwen2);
}

/* The same numbers on every run (Marsaglia 2003, xorshift64). */
static uint64_t random_state;
static uint64_t random_number(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* Marks, what they join, what stands for other characters, white space, half characters, and tokens in parts. */
static const char *const pieces[] = { "a", "e", "7", " ", "\n", "\r", "!", "'S", "<", "<|", "im_start", "|>", "eot_id", "=", "->", "\u0301", "\u0323",
                                      "\u0338", "\u212a", "\u037e", "\u2000", "\u3000", "\u1100", "\u1161", "\u11a8", "\u09c7", "\u09be", "\u6f22",
                                      "\xe3\x80", "\xff", "\xcc", "\u0664", "\u3002\n", "<|im_end|>", "<think>" };
enum { PIECES = sizeof pieces / sizeof *pieces };

static size_t random_text(char text[256]) {
    int count = 1 + (int)(random_number() % 16);
    *text = 0;
    for (int i = 0; i < count; i++) strcat(text, pieces[random_number() % PIECES]);
    return strlen(text);
}

static void test_pieces_of_any_text(void **state) {
    (void)state;
    for (int v = 0; v < VOCABULARIES; v++) {
        Bpe *bpe = opened(directories[v]);
        BpeEncoder *encoder = encoder_of(bpe);
        random_state = 7;
        for (int i = 0; encoder && i < 6000; i++) {
            char text[256];
            size_t length = random_text(text);
            TokenBuffer whole = { 0 };
            bpe_encode(encoder, text, length, i & 1, &whole);
            expect_pieces(bpe, encoder, text, text, length, i & 1, &whole);
            if (!bpe->rules.nfc) expect_decoded(bpe, &whole, text, length);
            token_buffer_free(&whole);
        }
        bpe_encoder_close(encoder);
        bpe_free(bpe);
    }
}

static void expect_same_normal_form(const char *text, size_t length, size_t cut) {
    ByteBuffer buffer = { 0 }, parts = { 0 };
    size_t left = cut, right = length - cut;
    const char *bytes = nfc(text, &left, &buffer);
    byte_buffer_append(&parts, bytes, left);
    bytes = nfc(text + cut, &right, &buffer);
    byte_buffer_append(&parts, bytes, right);
    bytes = nfc(text, &length, &buffer);
    if (length != parts.count || memcmp(bytes, parts.bytes, length) != 0)
        fail_msg("'%s' cut behind %zu bytes: '%.*s'", text, cut, (int)length, bytes);
    byte_buffer_free(&parts);
    byte_buffer_free(&buffer);
}

/* Wherever pre-tokens may be cut, in every way. */
static void test_normal_forms_of_pieces(void **state) {
    (void)state;
    if (!nfc_available(error)) skip();
    random_state = 8;
    for (int i = 0; i < 20000; i++) {
        char text[256];
        size_t length = random_text(text), last = 0;
        Pretokenization kind = i % PRETOKENIZATIONS;
        for (size_t seen = 1; seen <= length; seen++) {
            size_t cut = pretoken_cut(&kind, text, seen);
            if (cut > last) expect_same_normal_form(text, length, cut);
            last = cut;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_as_tokenizers),
        cmocka_unit_test(test_the_same_after_writing),
        cmocka_unit_test(test_first_tokens),
        cmocka_unit_test(test_pieces_of_any_text),
        cmocka_unit_test(test_normal_forms_of_pieces),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
