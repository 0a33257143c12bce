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

/* An ASCII letter as a small one; other bytes become something that is none. */
static char small(char c) { return (char)(c | 0x20); }

/* Bytes of the 's 't 'm 'd 're 've 'll that text begins with, 0 if it begins with none. */
static inline size_t contraction(const char *text, size_t length, bool capitals) {
    if (text[0] != '\'' || length < 2) return 0;
    char a = capitals ? small(text[1]) : text[1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (length < 3) return 0;
    char b = capitals ? small(text[2]) : text[2];
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* These give the length of a pre-token if ASCII alone decides it, else 0. */

static inline size_t gpt2_length(const char *text, size_t length) {
    size_t short_form = contraction(text, length, false);
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

/* A digit alone; before one white space is whole, as at the end of a text. */
static size_t smollm_length(const char *text, size_t length) {
    if (class_at(text, 0) == DIGIT) return 1;
    size_t end = gpt2_length(text, length);
    if (end == 0) return 0;
    Class last = class_at(text, end - 1);
    if (last == DIGIT) return 1;   /* no space joins it */
    bool before_digit = end + 1 < length && class_at(text, end) == SPACE && class_at(text, end + 1) == DIGIT;
    return last == SPACE && before_digit ? end + 1 : end;
}

static bool is_newline(char c) { return c == '\n' || c == '\r'; }

static size_t end_of_newlines(const char *text, size_t at, size_t length) {
    while (at < length && is_newline(text[at])) at++;
    return at;
}

/* Up to the last newline, or all but the last character before something else. */
static size_t white_length(const char *text, size_t length) {
    size_t end = end_of_run(text, 0, length, SPACE), newline = end;
    if (end < length && class_at(text, end) == NOT_ASCII) return 0;
    while (newline > 0 && !is_newline(text[newline - 1])) newline--;
    return newline > 0 ? newline : end > 1 && end < length ? end - 1 : end;
}

static size_t llama3_length(const char *text, size_t length, size_t digits) {
    size_t short_form = contraction(text, length, true), end;
    if (short_form) return short_form;
    Class first = class_at(text, 0), second = length > 1 ? class_at(text, 1) : first;
    if (first == NOT_ASCII) return 0;
    if (first == DIGIT) {
        end = end_of_run(text, 0, length < digits ? length : digits, DIGIT);
        return end < digits && end < length && class_at(text, end) == NOT_ASCII ? 0 : end;
    }
    if (is_newline(text[0])) return white_length(text, length);
    if (second == NOT_ASCII) return 0;
    if (first == LETTER || second == LETTER) {
        end = end_of_run(text, 1, length, LETTER);
        return end < length && class_at(text, end) == NOT_ASCII ? 0 : end;
    }
    if (first == SPACE && (text[0] != ' ' || second != OTHER)) return white_length(text, length);
    end = end_of_run(text, 1, length, OTHER);
    return end < length && class_at(text, end) == NOT_ASCII ? 0 : end_of_newlines(text, end, length);
}

/* ---- Anything, by PCRE2 ---- */

#ifdef USE_PCRE2

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define WHITE "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

/* The expressions as the other tools have them, with ++ for + where what follows can never take a character back, and so for the rest. */
#define LETTERS "\\p{L}\\p{N}"
#define GPT2(digits, after_white) \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}++|" digits "| ?[^" WHITE LETTERS "]++|[" WHITE "]+(?!" after_white ")|[" WHITE "]++"
#define LLAMA3(digits) \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" LETTERS "]?+\\p{L}++|" digits "| ?[^" WHITE LETTERS "]++[\\r\\n]*+|[" WHITE "]*[\\r\\n]|" \
    "[" WHITE "]+(?![^" WHITE "])|[" WHITE "]++"

static const char *const expressions[PRETOKENIZATIONS] = {
    [PRETOKENS_GPT2] = GPT2(" ?\\p{N}++", "[^" WHITE "]"),
    [PRETOKENS_LLAMA3] = LLAMA3("\\p{N}{1,3}+"),
    [PRETOKENS_QWEN2] = LLAMA3("\\p{N}"),
    [PRETOKENS_SMOLLM] = GPT2("\\p{N}", "[^" WHITE "\\p{N}]"),   /* white space ends before a digit as at the end of the text */
};

struct Pretokenizer {
    Pretokenization kind;
    bool jit;
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
};

Pretokenizer *pretokenizer_open(Pretokenization kind, char error[ERROR_SIZE]) {
    int number;
    size_t where;
    (void)error;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)expressions[kind], PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_ANCHORED, &number, &where, NULL);
    CHECK(code);
    Pretokenizer *p = xcalloc(1, sizeof *p);
    p->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;   /* else pcre2_match interprets */
    p->kind = kind;
    p->code = code;
    p->match = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    CHECK(p->match && p->context);
    /* White space of any length is gone back through once, for its last newline. */
    pcre2_set_match_limit(p->context, UINT32_MAX);
    return p;
}

void pretokenizer_close(Pretokenizer *p) {
    if (!p) return;
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->context);
    pcre2_code_free(p->code);
    free(p);
}

