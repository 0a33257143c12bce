/* cu.h: all that a kernel file includes. The same .cu source is compiled by nvcc for the GPU and, through the emulator that the include path
   names, by the host compiler for tests. With ops.h this is the one place with macros: launch, shared memory, PTX.

   Rules for kernels, on which the emulator relies:
   - launch with LAUNCH; a template kernel in parentheses: LAUNCH((kernel<float, 256>), grid, block, shared_bytes, stream, arguments);
   - shared memory only by SHARED or SMEM_CARVER; fresh shared memory holds NaN
   - 128-bit accesses only through ld128 and st128, which check alignment in the emulator; all PTX in the wrappers below
   - every thread of a block reaches every __syncthreads; a warp operation names only lanes that take part; a shuffle orders no memory
   - no waiting for another block: what needs all blocks is a second launch
   - launchers run on the host: they never read device memory, a StepState included */
#ifndef KERNELS_CU_H
#define KERNELS_CU_H

#include "ops.h"
#include "philox.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define BACKEND_NAME "cuda"
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                        \
    do {                                                                              \
        kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__);           \
        cuda_launched(#kernel, __FILE__, __LINE__);                                   \
    } while (0)
/* An array in static shared memory: SHARED(float, tile, [32][33]); a scalar: SHARED(int, flag, ); */
#define SHARED(T, name, dims) __shared__ __align__(16) T name dims
/* Dynamic shared memory, cut into arrays: SMEM_CARVER(shared); float *row = shared.take<float>(n);  Each piece takes a multiple of 16 bytes. */
struct SmemCarver {
    unsigned char *next;
    template <class T> __device__ __forceinline__ T *take(size_t n) {
        T *piece = reinterpret_cast<T *>(next);
        next += (n * sizeof(T) + 15) & ~size_t(15);
        return piece;
    }
};
#define SMEM_CARVER(name)                                                             \
    extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];            \
    SmemCarver name{dynamic_shared_memory}
template <class T> __device__ __forceinline__ T *check_aligned(T *p) { return p; }

