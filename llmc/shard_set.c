/* shard_set.c: see shard_set.h. */
#include "shard_set.h"
#include "error.h"

#include <inttypes.h>
#include <stdlib.h>

static void open_shard(ShardSet *set) {
    char *path = xprintf("%s/%s_%06" PRId64 ".bin", set->directory, set->name, set->shards++);
    set->writer = shard_writer_open(path, set->vocab_size);
    free(path);
}

bool shard_set_close(ShardSet *set, char error[ERROR_SIZE]) {
    bool good = !set->writer || shard_writer_close(set->writer, error);
    set->writer = NULL;
    return good;
}

void shard_set_discard(ShardSet *set) {
    if (set->writer) shard_writer_discard(set->writer);
    set->writer = NULL;
}

bool shard_set_append(ShardSet *set, const int32_t *tokens, int64_t count, char error[ERROR_SIZE]) {
    while (count > 0) {
        if (!set->writer) open_shard(set);
        int64_t room = set->shards * set->shard_tokens - set->tokens, n = count < room ? count : room;
        if (!shard_writer_append(set->writer, tokens, n, error)) return false;
        set->tokens += n;
        tokens += n;
        count -= n;
        if (n == room && !shard_set_close(set, error)) return false;
    }
    return true;
}
