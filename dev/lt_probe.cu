/* lt_probe.cu: what cuBLASLt can do for a GPT's matrix products on this GPU, and how fast: for each product and epilogue the number of
   algorithms, the time of the library's first choice and of the fastest, and the rate of that one. The table decides the defaults in
   kernels/matmul.cu: which epilogues are worth their time, and whether bias gradients belong into the product.

     make lt-probe && build/dev/lt_probe [ROWS [C [Vp]]]     rows B*T, 65536; channels, 768; padded vocabulary, 50304

   Compare a fused product with the plain one plus the bytes that its separate kernel would move: an activation of (ROWS,4C) in bf16 reads
   and writes 16*ROWS*C bytes, its backward 24*ROWS*C, column sums read 2*ROWS*OC. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const size_t WORKSPACE_BYTES = (size_t)64 << 20;
enum { CANDIDATES = 32, REPEATS = 6 };

#define CHECK_CUDA(call)                                                                            \
    do {                                                                                            \
        cudaError_t error = (call);                                                                 \
        if (error != cudaSuccess) failed(#call, cudaGetErrorString(error));                         \
    } while (0)
#define CHECK_LT(call)                                                                              \
    do {                                                                                            \
        cublasStatus_t status = (call);                                                             \
        if (status != CUBLAS_STATUS_SUCCESS) failed(#call, cublasLtGetStatusName(status));          \
    } while (0)
static void failed(const char *call, const char *why) {
    fprintf(stderr, "%s: %s\n", call, why);
    exit(1);
}

static cublasLtHandle_t library;
static cudaEvent_t before, after;
static struct {
    void *a, *b, *c, *d, *aux, *bias, *workspace;
} memory;

/* A column-major product D(m,n) = epilogue(op(A) op(B) + beta C), as the library sees it. */
typedef struct {
    const char *name;
    int64_t m, n, k;
    int transpose_a, transpose_b;
    cudaDataType d_type;
    cublasLtEpilogue_t epilogue;
    int beta, other_c, multiprocessors;   /* C is D unless other_c; 0: all multiprocessors */
} Case;

typedef struct {
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, d;
} Product;

static cublasLtMatrixLayout_t layout_of(cudaDataType type, int64_t rows, int64_t columns, int transpose) {
    cublasLtMatrixLayout_t layout;
    if (transpose) CHECK_LT(cublasLtMatrixLayoutCreate(&layout, type, (uint64_t)columns, (uint64_t)rows, columns));
    else CHECK_LT(cublasLtMatrixLayoutCreate(&layout, type, (uint64_t)rows, (uint64_t)columns, rows));
    return layout;
}

template <class T> static void set(Product p, cublasLtMatmulDescAttributes_t attribute, T value) {
    CHECK_LT(cublasLtMatmulDescSetAttribute(p.what, attribute, &value, sizeof value));
}

static Product describe(const Case &c) {
    Product p;
    const int aux_bit = CUBLASLT_EPILOGUE_GELU_AUX & ~CUBLASLT_EPILOGUE_GELU;
    CHECK_LT(cublasLtMatmulDescCreate(&p.what, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(p, CUBLASLT_MATMUL_DESC_TRANSA, c.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(p, CUBLASLT_MATMUL_DESC_TRANSB, c.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, c.epilogue);
    set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, memory.bias);   /* read only by epilogues that have one */
    if (c.epilogue & aux_bit) {
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, memory.aux);
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, c.m);
    }
    if (c.multiprocessors) set(p, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, c.multiprocessors);
    p.a = layout_of(CUDA_R_16BF, c.m, c.k, c.transpose_a);
    p.b = layout_of(CUDA_R_16BF, c.k, c.n, c.transpose_b);
    p.d = layout_of(c.d_type, c.m, c.n, 0);
    return p;
}

static int candidates_for(Product p, cublasLtMatmulHeuristicResult_t *candidates) {
    cublasLtMatmulPreference_t preference;
    int found = 0;
    CHECK_LT(cublasLtMatmulPreferenceCreate(&preference));
    CHECK_LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES,
                                                  sizeof WORKSPACE_BYTES));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library, p.what, p.a, p.b, p.d, p.d, preference, CANDIDATES, candidates, &found);
    CHECK_LT(cublasLtMatmulPreferenceDestroy(preference));
    return status == CUBLAS_STATUS_SUCCESS ? found : 0;
}

static bool run(const Case &c, Product p, const cublasLtMatmulAlgo_t &how) {
    const float one = 1.0f, beta = (float)c.beta;
    return cublasLtMatmul(library, p.what, &one, memory.a, p.a, memory.b, p.b, &beta, c.other_c ? memory.c : memory.d, p.d, memory.d, p.d,
                          &how, memory.workspace, WORKSPACE_BYTES, 0) == CUBLAS_STATUS_SUCCESS;
}

