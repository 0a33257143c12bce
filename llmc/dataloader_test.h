/* dataloader_test.h: files of tokens in a directory of their own, and deaths, for the tests of what reads them. */
#ifndef LLMC_DATALOADER_TEST_H
#define LLMC_DATALOADER_TEST_H

#include "dataloader.h"
#include "directory_test.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAGIC16 = 20240520, MAGIC32 = 20240801, HEADER = 1024 };

/* Every test works in a directory of its own name. */
static inline char *at(const char *name) {
    static char path[8][256];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", directory, name);
    return p;
}

static inline void make(const char *name) { assert_true(directory_create(at(name), error)); }

static inline void write_bytes(const char *path, const void *data, size_t size) {
    FileWriter *file = file_create(path);
    file_write(file, data, size);
    assert_true(file_close(file, NULL, error));
}

/* A shard whose token number i is first + i. */
static inline void write_counting(const char *path, int64_t count, int32_t first, int64_t vocab_size) {
    int32_t *tokens = xmalloc(count * sizeof *tokens);
    for (int64_t i = 0; i < count; i++) tokens[i] = first + i;
    if (!shard_write(path, tokens, count, vocab_size, error)) fail_msg("%s", error);
    free(tokens);
}

/* Opens without the warning that a short shard is left out. */
static inline DataLoader *open_quietly(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed) {
    int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    DataLoader *loader = dataloader_open(pattern, order, T, vocab_size, seed, false);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(null);
    return loader;
}

static inline void leave_child(int status) { _exit(status); }

/* Runs `body` in a child process, expects it to die, and expects every one of the phrases (ended by NULL) in its one line. */
static inline void expect_death(void (*body)(const char *path), const char *path, ...) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        error_exit_hook(leave_child);
        body(path);
        _exit(99);
    }
    close(ends[1]);
    char message[4096];
    size_t length = 0;
    for (ssize_t n; length < sizeof message - 1 && (n = read(ends[0], message + length, sizeof message - 1 - length)) > 0;) length += n;
    message[length] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) != 1) fail_msg("status %d, not 1: %s", WEXITSTATUS(status), message);
    assert_ptr_equal(strchr(message, '\n'), message + length - 1);
    va_list phrases;
    va_start(phrases, path);
    for (const char *phrase; (phrase = va_arg(phrases, const char *));)
        if (!strstr(message, phrase)) fail_msg("no \"%s\" in: %s", phrase, message);
    va_end(phrases);
}

static inline void put_u32(unsigned char *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(value >> 8 * i);
}

/* size bytes that begin with a shard's header, in memory of exactly that size, so that AddressSanitizer sees a read beyond it. */
static inline unsigned char *shard_bytes(size_t size, uint32_t magic, uint32_t version, uint32_t count) {
    unsigned char header[HEADER] = { 0 }, *bytes = xcalloc(size, 1);
    put_u32(header, magic);
    put_u32(header + 4, version);
    put_u32(header + 8, count);
    memcpy(bytes, header, size < HEADER ? size : HEADER);
    return bytes;
}

#endif
