/* shards.h: the weights of a model's directory: model.safetensors, or the shards that model.safetensors.index.json lists. */
#ifndef LLMC_SHARDS_H
#define LLMC_SHARDS_H

#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    Safetensors *files;
    char **names;         /* of the files, within the directory */
    int count;
} Shards;

/* Every tensor of the index must lie in the shard it names, and in no other, and no shard may hold a tensor that the index lacks. False,
   and nothing open, with a sentence that names the tensor or the shard. */
bool shards_open(Shards *shards, const char *directory, char error[ERROR_SIZE]);
void shards_close(Shards *shards);

/* The names of the shards that an index lists, each once; its form is checked, the files are not. For shards_open, and the fuzzer. */
char **shards_of_index(const Json *index, int *count, char error[ERROR_SIZE]);
void shards_free_names(char **names, int count);

#ifdef __cplusplus
}
#endif
#endif
