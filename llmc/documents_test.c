/* documents_test.c: documents of texts and of JSON lines, in stretches of every size. */
#include "documents.h"
#include "directory_test.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *write_text(const char *name, const char *text, size_t length) {
    char *path = path_join(directory, name);
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    assert_true(file_close(file, NULL, error));
    return path;
}

/* All documents, each in brackets; a bad line as [!]. Adds up the stretches. */
static char *read_all(const char *const *files, int64_t count, size_t stretch_bytes, int *stretches) {
    DocumentReader reader;
    Stretch stretch = { 0 };
    DocumentPart part;
    PartResult result;
    ByteBuffer all = { 0 };
    if (!documents_open(&reader, files, count, "text", NULL, error)) fail_msg("%s", error);
    reader.stretch_bytes = stretch_bytes;
    for (*stretches = 0; documents_read(&reader, &stretch); ++*stretches) {
        if (stretch.error[0]) fail_msg("%s", stretch.error);
        while ((result = stretch_next(&stretch, &part, error)) != PARTS_END) {
            if (result == PART_BAD) part = (DocumentPart){ "!", 1, true };
            assert_true(part.length > 0);
            if (part.begins) byte_buffer_append(&all, "[", 1);
            byte_buffer_append(&all, part.text, part.length);
        }
    }
    byte_buffer_append(&all, "", 1);
    stretch_free(&stretch);
    documents_close(&reader);
    return all.bytes;
}

static void expect(const char *name, const char *text, const char *expected) {
    char *path = write_text(name, text, strlen(text));
    for (size_t size = 1; size <= strlen(text) + 1; size++) {
        int stretches;
        char *found = read_all((const char *const *)&path, 1, size, &stretches);
        if (strcmp(found, expected) != 0) fail_msg("%s in stretches of %zu: %s", text, size, found);
        free(found);
    }
    free(path);
}

#define S "<|endoftext|>"

static void test_texts(void **state) {
    (void)state;
    expect("a.txt", "", "");
    expect("a.txt", "one document", "[one document");
    expect("a.txt", "one" S "two", "[one[two");
    expect("a.txt", S "one" S "two" S, "[one[two");
    expect("a.txt", "one\n" S "\ntwo\n" S "\n", "[one\n[two\n");
    expect("a.txt", "\none" S "\n\ntwo" S " \nthree", "[\none[\ntwo[ \nthree");
    expect("a.txt", "one\r\n" S "\r\n\r\ntwo\r\n" S "\r\n" S "\rthree" S "\r\n", "[one\r\n[\r\ntwo\r\n[\rthree");
    expect("a.txt", S S "\n" S "\n\n" S "x" S, "[\n[x");
    expect("a.txt", "a <|endof text|> b <|endoftext| c <" S "d" S "|>", "[a <|endof text|> b <|endoftext| c <[d[|>");
    expect("a.txt", "a <|endoftext|" S " b c  d\n e" S "f g h i j", "[a <|endoftext|[ b c  d\n e[f g h i j");
    expect("a.txt", "caf\xC3\xA9 \xE3\x80\x80x\xC2\x85" S "\xFF\xFE \x80", "[caf\xC3\xA9 \xE3\x80\x80x\xC2\x85[\xFF\xFE \x80");
}

static void test_json_lines(void **state) {
    (void)state;
    expect("a.jsonl", "", "");
    expect("a.jsonl", "{\"text\": \"one\"}\n{\"id\": 7, \"text\": \"two\\nlines\"}", "[one[two\nlines");
    expect("a.jsonl", "\n  \r\n{\"text\": \"\"}\r\n{\"text\": \"x" S "y\"}\n\n", "[x" S "y");
    expect("a.jsonl", "{\"text\": \"a\\u0000b\\ud83d \\uDE00\\ud83d\\ude00\\uD800\\uD83D\\uDE00 \\\\u0000\\u00e9\"}",
           "[a\xEF\xBF\xBD" "b\xEF\xBF\xBD \xEF\xBF\xBD\xF0\x9F\x98\x80\xEF\xBF\xBD\xF0\x9F\x98\x80 \\u0000\xC3\xA9");
    expect("a.jsonl", "{\"text\": \"a\\u00", "[!");
    expect("a.jsonl", "{\"text\": \"a\\", "[!");
    expect("a.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\nnonsense\n[]\n{\"words\": \"b\"}\n{\"text\": \"b\"}\n", "[a[![![![![b");
}

