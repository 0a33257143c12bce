/* utf8_repair.h: any bytes made UTF-8, as they come: what is not UTF-8 becomes U+FFFD, one for each maximal part of a character (Unicode
   15, 3.9), as Python's errors="replace" has it. */
#ifndef LLMC_UTF8_REPAIR_H
#define LLMC_UTF8_REPAIR_H

#include "byte_buffer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All zero to begin with. */
typedef struct {
    char bytes[4];      /* of a character that is not whole yet */
    int count;
} Utf8Repair;

/* Appends text[length] to out, but for the beginning of a character at its end, which waits for the next call. */
void utf8_repair(Utf8Repair *repair, const char *text, size_t length, ByteBuffer *out);
/* At the end of the text. */
void utf8_repair_end(Utf8Repair *repair, ByteBuffer *out);

#ifdef __cplusplus
}
#endif
#endif