/* Microseconds a product; infinite if it is refused. */
static float time_of(const Case &c, Product p, const cublasLtMatmulAlgo_t &how) {
    float milliseconds;
    if (!run(c, p, how)) return INFINITY;
    CHECK_CUDA(cudaEventRecord(before));
    for (int i = 0; i < REPEATS; i++) run(c, p, how);
    CHECK_CUDA(cudaEventRecord(after));
    CHECK_CUDA(cudaEventSynchronize(after));
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, before, after));
    return milliseconds * 1e3f / REPEATS;
}

static void probe(const Case &c) {
    cublasLtMatmulHeuristicResult_t candidates[CANDIDATES];
    float first = INFINITY, best = INFINITY;
    size_t workspace = 0;
    Product p = describe(c);
    const int n = candidates_for(p, candidates);
    for (int i = 0; i < n; i++) {
        const float time = time_of(c, p, candidates[i].algo);
        if (i == 0) first = time;
        if (time < best) {
            best = time;
            workspace = candidates[i].workspaceSize;
        }
    }
    const double operations = 2.0 * (double)c.m * (double)c.n * (double)c.k;
    if (isinf(best)) printf("%-46s %5d  not supported\n", c.name, n);
    else printf("%-46s %5d %10.1f %10.1f %8.1f %9zu\n", c.name, n, first, best, operations / best * 1e-6, workspace >> 10);
    fflush(stdout);
    CHECK_LT(cublasLtMatrixLayoutDestroy(p.a));
    CHECK_LT(cublasLtMatrixLayoutDestroy(p.b));
    CHECK_LT(cublasLtMatrixLayoutDestroy(p.d));
    CHECK_LT(cublasLtMatmulDescDestroy(p.what));
}

/* Small numbers of both signs: products of zeros draw less power, and so run faster than those of a training step. */
__global__ void fill_kernel(__nv_bfloat16 *p, size_t n, unsigned seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        unsigned bits = (unsigned)i * 2654435761u ^ seed;
        bits = (bits ^ bits >> 15) * 2246822519u;
        p[i] = __float2bfloat16((float)((bits >> 13) & 0xFFFF) * 0x1p-20f - 0.03125f);
    }
}

static void *filled(size_t bytes, unsigned seed) {
    void *p;
    CHECK_CUDA(cudaMalloc(&p, bytes));
    fill_kernel<<<1024, 256>>>((__nv_bfloat16 *)p, bytes / 2, seed);
    CHECK_CUDA(cudaGetLastError());
    return p;
}

static void allocate(int64_t N, int64_t C, int64_t Vp) {
    const size_t widest = (size_t)(Vp > 8 * C ? Vp : 8 * C);   /* in bf16 elements; dw in fp32 is (4C,C) or (Vp,C), and smaller */
    const size_t bytes = 2 * (size_t)N * widest, weights = 4 * (size_t)C * widest;
    const size_t each = bytes > weights ? bytes : weights;
    memory.a = filled(each, 1);
    memory.b = filled(each, 2);
    memory.c = filled(each, 3);
    memory.d = filled(each, 4);
    memory.aux = filled(each, 5);
    memory.bias = filled(4 * widest, 6);
    CHECK_CUDA(cudaMalloc(&memory.workspace, WORKSPACE_BYTES));
}

static int64_t argument(int argc, char **argv, int i, int64_t otherwise) {
    const int64_t value = argc > i ? atoll(argv[i]) : otherwise;
    if (value > 0) return value;
    fprintf(stderr, "%s is no size: expected lt_probe [ROWS [C [Vp]]], each at least 1\n", argv[i]);
    exit(1);
}

