/* expected_test.h: reading the cases of dev/tokenizer (expected.py, others.py), for tests. */
#ifndef LLMC_EXPECTED_TEST_H
#define LLMC_EXPECTED_TEST_H

#include "bpe.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static inline void expect_tokens(const char *what, const int32_t *tokens, int64_t count, const int32_t *expected, int64_t expected_count) {
    int64_t i = 0;
    while (i < count && i < expected_count && tokens[i] == expected[i]) i++;
    if (i == count && i == expected_count) return;
    fail_msg("%.100s: token %lld of %lld is %d, where %d of %lld was expected", what, (long long)i, (long long)count,
             i < count ? tokens[i] : -1, i < expected_count ? expected[i] : -1, (long long)expected_count);
}

/* Of "1,2*3 7": 1 2 1 2 1 2 7. */
static inline TokenBuffer tokens_written(const char *text) {
    TokenBuffer out = { 0 };
    while (*text >= '0' && *text <= '9') {
        int32_t group[8];
        long size = 0, repeats = 1;
        char *end;
        do {
            assert_true(size < 8);
            group[size++] = (int32_t)strtol(text, &end, 10);
            text = end + 1;
        } while (*end == ',');
        if (*end == '*') repeats = strtol(text, &end, 10);
        out.tokens = xrealloc(out.tokens, (out.count + size * repeats) * sizeof *out.tokens);
        for (long i = 0; i < size * repeats; i++) out.tokens[out.count++] = group[i % size];
        text = end + (*end == ' ');
    }
    return out;
}

/* The text of "2\ta%20b\t": twice "a b". */
static inline char *text_written(const char *line, size_t *length) {
    char *end;
    long count = strtol(line, &end, 10);
    size_t n = 0;
    char *piece = xmalloc(strlen(end));
    for (const char *at = end + 1; *at != '\t'; at++) {
        char hex[3] = { *at == '%' ? at[1] : 0, *at == '%' ? at[2] : 0, 0 };
        piece[n++] = *at == '%' ? (char)strtol(hex, NULL, 16) : *at;
        at += *at == '%' ? 2 : 0;
    }
    char *text = xmalloc(count * n + 1);
    for (*length = 0; *length < count * n; *length += n) memcpy(text + *length, piece, n);
    free(piece);
    return text;
}

#endif
