/* tokenizer.c: see tokenizer.h. Characters here; byte pairs are in bpe.c. */
#define _GNU_SOURCE   /* open_memstream */
#include "tokenizer.h"
#include "error.h"
#include "json.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 256 << 20 };

static const char file_name[] = "characters.json";
/* All that belongs to a vocabulary, ours or of transformers, whether we read it or not. */
static const char *const file_names[] = { file_name, "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json",
                                          "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "chat_template.jinja" };
enum { FILES = sizeof file_names / sizeof *file_names };

struct Tokenizer {
    Bpe *bpe;               /* NULL: characters, as follows */
    int32_t count;
    int32_t *token_of;      /* (CODE_POINTS) token + 1 of a code point, 0 if it has none; pages never touched cost nothing */
    char (*bytes)[5];       /* (count) UTF-8 of each token, NUL-terminated */
    int64_t *ends;          /* (end_count) what else ends a text */
    size_t end_count;
};

/* ---- Refusing ---- */

/* Where text[at] stands, for messages: line and character in it, both from 1. Everything before it is UTF-8. */
static void text_position(const char *text, size_t at, size_t *line, size_t *column) {
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        bool continues = (text[i] & 0xC0) == 0x80;
        *line += text[i] == '\n';
        *column = text[i] == '\n' ? 1 : *column + !continues;
    }
}

static void refuse_bytes(const char *text, size_t at, char error[ERROR_SIZE]) {
    size_t line, column;
    text_position(text, at, &line, &column);
    file_error(error, "line %zu, character %zu (byte %zu): 0x%02X is not UTF-8 here; convert the text, as with iconv -f LATIN1 -t UTF-8",
               line, column, at, (unsigned char)text[at]);
}

static void refuse_character(const Tokenizer *tokenizer, const char *text, size_t at, size_t size, int32_t code, char error[ERROR_SIZE]) {
    size_t line, column;
    text_position(text, at, &line, &column);
    char shown[16] = "";
    if ((code >= ' ' && code < 127) || code >= 0xA0) snprintf(shown, sizeof shown, "'%.*s' ", (int)size, text + at);
    file_error(error, "line %zu, character %zu: %s(U+%04X) is not among the %d characters of the vocabulary", line, column, shown,
               (unsigned)code, tokenizer->count);
}

/* ---- Building ---- */

static Tokenizer *tokenizer_empty(int32_t capacity) {
    Tokenizer *tokenizer = xcalloc(1, sizeof *tokenizer);
    tokenizer->token_of = xcalloc(CODE_POINTS, sizeof *tokenizer->token_of);
    tokenizer->bytes = xcalloc(capacity, sizeof *tokenizer->bytes);
    return tokenizer;
}

static void tokenizer_add(Tokenizer *tokenizer, int32_t code) {
    utf8_encode(code, tokenizer->bytes[tokenizer->count]);
    tokenizer->token_of[code] = ++tokenizer->count;
}

void tokenizer_free(Tokenizer *tokenizer) {
    if (!tokenizer) return;
    bpe_free(tokenizer->bpe);
    free(tokenizer->token_of);
    free(tokenizer->bytes);
    free(tokenizer->ends);
    free(tokenizer);
}

/* Marks the code points that occur, and counts them; -1 if text is refused. */
static int32_t mark_characters(const char *text, size_t length, bool *seen, char error[ERROR_SIZE]) {
    int32_t distinct = 0;
    for (size_t at = 0, size; at < length; at += size) {
        int32_t code = utf8_decode(text + at, length - at, &size);
        if (code < 0) {
            refuse_bytes(text, at, error);
            return -1;
        }
        distinct += !seen[code];
        seen[code] = true;
    }
    if (distinct == 0) file_error(error, "the text is empty");
    if (seen[0]) file_error(error, "the text holds NUL characters, so it is no plain text");
    return distinct && !seen[0] ? distinct : -1;
}

Tokenizer *tokenizer_of_characters(const char *text, size_t length, char error[ERROR_SIZE]) {
    bool *seen = xcalloc(CODE_POINTS, sizeof *seen);
    int32_t distinct = mark_characters(text, length, seen, error);
    Tokenizer *tokenizer = distinct > 0 ? tokenizer_empty(distinct) : NULL;
    for (int32_t code = 0; tokenizer && code < CODE_POINTS; code++)
        if (seen[code]) tokenizer_add(tokenizer, code);
    free(seen);
    return tokenizer;
}

/* ---- Files ---- */

static bool add_entry(Tokenizer *tokenizer, const Json *entry, const char *path, char error[ERROR_SIZE]) {
    size_t size = 0;
    int32_t code = entry->type == JSON_STRING ? utf8_decode(entry->string, strlen(entry->string), &size) : -1;
    if (code <= 0 || entry->string[size])
        return file_error(error, "'%s': entry %d of characters is not one character", path, tokenizer->count);
    if (tokenizer->token_of[code])
        return file_error(error, "'%s': entries %d and %d of characters are the same", path, tokenizer->token_of[code] - 1,
                          tokenizer->count);
    tokenizer_add(tokenizer, code);
    return true;
}

