/* tokenizer_encode.c: the command `tokenizer encode`. Pieces of the text, cut where it may be, are encoded by several threads and written
   in order. A vocabulary of characters takes the whole text as one piece, so that what it refuses can be named by line. */
#include "bpe.h"
#include "error.h"
#include "pipeline.h"
#include "text_reader.h"
#include "token_stream.h"
#include "tokenizer_commands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ByteBuffer text, out;
    TokenBuffer tokens;
    char error[ERROR_SIZE];
} Piece;

typedef struct {
    Tokenizer *tokenizer;
    const Bpe *bpe;             /* NULL: characters */
    BpeEncoder **encoders;      /* (threads) */
    bool specials;
    TokenFormat format;
    TextReader reader;
    StreamOutput output;
    int32_t first;              /* token before the text, or -1 */
    bool written, failed;
    char error[ERROR_SIZE];
} Encoding;

/* ---- Pieces ---- */

static size_t cut(const void *context, const char *text, size_t length) {
    const Encoding *e = context;
    return e->bpe ? bpe_cut(e->bpe, text, length, e->specials) : 0;
}

static bool read_piece(void *context, void *piece_) {
    Encoding *e = context;
    Piece *piece = piece_;
    piece->error[0] = 0;
    if (e->failed) return false;
    e->failed = !text_reader_next(&e->reader, &piece->text, piece->error);
    return e->failed || piece->text.count > 0;
}

/* Room is for the longest: a blank and ten digits. */
static void append_text(ByteBuffer *out, const TokenBuffer *tokens) {
    byte_buffer_reserve(out, (size_t)tokens->count * 11);
    for (int64_t i = 0; i < tokens->count; i++) {
        char digits[10];
        int n = 0;
        for (uint32_t left = (uint32_t)tokens->tokens[i]; n == 0 || left > 0; left /= 10) digits[n++] = (char)('0' + left % 10);
        out->bytes[out->count++] = ' ';
        while (n > 0) out->bytes[out->count++] = digits[--n];
    }
}

static void append_binary(ByteBuffer *out, const TokenBuffer *tokens, int width) {
    byte_buffer_reserve(out, (size_t)tokens->count * (size_t)width);
    for (int64_t i = 0; i < tokens->count; i++)
        for (int byte = 0; byte < width; byte++) out->bytes[out->count++] = (char)(tokens->tokens[i] >> 8 * byte);
}

static void append_tokens(ByteBuffer *out, const TokenBuffer *tokens, TokenFormat format) {
    if (format == FORMAT_TEXT) append_text(out, tokens);
    else append_binary(out, tokens, format_width(format));
}

static void encode_piece(void *context, int thread, void *piece_) {
    Encoding *e = context;
    Piece *piece = piece_;
    if (piece->error[0]) return;
    piece->tokens.count = 0;
    if (e->bpe) {
        bpe_encode(e->encoders[thread], piece->text.bytes, piece->text.count, e->specials, &piece->tokens);
    } else {
        token_buffer_free(&piece->tokens);
        char cause[ERROR_SIZE];
        piece->tokens.tokens = tokenizer_encode(e->tokenizer, piece->text.bytes, piece->text.count, &piece->tokens.count, cause);
        if (!piece->tokens.tokens) {
            file_error(piece->error, "'%.200s': %.300s", e->reader.name, cause);
            return;
        }
    }
    byte_buffer_clear(&piece->out, 16 * STREAM_BYTES);
    append_tokens(&piece->out, &piece->tokens, e->format);
    if (piece->tokens.capacity > 4 * STREAM_BYTES) token_buffer_free(&piece->tokens);
}

/* Without the blank before the very first token. */
static bool write_out(Encoding *e, const ByteBuffer *out) {
    if (out->count == 0) return true;
    size_t blank = e->format == FORMAT_TEXT && !e->written;
    e->written = true;
    return stream_output_write(&e->output, out->bytes + blank, out->count - blank, e->error);
}

static bool write_first(Encoding *e) {
    ByteBuffer out = { 0 };
    append_tokens(&out, &(TokenBuffer){ &e->first, e->first >= 0, 1 }, e->format);
    bool good = write_out(e, &out);
    byte_buffer_free(&out);
    return good;
}

static bool write_piece(void *context, void *piece_) {
    Encoding *e = context;
    Piece *piece = piece_;
    return piece->error[0] ? file_error(e->error, "%s", piece->error) : write_out(e, &piece->out);
}

/* ---- The command ---- */

static void open_encoders(Encoding *e, int threads) {
    e->encoders = xcalloc((size_t)threads, sizeof *e->encoders);
    for (int i = 0; e->bpe && i < threads; i++) {
        e->encoders[i] = bpe_encoder_open(e->bpe, e->error);
        if (!e->encoders[i]) die("%s", e->error);
    }
}

static void run(Encoding *e, int threads) {
    int count = pipeline_pieces(threads);
    Piece *pieces = xcalloc((size_t)count, sizeof *pieces);
    pipeline_run(&(Pipeline){ e, read_piece, encode_piece, write_piece, pieces, sizeof *pieces, count, threads });
    for (int i = 0; i < count; i++) {
        byte_buffer_free(&pieces[i].text);
        byte_buffer_free(&pieces[i].out);
        token_buffer_free(&pieces[i].tokens);
    }
    free(pieces);
}

int tokenizer_encode_command(int argc, char **argv) {
    StreamOptions o = stream_options(argc, argv, "--ordinary", true);
    Tokenizer *tokenizer = vocabulary_open(o.vocab, o.specials, o.special_count);
    Encoding e = { .tokenizer = tokenizer, .bpe = tokenizer_bpe(tokenizer), .specials = !o.flag, .format = o.format, .first = -1 };
    if (o.begin_of_text) e.first = tokenizer_begin_of_text(tokenizer);
    if (o.begin_of_text && e.first < 0) die("the vocabulary in '%s' puts no token before a text; leave --begin-of-text out", o.vocab);
    if (o.format == FORMAT_U16 && tokenizer_vocab_size(tokenizer) > 65536)
        die("the vocabulary has %" PRId64 " tokens, more than --format u16 can hold; use --format u32", tokenizer_vocab_size(tokenizer));
    if (!text_reader_open(&e.reader, o.input, STREAM_BYTES, cut, &e, e.error)) die("%s", e.error);
    open_encoders(&e, (int)o.threads);
    e.output = stream_output_open(o.output);
    if (write_first(&e)) run(&e, (int)o.threads);
    if (!e.error[0] && o.format == FORMAT_TEXT) stream_output_write(&e.output, "\n", 1, e.error);
    if (e.error[0]) {
        stream_output_discard(&e.output);
        die("%s", e.error);
    }
    if (!stream_output_close(&e.output, e.error)) die("%s", e.error);
    for (int i = 0; i < o.threads; i++) bpe_encoder_close(e.encoders[i]);
    free(e.encoders);
    text_reader_close(&e.reader);
    tokenizer_free(tokenizer);
    free(o.specials);
    return 0;
}
