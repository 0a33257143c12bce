/* bpe_test.c: byte-pair encoding: tokens that tokenizers and tiktoken give (dev/tokenizer), merging against a slow reference, any bytes,
   time, special tokens, files written and read again, and every refusal. */
#include "bpe_parts.h"
#include "directory_test.h"
#include "error.h"
#include "expected_test.h"
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool can_encode;      /* this build has PCRE2 */

/* The same numbers on every run (Marsaglia 2003, xorshift64). */
static uint64_t random_state;
static uint64_t random_number(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static BpeEncoder *encoder_of(const Bpe *bpe) {
    BpeEncoder *encoder = bpe_encoder_open(bpe, error);
    if (!encoder) fail_msg("%s", error);
    return encoder;
}

static Bpe *opened(const char *path) {
    Bpe *bpe = bpe_open(path, error);
    if (!bpe) fail_msg("%s", error);
    return bpe;
}

static void expect_round_trip(const Bpe *bpe, BpeEncoder *encoder, const char *text, size_t length, bool specials) {
    TokenBuffer out = { 0 };
    size_t at = 0, size;
    bpe_encode(encoder, text, length, specials, &out);
    for (int64_t i = 0; i < out.count; i++, at += size) {
        const char *bytes = bpe_token(bpe, out.tokens[i], &size);
        assert_non_null(bytes);
        assert_true(at + size <= length);
        assert_memory_equal(bytes, text + at, size);
    }
    assert_int_equal(at, length);
    token_buffer_free(&out);
}

/* ---- The tokens of other tools ---- */

/* GPT-2's letters: each byte's own, and in the order that GPT-2 has. */
static void test_letters_of_bytes(void **state) {
    (void)state;
    int32_t next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte, *letter = bpe_spell(&c, 1);
        size_t length, size;
        int32_t code = utf8_decode(letter, strlen(letter), &size);
        char *back = bpe_unspell(letter, &length);
        assert_int_equal(code, code < 0x100 ? byte : next++);
        assert_true(back && length == 1 && *back == c);
        free(letter);
        free(back);
    }
    assert_int_equal(next, 0x100 + 68);
    size_t length;
    assert_null(bpe_unspell("a b", &length));
    assert_null(bpe_unspell("\u0144", &length));
    assert_null(bpe_unspell("\xff", &length));
}

/* Every line of dev/tokenizer/expected.txt, in that column. */
static void expect_column(const Bpe *bpe, int column) {
    BpeEncoder *encoder = encoder_of(bpe);
    size_t length, cases = 0;
    char *file = file_read_text("dev/tokenizer/expected.txt", 1 << 24, NULL, error), *save = NULL;
    if (!file) fail_msg("%s", error);
    for (char *line = strtok_r(file, "\n", &save); line; line = strtok_r(NULL, "\n", &save), cases++) {
        char *text = text_written(line, &length);
        const char *written = line;
        for (int i = 0; i < column; i++) written = strchr(written, '\t') + 1;
        TokenBuffer expected = tokens_written(written), out = { 0 };
        bpe_encode(encoder, text, length, true, &out);
        expect_tokens(line, out.tokens, out.count, expected.tokens, expected.count);
        expect_round_trip(bpe, encoder, text, length, true);
        token_buffer_free(&expected);
        token_buffer_free(&out);
        free(text);
    }
    assert_true(cases > 1500);
    free(file);
    bpe_encoder_close(encoder);
}

/* vocab.json and merges.txt under other names. */
static Bpe *opened_files(const char *vocab_path, const char *merges_path) {
    size_t vocab_length, merges_length;
    char *vocab = file_read_text(vocab_path, 1 << 24, &vocab_length, error);
    char *merges = file_read_text(merges_path, 1 << 24, &merges_length, error);
    assert_true(vocab && merges);
    Bpe *bpe = bpe_of_vocabulary(vocab, vocab_length, "vocab.json", merges, merges_length, "merges.txt", error);
    if (!bpe) fail_msg("%s", error);
    free(vocab);
    free(merges);
    return bpe;
}

static void test_small_vocabulary_as_tokenizers(void **state) {
    (void)state;
    if (!can_encode) skip();
    Bpe *bpe = opened("dev/tokenizer/small"), *files = opened_files("dev/tokenizer/small/vocab.json", "dev/tokenizer/small/merges.txt");
    assert_int_equal(bpe_vocab_size(bpe), 2000);
    assert_int_equal(bpe_special(bpe, "<|endoftext|>"), 0);
    assert_int_equal(bpe_special(files, "<|endoftext|>"), 0);
    expect_column(bpe, 2);
    expect_column(files, 2);
    bpe_free(bpe);
    bpe_free(files);
}

