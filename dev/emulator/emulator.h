// emulator.h - CUDA execution model on the CPU, for correctness tests only.
// One OS thread runs one block at a time; every CUDA thread is a fiber; blocks of a grid spread over OpenMP threads.
// Env: CUEMU_ORDER=fwd|rev|rand:SEED|prio:SEED (fiber + block order; prio = random warp priorities, starves the others)   CUEMU_LAX=1 (allow exited lanes at barriers/warp ops)
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#include <sys/mman.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CUEMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUEMU_ASAN 1
#endif
#endif
#if CUEMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) || defined(CUEMU_UCONTEXT)
#include <ucontext.h>
#define CUEMU_USE_UCONTEXT 1
#endif
#ifndef CUEMU_STACK
#define CUEMU_STACK (256 * 1024)      // per fiber, mapped lazily, with a guard page below
#endif

// ---------------------------------------------------------------- keywords (defined AFTER all std headers)
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local  /* works, but no redzones; prefer SHARED() */
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define SHARED(T, name, dims) auto& name = cuemu::shared_var<T dims>([] {}, #name)
#define DYN_SHARED(name) unsigned char* const name = cuemu::dyn_whole()
#define SMEM_CARVER(name) cuemu::Carver name
#define LAUNCH(kernel, grid, block, smem, stream, ...) \
    (cuemu::launch(#kernel, (grid), (block), (smem), (stream), [](auto... cuemu_a) { kernel(cuemu_a...); }, ##__VA_ARGS__), cuda_launched(#kernel, __FILE__, __LINE__))
#define threadIdx (cuemu::cur->tid)
#define blockIdx (cuemu::blk->bid)
#define blockDim (cuemu::blk->bdim)
#define gridDim (cuemu::blk->gdim)
constexpr int warpSize = 32;

// ---------------------------------------------------------------- vector types
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };
#define CUEMU_VEC(T, N)                                                                                  \
    struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                                      \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) N##4 { T x, y, z, w; };                      \
    inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                                 \
    inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUEMU_VEC(float, float) CUEMU_VEC(int, int) CUEMU_VEC(unsigned, uint) CUEMU_VEC(unsigned short, ushort)

// ---------------------------------------------------------------- bf16
struct __nv_bfloat16 {
    uint16_t v;
    __nv_bfloat16() = default;      // must stay trivial: lives in shared memory and unions
    __nv_bfloat16(float f) {
        uint32_t u; memcpy(&u, &f, 4);
        v = (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
    }
    __nv_bfloat16(double d) : __nv_bfloat16(float(d)) {}
    __nv_bfloat16(int d) : __nv_bfloat16(float(d)) {}
    operator float() const { uint32_t u = uint32_t(v) << 16; float f; memcpy(&f, &u, 4); return f; }
};
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
using nv_bfloat16 = __nv_bfloat16; using nv_bfloat162 = __nv_bfloat162;
inline float __bfloat162float(__nv_bfloat16 b) { return float(b); }
inline __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__nv_bfloat16(a), __nv_bfloat16(b)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 b) { return {float(b.x), float(b.y)}; }
#define CUEMU_BFOP(name, op)                                                                                             \
    inline __nv_bfloat16 operator op(__nv_bfloat16 a, __nv_bfloat16 b) { return __nv_bfloat16(float(a) op float(b)); }   \
    inline __nv_bfloat16& operator op##=(__nv_bfloat16& a, __nv_bfloat16 b) { return a = a op b; }                       \
    inline __nv_bfloat16 __h##name(__nv_bfloat16 a, __nv_bfloat16 b) { return a op b; }                                  \
    inline __nv_bfloat162 __h##name##2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x op b.x, a.y op b.y}; }
CUEMU_BFOP(add, +) CUEMU_BFOP(sub, -) CUEMU_BFOP(mul, *)
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) { return __nv_bfloat16(fmaf(float(a), float(b), float(c))); }

// ---------------------------------------------------------------- small intrinsics
#define __expf(x) expf(x)     /* macros: glibc's <math.h> already DECLARES __expf & co. but does not export them */
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
template <class D, class S> inline D cuemu_bits(S s) { static_assert(sizeof(D) == sizeof(S)); D d; memcpy(&d, &s, sizeof d); return d; }
inline int __float_as_int(float f) { return cuemu_bits<int>(f); }
inline unsigned __float_as_uint(float f) { return cuemu_bits<unsigned>(f); }
inline float __int_as_float(int i) { return cuemu_bits<float>(i); }
inline float __uint_as_float(unsigned i) { return cuemu_bits<float>(i); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
template <class A, class B> inline std::common_type_t<A, B> max(A a, B b) { using C = std::common_type_t<A, B>; return C(a) < C(b) ? C(b) : C(a); }
template <class A, class B> inline std::common_type_t<A, B> min(A a, B b) { using C = std::common_type_t<A, B>; return C(b) < C(a) ? C(b) : C(a); }
namespace cuemu { [[noreturn]] void fail(const char* msg); }
template <class T> inline T* check_aligned(T* p) { if (reinterpret_cast<uintptr_t>(p) % alignof(T)) cuemu::fail("misaligned vector access"); return p; }
template <class T> inline T __ldg(const T* p) { return *check_aligned(p); }
template <class T> inline T __ldcs(const T* p) { return *check_aligned(p); }
template <class T> inline T __ldcg(const T* p) { return *check_aligned(p); }
template <class T> inline void __stcs(T* p, T v) { *check_aligned(p) = v; }
template <class T> inline void __stcg(T* p, T v) { *check_aligned(p) = v; }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}
#define __trap() abort()

