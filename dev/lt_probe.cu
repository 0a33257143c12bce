/* lt_probe.cu: what cuBLASLt can do for a GPT's matrix products on this GPU, and how fast: for each product and epilogue the number of
   algorithms, the time of the library's first choice and of the fastest, its rate, and of how many kernels it consists, counted in a graph
   that captured it. Then each epilogue against the same product without it and the kernel that would do its work, at the best: one that only
   reads and writes as many bytes, timed in the same run. dev/gpu_decisions.py makes of the figures what the defaults should be.

     make lt-probe && build/dev/lt_probe [--json FILE] [ROWS [C [Vp]]]     rows B*T, 65536; channels, 768; padded vocabulary, 50304

   --json appends a line {"probe": "product" | "epilogue", ...} for each. All that is timed walks through several copies of its operands, so that
   none is found in the second-level cache. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <string.h>
#include <vector>

static const size_t WORKSPACE_BYTES = (size_t)64 << 20;
enum { CANDIDATES = 32, REPEATS = 6, ROUNDS = 5, COPIES = 8 };

static void failed(const char *call, const char *why) {
    fprintf(stderr, "%s: %s\n", call, why);
    exit(1);
}
static void check(cudaError_t error, const char *call) {
    if (error != cudaSuccess) failed(call, cudaGetErrorString(error));
}
static void check(cublasStatus_t status, const char *call) {
    if (status != CUBLAS_STATUS_SUCCESS) failed(call, cublasLtGetStatusName(status));
}
#define CHECK(call) check(call, #call)

static cublasLtHandle_t library;
static cudaStream_t stream;
static cudaEvent_t before, after;
static cudaDeviceProp device;
static FILE *json;
static struct {
    char *a, *b, *c, *d, *aux, *bias, *workspace;
    size_t each;   /* bytes of the first five */
} memory;

/* The copy of an operand of so many bytes that is used for the turn'th time. */
static char *copy_of(char *operand, size_t bytes, int turn) {
    const size_t step = (bytes + 255) / 256 * 256, copies = std::min((size_t)COPIES, memory.each / step);
    return operand + (size_t)turn % copies * step;
}

/* A column-major product D(m,n) = epilogue(op(A) op(B) + beta C), as the library sees it. */
typedef struct {
    const char *name;
    int64_t m, n, k;
    int transpose_a, transpose_b;
    cudaDataType d_type;
    cublasLtEpilogue_t epilogue;
    int beta, other_c;   /* C is D unless other_c */
    int times;           /* that a micro-step of GPT-2 124M does it; 0: not by default */
} Case;

typedef struct { cublasLtMatmulDesc_t what; cublasLtMatrixLayout_t a, b, d; } Product;

static cublasLtMatrixLayout_t layout_of(cudaDataType type, int64_t rows, int64_t columns, int transpose) {
    cublasLtMatrixLayout_t layout;
    if (transpose) CHECK(cublasLtMatrixLayoutCreate(&layout, type, (uint64_t)columns, (uint64_t)rows, columns));
    else CHECK(cublasLtMatrixLayoutCreate(&layout, type, (uint64_t)rows, (uint64_t)columns, rows));
    return layout;
}

template <class T> static void set(Product p, cublasLtMatmulDescAttributes_t attribute, T value) {
    CHECK(cublasLtMatmulDescSetAttribute(p.what, attribute, &value, sizeof value));
}

static bool has_aux(const Case &c) { return c.epilogue & (CUBLASLT_EPILOGUE_GELU_AUX & ~CUBLASLT_EPILOGUE_GELU); }

static Product describe(const Case &c) {
    Product p;
    CHECK(cublasLtMatmulDescCreate(&p.what, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(p, CUBLASLT_MATMUL_DESC_TRANSA, c.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(p, CUBLASLT_MATMUL_DESC_TRANSB, c.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, c.epilogue);
    set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, memory.bias);   /* read only by epilogues that have one */
    if (has_aux(c)) {
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, memory.aux);
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, c.m);
    }
    p.a = layout_of(CUDA_R_16BF, c.m, c.k, c.transpose_a);
    p.b = layout_of(CUDA_R_16BF, c.k, c.n, c.transpose_b);
    p.d = layout_of(c.d_type, c.m, c.n, 0);
    return p;
}

