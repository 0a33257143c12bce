/* generate.h: writing text with a model: what sample_gpt and the samples of a run (samples.h) share. */
#ifndef LLMC_GENERATE_H
#define LLMC_GENERATE_H

#include "model.h"
#include "tokenizer.h"

#include <signal.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes of spec, whose config and dtype are set, that of a model that writes: with room for prompt and text, or for as much of them as it can see
   at once. */
void generate_spec(ModelSpec *spec, int64_t prompt_length, int64_t max_tokens);
/* The prompt's tokens, *length >= 1 of them, all below the model's V; free() them. NULL with a sentence: it is empty, has a character that the
   vocabulary lacks, or is of a vocabulary larger than the model's. */
int32_t *generate_prompt(const Tokenizer *tokenizer, const char *text, int64_t V, int64_t *length, char error[ERROR_SIZE]);
typedef enum { TEXT_WHOLE, TEXT_CUT_SHORT, TEXT_NOT_FINITE } TextEnd;

/* Writes the prompt, what the model goes on with (o->max_tokens of it, or up to the end of the text), and a newline to file: as UTF-8, as it comes.
   o->seed is the sample's own. When the context is full, its older half is forgotten and the rest is fed again, so that a token costs the same
   however long the text grows. It ends where the logits are not finite, and before the next token once *give_up is not 0, with whole characters and
   the newline all the same. */
TextEnd generate_text(Model *m, const SampleOptions *o, const Tokenizer *tokenizer, const int32_t *prompt, int64_t prompt_length,
                      const volatile sig_atomic_t *give_up, FILE *file);

#ifdef __cplusplus
}
#endif
#endif