static void test_gpt2_as_tokenizers_and_tiktoken(void **state) {
    (void)state;
    static const char vocab[] = "../shared/data/gpt2_vocab.json", merges[] = "../shared/data/gpt2_merges.txt";
    if (!path_exists(vocab) || !path_exists(merges)) printf("skipped: GPT-2's vocabulary is not here (%s and %s)\n", vocab, merges);
    if (!can_encode || !path_exists(vocab) || !path_exists(merges)) skip();
    Bpe *bpe = opened_files(vocab, merges);
    assert_int_equal(bpe_vocab_size(bpe), 50257);
    assert_int_equal(bpe_special(bpe, "<|endoftext|>"), 50256);
    expect_column(bpe, 3);
    bpe_free(bpe);
}

/* ---- Merging ---- */

/* Merges as they are defined: the first merge in the list that applies anywhere, at the leftmost place, again and again. */
static int64_t merge_slowly(const Bpe *bpe, const char *word, size_t length, int32_t *tokens) {
    int64_t count = (int64_t)length, rank = 0, at;
    for (size_t i = 0; i < length; i++) tokens[i] = bpe->of_byte[(unsigned char)word[i]];
    while (rank < bpe->merge_count) {
        BpeMerge merge = bpe->merges[rank++];
        for (at = 0; at + 1 < count && (tokens[at] != merge.left || tokens[at + 1] != merge.right);) at++;
        if (at + 1 >= count) continue;
        tokens[at] = merge.token;
        memmove(tokens + at + 1, tokens + at + 2, (count - at - 2) * sizeof *tokens);
        count--;
        rank = 0;
    }
    return count;
}

/* The token of those letters among the first count, or -1. */
static int token_of(const BpeToken *tokens, int count, const char *letters, size_t length) {
    int token = count - 1;
    while (token >= 0 && (tokens[token].length != length || memcmp(tokens[token].bytes, letters, length) != 0)) token--;
    return token;
}

/* Two tokens to merge: any two, one twice, or two that together are one already. */
static void random_pair(const BpeToken *tokens, int count, int *left, int *right) {
    int choice = random_number() % 3, both = random_number() % (count - 254);
    *left = random_number() % (count - 254);
    *left += *left < 2 ? 'a' : 254;
    *right = random_number() % (count - 254);
    *right = choice == 1 ? *left : *right + (*right < 2 ? 'a' : 254);
    if (choice < 2 || both < 2) return;
    const BpeToken *token = &tokens[254 + both];
    size_t place = 1 + random_number() % (token->length - 1);
    int first = token_of(tokens, count, token->bytes, place), second = token_of(tokens, count, token->bytes + place, token->length - place);
    if (first >= 0 && second >= 0) *left = first, *right = second;
}

/* Merges of the letters a and b, in any order: a merge may come before those that make its tokens, and two may make the same token. */
static Bpe *random_vocabulary(void) {
    enum { MERGES = 30, LONGEST = 12 };
    BpeToken *tokens = xcalloc(256 + MERGES, sizeof *tokens);
    BpeMerge *merges = xcalloc(MERGES, sizeof *merges);
    int count = 256, merge_count = 0;
    for (int byte = 0; byte < 256; byte++) tokens[byte] = (BpeToken){ xprintf("%c", byte), 1 };
    for (int i = 0; i < MERGES; i++) {
        int left, right;
        random_pair(tokens, count, &left, &right);
        char *bytes = xprintf("%s%s", tokens[left].bytes, tokens[right].bytes);
        int token = token_of(tokens, count, bytes, strlen(bytes));
        bool taken = strlen(bytes) <= LONGEST;
        for (int k = 0; k < merge_count; k++) taken &= merges[k].left != left || merges[k].right != right;
        if (taken && token < 0) tokens[token = count++] = (BpeToken){ xstrdup(bytes), strlen(bytes) };
        if (taken) merges[merge_count++] = (BpeMerge){ left, right, token };
        free(bytes);
    }
    for (int i = merge_count - 1; i > 0; i--) {
        int other = random_number() % (i + 1);
        BpeMerge swapped = merges[i];
        merges[i] = merges[other];
        merges[other] = swapped;
    }
    Bpe *bpe = bpe_assemble(tokens, count, merges, merge_count, "random", error);
    if (!bpe) fail_msg("%s", error);
    return bpe;
}

static void test_merging_as_defined(void **state) {
    (void)state;
    if (!can_encode) skip();
    random_state = 1;
    for (int i = 0; i < 150; i++) {
        Bpe *bpe = random_vocabulary();
        BpeEncoder *encoder = encoder_of(bpe);
        for (int k = 0; k < 60; k++) {
            char word[400];
            int32_t expected[400];
            size_t length = k < 20 ? 1 + random_number() % 12 : k < 40 ? 1 + random_number() % 130 : 125 + random_number() % 275;
            unsigned rare = 1 + random_number() % 4;
            for (size_t at = 0; at < length; at++) word[at] = 'a' + (random_number() % (rare + 1) == 0);
            int64_t count = merge_slowly(bpe, word, length, expected);
            for (int again = 0; again < 2; again++) {
                TokenBuffer out = { 0 };
                bpe_encode(encoder, word, length, false, &out);
                expect_tokens("random", out.tokens, out.count, expected, count);
                token_buffer_free(&out);
            }
        }
        bpe_encoder_close(encoder);
        bpe_free(bpe);
    }
}

