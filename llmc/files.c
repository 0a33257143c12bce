/* files.c: see files.h. */
#define _GNU_SOURCE   /* nftw */
#include "files.h"
#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

bool file_error(char error[ERROR_SIZE], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, ERROR_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- Paths ---- */

bool path_exists(const char *path) {
    struct stat status;
    return stat(path, &status) == 0;
}

bool path_is_directory(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

char *path_join(const char *directory, const char *name) {
    size_t length = strlen(directory);
    const char *separator = length == 0 || directory[length - 1] == '/' ? "" : "/";
    return xprintf("%s%s%s", directory, separator, name);
}

char *path_parent(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    while (length > 0 && path[length - 1] != '/') length--;
    while (length > 1 && path[length - 1] == '/') length--;
    return length ? xprintf("%.*s", (int)length, path) : xstrdup(".");
}

/* ---- Reading ---- */

bool file_map(FileMap *map, const char *path, char error[ERROR_SIZE]) {
    *map = (FileMap){ (const unsigned char *)"", 0 };
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);   /* O_NONBLOCK: opening a pipe must not wait for its writer */
    if (descriptor < 0) return file_error(error, "cannot open '%s': %s", path, strerror(errno));
    struct stat status;
    bool good = true;
    if (fstat(descriptor, &status) != 0) {
        good = file_error(error, "cannot read '%s': %s", path, strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        good = file_error(error, "'%s' is %s, where a regular file is needed", path, S_ISDIR(status.st_mode) ? "a directory" : "a device");
    } else if (status.st_size > 0) {
        void *data = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED) good = file_error(error, "cannot map '%s': %s", path, strerror(errno));
        else *map = (FileMap){ data, status.st_size };
    }
    close(descriptor);
    return good;
}

void file_unmap(FileMap *map) {
    if (map->size > 0) munmap((void *)map->data, map->size);
    *map = (FileMap){ NULL, 0 };
}

/* Up to `bytes` bytes, fewer only at the end of the file; -1 with errno on an error. */
static ssize_t read_fully(int descriptor, void *data, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = read(descriptor, (char *)data + done, bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        done += n;
    }
    return done;
}

char *file_read_text(const char *path, size_t max_bytes, size_t *length, char error[ERROR_SIZE]) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        file_error(error, "cannot open '%s': %s", path, strerror(errno));
        return NULL;
    }
    char *text = NULL;
    size_t used = 0, capacity = 0;
    ssize_t n;
    /* Read to the end rather than by the size that stat gives, so that pipes work too; one byte more than allowed tells too large. */
    do {
        capacity = capacity ? 2 * capacity : 1 << 14;
        if (capacity > max_bytes + 1) capacity = max_bytes + 1;
        text = xrealloc(text, capacity + 1);
        n = read_fully(descriptor, text + used, capacity - used);
        if (n > 0) used += n;
    } while (n > 0 && used == capacity && used <= max_bytes);
    if (n < 0) file_error(error, "cannot read '%s': %s", path, strerror(errno));
    close(descriptor);
    if (n >= 0 && used > max_bytes) file_error(error, "'%s' is larger than %zu bytes, the most that such a file may have", path, max_bytes);
    if (n < 0 || used > max_bytes) {
        free(text);
        return NULL;
    }
    text[used] = 0;
    if (length) *length = used;
    return text;
}

/* ---- CRC-32: sixteen bytes a round, by tables ("slicing-by-16", after Kounavis and Berry, 2005) ---- */

static uint32_t crc_table[16][256];   /* crc_table[k][b]: what byte b contributes when k more bytes follow it */

static void crc_table_fill(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int bit = 0; bit < 8; bit++) c = (c >> 1) ^ (c & 1 ? 0xEDB88320u : 0);
        crc_table[0][b] = c;
    }
    for (int k = 1; k < 16; k++)
        for (int b = 0; b < 256; b++) crc_table[k][b] = (crc_table[k - 1][b] >> 8) ^ crc_table[0][crc_table[k - 1][b] & 255];
}

static uint32_t crc_of_word(uint32_t word, uint32_t (*table)[256]) {
    return table[3][word & 255] ^ table[2][word >> 8 & 255] ^ table[1][word >> 16 & 255] ^ table[0][word >> 24];
}

