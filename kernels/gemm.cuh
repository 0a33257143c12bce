/* gemm.cuh: matrix products with an epilogue, by cuBLASLt (gemm.cu), or in the emulator by plain loops. */
#ifndef KERNELS_GEMM_CUH
#define KERNELS_GEMM_CUH

#include "ops.h"

/* Takes over cuda_settings: tf32, deterministic, autotune and the file of algorithms. */
void gemm_configure(void);
/* Name and version of the library, for the banner. */
const char *gemm_library(void);
/* See Backend.algorithms and Backend.set_algorithms. */
const char *gemm_algorithms(void);
int gemm_set_algorithms(const char *text);

#endif
