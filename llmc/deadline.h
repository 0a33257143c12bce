/* deadline.h: when a run with a time limit must stop, so that its last checkpoint is written within it: what is still to be done takes as long as it
   took before. */
#ifndef LLMC_DEADLINE_H
#define LLMC_DEADLINE_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { PART_STEP, PART_EVALUATION, PART_SAMPLE, PART_CHECKPOINT, DEADLINE_PARTS } DeadlinePart;

typedef struct {
    double at;                           /* machine_seconds; infinity: none */
    double seconds[DEADLINE_PARTS];      /* that each part takes, by the slowest of late */
} Deadline;

/* seconds from now on; 0: no limit. checkpoint: seconds that one may take, until it is known. */
void deadline_open(Deadline *d, double now, double seconds, double checkpoint);
/* So long it took. What was slow once, as a first step is, counts for less and less: a tenth less each time. 0 is no news. */
void deadline_took(Deadline *d, DeadlinePart part, double seconds);
/* True if there is no time any more to do each part so many times. */
bool deadline_near(const Deadline *d, double now, const int times[DEADLINE_PARTS]);

#ifdef __cplusplus
}
#endif
#endif
