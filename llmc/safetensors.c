/* safetensors.c: see safetensors.h. */
#include "safetensors.h"
#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MAX_HEADER_BYTES = 100000000;   /* the limit of the reference implementation */
static const char METADATA[] = "__metadata__";

static const struct {
    const char *name;
    int64_t bytes;
} DTYPES[] = { [ST_F32] = { "F32", 4 }, [ST_F16] = { "F16", 2 }, [ST_BF16] = { "BF16", 2 },
               [ST_I32] = { "I32", 4 }, [ST_I64] = { "I64", 8 }, [ST_U8] = { "U8", 1 },
               [ST_BOOL] = { "BOOL", 1 } };
enum { DTYPE_COUNT = sizeof DTYPES / sizeof DTYPES[0] };

/* ---- Reading ---- */

static bool parse_dtype(const Json *tensor, SafetensorsDType *dtype, const char *path, char error[ERROR_SIZE]) {
    const char *name = json_get_string(tensor, "dtype");
    for (int i = 0; name && i < DTYPE_COUNT; i++) {
        *dtype = (SafetensorsDType)i;
        if (strcmp(name, DTYPES[i].name) == 0) return true;
    }
    return file_error(error, "'%s': the tensor '%.100s' has %s%.20s, where F32, F16, BF16, I32, I64, U8 or BOOL is needed", path, tensor->key,
                      name ? "dtype " : "no dtype", name ? name : "");
}

/* Fills rank, shape and bytes. */
static bool parse_shape(const Json *tensor, SafetensorsEntry *entry, const char *path, char error[ERROR_SIZE]) {
    const Json *shape = json_get(tensor, "shape");
    if (!shape || shape->type != JSON_ARRAY) return file_error(error, "'%s': the tensor '%.100s' has no shape", path, tensor->key);
    if (shape->count > SAFETENSORS_MAX_RANK)
        return file_error(error, "'%s': the tensor '%.100s' has %zu dimensions, more than %d", path, tensor->key, shape->count,
                          SAFETENSORS_MAX_RANK);
    int64_t bytes = DTYPES[entry->dtype].bytes;
    entry->rank = (int)shape->count;
    for (int i = 0; i < entry->rank; i++) {
        int64_t *size = &entry->shape[i];
        if (!json_integer(&shape->items[i], size) || *size < 0 || __builtin_mul_overflow(bytes, *size, &bytes))
            return file_error(error, "'%s': dimension %d of the tensor '%.100s' is not a possible size", path, i, tensor->key);
    }
    entry->bytes = bytes;
    return true;
}

static bool parse_entry(const Json *tensor, SafetensorsEntry *entry, const unsigned char *data, uint64_t data_bytes, const char *path,
                        char error[ERROR_SIZE]) {
    entry->name = tensor->key;
    if (!parse_dtype(tensor, &entry->dtype, path, error) || !parse_shape(tensor, entry, path, error)) return false;
    const Json *offsets = json_get(tensor, "data_offsets");
    int64_t begin, end;
    if (!offsets || offsets->type != JSON_ARRAY || offsets->count != 2 || !json_integer(&offsets->items[0], &begin) ||
        !json_integer(&offsets->items[1], &end) || begin < 0 || end < begin)
        return file_error(error, "'%s': the tensor '%.100s' has no valid data_offsets", path, tensor->key);
    if ((uint64_t)end > data_bytes)
        return file_error(error, "'%s' is truncated: the tensor '%.100s' ends at byte %lld of the data, of which there are %llu", path,
                          tensor->key, (long long)end, (unsigned long long)data_bytes);
    if ((size_t)(end - begin) != entry->bytes)
        return file_error(error, "'%s': the tensor '%.100s' has %lld bytes of data, where its shape asks for %zu", path, tensor->key,
                          (long long)(end - begin), entry->bytes);
    entry->data = data + begin;
    return true;
}

static bool check_metadata(const Json *metadata, const char *path, char error[ERROR_SIZE]) {
    bool good = metadata->type == JSON_OBJECT;
    for (size_t i = 0; good && i < metadata->count; i++) good = metadata->items[i].type == JSON_STRING;
    return good || file_error(error, "'%s': %s must be an object of strings", path, METADATA);
}

