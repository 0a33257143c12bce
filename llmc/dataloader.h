/* dataloader.h: token shards, memory-mapped, and the batches cut from them.

   Files read, told apart by their first bytes:
     llm.c shard    256 int32 header {20240520, 1, tokens}, then uint16 tokens
     wide shard     256 int32 header {20240801, 7, tokens}, then uint32 tokens (vocabularies above 65,536)
     nanoGPT file   headerless uint16 tokens; only if the vocabulary size is known from elsewhere
   The length must match the header exactly. A dataset.json beside a shard names vocabulary size and tokenizer. */
#ifndef LLMC_DATALOADER_H
#define LLMC_DATALOADER_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One shard. */
typedef struct {
    char *path;
    FileMap map;
    const unsigned char *tokens;   /* first token; little-endian, aligned to nothing */
    int width;                     /* 2 or 4 bytes a token */
    int64_t count;
} Shard;

/* The checks of a shard's header and length on memory that the caller owns, for shard_open and the fuzzer; `path` is only named in
   messages. Sets tokens, width and count. headerless: a nanoGPT file is acceptable. */
bool shard_parse(Shard *shard, const void *data, size_t size, const char *path, bool headerless, char error[ERROR_SIZE]);
bool shard_open(Shard *shard, const char *path, bool headerless, char error[ERROR_SIZE]);
void shard_close(Shard *shard);
/* Token number index, unchecked; 0xFFFFFFFF in a wide shard comes out as -1. */
int32_t shard_token(const Shard *shard, int64_t index);

/* Writes a whole shard atomically; uint16 when vocab_size <= 65536, else uint32. Tokens are 0 ... vocab_size - 1, or -1 in a wide shard. */
bool shard_write(const char *path, const int32_t *tokens, int64_t count, int64_t vocab_size, char error[ERROR_SIZE]);

/* What dataset.json beside a shard says; fields are NULL or 0 where it is silent or missing. */
typedef struct {
    int64_t vocab_size;
    char *tokenizer;     /* "characters" or "bpe" */
    char *source;        /* where the text came from, for the banner */
    char *sha256;        /* of the text */
    char *directory;     /* where it was found: tokenizer files lie there too */
} DatasetInfo;
/* False only if the file exists and is broken; `shard_path` is any file of the dataset. */
bool dataset_info_read(DatasetInfo *info, const char *shard_path, char error[ERROR_SIZE]);
void dataset_info_free(DatasetInfo *info);

typedef enum { SAMPLE_CROPS, SAMPLE_SHARDS } SampleOrder;

/* Position in the data, all of it: what a checkpoint stores. */
typedef struct {
    int64_t samples;   /* rows of T tokens handed out so far, over all ranks */
} DataPosition;

typedef struct DataLoader DataLoader;

/* Opens every file that pattern (a path, a glob, or a directory: its *.bin) matches, in name order. Dies, naming the file, if there
   is none, one is damaged, a token is >= vocab_size (the first 2^20 of each file are checked here, the others as they are handed out), or
   fewer than T+1 tokens are there.
   Row number n (a global count) is a function of seed, n and the files alone:
     SAMPLE_CROPS    T+1 tokens from a place chosen by Philox(seed, n), over all shards as one text but never across two of them
     SAMPLE_SHARDS   epoch e visits the shards in an order shuffled by (seed, e), and within each shard its whole rows of T tokens
                     in an order shuffled likewise, with no stored permutation (a Feistel or affine bijection on the row number)
   so any rank can produce any row, ranks are disjoint by taking different n, and resuming needs only the count. */
DataLoader *dataloader_open(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed, bool headerless);
void dataloader_close(DataLoader *loader);
/* Dies as dataloader_open does if pattern matches no file. */
void dataloader_require_files(const char *pattern);
int64_t dataloader_tokens(const DataLoader *loader);     /* in all files */
int64_t dataloader_rows(const DataLoader *loader);       /* rows of T tokens in an epoch of SAMPLE_SHARDS */
/* tokens(rows,T) and targets(rows,T), the tokens shifted by one, of rows first_row ... first_row + rows - 1. Returns the number of
   targets >= 0 (a target is -1 where the wide shard holds 0xFFFFFFFF; such a token as input is refused). */
int64_t dataloader_batch(const DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets);
/* The same for evaluation: row n is tokens n*T ... n*T+T of each shard in order, unshuffled, wrapping around. */
int64_t dataloader_batch_in_order(const DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets);

#ifdef __cplusplus
}
#endif

#endif