static void test_bad_lines_are_named(void **state) {
    (void)state;
    static const char text[] = "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n{\"text\": }\n{\"tex\": \"\"}\n{\"text\": \"c\"}\n";
    char *path = write_text("bad.jsonl", text, strlen(text));
    for (size_t size = 1; size <= sizeof text; size++) {
        DocumentReader reader;
        Stretch stretch = { 0 };
        DocumentPart part;
        PartResult result;
        int bad = 0;
        static const char *const phrases[] = { "bad.jsonl, line 4, column 10: ", "bad.jsonl, line 5: there is no text under \"text\"" };
        assert_true(documents_open(&reader, (const char *const *)&path, 1, "text", NULL, error));
        reader.stretch_bytes = size;
        while (documents_read(&reader, &stretch))
            while ((result = stretch_next(&stretch, &part, error)) != PARTS_END)
                if (result == PART_BAD && !strstr(error, phrases[bad++ % 2])) fail_msg("stretches of %zu: %s", size, error);
        assert_int_equal(bad, 2);
        stretch_free(&stretch);
        documents_close(&reader);
    }
    free(path);
}

static void test_files_follow_one_another(void **state) {
    (void)state;
    char *paths[4] = { write_text("1.txt", "one" S "\ntw o", 21), write_text("2.txt", "", 0),
                       write_text("3.jsonl", "{\"text\": \"three\"}", 17), write_text("4.txt", "\nfour", 5) };
    for (size_t size = 1; size < 30; size++) {
        int stretches;
        char *found = read_all((const char *const *)paths, 4, size, &stretches);
        assert_string_equal(found, "[one[tw o[three[\nfour");
        free(found);
    }
    for (int i = 0; i < 4; i++) free(paths[i]);
}

/* Parts are cut where the vocabulary that they go to may be: their tokens are those of the whole. */
static void test_parts_are_cut_for_the_vocabulary(void **state) {
    (void)state;
    static const char text[] = "said: \"No!\"\n\n  (then)\n12345 67!?\n\u3002\n\u6f22 I'LL go.\r\n\r\nend";
    Bpe *bpe = bpe_open("dev/tokenizer/llama3", error);
    BpeEncoder *encoder = bpe_encoder_open(bpe, error);
    if (!encoder) {
        bpe_free(bpe);
        skip();
    }
    char *path = write_text("parts.txt", text, sizeof text - 1);
    TokenBuffer whole = { 0 };
    bpe_encode(encoder, text, sizeof text - 1, false, &whole);
    for (size_t size = 1; size < sizeof text; size++) {
        DocumentReader reader;
        Stretch stretch = { 0 };
        DocumentPart part;
        TokenBuffer parts = { 0 };
        assert_true(documents_open(&reader, (const char *const *)&path, 1, "text", bpe, error));
        reader.stretch_bytes = size;
        while (documents_read(&reader, &stretch))
            while (stretch_next(&stretch, &part, error) == PART) bpe_encode(encoder, part.text, part.length, false, &parts);
        assert_int_equal(parts.count, whole.count);
        assert_memory_equal(parts.tokens, whole.tokens, (size_t)whole.count * sizeof *whole.tokens);
        token_buffer_free(&parts);
        stretch_free(&stretch);
        documents_close(&reader);
    }
    token_buffer_free(&whole);
    bpe_encoder_close(encoder);
    bpe_free(bpe);
    free(path);
}

/* Ten megabytes without a separator come in parts, and equal the file. */
static void test_a_long_document_comes_in_parts(void **state) {
    (void)state;
    enum { LENGTH = 10 << 20 };
    char *text = xmalloc(LENGTH + 1);
    for (int i = 0; i < LENGTH; i++) text[i] = i % 9 == 8 ? ' ' : (char)('a' + i % 7);
    text[LENGTH] = 0;
    char *path = write_text("long.txt", text, LENGTH);
    int stretches;
    char *found = read_all((const char *const *)&path, 1, 1 << 20, &stretches);
    assert_true(stretches >= 10);
    assert_true(found[0] == '[' && strcmp(found + 1, text) == 0);
    free(found);
    free(text);
    free(path);
}

static void expect_refused(const char *name, const char *phrase) {
    DocumentReader reader;
    assert_false(documents_open(&reader, &name, 1, "text", NULL, error));
    if (!strstr(error, phrase)) fail_msg("no \"%s\" in: %s", phrase, error);
}

static void test_what_cannot_be_read(void **state) {
    (void)state;
    char *inner = path_join(directory, "d.txt");
    assert_true(directory_create(inner, error));
    expect_refused("no such.txt", "cannot open 'no such.txt'");
    expect_refused("some.parquet", "'some.parquet' is neither NAME.txt nor NAME.jsonl");
    expect_refused(".txt", "neither");
    expect_refused(inner, "is a directory");
    free(inner);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_bad_lines_are_named),
        cmocka_unit_test(test_files_follow_one_another),
        cmocka_unit_test(test_parts_are_cut_for_the_vocabulary),
        cmocka_unit_test(test_a_long_document_comes_in_parts),
        cmocka_unit_test(test_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
