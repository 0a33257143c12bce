/* text_reader_test.c: files in pieces of every size; encoding in pieces equals encoding at once, wherever a text is cut. */
#include "text_reader.h"
#include "directory_test.h"
#include "bpe.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *path;

/* White space of every kind beside everything else, special tokens that overlap, that are cut short, and one with a blank, half characters,
   NULs, long runs. */
static const char nasty[] =
    "Hello  he said\n\n  hel\t\r\n lo'll 's\xC2\xA0\xE2\x80\x83 \xE3\x80\x80x<|end|>"
    "<|endoftext|>he<|endof <|endoftext|>\n|>|>|  |>\n <|end|>"
    "\xC3\xA9\xC3\xA9 \xC3\xA9\xC3 \x80\xE2\x80 \xF0\x9F\x98\x80 123 4567 !!! ?!\x00\x00 he\x00 hehehehehehehehehehehehehehehehehehehe"
    "\xE2\x80\xA8\xE2\x80\xA9\x0B\x0C   \xC2\x85 <|end<|end|>     hello     \n\n\n\n   hello<|endoftext|>  ";
enum { NASTY = sizeof nasty - 1 };

static int make_file(void **state) {
    (void)state;
    if (make_directory(state) != 0) return -1;
    path = path_join(directory, "nasty");
    FileWriter *file = file_create(path);
    file_write(file, nasty, NASTY);
    return file_close(file, NULL, error) ? 0 : -1;
}

static int remove_files(void **state) {
    (void)state;
    free(path);
    return remove_directory(state);
}

/* ---- Encoding ---- */

static Bpe *vocabulary(void) {
    static const BpeMerge merges[] = {
        { 'h', 'e', 256 },   { 'l', 'l', 257 },     { 256, 257, 258 }, { ' ', ' ', 259 }, { '\n', '\n', 260 }, { 258, 'o', 261 },
        { 259, 259, 262 },   { 0xC3, 0xA9, 263 },   { ' ', 256, 264 }, { 256, 256, 265 }, { '|', '>', 266 },   { '<', '|', 267 },
        { ' ', '\n', 268 },  { '\n', ' ', 269 },    { 264, 257, 270 }, { 0xE2, 0x80, 271 },
    };
    static const char *const specials[] = { "<|endoftext|>", "<|end|>", "|>", "\n|>", "3 45" };
    Bpe *bpe = bpe_create(merges, sizeof merges / sizeof *merges, specials, 5, error);
    if (!bpe) fail_msg("%s", error);
    return bpe;
}

static BpeEncoder *encoder_of(const Bpe *bpe) {
    BpeEncoder *encoder = bpe_encoder_open(bpe, error);
    if (!encoder) fail_msg("%s", error);
    return encoder;
}

/* From memory that ends where the text ends, so that AddressSanitizer sees a read beyond it. */
static void encode_exactly(BpeEncoder *encoder, const char *text, size_t length, bool specials, TokenBuffer *out) {
    char *copy = malloc(length + 1);
    memcpy(copy + 1, text, length);
    bpe_encode(encoder, copy + 1, length, specials, out);
    free(copy);
}

static void expect_equal(const TokenBuffer *found, const TokenBuffer *expected, size_t where) {
    if (found->count != expected->count || memcmp(found->tokens, expected->tokens, (size_t)found->count * sizeof *found->tokens) != 0)
        fail_msg("other tokens (%d, not %d) with %zu", (int)found->count, (int)expected->count, where);
}

static void test_every_cut(void **state) {
    (void)state;
    Bpe *bpe = vocabulary();
    BpeEncoder *encoder = encoder_of(bpe);
    for (int specials = 0; specials < 2; specials++) {
        TokenBuffer whole = { 0 };
        int cuts = 0;
        encode_exactly(encoder, nasty, NASTY, specials, &whole);
        for (size_t seen = 0; seen <= NASTY; seen++) {
            TokenBuffer parts = { 0 };
            char *copy = malloc(seen + 1);
            memcpy(copy + 1, nasty, seen);
            size_t cut = bpe_cut(bpe, copy + 1, seen, specials);
            assert_true(cut <= seen);
            cuts += cut > 0;
            encode_exactly(encoder, nasty, cut, specials, &parts);
            encode_exactly(encoder, nasty + cut, NASTY - cut, specials, &parts);
            expect_equal(&parts, &whole, seen);
            token_buffer_free(&parts);
            free(copy);
        }
        assert_true(cuts > NASTY / 2);
        token_buffer_free(&whole);
    }
    bpe_encoder_close(encoder);
    bpe_free(bpe);
}

static size_t cut_with_specials(const void *bpe, const char *text, size_t length) { return bpe_cut(bpe, text, length, true); }

static void test_pieces_of_every_size_encode_alike(void **state) {
    (void)state;
    Bpe *bpe = vocabulary();
    BpeEncoder *encoder = encoder_of(bpe);
    TokenBuffer whole = { 0 };
    encode_exactly(encoder, nasty, NASTY, true, &whole);
    for (size_t size = 1; size <= NASTY + 1; size++) {
        TextReader reader;
        ByteBuffer piece = { 0 }, all = { 0 };
        TokenBuffer parts = { 0 };
        int pieces = 0;
        assert_true(text_reader_open(&reader, path, size, cut_with_specials, bpe, error));
        for (; text_reader_next(&reader, &piece, error) && piece.count > 0; pieces++) {
            encode_exactly(encoder, piece.bytes, piece.count, true, &parts);
            byte_buffer_append(&all, piece.bytes, piece.count);
        }
        assert_true(text_reader_next(&reader, &piece, error) && piece.count == 0);   /* the end stays the end */
        assert_int_equal(all.count, NASTY);
        assert_memory_equal(all.bytes, nasty, NASTY);
        expect_equal(&parts, &whole, size);
        if (size < 20) assert_true(pieces > 8);
        text_reader_close(&reader);
        byte_buffer_free(&piece);
        byte_buffer_free(&all);
        token_buffer_free(&parts);
    }
    token_buffer_free(&whole);
    bpe_encoder_close(encoder);
    bpe_free(bpe);
}

/* ---- Reading ---- */

static size_t cut_nowhere(const void *context, const char *text, size_t length) {
    (void)context, (void)text, (void)length;
    return 0;
}

static void test_without_a_cut_the_piece_grows(void **state) {
    (void)state;
    TextReader reader;
    ByteBuffer piece = { 0 };
    assert_true(text_reader_open(&reader, path, 3, cut_nowhere, NULL, error));
    assert_true(text_reader_next(&reader, &piece, error));
    assert_int_equal(piece.count, NASTY);
    text_reader_close(&reader);
    byte_buffer_free(&piece);
}

static void test_what_cannot_be_read(void **state) {
    (void)state;
    TextReader reader;
    ByteBuffer piece = { 0 };
    assert_false(text_reader_open(&reader, "no such file", 3, cut_nowhere, NULL, error));
    assert_non_null(strstr(error, "'no such file'"));
    assert_true(text_reader_open(&reader, directory, 3, cut_nowhere, NULL, error));
    assert_false(text_reader_next(&reader, &piece, error));
    assert_non_null(strstr(error, "irectory"));
    text_reader_close(&reader);
    byte_buffer_free(&piece);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_pieces_of_every_size_encode_alike),
        cmocka_unit_test(test_without_a_cut_the_piece_grows),
        cmocka_unit_test(test_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, make_file, remove_files);
}
