/* gemm.cu: matrix products by cuBLASLt, the one file that talks to it. The emulator has a stand-in.

   cuBLASLt's epilogues want column-major results, and a row-major D(M,N) is a column-major D^T(N,M); so it is asked for
   D^T = op(B)^T op(A)^T: its first matrix is our B, its second our A, its rows are our columns. A linear layer's forward product is then
   its TN, the gradient of the input NN, the gradient of the weight NT.

   Descriptors, layouts and algorithm of a product are made at its first call and kept. The workspace is one for all, as the products of a
   step follow each other in one stream. */
#include "cu.h"
#include "algorithms.cuh"
#include "gemm.cuh"

#include <cublasLt.h>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

static const size_t WORKSPACE_BYTES = (size_t)64 << 20;   /* NVIDIA advises at least 32 MiB for Hopper */
enum { CANDIDATES = 32, REPEATS = 5 };

static cublasLtHandle_t library;
static void *workspace;
static cudaDeviceProp device;

struct Product {
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, d;
    std::vector<cublasLtMatmulAlgo_t> algorithms;   /* the first one is used; none: the library cannot do it */
    bool settled;                                   /* it has proved itself; else the next takes its place should it be refused when it is run */
};

/* ---- errors and names ----------------------------------------------------------------------------------------------------------- */

static const char *type_name(DType dtype) { return dtype == BF16 ? "bf16" : cuda_settings.tf32 ? "tf32" : "fp32"; }

/* The largest power of two, up to 16, that divides the address, as its logarithm. */
static int alignment(const void *p) {
    int log2 = 0;
    while (log2 < 4 && ((uintptr_t)p >> log2 & 1) == 0) log2++;
    return log2;
}

static const void *vector_of(const Gemm &g) { return g.epilogue == GEMM_BIAS_GRADIENT ? g.bias_gradient : g.bias; }

/* Everything that the choice of an algorithm depends on. The last number says how A, B, C and D, the bias or its gradient, and aux are
   aligned. */
static std::string name_of(const Gemm &g) {
    static const char *const epilogues[] = {"plain", "gelu", "dgelu", "bias_gradient"};
    char text[200];
    snprintf(text, sizeof text, "%lld x %lld x %lld %c%c %s to %s %s%s%s%s, aligned %d%d%d%d%d", (long long)g.M, (long long)g.N,
             (long long)g.K, g.transpose_a ? 't' : 'n', g.transpose_b ? 't' : 'n', type_name(g.dtype), g.d_dtype == BF16 ? "bf16" : "fp32",
             epilogues[g.epilogue], g.bias ? "+bias" : "", g.aux ? "+aux" : "", !g.C ? "" : g.C == g.D ? "+d" : "+c", alignment(g.A),
             alignment(g.B), alignment((const void *)((uintptr_t)g.C | (uintptr_t)g.D)), alignment(vector_of(g)), alignment(g.aux));
    return text;
}

static void check(cublasStatus_t status, const char *call, const std::string &product) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    backend_fail("cuBLASLt error: %s answered %s for %s; checkpoints on disk are as they were", call, cublasLtGetStatusName(status),
                 product.c_str());
}
#define CHECK_LT(call, product) check(call, #call, product)

/* ---- building a product --------------------------------------------------------------------------------------------------------- */

static cudaDataType cuda_type(DType dtype) { return dtype == BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static cublasLtMatrixLayout_t layout_of(DType dtype, int64_t rows, int64_t columns, int transpose, const std::string &name) {
    cublasLtMatrixLayout_t layout;
    CHECK_LT(cublasLtMatrixLayoutCreate(&layout, cuda_type(dtype), (uint64_t)(transpose ? columns : rows),
                                        (uint64_t)(transpose ? rows : columns), transpose ? columns : rows), name);
    return layout;
}

template <class T> static void set(Product &p, cublasLtMatmulDescAttributes_t attribute, T value, const std::string &name) {
    CHECK_LT(cublasLtMatmulDescSetAttribute(p.what, attribute, &value, sizeof value), name);
}

static cublasLtEpilogue_t epilogue_of(const Gemm &g) {
    switch (g.epilogue) {
    case GEMM_GELU:
        return g.aux ? g.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX
                     : g.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    case GEMM_DGELU: return CUBLASLT_EPILOGUE_DGELU;
    case GEMM_BIAS_GRADIENT: return CUBLASLT_EPILOGUE_BGRADB;
    default: return g.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    }
}

/* The library judges alignment by the addresses, so that these must be in place before it is asked for algorithms. */
static void set_pointers(Product &p, const Gemm &g, const std::string &name) {
    if (vector_of(g)) set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector_of(g), name);
    if (g.aux) set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (const void *)g.aux, name);
}

static Product describe(const Gemm &g, const std::string &name) {
    Product p = {};
    const bool tf32 = g.dtype == F32 && cuda_settings.tf32;
    CHECK_LT(cublasLtMatmulDescCreate(&p.what, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), name);
    set(p, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, name);
    set(p, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, name);
    set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(g), name);
    if (g.aux) set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, g.N, name);
    set_pointers(p, g, name);
    p.a = layout_of(g.dtype, g.N, g.K, g.transpose_b, name);
    p.b = layout_of(g.dtype, g.K, g.M, g.transpose_a, name);
    p.d = layout_of(g.d_dtype, g.N, g.M, 0, name);
    return p;
}