static Tokenizer *tokenizer_of_json(const Json *json, const char *path, char error[ERROR_SIZE]) {
    const char *type = json_get_string(json, "type");
    const Json *entries = json_get(json, "characters");
    if (!type || strcmp(type, "characters") != 0 || !entries || entries->type != JSON_ARRAY || entries->count == 0) {
        file_error(error, "'%s' is no character vocabulary, {\"type\": \"characters\", \"characters\": [...]}", path);
        return NULL;
    }
    Tokenizer *tokenizer = tokenizer_empty(CODE_POINTS);
    for (size_t i = 0; i < entries->count; i++)
        if (!add_entry(tokenizer, &entries->items[i], path, error)) {
            tokenizer_free(tokenizer);
            return NULL;
        }
    return tokenizer;
}

static Tokenizer *open_characters(const char *path, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE / 2];
    Tokenizer *tokenizer = NULL;
    size_t length;
    char *text = file_read_text(path, FILE_BYTES, &length, error);
    Json *json = text ? json_parse(text, length, cause, sizeof cause) : NULL;
    if (json) tokenizer = tokenizer_of_json(json, path, error);
    else if (text) file_error(error, "'%s' is broken: %s", path, cause);
    json_free(json);
    free(text);
    return tokenizer;
}

/* A token or a list of them; false if the file does not have it. Whether the file is right is not for us to say. */
static bool read_ends(Tokenizer *tokenizer, const char *directory, const char *name) {
    char ignored[ERROR_SIZE], *path = path_join(directory, name);
    size_t length;
    char *text = path_exists(path) ? file_read_text(path, FILE_BYTES, &length, ignored) : NULL;
    Json *json = text ? json_parse(text, length, NULL, 0) : NULL;
    const Json *ends = json_get(json, "eos_token_id");
    bool list = ends && ends->type == JSON_ARRAY;
    size_t count = list ? ends->count : ends != NULL;
    tokenizer->ends = xrealloc(tokenizer->ends, count * sizeof *tokenizer->ends + 1);
    tokenizer->end_count = 0;
    for (size_t i = 0; i < count; i++)
        tokenizer->end_count += json_integer(list ? &ends->items[i] : ends, &tokenizer->ends[tokenizer->end_count]);
    json_free(json);
    free(text);
    free(path);
    return tokenizer->end_count > 0;
}

static Tokenizer *open_bpe(const char *directory, char error[ERROR_SIZE]) {
    Bpe *bpe = bpe_open(directory, error);
    if (!bpe) return NULL;
    Tokenizer *tokenizer = xcalloc(1, sizeof *tokenizer);
    tokenizer->bpe = bpe;
    if (!read_ends(tokenizer, directory, "generation_config.json")) read_ends(tokenizer, directory, "config.json");
    return tokenizer;
}

static bool has_file(const char *directory, const char *name) {
    char *path = path_join(directory, name);
    bool present = path_exists(path);
    free(path);
    return present;
}

/* The files that a vocabulary is read from. */
static const char *const vocabulary_files[] = { file_name, "tokenizer.json", "vocab.json", "merges.txt" };
enum { VOCABULARY_FILES = sizeof vocabulary_files / sizeof *vocabulary_files };

bool tokenizer_present(const char *directory) {
    for (int i = 0; i < VOCABULARY_FILES; i++)
        if (has_file(directory, vocabulary_files[i])) return true;
    return false;
}

uint32_t tokenizer_checksum(const char *directory) {
    uint32_t all = 0;
    for (int i = 0; i < VOCABULARY_FILES; i++) {
        char *path = path_join(directory, vocabulary_files[i]), ignored[ERROR_SIZE];
        uint32_t crc;
        uint64_t size;
        if (has_file(directory, vocabulary_files[i]) && file_crc32(path, &crc, &size, ignored)) all = crc32_update(all, &crc, sizeof crc);
        free(path);
    }
    return all;
}

Tokenizer *tokenizer_open(const char *directory, char error[ERROR_SIZE]) {
    if (!has_file(directory, file_name)) {
        if (tokenizer_present(directory))
            return open_bpe(directory, error);
        file_error(error, "there is no vocabulary in '%s': neither %s, nor tokenizer.json, nor vocab.json and merges.txt", directory,
                   file_name);
        return NULL;
    }
    char *path = path_join(directory, file_name);
    Tokenizer *tokenizer = open_characters(path, error);
    free(path);
    return tokenizer;
}

