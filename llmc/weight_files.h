/* weight_files.h: the weights of a model's directory: model.safetensors, or the shards that model.safetensors.index.json lists. */
#ifndef LLMC_WEIGHT_FILES_H
#define LLMC_WEIGHT_FILES_H

#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    Safetensors *files;
    char **names;         /* of the files, within the directory */
    int count;
} WeightFiles;

/* Every tensor of the index must lie in the shard it names, and in no other, and no shard may hold a tensor that the index lacks. False,
   and nothing open, with a sentence that names the tensor or the shard. A directory with an adapter is refused. */
bool weight_files_open(WeightFiles *shards, const char *directory, char error[ERROR_SIZE]);
void weight_files_close(WeightFiles *shards);

/* The names of the shards that an index lists, each once; its form is checked, the files are not. For weight_files_open, and the fuzzer. */
char **weight_files_of_index(const Json *index, int *count, char error[ERROR_SIZE]);
void weight_files_free_names(char **names, int count);

#ifdef __cplusplus
}
#endif
#endif
