/* onednn.h: a plain matrix product, through oneDNN (2.x and 3.x; onednn.c is the one place that talks to it) or in portable C. */
#ifndef KERNELS_ONEDNN_H
#define KERNELS_ONEDNN_H

#include "ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* D(M,N) = op(A) op(B) + bias(N), added to D if `add`, with fp32 accumulation. A is (M,K), or (K,M) if transpose_a; B is (K,N), or (N,K)
   if transpose_b; all dense row-major, none empty, A and B of one dtype (F32 or BF16), D F32 or BF16, bias F32 or BF16 or NULL.
   Returns 0 if this build has no oneDNN or oneDNN has no fast product of this kind on this CPU. */
int onednn_matmul(void *D, DType d_dtype, const void *A, const void *B, DType ab_dtype, const void *bias, DType bias_dtype,
                  int64_t M, int64_t N, int64_t K, int transpose_a, int transpose_b, int add);

/* The same product in portable C; here M, N and K may be 0. */
void portable_matmul(void *D, DType d_dtype, const void *A, const void *B, DType ab_dtype, const void *bias, DType bias_dtype,
                     int64_t M, int64_t N, int64_t K, int transpose_a, int transpose_b, int add);

/* Whether bf16 products run at the CPU's own bf16 rate here (AVX512-BF16 or AMX, through oneDNN). */
int matmul_supports_bf16(void);

#ifdef __cplusplus
}
#endif
#endif
