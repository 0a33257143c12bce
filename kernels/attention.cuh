/* attention.cuh: which attention runs, and what it needs (attention.cu). */
#ifndef KERNELS_ATTENTION_CUH
#define KERNELS_ATTENTION_CUH

#include "ops.h"

/* Takes over cuda_settings: attention and deterministic. */
void attention_configure(void);
/* "own", "plain", or cuDNN's name and version, for the banner. */
const char *attention_library(void);
/* See Backend.attention_scratch. */
size_t attention_scratch(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward);

#endif