/* More different words than are remembered, each more than once. */
static void test_many_words(void **state) {
    (void)state;
    if (!can_encode) skip();
    enum { WORDS = 200000 };
    Bpe *bpe = opened("dev/tokenizer/small");
    BpeEncoder *encoder = encoder_of(bpe);
    char *text = xmalloc(WORDS * 12), *at = text;
    int32_t expected[12];
    TokenBuffer all = { 0 };
    random_state = 3;
    for (int i = 0; i < WORDS; i++) {
        int length = 1 + random_number() % 8;
        *at++ = ' ';
        while (length-- > 0) *at++ = "etaoinsh"[random_number() % 8];
    }
    bpe_encode(encoder, text, at - text, false, &all);
    const int32_t *next = all.tokens;
    for (char *word = text, *end; word < at; word = end) {
        for (end = word + 1; end < at && *end != ' ';) end++;
        if ((end - text) % 16) {   /* the reference is slow: some only, but in step */
            for (size_t size, left = end - word; left > 0; left -= size) assert_non_null(bpe_token(bpe, *next++, &size));
            continue;
        }
        int64_t count = merge_slowly(bpe, word, end - word, expected);
        expect_tokens(word, next, count, expected, count);
        next += count;
    }
    assert_true(next == all.tokens + all.count);
    token_buffer_free(&all);
    free(text);
    bpe_encoder_close(encoder);
    bpe_free(bpe);
}

static void test_any_bytes_come_back(void **state) {
    (void)state;
    if (!can_encode) skip();
    Bpe *bpe = opened("dev/tokenizer/small");
    BpeEncoder *encoder = encoder_of(bpe);
    static const char special[] = "\xff\xc3\xe2\x82 \xf0\x9f\x98\x80\x80<|endoftext|>\0\xed\xa0\x80";
    random_state = 4;
    for (int i = 0; i < 3000; i++) {
        size_t length = random_number() % 300;
        char *text = xmalloc(length);   /* of exactly this size, so that a sanitizer sees its end */
        unsigned mask = i % 3 ? 0xFF : 0x7F;
        for (size_t k = 0; k < length; k++) text[k] = (char)(random_number() & mask);
        expect_round_trip(bpe, encoder, text, length, i & 1);
        free(text);
    }
    expect_round_trip(bpe, encoder, special, sizeof special - 1, true);
    bpe_encoder_close(encoder);
    bpe_free(bpe);
}

static double seconds_of(BpeEncoder *encoder, const char *text, size_t length) {
    TokenBuffer out = { 0 };
    clock_t start = clock();
    bpe_encode(encoder, text, length, false, &out);
    token_buffer_free(&out);
    return (double)(clock() - start) / CLOCKS_PER_SEC;
}

/* Words of 250,000 bytes and of 2 million: eight times the time, if it is linear; 64 times if it were quadratic. */
static void test_long_words_take_linear_time(void **state) {
    (void)state;
    if (!can_encode) skip();
    static const char *const letters[] = { "a", "ab", "etaoinshrdlu", "abcdefghijklmnopqrstuvwxyz" };
    enum { PART = 250000, WHOLE = 2000000 };
    Bpe *bpe = opened("dev/tokenizer/small");
    BpeEncoder *encoder = encoder_of(bpe);
    char *text = xmalloc(WHOLE);
    random_state = 5;
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++) {
        for (size_t k = 0; k < WHOLE; k++) text[k] = letters[i][random_number() % strlen(letters[i])];
        double part = seconds_of(encoder, text, PART), whole = seconds_of(encoder, text, WHOLE);
        if (!(whole < 30 * part + 0.5)) fail_msg("'%s': %.2f s, and %.2f s for eight times as much", letters[i], part, whole);
    }
    free(text);
    bpe_encoder_close(encoder);
    bpe_free(bpe);
}

/* ---- Made, saved, and read again ---- */

/* Tokens 256 "he", 257 "ll", 258 "hell", 259 " hell", 260 "hello", and 261 " hello" by two merges: of " " and "hello", of " hell" and "o".
   */
static const BpeMerge hello[] = { { 'h', 'e', 256 }, { 'l', 'l', 257 }, { 256, 257, 258 }, { ' ', 258, 259 }, { 258, 'o', 260 },
                                  { ' ', 260, 261 }, { 259, 'o', 261 } };
enum { HELLO_MERGES = sizeof hello / sizeof *hello };

static Bpe *hello_vocabulary(const char *const *specials, int count) {
    Bpe *bpe = bpe_create(hello, HELLO_MERGES, specials, count, error);
    if (!bpe) fail_msg("%s", error);
    return bpe;
}

