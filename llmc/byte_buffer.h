/* byte_buffer.h: bytes growing at the end. */
#ifndef LLMC_BYTE_BUFFER_H
#define LLMC_BYTE_BUFFER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char *bytes;
    size_t count, capacity;
} ByteBuffer;

/* Makes room for so many more. */
void byte_buffer_reserve(ByteBuffer *buffer, size_t more);
void byte_buffer_append(ByteBuffer *buffer, const void *bytes, size_t count);
/* Empties it, and gives the memory back if it has more room than `most`. */
void byte_buffer_clear(ByteBuffer *buffer, size_t most);
void byte_buffer_free(ByteBuffer *buffer);

#ifdef __cplusplus
}
#endif
#endif
