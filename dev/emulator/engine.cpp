/* engine.cpp: runs a grid: fibers, their stacks and switches, and whose turn it is. */
#include "engine.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace emu {

__thread Thread *thread = nullptr;
__thread Block *block = nullptr;

static Config configuration() {
    Config c = {FORWARD, 1, getenv("EMU_LAX") != nullptr, getenv("EMU_LAZY") != nullptr};
    const char *order = getenv("EMU_ORDER");
    if (!order) order = "fwd";
    if (const char *colon = strchr(order, ':')) c.seed = strtoull(colon + 1, nullptr, 10);
    if (!strcmp(order, "rev")) c.order = REVERSE;
    else if (!strncmp(order, "rand", 4)) c.order = RANDOM;
    else if (!strncmp(order, "prio", 4)) c.order = PRIORITY;
    else if (strcmp(order, "fwd")) fprintf(stderr, "EMU_ORDER=%s is none of fwd, rev, rand:SEED, prio:SEED: fwd is taken\n", order);
    return c;
}
const Config config = configuration();

/* ---- errors -------------------------------------------------------------------------------------------------------------------------- */

static bool waits_alike(const Fiber &a, const Fiber &b) {
    if (a.state != b.state) return false;
    return (a.state != AT_BARRIER && a.state != AT_WARP) || (a.site.line == b.site.line && a.op == b.op && a.mask == b.mask);
}
/* Who waits where, in runs of threads; the first runs are enough. */
static void print_threads(const RunningBlock *b) {
    int runs = 0;
    for (int first = 0, next; first < b->threads; first = next) {
        if (runs++ == 8) {
            fprintf(stderr, "    ...\n");
            return;
        }
        const Fiber &f = b->fibers[first];
        for (next = first + 1; next < b->threads && waits_alike(f, b->fibers[next]);) next++;
        fprintf(stderr, "    threads %4d..%-4d ", first, next - 1);
        if (f.state == AT_BARRIER) fprintf(stderr, "wait at %s, %s:%d\n", op_name(f.op), f.site.file, f.site.line);
        else if (f.state == AT_WARP) fprintf(stderr, "wait at %s with mask %08x, %s:%d\n", op_name(f.op), f.mask, f.site.file, f.site.line);
        else fprintf(stderr, "%s\n", f.state == DONE ? "have returned" : "can run");
    }
}
void fail(const char *message) {
    fflush(stdout);
    fprintf(stderr, "\nemulator: %s\n", message);
    if (block) {
        fprintf(stderr, "  kernel %s block (%u,%u,%u)", running()->launch->kernel, block->index.x, block->index.y, block->index.z);
        if (thread)
            fprintf(stderr, " thread (%u,%u,%u) warp %d lane %d", thread->index.x, thread->index.y, thread->index.z, fiber()->warp,
                    thread->lane);
        fprintf(stderr, "\n");
        print_threads(running());
    }
    abort();
}
static int note_base(dl_phdr_info *info, size_t, void *base) {
    *static_cast<uintptr_t *>(base) = info->dlpi_addr;
    return 1;   /* the program comes before its libraries */
}
void print_code_address(const char *what, const void *address) {
    char command[200], line[500] = "";
    uintptr_t base = 0;
    dl_iterate_phdr(note_base, &base);
    snprintf(command, sizeof command, "addr2line -e /proc/%d/exe -C -f -s -p %#lx 2>/dev/null", getpid(),
             (unsigned long)(uintptr_t(address) - base));
    if (FILE *pipe = popen(command, "r")) {
        if (!fgets(line, sizeof line, pipe)) line[0] = 0;
        pclose(pipe);
    }
    fprintf(stderr, "    %s at %s", what, line[0] ? line : "a place unknown\n");
}

void note_access(const void *p, size_t size, Access kind) {
    if (race_access) race_access(p, size, kind, __builtin_return_address(0));
}

/* ---- stacks and switches ------------------------------------------------------------------------------------------------------------- */

static void fiber_main();

