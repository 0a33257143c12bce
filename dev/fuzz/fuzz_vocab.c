/* fuzz_vocab.c: a vocab.json that is read, beside a few merges, makes a vocabulary that encodes and can be written; "BYTES":0 in it stands
   for the 256 bytes. */
#define _GNU_SOURCE   /* memmem */
#include "dev/fuzz/bpe_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char merges[] = "a b\nab c\n";
    char error[ERROR_SIZE] = "";
    size_t length;
    char *text = with_bytes(data, size, &length);
    size_t merges_length = size % 2 ? sizeof merges - 1 : 0;
    check_vocabulary(bpe_of_vocabulary(text, length, "vocab", merges, merges_length, "merges", error), error, text, length);
    free(text);
    return 0;
}
