/* documents.c: see documents.h. */
#define _GNU_SOURCE   /* memrchr */
#include "documents.h"
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STRETCH_BYTES = 1 << 20 };

static const char *const separators[] = { "<|endoftext|>" };
enum { SEPARATOR_BYTES = 13 };

/* ---- Files ---- */

static bool ends_in(const char *name, const char *end) {
    size_t length = strlen(name), n = strlen(end);
    return length > n && strcmp(name + length - n, end) == 0;
}

static bool has_lines(const char *name) { return strcmp(name, "-") == 0 || ends_in(name, ".jsonl"); }

static bool check_file(const char *name, char error[ERROR_SIZE]) {
    if (!has_lines(name) && !ends_in(name, ".txt"))
        return file_error(error, "'%s' is neither NAME.txt nor NAME.jsonl, nor - for JSON lines on standard input; data/README.md says how "
                          "to turn other files into these", name);
    if (strcmp(name, "-") != 0 && access(name, R_OK) != 0) return file_error(error, "cannot open '%s': %s", name, strerror(errno));
    return path_is_directory(name) ? file_error(error, "'%s' is a directory, where a file is needed", name) : true;
}

bool documents_open(DocumentReader *reader, const char *const *files, int64_t file_count, const char *field, const Bpe *bpe,
                    char error[ERROR_SIZE]) {
    *reader = (DocumentReader){ .files = files, .file_count = file_count, .field = field, .bpe = bpe, .stretch_bytes = STRETCH_BYTES };
    for (int64_t i = 0; i < file_count; i++)
        if (!check_file(files[i], error)) return false;
    return specials_init(&reader->separator, separators, 1, error);
}

static void close_file(DocumentReader *reader) {
    if (reader->open) text_reader_close(&reader->reader);
    reader->open = false;
}

void documents_close(DocumentReader *reader) {
    close_file(reader);
    specials_free(&reader->separator);
}

/* ---- Stretches ---- */

static size_t cut_lines(const void *context, const char *text, size_t length) {
    (void)context;
    const char *newline = memrchr(text, '\n', length);
    return newline ? (size_t)(newline - text) + 1 : 0;
}

static size_t cut_part(const void *bpe, const char *text, size_t length) {
    static const Pretokenization any = PRETOKENS_GPT2;
    return bpe ? bpe_cut(bpe, text, length, false) : pretoken_cut(&any, text, length);
}

static size_t cut_text(const void *context, const char *text, size_t length) {
    const DocumentReader *reader = context;
    return specials_cut(&reader->separator, cut_part, reader->bpe, text, length);
}

static bool open_next(DocumentReader *reader, char error[ERROR_SIZE]) {
    const char *name = reader->files[reader->next_file++];
    reader->lines = has_lines(name);
    reader->fresh = true;
    reader->separated = false;
    reader->line = 1;
    TextCut cut = reader->lines ? cut_lines : cut_text;
    reader->open = text_reader_open(&reader->reader, name, reader->stretch_bytes, cut, reader, error);
    return reader->open;
}

static int64_t newlines(const ByteBuffer *text) {
    int64_t count = 0;
    for (const char *at = text->bytes, *end = at + text->count; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++) count++;
    return count;
}

/* Says where the stretch stands, and where the next one will. */
static void place(DocumentReader *reader, Stretch *stretch) {
    const ByteBuffer *text = &stretch->text;
    stretch->file = reader->next_file - 1;
    stretch->name = reader->reader.name;
    stretch->field = reader->field;
    stretch->separator = &reader->separator;
    stretch->lines = reader->lines;
    stretch->fresh = reader->fresh;
    stretch->separated = reader->separated;
    stretch->line = reader->line;
    if (reader->lines) reader->line += newlines(text);
    /* A stretch cuts no separator, and no separator ends with the beginning of another. */
    reader->fresh = reader->separated =
        text->count >= SEPARATOR_BYTES && memcmp(text->bytes + text->count - SEPARATOR_BYTES, separators[0], SEPARATOR_BYTES) == 0;
}

bool documents_read(DocumentReader *reader, Stretch *stretch) {
    stretch->error[0] = 0;
    stretch->at = 0;
    do {
        if (reader->open && reader->reader.ended) close_file(reader);
        if (!reader->open && reader->next_file == reader->file_count) return false;
        if ((!reader->open && !open_next(reader, stretch->error)) || !text_reader_next(&reader->reader, &stretch->text, stretch->error)) {
            byte_buffer_clear(&stretch->text, 0);
            close_file(reader);
            reader->next_file = reader->file_count;
            return true;
        }
    } while (stretch->text.count == 0);
    place(reader, stretch);
    return true;
}

