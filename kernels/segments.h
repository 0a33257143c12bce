/* segments.h: how the CPU optimizers walk a flat parameter buffer: once, every thread in its own contiguous range. */
#ifndef KERNELS_SEGMENTS_H
#define KERNELS_SEGMENTS_H

#include "cpu.h"

static const int64_t SEGMENT_CHUNK = 1024;

/* Updates elements offset ... offset + n - 1, n <= SEGMENT_CHUNK; decayed says whether weight decay applies to them. */
typedef void (*SegmentUpdate)(const void *context, int64_t offset, int64_t n, int decayed);

/* Calls update for the part of piece (from, to) that lies within (first, last). */
static inline void update_piece(SegmentUpdate update, const void *context, int64_t from, int64_t to, int64_t first, int64_t last,
                                int decayed) {
    if (from < first) from = first;
    if (to > last) to = last;
    for (int64_t offset = from; offset < to; offset += SEGMENT_CHUNK)
        update(context, offset, to - offset < SEGMENT_CHUNK ? to - offset : SEGMENT_CHUNK, decayed);
}

/* Piece p of the buffer is elements segments[p] ... segments[p+1] - 1; even pieces are decayed; pieces may be empty. */
static inline void update_segments(Tensor segments, SegmentUpdate update, const void *context) {
    const int64_t *bound = (const int64_t *)segments.data;
    int64_t pieces = tensor_numel(segments) - 1, first = bound[0], last = bound[pieces];
    #pragma omp parallel
    {
        /* Ranges end on multiples of 64 elements, so that no two threads write to one cache line. */
        int64_t blocks = (last - first + 63) / 64, threads = omp_get_num_threads(), thread = omp_get_thread_num();
        int64_t from = first + blocks * thread / threads * 64, to = first + blocks * (thread + 1) / threads * 64;
        for (int64_t p = 0; p < pieces; p++) update_piece(update, context, bound[p], bound[p + 1], from, to, p % 2 == 0);
    }
}

#endif
