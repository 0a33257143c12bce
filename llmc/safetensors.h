/* safetensors.h: named tensors in a file (the Hugging Face format): u64 little-endian header length, a JSON header
   name -> {dtype, shape, data_offsets} with string metadata under "__metadata__", then the data, without holes.
   Refused whole or read whole: every name, dtype, shape and offset is checked before a byte of data is used. */
#ifndef LLMC_SAFETENSORS_H
#define LLMC_SAFETENSORS_H

#include "files.h"
#include "json.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ST_F32, ST_F16, ST_BF16, ST_I32, ST_I64, ST_U8, ST_BOOL } SafetensorsDType;   /* any other dtype in a file is refused */

enum { SAFETENSORS_MAX_RANK = 8 };

typedef struct {
    const char *name;                        /* lives as long as the file is open */
    SafetensorsDType dtype;
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    size_t bytes;
    const void *data;                        /* into the map: not aligned to more than 1 byte */
} SafetensorsEntry;

typedef struct {
    FileMap map;
    Json *header;
    size_t count;
    SafetensorsEntry *entries;               /* in the order of their data */
} Safetensors;

bool safetensors_open(Safetensors *st, const char *path, char error[ERROR_SIZE]);
/* The same checks on memory that the caller owns; for the fuzzer and for open. `path` is only named in messages. */
bool safetensors_parse(Safetensors *st, const void *data, size_t size, const char *path, char error[ERROR_SIZE]);
void safetensors_close(Safetensors *st);
/* The entry of that name, or NULL. */
const SafetensorsEntry *safetensors_find(const Safetensors *st, const char *name);
/* A metadata string, or NULL. */
const char *safetensors_metadata(const Safetensors *st, const char *key);
/* n elements from element `offset` on, converted to float. The entry must be F32, F16 or BF16. */
void safetensors_read_floats(const SafetensorsEntry *entry, int64_t offset, int64_t n, float *out);
void safetensors_read_integers(const SafetensorsEntry *entry, int64_t offset, int64_t n, int64_t *out);   /* I32, I64, U8, BOOL */

/* Writing: declare every tensor, then begin, then give each one's bytes in the order declared (in as many pieces as you like),
   then close. Data starts 8-byte aligned. */
typedef struct SafetensorsWriter SafetensorsWriter;
SafetensorsWriter *safetensors_create(const char *path);
void safetensors_declare_metadata(SafetensorsWriter *w, const char *key, const char *value);
void safetensors_declare(SafetensorsWriter *w, const char *name, SafetensorsDType dtype, int rank, const int64_t *shape);
void safetensors_begin(SafetensorsWriter *w);
void safetensors_write(SafetensorsWriter *w, const void *data, size_t bytes);
/* Syncs and renames into place. False with the cause if any write failed; dies (CHECK) if the bytes given are not those declared. */
bool safetensors_finish(SafetensorsWriter *w, uint32_t *crc, char error[ERROR_SIZE]);

#ifdef __cplusplus
}
#endif

#endif