uint32_t crc32_update(uint32_t crc, const void *data, size_t bytes) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, crc_table_fill);
    const unsigned char *at = data;
    crc = ~crc;
    for (; bytes >= 16; bytes -= 16, at += 16) {
        uint32_t word[4];
        memcpy(word, at, 16);
        crc = crc_of_word(word[0] ^ crc, crc_table + 12) ^ crc_of_word(word[1], crc_table + 8) ^
              crc_of_word(word[2], crc_table + 4) ^ crc_of_word(word[3], crc_table);
    }
    for (; bytes > 0; bytes--) crc = (crc >> 8) ^ crc_table[0][(crc ^ *at++) & 255];
    return ~crc;
}

uint32_t crc32_of_text(const char *text) { return crc32_update(0, text, strlen(text)); }

bool file_crc32(const char *path, uint32_t *crc, uint64_t *size, char error[ERROR_SIZE]) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return file_error(error, "cannot open '%s': %s", path, strerror(errno));
    unsigned char *buffer = xmalloc(BUFFER_BYTES);
    *crc = 0;
    *size = 0;
    ssize_t n;
    while ((n = read_fully(descriptor, buffer, BUFFER_BYTES)) > 0) {
        *crc = crc32_update(*crc, buffer, n);
        *size += n;
    }
    if (n < 0) file_error(error, "cannot read '%s': %s", path, strerror(errno));
    free(buffer);
    close(descriptor);
    return n >= 0;
}

/* ---- Writing ---- */

static bool sync_parent(const char *path, char error[ERROR_SIZE]) {
    char *parent = path_parent(path);
    bool good = directory_sync(parent, error);
    free(parent);
    return good;
}

struct FileWriter {
    int descriptor;
    uint32_t crc;
    char *path, *temporary;
    unsigned char *buffer;
    size_t used;
    bool failed;
    char error[ERROR_SIZE];
};

static void writer_fail(FileWriter *file, const char *what) {
    file->failed = true;
    file_error(file->error, "cannot %s '%s': %s", what, file->path, strerror(errno));
}

FileWriter *file_create(const char *path) {
    FileWriter *file = xcalloc(1, sizeof *file);
    file->path = xstrdup(path);
    file->temporary = xprintf("%s.tmp", path);
    file->buffer = xmalloc(BUFFER_BYTES);
    file->descriptor = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file->descriptor < 0) writer_fail(file, "create");
    return file;
}

static void write_through(FileWriter *file, const unsigned char *data, size_t bytes) {
    while (bytes > 0 && !file->failed) {
        ssize_t n = write(file->descriptor, data, bytes);   /* may write less than asked; the rest tells why */
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            writer_fail(file, "write");
            return;
        }
        data += n;
        bytes -= n;
    }
}

void file_write(FileWriter *file, const void *data, size_t bytes) {
    if (file->failed || bytes == 0) return;
    file->crc = crc32_update(file->crc, data, bytes);
    if (file->used + bytes > BUFFER_BYTES) {
        write_through(file, file->buffer, file->used);
        file->used = 0;
    }
    if (bytes >= BUFFER_BYTES) {
        write_through(file, data, bytes);
    } else {
        memcpy(file->buffer + file->used, data, bytes);
        file->used += bytes;
    }
}

void file_overwrite(FileWriter *file, uint64_t offset, const void *data, size_t bytes) {
    if (!file->failed) write_through(file, file->buffer, file->used);
    file->used = 0;
    off_t end = file->failed ? 0 : lseek(file->descriptor, 0, SEEK_CUR);
    if (!file->failed && lseek(file->descriptor, (off_t)offset, SEEK_SET) < 0) writer_fail(file, "write");
    write_through(file, data, bytes);
    if (!file->failed && lseek(file->descriptor, end, SEEK_SET) < 0) writer_fail(file, "write");
}

void file_sync(FileWriter *file) {
    if (!file->failed) write_through(file, file->buffer, file->used);
    file->used = 0;
    if (!file->failed && fsync(file->descriptor) != 0) writer_fail(file, "sync");
}

static void writer_free(FileWriter *file) {
    free(file->path);
    free(file->temporary);
    free(file->buffer);
    free(file);
}

