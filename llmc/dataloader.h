/* dataloader.h: batches cut from the tokens of one file or of thousands (shard.h), described by a dataset.json (dataset_info.h). */
#ifndef LLMC_DATALOADER_H
#define LLMC_DATALOADER_H

#include "data_files.h"
#include "dataset_info.h"
#include "shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SAMPLE_CROPS, SAMPLE_SHARDS } SampleOrder;

typedef struct DataLoader DataLoader;

/* Opens every file that pattern (a path, a glob, or a directory: its *.bin) matches, in name order. Dies, naming the file, if there
   is none, one is damaged, a token is >= vocab_size (the first 2^20 and those on the first page of each file are checked here, all others as they are
   handed out), or fewer than T+1 tokens are there. Files are mapped while they are read from, at most 1,024 at a time, and no descriptor stays open.
   Row number n (a global count) is a function of seed, n and the files alone:
     SAMPLE_CROPS    T+1 tokens from a place chosen by Philox(seed, n), over all shards as one text but never across two of them
     SAMPLE_SHARDS   epoch e visits the shards in an order shuffled by (seed, e), and within each shard its whole rows of T tokens
                     in an order shuffled likewise, with no stored permutation (a Feistel bijection on the row number)
   so any rank can produce any row, ranks are disjoint by taking different n, and resuming needs only the count.
   A loader is used by one thread at a time. */
DataLoader *dataloader_open(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed, bool headerless);
/* The same of these files, in this order, which it frees; pattern: how the user named them. */
DataLoader *dataloader_open_files(DataFiles files, const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed,
                                  bool headerless);
void dataloader_close(DataLoader *loader);
/* Dies as dataloader_open does if pattern matches no file. */
void dataloader_require_files(const char *pattern);
int64_t dataloader_files(const DataLoader *loader);
int64_t dataloader_tokens(const DataLoader *loader);     /* in all files */
int64_t dataloader_rows(const DataLoader *loader);       /* rows of T tokens in an epoch of SAMPLE_SHARDS */
/* Tells data apart: CRC-32 of the number of tokens (int64) and of the tokens (int32, in the order of the files; both little-endian): of all, if
   they are at most 2^20, else of 256 blocks of 4096 spread evenly from the first to the last. So it does not depend on how they are cut
   into files, nor on the files' width, and takes no longer for 10^12 of them. Dies if a file cannot be read. */
uint32_t dataloader_crc32(DataLoader *loader);
/* From now on row n of dataloader_batch begins at a document: at the first end_of_text token at or after the place that it would begin at, around
   the end of its shard; if no such token there has T tokens behind it, in the next shard that has one. Dies if no shard does, or if end_of_text
   is -1. */
void dataloader_begin_at_documents(DataLoader *loader, int64_t end_of_text);
/* From now on row n of dataloader_batch is row n % rows: the first so many rows, again and again. So many rows from any one on are each of these
   once. */
void dataloader_repeat(DataLoader *loader, int64_t rows);
/* tokens(rows,T) and targets(rows,T), the tokens shifted by one, of rows first_row ... first_row + rows - 1. Returns the number of
   targets >= 0 (a target is -1 where the wide shard holds 0xFFFFFFFF; such a token as input is refused). Costs O(log shards) a row, and
   SAMPLE_SHARDS O(shards) once an epoch. */
int64_t dataloader_batch(DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets);
/* Begins to make that batch on another thread, for a dataloader_batch of the same rows to come, which gives what it would have given and, where
   it would have died, dies in the same words. At most one batch is made ahead: the last one asked for. */
void dataloader_prefetch(DataLoader *loader, int64_t first_row, int64_t rows);
/* A batch for evaluation: row n is tokens n*T ... n*T+T of each shard in order, unshuffled, wrapping around. */
int64_t dataloader_batch_in_order(DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets);

#ifdef __cplusplus
}
#endif

#endif
