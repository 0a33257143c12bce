/* packs.cuh: rows read 128 bits at a time where they are aligned, and element by element where they are not, by one and the same kernel. */
#ifndef KERNELS_PACKS_CUH
#define KERNELS_PACKS_CUH

#include "cu.h"

#include <type_traits>

/* 128 bits of T as they come from memory. Elements are taken out where they are used and not before: a thread that loads many packs and
   then looks at them has all of the loads under way at once. Vec<T>() is zeros. */
template <class T> struct Vec {
    typedef T Element;
    static constexpr int N = 16 / sizeof(T);
    uint32_t words[4];
};
/* One element: stands in for Vec<T>. */
template <class T> struct Single {
    typedef T Element;
    static constexpr int N = 1;
    T value;
};

template <class P> using ElementOf = typename P::Element;

/* P::N elements from p on, P a Vec or a Single. The _stream forms are for data that is not soon used again. */
template <class P> __device__ __forceinline__ P load_pack(const ElementOf<P> *p) {
    P pack;
    if constexpr (P::N == 1) pack.value = *p;
    else memcpy(pack.words, ld128(reinterpret_cast<const uint32_t *>(p)).v, 16);
    return pack;
}
template <class P> __device__ __forceinline__ P load_pack_stream(const ElementOf<P> *p) {
    P pack;
    if constexpr (P::N == 1) pack.value = *p;
    else memcpy(pack.words, ld128_stream(reinterpret_cast<const uint32_t *>(p)).v, 16);
    return pack;
}

__device__ __forceinline__ float element(const Vec<float> &pack, int k) { return __uint_as_float(pack.words[k]); }
__device__ __forceinline__ float element(const Vec<bf16> &pack, int k) {
    return __uint_as_float(k % 2 ? pack.words[k / 2] & 0xffff0000u : pack.words[k / 2] << 16);
}
template <class T> __device__ __forceinline__ float element(const Single<T> &pack, int) { return to_float(pack.value); }

/* The pack of these values, rounded. */
template <class P> __device__ __forceinline__ P pack_floats(const float (&v)[P::N]) {
    P pack;
    if constexpr (P::N == 1) pack.value = from_float<ElementOf<P>>(v[0]);
    else if constexpr (P::N == 4) memcpy(pack.words, v, 16);
    else
        for (int i = 0; i < 4; i++) {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
            memcpy(&pack.words[i], &pair, 4);
        }
    return pack;
}

template <class P> __device__ __forceinline__ void store_pack(ElementOf<P> *p, const P &pack) {
    if constexpr (P::N == 1) *p = pack.value;
    else st128(reinterpret_cast<uint32_t *>(p), Pack<uint32_t>{{pack.words[0], pack.words[1], pack.words[2], pack.words[3]}});
}
template <class P> __device__ __forceinline__ void store_pack_stream(ElementOf<P> *p, const P &pack) {
    if constexpr (P::N == 1) *p = pack.value;
    else st128_stream(reinterpret_cast<uint32_t *>(p), Pack<uint32_t>{{pack.words[0], pack.words[1], pack.words[2], pack.words[3]}});
}

/* p[0 .. N-1] = value, or += value, in 128-bit accesses where N is more than one. */
template <int N> __device__ __forceinline__ void store_floats(float *p, const float (&value)[N]) {
    typedef std::conditional_t<N == 1, Single<float>, Vec<float>> F;
    for (int i = 0; i < N; i += F::N) {
        float part[F::N];
        for (int k = 0; k < F::N; k++) part[k] = value[i + k];
        store_pack(p + i, pack_floats<F>(part));
    }
}
template <int N> __device__ __forceinline__ void add_floats(float *p, const float (&value)[N]) {
    typedef std::conditional_t<N == 1, Single<float>, Vec<float>> F;
    F before[N / F::N];
    float sum[N];
    for (int i = 0; i < N / F::N; i++) before[i] = load_pack<F>(p + i * F::N);
    for (int i = 0; i < N; i++) sum[i] = element(before[i / F::N], i % F::N) + value[i];
    store_floats(p, sum);
}

/* The dropout scales of elements index ... index + P::N - 1; index a multiple of 4 where P::N is more than one. */
template <class P> __device__ __forceinline__ void dropout_scales(float (&scales)[P::N], const DropoutKey &key, uint64_t index) {
    if constexpr (P::N == 1) scales[0] = dropout_scale(key, index);
    else
        for (int i = 0; i < P::N; i += 4) {
            float four[4];
            dropout_scales4(four, key, index + i);
            for (int k = 0; k < 4; k++) scales[i + k] = four[k];
        }
}

/* 1 if rows of C elements, of dtype or wider, can be accessed 128 bits at a time in all of these tensors; absent ones may be among them. */
template <class... Tensors> int rows_aligned(DType dtype, int64_t C, Tensors... tensors) {
    return C * (int64_t)dtype_size(dtype) % 16 == 0 && (((uintptr_t)tensors.data % 16 == 0) && ...);
}

/* Calls f with a Vec or, if not aligned, a Single of dtype: by_pack(x.dtype, aligned, [&](auto pack) { typedef decltype(pack) P; ... }); */
template <class F> void by_pack(DType dtype, int aligned, F f) {
    by_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        if (aligned) f(Vec<T>());
        else f(Single<T>());
    });
}

#endif
