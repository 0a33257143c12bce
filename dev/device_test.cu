/* device_test.cu: one tile through each wrapper of kernels/cu.h, against plain loops. The same source runs in the emulator, which has
   its own twins of the wrappers, and on a GPU, where it shows that twins and hardware agree:
   nvcc -O3 -std=c++17 -I. -arch=sm_90 dev/device_test.cu -o device_test
   Prints a line for each, then "N passed, N failed". */
#include "kernels/cu.h"

#include <stdio.h>
#include <stdlib.h>
#include <vector>

/* Stand in for those of cuda.cu. */
void cuda_launched(const char *kernel, const char *file, int line) {
    if (cudaGetLastError() != cudaSuccess) cuda_failed(kernel, "the launch was refused", file, line);
}
void cuda_failed(const char *expression, const char *message, const char *file, int line) {
    fprintf(stderr, "%s: %s (%s:%d)\n", expression, message, file, line);
    exit(1);
}

static int passed, failed;
static void report(const char *what, int right) {
    printf("%s: %s\n", what, right ? "passed" : "FAILED");
    if (right) passed++;
    else failed++;
}

template <class T> static T *to_device(const std::vector<T> &host) {
    void *memory;
    CUDA_CHECK(cudaMalloc(&memory, host.size() * sizeof(T)));
    CUDA_CHECK(cudaMemcpy(memory, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
    return static_cast<T *>(memory);
}
template <class T> static std::vector<T> to_host(const T *memory, size_t n) {
    std::vector<T> host(n);
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaMemcpy(host.data(), memory, n * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
}

/* ---- ldmatrix: lane l of matrix i gets elements 2*(l%4) and the next of row l/4; transposed, of column l/4 --------------------------- */

__global__ void ldmatrix_kernel(uint32_t *out, const uint16_t *matrices, int transposed) {
    SHARED(uint16_t, tile, [4][8][8]);
    uint32_t r[4];
    for (int i = threadIdx.x; i < 256; i += 32) tile[i / 64][i / 8 % 8][i % 8] = matrices[i];
    __syncthreads();
    const uint16_t *row = tile[threadIdx.x / 8][threadIdx.x % 8];
    if (transposed) ldmatrix_x4_trans(r, row);
    else ldmatrix_x4(r, row);
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = r[i];
}
static void test_ldmatrix(int transposed) {
    std::vector<uint16_t> matrices(256);
    for (int i = 0; i < 256; i++) matrices[(size_t)i] = (uint16_t)(1000 + i);
    uint32_t *out = to_device(std::vector<uint32_t>(128));
    LAUNCH(ldmatrix_kernel, 1, 32, 0, nullptr, out, to_device(matrices), transposed);
    const std::vector<uint32_t> r = to_host(out, 128);
    int right = 1;
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++) {
                const int major = lane / 4, minor = lane % 4 * 2 + half;
                const uint32_t expected = 1000u + 64u * (uint32_t)i + (uint32_t)(transposed ? minor * 8 + major : major * 8 + minor);
                right &= (r[(size_t)(4 * lane + i)] >> 16 * half & 0xffff) == expected;
            }
    report(transposed ? "ldmatrix_x4_trans" : "ldmatrix_x4", right);
}

/* ---- mma: small whole numbers, so that sums are exact in any order ------------------------------------------------------------------- */

__global__ void mma_kernel(float *D, const bf16 *A, const bf16 *B, const float *C) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4 * 2;
    uint32_t a[4], b[2];
    float c[4], d[4];
    for (int i = 0; i < 4; i++) memcpy(&a[i], A + (g + i % 2 * 8) * 16 + t + i / 2 * 8, 4);
    for (int i = 0; i < 2; i++) {
        const bf16 pair[2] = {B[(t + 8 * i) * 8 + g], B[(t + 8 * i + 1) * 8 + g]};
        memcpy(&b[i], pair, 4);
    }
    for (int i = 0; i < 4; i++) c[i] = C[(g + i / 2 * 8) * 8 + t + i % 2];
    mma_m16n8k16_bf16(d, a, b, c);
    for (int i = 0; i < 4; i++) D[(g + i / 2 * 8) * 8 + t + i % 2] = d[i];
}
static void test_mma(void) {
    std::vector<bf16> A(256), B(128);
    std::vector<float> C(128);
    for (int i = 0; i < 256; i++) A[(size_t)i] = bf16((float)(i * 7 % 13 - 6));
    for (int i = 0; i < 128; i++) B[(size_t)i] = bf16((float)(i * 5 % 11 - 5));
    for (int i = 0; i < 128; i++) C[(size_t)i] = (float)(i - 64);
    float *D = to_device(std::vector<float>(128));
    LAUNCH(mma_kernel, 1, 32, 0, nullptr, D, to_device(A), to_device(B), to_device(C));
    const std::vector<float> d = to_host(D, 128);
    int right = 1;
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++) {
            float sum = C[(size_t)(8 * m + n)];
            for (int k = 0; k < 16; k++) sum += (float)A[(size_t)(16 * m + k)] * (float)B[(size_t)(8 * k + n)];
            right &= d[(size_t)(8 * m + n)] == sum;
        }
    report("mma_m16n8k16_bf16", right);
}

