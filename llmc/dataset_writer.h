/* dataset_writer.h: a dataset of documents being made: train_000000.bin ..., val_000000.bin ..., the files of its vocabulary, and
   dataset.json (data/README.md). All is written in DIRECTORY/new.tmp/ and moved to its place when it is whole, dataset.json last; what was
   there before stays until then. So an error, or an interruption, leaves what there was, or a directory without dataset.json, which is
   unfinished. */
#ifndef LLMC_DATASET_WRITER_H
#define LLMC_DATASET_WRITER_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TRAIN, VAL, SPLITS } DatasetSplit;

typedef struct {
    const char *directory, *vocab_directory, *source;
    int64_t vocab_size, shard_tokens;
    int32_t end_of_text;
} DatasetPlan;

typedef struct { int64_t tokens, bytes, documents, shards; } DatasetCounts;

typedef struct DatasetWriter DatasetWriter;

/* Makes the directory if it is missing. NULL with a sentence if it cannot be had, holds a dataset of characters, or another
   writer is open there. */
DatasetWriter *dataset_writer_open(const DatasetPlan *plan, char error[ERROR_SIZE]);
/* A document of that split begins: its first token is end_of_text, as in llm.c's and GPT-2's data. */
bool dataset_writer_begin(DatasetWriter *writer, DatasetSplit split, char error[ERROR_SIZE]);
/* It goes on with these tokens, which so many bytes of text became. */
bool dataset_writer_append(DatasetWriter *writer, const int32_t *tokens, int64_t count, int64_t bytes, char error[ERROR_SIZE]);
DatasetCounts dataset_writer_counts(const DatasetWriter *writer, DatasetSplit split);
/* Puts everything in its place. Also after false: dataset_writer_close. */
bool dataset_writer_finish(DatasetWriter *writer, char error[ERROR_SIZE]);
/* Removes what is unfinished. */
void dataset_writer_close(DatasetWriter *writer);

/* Which split a document belongs to: a function of the seed and its number alone. Validation with that probability. */
DatasetSplit dataset_split(uint64_t seed, int64_t document, double val_fraction);

#ifdef __cplusplus
}
#endif
#endif
