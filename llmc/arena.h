/* arena.h: one block of device memory per lifetime, sized before it is allocated. The same code that hands out the pieces also measures
   them: the first pass runs on an arena without memory. */
#ifndef LLMC_ARENA_H
#define LLMC_ARENA_H

#include "kernels/ops.h"

typedef struct {
    char *base;      /* NULL while measuring */
    size_t used;     /* bytes handed out so far */
} Arena;

/* A tensor of the given shape, 256-byte aligned; data is NULL while measuring. */
static inline Tensor arena_take(Arena *arena, DType dtype, int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    Tensor t = tensor(arena, dtype, rank, d0, d1, d2, d3);
    size_t bytes = tensor_bytes(t);
    t.data = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + 255) / 256 * 256;
    return t;
}

#endif
