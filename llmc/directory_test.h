/* directory_test.h: a directory of its own for a test program: give make_directory and remove_directory to cmocka_run_group_tests. */
#ifndef LLMC_DIRECTORY_TEST_H
#define LLMC_DIRECTORY_TEST_H

#include "files.h"

#include <stdio.h>
#include <stdlib.h>

static char directory[] = P_tmpdir "/train_gpt_test.XXXXXX";
static char error[ERROR_SIZE];

static inline int make_directory(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static inline int remove_directory(void **state) {
    (void)state;
    return directory_remove(directory, error) ? 0 : -1;
}

#endif
