/* fuzz_merges.c: a merges.txt that is read, beside a vocabulary of the letters a, b and c up to three at a time, makes one that encodes and
   can be written. */
#define _GNU_SOURCE   /* memmem */
#include "dev/fuzz/bpe_check.h"

/* Every word of two or three of the letters a, b and c. */
static void write_words(FILE *file) {
    int token = 256;
    for (int length = 2, count = 9; length <= 3; length++, count *= 3)
        for (int number = 0; number < count; number++) {
            fprintf(file, ", \"");
            for (int i = 0, rest = number; i < length; i++, rest /= 3) putc("abc"[rest % 3], file);
            fprintf(file, "\": %d", token++);
        }
}

static char *vocabulary(void) {
    char *members = byte_members(), *text = NULL;
    size_t length;
    FILE *memory = open_memstream(&text, &length);
    fprintf(memory, "{%s", members);
    write_words(memory);
    fprintf(memory, "}");
    fclose(memory);
    free(members);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char *vocab;
    char error[ERROR_SIZE] = "";
    size_t length;
    if (!vocab) vocab = vocabulary();
    char *text = with_bytes(data, size, &length);
    check_vocabulary(bpe_of_vocabulary(vocab, strlen(vocab), "vocab", text, length, "merges", error), error, text, length);
    free(text);
    return 0;
}
