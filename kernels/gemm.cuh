/* gemm.cuh: matrix products with an epilogue, by cuBLASLt (gemm.cu), or in the emulator by plain loops (its stand-in). */
#ifndef KERNELS_GEMM_CUH
#define KERNELS_GEMM_CUH

#include "ops.h"

#include <functional>

/* What happens to the fp32 sums before they are rounded and stored. */
typedef enum {
    GEMM_PLAIN,
    GEMM_GELU,            /* D = gelu(sums), the tanh form; the sums themselves go to aux, unless that is NULL */
    GEMM_DGELU,           /* D = sums * gelu'(aux) */
    GEMM_BIAS_GRADIENT,   /* D = sums, and bias_gradient(M) = the row sums of op(A) */
} GemmEpilogue;

/* D(M,N) = epilogue(op(A) op(B) + C + bias), dense and row-major. A is stored (M,K), or (K,M) if transpose_a; B (K,N), or (N,K) if
   transpose_b. Absent parts are NULL; `Gemm g = {}` is a plain product of nothing yet. */
typedef struct {
    void *D;
    const void *A, *B;
    const void *C;         /* (M,N) of D's dtype; may be D: the product is then added to it */
    const void *bias;      /* (N) of D's dtype */
    void *aux;             /* (M,N) of D's dtype */
    void *bias_gradient;   /* (M) of D's dtype, assigned */
    DType dtype, d_dtype;  /* of A and B; of D: F32 or BF16 */
    int64_t M, N, K;       /* none 0 */
    int transpose_a, transpose_b;
    GemmEpilogue epilogue;
} Gemm;

/* Queues the product in one library call; 0, and nothing is queued, if the library has no algorithm for what is asked and where the tensors
   lie. A product that should work and does not ends the program. */
int gemm(const Gemm *g, Stream *s);

/* 1 if an activation in the epilogue is usually faster here than a kernel of its own. */
int gemm_fuses_activations(void);

/* Does a piece of work, called `what` of a product of M x N x K, in one of two ways: each queues it and returns 1, or returns 0 if it
   cannot; `apart` always can. With cuda_settings.autotune both are timed at the first call that may be repeated (the work assigns its
   results) and is not under capture, and the faster is kept as one of the algorithms; until then, and otherwise, it is the usual one. */
void gemm_either(const char *what, int64_t M, int64_t N, int64_t K, const std::function<int()> &fused, const std::function<int()> &apart,
                 int usually_fused, int repeatable, Stream *s);

/* Takes over cuda_settings: tf32, deterministic, autotune and the file of algorithms; opens the library: not under capture. */
void gemm_configure(void);
/* Device memory that the library works in. */
size_t gemm_workspace_bytes(void);
/* Name and version of the library, for the banner. */
const char *gemm_library(void);
/* See Backend.algorithms and Backend.set_algorithms; what is set holds for products that have not been done yet. */
const char *gemm_algorithms(void);
int gemm_set_algorithms(const char *text);

#endif
