/* deadline.c: see deadline.h. */
#include "deadline.h"

#include <math.h>

void deadline_open(Deadline *d, double now, double seconds, double checkpoint) {
    *d = (Deadline){.at = seconds > 0 ? now + seconds : INFINITY};
    d->seconds[PART_CHECKPOINT] = checkpoint;
}

void deadline_took(Deadline *d, DeadlinePart part, double seconds) {
    if (seconds > 0) d->seconds[part] = fmax(seconds, 0.9 * d->seconds[part]);
}

bool deadline_near(const Deadline *d, double now, const int times[DEADLINE_PARTS]) {
    double needed = 0;
    for (int i = 0; i < DEADLINE_PARTS; i++) needed += times[i] * d->seconds[i];
    return now + needed >= d->at;
}
