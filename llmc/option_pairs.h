/* option_pairs.h: options of train_gpt that contradict each other, and options that have no part in what the others ask for. */
#ifndef LLMC_OPTION_PAIRS_H
#define LLMC_OPTION_PAIRS_H

#include "options.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --grad-accum, --total-batch and --batch-schedule each say how large a step is: the one from the strongest source (options.h) counts, and the others
   are forgotten. Dies where two of one source say different things, and where the schedule is none. */
void options_settle_batch(Options *o);
/* The same for --grad-accum and --total-batch, once it is known how many tokens a micro-batch has, of all ranks together. Returns the micro-batches
   of a rank, and dies if --total-batch is no multiple. */
int64_t options_grad_accum(const Options *o, int64_t micro, int64_t ranks);
/* A warm-up that nobody has given, but a preset, becomes as short as suits the steps (schedule_sensible_warmup). Returns what it was before, or 0
   where it stays. Dies where what was given contradicts the rest (schedule_check_lr); a run that goes on as it began is not judged. */
int64_t options_settle_schedule(Options *o);
/* Dies where two options cannot be had together. */
void options_refuse_pairs(const Options *o);

/* What a run turned out to be. */
typedef struct {
    bool cpu, bf16;
    bool loaded;      /* its weights come from a directory */
} RunKind;
/* A warning for each option that was given, on the command line or in a file, and changes nothing. */
void options_warn_idle(const Options *o, const RunKind *kind);

#ifdef __cplusplus
}
#endif
#endif
