/* race.cpp: the race check. Two accesses to the same bytes conflict if one of them writes and they are not both atomic, unless something
   orders them: the thread is the same; a __syncthreads lies between them (same block); a __syncwarp lies between them (same warp); or
   they belong to different launches. Of each pair of bytes the last write and two readers are remembered. */
#include "watch.h"

#include <unordered_map>

namespace emu {

enum { GRAIN = 2, ATOMIC_BIT = 0x8000 };
struct Remembered {
    uint32_t launch, block, epoch;
    uint16_t warp_epoch, thread;   /* thread: with ATOMIC_BIT */
    const void *code;
};
struct Cell { Remembered write, read, other_read; };

static std::unordered_map<const void *, std::vector<Cell>> shadows;   /* by allocation */

static Allocation last;
static Cell *last_cells;

void forget_races(const void *memory) {
    shadows.erase(memory);
    last.memory = nullptr;
}
static Cell *shadow_of(Allocation base) {
    if (base.memory == last.memory) return last_cells;
    std::vector<Cell> &cells = shadows[base.memory];
    cells.resize(base.bytes / GRAIN + 1);
    last = base;
    last_cells = cells.data();
    return last_cells;
}

[[noreturn]] static void report(const char *what, const Touch &touch, const Remembered &before, bool shared) {
    fprintf(stderr, "\nrace: %s on %s memory\n", what, shared ? "shared" : "global");
    print_code_address("this access is", touch.code);
    char text[100];
    snprintf(text, sizeof text, "thread %d of block %u was before it,", before.thread & ~ATOMIC_BIT, before.block);
    print_code_address(text, before.code);
    fail("data race: nothing orders the two accesses");
}

static bool ordered(const Remembered &before, const Remembered &now, bool shared) {
    if (before.launch != now.launch) return true;
    if (before.block != now.block) return shared;   /* the arena serves one block after another */
    const int a = before.thread & ~ATOMIC_BIT, b = now.thread & ~ATOMIC_BIT;
    return a == b || before.epoch != now.epoch || (a / 32 == b / 32 && before.warp_epoch != now.warp_epoch);
}

void check_race(const Touch &touch, Allocation base, bool shared) {
    const RunningBlock *b = running();
    const Fiber *f = fiber();
    const uint32_t number = b->index.x + b->grid.x * (b->index.y + b->grid.y * b->index.z);
    const int atomic = touch.kind == ATOMIC ? ATOMIC_BIT : 0;
    const Remembered now = {b->launch_number, number, b->epoch, uint16_t(f->warp_epoch), uint16_t(f->number | atomic), touch.code};
    const size_t first = size_t(static_cast<const char *>(touch.memory) - base.memory);
    Cell *cells = shadow_of(base);
    for (size_t i = first / GRAIN; i * GRAIN < first + touch.bytes; i++) {
        Cell &c = cells[i];
        const bool both_atomic = atomic && (c.write.thread & ATOMIC_BIT);
        if (!both_atomic && !ordered(c.write, now, shared))
            report(touch.kind == READ ? "read after write" : "write after write", touch, c.write, shared);
        if (touch.kind != READ) {
            if (!ordered(c.read, now, shared)) report("write after read", touch, c.read, shared);
            if (!ordered(c.other_read, now, shared)) report("write after read", touch, c.other_read, shared);
            c.write = now;
        } else if (ordered(c.read, now, shared)) c.read = now;
        else c.other_read = now;
    }
}

}   // namespace emu
