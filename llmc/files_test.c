/* files_test.c: files written whole or not at all, the CRC, directories, and what is said when the disk fails. */
#include "files.h"
#include "error.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char directory[] = P_tmpdir "/files_testXXXXXX";
static char error[ERROR_SIZE];

/* A path in the test's directory; lives until the program ends or the eighth call after it. */
static const char *in_directory(const char *name) {
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static int make_directory(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    return directory_remove(directory, error) && !path_exists(directory) ? 0 : -1;
}

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_text(const char *path, const char *text) {
    size_t length;
    char *read = file_read_text(path, 1 << 20, &length, error);
    assert_non_null(read);
    assert_string_equal(read, text);
    assert_int_equal(length, strlen(text));
    free(read);
}

static void assert_error(const char *path, const char *cause) {
    assert_non_null(strstr(error, path));
    assert_non_null(strstr(error, cause));
    assert_null(strchr(error, '\n'));
}

static unsigned char *random_bytes(size_t n) {
    unsigned char *bytes = malloc(n);
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) bytes[i] = (x = x * 1664525u + 1013904223u) >> 24;
    return bytes;
}

/* ---- CRC ---- */

static uint32_t plain_crc(const unsigned char *data, size_t n) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    }
    return ~crc;
}

static void crc_known_values(void **state) {
    (void)state;
    const char *pangram = "The quick brown fox jumps over the lazy dog";
    unsigned char zeros[32] = { 0 }, ones[32];
    memset(ones, 0xFF, sizeof ones);
    assert_int_equal(crc32_update(0, "", 0), 0);
    assert_int_equal(crc32_update(0, "a", 1), 0xE8B7BE43u);
    assert_int_equal(crc32_update(0, "123456789", 9), 0xCBF43926u);
    assert_int_equal(crc32_update(0, pangram, strlen(pangram)), 0x414FA339u);
    assert_int_equal(crc32_update(0, zeros, 32), 0x190A55ADu);
    assert_int_equal(crc32_update(0, ones, 32), 0xFF6CAB0Bu);
}

static void crc_of_every_length_and_split(void **state) {
    (void)state;
    enum { N = 100 };
    unsigned char *bytes = random_bytes(N + 1);
    for (size_t n = 0; n <= N; n++) {
        uint32_t expected = plain_crc(bytes + 1, n);   /* + 1: not aligned */
        for (size_t split = 0; split <= n; split++)
            assert_int_equal(crc32_update(crc32_update(0, bytes + 1, split), bytes + 1 + split, n - split), expected);
    }
    free(bytes);
}

/* ---- Whole files ---- */

static void write_in_pieces_of(size_t piece, size_t size) {
    const char *path = in_directory("pieces");
    unsigned char *bytes = random_bytes(size);
    uint32_t crc = 0, crc_again = 0;
    uint64_t size_again = 0;
    FileWriter *file = file_create(path);
    for (size_t at = 0; at < size; at += piece) file_write(file, bytes + at, size - at < piece ? size - at : piece);
    assert_true(file_close(file, &crc, error));
    FileMap map;
    assert_true(file_map(&map, path, error));
    assert_int_equal(map.size, size);
    assert_memory_equal(map.data, bytes, size);
    file_unmap(&map);
    assert_true(file_crc32(path, &crc_again, &size_again, error));
    assert_int_equal(crc, crc32_update(0, bytes, size));
    assert_int_equal(crc_again, crc);
    assert_int_equal(size_again, size);
    assert_false(path_exists(in_directory("pieces.tmp")));
    free(bytes);
}

static void written_files_read_back(void **state) {
    (void)state;
    write_in_pieces_of(1000, 1);
    write_in_pieces_of(777, 3 << 20);                /* across the buffer's end */
    write_in_pieces_of(17, 3 << 20);                 /* one byte across it: 17 divides 2^20 + 1 */
    write_in_pieces_of(1 << 20, 3 << 20);            /* exactly the buffer */
    write_in_pieces_of((1 << 20) + 1, (5 << 20) + 3);
}

static void empty_files(void **state) {
    (void)state;
    const char *path = in_directory("empty");
    uint32_t crc = 1;
    uint64_t size = 1;
    assert_true(file_close(file_create(path), &crc, error));
    assert_int_equal(crc, 0);
    FileMap map;
    assert_true(file_map(&map, path, error));
    assert_int_equal(map.size, 0);
    assert_non_null(map.data);
    file_unmap(&map);
    file_unmap(&map);
    assert_text(path, "");
    assert_true(file_crc32(path, &crc, &size, error));
    assert_int_equal(size, 0);
}

