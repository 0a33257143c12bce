/* progress.h: what a run prints while it trains. On a terminal: a live line at the bottom, written over at every step, and above it the lines
   that last (evaluations, spikes). Elsewhere, or on a terminal that can move no cursor (TERM is dumb or missing, or it has no columns): a line for
   a step that is logged, and one for an evaluation. Quiet: nothing.

   Nobody waits for the reader of standard output: as long as it takes nothing in (a terminal stopped by Ctrl-S, a connection gone to sleep, a full
   pipe) steps are left out. Where it cannot be written at all, as to a full disk or after `| head`, a warning says so once. */
#ifndef LLMC_PROGRESS_H
#define LLMC_PROGRESS_H

#include "logger.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { PROGRESS_QUIET, PROGRESS_PLAIN, PROGRESS_LIVE } ProgressKind;

typedef struct {
    ProgressKind kind;
    bool drawn;            /* the live line stands on the terminal */
    bool lost;             /* standard output cannot be written, which has been said */
    double drawn_at;       /* machine_seconds */
    double val_loss;       /* of the last evaluation; 0: none yet */
} Progress;

/* live: if the terminal can. Then messages of warn() and die() take the place of the live line (error.h). One at a time in a process. */
void progress_open(Progress *p, bool quiet, bool live);
/* A step is done. shown: one that has a plain line. */
void progress_step(Progress *p, const StepReport *report, bool shown);
/* What is done now that there are no steps any more takes the live line's place. */
void progress_say(Progress *p, const char *what);
/* Takes the live line away, for what is printed next: at the end, too. */
void progress_clear(Progress *p);
/* What an evaluation found, without a newline. */
void progress_print_evaluation(const StepReport *report);

enum { PROGRESS_WIDEST = 256 };
/* The live line for a terminal of so many columns: what does not fit is left out, the least important first. ASCII, so a byte is a column; at
   most columns - 3 of them: no line ever wraps, not even one on which the terminal echoes ^C. val_loss 0: unknown. */
void progress_live_line(char text[PROGRESS_WIDEST], const StepReport *report, double val_loss, int columns);

#ifdef __cplusplus
}
#endif
#endif
