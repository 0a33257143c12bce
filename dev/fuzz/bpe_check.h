/* bpe_check.h: what holds of every byte-pair vocabulary that was read, for the three fuzz targets. */
#include "llmc/bpe_parts.h"
#include "llmc/error.h"
#include "llmc/nfc.h"

#include <stdlib.h>
#include <string.h>

/* More members for a vocabulary: the 256 bytes, numbers 0 to 255; fresh memory. */
static char *byte_members(void) {
    char *text = NULL;
    size_t length;
    FILE *memory = open_memstream(&text, &length);
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte, *letter = bpe_spell(&c, 1);
        fprintf(memory, "%s\"%s%s\": %d", byte ? ", " : "", *letter == '"' || *letter == '\\' ? "\\" : "", letter, byte);
        free(letter);
    }
    fclose(memory);
    return text;
}

/* data with the 256 bytes where it says "BYTES":0 first, NUL-terminated, so that small inputs come far. */
static char *with_bytes(const uint8_t *data, size_t size, size_t *length) {
    static const char mark[] = "\"BYTES\":0";
    static char *members;
    if (!members) members = byte_members();
    char *text = memcpy(xmalloc(size + strlen(members) + 1), data, size);
    char *place = memmem(text, size, mark, sizeof mark - 1);
    *length = size;
    if (place) {
        size_t before = place - text, after = size - before - (sizeof mark - 1);
        memmove(place + strlen(members), place + sizeof mark - 1, after);
        memcpy(place, members, strlen(members));
        *length = before + strlen(members) + after;
    }
    text[*length] = 0;
    return text;
}

static void check_same(const Bpe *a, const Bpe *b) {
    CHECK(b && a->vocab_size == b->vocab_size && a->merge_count == b->merge_count && a->specials.count == b->specials.count);
    CHECK(a->merge_count == 0 || memcmp(a->merges, b->merges, a->merge_count * sizeof *a->merges) == 0);
    for (int64_t i = 0; i < a->vocab_size; i++) {
        CHECK(!a->tokens[i].bytes == !b->tokens[i].bytes && a->tokens[i].length == b->tokens[i].length);
        CHECK(!a->tokens[i].bytes || memcmp(a->tokens[i].bytes, b->tokens[i].bytes, a->tokens[i].length) == 0);
    }
    for (int64_t i = 0; i < a->specials.count; i++) {
        const BpeAdded *x = &a->added[i], *y = &b->added[i];
        CHECK(strcmp(x->text, y->text) == 0 && x->token == y->token && x->special == y->special && x->normalized == y->normalized);
    }
    CHECK(a->rules.pretokenization == b->rules.pretokenization && a->rules.nfc == b->rules.nfc);
    CHECK(a->rules.whole_words == b->rules.whole_words && a->rules.first == b->rules.first);
}

/* What is encoded comes back, or its normal form. Of one input in eight: opening an encoder takes as long as all the rest. */
static void check_encoding(const Bpe *bpe, const char *text, size_t text_length) {
    char error[ERROR_SIZE];
    if (text_length % 8) return;
    TokenBuffer out = { 0 };
    ByteBuffer normal = { 0 };
    size_t at = 0, length;
    BpeEncoder *encoder = bpe_encoder_open(bpe, error);
    if (!encoder) return;
    bpe_encode(encoder, text, text_length, true, &out);
    if (bpe->rules.nfc) text = nfc(text, &text_length, &normal);
    for (int64_t i = 0; i < out.count; i++, at += length) {
        const char *bytes = bpe_token(bpe, out.tokens[i], &length);
        CHECK(bytes && at + length <= text_length && memcmp(bytes, text + at, length) == 0);
    }
    CHECK(at == text_length);
    token_buffer_free(&out);
    byte_buffer_free(&normal);
    bpe_encoder_close(encoder);
}

/* NULL is right with a sentence; else the vocabulary encodes its own file, and is the same when it is written and read again. */
static void check_vocabulary(Bpe *bpe, const char *error, const char *text, size_t text_length) {
    CHECK(bpe || (*error && strlen(error) < ERROR_SIZE));
    if (!bpe) return;
    char *written = NULL, again_error[ERROR_SIZE];
    size_t length;
    check_encoding(bpe, text, text_length);
    FILE *memory = open_memstream(&written, &length);
    bpe_write_tokenizer(memory, bpe);
    fclose(memory);
    Bpe *again = bpe_of_tokenizer(written, length, "again", again_error);
    check_same(bpe, again);
    bpe_free(again);
    bpe_free(bpe);
    free(written);
}
