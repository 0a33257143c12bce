/* pretokenize.h: pre-tokenisation: where a text may be cut before byte pairs are merged. Each way to do it is an expression, matched again and
   again by PCRE2 with its JIT (runs of ASCII by hand, which is faster and the same); white space is Unicode's property White_Space, spelled
   out, because PCRE2's \s is not the other tools'.

   gpt2      words with the space before them, numbers, punctuation (Radford et al. 2019)
   llama3    any mark before a word joins it, numbers go by three digits, punctuation takes the newlines behind it, white space ends at its last
             newline, contractions may be capitals (Llama 3; but for details tiktoken's cl100k_base)
   qwen2     the same with single digits, of a text in normal form C (nfc.h)
   smollm    GPT-2's with single digits, which no space joins (StarCoder, SmolLM)

   Three kinds of place lie between pre-tokens whatever surrounds them, so that a text may be cut there and each part gives the pre-tokens
   that the whole would:
   - before white space that follows something else. No pre-token goes on there, but for llama3 and qwen2 where it is a newline, which may
     belong to punctuation before it: no cut then, unless an ASCII letter or digit is before it.
   - behind an ASCII letter before any other ASCII character, and so behind a digit: the letters or digits of a pre-token are its end, and so
     is a contraction's last letter.
   - llama3, qwen2: behind a newline before anything but white space: only newlines follow a pre-token's newline.
   Normal form C of the parts is that of the whole there too: neither white space nor ASCII joins what is before it, nor a newline what is
   behind it; and what it makes of the two characters beside the place is of the same kind. pretoken_cut finds such a place. */
#ifndef LLMC_PRETOKENIZE_H
#define LLMC_PRETOKENIZE_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { PRETOKENS_GPT2, PRETOKENS_LLAMA3, PRETOKENS_QWEN2, PRETOKENS_SMOLLM, PRETOKENIZATIONS } Pretokenization;

const char *pretokenization_name(Pretokenization kind);
/* Whether a text goes with it in normal form C. */
bool pretokenization_normalizes(Pretokenization kind);
/* False if none has that name. */
bool pretokenization_named(const char *name, Pretokenization *kind);

/* One a thread. */
typedef struct Pretokenizer Pretokenizer;

/* NULL with the reason if this build has no PCRE2. */
Pretokenizer *pretokenizer_open(Pretokenization kind, char error[ERROR_SIZE]);
void pretokenizer_close(Pretokenizer *p);

/* Bytes of the pre-token that text[length] begins with: 1 to length, for any bytes; length is at least 1. What is not UTF-8 is a pre-token
   of its own, up to where UTF-8 begins again. */
size_t pretoken_length(Pretokenizer *p, const char *text, size_t length);

/* The same by the expression alone, for the test. */
size_t pretoken_length_by_expression(Pretokenizer *p, const char *text, size_t length);
/* From now on as where PCRE2 has no JIT, or may not use it: slower, and the same. For the test. */
void pretokenizer_leave_jit(Pretokenizer *p);

/* The last place in text[length] where it may be cut whatever follows, 0 if there is none. */
typedef size_t (*TextCut)(const void *context, const char *text, size_t length);
/* One, where there are no special tokens; where there are, specials_cut. kind points to a Pretokenization. */
size_t pretoken_cut(const void *kind, const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif
