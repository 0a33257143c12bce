/* agree.h: what the ranks of a run must have alike, compared; each function is called on every rank, and dies naming the rank that differs. */
#ifndef LLMC_AGREE_H
#define LLMC_AGREE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every option has the same value. */
void agree_on_options(Team *team, const Options *options);
/* The bits of all parameters are rank 0's. */
void agree_on_parameters(Model *m, int64_t step);
/* After a step whose loss or gradient norm is not finite: the first rank whose own part of the loss is not (rank 0 if that cannot be said) dies with step,
   numbers and advice; the others end with it. */
void agree_on_bad_numbers(Team *team, int64_t step, const StepOutcome *outcome) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif
#endif
