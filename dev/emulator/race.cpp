// cuemu_race.cpp - shadow-memory race checker. Kernels are compiled with -fsanitize=thread (for its load/store hooks only)
// and -DCUEMU_RACE=1, but LINKED WITHOUT -fsanitize=thread: this file supplies the __tsan_* entry points.
// Two accesses to one address conflict if at least one writes, they are not both atomic, and they are not ordered by:
// same thread | an intervening __syncthreads (same block) | an intervening __syncwarp (same warp) | different launches.
#include "emulator.h"
#include <map>
#include <unordered_map>
#include <link.h>
#include <unistd.h>
using namespace cuemu;
namespace {
struct Acc { uint32_t launch, block, epoch, pc; uint16_t wepoch, tid; };   // tid bit 15: atomic
struct Cell { Acc w, r1, r2; };
constexpr int G = 2;                                                       // granularity in bytes
struct Page { Cell c[4096 / G]; };
std::unordered_map<uintptr_t, std::unique_ptr<Page>> shadow;
std::map<uintptr_t, size_t> allocs;
uintptr_t exe_base = 0, tls_lo = 0, tls_hi = 0, exe_end = 0, last_lo = 1, last_hi = 0;
bool host_check = getenv("CUEMU_NOHOSTCHECK") == nullptr;
int phdr(dl_phdr_info* i, size_t, void*) {
    exe_base = i->dlpi_addr;
    for (int k = 0; k < i->dlpi_phnum; ++k) {
        if (i->dlpi_phdr[k].p_type == PT_TLS) { tls_hi = (uintptr_t)__builtin_thread_pointer(); tls_lo = tls_hi - ((i->dlpi_phdr[k].p_memsz + i->dlpi_phdr[k].p_align - 1) & -i->dlpi_phdr[k].p_align); }
        if (i->dlpi_phdr[k].p_type == PT_LOAD) exe_end = std::max<uintptr_t>(exe_end, exe_base + i->dlpi_phdr[k].p_vaddr + i->dlpi_phdr[k].p_memsz);
    }
    return 1;                                                              // the executable comes first; stop there
}
void where(const char* what, uint32_t pc) {
    char cmd[256]; snprintf(cmd, sizeof cmd, "addr2line -e /proc/%d/exe -C -f -s -p 0x%x 2>/dev/null", getpid(), pc - 1);
    char line[512] = ""; if (FILE* f = popen(cmd, "r")) { if (!fgets(line, sizeof line, f)) line[0] = 0; pclose(f); }
    fprintf(stderr, "    %s at %s", what, line[0] ? line : "?\n");
}
[[noreturn]] void report(const char* kind, const void* p, const Acc& a, const char* akind, uint32_t pc, bool shared) {
    ++cur->race_off; fprintf(stderr, "\n==CUEMU RACE== %s on %s memory %p", kind, shared ? "shared" : "global", p);
    if (shared && (unsigned char*)p >= blk->dyn && (unsigned char*)p < blk->dyn + blk->dyn_bytes) fprintf(stderr, " (dynamic shared + %zu)", size_t((unsigned char*)p - blk->dyn));
    fprintf(stderr, "\n"); where("this access", pc);
    fprintf(stderr, "    earlier %s by thread %d%s of block #%u", akind, a.tid & 0x7fff, a.tid >> 15 ? " (atomic)" : "", a.block); where("", a.pc);
    fail("data race: no barrier between the two accesses");
}
}
namespace cuemu {
static void access(const void* p, size_t n, Access k, uint32_t pc, bool force = false) {
    Thread* t = cur; if (!t || (t->race_off && !force) || t->st == DONE) return;
    uintptr_t a = (uintptr_t)p; Block* b = blk; bool shared;
    if (a >= (uintptr_t)b->arena && a < (uintptr_t)b->arena + ARENA) {
        shared = true; bool in = a >= (uintptr_t)b->dyn && a + n <= (uintptr_t)b->dyn + b->dyn_bytes;
        for (auto& v : b->vars) in |= a >= (uintptr_t)v.first && a + n <= (uintptr_t)v.first + v.second;
        if (!in) { ++t->race_off; where("this access", pc); fail("shared-memory access out of bounds"); }
    }
    else if (a >= last_lo && a < last_hi) shared = false;
    else if (a >= (uintptr_t)t->stk->lo && a < (uintptr_t)t->stk->lo + CUEMU_STACK) return;
    else if (a >= tls_lo && a < tls_hi) { if (a == (uintptr_t)&cur || a == (uintptr_t)&blk) return; shared = true; }     // plain __shared__
    else {
        auto it = allocs.upper_bound(a);
        if (it != allocs.begin() && a < (--it)->first + it->second) { last_lo = it->first; last_hi = last_lo + it->second; shared = false; }
        else if (a >= exe_base && a < exe_end) shared = false;                                                            // __device__ / __constant__
        else {
            if (host_check && !(a >= (uintptr_t)b && a < (uintptr_t)(b + 1)) && !(a >= (uintptr_t)b->th.data() && a < (uintptr_t)(b->th.data() + b->th.size())) && a < (uintptr_t)__builtin_frame_address(0) && a > exe_end && a < 0x700000000000) {
                ++t->race_off; where("this access", pc); fail("kernel touches heap memory that is not a device allocation (host pointer or out of bounds)");
            }
            return;
        }
    }
    uint32_t blin = b->bid.x + b->gdim.x * (b->bid.y + b->gdim.y * b->bid.z);
    Acc me{b->launch_id, blin, b->epoch, pc, (uint16_t)t->wepoch, (uint16_t)(t->lin | (k == AT ? 0x8000 : 0))};
    auto ordered = [&](const Acc& o) {
        if (o.launch != me.launch) return true;
        if (o.block != me.block) return shared;
        int ot = o.tid & 0x7fff;
        return ot == t->lin || o.epoch != me.epoch || (ot >> 5 == t->lin >> 5 && o.wepoch != me.wepoch);
    };
    for (uintptr_t x = a / G * G; x < a + n; x += G) {
        auto& pg = shadow[x >> 12]; if (!pg) pg = std::make_unique<Page>();
        Cell& c = pg->c[(x & 4095) / G];
        if (!ordered(c.w) && !(k == AT && c.w.tid >> 15)) report(k == RD ? "read after write" : "write after write", p, c.w, "write", pc, shared);
        if (k != RD) {
            if (!ordered(c.r1)) report("write after read", p, c.r1, "read", pc, shared);
            if (!ordered(c.r2)) report("write after read", p, c.r2, "read", pc, shared);
            c.w = me;
        } else if (ordered(c.r1)) c.r1 = me; else if ((c.r1.tid ^ me.tid) & 0x7fff || c.r1.block != me.block) c.r2 = me;
    }
}
void race_access(const void* p, size_t n, Access k) { access(p, n, k, uint32_t((uintptr_t)__builtin_return_address(0) - exe_base), true); }
void race_block_begin(Block*) {}
void race_device_alloc(void* p, size_t n) { allocs[(uintptr_t)p] = n; }
void race_device_free(void* p) { allocs.erase((uintptr_t)p); last_lo = 1; last_hi = 0; }
}
#define PC uint32_t((uintptr_t)__builtin_return_address(0) - exe_base)
extern "C" {
void __tsan_init() { if (!exe_base) dl_iterate_phdr(phdr, nullptr); }
void __tsan_func_entry(void*) {} void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {} void __tsan_vptr_read(void**) {}
#define RW(n) void __tsan_read##n(void* p) { access(p, n, RD, PC); } void __tsan_write##n(void* p) { access(p, n, WR, PC); } \
    void __tsan_unaligned_read##n(void* p) { access(p, n, RD, PC); } void __tsan_unaligned_write##n(void* p) { access(p, n, WR, PC); }
RW(1) RW(2) RW(4) RW(8) RW(16)
void __tsan_read_range(void* p, size_t n) { access(p, n, RD, PC); } void __tsan_write_range(void* p, size_t n) { access(p, n, WR, PC); }
void* __tsan_memcpy(void* d, const void* s, size_t n) { access(s, n, RD, PC); access(d, n, WR, PC); return memcpy(d, s, n); }
void* __tsan_memset(void* d, int v, size_t n) { access(d, n, WR, PC); return memset(d, v, n); }
void* __tsan_memmove(void* d, const void* s, size_t n) { access(s, n, RD, PC); access(d, n, WR, PC); return memmove(d, s, n); }
#define ATOMICS(B, T)                                                                                                                     \
    T __tsan_atomic##B##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }                                  \
    void __tsan_atomic##B##_store(volatile T* p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }                                  \
    T __tsan_atomic##B##_exchange(volatile T* p, T v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }                        \
    T __tsan_atomic##B##_fetch_add(volatile T* p, T v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }                        \
    T __tsan_atomic##B##_fetch_sub(volatile T* p, T v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); }                        \
    T __tsan_atomic##B##_compare_exchange_val(volatile T* p, T e, T v, int, int) { __atomic_compare_exchange_n(p, &e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); return e; } \
    int __tsan_atomic##B##_compare_exchange_strong(volatile T* p, T* e, T v, int, int) { return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); } \
    int __tsan_atomic##B##_compare_exchange_weak(volatile T* p, T* e, T v, int, int) { return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); }
ATOMICS(8, uint8_t) ATOMICS(16, uint16_t) ATOMICS(32, uint32_t) ATOMICS(64, uint64_t)
void __tsan_atomic_thread_fence(int) {} void __tsan_atomic_signal_fence(int) {}
}
