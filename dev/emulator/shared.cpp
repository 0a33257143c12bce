/* shared.cpp: a block's shared memory. Fresh memory and red zones hold 0xFF bytes, NaN as a number: a value read before it was written,
   or past the end, spoils what is computed from it, and a write past the end is seen when the block ends (AddressSanitizer sees both at
   once). */
#include "engine.h"

namespace emu {

/* The dynamic memory is aligned to 16 bytes and not more, as on a GPU. */
static unsigned char *dynamic_base(RunningBlock *b) { return b->arena + STATIC_AREA + 16; }

void begin_shared_memory(RunningBlock *b) {
    b->variables.clear();
    b->static_used = b->static_bytes = b->dynamic_used = b->dynamic_bytes = 0;
}
void end_shared_memory(RunningBlock *b) {
    if (EMU_ASAN) {
        __asan_poison_memory_region(b->arena, ARENA);
        return;
    }
    for (const SharedVariable &v : b->variables)
        for (size_t i = 0; i < REDZONE; i++)
            if (v.memory[v.bytes + i] != 0xff) fail("a shared variable was written to past its end");
}
static void *new_variable(const void *key, unsigned char *memory, size_t bytes) {
    __asan_unpoison_memory_region(memory, bytes + REDZONE);
    memset(memory, 0xff, bytes + REDZONE);
    __asan_poison_memory_region(memory + bytes, REDZONE);
    running()->variables.push_back({key, memory, bytes});
    return memory;
}
static size_t padded(size_t bytes) { return (bytes + 15) / 16 * 16; }

/* Without the attribute a block gets 48 KB, static and dynamic together. */
static void check_total(const RunningBlock *b) {
    const size_t total = b->static_bytes + b->launch->shared_bytes;
    if (total > SHARED_LIMIT) fail("the block's shared memory exceeds the 99 KB of the smallest GPU");
    if (total > STATIC_LIMIT && b->static_bytes && !dynamic_shared_allowed(b->launch->address, b->launch->shared_bytes))
        fail("static and dynamic shared memory together exceed 48 KB");
}

void *static_shared(const void *key, size_t bytes) {
    RunningBlock *b = running();
    for (const SharedVariable &v : b->variables)
        if (v.key == key) return v.memory;
    unsigned char *memory = b->arena + b->static_used;
    b->static_bytes += padded(bytes);
    if (b->static_bytes > STATIC_LIMIT) fail("static shared memory exceeds 48 KB");
    b->static_used += padded(bytes) + REDZONE;
    if (b->static_used > STATIC_AREA) fail("there are too many static shared variables for the emulator");
    check_total(b);
    return new_variable(key, memory, bytes);
}

/* The threads of a block all carve the same pieces; the first to come makes each. */
void *dynamic_shared(int piece, size_t bytes) {
    RunningBlock *b = running();
    for (const SharedVariable &v : b->variables)
        if (!v.key && piece-- == 0) {
            if (v.bytes != bytes) fail("threads of a block carve their dynamic shared memory differently");
            return v.memory;
        }
    unsigned char *memory = dynamic_base(b) + b->dynamic_used;
    b->dynamic_bytes += padded(bytes);
    if (b->dynamic_bytes > b->launch->shared_bytes) fail("the kernel carves more dynamic shared memory than its launch gave");
    b->dynamic_used += padded(bytes) + REDZONE;
    if (16 + b->dynamic_used > DYNAMIC_AREA) fail("there are too many pieces of dynamic shared memory for the emulator");
    return new_variable(nullptr, memory, bytes);
}

}   // namespace emu