void stretch_free(Stretch *stretch) {
    json_free(stretch->json);
    byte_buffer_free(&stretch->text);
    *stretch = (Stretch){ 0 };
}

/* ---- Parts ---- */

/* Bytes of the newline that text begins with, or 0. No stretch ends between its two. */
static size_t newline_at(const char *text, size_t length) {
    if (length > 0 && text[0] == '\n') return 1;
    return length > 1 && text[0] == '\r' && text[1] == '\n' ? 2 : 0;
}

static PartResult next_text(Stretch *stretch, DocumentPart *part) {
    const ByteBuffer *text = &stretch->text;
    while (stretch->at < text->count) {
        size_t size;
        if (stretch->separated) stretch->at += newline_at(text->bytes + stretch->at, text->count - stretch->at);
        const char *from = text->bytes + stretch->at;
        size_t length = specials_find(stretch->separator, from, text->count - stretch->at, &size);
        *part = (DocumentPart){ from, length, stretch->fresh };
        stretch->at += length + size;
        stretch->fresh = stretch->separated = size > 0;
        if (length > 0) return PART;
    }
    return PARTS_END;
}

static bool is_blank(const char *line, size_t length) {
    while (length > 0 && (line[length - 1] == ' ' || line[length - 1] == '\t' || line[length - 1] == '\r')) length--;
    return length == 0;
}

/* The value of \uXXXX at `at`, or -1. */
static int32_t escape_at(const char *at, const char *end) {
    char digits[5] = { 0 };
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') return -1;
    memcpy(digits, at + 2, 4);
    return strspn(digits, "0123456789abcdefABCDEF") == 4 ? (int32_t)strtol(digits, NULL, 16) : -1;
}

/* What other programs write, but stands for no character: NUL, and half of a surrogate pair. */
static void mend_escapes(char *line, size_t length) {
    const char *end = line + length;
    for (char *at = line; at < end && (at = memchr(at, '\\', (size_t)(end - at)));) {
        int32_t code = escape_at(at, end), next = code >= 0 ? escape_at(at + 6, end) : -1;
        bool high = code >= 0xD800 && code < 0xDC00, low = code >= 0xDC00 && code < 0xE000, pair = high && next >= 0xDC00 && next < 0xE000;
        if (code == 0 || ((high || low) && !pair)) memcpy(at + 2, "FFFD", 4);
        at += pair ? 12 : code >= 0 ? 6 : 2;
    }
}

/* The text of a line's document, which is the stretch's until the next one; NULL with why there is none. */
static const char *document_of_line(Stretch *stretch, char *line, size_t length, char error[ERROR_SIZE]) {
    char cause[ERROR_SIZE / 2];
    mend_escapes(line, length);
    json_free(stretch->json);
    stretch->json = json_parse(line, length, cause, sizeof cause);
    const char *text = json_get_string(stretch->json, stretch->field);
    if (text) return text;
    const char *column = stretch->json ? NULL : strstr(cause, "column");   /* the line it names is always the first */
    if (column) file_error(error, "%s, line %" PRId64 ", %s", stretch->name, stretch->line, column);
    else file_error(error, "%s, line %" PRId64 ": there is no text under \"%s\"; --field names another", stretch->name, stretch->line,
                    stretch->field);
    return NULL;
}

static PartResult next_line(Stretch *stretch, DocumentPart *part, char error[ERROR_SIZE]) {
    const ByteBuffer *text = &stretch->text;
    for (; stretch->at < text->count; stretch->line++) {
        char *line = text->bytes + stretch->at, *newline = memchr(line, '\n', text->count - stretch->at);
        size_t length = newline ? (size_t)(newline - line) : text->count - stretch->at;
        stretch->at += length + (newline != NULL);
        if (is_blank(line, length)) continue;
        const char *document = document_of_line(stretch, line, length, error);
        if (document && !*document) continue;
        stretch->line++;
        if (!document) return PART_BAD;
        *part = (DocumentPart){ document, strlen(document), true };
        return PART;
    }
    return PARTS_END;
}

PartResult stretch_next(Stretch *stretch, DocumentPart *part, char error[ERROR_SIZE]) {
    return stretch->lines ? next_line(stretch, part, error) : next_text(stretch, part);
}
