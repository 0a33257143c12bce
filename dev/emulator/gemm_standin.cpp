/* gemm_standin.cpp: takes the place of gemm.cu in the emulator: the same products by the CPU's portable one, with fp32 sums like the
   library's. Like the library it says no to some, so that the ways around it are tested too: GELU other than in bf16 with rows of a
   multiple of 8 elements, and bf16 matrices whose rows have odd lengths. With autotune it takes the unusual of two ways. */
#include "kernels/cu.h"
#include "kernels/algorithms.cuh"
#include "kernels/gemm.cuh"
#include "kernels/onednn.h"

static float gelu(float x) { return 0.5f * x * (1.0f + std::tanh(0.797884561f * (x + 0.044715f * x * x * x))); }
static float gelu_derivative(float x) {
    const float t = std::tanh(0.797884561f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.797884561f * (1.0f + 3.0f * 0.044715f * x * x);
}

static float get(const void *memory, DType dtype, int64_t i) {
    return dtype == BF16 ? (float)((const bf16 *)memory)[i] : ((const float *)memory)[i];
}
static void put(void *memory, DType dtype, int64_t i, float value) {
    if (dtype == BF16) ((bf16 *)memory)[i] = value;
    else ((float *)memory)[i] = value;
}

static void compute(const Gemm &g) {
    std::vector<float> sums((size_t)(g.M * g.N));
    portable_matmul(sums.data(), F32, g.A, g.B, g.dtype, g.bias, g.d_dtype, g.M, g.N, g.K, g.transpose_a, g.transpose_b, 0);
    #pragma omp parallel for
    for (int64_t i = 0; i < g.M * g.N; i++) {
        float value = sums[i] + (g.C ? get(g.C, g.d_dtype, i) : 0.0f);
        if (g.epilogue == GEMM_GELU && g.aux) put(g.aux, g.d_dtype, i, value);
        if (g.epilogue == GEMM_GELU) value = gelu(value);
        if (g.epilogue == GEMM_DGELU) value *= gelu_derivative(get(g.aux, g.d_dtype, i));
        put(g.D, g.d_dtype, i, value);
    }
    #pragma omp parallel for
    for (int64_t m = 0; m < (g.epilogue == GEMM_BIAS_GRADIENT ? g.M : 0); m++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < g.K; k++) sum += get(g.A, g.dtype, g.transpose_a ? k * g.M + m : m * g.K + k);
        put(g.bias_gradient, g.d_dtype, m, sum);
    }
}

int gemm(const Gemm *g, Stream *s) {
    const int64_t a_row = g->transpose_a ? g->M : g->K, b_row = g->transpose_b ? g->K : g->N;
    const bool activates = g->epilogue == GEMM_GELU || g->epilogue == GEMM_DGELU;
    if (activates && (g->d_dtype != BF16 || g->N % 8 != 0)) return 0;
    if (g->dtype == BF16 && (a_row % 2 || b_row % 2)) return 0;
    const Gemm product = *g;
    emu::enqueue(cuda_stream(s), [product] { compute(product); });
    return 1;
}

int gemm_fuses_activations(void) { return 1; }

void gemm_either(const char *what, int64_t M, int64_t N, int64_t K, const std::function<int()> &fused, const std::function<int()> &apart,
                 int usually_fused, int repeatable, Stream *s) {
    cudaStreamCaptureStatus status;
    CUDA_CHECK(cudaStreamIsCapturing(cuda_stream(s), &status));
    const std::string name = std::string(what) + " " + std::to_string(M) + " x " + std::to_string(N) + " x " + std::to_string(K);
    const std::string *kept = algorithms_find(name);
    bool fuse = kept ? *kept == "fused" : usually_fused;
    if (!kept && repeatable && cuda_settings.autotune && status == cudaStreamCaptureStatusNone) {
        fuse = !usually_fused;
        algorithms_choose(name, fuse ? "fused" : "apart", true);
    }
    if (!fuse || !fused()) apart();
}

size_t gemm_workspace_bytes(void) { return 0; }
const char *gemm_library(void) { return "plain loops"; }
void gemm_configure(void) { algorithms_open(gemm_library(), cuda_settings.algorithms); }
