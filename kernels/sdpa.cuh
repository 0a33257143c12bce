/* sdpa.cuh: causal attention by NVIDIA's cuDNN 9, where it is installed (sdpa.cu). The library is loaded at run time: without it the
   program builds and runs as before, and attention.cu takes its own kernels.

   The shapes, and what the ops compute, are those of attention_forward and attention_backward in ops.h, in BF16 and without dropout. A plan
   is made when a shape is first asked about; that takes up to a second, and is not possible while a stream is captured: ask beforehand. */
#ifndef KERNELS_SDPA_CUH
#define KERNELS_SDPA_CUH

#include "ops.h"

/* "cuDNN 9.19", or NULL if there is no libcudnn.so.9 here, or one without a function that is needed. */
const char *sdpa_library(void);
/* Why sdpa_library last gave NULL, or why sdpa_can last gave 0: one line. */
const char *sdpa_refusal(void);
/* 1 if cuDNN can do these shapes on this device, under cuda_settings.deterministic. */
int sdpa_can(int64_t B, int64_t T, int NH, int NKV, int HS, int backward);
/* Bytes of scratch that sdpa_forward or sdpa_backward wants; 0 also where sdpa_can is 0. */
size_t sdpa_workspace(int64_t B, int64_t T, int NH, int NKV, int HS, int backward);

/* Both end the program with cuDNN's own words if it refuses. scratch holds sdpa_workspace bytes, aligned to 256. */
void sdpa_forward(Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Stream *s);
void sdpa_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Stream *s);

/* For checks on a machine without a GPU: from here on plans are made for the device that these properties (JSON, as cuDNN writes it)
   describe. They cannot be run. */
void sdpa_for_device(const char *properties);

#endif
