/* lt_standin.cpp: in the emulator, in place of cuBLASLt: so kernels/gemm.cu itself is run, with its descriptors, its choice of algorithms and what
   it keeps of them. It ends the program where the library would be misled (an attribute of another size, a pointer that is not set), and is as
   difficult as the library may be:

   - of what it suggests, one has a state other than success, one is refused when it is run, one needs a workspace, which it spoils, one adds up
     in the result itself, and the library's first choice is not the fastest;
   - an algorithm is no use for another product than the one it was suggested for, nor for tensors that are aligned worse;
   - an algorithm run for the first time inside a capture is refused, as a kernel would have to be loaded for it;
   - GELU is done in bf16 alone and with rows of a multiple of 8 elements, and bf16 matrices with rows of odd lengths not at all.

   Pointers, alpha and beta are read at the call, as the library reads them. Time is the number of pieces of work (emu_runtime.h): of an algorithm
   one, and as many more as its slowness says, and two more with GELU. */
#include "kernels/cu.h"
#include "kernels/onednn.h"

#include <cublasLt.h>

#include <set>
#include <vector>

struct StandinLayout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t pitch;
};
struct StandinProduct {
    cublasComputeType_t compute;
    int transpose_a, transpose_b;
    uint32_t epilogue;
    const char *bias;
    char *aux;
    int64_t aux_pitch;
};
struct StandinPreference {
    size_t workspace;
    uint32_t reductions, alignment[4];   /* of A, B, C, D */
};

/* ---- descriptors ----------------------------------------------------------------------------------------------------------------- */

