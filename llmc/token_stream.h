/* token_stream.h: what the commands that stream between text and tokens share: their options, vocabulary, and output. */
#ifndef LLMC_TOKEN_STREAM_H
#define LLMC_TOKEN_STREAM_H

#include "arguments.h"
#include "tokenizer.h"
#include "utf8_repair.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { STREAM_BYTES = 1 << 20 };    /* a piece */

/* Tokens as decimal numbers with blanks between, or little-endian without a header. */
typedef enum { FORMAT_TEXT, FORMAT_U16, FORMAT_U32 } TokenFormat;

typedef struct {
    const char *vocab, *input, *output;     /* NULL: standard input, standard output */
    const char **specials;
    int64_t special_count;
    TokenFormat format;
    int64_t threads;
    bool flag, begin_of_text;               /* the command's own ones were given */
} StreamOptions;

/* Of argv; `flag` is the name of an option without a value; begin_of_text: the command has --begin-of-text. */
StreamOptions stream_options(int argc, char **argv, const char *flag, bool begin_of_text);

/* Bytes of a token in that format, 0 for text. */
int format_width(TokenFormat format);

/* The directory that --vocab names: `gpt2`, where there is none of that name, is data/vocab/gpt2. Dies if it is not there. */
const char *vocabulary_directory(const char *name);

/* The vocabulary in that directory, with special tokens added. Dies if it cannot be had. */
Tokenizer *vocabulary_open(const char *directory, const char *const *specials, int64_t special_count);

/* A file that appears when it is whole; or standard output (NULL or "-"), or what is there and no regular file, as a pipe, written as it
   comes. Dies if it cannot be. */
typedef struct {
    FileWriter *file;           /* or: */
    FILE *stream;
    const char *name;           /* of the stream */
} StreamOutput;
StreamOutput stream_output_open(const char *path);
bool stream_output_write(StreamOutput *output, const void *bytes, size_t count, char error[ERROR_SIZE]);
bool stream_output_close(StreamOutput *output, char error[ERROR_SIZE]);
void stream_output_discard(StreamOutput *output);

/* Tokens as they come, as UTF-8: a character that ends in a later token waits for it, and what is none becomes U+FFFD. All else zero to begin
   with. */
typedef struct {
    const Tokenizer *tokenizer;
    FILE *file;                 /* NULL: standard output */
    Utf8Repair repair;
    ByteBuffer whole;
} TokenPrinter;
void print_token(TokenPrinter *printer, int32_t token);
/* At the end of the text. */
void print_end(TokenPrinter *printer);

#ifdef __cplusplus
}
#endif
#endif