/* ---- tensor cores and asynchronous copies; their emulated twins are in the emulator ------------------------------------------- */

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* Four 8x8 matrices of 16-bit elements, rows of 16 bytes. Lane 8*i + r gives the address of row r of matrix i; in r[i], lane l gets elements
   2*(l%4), 2*(l%4)+1 of row l/4 of matrix i. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/* The same with every matrix transposed. */
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/* D(16,8) = A(16,16) B(16,8) + C, bf16 in, fp32 out. With g = lane/4, t = lane%4: a = A[g][2t..], A[g+8][2t..], A[g][2t+8..], A[g+8][2t+8..];
   b = B[2t..][g], B[2t+8..][g]; c, d = [g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1]. */
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
/* 16 bytes from global to shared memory, there after the cp_async_wait of their group and a barrier. */
__device__ __forceinline__ void cp_async16(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most N of this thread's groups are under way. */
template <int N> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
/* 2^x in one instruction, to 2^-22; results below 2^-126 become 0. */
__device__ __forceinline__ float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
#include "emulator.h"
static inline float exp2_approximate(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
#define BACKEND_NAME "emu"
#endif

typedef __nv_bfloat16 bf16;

/* ---- host side: what launchers use (cuda.cu) ----------------------------------------------------------------------------------- */

extern BackendSettings cuda_settings;

/* Ends the program: what was being done, what the driver says, where. */
[[noreturn]] void cuda_failed(const char *expression, const char *message, const char *file, int line);
#define CUDA_CHECK(expression)                                                                                                       \
    do {                                                                                                                             \
        cudaError_t cuda_check_error = (expression);                                                                                 \
        if (cuda_check_error != cudaSuccess) cuda_failed(#expression, cudaGetErrorString(cuda_check_error), __FILE__, __LINE__);     \
    } while (0)
/* After a launch: ends the program if it was refused; notes the kernel's name for later errors. */
void cuda_launched(const char *kernel, const char *file, int line);

static inline cudaStream_t cuda_stream(Stream *s) { return reinterpret_cast<cudaStream_t>(s); }
/* Multiprocessors of the device: grids are sized by it. */
int device_multiprocessors(void);
/* Scratch of n floats for a reduction between two launches of one op, valid until the next call; n at most REDUCTION_FLOATS. */
enum { REDUCTION_FLOATS = 8 << 20 };
float *reduction_scratch(size_t n);

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Calls f with a zero of t's element type: by_dtype(x.dtype, [&](auto zero) { typedef decltype(zero) T; LAUNCH((kernel<T>), ...); }); */
template <class F> void by_dtype(DType dtype, F f) {
    if (dtype == BF16) f(bf16());
    else f(0.0f);
}

/* Lets a kernel have so much dynamic shared memory; call before its launch. Beyond 48 KB, static memory counted in, it must be asked for. */
template <class K> void allow_shared_memory(K kernel, size_t bytes) {
    if (bytes > 32 * 1024) CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

/* ---- device side ---------------------------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

/* 128 bits of T. */
template <class T> struct alignas(16) Pack {
    static constexpr int N = 16 / sizeof(T);
    T v[N];
};
template <class T> __device__ __forceinline__ Pack<T> pack_of(int4 bits) {
    Pack<T> pack;
    memcpy(&pack, &bits, 16);
    return pack;
}
template <class T> __device__ __forceinline__ int4 bits_of(const Pack<T> &pack) {
    int4 bits;
    memcpy(&bits, &pack, 16);
    return bits;
}
template <class T> __device__ __forceinline__ Pack<T> ld128(const T *p) { return pack_of<T>(*check_aligned(reinterpret_cast<const int4 *>(p))); }
template <class T> __device__ __forceinline__ void st128(T *p, const Pack<T> &pack) { *check_aligned(reinterpret_cast<int4 *>(p)) = bits_of(pack); }
/* The same for data that is not soon used again: it leaves the cache first. */
template <class T> __device__ __forceinline__ Pack<T> ld128_stream(const T *p) { return pack_of<T>(__ldcs(reinterpret_cast<const int4 *>(p))); }
template <class T> __device__ __forceinline__ void st128_stream(T *p, const Pack<T> &pack) { __stcs(reinterpret_cast<int4 *>(p), bits_of(pack)); }
/* 1 if rows of C elements, each beginning at a multiple of C, can be read 128 bits at a time. */
template <class T> static inline int packs(int64_t C) { return C % Pack<T>::N == 0; }

__device__ __forceinline__ float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}
/* Over a block of BLOCK threads, each of which gets the result; the order of additions is fixed. */
template <int BLOCK> __device__ float block_sum(float v) {
    SHARED(float, part, [BLOCK / 32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_sum(v);
    __syncthreads();   /* part may still be read from the call before */
    if (lane == 0) part[warp] = v;
    __syncthreads();
    return warp_sum(lane < BLOCK / 32 ? part[lane] : 0.0f);
}
template <int BLOCK> __device__ float block_max(float v) {
    SHARED(float, part, [BLOCK / 32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_max(v);
    __syncthreads();   /* part may still be read from the call before */
    if (lane == 0) part[warp] = v;
    __syncthreads();
    return warp_max(lane < BLOCK / 32 ? part[lane] : -INFINITY);
}

/* What element `index` (counted over the global batch) is multiplied by under dropout: 1/(1-p), or 0 with probability p. */
struct DropoutKey {
    uint64_t seed;
    uint32_t step, tensor, threshold;
    float kept;
};
__device__ __forceinline__ DropoutKey dropout_key(Dropout drop) {
    DropoutKey key = {drop.state->seed, drop.state->step, drop.tensor, dropout_threshold(drop.p), 1.0f / (1.0f - drop.p)};
    return key;
}
/* The scales of elements index ... index + 3, index a multiple of 4. */
__device__ __forceinline__ void dropout_scales4(float (&scales)[4], const DropoutKey &key, uint64_t index) {
    uint32_t words[4] = {(uint32_t)(index >> 2), (uint32_t)(index >> 34), key.step, key.tensor};
    philox(words, key.seed);
    for (int i = 0; i < 4; i++) scales[i] = words[i] >= key.threshold ? key.kept : 0.0f;
}
__device__ __forceinline__ float dropout_scale(const DropoutKey &key, uint64_t index) {
    return philox_at(key.seed, key.step, key.tensor, index) >= key.threshold ? key.kept : 0.0f;
}

#endif