static void read(void *field, const void *value, size_t size, size_t expected) {
    if (size != expected) emu::fail("an attribute of cuBLASLt is set with another size than it has");
    memcpy(field, value, size);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *library) {
    static int opened;
    *library = reinterpret_cast<cublasLtHandle_t>(&opened);
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusName(cublasStatus_t) { return "a refusal of the stand-in"; }
size_t cublasLtGetVersion(void) { return 123456; }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t pitch) {
    if (pitch < int64_t(rows) || rows == 0 || columns == 0) emu::fail("a matrix layout of cuBLASLt has columns that overlap, or none");
    *layout = new StandinLayout{type, rows, columns, pitch};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t compute, cudaDataType scale) {
    if (scale != CUDA_R_32F) emu::fail("alpha and beta are floats");
    *product = new StandinProduct{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t name, const void *value, size_t size) {
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA: read(&p->transpose_a, value, size, sizeof(int32_t)); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: read(&p->transpose_b, value, size, sizeof(int32_t)); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: read(&p->epilogue, value, size, sizeof(uint32_t)); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: read(&p->bias, value, size, sizeof(void *)); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: read(&p->aux, value, size, sizeof(void *)); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: read(&p->aux_pitch, value, size, sizeof(int64_t)); break;
    default: emu::fail("an attribute of a product that the stand-in does not know");
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new StandinPreference{0, 7, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                                    size_t size) {
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) read(&p->workspace, value, size, sizeof(size_t));
    else if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) read(&p->reductions, value, size, sizeof(uint32_t));
    else if (name >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES && name <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
        read(&p->alignment[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size, sizeof(uint32_t));
    else emu::fail("a preference that the stand-in does not know");
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- algorithms ------------------------------------------------------------------------------------------------------------------ */

struct Kind {
    int slowness;           /* pieces of work */
    size_t workspace;
    uint32_t reduction, alignment;
    cublasStatus_t suggested, run;   /* what the suggestion and the product say */
};
static const Kind kinds[] = {
    {0, 0, 0, 1, CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED},
    {0, 0, 0, 1, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_SUPPORTED},
    {3, 0, 0, 1, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
    {1, 4096, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
    {0, 0, CUBLASLT_REDUCTION_SCHEME_INPLACE, 4, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct Algorithm {
    uint64_t kind, product;   /* product: what it was suggested for */
};
static Algorithm content_of(const cublasLtMatmulAlgo_t &algorithm) {
    Algorithm content;
    memcpy(&content, &algorithm, sizeof content);
    if (content.kind >= KINDS) emu::fail("no algorithm of cuBLASLt");
    return content;
}

static uint64_t number_of(const StandinProduct &p, const StandinLayout *const (&layouts)[4]) {
    uint64_t number = p.epilogue * 8 + uint64_t(p.compute) * 4 + uint64_t(p.transpose_a) * 2 + uint64_t(p.transpose_b);
    for (const StandinLayout *m : layouts)
        for (const uint64_t x : {uint64_t(m->type), m->rows, m->columns, uint64_t(m->pitch)}) number = number * 1000003 + x;
    return number;
}

static bool has_aux(const StandinProduct &p) { return p.epilogue & 128; }
static bool has_vector(const StandinProduct &p) { return p.epilogue & (CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_BGRADB); }

/* Whether the shapes agree with each other: D(m,n) = op(A)(m,k) op(B)(k,n). */
static void check_shapes(const StandinProduct &p, const StandinLayout &a, const StandinLayout &b, const StandinLayout &c, const StandinLayout &d) {
    const uint64_t m = p.transpose_a ? a.columns : a.rows, k = p.transpose_a ? a.rows : a.columns;
    const uint64_t k_of_b = p.transpose_b ? b.columns : b.rows, n = p.transpose_b ? b.rows : b.columns;
    if (m != d.rows || n != d.columns || k != k_of_b || c.rows != d.rows || c.columns != d.columns || a.type != b.type || c.type != d.type)
        emu::fail("the matrices of a product do not fit together");
    if (has_aux(p) && (!p.aux || p.aux_pitch < int64_t(d.rows) || p.aux_pitch % 8 != 0))
        emu::fail("a product of cuBLASLt lacks aux, or its leading dimension is no multiple of 8 as long as a column");
    if (has_vector(p) && !p.bias) emu::fail("a product of cuBLASLt lacks the vector of its bias");
}

static bool can(const StandinProduct &p, const StandinLayout &a, const StandinLayout &b, const StandinLayout &d) {
    const bool activates = p.epilogue & (CUBLASLT_EPILOGUE_GELU | 64);
    if (activates && (d.type != CUDA_R_16BF || d.rows % 8 != 0)) return false;
    return a.type != CUDA_R_16BF || (a.pitch % 2 == 0 && b.pitch % 2 == 0);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int wanted, cublasLtMatmulHeuristicResult_t results[], int *found) {
    uint32_t alignment = 256;
    check_shapes(*p, *a, *b, *c, *d);
    for (const uint32_t least : preference->alignment) alignment = least < alignment ? least : alignment;
    *found = 0;
    if (!can(*p, *a, *b, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (uint64_t i = 0; i < KINDS && *found < wanted; i++) {
        const Kind &kind = kinds[i];
        if (kind.workspace > preference->workspace || (kind.reduction & ~preference->reductions) || kind.alignment > alignment) continue;
        const Algorithm content = {i, number_of(*p, {a, b, c, d})};
        cublasLtMatmulHeuristicResult_t *result = &results[(*found)++];
        memset(result, 0, sizeof *result);
        memcpy(&result->algo, &content, sizeof content);
        result->workspaceSize = kind.workspace;
        result->state = kind.suggested;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algorithm,
                                       cublasLtMatmulHeuristicResult_t *result) {
    Algorithm content;
    memcpy(&content, algorithm, sizeof content);
    check_shapes(*p, *a, *b, *c, *d);
    if (content.kind >= KINDS || content.product != number_of(*p, {a, b, c, d})) return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = kinds[content.kind].workspace;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulAlgoConfigAttributes_t name, void *value,
                                                    size_t size, size_t *written) {
    if (name != CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME || size != sizeof(uint32_t)) emu::fail("a property of an algorithm is asked for wrongly");
    memcpy(value, &kinds[content_of(*algorithm).kind].reduction, size);
    *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ----------------------------------------------------------------------------------------------------------------- */

static float gelu(float x) { return 0.5f * x * (1.0f + std::tanh(0.797884561f * (x + 0.044715f * x * x * x))); }
static float gelu_derivative(float x) {
    const float t = std::tanh(0.797884561f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.797884561f * (1.0f + 3.0f * 0.044715f * x * x);
}
static float get(const void *memory, cudaDataType type, int64_t i) {
    return type == CUDA_R_16BF ? float(static_cast<const bf16 *>(memory)[i]) : static_cast<const float *>(memory)[i];
}
static void put(void *memory, cudaDataType type, int64_t i, float value) {
    if (type == CUDA_R_16BF) static_cast<bf16 *>(memory)[i] = value;
    else static_cast<float *>(memory)[i] = value;
}
static DType dtype_of(cudaDataType type) { return type == CUDA_R_16BF ? BF16 : F32; }

/* All that a product needs when its turn comes. */
struct Call {
    StandinProduct p;
    StandinLayout a, b, d;
    const char *A, *B, *C;
    char *D, *workspace;
    size_t workspace_bytes;
    float beta;
};

/* Column-major matrices are row-major ones transposed: D^T(n,m) = op(B)^T op(A)^T. */
static void compute(const Call &call) {
    const StandinProduct &p = call.p;
    const int64_t m = int64_t(call.d.rows), n = int64_t(call.d.columns), k = int64_t(p.transpose_a ? call.a.rows : call.a.columns);
    std::vector<float> sums(size_t(m * n));
    memset(call.workspace, 0xff, call.workspace_bytes);
    portable_matmul(sums.data(), F32, call.B, call.A, dtype_of(call.a.type), NULL, F32, n, m, k, p.transpose_b, p.transpose_a, 0);
    for (int64_t i = 0; i < m * n; i++) {
        const bool bias = p.epilogue & CUBLASLT_EPILOGUE_BIAS;
        float value = sums[size_t(i)] + (call.beta != 0 ? call.beta * get(call.C, call.d.type, i) : 0) + (bias ? get(p.bias, call.d.type, i % m) : 0);
        const int64_t at_aux = i / m * p.aux_pitch + i % m;
        if (p.epilogue == CUBLASLT_EPILOGUE_DGELU) value *= gelu_derivative(get(p.aux, call.d.type, at_aux));
        else if (has_aux(p)) put(p.aux, call.d.type, at_aux, value);
        if (p.epilogue & CUBLASLT_EPILOGUE_GELU) value = gelu(value);
        put(call.D, call.d.type, i, value);
    }
    for (int64_t column = 0; p.epilogue == CUBLASLT_EPILOGUE_BGRADB && column < n; column++) {
        float sum = 0;
        const int64_t across = p.transpose_b ? 1 : call.b.pitch, along = p.transpose_b ? call.b.pitch : 1;
        for (int64_t row = 0; row < k; row++) sum += get(call.B, call.b.type, column * across + row * along);
        put(const_cast<char *>(p.bias), call.d.type, column, sum);
    }
}

static void check_first_use(const cublasLtMatmulAlgo_t &algorithm, cudaStream_t stream) {
    static std::set<std::vector<uint64_t>> used;
    cudaStreamCaptureStatus status;
    cudaStreamIsCapturing(stream, &status);
    const bool first = used.insert(std::vector<uint64_t>(algorithm.data, algorithm.data + 8)).second;
    if (first && status != cudaStreamCaptureStatusNone) emu::fail("an algorithm of cuBLASLt is used for the first time inside a capture");
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t p, const void *alpha, const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C, cublasLtMatrixLayout_t c, void *D,
                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    const Algorithm content = content_of(*algorithm);
    const Kind &kind = kinds[content.kind];
    check_shapes(*p, *a, *b, *c, *d);
    if (a->pitch != int64_t(a->rows) || b->pitch != int64_t(b->rows) || d->pitch != int64_t(d->rows)) emu::fail("the stand-in wants dense matrices");
    if (content.product != number_of(*p, {a, b, c, d})) emu::fail("an algorithm of cuBLASLt is used for another product");
    if ((uintptr_t(A) | uintptr_t(B) | uintptr_t(C) | uintptr_t(D)) % kind.alignment)
        emu::fail("an algorithm of cuBLASLt finds its tensors misaligned");
    if (kind.workspace > workspace_bytes || uintptr_t(workspace) % 16) emu::fail("an algorithm of cuBLASLt has no workspace, or it is misaligned");
    if (*static_cast<const float *>(alpha) != 1) emu::fail("the stand-in knows no alpha but 1");
    if (kind.run != CUBLAS_STATUS_SUCCESS) return kind.run;
    check_first_use(*algorithm, stream);
    const Call call = {*p, *a, *b, *d, static_cast<const char *>(A), static_cast<const char *>(B), static_cast<const char *>(C),
                       static_cast<char *>(D), static_cast<char *>(workspace), kind.workspace, *static_cast<const float *>(beta)};
    emu::enqueue(stream, [call] { compute(call); });
    const bool activates = p->epilogue & (CUBLASLT_EPILOGUE_GELU | 64);
    for (int i = 0; i < kind.slowness + 2 * activates; i++) emu::enqueue(stream, [] {});
    return CUBLAS_STATUS_SUCCESS;
}