// ---------------------------------------------------------------- engine
namespace cuemu {
struct Stack { char* map = nullptr; char* lo = nullptr; void* sp = nullptr; void* fake = nullptr;
#if CUEMU_USE_UCONTEXT
    ucontext_t uc;
#endif
};
enum State : uint8_t { NEW, READY, AT_BARRIER, AT_WARP, DONE };
enum Op : uint8_t { SYNC, SYNC_OR, SYNC_AND, SYNC_COUNT, SYNCWARP, SHFL, SHFL_UP, SHFL_DOWN, SHFL_XOR, VOTE, REDUCE, LDMATRIX, MMA };
inline const char* op_name(int o) {
    static const char* n[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count", "__syncwarp",
                              "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync", "vote", "__reduce_sync", "ldmatrix", "mma"};
    return n[o];
}
struct CpAsync { void* dst; unsigned char val[16]; int group; };
struct Thread {
    uint3 tid; uint16_t lin; uint8_t lane; State st; Op op; uint16_t warp;
    Stack* stk; const char* file; int line; unsigned mask; void* arg; int pred;
    uint32_t wepoch; int race_off;         // race checker: wepoch is bumped by __syncwarp
    int cp_group; std::vector<CpAsync> cp; // cp.async issued, not yet waited for
};
struct Warp { unsigned alive, waiting, ready; };
struct Block {
    dim3 gdim, bdim; uint3 bid; unsigned char* dyn; const char* kernel; uint32_t launch_id, epoch = 0;
    size_t dyn_bytes = 0, static_used = 0, carve_hi = 0;
    int n = 0, live = 0, arrived = 0; 
    std::vector<Thread> th; std::vector<Warp> wp; std::vector<uint16_t> q; size_t qh = 0;
    std::vector<std::unique_ptr<Stack>> pool; std::vector<Stack*> free_stacks; Stack* zombie = nullptr;
    std::vector<void*> slots; std::vector<std::pair<unsigned char*, size_t>> vars; Stack main; const void* main_lo = nullptr; size_t main_sz = 0;
    unsigned char* arena = nullptr; uint64_t rng = 1;
    void (*body)(void*) = nullptr; void* body_arg = nullptr;
    ~Block();
};
inline thread_local Thread* cur = nullptr;
inline thread_local Block* blk = nullptr;
constexpr size_t STATIC_MAX = 48 * 1024, STATIC_AREA = 96 * 1024, DYN_MAX = 227 * 1024, DYN_AREA = DYN_MAX + 16 * 1024, ARENA = 384 * 1024, REDZONE = 64;
struct Config { int order = 0; uint64_t seed = 1; bool lax = false; size_t smem_optin = DYN_MAX;
    Config() {
        if (const char* s = getenv("CUEMU_ORDER")) { order = !strcmp(s, "rev") ? 1 : !strncmp(s, "rand", 4) ? 2 : !strncmp(s, "prio", 4) ? 3 : 0; if (order >= 2 && s[4] == ':') seed = strtoull(s + 5, 0, 10); }
        lax = getenv("CUEMU_LAX") != nullptr;
    } };
inline Config cfg;
inline std::atomic<uint32_t> launch_counter{0};
inline std::atomic<int> slot_counter{0};
enum Access { RD, WR, AT };
#if CUEMU_RACE
void race_access(const void* p, size_t n, Access a);
void race_block_begin(Block*);
void race_device_alloc(void* p, size_t n); void race_device_free(void* p);
struct RaceOff { Thread* t; RaceOff() : t(cur) { if (t) ++t->race_off; } ~RaceOff() { if (t) --t->race_off; } };   // emulator code at work for this fiber
#else
inline void race_access(const void*, size_t, Access) {}
inline void race_block_begin(Block*) {}
inline void race_device_alloc(void*, size_t) {}
inline void race_device_free(void*) {}
struct RaceOff { RaceOff() {} };
#endif

[[noreturn]] inline void fail(const char* msg) {
    fflush(stdout);
    fprintf(stderr, "\n==CUEMU ERROR== %s\n  kernel %s", msg, blk ? blk->kernel : "?");
    if (blk) fprintf(stderr, " block (%u,%u,%u)", blk->bid.x, blk->bid.y, blk->bid.z);
    if (cur) fprintf(stderr, " thread (%u,%u,%u) warp %u lane %u", cur->tid.x, cur->tid.y, cur->tid.z, cur->warp, cur->lane);
    fprintf(stderr, "\n");
    if (blk) {  // who waits where, in runs of threads
        for (int i = 0; i < blk->n;) {
            auto& a = blk->th[i]; int j = i + 1;
            while (j < blk->n && blk->th[j].st == a.st && (a.st < AT_BARRIER || a.st == DONE || (blk->th[j].line == a.line && blk->th[j].op == a.op && blk->th[j].mask == a.mask))) ++j;
            fprintf(stderr, "    threads %4d..%-4d ", i, j - 1);
            if (a.st == AT_BARRIER) fprintf(stderr, "wait at %s %s:%d\n", op_name(a.op), a.file, a.line);
            else if (a.st == AT_WARP) fprintf(stderr, "wait at %s(mask=%08x) %s:%d\n", op_name(a.op), a.mask, a.file, a.line);
            else fprintf(stderr, "%s\n", a.st == DONE ? "exited" : "runnable");
            i = j;
        }
    }
    abort();
}

// ---- stacks and switching
#if !CUEMU_USE_UCONTEXT
__attribute__((naked, noinline)) inline void switch_sp(void** /*save rdi*/, void* /*to rsi*/) {
    asm volatile("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
                 "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
                 "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif
inline void fiber_main();
inline Block::~Block() {
    for (auto& s : pool) munmap(s->map, CUEMU_STACK + 4096);
    if (arena) {
#if CUEMU_ASAN
        __asan_unpoison_memory_region(arena, ARENA);
#endif
        munmap(arena, ARENA);
    }
}
inline Stack* get_stack() {
    Block* b = blk;
    if (b->free_stacks.empty()) {
        auto s = std::make_unique<Stack>();
        void* m = mmap(nullptr, CUEMU_STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m == MAP_FAILED) fail("cannot map a fiber stack");
        s->map = (char*)m; mprotect(m, 4096, PROT_NONE); s->lo = s->map + 4096;
        b->free_stacks.push_back(s.get()); b->pool.push_back(std::move(s));
    }
    Stack* s = b->free_stacks.back(); b->free_stacks.pop_back();
    s->fake = nullptr;
#if CUEMU_ASAN
    __asan_unpoison_memory_region(s->lo, CUEMU_STACK);   // a reused stack may carry stale redzones
#endif
#if CUEMU_USE_UCONTEXT
    getcontext(&s->uc); s->uc.uc_stack.ss_sp = s->lo; s->uc.uc_stack.ss_size = CUEMU_STACK; s->uc.uc_link = nullptr;
    makecontext(&s->uc, fiber_main, 0);
#else
    void** sp = (void**)(s->lo + CUEMU_STACK);
    *--sp = nullptr; *--sp = nullptr; *--sp = nullptr; *--sp = (void*)&fiber_main;      // "return address" of fiber_main is 0: unwinders stop
    for (int i = 0; i < 6; ++i) *--sp = nullptr;
    s->sp = sp;
#endif
    return s;
}
inline void after_switch(Stack* self) {
    (void)self;
#if CUEMU_ASAN && !defined(CUEMU_NO_FIBER_ANNOTATIONS)
    const void* lo; size_t sz;
    __sanitizer_finish_switch_fiber(self->fake, &lo, &sz);
    if (!blk->main_lo) { blk->main_lo = lo; blk->main_sz = sz; }       // first switch ever comes from the OS stack
#endif
    if (blk->zombie) { blk->free_stacks.push_back(blk->zombie); blk->zombie = nullptr; }
}
inline void switch_to(Stack* from, Stack* to, bool dying) {
    (void)dying;
#if CUEMU_ASAN && !defined(CUEMU_NO_FIBER_ANNOTATIONS)
    bool m = to == &blk->main;
    __sanitizer_start_switch_fiber(dying ? nullptr : &from->fake, m ? blk->main_lo : to->lo, m ? blk->main_sz : CUEMU_STACK);
#endif
#if CUEMU_USE_UCONTEXT
    swapcontext(&from->uc, &to->uc);
#else
    switch_sp(&from->sp, to->sp);
#endif
    after_switch(from);
}
inline uint32_t rnd(Block* b) { b->rng ^= b->rng << 13; b->rng ^= b->rng >> 7; b->rng ^= b->rng << 17; return uint32_t(b->rng >> 20); }
inline void make_ready(Thread* t) {
    if (t->st != NEW) t->st = READY;
    if (cfg.order == 3) blk->wp[t->warp].ready |= 1u << t->lane; else blk->q.push_back(t->lin);
}
inline Thread* pick() {
    Block* b = blk;
    if (cfg.order == 3) {              // q holds a random permutation of the warps
        for (int w : b->q) if (unsigned m = b->wp[w].ready) {
            int l = rnd(b) & 1 ? __builtin_ctz(m) : 31 - __builtin_clz(m);
            b->wp[w].ready &= ~(1u << l); return &b->th[w * 32 + l];
        }
        return nullptr;
    }
    if (b->qh == b->q.size()) return nullptr;
    if (cfg.order == 2) std::swap(b->q[b->qh], b->q[b->qh + rnd(b) % (b->q.size() - b->qh)]);
    Thread* t = &b->th[b->q[b->qh++]];
    if (b->qh == b->q.size()) { b->q.clear(); b->qh = 0; }
    return t;
}
inline void block_me() {               // cur has put itself in a waiting state: run somebody else
    Thread* me = cur; Thread* t = pick();
    if (!t) fail("deadlock: no thread can make progress (divergent barrier or warp operation with missing lanes)");
    if (t->st == NEW) { t->st = READY; t->stk = get_stack(); }
    cur = t; switch_to(me->stk, t->stk, false); 
}
inline void thread_exit() {
    Thread* me = cur; Block* b = blk;
    if (!me->cp.empty()) fail("thread exited with cp.async copies that were never waited for");
    me->st = DONE; --b->live; b->wp[me->warp].alive &= ~(1u << me->lane);
    if (b->arrived && !cfg.lax) fail("thread exited while others wait at __syncthreads");
    if (b->wp[me->warp].waiting && !cfg.lax)
        for (int l = 0; l < 32; ++l) if (b->wp[me->warp].waiting >> l & 1)
            if (b->th[me->warp * 32 + l].mask >> me->lane & 1) fail("lane exited while other lanes name it in a warp operation");
}
inline void release_barrier();
inline void fiber_main() {
    Stack* s = cur->stk; after_switch(s);
    for (;;) {
        --cur->race_off; blk->body(blk->body_arg); ++cur->race_off;       // only kernel code proper is race-checked
        thread_exit();
        if (blk->arrived && blk->arrived == blk->live) release_barrier();     // lax mode only
        Thread* t = pick();
        if (!t) {
            if (blk->live) fail("deadlock: remaining threads wait for threads that exited");
            blk->zombie = s; cur = nullptr; switch_to(s, &blk->main, true);
        } else if (t->st == NEW) { t->st = READY; t->stk = s; cur = t; }      // reuse this stack: no switch at all
        else { blk->zombie = s; cur = t; switch_to(s, t->stk, true); }
    }
}

// ---- block barrier
inline void release_barrier() {
    Block* b = blk; Thread* first = nullptr; int cnt = 0;
    for (auto& t : b->th) if (t.st == AT_BARRIER) {
        if (!first) first = &t;
        if (t.op != first->op || t.line != first->line || strcmp(t.file, first->file)) fail("divergent __syncthreads: threads of one block wait at different barriers");
        cnt += t.pred != 0;
    }
    int r = first->op == SYNC_OR ? cnt > 0 : first->op == SYNC_AND ? cnt == b->arrived : cnt;
    b->arrived = 0; ++b->epoch;
    auto rel = [&](Thread& t) { if (t.st == AT_BARRIER) { t.pred = r; if (&t != cur) make_ready(&t); else t.st = READY; } };
    if (cfg.order == 1) for (auto it = b->th.rbegin(); it != b->th.rend(); ++it) rel(*it); else for (auto& t : b->th) rel(t);
}
inline int block_barrier(Op op, int pred, const char* f, int l) {
    RaceOff off; Thread* me = cur;
    me->st = AT_BARRIER; me->op = op; me->pred = pred; me->file = f; me->line = l;
    if (blk->live != blk->n && !cfg.lax) fail("divergent __syncthreads: some threads of the block exited without reaching it");
    if (++blk->arrived == blk->live) release_barrier();
    else { block_me(); }
    return me->pred;
}
// ---- warp rendezvous: last lane to arrive runs complete(Thread* lane0) for everybody
template <class F> inline void warp_op(unsigned mask, Op op, void* arg, const char* f, int l, F&& complete) {
    RaceOff off; Thread* me = cur; Block* b = blk; Warp& w = b->wp[me->warp]; Thread* base = &b->th[me->warp * 32];
    me->st = AT_WARP; me->op = op; me->mask = mask; me->arg = arg; me->file = f; me->line = l;
    if (!(mask >> me->lane & 1)) fail("warp operation: calling lane is not in its own mask");
    if (mask & ~w.alive) { if (!cfg.lax) fail("warp operation: mask names lanes that have exited or do not exist"); mask &= w.alive; me->mask = mask; }
    w.waiting |= 1u << me->lane;
    bool all = (w.waiting & mask) == mask;
    for (unsigned m = mask; all && m; m &= m - 1) all = base[__builtin_ctz(m)].mask == mask;
    if (!all) { block_me(); return; }
    for (unsigned m = mask; m; m &= m - 1) {
        Thread& t = base[__builtin_ctz(m)];
        if (t.op != op || t.line != l || strcmp(t.file, f)) fail("warp divergence: lanes of one mask wait at different warp operations");
    }
    complete(base);
    w.waiting &= ~mask; me->st = READY;
    for (unsigned m = mask; m; m &= m - 1) {
        Thread& t = base[cfg.order == 1 ? 31 - __builtin_clz(m & -m) : __builtin_ctz(m)];
        if (op == SYNCWARP) ++t.wepoch;
        if (&t != me) make_ready(&t);
    }
}

// ---- static shared memory (one slot per SHARED() site and template instantiation)
inline void* alloc_static(size_t n, const char*) {
    Block* b = blk; size_t a = (n + 15) & ~size_t(15);
    static_assert(STATIC_AREA + DYN_AREA + 4096 <= ARENA);
    unsigned char* p = b->arena + b->static_used + REDZONE;
    if (b->static_used + a + REDZONE > STATIC_AREA) fail("static shared memory exceeds 48 KB");
    b->static_used += a + REDZONE;
#if CUEMU_ASAN
    __asan_unpoison_memory_region(p, n);
#endif
    memset(p, 0xff, n);                // NaN / -1: reading uninitialised shared memory shows
    b->vars.push_back({p, n});
    return p;
}
template <class T, class Tag> inline T& shared_var(Tag, const char* name) {
    static_assert(sizeof(T) <= STATIC_MAX, "static shared memory exceeds 48 KB");
    static const int slot = slot_counter++;
    RaceOff off; auto& s = blk->slots;
    if ((int)s.size() <= slot) s.resize(slot + 16, nullptr);
    if (!s[slot]) s[slot] = alloc_static(sizeof(T), name);
    return *static_cast<T*>(s[slot]);
}
inline void unpoison(unsigned char* p, size_t n) {
    (void)p; (void)n;
#if CUEMU_ASAN
    __asan_unpoison_memory_region(p, n);
#endif
}
inline void repoison(unsigned char* p, size_t n) {
    (void)p; (void)n;
#if CUEMU_ASAN
    __asan_poison_memory_region(p, n);
#endif
}
inline unsigned char* dyn_whole() { RaceOff off; if (!blk->carve_hi) { blk->carve_hi = ~size_t(0); unpoison(blk->dyn, blk->dyn_bytes); blk->vars.push_back({blk->dyn, blk->dyn_bytes}); } return blk->dyn; }
struct Carver {                        // dynamic shared memory cut into arrays, with a redzone after each
    size_t used = 0, off = 0;
    template <class T> T* take(size_t n) {
        RaceOff o; Block* b = blk; size_t bytes = n * sizeof(T); unsigned char* p = b->dyn + off;
        used += (bytes + 15) & ~size_t(15); if (used > b->dyn_bytes) fail("kernel carves more dynamic shared memory than the launch asked for");
        off += ((bytes + 15) & ~size_t(15)) + REDZONE; if (off > DYN_AREA) fail("too many shared-memory arrays");
        if (off > b->carve_hi) { b->carve_hi = off; unpoison(p, bytes + REDZONE + 16); memset(p, 0xff, bytes); memset(p + bytes, 0xa5, REDZONE + 16); repoison(p + bytes, REDZONE + 16); b->vars.push_back({p, bytes}); }
        return reinterpret_cast<T*>(p);
    }
};
inline void run_block(dim3 g, dim3 bd, uint3 bid, size_t smem, const char* name, uint32_t id, void (*body)(void*), void* arg) {
    static thread_local std::unique_ptr<Block> mine; RaceOff off;
    if (!mine) mine = std::make_unique<Block>();
    Block* b = blk = mine.get();
    if (!b->arena) b->arena = (unsigned char*)mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    b->gdim = g; b->bdim = bd; b->bid = bid; b->kernel = name; b->launch_id = id; b->body = body; b->body_arg = arg;
    b->epoch = 0; b->arrived = 0; b->static_used = 0; b->dyn_bytes = smem;
    std::fill(b->slots.begin(), b->slots.end(), nullptr); b->vars.clear(); b->carve_hi = 0;
    b->dyn = b->arena + STATIC_AREA + 16;          // deliberately only 16-byte aligned
#if CUEMU_ASAN
    __asan_unpoison_memory_region(b->arena, ARENA);
#endif
    memset(b->arena, 0xa5, STATIC_AREA); memset(b->dyn + smem, 0xa5, 4096); memset(b->dyn, 0xff, smem);     // canaries; NaNs
#if CUEMU_ASAN
    __asan_poison_memory_region(b->arena, ARENA);
#endif
    int n = bd.x * bd.y * bd.z, nw = (n + 31) / 32;
    if ((int)b->th.size() < n || b->n != n) { b->th.clear(); b->th.resize(n); }
    b->n = b->live = n; b->wp.assign(nw, Warp{0, 0, 0}); b->q.clear(); b->qh = 0;
    b->rng = (cfg.seed * 0x9e3779b97f4a7c15ull) ^ (uint64_t(bid.x + 1) * 0xbf58476d1ce4e5b9ull) ^ (bid.y << 20) ^ (uint64_t(bid.z) << 40); if (!b->rng) b->rng = 1;
    for (int i = 0; i < n; ++i) {
        Thread& t = b->th[i];
        t.tid = {i % bd.x, i / bd.x % bd.y, i / (bd.x * bd.y)}; t.lin = i; t.lane = i & 31; t.warp = i >> 5; t.st = NEW;
        t.stk = nullptr; t.wepoch = 0; t.race_off = 1; t.cp_group = 0; t.cp.clear(); t.mask = 0; t.line = 0; t.file = "";
        b->wp[i >> 5].alive |= 1u << (i & 31);
    }
    if (cfg.order == 3) {
        for (int w = 0; w < nw; ++w) { b->q.push_back(w); std::swap(b->q[w], b->q[rnd(b) % (w + 1)]); b->wp[w].ready = b->wp[w].alive; }
    } else for (int i = 0; i < n; ++i) b->q.push_back(cfg.order == 1 ? n - 1 - i : i);
    race_block_begin(b);
    Thread* t = pick(); t->st = READY; t->stk = get_stack(); cur = t;
    switch_to(&b->main, t->stk, false);
    cur = nullptr;
#if CUEMU_ASAN
    __asan_unpoison_memory_region(b->arena, ARENA);
#else
    auto canary = [](const unsigned char* p) { for (size_t i = 0; i < REDZONE; ++i) if (p[i] != 0xa5) fail("write past the end of a shared-memory variable (canary)"); };
    for (auto& v : b->vars) canary(v.first + v.second);
#endif
    blk = nullptr;
}
struct Stream;
inline bool capturing = false;                                  // between cudaStreamBeginCapture and cudaStreamEndCapture
inline std::vector<std::function<void()>> captured;
// Runs work on the device now, or notes it for the graph under capture.
template <class F> inline void enqueue(F work) { if (capturing) captured.push_back(work); else work(); }
template <class F, class... A>
inline void launch(const char* name, dim3 g, dim3 b, size_t smem, Stream*, F f, A... args) {
    static_assert((sizeof(A) + ... + 0) <= 4096, "kernel arguments exceed 4 KB");
    size_t n = size_t(b.x) * b.y * b.z; int64_t nb = int64_t(g.x) * g.y * g.z;
    if (n == 0 || n > 1024 || b.z > 64 || nb == 0 || g.y > 65535 || g.z > 65535) { fprintf(stderr, "CUEMU: invalid launch configuration for %s\n", name); abort(); }
    if (smem > cfg.smem_optin) { fprintf(stderr, "CUEMU: %s asks for %zu bytes of dynamic shared memory\n", name, smem); abort(); }
    auto call = [&] { f(args...); };
    auto body = [](void* p) { (*static_cast<decltype(call)*>(p))(); };
    if (capturing) {
        captured.push_back([=] { launch(name, g, b, smem, static_cast<Stream*>(nullptr), f, args...); });
        return;
    }
    uint32_t id = ++launch_counter;
    auto one = [&](int64_t i) {
        if (cfg.order == 1) i = nb - 1 - i;
        else if (cfg.order >= 2) i = (i + int64_t(cfg.seed * 7919 % nb)) % nb;
        run_block(g, b, uint3{unsigned(i % g.x), unsigned(i / g.x % g.y), unsigned(i / g.x / g.y)}, smem, name, id, body, &call);
    };
#if defined(_OPENMP) && !CUEMU_RACE
#pragma omp parallel for schedule(dynamic) if (nb > 1)
    for (int64_t i = 0; i < nb; ++i) one(i);
#else
    for (int64_t i = 0; i < nb; ++i) one(i);
#endif
}
}  // namespace cuemu

// ---------------------------------------------------------------- barriers, shuffles, votes, reductions
#define CUEMU_SITE const char *cuemu_f = __builtin_FILE(), int cuemu_l = __builtin_LINE()
inline void __syncthreads(CUEMU_SITE) { cuemu::block_barrier(cuemu::SYNC, 0, cuemu_f, cuemu_l); }
inline int __syncthreads_or(int p, CUEMU_SITE) { return cuemu::block_barrier(cuemu::SYNC_OR, p, cuemu_f, cuemu_l); }
inline int __syncthreads_and(int p, CUEMU_SITE) { return cuemu::block_barrier(cuemu::SYNC_AND, p, cuemu_f, cuemu_l); }
inline int __syncthreads_count(int p, CUEMU_SITE) { return cuemu::block_barrier(cuemu::SYNC_COUNT, p, cuemu_f, cuemu_l); }
inline void __syncwarp(unsigned m = 0xffffffffu, CUEMU_SITE) { cuemu::warp_op(m, cuemu::SYNCWARP, nullptr, cuemu_f, cuemu_l, [](cuemu::Thread*) {}); }
namespace cuemu {
template <class T> struct ShflArg { T v; int src; T out; };
template <class T> inline T shfl(Op op, unsigned mask, T v, int src, bool in_range, const char* f, int l) {
    ShflArg<T> a{v, in_range ? src : -1, v};
    warp_op(mask, op, &a, f, l, [&](Thread* base) {
        for (unsigned m = mask; m; m &= m - 1) {
            auto* x = static_cast<ShflArg<T>*>(base[__builtin_ctz(m)].arg);
            if (x->src < 0) continue;
            if (!(mask >> x->src & 1)) fail("shuffle reads from a lane that is not in the mask");
            x->out = static_cast<ShflArg<T>*>(base[x->src].arg)->v;
        }
    });
    return a.out;
}
struct RedArg { unsigned v; unsigned long long out; };
template <class F> inline unsigned reduce(unsigned mask, unsigned v, Op op, unsigned init, const char* f, int l, F&& fn) {
    RedArg a{v, 0};
    warp_op(mask, op, &a, f, l, [&](Thread* base) {
        unsigned r = init;
        for (unsigned m = mask; m; m &= m - 1) r = fn(r, static_cast<RedArg*>(base[__builtin_ctz(m)].arg)->v, __builtin_ctz(m));
        for (unsigned m = mask; m; m &= m - 1) static_cast<RedArg*>(base[__builtin_ctz(m)].arg)->out = r;
    });
    return unsigned(a.out);
}
}  // namespace cuemu
template <class T> inline T __shfl_sync(unsigned m, T v, int src, int w = 32, CUEMU_SITE) { int L = cuemu::cur->lane; return cuemu::shfl(cuemu::SHFL, m, v, (L & ~(w - 1)) | (src & (w - 1)), true, cuemu_f, cuemu_l); }
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, CUEMU_SITE) { int L = cuemu::cur->lane, s = L - int(d); return cuemu::shfl(cuemu::SHFL_UP, m, v, s, s >= (L & ~(w - 1)), cuemu_f, cuemu_l); }
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, CUEMU_SITE) { int L = cuemu::cur->lane, s = L + int(d); return cuemu::shfl(cuemu::SHFL_DOWN, m, v, s, s <= (L | (w - 1)), cuemu_f, cuemu_l); }
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, CUEMU_SITE) { int L = cuemu::cur->lane, s = L ^ x; return cuemu::shfl(cuemu::SHFL_XOR, m, v, s, s <= (L | (w - 1)), cuemu_f, cuemu_l); }
inline unsigned __ballot_sync(unsigned m, int p, CUEMU_SITE) { return cuemu::reduce(m, p != 0, cuemu::VOTE, 0, cuemu_f, cuemu_l, [](unsigned r, unsigned v, int l) { return r | v << l; }); }
inline int __any_sync(unsigned m, int p, CUEMU_SITE) { return cuemu::reduce(m, p != 0, cuemu::VOTE, 0, cuemu_f, cuemu_l, [](unsigned r, unsigned v, int) { return r | v; }); }
inline int __all_sync(unsigned m, int p, CUEMU_SITE) { return cuemu::reduce(m, p != 0, cuemu::VOTE, 1, cuemu_f, cuemu_l, [](unsigned r, unsigned v, int) { return r & v; }); }
inline unsigned __reduce_add_sync(unsigned m, unsigned v, CUEMU_SITE) { return cuemu::reduce(m, v, cuemu::REDUCE, 0, cuemu_f, cuemu_l, [](unsigned r, unsigned x, int) { return r + x; }); }
inline unsigned __reduce_max_sync(unsigned m, unsigned v, CUEMU_SITE) { return cuemu::reduce(m, v, cuemu::REDUCE, 0, cuemu_f, cuemu_l, [](unsigned r, unsigned x, int) { return r > x ? r : x; }); }
inline unsigned __reduce_or_sync(unsigned m, unsigned v, CUEMU_SITE) { return cuemu::reduce(m, v, cuemu::REDUCE, 0, cuemu_f, cuemu_l, [](unsigned r, unsigned x, int) { return r | x; }); }