static void a_new_file_replaces_the_old_one_only_when_closed(void **state) {
    (void)state;
    const char *path = in_directory("replaced");
    write_text(path, "old");
    write_text(in_directory("replaced.tmp"), "left behind by a killed process, and longer");
    FileWriter *file = file_create(path);
    file_write(file, "new", 3);
    assert_text(path, "old");
    assert_true(file_close(file, NULL, error));
    assert_text(path, "new");
    assert_false(path_exists(in_directory("replaced.tmp")));
}

static void a_header_written_again(void **state) {
    (void)state;
    enum { BODY = 3 << 20 };   /* more than a buffer */
    for (size_t size = 1; size <= BODY; size *= 64) {
        unsigned char *bytes = random_bytes(size);
        const char *path = in_directory("header");
        FileMap map;
        FileWriter *file = file_create(path);
        file_write(file, "....", 4);
        file_write(file, bytes, size);
        file_overwrite(file, 1, "ab", 2);
        file_write(file, "end", 3);
        file_overwrite(file, 3, "c", 1);
        assert_true(file_close(file, NULL, error));
        assert_true(file_map(&map, path, error));
        assert_int_equal(map.size, size + 7);
        assert_memory_equal(map.data, ".abc", 4);
        assert_memory_equal(map.data + 4, bytes, size);
        assert_memory_equal(map.data + 4 + size, "end", 3);
        file_unmap(&map);
        free(bytes);
    }
}

static void a_file_given_up(void **state) {
    (void)state;
    const char *path = in_directory("given up");
    write_text(path, "old");
    FileWriter *file = file_create(path);
    file_write(file, "new", 3);
    assert_true(file_good(file, error));
    assert_true(path_exists(in_directory("given up.tmp")));
    file_discard(file);
    assert_text(path, "old");
    assert_false(path_exists(in_directory("given up.tmp")));
    file = file_create(in_directory("no directory/file"));
    assert_false(file_good(file, error));
    assert_error("no directory/file", "No such file");
    file_discard(file);
}

static void texts_are_limited(void **state) {
    (void)state;
    const char *path = in_directory("text");
    char text[70001];
    memset(text, 'x', 70000);
    text[70000] = 0;
    write_text(path, text);
    assert_text(path, text);
    for (size_t limit = 69999; limit <= 70001; limit++) {
        char *read = file_read_text(path, limit, NULL, error);
        if (limit < 70000) assert_null(read);
        else assert_string_equal(read, text);
        free(read);
    }
    assert_error(path, "larger than 69999 bytes");
    write_text(path, "");
    char *read = file_read_text(path, 0, NULL, error);
    assert_string_equal(read, "");
    free(read);
}

static void reading_what_is_no_file(void **state) {
    (void)state;
    const char *missing = in_directory("missing"), *pipe = in_directory("pipe");
    FileMap map;
    uint32_t crc;
    uint64_t size;
    assert_false(file_map(&map, missing, error));
    assert_error(missing, "No such file or directory");
    file_unmap(&map);
    assert_null(file_read_text(missing, 10, NULL, error));
    assert_error(missing, "No such file or directory");
    assert_false(file_crc32(missing, &crc, &size, error));
    assert_error(missing, "No such file or directory");
    assert_false(file_map(&map, directory, error));
    assert_error(directory, "a directory");
    assert_null(file_read_text(directory, 10, NULL, error));
    assert_error(directory, "Is a directory");
    assert_false(file_crc32(directory, &crc, &size, error));
    assert_error(directory, "Is a directory");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_false(file_map(&map, pipe, error));   /* and does not wait for a writer */
    assert_error(pipe, "regular file");
}

static void a_text_may_come_through_a_pipe(void **state) {
    (void)state;
    int ends[2];
    char name[64];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "a=1\n", 4), 4);
    close(ends[1]);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    assert_text(name, "a=1\n");
    close(ends[0]);
}

/* ---- Failing disks ---- */

/* Writes `bytes` bytes to PATH, which must fail for that cause, leaving the old file as it was and nothing else. */
static void assert_write_fails(const char *path, size_t bytes, const char *what, const char *cause) {
    char *temporary = xprintf("%s.tmp", path);
    unsigned char *data = random_bytes(bytes);
    uint32_t crc = 12345;
    FileWriter *file = file_create(path);
    for (size_t at = 0; at < bytes; at += 1000) file_write(file, data + at, bytes - at < 1000 ? bytes - at : 1000);
    file_write(file, data, bytes);
    bool good = file_close(file, &crc, error);
    assert_false(good);
    assert_error(path, what);
    assert_error(path, cause);
    assert_int_equal(crc, 12345);
    struct stat status;
    assert_int_not_equal(lstat(temporary, &status), 0);
    free(data);
    free(temporary);
}

