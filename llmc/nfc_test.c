/* nfc_test.c: the normal form of letters, marks and what is no UTF-8, and time. bpe_others_test.c has it in pieces, and beside tokenizers. */
#include "nfc.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static ByteBuffer buffer;

static void expect_normal(const char *text, const char *expected) {
    size_t length = strlen(text);
    const char *bytes = nfc(text, &length, &buffer);
    if (length != strlen(expected) || memcmp(bytes, expected, length) != 0) fail_msg("'%s' became '%.*s'", text, (int)length, bytes);
}

static void test_normal_forms(void **state) {
    (void)state;
    expect_normal("", "");
    expect_normal("caf\u00e9", "caf\u00e9");
    expect_normal("e\u0301a", "\u00e9a");
    expect_normal("a\u0301\u0323", "\u1ea1\u0301");              /* the mark of the lower class first, which joins */
    expect_normal("a\u0323\u0316\u0301", "\u1ea1\u0316\u0301");   /* of one class: as they stand */
    expect_normal("x\u0344", "\u1e8d\u0301");                    /* one mark is two */
    expect_normal("\u1f80\u0301", "\u1f84");                      /* before the mark that was there: taken apart, and put together again */
    expect_normal("\u1100\u1161\u11a8", "\uac01");
    expect_normal("\u212b\u212a\u037e", "\u00c5K;");
    expect_normal("\u0390\u0390", "\u0390\u0390");                /* three code points for two bytes, on the way */
    expect_normal("e\xff\u0301 \xcc e\xcc", "e\xff\u0301 \xcc e\xcc");
}

static double seconds_of(size_t marks) {
    enum { PAIR = 4 };
    size_t length = 1 + marks * PAIR;
    char *text = xmalloc(length);
    text[0] = 'a';
    for (size_t i = 0; i < marks; i++) memcpy(text + 1 + i * PAIR, "\u0301\u0316", PAIR);
    clock_t start = clock();
    const char *bytes = nfc(text, &length, &buffer);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    assert_int_equal(length, marks * PAIR);   /* the first of the acute accents joins the letter, as none of the graves below keeps it from it */
    assert_memory_equal(bytes, "\u00e1\u0316\u0316", 6);
    assert_memory_equal(bytes + length - 4, "\u0301\u0301", 4);
    free(text);
    return seconds;
}

/* Ten times the time for ten times the marks behind one letter, if it is linear; a hundred times, and half a minute, if it were quadratic. */
static void test_many_marks_take_linear_time(void **state) {
    (void)state;
    double part = seconds_of(5000), whole = seconds_of(50000);
    if (!(whole < 40 * part + 0.5)) fail_msg("%.2f s, and %.2f s for ten times as much", part, whole);
}

static int free_buffer(void **state) {
    (void)state;
    byte_buffer_free(&buffer);
    return 0;
}

int main(void) {
    char error[ERROR_SIZE];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normal_forms),
        cmocka_unit_test(test_many_marks_take_linear_time),
    };
    if (!nfc_available(error)) return printf("skipped: %s\n", error), 0;
    return cmocka_run_group_tests(tests, NULL, free_buffer);
}
