/* fuzz_safetensors.c: in a file that is read, the tensors cover the data exactly, and every element of theirs can be read. */
#include "llmc/error.h"
#include "llmc/safetensors.h"

#include <stdlib.h>
#include <string.h>

static void read_all(const SafetensorsEntry *entry) {
    int64_t count = 1, integers[64];
    float floats[64];
    for (int i = 0; i < entry->rank; i++) count *= entry->shape[i];
    for (int64_t at = 0; at < count; at += 64) {
        int64_t n = count - at < 64 ? count - at : 64;
        if (entry->dtype <= ST_BF16) safetensors_read_floats(entry, at, n, floats);
        else safetensors_read_integers(entry, at, n, integers);
    }
}

static void check_file(const uint8_t *data, size_t size) {
    char error[ERROR_SIZE] = "";
    Safetensors st;
    if (!safetensors_parse(&st, data, size, "input", error)) {
        CHECK(strncmp(error, "'input'", 7) == 0 && !st.header && !st.entries);
        return;
    }
    const uint8_t *expected = NULL;
    for (size_t i = 0; i < st.count; i++) {
        const SafetensorsEntry *entry = &st.entries[i];
        CHECK(safetensors_find(&st, entry->name) == entry);
        CHECK(!expected || entry->data == expected);
        expected = (const uint8_t *)entry->data + entry->bytes;
        read_all(entry);
    }
    CHECK(!expected || expected == data + size);
    safetensors_metadata(&st, "config");
    safetensors_close(&st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_file(data, size);
    /* Most changes to a file spoil the header's length, which comes first: try it with the length put right, too. */
    size_t end = size;
    while (end > 8 && data[end - 1] != '}') end--;
    if (end <= 8) return 0;
    uint8_t *repaired = memcpy(xmalloc(size), data, size);
    for (int i = 0; i < 8; i++) repaired[i] = (uint64_t)(end - 8) >> 8 * i;
    check_file(repaired, size);
    free(repaired);
    return 0;
}