// ---------------------------------------------------------------- atomics (real ones: blocks run in parallel)
namespace cuemu {
template <class T, class F> inline T atomic_rmw(T* p, F&& f) {
    race_access(p, sizeof(T), AT); RaceOff off;
    using U = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
    U* q = reinterpret_cast<U*>(p); U o = __atomic_load_n(q, __ATOMIC_RELAXED), n;
    do { n = cuemu_bits<U>(f(cuemu_bits<T>(o))); } while (!__atomic_compare_exchange_n(q, &o, n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return cuemu_bits<T>(o);
}
template <class T> struct id { using type = T; };
}
template <class T> inline T atomicAdd(T* p, typename cuemu::id<T>::type v) { return cuemu::atomic_rmw(p, [v](T o) { return T(o + v); }); }
template <class T> inline T atomicMax(T* p, typename cuemu::id<T>::type v) { return cuemu::atomic_rmw(p, [v](T o) { return o > v ? o : v; }); }
template <class T> inline T atomicMin(T* p, typename cuemu::id<T>::type v) { return cuemu::atomic_rmw(p, [v](T o) { return o < v ? o : v; }); }
template <class T> inline T atomicExch(T* p, typename cuemu::id<T>::type v) { return cuemu::atomic_rmw(p, [v](T) { return v; }); }
template <class T> inline T atomicCAS(T* p, typename cuemu::id<T>::type c, typename cuemu::id<T>::type v) { return cuemu::atomic_rmw(p, [c, v](T o) { return o == c ? v : o; }); }

// ---------------------------------------------------------------- cp.async, ldmatrix, mma (twins of the PTX wrappers in cu.h)
// cp.async is deferred: the destination holds NaNs until the matching wait, so a missing wait shows.
inline void cp_async16(void* dst, const void* src) {
    if ((reinterpret_cast<uintptr_t>(dst) | reinterpret_cast<uintptr_t>(src)) & 15) cuemu::fail("cp.async: address not 16-byte aligned");
    cuemu::RaceOff off; cuemu::CpAsync c{dst, {}, cuemu::cur->cp_group};
    cuemu::race_access(src, 16, cuemu::RD); cuemu::race_access(dst, 16, cuemu::WR);
    memcpy(c.val, src, 16); memset(dst, 0xff, 16); cuemu::cur->cp.push_back(c);
}
inline void cp_async_commit() { cuemu::RaceOff off; ++cuemu::cur->cp_group; }
template <int N> inline void cp_async_wait() {
    auto* t = cuemu::cur; size_t k = 0; cuemu::RaceOff off;
    for (auto& c : t->cp) if (c.group < t->cp_group - N) { cuemu::race_access(c.dst, 16, cuemu::WR); memcpy(c.dst, c.val, 16); } else t->cp[k++] = c;
    t->cp.resize(k);
}
namespace cuemu {
struct LdmArg { const void* row; uint32_t* r; };
inline void ldmatrix(uint32_t* r, const void* row, int nmat, bool trans, const char* f, int l) {
    LdmArg a{row, r};
    if (int(cur->lane) < nmat * 8 && (reinterpret_cast<uintptr_t>(row) & 15)) fail("ldmatrix: row address not 16-byte aligned");
    if (int(cur->lane) < nmat * 8) race_access(row, 16, RD);
    warp_op(0xffffffffu, LDMATRIX, &a, f, l, [&](Thread* base) {
        for (int i = 0; i < nmat; ++i) {
            uint16_t m[8][8];
            for (int j = 0; j < 8; ++j) memcpy(m[j], static_cast<LdmArg*>(base[i * 8 + j].arg)->row, 16);
            for (int L = 0; L < 32; ++L) {
                int g = L >> 2, t = (L & 3) * 2; uint32_t lo = trans ? m[t][g] : m[g][t], hi = trans ? m[t + 1][g] : m[g][t + 1];
                static_cast<LdmArg*>(base[L].arg)->r[i] = lo | hi << 16;
            }
        }
    });
}
struct MmaArg { float* d; const uint32_t *a, *b; const float* c; };
inline float bf_lo(uint32_t u) { return cuemu_bits<float>(u << 16); }
inline float bf_hi(uint32_t u) { return cuemu_bits<float>(u & 0xffff0000u); }
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, CUEMU_SITE) { cuemu::ldmatrix(r, row, 4, false, cuemu_f, cuemu_l); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, CUEMU_SITE) { cuemu::ldmatrix(r, row, 4, true, cuemu_f, cuemu_l); }
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], CUEMU_SITE) {
    cuemu::MmaArg x{d, a, b, c};
    cuemu::warp_op(0xffffffffu, cuemu::MMA, &x, cuemu_f, cuemu_l, [](cuemu::Thread* base) {
        using namespace cuemu; float A[16][16], B[16][8], C[16][8];
        for (int L = 0; L < 32; ++L) {
            auto* m = static_cast<MmaArg*>(base[L].arg); int g = L >> 2, t = (L & 3) * 2;
            A[g][t] = bf_lo(m->a[0]); A[g][t + 1] = bf_hi(m->a[0]); A[g + 8][t] = bf_lo(m->a[1]); A[g + 8][t + 1] = bf_hi(m->a[1]);
            A[g][t + 8] = bf_lo(m->a[2]); A[g][t + 9] = bf_hi(m->a[2]); A[g + 8][t + 8] = bf_lo(m->a[3]); A[g + 8][t + 9] = bf_hi(m->a[3]);
            B[t][g] = bf_lo(m->b[0]); B[t + 1][g] = bf_hi(m->b[0]); B[t + 8][g] = bf_lo(m->b[1]); B[t + 9][g] = bf_hi(m->b[1]);
            C[g][t] = m->c[0]; C[g][t + 1] = m->c[1]; C[g + 8][t] = m->c[2]; C[g + 8][t + 1] = m->c[3];
        }
        for (int i = 0; i < 16; ++i) for (int k = 0; k < 16; ++k) for (int j = 0; j < 8; ++j) C[i][j] += A[i][k] * B[k][j];
        for (int L = 0; L < 32; ++L) {
            auto* m = static_cast<MmaArg*>(base[L].arg); int g = L >> 2, t = (L & 3) * 2;
            m->d[0] = C[g][t]; m->d[1] = C[g][t + 1]; m->d[2] = C[g + 8][t]; m->d[3] = C[g + 8][t + 1];
        }
    });
}

