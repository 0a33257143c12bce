/* spikes.h: which loss or gradient norm is out of the ordinary: one more than so many standard deviations above the mean of the last.

   The thresholds of step s come from steps up to s - 2, on every device, so that they are known before s begins even where outcomes are read a step late,
   and a resumed run has the same. A spike counts as much as its threshold: it does not hide the next one, and where the level itself has moved the window
   follows. */
#ifndef LLMC_SPIKES_H
#define LLMC_SPIKES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SPIKE_WINDOW = 128, SPIKE_LEAST = 32 };   /* steps kept; fewer than SPIKE_LEAST say nothing yet */

/* Outcomes of the last steps: that of step s at s % SPIKE_WINDOW. Begins as zeros. */
typedef struct {
    int64_t count, newest;                                 /* steps noted one behind the other, at most SPIKE_WINDOW; the last of them */
    float losses[SPIKE_WINDOW], norms[SPIKE_WINDOW];
} SpikeGuard;

/* Notes the outcome of step number `step`, both numbers finite, with the z that its thresholds had. */
void spikes_note(SpikeGuard *g, double z, int64_t step, double loss, double grad_norm);
/* Above what the loss and the norm of step number `step` count as spikes: z standard deviations over the mean of steps step - SPIKE_WINDOW + 1 ... step - 2,
   as far as there are some; 0, which is none, with z = 0 or too few of them. */
void spikes_thresholds(const SpikeGuard *g, double z, int64_t step, double *spike_loss, double *spike_norm);

#ifdef __cplusplus
}
#endif
#endif
