/* attention.cuh: which attention runs, and what it needs (attention.cu), and the reference that can do every case (attention_plain.cu). */
#ifndef KERNELS_ATTENTION_CUH
#define KERNELS_ATTENTION_CUH

#include "ops.h"

/* Takes over cuda_settings: attention and deterministic. */
void attention_configure(void);
/* "own", "plain", or cuDNN's name and version, for the banner. */
const char *attention_library(void);
/* See Backend.attention_scratch. */
size_t attention_scratch(int64_t B, int64_t T, int NH, int NKV, int HS, DType dtype, int dropout, int backward);

/* The ops attention_forward and attention_backward on CUDA cores in fp32 arithmetic: any head size, either dtype. Backward expects delta
   written. */
void plain_forward(Tensor out, Tensor lse, Tensor qkv, int NH, int NKV, Dropout drop, Stream *s);
void plain_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor lse, Tensor qkv, int NH, int NKV, Dropout drop, Stream *s);

#endif
