/* shard.c: see shard.h. */
#include "shard.h"
#include "error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER_BYTES = 256 * 4, WRITE_BLOCK = 4096 };

static const struct { uint32_t magic, version; int width; } formats[] = {{20240520, 1, 2}, {20240801, 7, 4}};

/* Files are little-endian whatever the machine is; compilers turn these into single instructions. */
static uint32_t read_u32(const unsigned char *at) { return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24; }

static void store(unsigned char *at, uint32_t value, int width) {
    for (int i = 0; i < width; i++) at[i] = (unsigned char)(value >> 8 * i);
}

int32_t shard_token(const Shard *shard, int64_t index) {
    const unsigned char *at = shard->tokens + index * shard->width;
    return shard->width == 2 ? at[0] | at[1] << 8 : (int32_t)read_u32(at);
}

int64_t shard_find(const Shard *shard, int32_t token, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++)
        if (shard_token(shard, i) == token) return i;
    return -1;
}

static bool parse_header(Shard *shard, const unsigned char *data, size_t size, const char *path, int format, char error[ERROR_SIZE]) {
    if (size < HEADER_BYTES)
        return file_error(error, "'%s' is cut off: it has %zu bytes, fewer than the %d of a shard's header", path, size, HEADER_BYTES);
    uint32_t version = read_u32(data + 4), known = formats[format].version;
    if (version != known)
        return file_error(error, "'%s' is a token shard of version %" PRIu32 ", where only %" PRIu32 " is known", path, version, known);
    int64_t count = (int32_t)read_u32(data + 8);
    size_t bytes = size - HEADER_BYTES;
    int width = formats[format].width;
    if (count <= 0) return file_error(error, "'%s' holds no tokens: its header counts %" PRId64, path, count);
    if (bytes != (uint64_t)count * width)
        return file_error(error, "'%s' is damaged: its header counts %" PRId64 " tokens (%" PRIu64 " bytes), but %zu bytes follow it; "
                          "copy or prepare it again", path, count, (uint64_t)count * width, bytes);
    *shard = (Shard){ .tokens = data + HEADER_BYTES, .width = width, .count = count };
    return true;
}

bool shard_parse(Shard *shard, const void *data, size_t size, const char *path, bool headerless, char error[ERROR_SIZE]) {
    *shard = (Shard){ 0 };
    if (size == 0) return file_error(error, "'%s' is empty, where a token shard is needed", path);
    uint32_t magic = size >= 4 ? read_u32(data) : 0;
    for (int format = 0; format < 2; format++)
        if (magic == formats[format].magic) return parse_header(shard, data, size, path, format, error);
    if (!headerless)
        return file_error(error, "'%s' is no token shard (it begins with %" PRIu32 ", not with 20240520 or 20240801); if it is a "
                          "headerless file of nanoGPT, give --vocab-size or run data/nanogpt_meta.py on its directory; text is prepared by "
                          "data/prepare.sh", path, magic);
    if (size % 2) return file_error(error, "'%s' is no file of uint16 tokens: it has an odd number of bytes, %zu", path, size);
    *shard = (Shard){ .tokens = data, .width = 2, .headerless = true, .count = size / 2 };
    return true;
}

/* Advice on bytes [from, to) of a map. It changes the pace alone, so nothing is lost if the system does not take it. */
static void advise(const FileMap *map, size_t from, size_t to, int advice) {
    from -= from % (size_t)sysconf(_SC_PAGESIZE);
    if (to > from) madvise((void *)(map->data + from), to - from, advice);
}

void shard_read_around(const Shard *shard, bool wanted) { advise(&shard->map, 0, shard->map.size, wanted ? MADV_NORMAL : MADV_RANDOM); }

void shard_will_read(const Shard *shard, int64_t from, int64_t n) {
    size_t first = shard->tokens - shard->map.data;
    advise(&shard->map, first + from * shard->width, first + (from + n) * shard->width, MADV_WILLNEED);
}