/* ---- asynchronous copies: three groups under way, waited for one by one -------------------------------------------------------------- */

enum { STAGES = 3, STAGE = 4 * 32 };

__global__ void copy_kernel(float *out, const float *x) {
    SHARED(float, tile, [STAGES][STAGE]);
    const int own = threadIdx.x * 4, other = (31 - threadIdx.x) * 4;
    for (int s = 0; s < STAGES; s++) {
        cp_async16(tile[s] + own, x + s * STAGE + own);
        cp_async_commit();
    }
    cp_async_wait<2>();
    __syncthreads();
    st128(out + other, ld128(tile[0] + other));
    cp_async_wait<1>();
    __syncthreads();
    st128(out + STAGE + other, ld128(tile[1] + other));
    cp_async_wait<0>();
    __syncthreads();
    st128(out + 2 * STAGE + other, ld128(tile[2] + other));
}
static void test_copies(void) {
    std::vector<float> x(STAGES * STAGE);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)i;
    float *out = to_device(std::vector<float>(x.size()));
    LAUNCH(copy_kernel, 1, 32, 0, nullptr, out, to_device(x));
    report("cp_async16, cp_async_commit, cp_async_wait", to_host(out, x.size()) == x);
}

/* ---- loads, stores, reductions, dynamic shared memory -------------------------------------------------------------------------------- */

template <class T> __global__ void streams_kernel(T *out, const T *x) {
    const int i = threadIdx.x * Pack<T>::N;
    st128_stream(out + i, ld128_stream(x + i));
}
template <class T> static void test_streams(const char *what) {
    std::vector<T> x(32 * Pack<T>::N);
    for (size_t i = 0; i < x.size(); i++) x[i] = T((float)i);
    T *out = to_device(std::vector<T>(x.size()));
    LAUNCH((streams_kernel<T>), 1, 32, 0, nullptr, out, to_device(x));
    const std::vector<T> got = to_host(out, x.size());
    report(what, memcmp(got.data(), x.data(), x.size() * sizeof(T)) == 0);
}
__global__ void reductions_kernel(float *out) {
    out[threadIdx.x] = block_sum<256>((float)threadIdx.x);
    out[256 + threadIdx.x] = block_sum<256>(1.0f);
    out[512 + threadIdx.x] = block_max<256>((float)(threadIdx.x * 7 % 256));
}
static void test_reductions(void) {
    static const float expected[] = {32640, 256, 255};
    float *out = to_device(std::vector<float>(768));
    LAUNCH(reductions_kernel, 1, 256, 0, nullptr, out);
    const std::vector<float> got = to_host(out, 768);
    int right = 1;
    for (int i = 0; i < 768; i++) right &= got[(size_t)i] == expected[i / 256];
    report("block_sum, block_max", right);
}
enum { LARGE = 24 * 1024 };   /* floats: 96 KB */
__global__ void large_kernel(float *out) {
    SMEM_CARVER(shared);
    float *first = shared.take<float>(LARGE / 2), *second = shared.take<float>(LARGE / 2);
    for (int i = threadIdx.x; i < LARGE / 2; i += 256) first[i] = (float)i, second[i] = -1.0f;
    __syncthreads();
    out[threadIdx.x] = first[LARGE / 2 - 1 - threadIdx.x] + second[threadIdx.x];
}
static void test_large_shared(void) {
    float *out = to_device(std::vector<float>(256));
    allow_shared_memory(large_kernel, LARGE * sizeof(float));
    LAUNCH(large_kernel, 1, 256, LARGE * sizeof(float), nullptr, out);
    const std::vector<float> got = to_host(out, 256);
    int right = 1;
    for (int i = 0; i < 256; i++) right &= got[(size_t)i] == (float)(LARGE / 2 - 2 - i);
    report("SMEM_CARVER, allow_shared_memory", right);
}

/* ---- rounding to bf16: ties, the largest numbers, infinities, NaN -------------------------------------------------------------------- */

__global__ void round_kernel(bf16 *out, const float *x) { out[threadIdx.x] = from_float<bf16>(x[threadIdx.x]); }
static void test_rounding(void) {
    const std::vector<float> x = {1.0f, 1.00390625f, 1.01171875f, -1.00390625f, 3.4028235e38f, INFINITY, -INFINITY, 1e-40f};
    const uint16_t expected[] = {0x3f80, 0x3f80, 0x3f82, 0xbf80, 0x7f80, 0x7f80, 0xff80, 0x0001};
    bf16 *out = to_device(std::vector<bf16>(8));
    LAUNCH(round_kernel, 1, 8, 0, nullptr, out, to_device(x));
    report("from_float<bf16>", memcmp(to_host(out, 8).data(), expected, sizeof expected) == 0);
}

int main() {
    test_ldmatrix(0);
    test_ldmatrix(1);
    test_mma();
    test_copies();
    test_streams<float>("ld128_stream, st128_stream in fp32");
    test_streams<bf16>("ld128_stream, st128_stream in bf16");
    test_reductions();
    test_large_shared();
    test_rounding();
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