#ifndef EMU_USE_UCONTEXT
/* Saves the registers that a call preserves, and the stack pointer in *rdi; goes on where the stack pointer in rsi was saved. */
__attribute__((naked, noinline)) static void switch_stack(void **, void *) {
    asm volatile("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
                 "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
                 "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
static void prepare(Stack *s) {
    void **top = reinterpret_cast<void **>(s->low + STACK_BYTES);
    for (int i = 0; i < 3; i++) *--top = nullptr;   /* a return address of 0, at which debuggers stop, and alignment */
    *--top = reinterpret_cast<void *>(fiber_main);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    s->pointer = top;
}
#else
static void prepare(Stack *s) {
    getcontext(&s->context);
    s->context.uc_stack.ss_sp = s->low;
    s->context.uc_stack.ss_size = STACK_BYTES;
    s->context.uc_link = nullptr;
    makecontext(&s->context, fiber_main, 0);
}
#endif

static Stack *new_stack(RunningBlock *b) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *pages = static_cast<char *>(mmap(nullptr, STACK_BYTES + 4096, PROT_READ | PROT_WRITE, flags, -1, 0));
    if (pages == MAP_FAILED) fail("a fiber's stack cannot be mapped");
    mprotect(pages, 4096, PROT_NONE);
    b->stacks.push_back(std::make_unique<Stack>());
    b->stacks.back()->low = pages + 4096;
    return b->stacks.back().get();
}
static Stack *take_stack() {
    RunningBlock *b = running();
    Stack *s;
    if (b->free_stacks.empty()) s = new_stack(b);
    else {
        s = b->free_stacks.back();
        b->free_stacks.pop_back();
    }
    s->fake_stack = nullptr;
    __asan_unpoison_memory_region(s->low, STACK_BYTES);   /* the red zones of the fiber that had it before */
    prepare(s);
    return s;
}

/* On arrival at `self`. */
static void after_switch(Stack *self) {
    RunningBlock *b = running();
#if EMU_ASAN
    const void *low;
    size_t bytes;
    __sanitizer_finish_switch_fiber(self->fake_stack, &low, &bytes);
    if (!b->main_low) {   /* the first switch of all comes from the OS thread's stack */
        b->main_low = low;
        b->main_bytes = bytes;
    }
#endif
    (void)self;
    if (b->left) b->free_stacks.push_back(b->left);
    b->left = nullptr;
}
static void switch_to(Stack *from, Stack *to, bool ended) {
#if EMU_ASAN
    RunningBlock *b = running();
    const bool to_main = to == &b->main;
    __sanitizer_start_switch_fiber(ended ? nullptr : &from->fake_stack, to_main ? b->main_low : to->low,
                                   to_main ? b->main_bytes : STACK_BYTES);
#endif
    (void)ended;
#ifdef EMU_USE_UCONTEXT
    swapcontext(&from->context, &to->context);
#else
    switch_stack(&from->pointer, to->pointer);
#endif
    after_switch(from);
}

/* ---- whose turn it is ---------------------------------------------------------------------------------------------------------------- */

static uint32_t random_number(RunningBlock *b) {   /* xorshift */
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return uint32_t(b->random >> 20);
}
void make_ready(Fiber *f) {
    RunningBlock *b = running();
    f->state = READY;
    if (config.order == PRIORITY) b->warps[f->warp].ready |= 1u << f->lane;
    else b->queue.push_back(f->number);
}
static Fiber *pick_by_priority(RunningBlock *b) {
    for (int w : b->queue)
        if (const unsigned ready = b->warps[w].ready) {
            const int lane = random_number(b) & 1 ? __builtin_ctz(ready) : 31 - __builtin_clz(ready);
            b->warps[w].ready &= ~(1u << lane);
            return &b->fibers[w * 32 + lane];
        }
    return nullptr;
}
static Fiber *pick() {
    RunningBlock *b = running();
    if (config.order == PRIORITY) return pick_by_priority(b);
    if (b->queue_head == b->queue.size()) return nullptr;
    uint16_t *head = &b->queue[b->queue_head];
    if (config.order == RANDOM) std::swap(*head, head[random_number(b) % (b->queue.size() - b->queue_head)]);
    Fiber *f = &b->fibers[*head];
    b->queue_head++;
    if (b->queue_head == b->queue.size()) {
        b->queue.clear();
        b->queue_head = 0;
    }
    return f;
}
/* f's stack, which it gets when it first runs. */
static Stack *stack_of(Fiber *f) {
    if (f->state == NEW) {
        f->state = READY;
        f->stack = take_stack();
    }
    return f->stack;
}
void wait() {
    Fiber *self = fiber(), *next = pick();
    if (!next) fail("deadlock: no thread can go on (a barrier or warp operation that some threads never reach)");
    Stack *to = stack_of(next);
    thread = next;
    switch_to(self->stack, to, false);
}

static void thread_returned() {
    Fiber *self = fiber();
    RunningBlock *b = running();
    if (!self->copies.empty()) fail("a thread returned with cp.async copies that it never waited for");
    self->state = DONE;
    b->live--;
    Warp &w = b->warps[self->warp];
    w.alive &= ~(1u << self->lane);
    if (config.lax) {
        if (b->arrived && b->arrived == b->live) release_barrier();
        return;
    }
    if (b->arrived) fail("divergent __syncthreads: a thread returned while others wait");
    for (int lane = 0; lane < 32; lane++)
        if ((w.waiting >> lane & 1) && (b->fibers[self->warp * 32 + lane].mask >> self->lane & 1))
            fail("a lane returned while others name it in a warp operation");
}
/* What a stack runs: one thread of the block after another, until the next one to run has a stack already. So a kernel without barriers
   never switches. */
static void fiber_main() {
    Stack *stack = fiber()->stack;
    after_switch(stack);
    for (;;) {
        RunningBlock *b = running();
        b->call(b->arguments);
        thread_returned();
        Fiber *next = pick();
        if (!next && b->live) fail("deadlock: the threads left wait for threads that returned");
        if (next && next->state == NEW) {
            next->state = READY;
            next->stack = stack;
            thread = next;
        } else {
            b->left = stack;
            thread = next;
            switch_to(stack, next ? next->stack : &b->main, true);
        }
    }
}

/* ---- blocks and grids ---------------------------------------------------------------------------------------------------------------- */

RunningBlock::RunningBlock() {
    arena = static_cast<unsigned char *>(mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (arena == MAP_FAILED) fail("shared memory cannot be mapped");
    __asan_poison_memory_region(arena, ARENA);
}
RunningBlock::~RunningBlock() {
    for (auto &s : stacks) munmap(s->low - 4096, STACK_BYTES + 4096);
    __asan_unpoison_memory_region(arena, ARENA);
    munmap(arena, ARENA);
}

static void begin_threads(RunningBlock *b) {
    const unsigned x = b->size.x, y = b->size.y, n = x * y * b->size.z;
    b->fibers.resize(n);
    b->threads = b->live = int(n);
    b->arrived = 0;
    b->warps.assign((n + 31) / 32, Warp{0, 0, 0});
    for (unsigned i = 0; i < n; i++) {
        Fiber &f = b->fibers[i];
        f.index = {i % x, i / x % y, i / (x * y)};
        f.number = uint16_t(i);
        f.warp = uint16_t(i / 32);
        f.lane = int(i % 32);
        f.state = NEW;
        f.warp_epoch = 0;
        f.copy_group = 0;
        b->warps[i / 32].alive |= 1u << (i % 32);
    }
}
static void begin_queue(RunningBlock *b) {
    const uint64_t x = b->index.x, y = b->index.y, z = b->index.z;
    b->random = (config.seed * 0x9e3779b97f4a7c15u ^ (x + 1) * 0xbf58476d1ce4e5b9u ^ y << 20 ^ z << 40) | 1;
    b->queue.clear();
    b->queue_head = 0;
    if (config.order == PRIORITY)
        for (size_t w = 0; w < b->warps.size(); w++) {
            b->queue.push_back(uint16_t(w));
            std::swap(b->queue[w], b->queue[random_number(b) % (w + 1)]);
            b->warps[w].ready = b->warps[w].alive;
        }
    else
        for (int i = 0; i < b->threads; i++) b->queue.push_back(uint16_t(config.order == REVERSE ? b->threads - 1 - i : i));
}

static void run_block(const Launch &launch, uint32_t number, int64_t index, void (*call)(void *), void *arguments, size_t argument_bytes) {
    static thread_local std::unique_ptr<RunningBlock> mine;
    if (!mine) mine = std::make_unique<RunningBlock>();
    RunningBlock *b = mine.get();
    block = b;
    b->launch = &launch;
    b->launch_number = number;
    b->epoch = 0;
    b->size = launch.block;
    b->grid = launch.grid;
    b->index = {unsigned(index % b->grid.x), unsigned(index / b->grid.x % b->grid.y), unsigned(index / b->grid.x / b->grid.y)};
    b->call = call;
    b->arguments = static_cast<unsigned char *>(arguments);
    b->argument_bytes = argument_bytes;
    begin_shared_memory(b);
    begin_threads(b);
    begin_queue(b);
    Fiber *first = pick();
    Stack *stack = stack_of(first);
    thread = first;
    switch_to(&b->main, stack, false);
    thread = nullptr;
    end_shared_memory(b);
    block = nullptr;
}

void run_grid(const Launch &launch, void (*call)(void *), void *arguments, size_t argument_bytes) {
    static uint32_t launches = 0;
    const int64_t blocks = int64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    const uint32_t number = __atomic_add_fetch(&launches, 1, __ATOMIC_RELAXED);
    DeviceAccess access(launch.kernel);
#pragma omp parallel for schedule(dynamic) if (blocks > 1 && !race_access)
    for (int64_t i = 0; i < blocks; i++) {
        int64_t index = i;
        if (config.order == REVERSE) index = blocks - 1 - i;
        else if (config.order != FORWARD) index = (i + int64_t(config.seed * 7919 % uint64_t(blocks))) % blocks;
        run_block(launch, number, index, call, arguments, argument_bytes);
    }
}

}   // namespace emu
