/* fuzz_tokenizer.c: a tokenizer.json that is read makes a vocabulary that encodes and can be written; "BYTES":0 in it stands for the 256
   bytes. */
#define _GNU_SOURCE   /* memmem */
#include "dev/fuzz/bpe_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[ERROR_SIZE] = "";
    size_t length;
    char *text = with_bytes(data, size, &length);
    check_vocabulary(bpe_of_tokenizer(text, length, "tokenizer", error), error, text, length);
    free(text);
    return 0;
}
