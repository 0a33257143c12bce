/* shard.h: a file of tokens, memory-mapped.

   Files read, told apart by their first bytes:
     llm.c shard    256 int32 header {20240520, 1, tokens}, then uint16 tokens
     wide shard     256 int32 header {20240801, 7, tokens}, then uint32 tokens (vocabularies above 65,536)
     nanoGPT file   headerless uint16 tokens; only if the vocabulary size is known from elsewhere
   The length must match the header exactly. */
#ifndef LLMC_SHARD_H
#define LLMC_SHARD_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char *path;
    FileMap map;
    const unsigned char *tokens;   /* first token; little-endian, aligned to nothing; NULL while the file is not mapped */
    int width;                     /* 2 or 4 bytes a token */
    bool headerless;
    int64_t count;
} Shard;

/* The checks of a shard's header and length on memory that the caller owns, for shard_open and the fuzzer; `path` is only named in
   messages. Sets tokens, width, headerless and count. headerless: a nanoGPT file is acceptable. */
bool shard_parse(Shard *shard, const void *data, size_t size, const char *path, bool headerless, char error[ERROR_SIZE]);
bool shard_open(Shard *shard, const char *path, bool headerless, char error[ERROR_SIZE]);
void shard_close(Shard *shard);
/* Gives the memory map back but keeps path, width and count; shard_map makes it again, and refuses a file that is another by now. No
   file descriptor stays open either way. */
void shard_unmap(Shard *shard);
bool shard_map(Shard *shard, char error[ERROR_SIZE]);
/* Whether the system is to read far around what is touched, as a shard that is read whole wants it; at first it is not: a read-ahead may be
   megabytes, for the 2 KiB of a row from anywhere. */
void shard_read_around(const Shard *shard, bool wanted);
/* Says that tokens [from, from + n) will be read, so that they come with one access to the disk. */
void shard_will_read(const Shard *shard, int64_t from, int64_t n);
/* Token number index, unchecked; 0xFFFFFFFF in a wide shard comes out as -1. */
int32_t shard_token(const Shard *shard, int64_t index);
/* The first place in [from, to) that holds the token, or -1. */
int64_t shard_find(const Shard *shard, int32_t token, int64_t from, int64_t to);

/* A shard being written, under PATH.tmp until it is closed; uint16 when vocab_size <= 65536, else uint32. After an error it must still be
   closed or discarded; closing gives the first cause again. */
typedef struct ShardWriter ShardWriter;
ShardWriter *shard_writer_open(const char *path, int64_t vocab_size);
/* Tokens are 0 ... vocab_size - 1, or -1 in a wide shard; 1 to INT32_MAX in all. */
bool shard_writer_append(ShardWriter *writer, const int32_t *tokens, int64_t count, char error[ERROR_SIZE]);
bool shard_writer_close(ShardWriter *writer, char error[ERROR_SIZE]);
/* Nothing comes of it. */
void shard_writer_discard(ShardWriter *writer);

/* Writes a whole shard atomically; uint16 when vocab_size <= 65536, else uint32. Tokens are 0 ... vocab_size - 1, or -1 in a wide shard. */
bool shard_write(const char *path, const int32_t *tokens, int64_t count, int64_t vocab_size, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif

#endif