static cublasStatus_t run(const Product &p, const Gemm &g, void *D, const void *C, const cublasLtMatmulAlgo_t &how, cudaStream_t stream) {
    const float one = 1.0f, beta = C ? 1.0f : 0.0f;
    return cublasLtMatmul(library, p.what, &one, g.B, p.a, g.A, p.b, &beta, C ? C : D, p.d, D, p.d, &how, workspace, WORKSPACE_BYTES,
                          stream);
}

/* ---- choosing an algorithm ------------------------------------------------------------------------------------------------------ */

/* How an algorithm may add up what several blocks share: never in bf16, which would lose bits, and under `deterministic` never in the
   result itself. */
static uint32_t allowed_reductions(const Gemm &g) {
    if (g.d_dtype == BF16) return CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t apart = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    return cuda_settings.deterministic ? apart : apart | CUBLASLT_REDUCTION_SCHEME_INPLACE;
}

static std::string text_of(const cublasLtMatmulAlgo_t &how) {
    unsigned char bytes[sizeof how];
    char digits[3];
    std::string text;
    memcpy(bytes, &how, sizeof how);
    for (unsigned char byte : bytes) {
        snprintf(digits, sizeof digits, "%02x", byte);
        text += digits;
    }
    return text;
}

/* Takes over an algorithm kept as text, if it is one that can do the product here. */
static bool take_algorithm(Product &p, const Gemm &g, const std::string &text) {
    cublasLtMatmulAlgo_t how;
    unsigned char bytes[sizeof how];
    cublasLtMatmulHeuristicResult_t result;
    uint32_t reduction = 0;
    size_t written;
    if (text.size() != 2 * sizeof bytes || text.find_first_not_of("0123456789abcdef") != std::string::npos) return false;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)strtoul(text.substr(2 * i, 2).c_str(), NULL, 16);
    memcpy(&how, bytes, sizeof bytes);
    p.settled = cublasLtMatmulAlgoCheck(library, p.what, p.a, p.b, p.d, p.d, &how, &result) == CUBLAS_STATUS_SUCCESS &&
                result.workspaceSize <= WORKSPACE_BYTES &&
                cublasLtMatmulAlgoConfigGetAttribute(&how, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction, sizeof reduction, &written) ==
                    CUBLAS_STATUS_SUCCESS &&
                (reduction & ~allowed_reductions(g)) == 0;
    if (p.settled) p.algorithms = {how};
    return p.settled;
}

template <class T> static void prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value,
                                      const std::string &name) {
    CHECK_LT(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), name);
}

/* The algorithms that the library suggests, which it expects to be faster the earlier they come. */
static std::vector<cublasLtMatmulAlgo_t> suggestions(const Product &p, const Gemm &g, const std::string &name) {
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    int found = 0;
    CHECK_LT(cublasLtMatmulPreferenceCreate(&preference), name);
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES, name);
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, allowed_reductions(g), name);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)1 << alignment(g.B), name);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)1 << alignment(g.A), name);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)1 << alignment(g.C ? g.C : g.D), name);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)1 << alignment(g.D), name);
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(library, p.what, p.a, p.b, p.d, p.d, preference, CANDIDATES, results, &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) CHECK_LT(status, name);
    CHECK_LT(cublasLtMatmulPreferenceDestroy(preference), name);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(results[i].algo);
    return algorithms;
}

/* Milliseconds that the work takes, when it was done once before; infinite if it cannot be done. */
template <class F> static float time_of(F work, cudaStream_t stream) {
    cudaEvent_t before, after;
    float milliseconds;
    if (!work()) return INFINITY;
    CUDA_CHECK(cudaEventCreate(&before));
    CUDA_CHECK(cudaEventCreate(&after));
    CUDA_CHECK(cudaEventRecord(before, stream));
    for (int i = 0; i < REPEATS; i++) work();
    CUDA_CHECK(cudaEventRecord(after, stream));
    CUDA_CHECK(cudaEventSynchronize(after));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, before, after));
    CUDA_CHECK(cudaEventDestroy(before));
    CUDA_CHECK(cudaEventDestroy(after));
    return milliseconds / REPEATS;
}

static bool may_time(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (!cuda_settings.autotune) return false;
    CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
    return status == cudaStreamCaptureStatusNone;
}

/* Times the algorithms on the tensors themselves and leaves the fastest alone; nothing changes if none works. Where the product is added to
   D, each result goes to a stand-in of D, lest D grows; without memory for that there is no timing. */