static int candidates_for(Product p, cublasLtMatmulHeuristicResult_t *candidates) {
    cublasLtMatmulPreference_t preference;
    int found = 0;
    CHECK(cublasLtMatmulPreferenceCreate(&preference));
    CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library, p.what, p.a, p.b, p.d, p.d, preference, CANDIDATES, candidates, &found);
    CHECK(cublasLtMatmulPreferenceDestroy(preference));
    return status == CUBLAS_STATUS_SUCCESS ? found : 0;
}

static size_t bytes_of(cudaDataType type, int64_t rows, int64_t columns) { return (size_t)(rows * columns) * (type == CUDA_R_32F ? 4 : 2); }

static bool run(const Case &c, Product p, const cublasLtMatmulAlgo_t &how, int turn) {
    const float one = 1.0f, beta = (float)c.beta;
    const size_t result = bytes_of(c.d_type, c.m, c.n);
    char *a = copy_of(memory.a, bytes_of(CUDA_R_16BF, c.m, c.k), turn), *b = copy_of(memory.b, bytes_of(CUDA_R_16BF, c.k, c.n), turn);
    char *d = copy_of(memory.d, result, turn), *added = c.other_c ? copy_of(memory.c, result, turn) : d;
    if (has_aux(c)) set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (void *)copy_of(memory.aux, result, turn));
    return cublasLtMatmul(library, p.what, &one, a, p.a, b, p.b, &beta, added, p.d, d, p.d, &how, memory.workspace, WORKSPACE_BYTES, stream) ==
           CUBLAS_STATUS_SUCCESS;
}

/* Microseconds of work(turn); infinite if it is refused. */
template <class F> static float time_of(F work) {
    float milliseconds;
    if (!work(0)) return INFINITY;
    CHECK(cudaEventRecord(before, stream));
    for (int i = 1; i <= REPEATS; i++) work(i);
    CHECK(cudaEventRecord(after, stream));
    CHECK(cudaEventSynchronize(after));
    CHECK(cudaEventElapsedTime(&milliseconds, before, after));
    return milliseconds * 1e3f / REPEATS;
}

static float median(std::vector<float> times) {
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

/* ---- kernels, counted ------------------------------------------------------------------------------------------------------------ */

typedef struct { int kernels, others; } Nodes;   /* of the graph; kernels -1: it cannot be captured */

static Nodes nodes_of(cudaGraph_t graph) {
    Nodes nodes = {0, 0};
    size_t count = 0;
    CHECK(cudaGraphGetNodes(graph, NULL, &count));
    std::vector<cudaGraphNode_t> all(count);
    if (count) CHECK(cudaGraphGetNodes(graph, all.data(), &count));
    for (cudaGraphNode_t node : all) {
        cudaGraphNodeType type;
        CHECK(cudaGraphNodeGetType(node, &type));
        if (type == cudaGraphNodeTypeKernel) nodes.kernels++;
        else nodes.others++;
    }
    return nodes;
}

/* What work() puts into the stream; it must have run before. */
template <class F> static Nodes count_nodes(F work) {
    cudaGraph_t graph = NULL;
    Nodes nodes = {-1, 0};
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    const bool worked = work();
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && worked) nodes = nodes_of(graph);
    cudaGetLastError();   /* of a capture that failed */
    if (graph) CHECK(cudaGraphDestroy(graph));
    return nodes;
}

/* ---- products -------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    float first, best;   /* us; infinite: not supported */
    int algorithms;
    Nodes nodes;         /* of the fastest */
    size_t workspace;    /* likewise */
} Result;

