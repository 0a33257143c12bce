/* model_directory.h: a model as a directory that transformers loads too: config.json, model.safetensors, generation_config.json, and the
   vocabulary's files. */
#ifndef LLMC_MODEL_DIRECTORY_H
#define LLMC_MODEL_DIRECTORY_H

#include "huggingface.h"
#include "snapshot.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The architecture that the directory's config.json gives. Its weights: model_read_directory. */
bool model_directory_config(const char *directory, Config *config, char error[ERROR_SIZE]);
/* Writes the model's files into an existing directory, weights in dtype (F32 or BF16); those of the vocabulary, and which tokens begin and
   end a text, come from tokenizer_directory (may be NULL). A model that no family expresses has native names, and no
   generation_config.json. */
bool model_directory_write(const char *directory, const Snapshot *s, DType dtype, const char *tokenizer_directory, char error[ERROR_SIZE]);
/* The same as a new directory for transformers, which appears when it is whole; until then it is DIRECTORY.writing-..., a name that nothing
   had. Refused, naming what stands against it, if no family expresses the model; and if something of that name exists. */
bool model_export(Model *m, const char *directory, const char *tokenizer_directory, DType dtype, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
