/* device_test.cu: one tile through each wrapper of kernels/cu.h, and through what the kernels use of CUDA besides (shuffles, votes, atomics,
   approximate functions), against plain loops in double. The same source runs in the emulator, which has
   its own twins of the wrappers, and on a GPU, where it shows that twins and hardware agree:
   nvcc -O3 -std=c++17 -I. -arch=sm_90 dev/device_test.cu -o device_test
   Prints a line for each, then "N passed, N failed". */
#include "kernels/packs.cuh"
#include "kernels/sum.cuh"

#include <math.h>
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

/* The four side by side, in rows that are padded as those of flash.cu are. */
enum { PITCH = 4 * 8 + 8 };
__global__ void ldmatrix_kernel(uint32_t *out, const uint16_t *matrices, int transposed) {
    SHARED(uint16_t, tile, [8][PITCH]);
    uint32_t r[4];
    for (int i = threadIdx.x; i < 256; i += 32) tile[i / 8 % 8][i / 64 * 8 + i % 8] = matrices[i];
    __syncthreads();
    const uint16_t *row = tile[threadIdx.x % 8] + threadIdx.x / 8 * 8;
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
/* D, and for each element of it the exact sum and the sum of the terms' sizes. */
typedef struct {
    std::vector<float> d;
    std::vector<double> sum, size;
} Products;
static Products mma_of(const std::vector<bf16> &A, const std::vector<bf16> &B, const std::vector<float> &C) {
    Products p;
    float *D = to_device(std::vector<float>(128));
    LAUNCH(mma_kernel, 1, 32, 0, nullptr, D, to_device(A), to_device(B), to_device(C));
    p.d = to_host(D, 128);
    for (size_t i = 0; i < 128; i++) {
        p.sum.push_back(C[i]);
        p.size.push_back(fabs(C[i]));
        for (size_t k = 0; k < 16; k++) {
            const double term = (double)(float)A[i / 8 * 16 + k] * (double)(float)B[k * 8 + i % 8];
            p.sum[i] += term;
            p.size[i] += fabs(term);
        }
    }
    return p;
}
static void test_mma(void) {
    std::vector<bf16> A(256), B(128);
    std::vector<float> C(128);
    for (int i = 0; i < 256; i++) A[(size_t)i] = bf16((float)(i * 7 % 13 - 6));
    for (int i = 0; i < 128; i++) B[(size_t)i] = bf16((float)(i * 5 % 11 - 5));
    for (int i = 0; i < 128; i++) C[(size_t)i] = (float)(i - 64);
    const Products p = mma_of(A, B, C);
    int right = 1;
    for (size_t i = 0; i < 128; i++) right &= p.d[i] == (float)p.sum[i];
    report("mma_m16n8k16_bf16", right);
}
/* Numbers of many sizes: tensor cores keep some bits less than fp32 of each term (Fasi et al. 2021 found at least 2^-23 of the largest), here of 17.
   One infinity and one NaN, each in a row of A, spread over their rows of D and no further. */
static void test_mma_of_any_numbers(void) {
    std::vector<bf16> A(256), B(128);
    std::vector<float> C(128);
    for (int i = 0; i < 256; i++) A[(size_t)i] = bf16(ldexpf((float)(i * 37 % 101 - 50), i * 11 % 17 - 8));
    for (int i = 0; i < 128; i++) B[(size_t)i] = bf16(ldexpf((float)(i * 29 % 89 - 44.5f), i * 7 % 13 - 6));
    for (int i = 0; i < 128; i++) C[(size_t)i] = ldexpf((float)(i - 63) + 0.3f, i % 9 - 4);
    A[5 * 16 + 3] = bf16(INFINITY);
    A[9 * 16 + 12] = bf16(NAN);
    const Products p = mma_of(A, B, C);
    int right = 1;
    for (size_t i = 0; i < 128; i++)
        right &= i / 8 == 5 ? isinf(p.d[i]) : i / 8 == 9 ? isnan(p.d[i]) : fabs(p.d[i] - p.sum[i]) <= 17 * 0x1p-22 * p.size[i];
    report("mma_m16n8k16_bf16 of any numbers", right);
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

__global__ void nan_kernel(bf16 *out, float x) { out[0] = from_float<bf16>(x), out[1] = pack_floats<Single<bf16>>({x}).value; }
static void test_nan(void) {
    bf16 *out = to_device(std::vector<bf16>(2));
    LAUNCH(nan_kernel, 1, 1, 0, nullptr, out, NAN);
    const std::vector<bf16> got = to_host(out, 2);
    report("from_float<bf16> of NaN", isnan((float)got[0]) && isnan((float)got[1]));
}

/* ---- packs: eight floats to 128 bits of bf16, in order, and back ---------------------------------------------------------------------- */

__global__ void packs_kernel(bf16 *rounded, float *back, const float *x) {
    float v[8];
    for (int k = 0; k < 8; k++) v[k] = x[8 * threadIdx.x + k];
    store_pack(rounded + 8 * threadIdx.x, pack_floats<Vec<bf16>>(v));
    const Vec<bf16> pack = load_pack<Vec<bf16>>(rounded + 8 * threadIdx.x);
    for (int k = 0; k < 8; k++) back[8 * threadIdx.x + k] = element(pack, k);
}
static void test_packs(void) {
    std::vector<float> x(256), expected(256);
    for (size_t i = 0; i < 256; i++) x[i] = (float)((int)i - 100) * 1.01171875f, expected[i] = (float)bf16(x[i]);
    bf16 *rounded = to_device(std::vector<bf16>(256));
    float *back = to_device(std::vector<float>(256));
    LAUNCH(packs_kernel, 1, 32, 0, nullptr, rounded, back, to_device(x));
    report("pack_floats, store_pack, load_pack, element", to_host(back, 256) == expected);
}

/* ---- what lanes do together: any value may be infinite or negative -------------------------------------------------------------------- */

enum { SUM, MAX, UP, AT, XOR, BALLOT, WARP_TESTS };
__global__ void warp_kernel(float *out, double *sums, int *count, float *total) {
    SHARED(int, shared_count, [8]);
    const int lane = threadIdx.x;
    const float v = lane == 3 ? -INFINITY : (float)(lane - 40);
    if (lane < 8) shared_count[lane] = 0;
    __syncwarp();
    out[SUM * 32 + lane] = warp_sum((float)(lane - 40));
    out[MAX * 32 + lane] = warp_max(v);
    out[UP * 32 + lane] = __shfl_up_sync(0xffffffffu, v, 4);
    out[AT * 32 + lane] = __shfl_sync(0xffffffffu, v, lane * 7 + 1);   /* of a lane's number the lowest five bits count */
    out[XOR * 32 + lane] = __shfl_xor_sync(0xffffffffu, v, 12);
    out[BALLOT * 32 + lane] = (float)(__popc(__ballot_sync(0xffffffffu, lane % 3 == 0) & ((1u << lane) - 1)));
    sums[lane] = block_sum_double<32>(1.0 / (lane + 1));
    atomicAdd(&shared_count[lane % 8], lane);
    atomicAdd(total, (float)lane);
    __syncwarp();
    if (lane < 8) count[lane] = shared_count[lane];
}
static void test_warp(void) {
    float *out = to_device(std::vector<float>(WARP_TESTS * 32)), *total = to_device(std::vector<float>(1));
    double *sums = to_device(std::vector<double>(32)), harmonic = 0;
    int *count = to_device(std::vector<int>(8));
    LAUNCH(warp_kernel, 1, 32, 0, nullptr, out, sums, count, total);
    const std::vector<float> got = to_host(out, WARP_TESTS * 32);
    const std::vector<double> got_sums = to_host(sums, 32);
    const std::vector<int> got_count = to_host(count, 8);
    const auto v = [](int lane) { return lane == 3 ? -INFINITY : (float)(lane - 40); };
    int right[WARP_TESTS] = {1, 1, 1, 1, 1, 1}, right_sums = 1, right_count = 1;
    for (int lane = 31; lane >= 0; lane--) harmonic += 1.0 / (lane + 1);
    for (int lane = 0; lane < 32; lane++) {
        const float expected[WARP_TESTS] = {496 - 32 * 40, -9, v(lane < 4 ? lane : lane - 4), v((lane * 7 + 1) % 32), v(lane ^ 12),
                                            (float)((lane + 2) / 3)};
        for (int i = 0; i < WARP_TESTS; i++) right[i] &= got[(size_t)(i * 32 + lane)] == expected[i];
        right_sums &= fabs(got_sums[(size_t)lane] / harmonic - 1) <= 1e-15;
    }
    for (int i = 0; i < 8; i++) right_count &= got_count[(size_t)i] == 4 * i + 48;
    report("warp_sum, warp_max", right[SUM] & right[MAX]);
    report("__shfl_up_sync, __shfl_sync, __shfl_xor_sync", right[UP] & right[AT] & right[XOR]);
    report("__ballot_sync, __popc", right[BALLOT]);
    report("block_sum_double", right_sums);
    report("atomicAdd, of ints in shared and floats in global memory", right_count & (to_host(total, 1)[0] == 496));
}

/* ---- approximate functions: 2^x, e^x, quotients --------------------------------------------------------------------------------------- */

enum { POINTS = 4096 };
__global__ void functions_kernel(float *power, float *exponential, float *quotient, const float *x) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    power[i] = exp2_approximate(x[i]);
    exponential[i] = __expf(x[i] < 0 ? x[i] : -x[i]);
    quotient[i] = __fdividef(x[i], 1.0f + x[i] * x[i]);
}
static int near(double got, double expected, double relative) { return fabs(got - expected) <= relative * fabs(expected); }
/* CUDA's manual gives __expf(x) 2 + 1.173 |x| units in the last place, and the quotient two. Below 2^-126 both exponentials are 0. */
static void test_functions(void) {
    std::vector<float> x(POINTS);
    for (int i = 0; i < POINTS; i++) x[(size_t)i] = -124.0f + 248.0f * (float)i / (POINTS - 1);
    float *power = to_device(x), *exponential = to_device(x), *quotient = to_device(x);
    LAUNCH(functions_kernel, POINTS / 256, 256, 0, nullptr, power, exponential, quotient, to_device(x));
    const std::vector<float> p = to_host(power, POINTS), e = to_host(exponential, POINTS), q = to_host(quotient, POINTS);
    int right[3] = {1, 1, 1};
    for (size_t i = 0; i < POINTS; i++) {
        const double y = x[i], down = -fabs(y);
        right[0] &= near(p[i], exp2(y), 0x1p-22);
        right[1] &= down < -87 ? e[i] >= 0 && e[i] <= 2e-38f : near(e[i], exp(down), (2 + 1.173 * -down) * 0x1p-23);
        right[2] &= near(q[i], y / (1.0f + (float)y * (float)y), 0x1p-21);
    }
    report("exp2_approximate", right[0]);
    report("__expf", right[1]);
    report("__fdividef", right[2]);
}
__global__ void edges_kernel(float *out, const float *x) { out[threadIdx.x] = exp2_approximate(x[threadIdx.x]); }
static void test_edges(void) {
    const std::vector<float> x = {-INFINITY, INFINITY, 0.0f, -0.0f, -126.5f, -140.0f, -3e38f, 128.0f};
    const std::vector<float> expected = {0, INFINITY, 1, 1, 0, 0, 0, INFINITY};
    float *out = to_device(std::vector<float>(x.size())), *nan = to_device(std::vector<float>(1));
    LAUNCH(edges_kernel, 1, (unsigned)x.size(), 0, nullptr, out, to_device(x));
    LAUNCH(edges_kernel, 1, 1, 0, nullptr, nan, to_device(std::vector<float>{NAN}));
    report("exp2_approximate at the edges", to_host(out, x.size()) == expected && isnan(to_host(nan, 1)[0]));
}

/* ---- dropout: the masks of the device are those of the host --------------------------------------------------------------------------- */

__global__ void dropout_kernel(float *fours, float *ones, Dropout drop, uint64_t first) {
    const DropoutKey key = dropout_key(drop);
    float scales[4];
    dropout_scales4(scales, key, first + 4 * threadIdx.x);
    for (int i = 0; i < 4; i++) fours[4 * threadIdx.x + i] = scales[i], ones[4 * threadIdx.x + i] = dropout_scale(key, first + 4 * threadIdx.x + i);
}
static void test_dropout(void) {
    const uint64_t first = (uint64_t)5 << 33;   /* beyond 32 bits, as an element of a large batch */
    std::vector<StepState> state(1);
    std::vector<float> expected(128);
    memset(state.data(), 0, sizeof(StepState));
    state[0].seed = 0x123456789abcdefu, state[0].step = 7;
    const Dropout drop = {0.3f, 11, to_device(state)};
    for (size_t i = 0; i < 128; i++)
        expected[i] = philox_at(state[0].seed, 7, 11, first + i) >= dropout_threshold(drop.p) ? 1.0f / (1.0f - drop.p) : 0.0f;
    float *fours = to_device(std::vector<float>(128)), *ones = to_device(std::vector<float>(128));
    LAUNCH(dropout_kernel, 1, 32, 0, nullptr, fours, ones, drop, first);
    report("dropout_scales4, dropout_scale", to_host(fours, 128) == expected && to_host(ones, 128) == expected);
}

int main() {
    test_ldmatrix(0);
    test_ldmatrix(1);
    test_mma();
    test_mma_of_any_numbers();
    test_copies();
    test_streams<float>("ld128_stream, st128_stream in fp32");
    test_streams<bf16>("ld128_stream, st128_stream in bf16");
    test_reductions();
    test_large_shared();
    test_rounding();
    test_nan();
    test_packs();
    test_warp();
    test_functions();
    test_edges();
    test_dropout();
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
