/* pretoken_count.h: the distinct pre-tokens of a text, with how often each occurs. The text is read in pieces by several threads; memory
   follows from the number of distinct pre-tokens and from the longest stretch without a place to cut, not from the length of the text. */
#ifndef LLMC_PRETOKEN_COUNT_H
#define LLMC_PRETOKEN_COUNT_H

#include "pretokenize.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Text is cut at the ends of files and at special tokens, which are counted for themselves. */
typedef struct {
    const char *const *files, *const *specials;
    int64_t file_count, special_count;
    int threads;
    Pretokenization pretokenization;
} Corpus;

typedef struct {
    const char *bytes;
    uint64_t length, hash;
    int64_t count;
} CountedPretoken;

typedef struct {
    CountedPretoken *pretokens;             /* each once, in no order */
    int64_t distinct;
    int64_t bytes, total, specials;         /* of the text: its bytes, pre-tokens and special tokens */
    struct ByteBlock *blocks;               /* that hold the bytes */
} PretokenCounts;

/* False with a sentence: a special token empty or given twice, a file that cannot be read, no PCRE2, no utf8proc where a text is to be
   normalised. */
bool pretoken_count(PretokenCounts *counts, const Corpus *corpus, char error[ERROR_SIZE]);
void pretoken_counts_free(PretokenCounts *counts);

#ifdef __cplusplus
}
#endif
#endif
