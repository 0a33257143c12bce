/* weights.h: parameters to files and back. A FileTensor is one tensor of a file: which rows of which parameter it holds, and in what order.
   A WeightLayout is all of a file's, under the names and in the shapes of train_gpt itself (native), or of a Hugging Face family. In memory
   a parameter is out x in, the vocabulary padded to Vp rows; files have V. */
#ifndef LLMC_WEIGHTS_H
#define LLMC_WEIGHTS_H

#include "families.h"
#include "safetensors.h"

typedef struct {
    char *name;
    const ParameterInfo *parameter;
    int rank;
    int64_t shape[2];             /* in the file */
    int64_t rows, columns;        /* of the parameter's that it holds; a vector is rows of one column */
    int64_t *row;                 /* row[r]: the parameter's row that the file has as its r-th; NULL: its r-th */
    bool transposed;              /* the file's lines are the parameter's columns, as a vector's one line is */
} FileTensor;

typedef struct {
    FileTensor *tensors;
    int count;
} WeightLayout;

/* Our own names, each with the prefix. */
void weights_native(WeightLayout *layout, const ParameterTable *table, const char *prefix);
/* A family's names. Where RoPE's pairs lie otherwise in the file (rope) than in memory (config), rows of queries and keys are permuted. */
void weights_of_family(WeightLayout *layout, const ParameterTable *table, const Config *config, const Family *family, RopeLayout rope);
void weights_release(WeightLayout *layout);

/* Writing: declare all, then, after safetensors_begin, write all, in F32 or rounded to BF16. */
void weights_declare(SafetensorsWriter *w, const WeightLayout *layout, DType dtype);
void weights_write(SafetensorsWriter *w, const WeightLayout *layout, const float *memory, DType dtype);

/* The tensors of one or several files, by name. */
typedef struct {
    const SafetensorsEntry **entries;
    size_t count;
} TensorIndex;
TensorIndex tensors_of_files(const Safetensors *files, int count);
void tensors_release(TensorIndex *index);
const SafetensorsEntry *tensors_find(const TensorIndex *index, const char *name);

/* Reading the flat buffer, padding as zeros: first check all, then read all. A check fails, naming the tensor, if one is missing,
   misshapen, not of floats, or holds a number that is not finite. A position table with more rows than wanted is cropped. */
bool weights_check(const TensorIndex *index, const WeightLayout *layout, char error[ERROR_SIZE]);
void weights_read(const TensorIndex *index, const WeightLayout *layout, float *memory);

/* All of that for one file with our own names: what optimizer.safetensors and the dumps of test_gpt are. */
void parameters_declare(SafetensorsWriter *w, const ParameterTable *table, const char *prefix);
void parameters_write(SafetensorsWriter *w, const ParameterTable *table, const float *memory);
bool parameters_read(const Safetensors *file, const ParameterTable *table, const char *prefix, float *memory, char error[ERROR_SIZE]);

/* The weights of a directory of any family, sharded or not, by its config.json's model_type; memory is as it was unless all is well.
   config must be the architecture of that config.json; dropout, context, epsilon, and RoPE's base and layout aside. Besides the above, a tensor that belongs to no parameter is refused, unless it is a buffer that older files carry, or a tied head equal
   to the embedding. The family's prefix may be missing from all names. */
bool weights_read_directory(const char *directory, const ParameterTable *table, const Config *config, float *memory,
                            char error[ERROR_SIZE]);
/* A model.safetensors of the family that expresses config, or with native names. */
bool weights_write_file(const char *path, const ParameterTable *table, const Config *config, const float *memory, DType dtype,
                        uint32_t *crc, char error[ERROR_SIZE]);

#endif
