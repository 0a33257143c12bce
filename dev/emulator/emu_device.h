/* emu_device.h: what threads do together: barriers, shuffles, votes, atomics, asynchronous copies and tensor-core products. A warp
   operation is a meeting: each lane posts its operands and waits; the last to come computes for all. */
#ifndef EMU_DEVICE_H
#define EMU_DEVICE_H

#include "emu_engine.h"

namespace emu {

enum Op : uint8_t {
    SYNCTHREADS, SYNCTHREADS_OR, SYNCTHREADS_AND, SYNCTHREADS_COUNT, SYNCWARP, SHUFFLE, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR,
    BALLOT, ANY, ALL, REDUCE_ADD, REDUCE_MAX, REDUCE_OR, LDMATRIX, MMA
};
int block_barrier(Op op, int predicate, Site site);
void warp_barrier(unsigned mask, Site site);
/* out of each lane = in of lane `source`; source -1: its own. */
void shuffle(Op op, unsigned mask, const void *in, void *out, size_t size, int source, Site site);
/* A vote or reduction over the lanes of the mask. */
unsigned combine(Op op, unsigned mask, unsigned value, Site site);
void ldmatrix(uint32_t (&r)[4], const void *row, bool transposed, Site site);

/* Every access that the compiler does not see as one; the race check listens. */
enum Access { READ, WRITE, ATOMIC };
void note_access(const void *p, size_t size, Access kind);

}   // namespace emu

/* ---- barriers ------------------------------------------------------------------------------------------------------------------------ */

inline void __syncthreads(EMU_SITE) { emu::block_barrier(emu::SYNCTHREADS, 0, site); }
inline int __syncthreads_or(int p, EMU_SITE) { return emu::block_barrier(emu::SYNCTHREADS_OR, p, site); }
inline int __syncthreads_and(int p, EMU_SITE) { return emu::block_barrier(emu::SYNCTHREADS_AND, p, site); }
inline int __syncthreads_count(int p, EMU_SITE) { return emu::block_barrier(emu::SYNCTHREADS_COUNT, p, site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_SITE) { emu::warp_barrier(mask, site); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { emu::fail("the kernel trapped"); }

/* ---- shuffles: within groups of `width` lanes; a source outside the group gives the lane its own value ------------------------------- */

template <class T> inline T __shfl_sync(unsigned mask, T v, int source, int width = 32, EMU_SITE) {
    T out = v;
    emu::shuffle(emu::SHUFFLE, mask, &v, &out, sizeof v, (emu::thread->lane & ~(width - 1)) | (source & (width - 1)), site);
    return out;
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned distance, int width = 32, EMU_SITE) {
    const int source = emu::thread->lane - int(distance);
    T out = v;
    emu::shuffle(emu::SHUFFLE_UP, mask, &v, &out, sizeof v, source >= (emu::thread->lane & ~(width - 1)) ? source : -1, site);
    return out;
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned distance, int width = 32, EMU_SITE) {
    const int source = emu::thread->lane + int(distance);
    T out = v;
    emu::shuffle(emu::SHUFFLE_DOWN, mask, &v, &out, sizeof v, source <= (emu::thread->lane | (width - 1)) ? source : -1, site);
    return out;
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, EMU_SITE) {
    const int source = emu::thread->lane ^ bits;
    T out = v;
    emu::shuffle(emu::SHUFFLE_XOR, mask, &v, &out, sizeof v, source <= (emu::thread->lane | (width - 1)) ? source : -1, site);
    return out;
}
inline unsigned __ballot_sync(unsigned mask, int p, EMU_SITE) { return emu::combine(emu::BALLOT, mask, p != 0, site); }
inline int __any_sync(unsigned mask, int p, EMU_SITE) { return int(emu::combine(emu::ANY, mask, p != 0, site)); }
inline int __all_sync(unsigned mask, int p, EMU_SITE) { return int(emu::combine(emu::ALL, mask, p != 0, site)); }
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, EMU_SITE) { return emu::combine(emu::REDUCE_ADD, mask, v, site); }
inline unsigned __reduce_max_sync(unsigned mask, unsigned v, EMU_SITE) { return emu::combine(emu::REDUCE_MAX, mask, v, site); }
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, EMU_SITE) { return emu::combine(emu::REDUCE_OR, mask, v, site); }

/* ---- atomics: real ones, because blocks run in parallel ------------------------------------------------------------------------------ */

namespace emu {
template <size_t size> struct Word;
template <> struct Word<2> { typedef uint16_t type; };
template <> struct Word<4> { typedef uint32_t type; };
template <> struct Word<8> { typedef uint64_t type; };

/* *p = update(*p) at once; the value before. */
template <class T, class F> inline T atomic_update(T *p, F update) {
    typedef typename Word<sizeof(T)>::type U;
    note_access(p, sizeof(T), ATOMIC);
    U *word = reinterpret_cast<U *>(p);
    U before = __atomic_load_n(word, __ATOMIC_RELAXED), after;
    do after = bits_as<U>(update(bits_as<T>(before)));
    while (!__atomic_compare_exchange_n(word, &before, after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return bits_as<T>(before);
}
template <class T> struct Same { typedef T type; };   /* a second argument that is converted to the first's type */
}   // namespace emu
template <class T> inline T atomicAdd(T *p, typename emu::Same<T>::type v) {
    return emu::atomic_update(p, [v](T old) { return T(old + v); });
}
template <class T> inline T atomicMax(T *p, typename emu::Same<T>::type v) {
    return emu::atomic_update(p, [v](T old) { return old > v ? old : v; });
}
template <class T> inline T atomicMin(T *p, typename emu::Same<T>::type v) {
    return emu::atomic_update(p, [v](T old) { return old < v ? old : v; });
}
template <class T> inline T atomicExch(T *p, typename emu::Same<T>::type v) {
    return emu::atomic_update(p, [v](T) { return v; });
}
template <class T> inline T atomicCAS(T *p, typename emu::Same<T>::type expected, typename emu::Same<T>::type v) {
    return emu::atomic_update(p, [expected, v](T old) { return old == expected ? v : old; });
}

/* ---- the twins of cu.h's PTX wrappers, which say what each does ---------------------------------------------------------------------- */

/* The copy takes place in the wait; until then the destination holds NaN, so that a missing wait shows. */
void cp_async16(void *shared, const void *global);
void cp_async_commit();
namespace emu {
void cp_async_wait(int groups);
}
template <int N> inline void cp_async_wait() { emu::cp_async_wait(N); }
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, EMU_SITE) { emu::ldmatrix(r, row, false, site); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, EMU_SITE) { emu::ldmatrix(r, row, true, site); }
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], EMU_SITE);

#endif
