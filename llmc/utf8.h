/* utf8.h: UTF-8 (RFC 3629), one character at a time. */
#ifndef LLMC_UTF8_H
#define LLMC_UTF8_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CODE_POINTS = 0x110000 };

/* The code point that text[length] begins with, and its bytes in *size; -1 if that is no UTF-8: nothing at all, truncated, overlong,
   a surrogate, or beyond U+10FFFF. */
int32_t utf8_decode(const char *text, size_t length, size_t *size);
/* The bytes of a code point, NUL-terminated; returns how many. */
size_t utf8_encode(int32_t code, char bytes[5]);

#ifdef __cplusplus
}
#endif
#endif
