/* pretokenize_test.c: what the expressions mean on texts worked out by hand, every code point's class, ASCII by hand against the expressions, any
   bytes, cutting, time, and PCRE2 without its JIT. */
#include "pretokenize.h"
#include "error.h"
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char error[ERROR_SIZE];
static Pretokenizer *pretokenizers[PRETOKENIZATIONS], *pretokenizer;   /* the one in use, of that kind */
static Pretokenization kind;

static void use(Pretokenization other) {
    kind = other;
    pretokenizer = pretokenizers[kind];
}

/* The pre-tokens of text, each followed by a |. */
static char *split(const char *text, size_t length) {
    char *shown = xmalloc(2 * length + 1), *end = shown;
    for (size_t at = 0; at < length;) {
        size_t n = pretoken_length(pretokenizer, text + at, length - at);
        assert_in_range(n, 1, length - at);
        memcpy(end, text + at, n);
        end[n] = '|';
        end += n + 1;
        at += n;
    }
    *end = 0;
    return shown;
}

static void expect_split(const char *text, const char *expected) {
    char *shown = split(text, strlen(text));
    assert_string_equal(shown, expected);
    free(shown);
}

static void test_words(void **state) {
    (void)state;
    expect_split("Hello, world!", "Hello|,| world|!|");
    expect_split(" a1b  c", " a|1|b| | c|");
    expect_split("I'm we'll 'tis they'd've it's's", "I|'m| we|'ll| '|tis| they|'d|'ve| it|'s|'s|");
    expect_split("don'T ?'s '", "don|'|T| ?'|s| '|");   /* capitals are no contraction; after a mark the ' belongs to the marks */
    expect_split("caf\u00e9\u0301 \u4f60\u597d\u3002", "caf\u00e9|\u0301| \u4f60\u597d|\u3002|");   /* a combining mark is no letter */
    expect_split("\u0664\u06f5\u00bd \u2167x", "\u0664\u06f5\u00bd| \u2167|x|");   /* numbers of other scripts; Roman ones */
    expect_split("\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627!", "\u05e9\u05dc\u05d5\u05dd| \u0645\u0631\u062d\u0628\u0627|!|");
    expect_split("\U0001F468\u200d\U0001F469 x", "\U0001F468\u200d\U0001F469| x|");
}

static void test_white_space(void **state) {
    (void)state;
    expect_split(" ", " |");
    expect_split("a  \n", "a|  \n|");
    expect_split("a\n\nb", "a|\n|\n|b|");
    expect_split("a \n b", "a| \n| b|");
    expect_split("a\tb", "a|\t|b|");
    expect_split("\r\n\r\n  x", "\r\n\r\n | x|");
    expect_split(" \u00a0a", " |\u00a0|a|");                  /* only U+0020 joins a word */
    expect_split("a\u2003\u3000\u2029b\xc2\x85", "a|\u2003\u3000|\u2029|b|\xc2\x85|");
    expect_split("a\u180eb \u200b", "a|\u180e|b| \u200b|");   /* White_Space has neither of these */
    expect_split("a\x1c\x1d\x1e\x1f b", "a|\x1c\x1d\x1e\x1f| b|");
}

static void test_words_of_llama3(void **state) {
    (void)state;
    for (int k = PRETOKENS_LLAMA3; k <= PRETOKENS_QWEN2; k++) {
        use((Pretokenization)k);
        expect_split("Hello, world!", "Hello|,| world|!|");
        expect_split("I'M we'lL x'\u017fa it's's", "I|'M| we|'lL| x|'\u017f|a| it|'s|'s|");   /* the long s is an s, in any case */
        expect_split("(a .b\n.c\td\u3000e", "(a| .|b|\n|.c|\td|\u3000e|");       /* one character joins the letters behind it */
        expect_split("a!\r\n\n b \n \n  c", "a|!\r\n\n| b| \n \n| | c|");
        expect_split("?\n\u3002\n\u3000\n\u3000x", "?\n|\u3002\n|\u3000\n|\u3000x|");
        expect_split("\n\na", "\n\n|a|");
        expect_split("a\xff\n !", "a|\xff|\n| !|");
        expect_split("  1", " | |1|");
    }
    use(PRETOKENS_LLAMA3);
    expect_split("12345 x\u0664\u06f5123", "123|45| x|\u0664\u06f51|23|");
    use(PRETOKENS_QWEN2);
    expect_split("123 x\u0664\u06f5", "1|2|3| x|\u0664|\u06f5|");
    use(PRETOKENS_GPT2);
}

