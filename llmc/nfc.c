/* nfc.c: see nfc.h. No character below U+0300 changes, nor does it join the one before it: only stretches with others are given to the library,
   from the character before to the next ASCII. */
#include "nfc.h"
#include "error.h"
#include "utf8.h"

#include <stdlib.h>

#ifdef USE_UTF8PROC

#include <utf8proc.h>

enum { KEPT_BYTES = 8 << 20, FIRST_THAT_CHANGES = 0xCC };   /* U+0300 begins with that byte */

bool nfc_available(char error[ERROR_SIZE]) {
    (void)error;
    return true;
}

static uint64_t class_of(int32_t code) { return (uint64_t)utf8proc_get_property(code)->combining_class; }

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Marks in the order of their classes, those of one class as they stand: the canonical order. */
static void sort_marks(int32_t *codes, size_t count) {
    enum { CODE_BITS = 21, PLACE_BITS = 35 };
    uint64_t *keys = xmalloc(count * sizeof *keys);
    for (size_t i = 0; i < count; i++) keys[i] = class_of(codes[i]) << (PLACE_BITS + CODE_BITS) | (uint64_t)i << CODE_BITS | (uint64_t)codes[i];
    qsort(keys, count, sizeof *keys, by_number);
    for (size_t i = 0; i < count; i++) codes[i] = (int32_t)(keys[i] & ((1 << CODE_BITS) - 1));
    free(keys);
}

/* The library would do it too, but in a time that is quadratic in the marks behind one letter. */
static void order_marks(int32_t *codes, size_t count) {
    for (size_t start = 0, end; start < count; start = end + 1) {
        bool ordered = true;
        for (end = start; end < count && class_of(codes[end]) > 0; end++)
            ordered = ordered && (end == start || class_of(codes[end - 1]) <= class_of(codes[end]));
        if (!ordered) sort_marks(codes + start, end - start);
    }
}

static void append_normal(ByteBuffer *buffer, const char *text, size_t length) {
    static const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    size_t room = 2 * length, count = 0, size;   /* no character becomes more than three for two bytes, or one for one */
    int32_t *codes = xmalloc((room + 1) * sizeof *codes);
    for (size_t at = 0; at < length; at += size) {
        int unused = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char(utf8_decode(text + at, length - at, &size), codes + count,
                                                     (utf8proc_ssize_t)(room - count), options, &unused);
        CHECK(n >= 0 && (size_t)n <= room - count);
        count += (size_t)n;
    }
    order_marks(codes, count);
    utf8proc_ssize_t bytes = utf8proc_reencode(codes, (utf8proc_ssize_t)count, options);
    CHECK(bytes >= 0);
    byte_buffer_append(buffer, codes, (size_t)bytes);
    free(codes);
}

/* Stretches of UTF-8 normalised, the bytes between them as they are. */
static void append_stretch(ByteBuffer *buffer, const char *text, size_t length) {
    for (size_t at = 0, end = 0, size; at < length; at = end) {
        while (end < length && utf8_decode(text + end, length - end, &size) >= 0) end += size;
        if (end > at) append_normal(buffer, text + at, end - at);
        if (end < length) byte_buffer_append(buffer, text + end++, 1);
    }
}

static size_t first_that_changes(const char *text, size_t at, size_t length) {
    while (at < length && (unsigned char)text[at] < FIRST_THAT_CHANGES) at++;
    return at;
}

const char *nfc(const char *text, size_t *length, ByteBuffer *buffer) {
    size_t at = 0, change = first_that_changes(text, 0, *length), start, end;
    if (change == *length) return text;
    byte_buffer_clear(buffer, KEPT_BYTES);
    for (; change < *length; at = end, change = first_that_changes(text, at, *length)) {
        for (start = change; start > at && ((unsigned char)text[--start] & 0xC0) == 0x80;) continue;
        for (end = change; end < *length && (unsigned char)text[end] >= 0x80;) end++;
        byte_buffer_append(buffer, text + at, start - at);
        append_stretch(buffer, text + start, end - start);
    }
    byte_buffer_append(buffer, text + at, *length - at);
    *length = buffer->count;
    return buffer->bytes;
}

#else

bool nfc_available(char error[ERROR_SIZE]) {
    return file_error(error, "this build has no Unicode normal form C, which the vocabulary needs, because utf8proc was missing: install "
                             "libutf8proc-dev and run make again");
}

const char *nfc(const char *text, size_t *length, ByteBuffer *buffer) {
    (void)length, (void)buffer;
    return text;
}

#endif