static void say_product(const Case &c, const Result &r) {
    const double operations = 2.0 * (double)c.m * (double)c.n * (double)c.k, rate = operations / r.best * 1e-6;
    if (isinf(r.best)) printf("%-46s %5d  not supported\n", c.name, r.algorithms);
    else
        printf("%-46s %5d %10.1f %10.1f %8.1f %7d %6d %9zu\n", c.name, r.algorithms, r.first, r.best, rate, r.nodes.kernels, r.nodes.others,
               r.workspace >> 10);
    fflush(stdout);
    if (!json) return;
    fprintf(json, "{\"probe\": \"product\", \"name\": \"%s\", \"algorithms\": %d, \"times\": %d, ", c.name, r.algorithms, c.times);
    if (isinf(r.best)) fprintf(json, "\"best_us\": null}\n");
    else
        fprintf(json, "\"first_us\": %.2f, \"best_us\": %.2f, \"tflops\": %.1f, \"kernels\": %d, \"other_nodes\": %d, \"workspace\": %zu}\n",
                isinf(r.first) ? -1.0 : r.first, r.best, rate, r.nodes.kernels, r.nodes.others, r.workspace);
}

/* The fastest of many that are timed once each was lucky too: it and the first take turns, and their medians count. */
static void time_again(Result &r, const Case &c, Product p, const cublasLtMatmulAlgo_t &first, const cublasLtMatmulAlgo_t &best) {
    std::vector<float> first_times, best_times;
    for (int round = 0; round < ROUNDS; round++) {
        first_times.push_back(time_of([&](int turn) { return run(c, p, first, turn); }));
        best_times.push_back(time_of([&](int turn) { return run(c, p, best, turn); }));
    }
    r.first = median(first_times);
    r.best = median(best_times);
}

static Result probe(const Case &c) {
    cublasLtMatmulHeuristicResult_t candidates[CANDIDATES];
    Result r = {INFINITY, INFINITY, 0, {-1, 0}, 0};
    int best = -1;
    Product p = describe(c);
    r.algorithms = candidates_for(p, candidates);
    for (int i = 0; i < r.algorithms; i++) {
        const float time = time_of([&](int turn) { return run(c, p, candidates[i].algo, turn); });
        if (time < r.best) {
            r.best = time;
            best = i;
        }
    }
    if (best >= 0) {
        time_again(r, c, p, candidates[0].algo, candidates[best].algo);
        r.nodes = count_nodes([&] { return run(c, p, candidates[best].algo, 0); });
        r.workspace = candidates[best].workspaceSize;
    }
    say_product(c, r);
    for (cublasLtMatrixLayout_t layout : {p.a, p.b, p.d}) CHECK(cublasLtMatrixLayoutDestroy(layout));
    CHECK(cublasLtMatmulDescDestroy(p.what));
    return r;
}

/* ---- epilogues, and kernels in their place --------------------------------------------------------------------------------------- */

/* Reads and writes so many arrays of n int4, one behind the other: no kernel that must read and write them is faster. */
template <int READS, int WRITES> __global__ void stream_kernel(int4 *out, const int4 *in, size_t n) {
    int4 sum = {0, 0, 0, 0};
#pragma unroll 4
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        if (WRITES) sum = {0, 0, 0, 0};
        for (int r = 0; r < READS; r++) {
            const int4 x = in[i + r * n];
            sum.x ^= x.x, sum.y ^= x.y, sum.z ^= x.z, sum.w ^= x.w;
        }
        for (int w = 0; w < WRITES; w++) out[i + w * n] = sum;
    }
    if (!WRITES && (sum.x & sum.y & sum.z & sum.w) == -1) out[0] = sum;   /* hardly ever, but the reads are needed for it */
}

typedef struct { int reads, writes; } Traffic;   /* arrays */

template <int READS, int WRITES> static bool stream_once(size_t bytes, int turn) {
    int4 *out = (int4 *)copy_of(memory.d, std::max(WRITES, 1) * bytes, turn);
    const int4 *in = (const int4 *)copy_of(memory.a, READS * bytes, turn);
    stream_kernel<READS, WRITES><<<(unsigned)device.multiProcessorCount * 8, 256, 0, stream>>>(out, in, bytes / sizeof(int4));
    CHECK(cudaGetLastError());
    return true;
}

