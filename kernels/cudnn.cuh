/* cudnn.cuh: the little of cuDNN 9's backend interface that sdpa.cu uses, so that the program needs cuDNN neither to be built nor to run.
   Names, values and signatures are cuDNN's; dev/sdpa_plan.cu holds these two lists against its headers where they are installed. */
#ifndef KERNELS_CUDNN_CUH
#define KERNELS_CUDNN_CUH

#include <stddef.h>
#include <stdint.h>

/* X(result, name after "cudnn", arguments) */
#define CUDNN_FUNCTIONS(X)                                                                                                            \
    X(size_t, GetVersion, (void))                                                                                                     \
    X(void, GetLastErrorString, (char *message, size_t max_size))                                                                     \
    X(cudnnStatus_t, Create, (cudnnHandle_t *handle))                                                                                 \
    X(cudnnStatus_t, SetStream, (cudnnHandle_t handle, cudaStream_t stream))                                                          \
    X(cudnnStatus_t, BackendCreateDescriptor, (cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor))              \
    X(cudnnStatus_t, BackendDestroyDescriptor, (cudnnBackendDescriptor_t descriptor))                                                 \
    X(cudnnStatus_t, BackendSetAttribute, (cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,                     \
      cudnnBackendAttributeType_t type, int64_t count, const void *elements))                                                         \
    X(cudnnStatus_t, BackendGetAttribute, (cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,                     \
      cudnnBackendAttributeType_t type, int64_t requested, int64_t *count, void *elements))                                           \
    X(cudnnStatus_t, BackendFinalize, (cudnnBackendDescriptor_t descriptor))                                                          \
    X(cudnnStatus_t, BackendExecute, (cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t variant_pack))

/* X(name, value) */
#define CUDNN_CONSTANTS(X)                                                                                                            \
    X(CUDNN_STATUS_SUCCESS, 0)                                                                                                        \
    /* cudnnDataType_t */                                                                                                             \
    X(CUDNN_DATA_FLOAT, 0) X(CUDNN_DATA_INT32, 4) X(CUDNN_DATA_BFLOAT16, 9) X(CUDNN_DATA_BOOLEAN, 11)                                 \
    /* cudnnPointwiseMode_t */                                                                                                        \
    X(CUDNN_POINTWISE_ADD, 0) X(CUDNN_POINTWISE_MUL, 1) X(CUDNN_POINTWISE_DIV, 6) X(CUDNN_POINTWISE_SUB, 9)                           \
    X(CUDNN_POINTWISE_EXP, 13) X(CUDNN_POINTWISE_LOG, 15) X(CUDNN_POINTWISE_IDENTITY, 21) X(CUDNN_POINTWISE_CMP_GE, 303)              \
    X(CUDNN_POINTWISE_GEN_INDEX, 501) X(CUDNN_POINTWISE_BINARY_SELECT, 601)                                                           \
    /* cudnnReduceTensorOp_t */                                                                                                       \
    X(CUDNN_REDUCE_TENSOR_ADD, 0) X(CUDNN_REDUCE_TENSOR_MAX, 3)                                                                       \
    /* cudnnBackendHeurMode_t */                                                                                                      \
    X(CUDNN_HEUR_MODE_A, 3)                                                                                                           \
    /* cudnnBackendDescriptorType_t */                                                                                                \
    X(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, 0) X(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, 3)                                                 \
    X(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, 4) X(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, 5)                                           \
    X(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, 13) X(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, 15)                                \
    X(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, 16) X(CUDNN_BACKEND_TENSOR_DESCRIPTOR, 17) X(CUDNN_BACKEND_MATMUL_DESCRIPTOR, 18)        \
    X(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, 19) X(CUDNN_BACKEND_REDUCTION_DESCRIPTOR, 21)                                        \
    X(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, 22) X(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, 31)                             \
    X(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, 38)                                                                                        \
    /* cudnnBackendAttributeType_t */                                                                                                 \
    X(CUDNN_TYPE_HANDLE, 0) X(CUDNN_TYPE_DATA_TYPE, 1) X(CUDNN_TYPE_BOOLEAN, 2) X(CUDNN_TYPE_INT64, 3) X(CUDNN_TYPE_VOID_PTR, 6)      \
    X(CUDNN_TYPE_HEUR_MODE, 8) X(CUDNN_TYPE_POINTWISE_MODE, 14) X(CUDNN_TYPE_BACKEND_DESCRIPTOR, 15)                                  \
    X(CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 18) X(CUDNN_TYPE_CHAR, 24)                                                                  \
    /* cudnnBackendAttributeName_t */                                                                                                 \
    X(CUDNN_ATTR_POINTWISE_MODE, 0) X(CUDNN_ATTR_POINTWISE_MATH_PREC, 1) X(CUDNN_ATTR_POINTWISE_AXIS, 9)                              \
    X(CUDNN_ATTR_ENGINEHEUR_MODE, 200) X(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 201) X(CUDNN_ATTR_ENGINEHEUR_RESULTS, 202)            \
    X(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, 204)                                                                                          \
    X(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, 400) X(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 401)                                          \
    X(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 402) X(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, 407)                                     \
    X(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 750) X(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 751)                                 \
    X(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 752) X(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, 753)                                         \
    X(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, 758) X(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, 800) X(CUDNN_ATTR_OPERATIONGRAPH_OPS, 801)       \
    X(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 900) X(CUDNN_ATTR_TENSOR_DATA_TYPE, 901) X(CUDNN_ATTR_TENSOR_DIMENSIONS, 902)                 \
    X(CUDNN_ATTR_TENSOR_STRIDES, 903) X(CUDNN_ATTR_TENSOR_UNIQUE_ID, 906) X(CUDNN_ATTR_TENSOR_IS_VIRTUAL, 907)                        \
    X(CUDNN_ATTR_TENSOR_IS_BY_VALUE, 908) X(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 1000)                                                 \
    X(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, 1001) X(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, 1003)                                         \
    X(CUDNN_ATTR_MATMUL_COMP_TYPE, 1500) X(CUDNN_ATTR_OPERATION_MATMUL_ADESC, 1520)                                                   \
    X(CUDNN_ATTR_OPERATION_MATMUL_BDESC, 1521) X(CUDNN_ATTR_OPERATION_MATMUL_CDESC, 1522) X(CUDNN_ATTR_OPERATION_MATMUL_DESC, 1523)   \
    X(CUDNN_ATTR_REDUCTION_OPERATOR, 1600) X(CUDNN_ATTR_REDUCTION_COMP_TYPE, 1601) X(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, 1610)      \
    X(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, 1611) X(CUDNN_ATTR_OPERATION_REDUCTION_DESC, 1612)                                        \
    X(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, 2200) X(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, 2201)                                           \
    X(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, 2702)

#ifndef CUDNN_H_   /* the include guard of cuDNN's own header */
typedef struct cudnnContext *cudnnHandle_t;
typedef void *cudnnBackendDescriptor_t;
/* Enumerations in cuDNN; all of them are passed as ints. */
typedef int cudnnStatus_t, cudnnBackendDescriptorType_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t;
enum {
#define X(name, value) name = value,
    CUDNN_CONSTANTS(X)
#undef X
};
#endif

#endif
