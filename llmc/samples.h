/* samples.h: RUN/samples.txt, what a model writes while it learns: a line "--- step N", then the prompt and what it goes on with, and so on. Of
   rank 0. */
#ifndef LLMC_SAMPLES_H
#define LLMC_SAMPLES_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Samples Samples;

/* vocabulary: the directory of one, or NULL. V: the model's. Samples of steps after `step` (a run resumed from an earlier checkpoint) are dropped
   from the file. NULL where there can be none: without a vocabulary that has the prompt; silently, unless the user asked for samples. */
Samples *samples_open(const char *run, const Options *options, const char *vocabulary, int64_t V, int64_t step);
/* Appends a sample of the model as it is after its last update, which stays as it is to the bit; a copy of its parameters does the work. `backend`
   is the plain one of its device. The first failure (no memory, no room on the disk, broken weights) is warned of, and is the end of samples. */
void samples_write(Samples *samples, const Model *trained, const Backend *backend, int64_t step);
/* NULL is fine, here and above. */
void samples_close(Samples *samples);

#ifdef __cplusplus
}
#endif
#endif
