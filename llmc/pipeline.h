/* pipeline.h: a stream taken piece by piece by several threads, the results used in the order of the pieces. */
#ifndef LLMC_PIPELINE_H
#define LLMC_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of `read` one call runs at a time, and of `write` too, in the order of the pieces; both may run on any thread, the one beside the other.
   What `read` has to complain of it leaves in the piece, so that `write` comes to it after all that is before it. */
typedef struct {
    void *context;
    bool (*read)(void *context, void *piece);                /* makes the next piece; false if there is none */
    void (*work)(void *context, int thread, void *piece);    /* on many pieces at a time; thread is 0 ... threads - 1 */
    bool (*write)(void *context, void *piece);               /* uses it; false: enough, the pieces after it are not wanted */
    void *pieces;                                            /* (piece_count), the caller's, each used again and again */
    size_t piece_size;
    int piece_count, threads;
} Pipeline;

/* Pieces for so many threads that none often waits for another. */
int pipeline_pieces(int threads);

/* Returns when all is written. */
void pipeline_run(const Pipeline *pipeline);

#ifdef __cplusplus
}
#endif
#endif
