/* data_files.h: the token files that -i and -j name. */
#ifndef LLMC_DATA_FILES_H
#define LLMC_DATA_FILES_H

#include "files.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char **names;
    size_t count;
} DataFiles;

/* All that pattern (a path, a glob, or a directory: its *.bin) matches, in name order, at least one; data_files_free them. These die where there is
   none, saying how data are prepared. */
DataFiles data_files(const char *pattern);
/* The same to train on: of a directory without those named val*.bin, and without those that `validation` matches. */
DataFiles data_files_for_training(const char *pattern, const char *validation);
/* The same to validate on: of a directory those named val*.bin alone, where there are any. */
DataFiles data_files_for_validation(const char *pattern);
void data_files_free(DataFiles *files);

#ifdef __cplusplus
}
#endif
#endif
