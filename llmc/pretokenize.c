/* pretokenize.c: see pretokenize.h. The expression decides. Most pre-tokens are ASCII, where its meaning fits a few lines of C that take a
   tenth of the time; the test holds the two against each other. */
#include "pretokenize.h"
#include "error.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- ASCII, by hand ---- */

typedef enum { OTHER, LETTER, DIGIT, SPACE, NOT_ASCII } Class;

static const unsigned char class_of[256] = {
    ['a' ... 'z'] = LETTER, ['A' ... 'Z'] = LETTER, ['0' ... '9'] = DIGIT,
    ['\t' ... '\r'] = SPACE, [' '] = SPACE, [128 ... 255] = NOT_ASCII,
};

static Class class_at(const char *text, size_t at) { return class_of[(unsigned char)text[at]]; }

static size_t end_of_run(const char *text, size_t at, size_t length, Class class) {
    while (at < length && class_at(text, at) == class) at++;
    return at;
}

/* Bytes of the 's 't 'm 'd 're 've 'll that text begins with, 0 if it begins with none. */
static size_t contraction(const char *text, size_t length) {
    if (text[0] != '\'' || length < 2) return 0;
    if (text[1] == 's' || text[1] == 't' || text[1] == 'm' || text[1] == 'd') return 2;
    if (length < 3) return 0;
    return ((text[1] == 'r' || text[1] == 'v') && text[2] == 'e') || (text[1] == 'l' && text[2] == 'l') ? 3 : 0;
}

/* The length of a pre-token if ASCII alone decides it, else 0. */
static size_t ascii_length(const char *text, size_t length) {
    size_t short_form = contraction(text, length);
    if (short_form) return short_form;
    size_t start = text[0] == ' ' && length > 1;
    Class class = class_at(text, start);
    if (class == NOT_ASCII) return 0;
    if (class == SPACE) start = 0;
    size_t end = end_of_run(text, start, length, class);
    if (end < length && class_at(text, end) == NOT_ASCII) return 0;
    /* White space before something else leaves its last character to that. */
    return class == SPACE && end > 1 && end < length ? end - 1 : end;
}

/* ---- Anything, by PCRE2 ---- */

#ifdef USE_PCRE2

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define WHITE "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

/* GPT-2's, with ++ for + where what follows can never take a character back. */
static const char expression[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}++| ?\\p{N}++| ?[^" WHITE "\\p{L}\\p{N}]++|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]++";

struct Pretokenizer {
    pcre2_code *code;
    pcre2_match_data *match;
};

Pretokenizer *pretokenizer_open(char error[ERROR_SIZE]) {
    int number;
    size_t where;
    (void)error;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_ANCHORED,
                                     &number, &where, NULL);
    CHECK(code);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);   /* where there is no JIT, pcre2_match interprets */
    Pretokenizer *p = xcalloc(1, sizeof *p);
    p->code = code;
    p->match = pcre2_match_data_create(1, NULL);
    CHECK(p->match);
    return p;
}

void pretokenizer_close(Pretokenizer *p) {
    if (!p) return;
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
    free(p);
}

size_t pretoken_length_by_expression(Pretokenizer *p, const char *text, size_t length) {
    int found = pcre2_match(p->code, (PCRE2_SPTR)text, length, 0, 0, p->match, NULL);
    if (found > 0) return pcre2_get_ovector_pointer(p->match)[1];
    CHECK(found == PCRE2_ERROR_NOMATCH);
    size_t end = 1, size;
    while (end < length && utf8_decode(text + end, length - end, &size) < 0) end++;
    return end;
}

#else

Pretokenizer *pretokenizer_open(char error[ERROR_SIZE]) {
    file_error(error, "this build has no byte-pair encoding, because PCRE2 was missing: install libpcre2-dev and run make again");
    return NULL;
}

void pretokenizer_close(Pretokenizer *p) { (void)p; }

size_t pretoken_length_by_expression(Pretokenizer *p, const char *text, size_t length) {
    (void)p, (void)text;
    return length;
}

#endif

size_t pretoken_length(Pretokenizer *p, const char *text, size_t length) {
    size_t ascii = ascii_length(text, length);
    return ascii ? ascii : pretoken_length_by_expression(p, text, length);
}

/* ---- Cutting ---- */

static bool is_white(int32_t code) {
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* Bytes of the white space that begins at text[at], or 0. */
static size_t white_after(const char *text, size_t at, size_t length) {
    size_t size;
    int32_t code = utf8_decode(text + at, length - at, &size);
    return is_white(code) ? size : 0;
}

/* White space has one to three bytes; no other character ends in those of one. */
static bool white_before(const char *text, size_t at) {
    for (size_t size = 1; size <= 3 && size <= at; size++)
        if (white_after(text, at - size, at) == size) return true;
    return false;
}

/* Letters, or digits, end before text[at], which is ASCII. */
static bool run_ends(const char *text, size_t at) {
    Class before = class_at(text, at - 1), after = class_at(text, at);
    return (before == LETTER || before == DIGIT) && after != before && after != NOT_ASCII;
}

size_t pretoken_cut(const char *text, size_t length) {
    for (size_t at = length; at-- > 1;)
        if (run_ends(text, at) || (white_after(text, at, length) && !white_before(text, at))) return at;
    return 0;
}
