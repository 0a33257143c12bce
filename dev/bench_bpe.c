/* bench_bpe.c: the rate of bpe_encode on one thread: bench_bpe VOCABULARY-DIRECTORY FILE. The file is cut at <|endoftext|>, and every
   document is encoded for itself, as dev/bench_tokenizer.py has the other tools do. Prints seconds by the clock, CPU seconds, tokens, and
   the CRC-32 of the tokens as int32. */
#define _GNU_SOURCE   /* memmem */
#include "llmc/bpe.h"
#include "llmc/error.h"
#include "llmc/machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char separator[] = "<|endoftext|>";

int main(int argc, char **argv) {
    char error[ERROR_SIZE];
    FileMap text;
    error_program_name(argv[0]);
    if (argc != 3) die("usage: bench_bpe VOCABULARY-DIRECTORY FILE");
    Bpe *bpe = bpe_open(argv[1], error);
    BpeEncoder *encoder = bpe ? bpe_encoder_open(bpe, error) : NULL;
    if (!encoder || !file_map(&text, argv[2], error)) die("%s", error);
    TokenBuffer tokens = { 0 };
    const char *at = (const char *)text.data, *end = at + text.size;
    double start = machine_seconds(), cpu = (double)clock();
    while (at < end) {
        const char *next = memmem(at, (size_t)(end - at), separator, sizeof separator - 1);
        bpe_encode(encoder, at, (size_t)((next ? next : end) - at), false, &tokens);
        at = next ? next + sizeof separator - 1 : end;
    }
    printf("%.4f %.4f ", machine_seconds() - start, ((double)clock() - cpu) / CLOCKS_PER_SEC);
    printf("%" PRId64 " %08x\n", tokens.count, crc32_update(0, tokens.tokens, (size_t)tokens.count * sizeof *tokens.tokens));
    token_buffer_free(&tokens);
    bpe_encoder_close(encoder);
    bpe_free(bpe);
    file_unmap(&text);
    return 0;
}