static void expect_encoding(const Bpe *bpe, const char *text, bool specials, const int32_t *expected, int64_t count) {
    BpeEncoder *encoder = encoder_of(bpe);
    TokenBuffer out = { 0 };
    bpe_encode(encoder, text, strlen(text), specials, &out);
    expect_tokens(text, out.tokens, out.count, expected, count);
    token_buffer_free(&out);
    bpe_encoder_close(encoder);
}
#define EXPECT(bpe, text, specials, ...) \
    expect_encoding(bpe, text, specials, (int32_t[]){ __VA_ARGS__ }, sizeof (int32_t[]){ __VA_ARGS__ } / sizeof(int32_t))

static void test_created(void **state) {
    (void)state;
    Bpe *bpe = hello_vocabulary((const char *[]){ "<|endoftext|>", "<\u00e9 \u20ac>" }, 2);
    size_t length;
    assert_int_equal(bpe_vocab_size(bpe), 264);
    assert_int_equal(bpe_special(bpe, "<|endoftext|>"), 262);
    assert_int_equal(bpe_special(bpe, "<\u00e9 \u20ac>"), 263);
    assert_int_equal(bpe_special(bpe, "hello"), -1);
    assert_string_equal(bpe_token(bpe, 261, &length), " hello");
    assert_int_equal(length, 6);
    assert_null(bpe_token(bpe, 264, &length));
    assert_null(bpe_token(bpe, -1, &length));
    if (can_encode) {
        EXPECT(bpe, "hello hello", false, 260, 261);
        EXPECT(bpe, "hell o", true, 258, ' ', 'o');
        EXPECT(bpe, "hello<|endoftext|> hello", true, 260, 262, 261);
    }
    bpe_free(bpe);
}

static void expect_same_vocabulary(const Bpe *a, const Bpe *b) {
    assert_int_equal(bpe_vocab_size(a), bpe_vocab_size(b));
    assert_int_equal(a->merge_count, b->merge_count);
    assert_memory_equal(a->merges, b->merges, a->merge_count * sizeof *a->merges);
    for (int32_t i = 0; i < bpe_vocab_size(a); i++) {
        size_t a_length = 0, b_length = 0;
        const char *a_bytes = bpe_token(a, i, &a_length), *b_bytes = bpe_token(b, i, &b_length);
        assert_int_equal(a_length, b_length);
        if (a_bytes) assert_memory_equal(a_bytes, b_bytes, a_length);
        else assert_null(b_bytes);
    }
    assert_int_equal(a->specials.count, b->specials.count);
    for (int64_t i = 0; i < a->specials.count; i++) assert_int_equal(bpe_special(b, a->added[i].text), a->added[i].token);
}

/* Both ways to read what is in the directory give bpe. */
static void expect_saved(const Bpe *bpe) {
    char *tokenizer = path_join(directory, "tokenizer.json");
    Bpe *again = opened(directory);
    expect_same_vocabulary(bpe, again);
    bpe_free(again);
    assert_int_equal(unlink(tokenizer), 0);
    again = opened(directory);
    expect_same_vocabulary(bpe, again);
    bpe_free(again);
    free(tokenizer);
}

static void expect_saved_and_opened(const Bpe *bpe) {
    if (!bpe_save(bpe, directory, error)) fail_msg("%s", error);
    expect_saved(bpe);
}

static void test_saved_and_opened(void **state) {
    (void)state;
    Bpe *made = hello_vocabulary((const char *[]){ "<|endoftext|>", "<\u00e9 \"\\\n\u20ac>" }, 2), *small = opened("dev/tokenizer/small");
    assert_true(bpe_add_special(small, "<|pad|>", error));
    expect_saved_and_opened(made);
    expect_saved_and_opened(small);
    assert_false(bpe_save(made, "no such directory", error));
    bpe_free(made);
    bpe_free(small);
}

static void expect_error(const char *phrase) {
    if (!strstr(error, phrase)) fail_msg("no \"%s\" in: %s", phrase, error);
}

/* One of the three cannot be written: the older vocabulary stays, and nothing beside it. */
static void test_saved_whole_or_not_at_all(void **state) {
    (void)state;
    static const char *const names[] = { "vocab.json", "merges.txt", "tokenizer.json" };
    Bpe *old = hello_vocabulary(NULL, 0), *new = opened("dev/tokenizer/small");
    assert_true(bpe_save(old, directory, error));
    for (int i = 0; i < 3; i++) {
        char *name = xprintf("%s.tmp", names[i]), *in_the_way = path_join(directory, name);
        assert_true(directory_create(in_the_way, error));
        assert_false(bpe_save(new, directory, error));
        expect_error(names[i]);
        assert_int_equal(rmdir(in_the_way), 0);
        for (int k = 0; k < 3; k++) {
            char *other = xprintf("%s/%s.tmp", directory, names[k]);
            assert_false(path_exists(other));
            free(other);
        }
        free(name);
        free(in_the_way);
    }
    expect_saved(old);
    bpe_free(old);
    bpe_free(new);
}

