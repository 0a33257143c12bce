/* machine.h: what this machine can do, measured through the backend itself, and what this process takes of it. */
#ifndef LLMC_MACHINE_H
#define LLMC_MACHINE_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* FLOP/s of a square matrix product in that dtype, on random numbers: the median over at least `seconds`. Its size is the first power of two that
   takes 30 ms, or 8192, or what half of the free memory holds. */
double machine_matmul_rate(const Backend *backend, DType dtype, double seconds);
/* Bytes/s of reading and writing large arrays: the median over at least `seconds`. A copy takes 10 ms, or is of 1 GiB, or of what half of the
   free memory holds. */
double machine_bandwidth(const Backend *backend, double seconds);
/* Seconds between calling an op that has almost nothing to do and knowing that it is done. */
double machine_wait_seconds(const Backend *backend);
/* Seconds on a clock that never goes back. */
double machine_seconds(void);
/* Largest resident size of this process so far, in bytes. */
double machine_peak_memory(void);

#ifdef __cplusplus
}
#endif
#endif