/* The temporary file becomes a device that behaves like a disk with a fault. */
static void a_full_disk(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    const char *path = in_directory("precious");
    write_text(path, "old");
    assert_int_equal(symlink("/dev/full", in_directory("precious.tmp")), 0);
    assert_write_fails(path, 100, "cannot write", "No space left on device");   /* seen at the close */
    assert_int_equal(symlink("/dev/full", in_directory("precious.tmp")), 0);
    assert_write_fails(path, 3 << 20, "cannot write", "No space left on device");   /* seen in the middle */
    assert_text(path, "old");
}

static void a_disk_that_cannot_sync(void **state) {
    (void)state;
    const char *path = in_directory("unsynced");
    assert_int_equal(symlink("/dev/null", in_directory("unsynced.tmp")), 0);
    assert_write_fails(path, 100, "cannot sync", "Invalid argument");
    assert_false(path_exists(path));
}

static void a_write_cut_short(void **state) {
    (void)state;
    const char *path = in_directory("limited");
    write_text(path, "old");
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = (1 << 20) + 12345;   /* the second buffer is written in part */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    assert_write_fails(path, 3 << 20, "cannot write", "File too large");
    assert_write_fails(path, (1 << 19) + 10000, "cannot write", "File too large");   /* twice that: only the last buffer is cut */
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_text(path, "old");
}

static void places_that_cannot_be_written(void **state) {
    (void)state;
    const char *blocked = in_directory("blocked");
    assert_int_equal(mkdir(blocked, 0777), 0);
    write_text(in_directory("blocked/file"), "old");
    assert_write_fails(blocked, 100, "cannot replace", "directory");
    assert_text(in_directory("blocked/file"), "old");
    assert_write_fails(in_directory("nowhere/file"), 3 << 20, "cannot create", "No such file or directory");
    assert_write_fails(in_directory("blocked/file/inside"), 10, "cannot create", "Not a directory");
}

/* ---- Directories and links ---- */

static void directories_with_parents(void **state) {
    (void)state;
    const char *deep = in_directory("a/b//c/");
    assert_true(directory_create(deep, error));
    assert_true(directory_create(deep, error));
    assert_true(path_is_directory(in_directory("a/b/c")));
    assert_true(directory_create(".", error));
    assert_true(directory_create("/", error) || strstr(error, "cannot write into"));
    write_text(in_directory("a/file"), "x");
    assert_false(directory_create(in_directory("a/file"), error));
    assert_error("a/file", "something else of that name is in the way");
    assert_false(directory_create(in_directory("a/file/b"), error));
    assert_error("a/file", "in the way");
    assert_int_equal(symlink("nothing", in_directory("a/dangling")), 0);
    assert_false(directory_create(in_directory("a/dangling"), error));
    assert_error("a/dangling", "in the way");
    assert_false(directory_create("/proc/no/such", error));
    assert_error("/proc/no", "cannot create");
    assert_false(directory_create("", error));
    assert_error("", "without a name");
    assert_true(directory_sync(deep, error));
    assert_false(directory_sync(in_directory("a/file"), error));
    assert_error("a/file", "Not a directory");
}

/* In a child without root's rights. Its exit status: 0 where everything was refused as it should. */
static int try_unwritable(const char *locked) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 2;
    char *inside = path_join(locked, "inside");
    if (directory_create(locked, error) || !strstr(error, "cannot write into") || !strstr(error, "Permission denied")) return 3;
    if (directory_create(inside, error) || !strstr(error, "cannot create") || !strstr(error, "Permission denied")) return 4;
    FileWriter *file = file_create(inside);
    file_write(file, "x", 1);
    if (file_close(file, NULL, error) || !strstr(error, "cannot create") || !strstr(error, "Permission denied")) return 5;
    if (directory_remove(locked, error) || !strstr(error, "Permission denied")) return 6;
    free(inside);
    return 0;
}

static void a_directory_without_permission(void **state) {
    (void)state;
    const char *locked = in_directory("locked");
    assert_int_equal(mkdir(locked, 0777), 0);
    write_text(in_directory("locked/kept"), "x");
    assert_int_equal(chmod(directory, 0755), 0);
    assert_int_equal(chmod(locked, 0555), 0);
    pid_t child = fork();
    if (child == 0) _exit(try_unwritable(locked));
    int status;
    waitpid(child, &status, 0);
    chmod(locked, 0755);
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_text(in_directory("locked/kept"), "x");
}

