/* pretokenize.h: GPT-2's pre-tokenisation: where a text may be cut before byte pairs are merged. The expression is GPT-2's (Radford et al.
   2019), matched by PCRE2 with its JIT (runs of ASCII by hand, which is faster and the same); white space is Unicode's property
   White_Space, spelled out, because PCRE2's \s is not the other tools'.

   Two kinds of place lie between pre-tokens whatever surrounds them, so that a text may be cut there and each part gives the pre-tokens
   that the whole would: before white space that follows something else, which no pre-token holds; and behind an ASCII letter before any
   other ASCII character, and so behind a digit, for the letters or digits of a pre-token are its end (so is a contraction's last letter).
   pretoken_cut finds such a place. */
#ifndef LLMC_PRETOKENIZE_H
#define LLMC_PRETOKENIZE_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One a thread. */
typedef struct Pretokenizer Pretokenizer;

/* NULL with the reason if this build has no PCRE2. */
Pretokenizer *pretokenizer_open(char error[ERROR_SIZE]);
void pretokenizer_close(Pretokenizer *p);

/* Bytes of the pre-token that text[length] begins with: 1 to length, for any bytes; length is at least 1. What is not UTF-8 is a pre-token
   of its own, up to where UTF-8 begins again. */
size_t pretoken_length(Pretokenizer *p, const char *text, size_t length);

/* The same by the expression alone, for the test. */
size_t pretoken_length_by_expression(Pretokenizer *p, const char *text, size_t length);

/* The last place in text[length] where it may be cut, or 0 if there is none. Where special tokens count too, specials_cut. */
size_t pretoken_cut(const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif
