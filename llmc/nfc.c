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

static void append_normal(ByteBuffer *buffer, const char *text, size_t length) {
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t count = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (count < 0) die("normalising %zu bytes of text failed: %s", length, utf8proc_errmsg(count));
    byte_buffer_append(buffer, normal, (size_t)count);
    free(normal);
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
