/* hellaswag.h: HellaSwag (Zellers et al. 2019): which of four endings goes on with a text? A model takes the one it finds likeliest.

   The file has an example a line, {"context": "...", "endings": ["...", "...", "...", "..."], "label": 0}, made by data/hellaswag.py. It holds
   texts, not tokens, so that one file serves every vocabulary and none can be the wrong one. */
#ifndef LLMC_HELLASWAG_H
#define LLMC_HELLASWAG_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HELLASWAG_ENDINGS = 4 };

typedef struct Hellaswag Hellaswag;

/* The first `limit` examples of the file (0: all), as tokens of the vocabulary that lies in the directory `vocabulary` (NULL: nobody knows one).
   The context and an ending are joined by a blank and tokenised together; the ending's tokens are those after as many as the context alone has,
   blanks at its end apart. NULL with one sentence: no or a broken file, a line that is no example, characters or tokens that the vocabulary or a
   model of vocab_size tokens lacks. */
Hellaswag *hellaswag_open(const char *path, const char *vocabulary, int64_t vocab_size, int64_t limit, char error[ERROR_SIZE]);
void hellaswag_close(Hellaswag *h);
int64_t hellaswag_examples(const Hellaswag *h);

/* Several ranks share the work, and each has all results.
   sums(examples,4) and means(examples,4): the losses of each ending's tokens given what stands before them, in nats. What is longer than the
   model's T + 1 tokens keeps its end. */
void hellaswag_losses(const Hellaswag *h, Model *m, double *sums, double *means);

/* Shares of the examples whose true ending has the least sum (acc) and the least mean (acc_norm) of the four, the first of equals; NaN if a loss
   is not finite. (Others divide by the characters of the ending instead of its tokens for acc_norm.) */
typedef struct {
    int64_t examples;
    double acc, acc_norm;
} HellaswagScore;
HellaswagScore hellaswag_evaluate(const Hellaswag *h, Model *m);

#ifdef __cplusplus
}
#endif
#endif