static void test_words_of_smollm(void **state) {
    (void)state;
    use(PRETOKENS_SMOLLM);
    expect_split("I'M it's 12\u0664 x1!", "I|'|M| it|'s| |1|2|\u0664| x|1|!|");
    expect_split("  1 \n 2  x \u0664", "  |1| \n |2| | x| |\u0664|");
    use(PRETOKENS_GPT2);
}

static void expect_same(const char *text, size_t length) {
    size_t fast = pretoken_length(pretokenizer, text, length), slow = pretoken_length_by_expression(pretokenizer, text, length);
    if (fast != slow) fail_msg("'%.*s': %zu by hand, %zu by the expression", (int)length, text, fast, slow);
}

/* One of each class, all that contractions need, and a character that is not ASCII of each class. */
static const char *const representatives[] = { "a", "7", " ", "\n", "'", "s", "t", "r", "e", "l", "!",
                                               "\u00e9", "\u0664", "\u3000", "\u2026" };
enum { REPRESENTATIVES = sizeof representatives / sizeof *representatives };

static void by_hand_equals_expression(void) {
    for (int64_t length = 1, count = REPRESENTATIVES; length <= 5; length++, count *= REPRESENTATIVES)
        for (int64_t number = 0; number < count; number++) {
            char text[32] = "";
            int64_t rest = number;
            for (int i = 0; i < length; i++, rest /= REPRESENTATIVES) strcat(text, representatives[rest % REPRESENTATIVES]);
            expect_same(text, strlen(text));
        }
}