void pretokenizer_leave_jit(Pretokenizer *p) { p->jit = false; }

/* Bytes of text[length] that show its first pre-token. The interpreter reads all that it is given, at each match, to see what is UTF-8 in it. */
static size_t enough(const Pretokenizer *p, const char *text, size_t length) {
    for (size_t seen = 256; seen < length && !p->jit; seen *= 2) {
        size_t cut = pretoken_cut(&p->kind, text, seen);
        if (cut > 0) return cut;
    }
    return length;
}

size_t pretoken_length_by_expression(Pretokenizer *p, const char *text, size_t length) {
    length = enough(p, text, length);
    int found = pcre2_match(p->code, (PCRE2_SPTR)text, length, 0, p->jit ? 0 : PCRE2_NO_JIT, p->match, p->context);
    if (found > 0) return pcre2_get_ovector_pointer(p->match)[1];
    CHECK(found == PCRE2_ERROR_NOMATCH);
    size_t end = 1, size;
    while (end < length && utf8_decode(text + end, length - end, &size) < 0) end++;
    return end;
}

static Pretokenization kind_of(const Pretokenizer *p) { return p->kind; }

#else

Pretokenizer *pretokenizer_open(Pretokenization kind, char error[ERROR_SIZE]) {
    (void)kind;
    file_error(error, "this build has no byte-pair encoding, because PCRE2 was missing: install libpcre2-dev and run make again");
    return NULL;
}

void pretokenizer_close(Pretokenizer *p) { (void)p; }

void pretokenizer_leave_jit(Pretokenizer *p) { (void)p; }

size_t pretoken_length_by_expression(Pretokenizer *p, const char *text, size_t length) {
    (void)p, (void)text;
    return length;
}

static Pretokenization kind_of(const Pretokenizer *p) {
    (void)p;
    return PRETOKENS_GPT2;
}

#endif

/* Apart, so that GPT-2's way costs no more for there being others. */
__attribute__((noinline)) static size_t other_length(Pretokenizer *p, const char *text, size_t length) {
    Pretokenization kind = kind_of(p);
    size_t ascii = kind == PRETOKENS_SMOLLM ? smollm_length(text, length) : llama3_length(text, length, kind == PRETOKENS_LLAMA3 ? 3 : 1);
    return ascii ? ascii : pretoken_length_by_expression(p, text, length);
}

size_t pretoken_length(Pretokenizer *p, const char *text, size_t length) {
    if (kind_of(p) != PRETOKENS_GPT2) return other_length(p, text, length);
    size_t ascii = gpt2_length(text, length);
    return ascii ? ascii : pretoken_length_by_expression(p, text, length);
}

/* ---- The table's columns ---- */

static const char *const names[PRETOKENIZATIONS] = { "gpt2", "llama3", "qwen2", "smollm" };

const char *pretokenization_name(Pretokenization kind) { return names[kind]; }

bool pretokenization_normalizes(Pretokenization kind) { return kind == PRETOKENS_QWEN2; }

bool pretokenization_named(const char *name, Pretokenization *kind) {
    int i = 0;
    while (i < PRETOKENIZATIONS && strcmp(name, names[i]) != 0) i++;
    *kind = i < PRETOKENIZATIONS ? (Pretokenization)i : PRETOKENS_GPT2;
    return i < PRETOKENIZATIONS;
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

/* Where newlines join what is before them. */
static bool may_cut_at_newline(const char *text, size_t at, size_t length) {
    size_t size;
    bool newline = is_newline(text[at]), behind_newline = is_newline(text[at - 1]);
    int32_t code = utf8_decode(text + at, length - at, &size);
    if (behind_newline) return code >= 0 && !is_white(code);
    return !newline && is_white(code) && !white_before(text, at);
}

size_t pretoken_cut(const void *kind, const char *text, size_t length) {
    Pretokenization way = *(const Pretokenization *)kind;
    bool newlines = way == PRETOKENS_LLAMA3 || way == PRETOKENS_QWEN2;
    for (size_t at = length; at-- > 1;) {
        bool good = newlines ? may_cut_at_newline(text, at, length) : white_after(text, at, length) && !white_before(text, at);
        if (good || run_ends(text, at)) return at;
    }
    return 0;
}