static void test_special_tokens(void **state) {
    (void)state;
    Bpe *bpe = hello_vocabulary((const char *[]){ "<a>", "<a><b>", "hell" }, 3);
    assert_int_equal(bpe_vocab_size(bpe), 264);
    assert_int_equal(bpe_special(bpe, "hell"), 258);   /* it had a number */
    assert_true(bpe_add_special(bpe, "hell", error));
    assert_true(bpe_add_special(bpe, "o", error));
    assert_int_equal(bpe_special(bpe, "o"), 'o');
    assert_true(bpe_add_special(bpe, "<new>", error));
    assert_int_equal(bpe_special(bpe, "<new>"), 264);
    if (can_encode) {
        EXPECT(bpe, "<a><a><b><b>", true, 262, 263, '<', 'b', '>');   /* the longest at a place */
        EXPECT(bpe, "hellohello", true, 258, 'o', 258, 'o');          /* never part of a merge */
        EXPECT(bpe, " hello", true, ' ', 258, 'o');
        EXPECT(bpe, "<a> hello", false, '<', 'a', '>', 261);          /* but letters, if not asked for */
        EXPECT(bpe, "<a", true, '<', 'a');
    }
    bpe_free(bpe);
}

static void test_special_tokens_refused(void **state) {
    (void)state;
    Bpe *bpe = hello_vocabulary(NULL, 0);
    assert_false(bpe_add_special(bpe, "", error));
    expect_error("empty");
    assert_false(bpe_add_special(bpe, "\xff", error));
    expect_error("not UTF-8");
    assert_false(bpe_add_special(bpe, "\u0120hello", error));   /* GPT-2's letter for a space: the file would have it twice */
    expect_error("token 261");
    bpe_free(bpe);
    assert_null(bpe_create(hello, HELLO_MERGES, (const char *[]){ "a", "" }, 2, error));
    assert_null(bpe_create(NULL, 0, (const char *[]){ "\u0120\u0120" }, 1, error));   /* two spaces, though they are no token yet */
    expect_error("would be in the files what other bytes are");
}

static void test_cut(void **state) {
    (void)state;
    Bpe *bpe = hello_vocabulary((const char *[]){ "<a b>", "<a" }, 2);
    assert_int_equal(bpe_cut(bpe, "hello hello, you there", 22, false), 16);
    assert_int_equal(bpe_cut(bpe, "x <a b> y <a b", 14, false), 12);
    assert_int_equal(bpe_cut(bpe, "x yyyyyy <a b>", 14, true), 8);
    bpe_free(bpe);
}

/* ---- Files of others ---- */

/* {"a": 97, ...}: the 256 bytes, and more members. */
static char *vocab_text(const char *more) {
    char *text = NULL;
    size_t length;
    FILE *memory = open_memstream(&text, &length);
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte, *letter = bpe_spell(&c, 1);
        fprintf(memory, "%s\"%s%s\": %d", byte ? ", " : "{", *letter == '"' || *letter == '\\' ? "\\" : "", letter, byte);
        free(letter);
    }
    fprintf(memory, "%s}", more);
    fclose(memory);
    return text;
}

static Bpe *vocabulary_of(const char *vocab, const char *merges) {
    error[0] = 0;
    return bpe_of_vocabulary(vocab, strlen(vocab), "'vocab.json'", merges, strlen(merges), "'merges.txt'", error);
}

static void test_vocabularies_of_others(void **state) {
    (void)state;
    char *vocab = vocab_text(", \"<s>\": 300, \"\u0120h\": 299, \"\u00e9x y\": 301");
    Bpe *bpe = vocabulary_of(vocab, "#version: 0.2\r\n\u0120 h\r\n");
    size_t length;
    if (!bpe) fail_msg("%s", error);
    assert_int_equal(bpe_vocab_size(bpe), 302);
    assert_null(bpe_token(bpe, 256, &length));
    assert_string_equal(bpe_token(bpe, 299, &length), " h");
    assert_int_equal(bpe_special(bpe, "<s>"), 300);
    assert_string_equal(bpe_token(bpe, bpe_special(bpe, "\u00e9x y"), &length), "\u00e9x y");
    expect_saved_and_opened(bpe);
    bpe_free(bpe);
    bpe = vocabulary_of(vocab, "");
    assert_int_equal(bpe_special(bpe, "\u0120h"), 299);   /* nothing makes it, so it can only be special */
    bpe_free(bpe);
    free(vocab);
    vocab = vocab_text(", \" \": 299");   /* beside the letter that stands for a space: were it the byte too, a file would name it twice */
    bpe = vocabulary_of(vocab, "");
    assert_int_equal(bpe_special(bpe, " "), 299);
    expect_saved_and_opened(bpe);
    bpe_free(bpe);
    free(vocab);
}