static void removal_does_not_follow_links(void **state) {
    (void)state;
    assert_true(directory_create(in_directory("outside"), error));
    write_text(in_directory("outside/kept"), "x");
    assert_true(directory_create(in_directory("doomed/inner/.hidden"), error));
    write_text(in_directory("doomed/inner/file"), "x");
    assert_int_equal(symlink(in_directory("outside"), in_directory("doomed/link")), 0);
    assert_int_equal(symlink(in_directory("outside/kept"), in_directory("doomed/inner/link")), 0);
    assert_true(directory_remove(in_directory("doomed"), error));
    assert_false(path_exists(in_directory("doomed")));
    assert_text(in_directory("outside/kept"), "x");
    assert_true(directory_remove(in_directory("doomed"), error));   /* a missing one is no error */

    assert_int_equal(symlink(in_directory("outside"), in_directory("link_to_outside")), 0);
    assert_false(directory_remove(in_directory("link_to_outside"), error));
    assert_error("link_to_outside", "not a directory");
    assert_false(directory_remove(in_directory("outside/kept"), error));
    assert_error("outside/kept", "not a directory");
    assert_text(in_directory("outside/kept"), "x");
}

static void assert_link(const char *link, const char *target) {
    char found[256] = { 0 };
    assert_true(readlink(link, found, sizeof found - 1) > 0);
    assert_string_equal(found, target);
}

static void links_are_replaced(void **state) {
    (void)state;
    const char *link = in_directory("last");
    assert_true(symlink_replace("step_1", link, error));
    assert_link(link, "step_1");
    assert_int_equal(symlink("rubbish", in_directory("last.tmp")), 0);   /* left behind by a killed process */
    assert_true(symlink_replace("step_2", link, error));
    assert_link(link, "step_2");
    assert_int_equal(mkdir(in_directory("step_3"), 0777), 0);
    assert_true(symlink_replace("step_3", link, error));
    assert_true(symlink_replace("step_4", link, error));   /* of a link to a directory, the link itself */
    assert_link(link, "step_4");
    assert_false(path_exists(in_directory("last.tmp")));

    write_text(in_directory("file"), "x");
    assert_false(symlink_replace("step_1", in_directory("file"), error));
    assert_error("file", "in the way");
    assert_text(in_directory("file"), "x");
    assert_false(symlink_replace("step_1", in_directory("nowhere/last"), error));
    assert_error("nowhere/last", "No such file or directory");
}

static void paths(void **state) {
    (void)state;
    const char *cases[][3] = { { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" }, { "/", "b", "/b" } };
    for (int i = 0; i < 4; i++) {
        char *joined = path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        free(joined);
    }
    assert_true(path_exists(directory) && path_is_directory(directory));
    write_text(in_directory("plain"), "x");
    assert_true(path_exists(in_directory("plain")) && !path_is_directory(in_directory("plain")));
    assert_false(path_exists(in_directory("none")) || path_is_directory(in_directory("none")));
}

static void one_holds_a_lock(void **state) {
    (void)state;
    const char *path = in_directory("lock");
    int mine, other, status, ends[2];
    assert_true(file_lock(&mine, path));
    assert_false(file_lock(&other, path));
    assert_int_equal(other, -1);
    file_unlock(mine);
    /* That of a process that is killed is free. */
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte = file_lock(&mine, path);
        if (write(ends[1], &byte, 1) == 1) pause();
        _exit(1);
    }
    char byte = 0;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    assert_false(file_lock(&mine, path));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    assert_true(file_lock(&mine, path));
    file_unlock(mine);
    close(ends[0]);
    close(ends[1]);
    assert_true(file_lock(&mine, in_directory("nowhere/lock")));
    assert_int_equal(mine, -1);
    file_unlock(mine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known_values),
        cmocka_unit_test(crc_of_every_length_and_split),
        cmocka_unit_test(written_files_read_back),
        cmocka_unit_test(empty_files),
        cmocka_unit_test(a_new_file_replaces_the_old_one_only_when_closed),
        cmocka_unit_test(a_header_written_again),
        cmocka_unit_test(a_file_given_up),
        cmocka_unit_test(texts_are_limited),
        cmocka_unit_test(reading_what_is_no_file),
        cmocka_unit_test(a_text_may_come_through_a_pipe),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(a_disk_that_cannot_sync),
        cmocka_unit_test(a_write_cut_short),
        cmocka_unit_test(places_that_cannot_be_written),
        cmocka_unit_test(directories_with_parents),
        cmocka_unit_test(a_directory_without_permission),
        cmocka_unit_test(removal_does_not_follow_links),
        cmocka_unit_test(links_are_replaced),
        cmocka_unit_test(one_holds_a_lock),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
