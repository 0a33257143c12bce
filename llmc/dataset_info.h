/* dataset_info.h: dataset.json, which lies beside token shards and says what they hold (data/README.md). */
#ifndef LLMC_DATASET_INFO_H
#define LLMC_DATASET_INFO_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the training and of the validation shards together; 0 where the file is silent. */
typedef struct { int64_t train, val; } SplitCounts;

/* Fields are NULL, 0 or -1 where dataset.json is silent or missing. */
typedef struct {
    int64_t vocab_size;
    int64_t end_of_text;     /* the token that ends, or begins, a document; -1: none */
    SplitCounts tokens;
    SplitCounts bytes;       /* of text behind the tokens */
    char *tokenizer;         /* "characters" or "bpe" */
    char *source;            /* where the text came from, for the banner */
    char *sha256;            /* of the text */
    char *directory;         /* where it was found: tokenizer files lie there too */
} DatasetInfo;

/* False only if the file exists and is broken; `shard_path` is any file of the dataset. */
bool dataset_info_read(DatasetInfo *info, const char *shard_path, char error[ERROR_SIZE]);
void dataset_info_free(DatasetInfo *info);

/* Bytes of text for each token of the split that has so many tokens (all that a loader has opened), or 0 if that is unknown: no dataset.json,
   one without "bytes", or tokens that are neither of its splits. */
double dataset_bytes_per_token(const DatasetInfo *info, int64_t tokens);
/* Bits for each byte of text, by which models of different vocabularies compare: loss / ln 2 / bytes per token, or 0 if those are unknown.
   loss is the mean over tokens, in nats. */
double bits_per_byte(double loss, double bytes_per_token);

#ifdef __cplusplus
}
#endif

#endif
