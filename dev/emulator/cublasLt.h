/* cublasLt.h: the little of cuBLASLt's interface that kernels/gemm.cu uses, for dev/lt_standin.cpp, which takes the library's place in the
   emulator. Names and values are cuBLASLt's; where the toolkit is installed dev/lt_values.cu holds this list against its headers. */
#ifndef EMU_CUBLASLT_H
#define EMU_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

/* X(name, value) */
#define CUBLASLT_CONSTANTS(X)                                                                                                         \
    X(CUBLAS_STATUS_SUCCESS, 0) X(CUBLAS_STATUS_NOT_INITIALIZED, 1) X(CUBLAS_STATUS_INVALID_VALUE, 7)                                 \
    X(CUBLAS_STATUS_NOT_SUPPORTED, 15)                                                                                                \
    X(CUDA_R_32F, 0) X(CUDA_R_16BF, 14)                                                                                               \
    X(CUBLAS_OP_N, 0) X(CUBLAS_OP_T, 1)                                                                                               \
    X(CUBLAS_COMPUTE_32F, 68) X(CUBLAS_COMPUTE_32F_FAST_TF32, 77)                                                                     \
    /* cublasLtMatmulDescAttributes_t */                                                                                              \
    X(CUBLASLT_MATMUL_DESC_TRANSA, 3) X(CUBLASLT_MATMUL_DESC_TRANSB, 4) X(CUBLASLT_MATMUL_DESC_EPILOGUE, 7)                           \
    X(CUBLASLT_MATMUL_DESC_BIAS_POINTER, 8) X(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, 11)                                          \
    X(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 12)                                                                                       \
    /* cublasLtEpilogue_t */                                                                                                          \
    X(CUBLASLT_EPILOGUE_DEFAULT, 1) X(CUBLASLT_EPILOGUE_BIAS, 4) X(CUBLASLT_EPILOGUE_GELU, 32) X(CUBLASLT_EPILOGUE_GELU_BIAS, 36)     \
    X(CUBLASLT_EPILOGUE_GELU_AUX, 160) X(CUBLASLT_EPILOGUE_GELU_AUX_BIAS, 164) X(CUBLASLT_EPILOGUE_DGELU, 192)                        \
    X(CUBLASLT_EPILOGUE_BGRADB, 512)                                                                                                  \
    /* cublasLtReductionScheme_t */                                                                                                   \
    X(CUBLASLT_REDUCTION_SCHEME_INPLACE, 1) X(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2) X(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 4)  \
    /* cublasLtMatmulAlgoConfigAttributes_t */                                                                                        \
    X(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 3)                                                                                       \
    /* cublasLtMatmulPreferenceAttributes_t */                                                                                        \
    X(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 1) X(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 3)                                   \
    X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 5) X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 6)                                 \
    X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 7) X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 8)

#ifndef CUBLAS_VER_MAJOR   /* the toolkit's own headers define it */
enum {
#define X(name, value) name = value,
    CUBLASLT_CONSTANTS(X)
#undef X
};
/* Enumerations in the toolkit; all of them are passed as ints. */
typedef int cublasStatus_t, cudaDataType, cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatmulAlgoConfigAttributes_t;
typedef struct cublasLtContext *cublasLtHandle_t;
typedef struct StandinLayout *cublasLtMatrixLayout_t;
typedef struct StandinProduct *cublasLtMatmulDesc_t;
typedef struct StandinPreference *cublasLtMatmulPreference_t;
typedef struct { uint64_t data[8]; } cublasLtMatmulAlgo_t;
typedef struct {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
    int reserved[4];
} cublasLtMatmulHeuristicResult_t;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *library);
const char *cublasLtGetStatusName(cublasStatus_t status);
size_t cublasLtGetVersion(void);
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t pitch);
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t compute, cudaDataType scale);
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name, const void *value, size_t size);
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference);
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference);
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t size);
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t library, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[],
                                              int *found);
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t library, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulHeuristicResult_t *result);
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulAlgoConfigAttributes_t name,
                                                    void *value, size_t size, size_t *written);
cublasStatus_t cublasLtMatmul(cublasLtHandle_t library, cublasLtMatmulDesc_t product, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algorithm,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream);
#endif

#endif