bool tokenizer_save(const Tokenizer *tokenizer, const char *directory, char error[ERROR_SIZE]) {
    if (tokenizer->bpe) return bpe_save(tokenizer->bpe, directory, error);
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    CHECK(memory);
    fprintf(memory, "{\"type\": \"characters\", \"characters\": [");
    for (int32_t i = 0; i < tokenizer->count; i++) {
        if (i > 0) fprintf(memory, ", ");
        json_write_string(memory, tokenizer->bytes[i]);
    }
    fprintf(memory, "]}\n");
    CHECK(fclose(memory) == 0);
    bool good = file_write_text(directory, file_name, text, length, error);
    free(text);
    return good;
}

static bool copy_file(const char *from_directory, const char *to_directory, const char *name, char error[ERROR_SIZE]) {
    char *path = path_join(from_directory, name);
    size_t length;
    char *text = file_read_text(path, FILE_BYTES, &length, error);
    bool good = text && file_write_text(to_directory, name, text, length, error);
    free(text);
    free(path);
    return good;
}

bool tokenizer_copy(const char *from_directory, const char *to_directory, char error[ERROR_SIZE]) {
    for (int i = 0; i < FILES; i++)
        if (has_file(from_directory, file_names[i]) && !copy_file(from_directory, to_directory, file_names[i], error)) return false;
    return true;
}

/* ---- Use ---- */

int64_t tokenizer_vocab_size(const Tokenizer *tokenizer) { return tokenizer->bpe ? bpe_vocab_size(tokenizer->bpe) : tokenizer->count; }

const char *tokenizer_kind(const Tokenizer *tokenizer) { return tokenizer->bpe ? "bpe" : "characters"; }

Bpe *tokenizer_bpe(Tokenizer *tokenizer) { return tokenizer->bpe; }

int32_t tokenizer_end_of_text(const Tokenizer *tokenizer) {
    static const char *const texts[] = { "<|endoftext|>", "<|end_of_text|>", "</s>" };
    int32_t token = -1;
    for (int i = 0; tokenizer->bpe && token < 0 && i < 3; i++) token = bpe_special(tokenizer->bpe, texts[i]);
    return token;
}

bool tokenizer_ends_text(const Tokenizer *tokenizer, int32_t token) {
    bool ends = token == tokenizer_end_of_text(tokenizer);
    for (size_t i = 0; i < tokenizer->end_count; i++) ends |= token == tokenizer->ends[i];
    return ends;
}

int32_t tokenizer_begin_of_text(const Tokenizer *tokenizer) { return tokenizer->bpe ? bpe_first(tokenizer->bpe) : -1; }

static int32_t *encode_bpe(const Bpe *bpe, const char *text, size_t length, int32_t first, int64_t *count, char error[ERROR_SIZE]) {
    BpeEncoder *encoder = bpe_encoder_open(bpe, error);
    if (!encoder) return NULL;
    TokenBuffer out = { xmalloc(sizeof *out.tokens), first >= 0, 1 };
    *out.tokens = first;
    bpe_encode(encoder, text, length, true, &out);
    bpe_encoder_close(encoder);
    *count = out.count;
    return out.tokens;
}

static int32_t *encode_characters(const Tokenizer *tokenizer, const char *text, size_t length, int64_t *count, char error[ERROR_SIZE]) {
    int32_t *tokens = xmalloc(length * sizeof *tokens);
    *count = 0;
    for (size_t at = 0, size; at < length; at += size) {
        int32_t code = utf8_decode(text + at, length - at, &size);
        if (code < 0) refuse_bytes(text, at, error);
        else if (!tokenizer->token_of[code]) refuse_character(tokenizer, text, at, size, code, error);
        if (code < 0 || !tokenizer->token_of[code]) {
            free(tokens);
            return NULL;
        }
        tokens[(*count)++] = tokenizer->token_of[code] - 1;
    }
    return tokens;
}

int32_t *tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t length, int64_t *count, char error[ERROR_SIZE]) {
    if (tokenizer->bpe) return encode_bpe(tokenizer->bpe, text, length, -1, count, error);
    return encode_characters(tokenizer, text, length, count, error);
}

int32_t *tokenizer_encode_prompt(const Tokenizer *tokenizer, const char *text, size_t length, int64_t *count, char error[ERROR_SIZE]) {
    if (tokenizer->bpe) return encode_bpe(tokenizer->bpe, text, length, bpe_first(tokenizer->bpe), count, error);
    return encode_characters(tokenizer, text, length, count, error);
}

const char *tokenizer_token(const Tokenizer *tokenizer, int32_t token, size_t *length) {
    if (tokenizer->bpe) return bpe_token(tokenizer->bpe, token, length);
    if (token < 0 || token >= tokenizer->count) return NULL;
    *length = strlen(tokenizer->bytes[token]);
    return tokenizer->bytes[token];
}
