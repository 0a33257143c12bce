/* utf8_repair_test.c: any bytes made UTF-8, in any pieces. */
#include "utf8_repair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define R "\xEF\xBF\xBD"

/* What Python 3 gives for bytes.decode("utf-8", "replace"). */
static const struct { const char *bytes, *expected; } cases[] = {
    { "", "" },
    { "plain\nASCII\x7F", "plain\nASCII\x7F" },
    { "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
      "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF" },
    { "a\x80z", "a" R "z" },
    { "\x80\xBF\x80", R R R },
    { "\xC0\x80", R R },                            /* never the beginning of a character */
    { "\xC1\xBFx", R R "x" },
    { "\xE0\x80\x80", R R R },                      /* overlong: the second byte does not belong to the first */
    { "\xE0\x9F\xBF", R R R },
    { "\xF0\x8F\xBF\xBF", R R R R },
    { "\xED\xA0\x80", R R R },                      /* a surrogate */
    { "\xF4\x90\x80\x80", R R R R },                /* beyond U+10FFFF */
    { "\xF5\x80\xFF\xFE", R R R R },
    { "\xE2\x82", R },                              /* cut off at the end: one maximal part */
    { "\xE2", R },
    { "\xF0\x9F\x98", R },
    { "\xF0\x9F\x98X", R "X" },
    { "\xE2\x82\xE2\x82\xAC", R "\xE2\x82\xAC" },
    { "\xF0\x9F\xF0\x9F\x98\x80", R "\xF0\x9F\x98\x80" },
    { "\xC3\xC3\xA9", R "\xC3\xA9" },
    { "\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A" },
    { "61\xF1\x80\x80\xE1\x80\xC2" "62\x80" "63\x80\xBF" "64", "61" R R R "62" R "63" R R "64" },   /* Unicode 15, table 3-11 */
};
enum { CASES = sizeof cases / sizeof *cases };

static void expect(ByteBuffer *out, const char *expected, int number, size_t cut) {
    if (out->count != strlen(expected) || memcmp(out->bytes, expected, out->count) != 0)
        fail_msg("case %d, cut at %zu: %.*s", number, cut, (int)out->count, out->bytes);
    byte_buffer_free(out);
}

/* In memory that ends where the text ends, so that AddressSanitizer sees a read beyond it. */
static void repair_exactly(Utf8Repair *repair, const char *text, size_t length, ByteBuffer *out) {
    char *copy = malloc(length + 1);
    memcpy(copy + 1, text, length);
    utf8_repair(repair, copy + 1, length, out);
    free(copy);
}

static void test_as_python_has_it(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const char *bytes = cases[i].bytes;
        for (size_t cut = 0; cut <= strlen(bytes); cut++) {
            Utf8Repair repair = { 0 };
            ByteBuffer out = { 0 };
            byte_buffer_reserve(&out, 1);
            repair_exactly(&repair, bytes, cut, &out);
            repair_exactly(&repair, bytes + cut, strlen(bytes) - cut, &out);
            utf8_repair_end(&repair, &out);
            expect(&out, cases[i].expected, i, cut);
        }
    }
}

static void test_byte_by_byte(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        Utf8Repair repair = { 0 };
        ByteBuffer out = { 0 };
        byte_buffer_reserve(&out, 1);
        for (const char *at = cases[i].bytes; *at; at++) repair_exactly(&repair, at, 1, &out);
        utf8_repair_end(&repair, &out);
        utf8_repair_end(&repair, &out);   /* nothing is left */
        expect(&out, cases[i].expected, i, 1);
    }
}

static void test_zero_is_a_character(void **state) {
    (void)state;
    Utf8Repair repair = { 0 };
    ByteBuffer out = { 0 };
    utf8_repair(&repair, "a\0\xC3\0", 4, &out);
    assert_int_equal(out.count, 6);
    assert_memory_equal(out.bytes, "a\0" R "\0", 6);
    byte_buffer_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_python_has_it),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_zero_is_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
