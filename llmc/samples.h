/* samples.h: RUN/samples.txt, what a model writes while it learns: a line "--- step N", then the prompt and what it goes on with, and so on. Of
   rank 0. */
#ifndef LLMC_SAMPLES_H
#define LLMC_SAMPLES_H

#include "model.h"

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Samples Samples;

/* vocabulary: the directory of one, or NULL. V: the model's. Samples of steps after `step` (a run resumed from an earlier checkpoint) are dropped
   from the file. NULL where there can be none: without a vocabulary that has the prompt; silently, unless the user asked for samples. */
Samples *samples_open(const char *run, const Options *options, const char *vocabulary, int64_t V, int64_t step);
/* The step of the last sample in the file; -1 if there is none. */
int64_t samples_newest_step(const Samples *samples);
/* Appends a sample of the model as it is after its last update, which stays as it is to the bit; a copy of its parameters does the work. `backend`
   is the plain one of its device. Once *give_up is not 0 it ends within a token, and nothing is appended. A failure (no memory, no room on the disk,
   broken weights) is warned of, the first of several in a row. */
void samples_write(Samples *samples, const Model *trained, const Backend *backend, int64_t step, const volatile sig_atomic_t *give_up);
/* NULL is fine, here and above. */
void samples_close(Samples *samples);

#ifdef __cplusplus
}
#endif
#endif