static void keep_fastest(Product &p, const Gemm &g, cudaStream_t stream) {
    const bool adds = g.C == g.D;
    const size_t bytes = (size_t)g.M * (size_t)g.N * dtype_size(g.d_dtype);
    void *D = g.D;
    float best_time = INFINITY;
    cublasLtMatmulAlgo_t best = {};
    if (adds) {
        if (cudaMalloc(&D, bytes + 256) != cudaSuccess) {
            cudaGetLastError();   /* else the next launch would report it */
            fprintf(stderr, "warning: no memory to time matmul algorithms for %s; the library's choice is used\n", name_of(g).c_str());
            return;
        }
        CUDA_CHECK(cudaMemsetAsync(D, 0, bytes + 256, stream));
    }
    void *result = adds ? (char *)D + (uintptr_t)g.D % 256 : D;   /* aligned as D is */
    const void *added = adds ? result : g.C;
    for (const cublasLtMatmulAlgo_t &how : p.algorithms) {
        const auto work = [&] { return run(p, g, result, added, how, stream) == CUBLAS_STATUS_SUCCESS; };
        const float time = time_of(work, stream);
        if (time < best_time) {
            best_time = time;
            best = how;
        }
    }
    if (D != g.D) CUDA_CHECK(cudaFree(D));
    p.settled = best_time < INFINITY;
    if (p.settled) p.algorithms = {best};
}

/* Where our own kernel, which is many times slower, has much to do instead. */
static void warn_if_large(const Gemm &g, const std::string &name) {
    if (g.epilogue == GEMM_PLAIN && (double)g.M * (double)g.N * (double)g.K >= 0x1p30)
        fprintf(stderr, "warning: %s has no algorithm for %s; a slow kernel does it\n", gemm_library(), name.c_str());
}

static Product build(const Gemm &g, const std::string &name, cudaStream_t stream) {
    Product p = describe(g, name);
    const std::string *kept = algorithms_find(name);
    if (kept && take_algorithm(p, g, *kept)) return p;
    if (kept) fprintf(stderr, "warning: the algorithm kept for %s cannot be used here; another one is chosen\n", name.c_str());
    p.algorithms = suggestions(p, g, name);
    if (may_time(stream)) keep_fastest(p, g, stream);
    if (p.settled) algorithms_choose(name, text_of(p.algorithms[0]), true);
    return p;
}

/* Queues the product by the first algorithm that the library does not refuse after all; false if it refuses all. */
static bool queue(Product &p, const Gemm &g, const std::string &name, cudaStream_t stream) {
    while (!p.algorithms.empty()) {
        const cublasStatus_t status = run(p, g, g.D, g.C, p.algorithms[0], stream);
        if (p.settled) CHECK_LT(status, name);
        if (status == CUBLAS_STATUS_SUCCESS) break;
        p.algorithms.erase(p.algorithms.begin());
    }
    if (!p.algorithms.empty() && !p.settled) algorithms_choose(name, text_of(p.algorithms[0]), false);
    if (p.algorithms.empty() && !p.settled) warn_if_large(g, name);
    p.settled = true;
    return !p.algorithms.empty();
}

/* ---- what others call ----------------------------------------------------------------------------------------------------------- */

static void open_library(void) {
    int number;
    if (library) return;
    check(cublasLtCreate(&library), "cublasLtCreate", "this device");
    CUDA_CHECK(cudaMalloc(&workspace, WORKSPACE_BYTES));
    CUDA_CHECK(cudaGetDevice(&number));
    CUDA_CHECK(cudaGetDeviceProperties(&device, number));
}

static std::string machine(void) {
    return std::string(gemm_library()) + ", " + device.name + ", " + std::to_string(device.multiProcessorCount) + " multiprocessors";
}

size_t gemm_workspace_bytes(void) { return WORKSPACE_BYTES; }

const char *gemm_library(void) {
    static char text[64];
    const size_t version = cublasLtGetVersion();
    snprintf(text, sizeof text, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
    return text;
}

void gemm_configure(void) {
    open_library();
    algorithms_open(machine(), cuda_settings.algorithms);
}

/* Before Hopper the library runs bf16 activations in a second, slow kernel. */
int gemm_fuses_activations(void) {
    open_library();
    return device.major >= 9;
}

int gemm(const Gemm *g, Stream *s) {
    static std::map<std::string, Product> products;
    const std::string name = name_of(*g);
    open_library();
    if (g->aux && g->N % 8 != 0) return 0;   /* what the library demands of aux's leading dimension */
    auto found = products.find(name);
    if (found == products.end()) found = products.emplace(name, build(*g, name, cuda_stream(s))).first;
    set_pointers(found->second, *g, name);
    return queue(found->second, *g, name, cuda_stream(s));
}

void gemm_either(const char *what, int64_t M, int64_t N, int64_t K, const std::function<int()> &fused, const std::function<int()> &apart,
                 int usually_fused, int repeatable, Stream *s) {
    const std::string name = std::string(what) + " " + std::to_string(M) + " x " + std::to_string(N) + " x " + std::to_string(K);
    const std::string *kept = algorithms_find(name);
    bool fuse = kept ? *kept == "fused" : usually_fused;
    if (!kept && repeatable && may_time(cuda_stream(s))) {
        fuse = time_of(fused, cuda_stream(s)) <= time_of(apart, cuda_stream(s));
        algorithms_choose(name, fuse ? "fused" : "apart", true);
    }
    if (!fuse || !fused()) apart();
}