// ---------------------------------------------------------------- runtime API subset (synchronous)
typedef int cudaError_t; typedef cuemu::Stream* cudaStream_t; enum { cudaSuccess = 0 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaFuncAttributes { int numRegs; };
struct cudaDeviceProp { char name[256]; int major, minor, multiProcessorCount; size_t totalGlobalMem; };
template <class T> inline cudaError_t cudaMalloc(T** p, size_t n) {
    void* q = nullptr; if (posix_memalign(&q, 256, n ? n : 1)) return 2;
    memset(q, 0xff, n); cuemu::race_device_alloc(q, n); *p = static_cast<T*>(q); return 0;   // fresh memory reads as NaN
}
inline cudaError_t cudaFree(void* p) { cuemu::race_device_free(p); free(p); return 0; }
template <class T> inline cudaError_t cudaHostAlloc(T** p, size_t n, unsigned) { *p = static_cast<T*>(malloc(n ? n : 1)); return *p ? 0 : 2; }
inline cudaError_t cudaFreeHost(void* p) { free(p); return 0; }
inline cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) { memcpy(d, s, n); return 0; }
inline cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind, cudaStream_t = nullptr) { cuemu::enqueue([=] { memcpy(d, s, n); }); return 0; }
inline cudaError_t cudaMemset(void* d, int v, size_t n) { memset(d, v, n); return 0; }
inline cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t = nullptr) { cuemu::enqueue([=] { memset(d, v, n); }); return 0; }
inline cudaError_t cudaDeviceSynchronize() { return 0; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { if (cuemu::capturing) cuemu::fail("the host waits inside a capture"); return 0; }
inline cudaError_t cudaGetLastError() { return 0; }
inline const char* cudaGetErrorString(cudaError_t) { return "error of the emulator"; }
template <class F> inline cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int) { return 0; }
template <class F> inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, F) { return 0; }
inline cudaError_t cudaGetDeviceCount(int* n) { *n = 1; return 0; }
inline cudaError_t cudaSetDevice(int) { return 0; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) { *p = cudaDeviceProp{"emulated GPU", 9, 0, 4, size_t(1) << 34}; return 0; }
inline cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) { *free_bytes = *total = size_t(1) << 34; return 0; }
inline cudaError_t cudaRuntimeGetVersion(int* v) { *v = 0; return 0; }
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0, cudaStreamCaptureModeThreadLocal = 1 };
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { *s = reinterpret_cast<cudaStream_t>(malloc(1)); return 0; }
inline cudaError_t cudaStreamDestroy(cudaStream_t s) { free(static_cast<void*>(s)); return 0; }
struct cuemu_event { int recorded; }; typedef cuemu_event* cudaEvent_t;
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { *e = new cuemu_event{0}; return 0; }
inline cudaError_t cudaEventDestroy(cudaEvent_t e) { delete e; return 0; }
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) { e->recorded = 1; return 0; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { if (cuemu::capturing) cuemu::fail("the host waits inside a capture"); return 0; }
struct cuemu_graph { std::vector<std::function<void()>> work; }; typedef cuemu_graph *cudaGraph_t, *cudaGraphExec_t;
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) { cuemu::capturing = true; cuemu::captured.clear(); return 0; }
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* g) { cuemu::capturing = false; *g = new cuemu_graph{std::move(cuemu::captured)}; return 0; }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* x, cudaGraph_t g, unsigned long long) { *x = new cuemu_graph(*g); return 0; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t) { for (auto& work : x->work) work(); return 0; }
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { delete g; return 0; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) { delete x; return 0; }
