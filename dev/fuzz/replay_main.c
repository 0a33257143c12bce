/* replay_main.c: stands in for the fuzzer where it is missing: gives the target each file named, and each of its beginnings. */
#include "llmc/error.h"
#include "llmc/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
    char error[ERROR_SIZE];
    long executions = 0;
    for (int i = 1; i < argc; i++) {
        FileMap map;
        if (!file_map(&map, argv[i], error)) die("%s", error);
        for (size_t size = 0; size <= map.size; size++, executions++) {
            uint8_t *copy = memcpy(xmalloc(size), map.data, size);   /* of exactly this size, so that a sanitizer sees its end */
            LLVMFuzzerTestOneInput(copy, size);
            free(copy);
        }
        file_unmap(&map);
    }
    printf("%ld\n", executions);
    return 0;
}
