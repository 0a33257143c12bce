/* emu_types.h: CUDA's vector types, bf16, and the intrinsics that touch one thread only. */
#ifndef EMU_TYPES_H
#define EMU_TYPES_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>

namespace emu {
[[noreturn]] void fail(const char *message);
}

/* ---- vectors ------------------------------------------------------------------------------------------------------------------------- */

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define EMU_VECTORS(T, name)                                                                                                         \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                                               \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; };                                               \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                                       \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(float, float)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
EMU_VECTORS(short, short)
EMU_VECTORS(unsigned short, ushort)
EMU_VECTORS(double, double)
EMU_VECTORS(long long, longlong)
EMU_VECTORS(unsigned long long, ulonglong)

/* ---- bf16 ---------------------------------------------------------------------------------------------------------------------------- */

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;   /* trivial: it lives in shared memory and in unions */
    __nv_bfloat16(float x) {     /* to nearest, ties to even; every NaN becomes the same one */
        uint32_t u;
        memcpy(&u, &x, 4);
        bits = (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
    }
    __nv_bfloat16(double x) : __nv_bfloat16(float(x)) {}
    __nv_bfloat16(int x) : __nv_bfloat16(float(x)) {}
    operator float() const {
        const uint32_t u = uint32_t(bits) << 16;
        float x;
        memcpy(&x, &u, 4);
        return x;
    }
};
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

inline float __bfloat162float(__nv_bfloat16 x) { return float(x); }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__nv_bfloat16(a), __nv_bfloat16(b)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 a) { return {__nv_bfloat16(a.x), __nv_bfloat16(a.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {float(a.x), float(a.y)}; }
inline float __low2float(__nv_bfloat162 a) { return float(a.x); }
inline float __high2float(__nv_bfloat162 a) { return float(a.y); }
#define EMU_BF16_ARITHMETIC(name, op)                                                                                                \
    inline __nv_bfloat16 operator op(__nv_bfloat16 a, __nv_bfloat16 b) { return __nv_bfloat16(float(a) op float(b)); }               \
    inline __nv_bfloat16 &operator op##=(__nv_bfloat16 &a, __nv_bfloat16 b) { return a = a op b; }                                   \
    inline __nv_bfloat16 __h##name(__nv_bfloat16 a, __nv_bfloat16 b) { return a op b; }                                              \
    inline __nv_bfloat162 __h##name##2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x op b.x, a.y op b.y}; }
EMU_BF16_ARITHMETIC(add, +)
EMU_BF16_ARITHMETIC(sub, -)
EMU_BF16_ARITHMETIC(mul, *)
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) { return __nv_bfloat16(fmaf(float(a), float(b), float(c))); }

/* ---- arithmetic ---------------------------------------------------------------------------------------------------------------------- */

/* Macros: glibc declares functions of these names but does not export them. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

namespace emu {
template <class To, class From> inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "a value can only be seen as one of its own size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}   // namespace emu
inline int __float_as_int(float x) { return emu::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return emu::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return emu::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return emu::bits_as<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
template <class A, class B> inline std::common_type_t<A, B> max(A a, B b) {
    typedef std::common_type_t<A, B> C;
    return C(a) < C(b) ? C(b) : C(a);
}
template <class A, class B> inline std::common_type_t<A, B> min(A a, B b) {
    typedef std::common_type_t<A, B> C;
    return C(b) < C(a) ? C(b) : C(a);
}

/* ---- loads and stores with a cache hint ---------------------------------------------------------------------------------------------- */

template <class T> inline T *check_aligned(T *p) {
    if (reinterpret_cast<uintptr_t>(p) % alignof(T)) emu::fail("misaligned vector access");
    return p;
}
template <class T> inline T __ldg(const T *p) { return *check_aligned(p); }
template <class T> inline T __ldcs(const T *p) { return *check_aligned(p); }
template <class T> inline T __ldcg(const T *p) { return *check_aligned(p); }
template <class T> inline void __stcs(T *p, T v) { *check_aligned(p) = v; }
template <class T> inline void __stcg(T *p, T v) { *check_aligned(p) = v; }

#endif