static void test_broken_vocabularies_are_refused(void **state) {
    (void)state;
    static const struct { const char *more, *merges, *phrase; } bad[] = {
        { ", \"he\": 256", "h e\nh x\n", "'merges.txt', line 2: \"hx\" is not in the vocabulary" },
        { ", \"he\": 256", "#version: 0.2\nhe l\n", "'merges.txt', line 2: \"hel\" is not in the vocabulary" },
        { ", \"hel\": 256", "he l\n", "line 1: \"he\" is not in the vocabulary" },
        { ", \"hel\": 256", "h el\n", "line 1: \"el\" is not in the vocabulary" },
        { ", \"he\": 256", "h e\nh e\n", "'vocab.json': merges 1 and 2 are the same" },
        { ", \"he\": 256", "he\n", "found \"he\" where two tokens" },
        { ", \"he\": 256", "h e \n", "found \"h e \"" },
        { ", \"he\": 256", "h  e\n", "found \"h  e\"" },
        { ", \"he\": 256", "h e\n\n", "line 2: found \"\"" },
        { ", \"he\": 256, \"el\": 256", "", "the tokens \"he\" and \"el\" have the same number, 256" },
        { ", \"he\": 97", "", "the tokens \"a\" and \"he\" have the same number, 97" },
        { ", \"he\": -1", "", "the token \"he\" has no number from 0" },
        { ", \"he\": 256.5", "", "the token \"he\" has no number from 0" },
        { ", \"he\": \"256\"", "", "the token \"he\" has no number from 0" },
        { ", \"he\": 2097152", "", "the token \"he\" has no number from 0" },
        { ", \"\": 256", "", "an empty token" },
        { ", \"he\": 256, \"he\": 257", "", "the key \"he\" twice" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *vocab = vocab_text(bad[i].more);
        if (vocabulary_of(vocab, bad[i].merges)) fail_msg("accepted: %s and %s", bad[i].more, bad[i].merges);
        expect_error(bad[i].phrase);
        free(vocab);
    }
    char *small = file_read_text("dev/tokenizer/small/vocab.json", 1 << 20, NULL, error);   /* without its merges */
    assert_null(vocabulary_of(small, "#version: 0.2\n"));
    expect_error("'vocab.json' and 'merges.txt' do not belong together: no merge makes 1744 of the tokens");
    free(small);
    assert_null(vocabulary_of("{\"a\": 0}", ""));
    expect_error("no token of the byte 0x00");
    assert_null(vocabulary_of("[]", ""));
    expect_error("has no vocabulary");
    assert_null(vocabulary_of("{\"a\": 0", ""));
    expect_error("'vocab.json' is broken: line 1");
    char *vocab = vocab_text("");
    assert_null(bpe_of_vocabulary(vocab, strlen(vocab), "'vocab.json'", "a\0b c", 5, "'merges.txt'", error));
    expect_error("NUL");
    free(vocab);
}

static void write_file(const char *name, const char *text) {
    char *path = path_join(directory, name);
    FileWriter *file = file_create(path);
    file_write(file, text, strlen(text));
    assert_true(file_close(file, NULL, error));
    free(path);
}

static void delete_file(const char *name) {
    char *path = path_join(directory, name);
    unlink(path);
    free(path);
}

static void test_missing_files_are_named(void **state) {
    (void)state;
    char *vocab = vocab_text("");
    delete_file("tokenizer.json");
    delete_file("vocab.json");
    delete_file("merges.txt");
    assert_null(bpe_open(directory, error));
    expect_error("neither tokenizer.json, nor vocab.json and merges.txt");
    write_file("vocab.json", vocab);
    assert_null(bpe_open(directory, error));
    expect_error("merges.txt is missing beside vocab.json");
    delete_file("vocab.json");
    write_file("merges.txt", "");
    assert_null(bpe_open(directory, error));
    expect_error("vocab.json is missing beside merges.txt");
    write_file("vocab.json", "{}");
    assert_null(bpe_open(directory, error));
    expect_error("/vocab.json': there is no token of the byte 0x00");
    write_file("tokenizer.json", "{");
    assert_null(bpe_open(directory, error));
    expect_error("/tokenizer.json' is broken");
    delete_file("tokenizer.json");
    free(vocab);
}

#define BYTE_LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}"
#define BYTES_ONLY "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define GPT2 "\"'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+\""
#define SPLIT(expression, behavior) \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": " expression "}, \"behavior\": \"" behavior "\", \"invert\": false}"
#define SEQUENCE(first, second) "{\"type\": \"Sequence\", \"pretokenizers\": [" first ", " second "]}"
#define ADDED(id, content, option) "[{\"id\": " id ", \"content\": \"" content "\", \"" option "\": true, \"special\": true}]"

#define TEXT(id) "{\"Sequence\": {\"id\": \"" id "\", \"type_id\": 0}}"
#define SPECIAL "{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}"
#define FIRST(ids) ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [" SPECIAL ", " TEXT("A") "], " \
                   "\"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": " ids ", \"tokens\": [\"<s>\"]}}}"
#define TEMPLATE(single) ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [" single "], \"special_tokens\": {}}"

/* The vocabulary has he 256 and lo 257; NULL: as it should be. */
static Bpe *tokenizer_of(const char *pretokenizer, const char *model, const char *merges, const char *rest) {
    char *vocab = vocab_text(", \"he\": 256, \"lo\": 257");
    char *text = xprintf("{\"pre_tokenizer\": %s, \"model\": {%s \"vocab\": %s, \"merges\": %s}%s}",
                         pretokenizer ? pretokenizer : BYTE_LEVEL, model ? model : "\"type\": \"BPE\",", vocab,
                         merges ? merges : "[\"h e\", [\"l\", \"o\"]]", rest ? rest : "");
    error[0] = 0;
    Bpe *bpe = bpe_of_tokenizer(text, strlen(text), "'tokenizer.json'", error);
    free(vocab);
    free(text);
    return bpe;
}

static void test_tokenizers_of_others(void **state) {
    (void)state;
    static const struct { const char *pretokenizer, *model, *merges, *rest; int specials; } good[] = {
        { NULL, NULL, NULL, NULL, 0 },
        { NULL, "", "[[\"h\", \"e\"]]", ", \"normalizer\": null, \"post_processor\": null, \"added_tokens\": []", 0 },
        { SEQUENCE(SPLIT(GPT2, "Isolated"), BYTES_ONLY), "\"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": \"\",",
          NULL, NULL, 0 },
        { NULL, "\"ignore_merges\": false, \"byte_fallback\": false, \"dropout\": 0.0,", NULL, ", \"post_processor\": " BYTE_LEVEL, 0 },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("300", "<|endoftext|>", "normalized"), 1 },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("257", "lo", "x"), 1 },
        { NULL, NULL, NULL, TEMPLATE(TEXT("A")), 0 },   /* as transformers writes it */
        { NULL, "\"unk_token\": \"<unk>\",", NULL, NULL, 0 },
        { NULL, "\"ignore_merges\": true,", NULL, ", \"added_tokens\": " ADDED("257", "lo", "x") FIRST("[257]"), 1 },
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Bpe *bpe = tokenizer_of(good[i].pretokenizer, good[i].model, good[i].merges, good[i].rest);
        if (!bpe) fail_msg("%zu: %s", i, error);
        assert_int_equal(bpe->specials.count, good[i].specials);
        if (can_encode) EXPECT(bpe, "help", true, 256, 'l', 'p');
        bpe_free(bpe);
    }
}

