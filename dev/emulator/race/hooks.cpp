/* hooks.cpp: sees every access of a kernel. The kernels are compiled with -fsanitize=thread for its calls at loads and stores, but
   linked without it: this file supplies them. It says whose memory an access touches, refuses what is no kernel's, and hands the rest to
   race.cpp or count.cpp. */
#include "watch.h"

#include <link.h>

namespace emu {

static uintptr_t program_low, program_high;
bool counting = false;

static int note_program(dl_phdr_info *info, size_t, void *) {
    program_low = info->dlpi_addr + info->dlpi_phdr[0].p_vaddr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &h = info->dlpi_phdr[i];
        const uintptr_t begin = info->dlpi_addr + h.p_vaddr;
        if (h.p_type != PT_LOAD) continue;
        if (begin < program_low) program_low = begin;
        if (begin + h.p_memsz > program_high) program_high = begin + h.p_memsz;
    }
    return 1;   /* the program itself comes first; the libraries do not matter */
}

static bool within(const void *p, const void *begin, size_t bytes) {
    return uintptr_t(p) - uintptr_t(begin) < bytes;   /* a huge number if p lies before */
}
/* The kernel's arguments, and what the engine keeps about the thread. */
static bool engine_memory(const void *p) {
    const RunningBlock *b = running();
    return within(p, b->arguments, b->argument_bytes) || p == &thread || p == &block || within(p, b, sizeof *b) ||
           within(p, b->fibers.data(), b->fibers.size() * sizeof(Fiber));
}
[[noreturn]] static void refuse(const char *why, const void *code) {
    print_code_address("the access is", code);
    fail(why);
}
static void check_shared(const void *p, size_t size, const void *code) {
    const unsigned char *c = static_cast<const unsigned char *>(p);
    for (const SharedVariable &v : running()->variables)
        if (c >= v.memory && c + size <= v.memory + v.bytes) return;
    refuse("a shared-memory access is out of bounds", code);
}

static Allocation last;   /* most accesses touch the allocation of the one before */

void race_allocation(const void *p, size_t, bool made) {
    last = {nullptr, 0};
    if (!made) forget_races(p);
}
void race_access(const void *p, size_t size, Access kind, const void *code) {
    if (!thread || within(p, fiber()->stack->low, STACK_BYTES)) return;
    const char *c = static_cast<const char *>(p);
    if (within(p, running()->arena, ARENA)) {
        check_shared(p, size, code);
        if (!counting) check_race({p, size, kind, code}, {reinterpret_cast<char *>(running()->arena), ARENA}, true);
        return;
    }
    if (!within(p, last.memory, last.bytes)) {
        if (engine_memory(p)) return;
        last = device_allocation(p);
    }
    if (last.memory && c + size <= last.memory + last.bytes) {
        if (counting) count_access({p, size, kind, code}, last);
        else check_race({p, size, kind, code}, last, false);
    } else if (last.memory) refuse("a global-memory access is out of bounds", code);
    else if (uintptr_t(p) < program_low || uintptr_t(p) >= program_high || kind != READ)   /* a table of constants may be read */
        refuse("a kernel touches memory of the host, or out of bounds", code);
}

}   // namespace emu

using namespace emu;

#define CODE __builtin_return_address(0)
extern "C" {
void __tsan_init() {
    if (!program_high) dl_iterate_phdr(note_program, nullptr);
}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
#define ACCESSES(n)                                                                                                                  \
    void __tsan_read##n(void *p) { race_access(p, n, READ, CODE); }                                                                  \
    void __tsan_write##n(void *p) { race_access(p, n, WRITE, CODE); }                                                                \
    void __tsan_unaligned_read##n(void *p) { race_access(p, n, READ, CODE); }                                                        \
    void __tsan_unaligned_write##n(void *p) { race_access(p, n, WRITE, CODE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *p, size_t n) { race_access(p, n, READ, CODE); }
void __tsan_write_range(void *p, size_t n) { race_access(p, n, WRITE, CODE); }
void *__tsan_memcpy(void *to, const void *from, size_t n) {
    race_access(from, n, READ, CODE);
    race_access(to, n, WRITE, CODE);
    return memcpy(to, from, n);
}
void *__tsan_memmove(void *to, const void *from, size_t n) {
    race_access(from, n, READ, CODE);
    race_access(to, n, WRITE, CODE);
    return memmove(to, from, n);
}
void *__tsan_memset(void *to, int value, size_t n) {
    race_access(to, n, WRITE, CODE);
    return memset(to, value, n);
}
/* The emulator's atomics have said what they touch. */
#define ATOMICS(bits, T)                                                                                                             \
    T __tsan_atomic##bits##_load(const volatile T *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }                          \
    void __tsan_atomic##bits##_store(volatile T *p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }                          \
    T __tsan_atomic##bits##_fetch_add(volatile T *p, T v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }                \
    T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T expected, T v, int, int) {                                         \
        __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                     \
        return expected;                                                                                                             \
    }                                                                                                                                \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T *p, T *expected, T v, int, int) {                                   \
        return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                               \
    }                                                                                                                                \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile T *p, T *expected, T v, int, int) {                                     \
        return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                               \
    }
ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}
