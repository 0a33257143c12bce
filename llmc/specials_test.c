/* specials_test.c: special tokens found in random texts as by trying each, what is refused, and time. */
#include "specials.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

static char error[ERROR_SIZE];

/* Not in order, and some the beginnings of others. */
static const char *const texts[] = { "ba", "a", "abab", "\xc3\xa9", "abb", "bbbbb", "ab" };
enum { TEXTS = sizeof texts / sizeof *texts };

static size_t longest_by_trying(const char *text, size_t length) {
    size_t longest = 0;
    for (int i = 0; i < TEXTS; i++) {
        size_t n = strlen(texts[i]);
        if (n > longest && n <= length && memcmp(texts[i], text, n) == 0) longest = n;
    }
    return longest;
}

static void test_the_longest_is_taken(void **state) {
    (void)state;
    static const char letters[] = { 'a', 'b', 'b', 'c', '\xc3', '\xa9', '\0' };
    Specials specials;
    assert_true(specials_init(&specials, texts, TEXTS, error));
    assert_int_equal(specials.longest, 5);
    srand(3);
    for (int round = 0; round < 20000; round++) {
        char text[8];
        size_t length = (size_t)rand() % (sizeof text + 1), place = 0, size;
        for (size_t i = 0; i < length; i++) text[i] = letters[(size_t)rand() % sizeof letters];
        while (place < length && longest_by_trying(text + place, length - place) == 0) place++;
        assert_int_equal(specials_find(&specials, text, length, &size), place);
        assert_int_equal(size, longest_by_trying(text + place, length - place));
    }
    specials_free(&specials);
}

static void test_refusals(void **state) {
    (void)state;
    Specials specials;
    assert_false(specials_init(&specials, (const char *[]){ "a", "", "b" }, 3, error));
    assert_non_null(strstr(error, "a special token is empty"));
    specials_free(&specials);
    assert_false(specials_init(&specials, (const char *[]){ "b", "a", "b" }, 3, error));
    assert_string_equal(error, "the special token 'b' is given twice; give each once");
    specials_free(&specials);
    assert_true(specials_init(&specials, NULL, 0, error));
    specials_free(&specials);
}

static double seconds_with(const char *const *names, int64_t count, const char *text, size_t length) {
    Specials specials;
    size_t size;
    assert_true(specials_init(&specials, names, count, error));
    clock_t start = clock();
    assert_int_equal(specials_find(&specials, text, length, &size), length);
    specials_free(&specials);
    return (double)(clock() - start) / CLOCKS_PER_SEC;
}

/* Llama 3 has 256 of them, each beginning as half of HTML does. Trying each takes 256 times as long as one does, sixteen steps here and there
   a few times as long. */
static void test_many_take_little_more_time_than_one(void **state) {
    (void)state;
    enum { NAMES = 256, BYTES = 2 << 20 };
    char *names[NAMES], *text = xmalloc(BYTES);
    for (int i = 0; i < NAMES; i++) names[i] = xprintf("<|reserved_special_token_%d|>", i);
    for (size_t i = 0; i < BYTES; i++) text[i] = "<a"[i % 2];
    double one = seconds_with((const char *const *)names, 1, text, BYTES), all = seconds_with((const char *const *)names, NAMES, text, BYTES);
    if (!(all < 30 * one + 0.1)) fail_msg("%.3f s with one special token, %.3f s with %d", one, all, NAMES);
    for (int i = 0; i < NAMES; i++) free(names[i]);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_longest_is_taken),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_many_take_little_more_time_than_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
