/* flash.cuh: attention on tensor cores (flash.cu): bf16, head sizes that are multiples of 8 up to 128. */
#ifndef KERNELS_FLASH_CUH
#define KERNELS_FLASH_CUH

#include "ops.h"

int flash_can(int HS);
/* Bytes of scratch for flash_backward: 0 if cuda_settings.deterministic, else room for an fp32 dQ. */
size_t flash_scratch(int64_t B, int64_t T, int NH, int HS);
/* The ops attention_forward and attention_backward. Backward expects delta written. */
void flash_forward(Tensor out, Tensor lse, Tensor qkv, int NH, int NKV, Dropout drop, Stream *s);
void flash_backward(Tensor dqkv, Tensor delta, Tensor dout, Tensor lse, Tensor qkv, Tensor scratch, int NH, int NKV, Dropout drop,
                    Stream *s);

#endif
