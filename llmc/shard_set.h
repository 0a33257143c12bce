/* shard_set.h: a stream of tokens into shards of equal length, DIRECTORY/NAME_000000.bin, NAME_000001.bin and so on; the last may be
   shorter. */
#ifndef LLMC_SHARD_SET_H
#define LLMC_SHARD_SET_H

#include "shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *directory, *name;
    int64_t vocab_size, shard_tokens;
    int64_t tokens, shards;     /* so far; zero to begin with */
    ShardWriter *writer;        /* of the last one, NULL to begin with */
} ShardSet;

/* False with a sentence if they cannot be written; then shard_set_discard. */
bool shard_set_append(ShardSet *set, const int32_t *tokens, int64_t count, char error[ERROR_SIZE]);
bool shard_set_close(ShardSet *set, char error[ERROR_SIZE]);
/* Gives up the last shard; those before it stay. */
void shard_set_discard(ShardSet *set);

#ifdef __cplusplus
}
#endif
#endif
