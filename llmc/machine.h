/* machine.h: what this machine can do, measured through the backend itself, and what this process takes of it. */
#ifndef LLMC_MACHINE_H
#define LLMC_MACHINE_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* FLOP/s of a matrix product of n = 2048 in that dtype: the median over at least `seconds`. */
double machine_matmul_rate(const Backend *backend, DType dtype, double seconds);
/* Bytes/s of reading and writing large arrays: the median over at least `seconds`. */
double machine_bandwidth(const Backend *backend, double seconds);
/* Seconds on a clock that never goes back. */
double machine_seconds(void);
/* Largest resident size of this process so far, in bytes. */
double machine_peak_memory(void);

#ifdef __cplusplus
}
#endif
#endif