/* By place; tensors without data share theirs with a neighbour, and go before it. */
static int compare_places(const void *left, const void *right) {
    const SafetensorsEntry *a = left, *b = right;
    if (a->data != b->data) return (const char *)a->data < (const char *)b->data ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* The tensors must fill the data without holes or overlaps: nothing hidden in a file, and nothing read twice. */
static bool check_places(const Safetensors *st, const unsigned char *data, uint64_t data_bytes, const char *path, char error[ERROR_SIZE]) {
    const unsigned char *expected = data;
    for (size_t i = 0; i < st->count; i++) {
        const SafetensorsEntry *entry = &st->entries[i];
        if (entry->data != expected)
            return file_error(error, "'%s': the data of the tensor '%.100s' begins at byte %lld, where %lld was expected: %s", path,
                              entry->name, (long long)((const unsigned char *)entry->data - data), (long long)(expected - data),
                              (const unsigned char *)entry->data < expected ? "it overlaps another" : "there is a hole");
        expected += entry->bytes;
    }
    uint64_t used = expected - data;
    if (used != data_bytes)
        return file_error(error, "'%s' has %llu bytes of data, where its tensors take %llu", path, (unsigned long long)data_bytes,
                          (unsigned long long)used);
    return true;
}

static bool parse_tensors(Safetensors *st, const unsigned char *data, uint64_t data_bytes, const char *path, char error[ERROR_SIZE]) {
    const Json *header = st->header;
    if (header->type != JSON_OBJECT) return file_error(error, "'%s': the header is not a JSON object", path);
    st->entries = xcalloc(header->count, sizeof *st->entries);
    for (size_t i = 0; i < header->count; i++) {
        const Json *item = &header->items[i];
        if (strcmp(item->key, METADATA) == 0) {
            if (!check_metadata(item, path, error)) return false;
        } else if (!parse_entry(item, &st->entries[st->count++], data, data_bytes, path, error)) {
            return false;
        }
    }
    qsort(st->entries, st->count, sizeof *st->entries, compare_places);
    return check_places(st, data, data_bytes, path, error);
}

bool safetensors_parse(Safetensors *st, const void *data, size_t size, const char *path, char error[ERROR_SIZE]) {
    *st = (Safetensors){ 0 };
    const unsigned char *bytes = data;
    uint64_t header_bytes = 0;
    if (size < 8) return file_error(error, "'%s' has %zu bytes: too short for a safetensors file", path, size);
    for (int i = 0; i < 8; i++) header_bytes |= (uint64_t)bytes[i] << 8 * i;
    if (header_bytes > MAX_HEADER_BYTES)
        return file_error(error, "'%s' is not a safetensors file: its header would have %llu bytes, more than %llu", path,
                          (unsigned long long)header_bytes, (unsigned long long)MAX_HEADER_BYTES);
    if (header_bytes > size - 8)
        return file_error(error, "'%s' is truncated: the header has %llu bytes, of which %zu are there", path,
                          (unsigned long long)header_bytes, size - 8);
    char problem[256];
    st->header = json_parse((const char *)bytes + 8, header_bytes, problem, sizeof problem);
    if (!st->header) return file_error(error, "'%s': the header is not valid JSON: %s", path, problem);
    if (parse_tensors(st, bytes + 8 + header_bytes, size - 8 - header_bytes, path, error)) return true;
    safetensors_close(st);
    return false;
}

bool safetensors_open(Safetensors *st, const char *path, char error[ERROR_SIZE]) {
    FileMap map;
    *st = (Safetensors){ 0 };
    if (!file_map(&map, path, error)) return false;
    bool good = safetensors_parse(st, map.data, map.size, path, error);
    if (good) st->map = map;
    else file_unmap(&map);
    return good;
}

void safetensors_close(Safetensors *st) {
    json_free(st->header);
    free(st->entries);
    file_unmap(&st->map);
    *st = (Safetensors){ 0 };
}

const SafetensorsEntry *safetensors_find(const Safetensors *st, const char *name) {
    for (size_t i = 0; i < st->count; i++)
        if (strcmp(st->entries[i].name, name) == 0) return &st->entries[i];
    return NULL;
}

const char *safetensors_metadata(const Safetensors *st, const char *key) { return json_get_string(json_get(st->header, METADATA), key); }

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16 to float: always exact. */
static float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3FF;
    if (exponent == 31) return float_of_bits(sign | 0x7F800000 | mantissa << 13);
    if (exponent > 0) return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

/* The first of n elements from `offset` on. */
static const unsigned char *element(const SafetensorsEntry *entry, int64_t offset, int64_t n) {
    int64_t size = DTYPES[entry->dtype].bytes, count = (int64_t)entry->bytes / size;
    CHECK(offset >= 0 && n >= 0 && offset <= count && n <= count - offset);
    return (const unsigned char *)entry->data + offset * size;
}

void safetensors_read_floats(const SafetensorsEntry *entry, int64_t offset, int64_t n, float *out) {
    const unsigned char *at = element(entry, offset, n);
    CHECK(entry->dtype == ST_F32 || entry->dtype == ST_F16 || entry->dtype == ST_BF16);
    if (n == 0) return;
    if (entry->dtype == ST_F32) {
        memcpy(out, at, n * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, at + 2 * i, 2);
        out[i] = entry->dtype == ST_BF16 ? float_of_bits((uint32_t)half << 16) : float_of_half(half);
    }
}

void safetensors_read_integers(const SafetensorsEntry *entry, int64_t offset, int64_t n, int64_t *out) {
    const unsigned char *at = element(entry, offset, n);
    CHECK(entry->dtype >= ST_I32);
    for (int64_t i = 0; i < n; i++) {
        int32_t word;
        if (entry->dtype == ST_I64) {
            memcpy(&out[i], at + 8 * i, 8);
        } else if (entry->dtype == ST_I32) {
            memcpy(&word, at + 4 * i, 4);
            out[i] = word;
        } else {
            out[i] = at[i];
        }
    }
}

/* ---- Writing ---- */

struct SafetensorsWriter {
    FileWriter *file;
    FILE *metadata, *tensors;                 /* the two parts of the header, growing in memory */
    char *metadata_text, *tensors_text;
    size_t metadata_bytes, tensors_bytes;
    int64_t declared, written;                /* bytes of data */
    bool begun;
};

SafetensorsWriter *safetensors_create(const char *path) {
    SafetensorsWriter *w = xcalloc(1, sizeof *w);
    w->file = file_create(path);
    w->metadata = open_memstream(&w->metadata_text, &w->metadata_bytes);
    w->tensors = open_memstream(&w->tensors_text, &w->tensors_bytes);
    CHECK(w->metadata && w->tensors);
    return w;
}

/* "key": or ,"key": */
static void write_key(FILE *stream, const char *key) {
    if (ftell(stream) > 0) putc(',', stream);
    json_write_string(stream, key);
    putc(':', stream);
}

void safetensors_declare_metadata(SafetensorsWriter *w, const char *key, const char *value) {
    CHECK(!w->begun);
    write_key(w->metadata, key);
    json_write_string(w->metadata, value);
}

void safetensors_declare(SafetensorsWriter *w, const char *name, SafetensorsDType dtype, int rank, const int64_t *shape) {
    CHECK(!w->begun && rank >= 0 && rank <= SAFETENSORS_MAX_RANK);
    int64_t bytes = DTYPES[dtype].bytes;
    write_key(w->tensors, name);
    fprintf(w->tensors, "{\"dtype\":\"%s\",\"shape\":[", DTYPES[dtype].name);
    for (int i = 0; i < rank; i++) {
        CHECK(shape[i] >= 0 && !__builtin_mul_overflow(bytes, shape[i], &bytes));
        fprintf(w->tensors, "%s%lld", i ? "," : "", (long long)shape[i]);
    }
    fprintf(w->tensors, "],\"data_offsets\":[%lld,%lld]}", (long long)w->declared, (long long)(w->declared + bytes));
    w->declared += bytes;
}

void safetensors_begin(SafetensorsWriter *w) {
    CHECK(!w->begun && fclose(w->metadata) == 0 && fclose(w->tensors) == 0);
    w->begun = true;
    bool both = w->metadata_bytes > 0 && w->tensors_bytes > 0;
    char *header = w->metadata_bytes ? xprintf("{\"%s\":{%s}%s%s}", METADATA, w->metadata_text, both ? "," : "", w->tensors_text)
                                     : xprintf("{%s}", w->tensors_text);
    size_t length = strlen(header), padded = (length + 7) / 8 * 8;
    Json *readable = json_parse(header, length, NULL, 0);   /* a name declared twice would make a file that nobody can read */
    CHECK(readable && padded <= MAX_HEADER_BYTES);
    json_free(readable);
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = padded >> 8 * i & 255;
    file_write(w->file, prefix, sizeof prefix);
    file_write(w->file, header, length);
    file_write(w->file, "       ", padded - length);
    free(header);
}

void safetensors_write(SafetensorsWriter *w, const void *data, size_t bytes) {
    CHECK(w->begun && (int64_t)bytes <= w->declared - w->written);
    w->written += bytes;
    file_write(w->file, data, bytes);
}

bool safetensors_finish(SafetensorsWriter *w, uint32_t *crc, char error[ERROR_SIZE]) {
    CHECK(w->begun && w->written == w->declared);
    bool good = file_close(w->file, crc, error);
    free(w->metadata_text);
    free(w->tensors_text);
    free(w);
    return good;
}
