/* trainer_run.h: the directory of a trainer's run, its lock, and what is written there besides the log of every step. Not for others. */
#ifndef LLMC_TRAINER_RUN_H
#define LLMC_TRAINER_RUN_H

#include "trainer.h"

/* Every rank calls it when the model is there; rank 0 makes the directory, sets an earlier run in it aside, and opens log, record, samples and
   writer. resumed: the checkpoint that this run goes on from, or NULL. Dies where that cannot be done, and where another run than the
   checkpoint's is in the directory. */
void trainer_open_run(Trainer *t, int argc, char **argv, const char *resumed);
/* Waits for the checkpoint under way. */
void trainer_close_run(Trainer *t);

#endif
