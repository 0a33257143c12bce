/* tokenizer_decode.c: the command `tokenizer decode`. Pieces of the tokens are decoded by several threads; their bytes are written in
   order, made UTF-8 on the way, for a character may begin in one token and end in another. */
#include "error.h"
#include "pipeline.h"
#include "text_reader.h"
#include "token_stream.h"
#include "tokenizer_commands.h"
#include "utf8_repair.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 20 };            /* letters of a word in a message */

typedef struct {
    ByteBuffer text, out;
    int64_t tokens;             /* before the end of the piece, or before what is wrong */
    char wrong[SHOWN + 1];      /* what is no token; empty if all are */
    bool cut_short;             /* the last one is not whole */
    char error[ERROR_SIZE];
} Piece;

typedef struct {
    Tokenizer *tokenizer;
    TokenFormat format;
    bool raw;
    TextReader reader;
    Utf8Repair repair;
    ByteBuffer repaired;
    StreamOutput output;
    int64_t tokens;             /* written */
    bool failed;
    char error[ERROR_SIZE];
} Decoding;

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* ---- Pieces ---- */

static size_t cut(const void *context, const char *text, size_t length) {
    const Decoding *d = context;
    int width = format_width(d->format);
    if (width > 0) return length - length % (size_t)width;
    while (length > 0 && !is_blank(text[length - 1])) length--;
    return length;
}

static bool read_piece(void *context, void *piece_) {
    Decoding *d = context;
    Piece *piece = piece_;
    piece->error[0] = 0;
    if (d->failed) return false;
    d->failed = !text_reader_next(&d->reader, &piece->text, piece->error);
    return d->failed || piece->text.count > 0;
}

static bool append_token(const Decoding *d, Piece *piece, int64_t token) {
    size_t length;
    const char *bytes = token > INT32_MAX ? NULL : tokenizer_token(d->tokenizer, (int32_t)token, &length);
    if (!bytes) return false;
    byte_buffer_append(&piece->out, bytes, length);
    piece->tokens++;
    return true;
}

/* The number that word[length] spells, or more than any token is. */
static int64_t number_of(const char *word, size_t length) {
    int64_t number = 0;
    for (size_t i = 0; i < length && number <= INT32_MAX; i++) {
        if (word[i] < '0' || word[i] > '9') return (int64_t)INT32_MAX + 1;
        number = 10 * number + (word[i] - '0');
    }
    return number;
}

static void decode_text(const Decoding *d, Piece *piece) {
    const char *at = piece->text.bytes, *end = at + piece->text.count, *word;
    for (;;) {
        while (at < end && is_blank(*at)) at++;
        for (word = at; at < end && !is_blank(*at);) at++;
        if (at == word) return;
        size_t length = (size_t)(at - word);
        if (append_token(d, piece, number_of(word, length))) continue;
        if (length > SHOWN) length = SHOWN;
        for (size_t i = 0; i < length; i++) piece->wrong[i] = word[i] > ' ' && word[i] < 127 ? word[i] : '?';
        piece->wrong[length] = 0;
        return;
    }
}

static void decode_binary(const Decoding *d, Piece *piece, size_t width) {
    const unsigned char *at = (const unsigned char *)piece->text.bytes;
    for (size_t left = piece->text.count; left > 0; at += width, left -= width) {
        if ((piece->cut_short = left < width)) return;
        uint32_t token = 0;
        for (size_t i = 0; i < width; i++) token |= (uint32_t)at[i] << 8 * i;
        if (append_token(d, piece, token)) continue;
        snprintf(piece->wrong, sizeof piece->wrong, "%" PRIu32, token);
        return;
    }
}

static void decode_piece(void *context, int thread, void *piece_) {
    const Decoding *d = context;
    Piece *piece = piece_;
    (void)thread;
    piece->tokens = 0;
    piece->wrong[0] = 0;
    piece->cut_short = false;
    byte_buffer_clear(&piece->out, 16 * STREAM_BYTES);
    if (piece->error[0]) return;
    if (d->format == FORMAT_TEXT) decode_text(d, piece);
    else decode_binary(d, piece, (size_t)format_width(d->format));
}

static bool write_bytes(Decoding *d, const ByteBuffer *bytes) {
    return bytes->count == 0 || stream_output_write(&d->output, bytes->bytes, bytes->count, d->error);
}

static bool write_piece(void *context, void *piece_) {
    Decoding *d = context;
    Piece *piece = piece_;
    if (piece->error[0]) return file_error(d->error, "%s", piece->error);
    int64_t place = d->tokens + piece->tokens + 1;
    if (piece->wrong[0])
        return file_error(d->error, "'%s': token number %" PRId64 " is '%s', which is no token number from 0 to %" PRId64,
                          d->reader.name, place, piece->wrong, tokenizer_vocab_size(d->tokenizer) - 1);
    if (piece->cut_short)
        return file_error(d->error, "'%s' ends within token number %" PRId64 "; is it whole, and of this format?", d->reader.name, place);
    d->tokens += piece->tokens;
    if (d->raw) return write_bytes(d, &piece->out);
    byte_buffer_clear(&d->repaired, 16 * STREAM_BYTES);
    utf8_repair(&d->repair, piece->out.bytes, piece->out.count, &d->repaired);
    return write_bytes(d, &d->repaired);
}

/* ---- The command ---- */

static void run(Decoding *d, int threads) {
    int count = pipeline_pieces(threads);
    Piece *pieces = xcalloc((size_t)count, sizeof *pieces);
    pipeline_run(&(Pipeline){ d, read_piece, decode_piece, write_piece, pieces, sizeof *pieces, count, threads });
    for (int i = 0; i < count; i++) {
        byte_buffer_free(&pieces[i].text);
        byte_buffer_free(&pieces[i].out);
    }
    free(pieces);
    byte_buffer_clear(&d->repaired, 0);
    utf8_repair_end(&d->repair, &d->repaired);
    if (!d->error[0]) write_bytes(d, &d->repaired);
}

int tokenizer_decode_command(int argc, char **argv) {
    StreamOptions o = stream_options(argc, argv, "--bytes", false);
    Decoding d = { .tokenizer = vocabulary_open(o.vocab, o.specials, o.special_count), .format = o.format, .raw = o.flag };
    if (!text_reader_open(&d.reader, o.input, STREAM_BYTES, cut, &d, d.error)) die("%s", d.error);
    d.output = stream_output_open(o.output);
    run(&d, (int)o.threads);
    if (d.error[0]) {
        stream_output_discard(&d.output);
        die("%s", d.error);
    }
    if (!stream_output_close(&d.output, d.error)) die("%s", d.error);
    byte_buffer_free(&d.repaired);
    text_reader_close(&d.reader);
    tokenizer_free(d.tokenizer);
    free(o.specials);
    return 0;
}
