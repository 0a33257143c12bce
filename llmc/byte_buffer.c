/* byte_buffer.c: see byte_buffer.h. */
#include "byte_buffer.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

void byte_buffer_reserve(ByteBuffer *buffer, size_t more) {
    if (buffer->capacity - buffer->count >= more) return;
    size_t doubled = 2 * buffer->capacity, needed = buffer->count + more;
    buffer->capacity = doubled > needed ? doubled : needed;
    buffer->bytes = xrealloc(buffer->bytes, buffer->capacity);
}

void byte_buffer_append(ByteBuffer *buffer, const void *bytes, size_t count) {
    if (count == 0) return;
    byte_buffer_reserve(buffer, count);
    memcpy(buffer->bytes + buffer->count, bytes, count);
    buffer->count += count;
}

void byte_buffer_clear(ByteBuffer *buffer, size_t most) {
    buffer->count = 0;
    if (buffer->capacity > most) byte_buffer_free(buffer);
}

void byte_buffer_free(ByteBuffer *buffer) {
    free(buffer->bytes);
    *buffer = (ByteBuffer){ 0 };
}
