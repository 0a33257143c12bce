/* engine.h: the engine's own view of a running block, shared by the .cpp files of the emulator. */
#ifndef EMU_INSIDE_ENGINE_H
#define EMU_INSIDE_ENGINE_H

#include "emu_device.h"
#include "emu_engine.h"

#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#ifndef EMU_ASAN
#define EMU_ASAN 0
#endif
#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __asan_poison_memory_region(p, n) ((void)(p), (void)(n))
#define __asan_unpoison_memory_region(p, n) ((void)(p), (void)(n))
#endif
#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#define EMU_USE_UCONTEXT 1
#include <ucontext.h>
#endif

namespace emu {

enum Order { FORWARD, REVERSE, RANDOM, PRIORITY };
struct Config {
    Order order;
    uint64_t seed;
    bool lax, lazy;
};
extern const Config config;

/* What a GPU of today grants a block (compute capability 9.0); more static than that nvcc refuses. */
constexpr size_t STATIC_LIMIT = 48 * 1024, SHARED_LIMIT = 99 * 1024;   /* of sm_86 and sm_89; others have more */
/* Shared memory lies in one arena per OS thread: static variables, then dynamic ones, each followed by a red zone. */
constexpr size_t REDZONE = 64, STATIC_AREA = 96 * 1024, DYNAMIC_AREA = SHARED_LIMIT + 64 * 1024, ARENA = STATIC_AREA + DYNAMIC_AREA;
constexpr size_t STACK_BYTES = 256 * 1024;   /* of a fiber; mapped as it is touched, with a guard page below */

struct Stack {
    char *low;
    void *pointer;      /* the stack pointer of a fiber that does not run */
    void *fake_stack;   /* AddressSanitizer's */
#ifdef EMU_USE_UCONTEXT
    ucontext_t context;
#endif
};

enum State : uint8_t { NEW, READY, AT_BARRIER, AT_WARP, DONE };
struct AsyncCopy {
    void *to;
    unsigned char bytes[16];
    int group;
};
/* A CUDA thread. */
struct Fiber : Thread {
    State state;
    Op op;              /* what it waits at, where, with which lanes and operands */
    Site site;
    unsigned mask;
    void *operands;
    int predicate;
    uint16_t number, warp;
    uint32_t warp_epoch;   /* __syncwarps passed, for the race check */
    Stack *stack;
    int copy_group;
    std::vector<AsyncCopy> copies;   /* cp.async, issued and not yet waited for */
};
struct Warp { unsigned alive, waiting, ready; };
struct SharedVariable {
    const void *key;    /* NULL: a piece of the dynamic memory */
    unsigned char *memory;
    size_t bytes;
};
/* The block that runs on this OS thread. */
struct RunningBlock : Block {
    const Launch *launch;
    uint32_t launch_number, epoch;   /* epoch: __syncthreads passed */
    void (*call)(void *);
    unsigned char *arguments;
    size_t argument_bytes;

    int threads, live, arrived;      /* live: not returned; arrived: waiting at the barrier */
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<uint16_t> queue;     /* of threads that can run; under PRIORITY the warps, most favoured first */
    size_t queue_head;
    uint64_t random;

    Stack main;                      /* of the OS thread */
    const void *main_low = nullptr;
    size_t main_bytes = 0;
    std::vector<std::unique_ptr<Stack>> stacks;
    std::vector<Stack *> free_stacks;
    Stack *left = nullptr;           /* of a fiber that ended, to be reused once nobody runs on it */

    unsigned char *arena = nullptr;
    size_t static_used, static_bytes, dynamic_used, dynamic_bytes;   /* used: with red zones */
    std::vector<SharedVariable> variables;

    RunningBlock();
    ~RunningBlock();
};
inline RunningBlock *running() { return static_cast<RunningBlock *>(block); }
inline Fiber *fiber() { return static_cast<Fiber *>(thread); }

/* Lets another fiber run until this one, which has noted what it waits for, is made ready. */
void wait();
void make_ready(Fiber *f);
/* Lets go all threads that wait at the barrier. */
void release_barrier();
const char *op_name(Op op);

void begin_shared_memory(RunningBlock *b);
/* Ends the program if a red zone was written to. */
void end_shared_memory(RunningBlock *b);

struct Allocation {
    char *memory;
    size_t bytes;
};
/* The allocation of device memory that holds p, or memory NULL. */
Allocation device_allocation(const void *p);
/* Ends the program if a stream is under capture, where `call` is refused. */
void forbid_in_capture(const char *call);
bool under_capture(Stream *stream);
/* "    WHAT at FILE:LINE", from a return address, if addr2line is at hand. */
void print_code_address(const char *what, const void *address);

/* The race check, if it is linked (race.cpp): it wants one block at a time. */
void race_access(const void *p, size_t size, Access kind, const void *code) __attribute__((weak));
void race_allocation(const void *p, size_t bytes, bool made) __attribute__((weak));

}   // namespace emu

#endif