static void test_other_tokenizers_are_refused(void **state) {
    (void)state;
    static const struct { const char *pretokenizer, *model, *merges, *rest, *phrase; } bad[] = {
        { NULL, "\"type\": \"WordPiece\",", NULL, NULL, "its model is WordPiece, where BPE is needed" },
        { NULL, "\"type\": \"BPE\", \"dropout\": 0.1,", NULL, NULL, "its model sets dropout" },
        { NULL, "\"type\": \"BPE\", \"byte_fallback\": true,", NULL, NULL, "its model sets byte_fallback" },
        { NULL, "\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\",", NULL, NULL, "its model sets end_of_word_suffix" },
        { NULL, "\"type\": \"BPE\", \"continuing_subword_prefix\": \"##\",", NULL, NULL, "its model sets continuing_subword_prefix" },
        { "null", NULL, NULL, NULL, "has no pre_tokenizer" },
        { "{\"type\": \"Metaspace\"}", NULL, NULL, NULL, "its pre_tokenizer is Metaspace" },
        { "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", NULL, NULL, NULL, "add_prefix_space" },
        { "{\"type\": \"ByteLevel\"}", NULL, NULL, NULL, "add_prefix_space" },
        { BYTES_ONLY, NULL, NULL, NULL, "use_regex false, where true is needed" },
        { SEQUENCE(SPLIT(GPT2, "Isolated"), BYTE_LEVEL), NULL, NULL, NULL, "use_regex true, where false is needed" },
        { SEQUENCE(SPLIT("\"\\\\w+\"", "Isolated"), BYTES_ONLY), NULL, NULL, NULL, "splits by \"\\w+\", where the expression of" },
        { SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": false}", BYTE_LEVEL), NULL, NULL, NULL, "has individual_digits false" },
        { SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}", BYTES_ONLY), NULL, NULL, NULL, "use_regex false, where true" },
        { SEQUENCE(SPLIT(GPT2, "Removed"), BYTES_ONLY), NULL, NULL, NULL, "another behavior than Isolated" },
        { SEQUENCE(BYTE_LEVEL, BYTE_LEVEL), NULL, NULL, NULL, "its pre_tokenizer is Sequence" },
        { NULL, NULL, NULL, ", \"normalizer\": {\"type\": \"NFKC\"}", "its normalizer, NFKC" },
        { NULL, NULL, NULL, ", \"normalizer\": {\"type\": \"NFC\"}, \"added_tokens\": " ADDED("300", "\u00e9t\u00e9", "normalized"),
          "is normalized, and other than plain ASCII" },
        { NULL, NULL, NULL, ", \"normalizer\": {\"type\": \"NFC\"}, \"added_tokens\": " ADDED("300", "OK", "normalized"),
          "is normalized, and other than plain ASCII" },
        { NULL, NULL, NULL, ", \"post_processor\": {\"type\": \"TemplateProcessing\"}", "its post_processor, TemplateProcessing" },
        { NULL, NULL, NULL, TEMPLATE(SPECIAL ", " TEXT("A")), "names \"<s>\", which is not one token" },
        { NULL, NULL, NULL, TEMPLATE(TEXT("A") ", " SPECIAL), "one special token, or none, and then Sequence A" },
        { NULL, NULL, NULL, TEMPLATE(SPECIAL ", " SPECIAL ", " TEXT("A")), "one special token, or none, and then Sequence A" },
        { NULL, NULL, NULL, FIRST("[300]"), "puts token 300 before a text, which is not one of its added_tokens" },
        { NULL, NULL, NULL, FIRST("[65]"), "puts token 65 before a text, which is not one of its added_tokens" },
        { NULL, NULL, NULL, FIRST("[256, 257]"), "names \"<s>\", which is not one token" },
        { NULL, NULL, NULL, FIRST("[-1]"), "names \"<s>\", which is not one token" },
        { NULL, NULL, NULL, ", \"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"BertProcessing\"}]}",
          "its post_processor, Sequence" },
        { NULL, NULL, NULL, TEMPLATE(TEXT("A") ", " TEXT("A")), "one special token, or none, and then Sequence A" },
        { NULL, NULL, NULL, TEMPLATE(TEXT("B")), "one special token, or none, and then Sequence A" },
        { NULL, NULL, NULL, ", \"post_processor\": {\"type\": \"BertProcessing\"}", "its post_processor, BertProcessing" },
        { NULL, NULL, "[\"h e\", \"he lo\"]", NULL, "'tokenizer.json', merge 2: \"helo\" is not in the vocabulary" },
        { NULL, NULL, "[[\"h\", \"e\", \"l\"]]", NULL, "merge 1 is neither" },
        { NULL, NULL, "{}", NULL, "no list of merges" },
        { NULL, NULL, NULL, ", \"added_tokens\": {}", "added_tokens are no list" },
        { NULL, NULL, NULL, ", \"added_tokens\": [7]", "number 1 of its added_tokens is not {" },
        { NULL, NULL, NULL, ", \"added_tokens\": [{\"id\": 300}]", "no content" },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("300", "<s>", "lstrip"), "\"<s>\" sets lstrip" },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("300", "<s>", "single_word"), "\"<s>\" sets single_word" },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("300", "he", "x"), "\"he\" has the number 300, and 256 in the vocabulary" },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("256", "<s>", "x"), "\"he\" and \"<s>\" have the same number, 256" },
        { NULL, NULL, NULL, ", \"added_tokens\": " ADDED("233", "\u00e9", "x"), "spelled as other bytes" },
        { NULL, NULL, NULL, ", \"added_tokens\": [{\"id\": 300, \"content\": \"<s>\"}, {\"id\": 300, \"content\": \"<t>\"}]",
          "the same number, 300" },
        { NULL, NULL, NULL, ", \"added_tokens\": [{\"id\": 300, \"content\": \"<s>\"}, {\"id\": 301, \"content\": \"<s>\"}]",
          "given twice" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (tokenizer_of(bad[i].pretokenizer, bad[i].model, bad[i].merges, bad[i].rest)) fail_msg("accepted: %s", bad[i].phrase);
        expect_error(bad[i].phrase);
        expect_error("'tokenizer.json'");
    }
    char *vocab = vocab_text(", \" h\": 256, \"\u0120h\": 257");
    char *text = xprintf("{\"pre_tokenizer\": %s, \"model\": {\"vocab\": %s, \"merges\": []}}", BYTE_LEVEL, vocab);
    assert_null(bpe_of_tokenizer(text, strlen(text), "'tokenizer.json'", error));
    expect_error("the token \" h\" is not special, and not spelled in the letters that stand for bytes");
    free(vocab);
    free(text);
}

int main(void) {
    Bpe *bytes = bpe_create(NULL, 0, NULL, 0, error);
    BpeEncoder *encoder = bpe_encoder_open(bytes, error);
    can_encode = encoder != NULL;
    if (!can_encode) printf("encoding is skipped: %s\n", error);
    bpe_encoder_close(encoder);
    bpe_free(bytes);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_letters_of_bytes),
        cmocka_unit_test(test_small_vocabulary_as_tokenizers),
        cmocka_unit_test(test_gpt2_as_tokenizers_and_tiktoken),
        cmocka_unit_test(test_merging_as_defined),
        cmocka_unit_test(test_many_words),
        cmocka_unit_test(test_any_bytes_come_back),
        cmocka_unit_test(test_long_words_take_linear_time),
        cmocka_unit_test(test_created),
        cmocka_unit_test(test_saved_and_opened),
        cmocka_unit_test(test_saved_whole_or_not_at_all),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_special_tokens_refused),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_vocabularies_of_others),
        cmocka_unit_test(test_broken_vocabularies_are_refused),
        cmocka_unit_test(test_missing_files_are_named),
        cmocka_unit_test(test_tokenizers_of_others),
        cmocka_unit_test(test_other_tokenizers_are_refused),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
