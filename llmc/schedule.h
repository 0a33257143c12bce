/* schedule.h: what changes over a run by plan: learning rate and batch size. */
#ifndef LLMC_SCHEDULE_H
#define LLMC_SCHEDULE_H

#include "options.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The learning rate of optimizer step t, from 0. With w = warmup, e = decay_steps (or steps), a = lr, b = min_lr:
     constant      t < w: a t/w (or a (t+1)/w); then a
     linear        then from a at w to b at e, straight; then b
     cosine        then b + 1/2 (1 + cos(pi (t-w)/(e-w))) (a-b); after e: b
     wsd           then a; over the last decay_steps (or a fifth) of steps straight down to b
     inverse-sqrt  a n_embd^-1/2 min((t+1)^-1/2, (t+1) w^-3/2)   (Vaswani et al. 2017)
     sqrt-decay    a / sqrt(t+1) */
double schedule_lr(const Options *options, int64_t t);

/* Micro-batches of optimizer step t: --batch-schedule where it says, else grad_accum. */
int64_t schedule_grad_accum(const Options *options, int64_t t);
/* The fewest and the most of any step. */
int64_t schedule_least_grad_accum(const Options *options);
int64_t schedule_most_grad_accum(const Options *options);
/* Whether any of the steps has the peak learning rate; true of no steps. */
bool schedule_reaches_peak(const Options *options);
/* The warm-up that suits so many steps where a preset says how long it is: `warmup`, but at most a tenth of the steps (of decay_steps, where the
   decay ends there), so that it is over before the decay begins. */
int64_t schedule_sensible_warmup(const Options *options);
/* False with a sentence if the options contradict each other: the decay ends (linear, cosine) or has begun (wsd) before the warm-up is over, is
   longer than the run (wsd), or leads upwards. */
bool schedule_check_lr(const Options *options, char error[ERROR_SIZE]);
/* Checks the text of --batch-schedule: ascending steps from 0, counts of at least 1. */
bool schedule_check(const Options *options, char error[ERROR_SIZE]);
/* The counts of --batch-schedule, or without one grad_accum, for `to` ranks where they were for `from`: steps from number `now` on then have as many rows as
   before; what of the schedule is over by then is left out. False, naming the count that does not divide, with nothing changed. */
bool schedule_rescale(Options *options, int64_t now, int64_t from, int64_t to, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
