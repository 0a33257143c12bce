/* text_reader.c: see text_reader.h. */
#include "text_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

bool text_reader_open(TextReader *reader, const char *path, size_t piece_bytes, TextCut cut, const void *context, char error[ERROR_SIZE]) {
    bool standard = !path || strcmp(path, "-") == 0;
    *reader = (TextReader){ .name = standard ? "standard input" : path, .piece_bytes = piece_bytes, .cut = cut, .context = context };
    reader->descriptor = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    return reader->descriptor >= 0 || file_error(error, "cannot open '%s': %s", path, strerror(errno));
}

void text_reader_close(TextReader *reader) {
    if (reader->descriptor > STDIN_FILENO) close(reader->descriptor);
    byte_buffer_free(&reader->rest);
}

/* Until the piece has so many bytes, or the end. */
static bool fill(TextReader *reader, ByteBuffer *piece, size_t bytes, char error[ERROR_SIZE]) {
    if (piece->count < bytes) byte_buffer_reserve(piece, bytes - piece->count);
    while (piece->count < bytes && !reader->ended) {
        ssize_t n = read(reader->descriptor, piece->bytes + piece->count, bytes - piece->count);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return file_error(error, "cannot read '%s': %s", reader->name, strerror(errno));
        piece->count += (size_t)n;
        reader->ended = n == 0;
    }
    return true;
}

bool text_reader_next(TextReader *reader, ByteBuffer *piece, char error[ERROR_SIZE]) {
    size_t cut = 0, most = 4 * reader->piece_bytes;
    byte_buffer_clear(piece, most);
    byte_buffer_append(piece, reader->rest.bytes, reader->rest.count);
    byte_buffer_clear(&reader->rest, most);
    for (size_t bytes = piece->count + reader->piece_bytes; cut == 0 && !reader->ended; bytes *= 2) {
        if (!fill(reader, piece, bytes, error)) return false;
        cut = reader->ended ? piece->count : reader->cut(reader->context, piece->bytes, piece->count);
    }
    if (reader->ended) return true;
    byte_buffer_append(&reader->rest, piece->bytes + cut, piece->count - cut);
    piece->count = cut;
    return true;
}