/* Maps the file into *shard, path apart. */
static bool open_map(Shard *shard, const char *path, bool headerless, char error[ERROR_SIZE]) {
    FileMap map;
    *shard = (Shard){ 0 };
    if (!file_map(&map, path, error)) return false;
    advise(&map, 0, map.size, MADV_RANDOM);
    if (!shard_parse(shard, map.data, map.size, path, headerless, error)) {
        file_unmap(&map);
        return false;
    }
    shard->map = map;
    return true;
}

bool shard_open(Shard *shard, const char *path, bool headerless, char error[ERROR_SIZE]) {
    if (!open_map(shard, path, headerless, error)) return false;
    shard->path = xstrdup(path);
    return true;
}

void shard_unmap(Shard *shard) {
    file_unmap(&shard->map);
    shard->tokens = NULL;
}

bool shard_map(Shard *shard, char error[ERROR_SIZE]) {
    Shard now;
    if (shard->tokens) return true;
    if (!open_map(&now, shard->path, shard->headerless, error)) return false;
    if (now.count != shard->count || now.width != shard->width) {
        shard_unmap(&now);
        return file_error(error, "'%s' has changed while it was in use: it held %" PRId64 " tokens of %d bytes, and now holds %" PRId64
                          " of %d; start again", shard->path, shard->count, shard->width, now.count, now.width);
    }
    now.path = shard->path;
    *shard = now;
    return true;
}

void shard_close(Shard *shard) {
    file_unmap(&shard->map);
    free(shard->path);
    *shard = (Shard){ 0 };
}

/* ---- Writing ---- */

struct ShardWriter {
    FileWriter *file;
    int64_t vocab_size, count;
    int format;
};

static void make_header(unsigned char header[HEADER_BYTES], const ShardWriter *writer) {
    memset(header, 0, HEADER_BYTES);
    store(header, formats[writer->format].magic, 4);
    store(header + 4, formats[writer->format].version, 4);
    store(header + 8, (uint32_t)writer->count, 4);
}

ShardWriter *shard_writer_open(const char *path, int64_t vocab_size) {
    unsigned char header[HEADER_BYTES];
    ShardWriter *writer = xcalloc(1, sizeof *writer);
    *writer = (ShardWriter){ file_create(path), vocab_size, 0, vocab_size > 65536 };
    make_header(header, writer);
    file_write(writer->file, header, sizeof header);
    return writer;
}

bool shard_writer_append(ShardWriter *writer, const int32_t *tokens, int64_t count, char error[ERROR_SIZE]) {
    unsigned char block[WRITE_BLOCK];
    int width = formats[writer->format].width;
    CHECK(count <= INT32_MAX - writer->count);
    size_t used = 0;
    for (int64_t i = 0; i < count; i++) {
        CHECK(tokens[i] < writer->vocab_size && tokens[i] >= (width == 4 ? -1 : 0));
        store(block + used, (uint32_t)tokens[i], width);
        used += width;
        if (used == sizeof block || i == count - 1) {
            file_write(writer->file, block, used);
            used = 0;
        }
    }
    writer->count += count;
    return file_good(writer->file, error);
}

bool shard_writer_close(ShardWriter *writer, char error[ERROR_SIZE]) {
    unsigned char header[HEADER_BYTES];
    CHECK(writer->count > 0);
    make_header(header, writer);
    file_overwrite(writer->file, 0, header, sizeof header);
    bool good = file_close(writer->file, NULL, error);
    free(writer);
    return good;
}

void shard_writer_discard(ShardWriter *writer) {
    file_discard(writer->file);
    free(writer);
}

bool shard_write(const char *path, const int32_t *tokens, int64_t count, int64_t vocab_size, char error[ERROR_SIZE]) {
    if (count < 1 || count > INT32_MAX)
        return file_error(error, "cannot write %" PRId64 " tokens to '%s': a shard holds 1 to %d", count, path, INT32_MAX);
    ShardWriter *writer = shard_writer_open(path, vocab_size);
    shard_writer_append(writer, tokens, count, error);
    return shard_writer_close(writer, error);
}
