/* text_reader.h: a file of any size, or standard input, in pieces that end where they may. */
#ifndef LLMC_TEXT_READER_H
#define LLMC_TEXT_READER_H

#include "byte_buffer.h"
#include "pretokenize.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *name;        /* for messages */
    int descriptor;
    size_t piece_bytes;
    TextCut cut;
    const void *context;
    ByteBuffer rest;         /* read, but behind the last cut */
    bool ended;
} TextReader;

/* path NULL or "-": standard input. Pieces have about piece_bytes, or as many more as it takes to find a place to cut. */
bool text_reader_open(TextReader *reader, const char *path, size_t piece_bytes, TextCut cut, const void *context, char error[ERROR_SIZE]);
void text_reader_close(TextReader *reader);
/* What follows, in place of what is in the piece: nothing at the end. False with a sentence if it cannot be read. */
bool text_reader_next(TextReader *reader, ByteBuffer *piece, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