int main(int argc, char **argv) {
    const int64_t N = argument(argc, argv, 1, 65536), C = argument(argc, argv, 2, 768), Vp = argument(argc, argv, 3, 50304);
    const cudaDataType bf16 = CUDA_R_16BF, fp32 = CUDA_R_32F;
    const cublasLtEpilogue_t plain = CUBLASLT_EPILOGUE_DEFAULT, bias = CUBLASLT_EPILOGUE_BIAS, row_sums = CUBLASLT_EPILOGUE_BGRADB;
    const Case cases[] = {
        {"qkv forward, bias", 3 * C, N, C, 1, 0, bf16, bias, 0, 0, 0},
        {"proj forward, bias", C, N, C, 1, 0, bf16, bias, 0, 0, 0},
        {"proj forward, bias, residual added", C, N, C, 1, 0, bf16, bias, 1, 1, 0},
        {"fc forward, bias", 4 * C, N, C, 1, 0, bf16, bias, 0, 0, 0},
        {"fc forward, bias, GELU", 4 * C, N, C, 1, 0, bf16, CUBLASLT_EPILOGUE_GELU_BIAS, 0, 0, 0},
        {"fc forward, bias, GELU, aux", 4 * C, N, C, 1, 0, bf16, CUBLASLT_EPILOGUE_GELU_AUX_BIAS, 0, 0, 0},
        {"fc forward, bias, ReLU", 4 * C, N, C, 1, 0, bf16, CUBLASLT_EPILOGUE_RELU_BIAS, 0, 0, 0},
        {"fc forward, fp32 result", 4 * C, N, C, 1, 0, fp32, plain, 0, 0, 0},
        {"fcproj forward, bias", C, N, 4 * C, 1, 0, bf16, bias, 0, 0, 0},
        {"fcproj forward, bias, residual added", C, N, 4 * C, 1, 0, bf16, bias, 1, 1, 0},
        {"fcproj input gradient", 4 * C, N, C, 0, 0, bf16, plain, 0, 0, 0},
        {"fcproj input gradient, DGELU", 4 * C, N, C, 0, 0, bf16, CUBLASLT_EPILOGUE_DGELU, 0, 0, 0},
        {"fcproj input gradient, DGELU, bias gradient", 4 * C, N, C, 0, 0, bf16, CUBLASLT_EPILOGUE_DGELU_BGRAD, 0, 0, 0},
        {"fc input gradient", C, N, 4 * C, 0, 0, bf16, plain, 0, 0, 0},
        {"proj input gradient", C, N, C, 0, 0, bf16, plain, 0, 0, 0},
        {"qkv input gradient", C, N, 3 * C, 0, 0, bf16, plain, 0, 0, 0},
        {"fc weight gradient, bf16, added", C, 4 * C, N, 0, 1, bf16, plain, 1, 0, 0},
        {"fc weight gradient, fp32", C, 4 * C, N, 0, 1, fp32, plain, 0, 0, 0},
        {"fc weight gradient, fp32, added", C, 4 * C, N, 0, 1, fp32, plain, 1, 0, 0},
        {"fc weight gradient, bf16, added, row sums", C, 4 * C, N, 0, 1, bf16, row_sums, 1, 0, 0},
        {"fc weight gradient, fp32, row sums", C, 4 * C, N, 0, 1, fp32, row_sums, 0, 0, 0},
        {"fc weight gradient, fp32, added, row sums", C, 4 * C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"fcproj weight gradient, fp32, added", 4 * C, C, N, 0, 1, fp32, plain, 1, 0, 0},
        {"fcproj weight gradient, fp32, added, row sums", 4 * C, C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"proj weight gradient, fp32, added", C, C, N, 0, 1, fp32, plain, 1, 0, 0},
        {"proj weight gradient, fp32, added, row sums", C, C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"qkv weight gradient, fp32, added", C, 3 * C, N, 0, 1, fp32, plain, 1, 0, 0},
        {"qkv weight gradient, fp32, added, row sums", C, 3 * C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"qkv weight gradient, fp32, added, 116 SMs", C, 3 * C, N, 0, 1, fp32, plain, 1, 0, 116},
        {"head forward", Vp, N, C, 1, 0, bf16, plain, 0, 0, 0},
        {"head forward, an eighth of the rows", Vp, (N + 7) / 8, C, 1, 0, bf16, plain, 0, 0, 0},
        {"head input gradient", C, N, Vp, 0, 0, bf16, plain, 0, 0, 0},
        {"head weight gradient, fp32, added", C, Vp, N, 0, 1, fp32, plain, 1, 0, 0},
        {"head weight gradient, fp32, added, an eighth", C, Vp, (N + 7) / 8, 0, 1, fp32, plain, 1, 0, 0},
    };
    cudaDeviceProp device;
    CHECK_CUDA(cudaGetDeviceProperties(&device, 0));
    CHECK_LT(cublasLtCreate(&library));
    CHECK_CUDA(cudaEventCreate(&before));
    CHECK_CUDA(cudaEventCreate(&after));
    allocate(N, C, Vp);
    printf("%s, cuBLASLt %zu, %lld rows, C %lld, Vp %lld\n", device.name, cublasLtGetVersion(), (long long)N, (long long)C, (long long)Vp);
    printf("%-46s %5s %10s %10s %8s %9s\n", "product", "algs", "first us", "best us", "TFLOP/s", "work KiB");
    for (const Case &c : cases) probe(c);
    return 0;
}
