/* utf8_repair.c: see utf8_repair.h. */
#include "utf8_repair.h"

#include <stdbool.h>
#include <string.h>

/* Bytes of the character that begins with this one, 0 if none does. */
static int size_of(unsigned char first) {
    return first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
}

/* Whether `byte` may be byte number `index` (from 1) of a character that begins with `first`: table 3-7 of the standard. */
static bool may_follow(unsigned char first, int index, unsigned char byte) {
    unsigned char low = 0x80, high = 0xBF;
    if (index == 1) {
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
    }
    return byte >= low && byte <= high;
}

void utf8_repair_end(Utf8Repair *repair, ByteBuffer *out) {
    if (repair->count > 0) byte_buffer_append(out, "\xEF\xBF\xBD", 3);
    repair->count = 0;
}

static void add_byte(Utf8Repair *repair, char byte, ByteBuffer *out) {
    if (repair->count > 0 && !may_follow((unsigned char)repair->bytes[0], repair->count, (unsigned char)byte)) utf8_repair_end(repair, out);
    repair->bytes[repair->count++] = byte;
    int size = size_of((unsigned char)repair->bytes[0]);
    if (size == 0) {
        utf8_repair_end(repair, out);
    } else if (repair->count == size) {
        byte_buffer_append(out, repair->bytes, (size_t)size);
        repair->count = 0;
    }
}

void utf8_repair(Utf8Repair *repair, const char *text, size_t length, ByteBuffer *out) {
    for (size_t at = 0, end; at < length; at = end) {
        for (end = at; repair->count == 0 && end < length && (unsigned char)text[end] < 0x80;) end++;
        byte_buffer_append(out, text + at, end - at);
        if (end < length) add_byte(repair, text[end++], out);
    }
}
