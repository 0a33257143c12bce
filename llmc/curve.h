/* curve.h: RUN/curve.png, drawn by scripts/plot.py where that lies beside the program's own file, and where python3 (that of the PATH, else
   /usr/bin/python3) has matplotlib. */
#ifndef LLMC_CURVE_H
#define LLMC_CURVE_H

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Silent whatever happens; waits at most so many seconds, and no longer once *give_up is set. */
void curve_draw(const char *run, double seconds, const volatile sig_atomic_t *give_up);

#ifdef __cplusplus
}
#endif
#endif