/* The same numbers on every run (Marsaglia 2003, xorshift64). */
static uint64_t random_state;
static uint64_t random_number(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void random_by_hand_equals_expression(void) {
    random_state = 1;
    for (int i = 0; i < 300000; i++) {
        char text[24];
        size_t length = 1 + random_number() % sizeof text;
        unsigned mask = random_number() & 1 ? 0x7F : 0xFF;
        for (size_t k = 0; k < length; k++) text[k] = random_number() & (random_number() & 1 ? mask : 0x27);
        expect_same(text, length);
    }
}

/* The class of a character: which of a, 1 and ! it joins; white space joins none. */
static char class_of(const char *character, size_t size) {
    static const struct { char other, class; } others[] = { { 'a', 'L' }, { '1', 'N' }, { '!', 'O' } };
    char text[8];
    memcpy(text + 1, character, size);
    for (int i = 0; i < 3; i++) {
        text[0] = others[i].other;
        if (pretoken_length(pretokenizer, text, size + 1) == size + 1) return others[i].class;
    }
    return 'S';
}

/* Every code point as dev/tokenizer/classes.txt has it: lines of FIRST LAST CLASS. */
static void test_classes_as_tokenizers(void **state) {
    (void)state;
    char *file = file_read_text("dev/tokenizer/classes.txt", 1 << 20, NULL, error), *save = NULL, character[5];
    if (!file) fail_msg("%s", error);
    int32_t known = 0;
    for (char *line = strtok_r(file, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned first, last;
        char class;
        assert_int_equal(sscanf(line, "%x %x %c", &first, &last, &class), 3);
        for (unsigned code = first; code <= last; code++, known++) {
            char found = class_of(character, utf8_encode((int32_t)code, character));
            if (found != class) fail_msg("U+%04X is of class %c, where %c was expected", code, found, class);
        }
    }
    assert_true(known > 280000);
    free(file);
}

static void test_bytes_that_are_not_utf8(void **state) {
    (void)state;
    expect_split("a\xff\xfe b", "a|\xff\xfe| b|");
    expect_split("\xe4\xbd \xe4\xbd\xa0\xe4", "\xe4\xbd| \xe4\xbd\xa0|\xe4|");
    expect_split(" \x80" "a'\xc0\xafs", " |\x80|a|'|\xc0\xaf|s|");
    expect_split("\xed\xa0\x80\xf4\x90\x80\x80!", "\xed\xa0\x80\xf4\x90\x80\x80|!|");
    char *nul = split("a\0 \0b", 5);
    assert_memory_equal(nul, "a|\0| \0|b|", 9);
    free(nul);
}

static void test_cut(void **state) {
    (void)state;
    assert_int_equal(pretoken_cut(&kind, "abc def gh", 10), 7);
    assert_int_equal(pretoken_cut(&kind, "abc  ", 5), 3);
    assert_int_equal(pretoken_cut(&kind, "  abc", 5), 0);
    assert_int_equal(pretoken_cut(&kind, "", 0), 0);
    assert_int_equal(pretoken_cut(&kind, "a\u3000\u2003\u00a0 b", 10), 1);
    assert_int_equal(pretoken_cut(&kind, "a\xe3\x80", 3), 0);   /* half of a space may be anything */
    assert_int_equal(pretoken_cut(&kind, "a b\xc2", 4), 1);
    assert_int_equal(pretoken_cut(&kind, "{\"ab\":12}", 9), 8);
    assert_int_equal(pretoken_cut(&kind, "{\"ab\":12", 8), 4);
    assert_int_equal(pretoken_cut(&kind, "{\"ab'll", 7), 4);          /* the 'll may go on, and may be one */
    assert_int_equal(pretoken_cut(&kind, "{\"ab12", 6), 4);
    assert_int_equal(pretoken_cut(&kind, "a\u00e9", 3), 0);           /* one word */
    assert_int_equal(pretoken_cut(&kind, "1\u0664", 3), 0);
}

static void test_cut_of_llama3(void **state) {
    (void)state;
    use(PRETOKENS_LLAMA3);
    assert_int_equal(pretoken_cut(&kind, "abc def gh", 10), 7);
    assert_int_equal(pretoken_cut(&kind, "!\n", 2), 0);               /* the newline is the mark's */
    assert_int_equal(pretoken_cut(&kind, "!\n\n", 3), 0);
    assert_int_equal(pretoken_cut(&kind, "!\nx", 3), 2);
    assert_int_equal(pretoken_cut(&kind, "a\n \n", 4), 1);            /* white space goes on to its last newline */
    assert_int_equal(pretoken_cut(&kind, "\u3002\n\u6f22", 7), 4);
    assert_int_equal(pretoken_cut(&kind, "\u3002\n\xe6\xbc", 6), 0);   /* half a character may be white space */
    assert_int_equal(pretoken_cut(&kind, "12345", 5), 0);
    assert_int_equal(pretoken_cut(&kind, "! x", 2), 1);
    assert_int_equal(pretoken_cut(&kind, "\u3002\u3000", 6), 3);
    use(PRETOKENS_GPT2);
    assert_int_equal(pretoken_cut(&kind, "!\nx", 3), 1);
}

static void expect_cut(const char *text, size_t length, const char *whole, size_t cut) {
    char *left = split(text, cut), *right = split(text + cut, length - cut);
    if (strncmp(whole, left, strlen(left)) != 0 || strcmp(whole + strlen(left), right) != 0)
        fail_msg("%s cut: %s and %s", whole, left, right);
    free(left);
    free(right);
}

/* Both sides of every cut give the pre-tokens of the whole, however little of what follows was seen. */
static void cut_changes_nothing(void) {
    random_state = 2;
    for (int i = 0; i < 20000; i++) {
        char text[256] = "";
        int pieces = 1 + random_number() % 20;
        for (int k = 0; k < pieces; k++)
            strcat(text, random_number() % 8 ? representatives[random_number() % REPRESENTATIVES] : "\xe3\x80");
        size_t length = strlen(text), last = 0;
        char *whole = split(text, length);
        for (size_t seen = 1; seen <= length; seen++) {
            size_t cut = pretoken_cut(&kind, text, seen);
            if (cut > last) expect_cut(text, length, whole, cut);
            last = cut;
        }
        free(whole);
    }
}

/* No text makes it slow or takes a stack: whole pre-tokens of 30 MB, and 10 million small ones with the longest look ahead. */
static void time_is_linear(void) {
    static const char *const pieces[] = { "a", "\u00e9", " ", "\u3000", "!", "\xff", "\u00e9 ", "a \u00e9", "\n", "\u3000\n\u3000" };
    enum { BYTES = 30000000 };
    char *text = xmalloc(BYTES);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        size_t n = strlen(pieces[i]), count = 0;
        for (size_t at = 0; at < BYTES; at++) text[at] = pieces[i][at % n];
        clock_t start = clock();
        for (size_t at = 0; at < BYTES; count++) at += pretoken_length(pretokenizer, text + at, BYTES - at);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (!(seconds < 10)) fail_msg("'%s' times %zu: %.1f s for %zu pre-tokens", pieces[i], BYTES / n, seconds, count);
    }
    free(text);
}

/* The same pre-tokens of texts longer than what it looks at first; and of a megabyte in a second, not in a minute. */
static void no_jit_is_the_same(void) {
    enum { BYTES = 1 << 20, COMPARED = 20000 };
    static const char common[] = "\u6f22\u5b57 \u00e9";
    Pretokenizer *interpreter = pretokenizer_open(kind, error);
    char *text = xmalloc(BYTES + 16), *end = text;
    pretokenizer_leave_jit(interpreter);
    random_state = 3;
    while (end < text + COMPARED) end = stpcpy(end, representatives[random_number() % (random_number() % 8 ? 2 : REPRESENTATIVES)]);
    for (size_t at = 0, length = (size_t)(end - text), n; at < length; at += n) {
        n = pretoken_length_by_expression(pretokenizer, text + at, length - at);
        assert_int_equal(pretoken_length_by_expression(interpreter, text + at, length - at), n);
    }
    for (size_t at = 0; at < BYTES; at++) text[at] = common[at % (sizeof common - 1)];
    clock_t start = clock();
    for (size_t at = 0; at < BYTES;) at += pretoken_length_by_expression(interpreter, text + at, BYTES - at);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (!(seconds < 10)) fail_msg("%.1f s", seconds);
    pretokenizer_close(interpreter);
    free(text);
}

static void of_every_kind(void **state) {
    for (int k = 0; k < PRETOKENIZATIONS; k++) {
        use((Pretokenization)k);
        ((void (*)(void))*state)();
    }
    use(PRETOKENS_GPT2);
}
#define OF_EVERY_KIND(check) { #check, of_every_kind, NULL, NULL, (void *)check }

static void test_names(void **state) {
    (void)state;
    for (int k = 0; k < PRETOKENIZATIONS; k++) {
        Pretokenization found;
        assert_true(pretokenization_named(pretokenization_name((Pretokenization)k), &found) && (int)found == k);
        assert_false(pretokenization_named("gpt3", &found));
    }
}

int main(void) {
    for (int k = 0; k < PRETOKENIZATIONS; k++)
        if (!(pretokenizers[k] = pretokenizer_open((Pretokenization)k, error))) {
            printf("skipped: %s\n", error);
            return 0;
        }
    use(PRETOKENS_GPT2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_words_of_llama3),
        cmocka_unit_test(test_words_of_smollm),
        OF_EVERY_KIND(by_hand_equals_expression),
        OF_EVERY_KIND(random_by_hand_equals_expression),
        cmocka_unit_test(test_classes_as_tokenizers),
        cmocka_unit_test(test_bytes_that_are_not_utf8),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_cut_of_llama3),
        OF_EVERY_KIND(cut_changes_nothing),
        OF_EVERY_KIND(time_is_linear),
        OF_EVERY_KIND(no_jit_is_the_same),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int k = 0; k < PRETOKENIZATIONS; k++) pretokenizer_close(pretokenizers[k]);
    return failed;
}