/* Microseconds to read and write arrays of so many bytes. */
static float time_of_traffic(Traffic t, size_t bytes) {
    bool (*once)(size_t, int) = NULL;
    std::vector<float> times;
    if (t.reads == 0) return 0;
    if (t.reads == 1 && t.writes == 0) once = stream_once<1, 0>;
    if (t.reads == 1 && t.writes == 1) once = stream_once<1, 1>;
    if (t.reads == 2 && t.writes == 1) once = stream_once<2, 1>;
    if (t.reads == 2 && t.writes == 2) once = stream_once<2, 2>;
    if (!once) failed("time_of_traffic", "there is no kernel of so many arrays");
    for (int round = 0; round < ROUNDS; round++) times.push_back(time_of([&](int turn) { return once(bytes, turn); }));
    return median(times);
}

/* A product whose epilogue spares the `apart` traffic over bf16 arrays (rows, width) behind the plain product, but for the `left` one. */
typedef struct {
    const char *fused, *plain;
    Traffic apart, left;
    int64_t width;
} Epilogue;

static void compare(const Epilogue &e, const std::map<std::string, Result> &results, int64_t rows) {
    const Result &fused = results.at(e.fused), &plain = results.at(e.plain);
    const size_t bytes = bytes_of(CUDA_R_16BF, rows, e.width);
    const float apart = time_of_traffic(e.apart, bytes), left = time_of_traffic(e.left, bytes);
    const double rate = (double)(e.apart.reads + e.apart.writes) * (double)bytes / apart * 1e-6;
    if (isinf(fused.best)) printf("%-46s not supported\n", e.fused);
    else printf("%-46s %10.1f %10.1f %10.2f\n", e.fused, fused.best + left, plain.best + apart, rate);
    fflush(stdout);
    if (!json || isinf(plain.best)) return;
    fprintf(json, "{\"probe\": \"epilogue\", \"name\": \"%s\", \"plain\": \"%s\", \"kernels\": %d, \"plain_us\": %.2f, \"apart_us\": %.2f, "
            "\"left_us\": %.2f, \"terabytes_per_s\": %.3f, ", e.fused, e.plain, fused.nodes.kernels, plain.best, apart, left, rate);
    if (isinf(fused.best)) fprintf(json, "\"fused_us\": null}\n");
    else fprintf(json, "\"fused_us\": %.2f}\n", fused.best);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------------- */

/* Small numbers of both signs: products of zeros draw less power, and so run faster than those of a training step. */
__global__ void fill_kernel(__nv_bfloat16 *p, size_t n, unsigned seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        unsigned bits = (unsigned)i * 2654435761u ^ seed;
        bits = (bits ^ bits >> 15) * 2246822519u;
        p[i] = __float2bfloat16((float)((bits >> 13) & 0xFFFF) * 0x1p-20f - 0.03125f);
    }
}

static char *filled(size_t bytes, unsigned seed) {
    void *p;
    CHECK(cudaMalloc(&p, bytes));
    fill_kernel<<<1024, 256, 0, stream>>>((__nv_bfloat16 *)p, bytes / 2, seed);
    CHECK(cudaGetLastError());
    return (char *)p;
}

/* The largest operands: logits (ROWS,Vp), two activations (ROWS,4C) of a stream, and a gradient of weights in fp32, (4C,C) or (Vp,C). For small
   ones, as many copies of the widest activation as exceed the second-level cache twice. */