bool file_good(const FileWriter *file, char error[ERROR_SIZE]) { return !file->failed || file_error(error, "%s", file->error); }

void file_discard(FileWriter *file) {
    if (file->descriptor >= 0) {
        close(file->descriptor);
        unlink(file->temporary);
    }
    writer_free(file);
}

bool file_close(FileWriter *file, uint32_t *crc, char error[ERROR_SIZE]) {
    bool created = file->descriptor >= 0;
    file_sync(file);
    if (created && close(file->descriptor) != 0 && !file->failed) writer_fail(file, "close");
    if (!file->failed && rename(file->temporary, file->path) != 0) writer_fail(file, "replace");
    if (file->failed && created) unlink(file->temporary);
    bool good = file->failed ? file_error(error, "%s", file->error) : sync_parent(file->path, error);
    if (good && crc) *crc = file->crc;
    writer_free(file);
    return good;
}

bool file_write_text(const char *directory, const char *name, const char *text, size_t length, char error[ERROR_SIZE]) {
    char *path = path_join(directory, name);
    FileWriter *file = file_create(path);
    file_write(file, text, length);
    free(path);
    return file_close(file, NULL, error);
}

/* ---- Directories and links ---- */

static bool directory_make(const char *path, char error[ERROR_SIZE]) {
    if (path_is_directory(path)) return true;
    if (mkdir(path, 0777) == 0) return sync_parent(path, error);
    int cause = errno;
    if (path_is_directory(path)) return true;   /* another rank was faster */
    const char *why = cause == EEXIST ? "something else of that name is in the way" : strerror(cause);
    return file_error(error, "cannot create the directory '%s': %s", path, why);
}

bool directory_create(const char *path, char error[ERROR_SIZE]) {
    if (!*path) return file_error(error, "cannot create a directory without a name");
    char *prefix = xstrdup(path);
    bool good = true;
    for (size_t i = 1; good && path[i]; i++) {
        if (path[i] != '/') continue;
        prefix[i] = 0;
        good = directory_make(prefix, error);
        prefix[i] = '/';
    }
    free(prefix);
    if (!good || !directory_make(path, error)) return false;
    if (access(path, W_OK | X_OK) != 0) return file_error(error, "cannot write into the directory '%s': %s", path, strerror(errno));
    return true;
}

bool directory_sync(const char *path, char error[ERROR_SIZE]) {
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return file_error(error, "cannot open the directory '%s': %s", path, strerror(errno));
    /* EINVAL: a file system that cannot sync directories; there is nothing better to do there. */
    bool good = fsync(descriptor) == 0 || errno == EINVAL;
    if (!good) file_error(error, "cannot sync the directory '%s': %s", path, strerror(errno));
    close(descriptor);
    return good;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place) {
    (void)status, (void)kind, (void)place;
    return remove(path);
}

bool directory_remove(const char *path, char error[ERROR_SIZE]) {
    struct stat status;
    if (lstat(path, &status) != 0) {
        if (errno == ENOENT) return true;
    } else if (!S_ISDIR(status.st_mode)) {
        return file_error(error, "cannot remove '%s': it is not a directory", path);
    } else if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0) {
        return true;
    }
    return file_error(error, "cannot remove the directory '%s': %s", path, strerror(errno));
}

bool symlink_replace(const char *target, const char *link, char error[ERROR_SIZE]) {
    struct stat status;
    if (lstat(link, &status) == 0 && !S_ISLNK(status.st_mode))
        return file_error(error, "cannot make '%s' a link to '%s': something else of that name is in the way", link, target);
    char *temporary = xprintf("%s.tmp", link);
    unlink(temporary);
    bool good = symlink(target, temporary) == 0 && rename(temporary, link) == 0;
    if (!good) {
        file_error(error, "cannot make '%s' a link to '%s': %s", link, target, strerror(errno));
        unlink(temporary);
    }
    free(temporary);
    return good && sync_parent(link, error);
}

/* ---- Locks ---- */

bool file_lock(int *lock, const char *path) {
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*lock < 0 || flock(*lock, LOCK_EX | LOCK_NB) == 0) return true;
    bool held = errno == EWOULDBLOCK;
    file_unlock(*lock);
    *lock = -1;
    return !held;
}

void file_unlock(int lock) {
    if (lock >= 0) close(lock);
}
