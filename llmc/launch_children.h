/* launch_children.h: the ranks that --gpus N starts on this machine, for launch.c. */
#ifndef LLMC_LAUNCH_CHILDREN_H
#define LLMC_LAUNCH_CHILDREN_H

#include "rendezvous.h"

/* Starts place->ranks copies of this process. Returns true in each of them, with its place; in the parent, once all have ended, false and the exit
   status: 0 if all left with 0, else that of the first which did not (128 + n after signal n). Signals that ask a program to end or to save go to
   all of them. No copy outlives the parent, and those left 20 s after the first failure are killed. */
bool children_start(TeamPlace *place, int *status);

#endif