static void allocate(int64_t N, int64_t C, int64_t Vp) {
    const size_t widest = (size_t)std::max(Vp, 8 * C), activations = 2 * (size_t)N * widest, weights = 4 * (size_t)C * widest;
    memory.each = (std::max({activations, weights, 2 * (size_t)device.l2CacheSize}) + 255) / 256 * 256;
    memory.a = filled(memory.each, 1);
    memory.b = filled(memory.each, 2);
    memory.c = filled(memory.each, 3);
    memory.d = filled(memory.each, 4);
    memory.aux = filled(memory.each, 5);
    memory.bias = filled(4 * widest, 6);
    CHECK(cudaMalloc((void **)&memory.workspace, WORKSPACE_BYTES));
}

static int64_t argument(int argc, char **argv, int i, int64_t otherwise) {
    const int64_t value = argc > i ? atoll(argv[i]) : otherwise;
    if (value > 0) return value;
    fprintf(stderr, "%s is no size: expected lt_probe [--json FILE] [ROWS [C [Vp]]], each at least 1\n", argv[i]);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "--json")) {
        json = fopen(argv[2], "a");
        if (!json) failed(argv[2], "cannot be written");
        setvbuf(json, NULL, _IOLBF, 4096);   /* so that one who is ended for taking too long leaves whole lines */
        argc -= 2, argv += 2;
    }
    const int64_t N = argument(argc, argv, 1, 65536), C = argument(argc, argv, 2, 768), Vp = argument(argc, argv, 3, 50304);
    const cudaDataType bf16 = CUDA_R_16BF, fp32 = CUDA_R_32F;
    const cublasLtEpilogue_t plain = CUBLASLT_EPILOGUE_DEFAULT, bias = CUBLASLT_EPILOGUE_BIAS, row_sums = CUBLASLT_EPILOGUE_BGRADB;
    const Case cases[] = {
        {"qkv forward, bias", 3 * C, N, C, 1, 0, bf16, bias, 0, 0, 12},
        {"proj forward, bias", C, N, C, 1, 0, bf16, bias, 0, 0, 12},
        {"proj forward, bias, residual added", C, N, C, 1, 0, bf16, bias, 1, 1, 0},
        {"fc forward, bias", 4 * C, N, C, 1, 0, bf16, bias, 0, 0, 0},
        {"fc forward, bias, GELU", 4 * C, N, C, 1, 0, bf16, CUBLASLT_EPILOGUE_GELU_BIAS, 0, 0, 0},
        {"fc forward, bias, GELU, aux", 4 * C, N, C, 1, 0, bf16, CUBLASLT_EPILOGUE_GELU_AUX_BIAS, 0, 0, 12},
        {"fcproj forward, bias", C, N, 4 * C, 1, 0, bf16, bias, 0, 0, 12},
        {"fcproj forward, bias, residual added", C, N, 4 * C, 1, 0, bf16, bias, 1, 1, 0},
        {"fcproj input gradient", 4 * C, N, C, 0, 0, bf16, plain, 0, 0, 0},
        {"fcproj input gradient, DGELU", 4 * C, N, C, 0, 0, bf16, CUBLASLT_EPILOGUE_DGELU, 0, 0, 12},
        {"fcproj input gradient, DGELU, bias gradient", 4 * C, N, C, 0, 0, bf16, CUBLASLT_EPILOGUE_DGELU_BGRAD, 0, 0, 0},
        {"fc input gradient", C, N, 4 * C, 0, 0, bf16, plain, 0, 0, 12},
        {"proj input gradient", C, N, C, 0, 0, bf16, plain, 0, 0, 12},
        {"qkv input gradient", C, N, 3 * C, 0, 0, bf16, plain, 0, 0, 12},
        {"fc weight gradient, bf16, added", C, 4 * C, N, 0, 1, bf16, plain, 1, 0, 0},
        {"fc weight gradient, fp32", C, 4 * C, N, 0, 1, fp32, plain, 0, 0, 0},
        {"fc weight gradient, fp32, added", C, 4 * C, N, 0, 1, fp32, plain, 1, 0, 12},
        {"fc weight gradient, bf16, added, row sums", C, 4 * C, N, 0, 1, bf16, row_sums, 1, 0, 0},
        {"fc weight gradient, fp32, row sums", C, 4 * C, N, 0, 1, fp32, row_sums, 0, 0, 0},
        {"fc weight gradient, fp32, added, row sums", C, 4 * C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"fcproj weight gradient, fp32, added", 4 * C, C, N, 0, 1, fp32, plain, 1, 0, 12},
        {"fcproj weight gradient, fp32, added, row sums", 4 * C, C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"proj weight gradient, fp32, added", C, C, N, 0, 1, fp32, plain, 1, 0, 12},
        {"proj weight gradient, fp32, added, row sums", C, C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"qkv weight gradient, fp32, added", C, 3 * C, N, 0, 1, fp32, plain, 1, 0, 12},
        {"qkv weight gradient, fp32, added, row sums", C, 3 * C, N, 0, 1, fp32, row_sums, 1, 0, 0},
        {"head forward", Vp, N, C, 1, 0, bf16, plain, 0, 0, 1},
        {"head forward, an eighth of the rows", Vp, (N + 7) / 8, C, 1, 0, bf16, plain, 0, 0, 0},
        {"head input gradient", C, N, Vp, 0, 0, bf16, plain, 0, 0, 1},
        {"head weight gradient, fp32, added", C, Vp, N, 0, 1, fp32, plain, 1, 0, 1},
        {"head weight gradient, fp32, added, an eighth", C, Vp, (N + 7) / 8, 0, 1, fp32, plain, 1, 0, 0},
    };
    const int64_t F = 4 * C;
    const Epilogue epilogues[] = {
        {"fc forward, bias, GELU", "fc forward, bias", {1, 1}, {0, 0}, F},
        {"fc forward, bias, GELU, aux", "fc forward, bias", {1, 1}, {0, 0}, F},
        {"fcproj input gradient, DGELU", "fcproj input gradient", {2, 1}, {0, 0}, F},
        {"fcproj input gradient, DGELU, bias gradient", "fcproj input gradient, DGELU", {1, 0}, {0, 0}, F},
        {"fc weight gradient, fp32, row sums", "fc weight gradient, fp32", {1, 0}, {0, 0}, F},
        {"fc weight gradient, fp32, added, row sums", "fc weight gradient, fp32, added", {1, 0}, {0, 0}, F},
        {"fcproj weight gradient, fp32, added, row sums", "fcproj weight gradient, fp32, added", {1, 0}, {0, 0}, C},
        {"proj weight gradient, fp32, added, row sums", "proj weight gradient, fp32, added", {1, 0}, {0, 0}, C},
        {"qkv weight gradient, fp32, added, row sums", "qkv weight gradient, fp32, added", {1, 0}, {0, 0}, 3 * C},
        /* In place of a norm that adds the residual, one that does not. */
        {"proj forward, bias, residual added", "proj forward, bias", {2, 2}, {1, 1}, C},
        {"fcproj forward, bias, residual added", "fcproj forward, bias", {2, 2}, {1, 1}, C},
    };
    std::map<std::string, Result> results;
    CHECK(cudaGetDeviceProperties(&device, 0));
    CHECK(cublasLtCreate(&library));
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaEventCreate(&before));
    CHECK(cudaEventCreate(&after));
    allocate(N, C, Vp);
    printf("%s, cuBLASLt %zu, %lld rows, C %lld, Vp %lld\n", device.name, cublasLtGetVersion(), (long long)N, (long long)C, (long long)Vp);
    printf("%-46s %5s %10s %10s %8s %7s %6s %9s\n", "product", "algs", "first us", "best us", "TFLOP/s", "kernels", "others", "work KiB");
    for (const Case &c : cases) results[c.name] = probe(c);
    printf("%-46s %10s %10s %10s\n", "epilogue", "with it", "apart", "TB/s apart");
    for (const Epilogue &e : epilogues) compare(e, results, N);
    CHECK(cudaDeviceSynchronize());
    if (json && fclose(json) != 0) failed("--json", "the file cannot be written");
    return 0;
}
