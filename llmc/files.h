/* files.h: whole files in, whole files out, never half. Functions that can fail for the user's reasons return false and put one
   sentence, naming the file and the cause, into error[ERROR_SIZE]; the caller decides whether to die. */
#ifndef LLMC_FILES_H
#define LLMC_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ERROR_SIZE = 512 };

/* Puts the sentence into error and returns false, so that a check can end with `return file_error(error, ...)`. */
bool file_error(char error[ERROR_SIZE], const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A file mapped read-only. */
typedef struct {
    const unsigned char *data;
    size_t size;
} FileMap;
bool file_map(FileMap *map, const char *path, char error[ERROR_SIZE]);
void file_unmap(FileMap *map);

/* Text of a whole small file (at most max_bytes), NUL-terminated, to be freed; NULL on error. */
char *file_read_text(const char *path, size_t max_bytes, size_t *length, char error[ERROR_SIZE]);

/* A file being written: written under PATH.tmp, its CRC-32 counted on the way, then synced and renamed to PATH by file_close.
   After an error every call is a no-op and file_close returns false with the first cause and removes the temporary file. */
typedef struct FileWriter FileWriter;
FileWriter *file_create(const char *path);
void file_write(FileWriter *file, const void *data, size_t bytes);
/* Other bytes in place of some that were written before, as of a header that counts what follows it. The CRC-32 stays that of the first
   ones. */
void file_overwrite(FileWriter *file, uint64_t offset, const void *data, size_t bytes);
/* All of it on the disk, so that only the renaming is left for file_close, as of one file among several that belong together. */
void file_sync(FileWriter *file);
/* False, with the first cause, if something failed so far. */
bool file_good(const FileWriter *file, char error[ERROR_SIZE]);
/* Leaves PATH as it was, and nothing beside it. */
void file_discard(FileWriter *file);
bool file_close(FileWriter *file, uint32_t *crc, char error[ERROR_SIZE]);

/* A small text as the file directory/name. */
bool file_write_text(const char *directory, const char *name, const char *text, size_t length, char error[ERROR_SIZE]);

/* CRC-32 (IEEE 802.3, as zlib computes it) of data, continuing from crc (0 to begin). */
uint32_t crc32_update(uint32_t crc, const void *data, size_t bytes);
uint32_t crc32_of_text(const char *text);
/* CRC-32 of a whole file. */
bool file_crc32(const char *path, uint32_t *crc, uint64_t *size, char error[ERROR_SIZE]);

/* Creates the directory and its missing parents; succeeds if it exists and can be written. */
bool directory_create(const char *path, char error[ERROR_SIZE]);
/* fsync of a directory, so that a rename in it survives a power cut. */
bool directory_sync(const char *path, char error[ERROR_SIZE]);
/* Removes a directory with all it holds, symbolic links not followed. A missing one is no error; a link or a file is refused. */
bool directory_remove(const char *path, char error[ERROR_SIZE]);
/* Makes link a symbolic link to target, replacing an older link in one atomic step; anything else of that name is refused. */
bool symlink_replace(const char *target, const char *link, char error[ERROR_SIZE]);

/* Locks the file, made where it is missing, against whoever else calls this, here or on another machine that has the file; until file_unlock, or until the
   process ends in whatever way. False if another has it. *lock is -1 then, and where the file cannot be written or its file system knows no locks. */
bool file_lock(int *lock, const char *path);
void file_unlock(int lock);

bool path_exists(const char *path);
bool path_is_directory(const char *path);
/* directory/name in fresh memory; free() it. */
char *path_join(const char *directory, const char *name);
/* The directory that holds path, in fresh memory: "a" for "a/b" and "a/b/", "." for "a", "/" for "/a". */
char *path_parent(const char *path);

#ifdef __cplusplus
}
#endif

#endif
