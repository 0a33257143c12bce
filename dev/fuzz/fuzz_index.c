/* fuzz_index.c: from a model.safetensors.index.json come the names of files in its own directory, each once. */
#include "llmc/error.h"
#include "llmc/weight_files.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[ERROR_SIZE] = "";
    int count;
    Json *json = json_parse((const char *)data, size, NULL, 0);
    if (!json) return 0;
    char **names = weight_files_of_index(json, &count, error);
    CHECK(names ? count > 0 : *error && strlen(error) < ERROR_SIZE);
    for (int i = 0; names && i < count; i++) {
        CHECK(*names[i] && *names[i] != '.' && !strchr(names[i], '/'));
        CHECK(i == 0 || strcmp(names[i], names[i - 1]) > 0);
    }
    if (names) weight_files_free_names(names, count);
    json_free(json);
    return 0;
}
