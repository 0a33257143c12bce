/* bpe_train.h: makes a byte-pair vocabulary of a text (Sennrich et al. 2016, algorithm 1; of bytes). Within pre-tokens, the most frequent
   pair of neighbouring tokens becomes a token, again and again.

   The count of a pair is the number of places where its two tokens are neighbours, overlapping ones too: "aaa" holds (a, a) twice. Of
   equally frequent pairs the greater is taken: by the bytes of its left token, then of its right one. It is merged from left to right:
   "aaa" becomes (aa, a). A pair of more than BPE_LONGEST_TOKEN bytes is left alone, so that a text of one letter gives no token as long
   as itself. The result follows from the text alone, not from the number of threads. */
#ifndef LLMC_BPE_TRAIN_H
#define LLMC_BPE_TRAIN_H

#include "bpe.h"
#include "pretoken_count.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BPE_LONGEST_TOKEN = 4096 };

typedef struct BpeTrainer BpeTrainer;

/* Reads the text. NULL with a sentence: what pretoken_count says, no text at all, or 4 GiB of distinct pre-tokens. */
BpeTrainer *bpe_trainer_open(const Corpus *corpus, char error[ERROR_SIZE]);
void bpe_trainer_close(BpeTrainer *trainer);

/* Makes up to `count` merges more; returns how many: fewer if no pair is left. */
int64_t bpe_trainer_merge(BpeTrainer *trainer, int64_t count);

/* For bpe_create: all the merges so far, valid until the next one. */
const BpeMerge *bpe_trainer_merges(const BpeTrainer *trainer, int64_t *count);

/* Of the text: its bytes, its pre-tokens, how many are distinct, and its tokens by the merges so far, special tokens being one each. */
typedef struct {
    int64_t bytes, pretokens, distinct, tokens;
} BpeTrainerReport;
BpeTrainerReport bpe_trainer_report(const BpeTrainer *trainer);

#ifdef __cplusplus
}
#endif
#endif
