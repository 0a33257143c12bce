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
/* A GPU, by words of its name. Its published peak of dense bf16 products summed in fp32; for some, what the design counts on: bandwidth and matmul
   rate as others measured them, else 0. */
typedef struct { const char *name; double tera_flops, tera_bytes_real, tera_flops_real; } Card;
/* NULL for the CPU, for a card that is not in the list, and for a slice (MIG) or a lesser card of that name (Laptop, D). */
const Card *machine_card(const Backend *backend);
/* FLOP/s that a model's are counted against (MFU: Chowdhery et al. 2022, "PaLM", appendix B) and where they are from: "published" of a GPU in bf16;
   "measured" of the CPU, in 0.1 s or so: the fastest product. 0 and NULL: unknown. */
typedef struct { double flops; const char *from; } Peak;
Peak machine_peak(const Backend *backend, DType dtype);
/* What part of the peak so many FLOP/s are; 0: it is unknown. A measured peak that they outdo was measured while the machine was busy, and rises to
   them. */
double machine_utilization(Peak *peak, double flops);
/* Bytes/s of reading and writing large arrays: the median over at least `seconds`. A copy takes 10 ms, or is of 1 GiB, or of what half of the
   free memory holds. */
double machine_bandwidth(const Backend *backend, double seconds);
/* Seconds between calling an op that has almost nothing to do and knowing that it is done. */
double machine_wait_seconds(const Backend *backend);
/* Seconds on a clock that never goes back. */
double machine_seconds(void);
/* For the first line of main(): has OpenMP's threads wait for each other asleep after a tenth of a millisecond or so. GCC's spin for milliseconds
   unless told otherwise before the program begins, and on a machine that does other work too they spin away the time in which the one they wait for
   could run: training is then several times slower. So the program starts itself anew, told so; not where GOMP_SPINCOUNT or OMP_WAIT_POLICY says
   what is wanted. */
void machine_share_cores(char **argv);
/* Largest resident size of this process so far, in bytes. */
double machine_peak_memory(void);

#ifdef __cplusplus
}
#endif
#endif
