/* dataloader_test.c: formats, refusals, order and completeness of the data loader. */
#include "dataloader.h"
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAGIC16 = 20240520, MAGIC32 = 20240801, HEADER = 1024 };

static char directory[] = P_tmpdir "/dataloader_test.XXXXXX";
static char error[ERROR_SIZE];

/* ---- Helpers ---- */

static int make_directory(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    return directory_remove(directory, error) ? 0 : -1;
}

/* Every test works in a directory of its own name. */
static char *at(const char *name) {
    static char path[8][256];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", directory, name);
    return p;
}

static void make(const char *name) { assert_true(directory_create(at(name), error)); }

static void write_bytes(const char *path, const void *data, size_t size) {
    FileWriter *file = file_create(path);
    file_write(file, data, size);
    assert_true(file_close(file, NULL, error));
}

/* A shard whose token number i is first + i. */
static void write_counting(const char *path, int64_t count, int32_t first, int64_t vocab_size) {
    int32_t *tokens = xmalloc(count * sizeof *tokens);
    for (int64_t i = 0; i < count; i++) tokens[i] = first + i;
    if (!shard_write(path, tokens, count, vocab_size, error)) fail_msg("%s", error);
    free(tokens);
}

/* Opens without the warning that a short shard is left out. */
static DataLoader *open_quietly(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed) {
    int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    DataLoader *loader = dataloader_open(pattern, order, T, vocab_size, seed, false);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(null);
    return loader;
}

static void leave_child(int status) { _exit(status); }

/* Runs `body` in a child process, expects it to die, and expects every one of the phrases (ended by NULL) in its one line. */
static void expect_death(void (*body)(const char *path), const char *path, ...) {
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

static void put_u32(unsigned char *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(value >> 8 * i);
}

/* size bytes that begin with a shard's header, in memory of exactly that size, so that AddressSanitizer sees a read beyond it. */
static unsigned char *shard_bytes(size_t size, uint32_t magic, uint32_t version, uint32_t count) {
    unsigned char header[HEADER] = { 0 }, *bytes = xcalloc(size, 1);
    put_u32(header, magic);
    put_u32(header + 4, version);
    put_u32(header + 8, count);
    memcpy(bytes, header, size < HEADER ? size : HEADER);
    return bytes;
}

static void expect_refused(size_t size, uint32_t magic, uint32_t version, uint32_t count, bool headerless, const char *phrase) {
    unsigned char *bytes = shard_bytes(size, magic, version, count);
    Shard shard;
    bool accepted = shard_parse(&shard, bytes, size, "some.bin", headerless, error);
    free(bytes);
    if (accepted) fail_msg("accepted: %zu bytes, %u, %u, %u", size, magic, version, count);
    if (!strstr(error, phrase) || !strstr(error, "'some.bin'")) fail_msg("no \"%s\" in: %s", phrase, error);
}

/* ---- Formats ---- */

static void test_shards_are_read_as_written(void **state) {
    (void)state;
    const int32_t tokens[] = { 0, 1, 255, 256, 65535, 7 }, wide[] = { 65536, -1, 0, 16777215, 3 };
    Shard shard;
    assert_true(shard_write(at("narrow.bin"), tokens, 6, 65536, error));
    assert_true(shard_open(&shard, at("narrow.bin"), false, error));
    assert_int_equal(shard.count, 6);
    assert_int_equal(shard.width, 2);
    assert_int_equal(shard.map.size, HEADER + 12);
    for (int i = 0; i < 6; i++) assert_int_equal(shard_token(&shard, i), tokens[i]);
    shard_close(&shard);
    assert_true(shard_write(at("wide.bin"), wide, 5, 16777216, error));
    assert_true(shard_open(&shard, at("wide.bin"), false, error));
    assert_int_equal(shard.count, 5);
    assert_int_equal(shard.width, 4);
    assert_int_equal(shard.map.size, HEADER + 20);
    for (int i = 0; i < 5; i++) assert_int_equal(shard_token(&shard, i), wide[i]);
    shard_close(&shard);
}

static void test_shards_have_llmc_bytes(void **state) {
    (void)state;
    const int32_t tokens[] = { 0x0201, 0x0403 };
    unsigned char *expected = shard_bytes(HEADER + 4, MAGIC16, 1, 2);
    memcpy(expected + HEADER, "\1\2\3\4", 4);
    FileMap map;
    assert_true(shard_write(at("bytes.bin"), tokens, 2, 50257, error));
    assert_true(file_map(&map, at("bytes.bin"), error));
    assert_int_equal(map.size, HEADER + 4);
    assert_memory_equal(map.data, expected, HEADER + 4);
    file_unmap(&map);
    free(expected);
}

static void test_unaligned_and_headerless_memory(void **state) {
    (void)state;
    Shard shard;
    unsigned char *bytes = shard_bytes(HEADER + 8, MAGIC32, 7, 2), *moved = xmalloc(HEADER + 9);
    put_u32(bytes + HEADER + 4, 123456789);
    memcpy(moved + 1, bytes, HEADER + 8);
    assert_true(shard_parse(&shard, moved + 1, HEADER + 8, "x", false, error));
    assert_int_equal(shard_token(&shard, 1), 123456789);
    memcpy(moved + 1, "\1\0\2\0\377\377", 6);
    assert_true(shard_parse(&shard, moved + 1, 6, "x", true, error));
    assert_int_equal(shard.count, 3);
    assert_int_equal(shard_token(&shard, 1), 2);
    assert_int_equal(shard_token(&shard, 2), 65535);
    assert_true(shard_parse(&shard, moved + 1, 2, "x", true, error));
    assert_int_equal(shard.count, 1);
    assert_true(shard_parse(&shard, bytes, HEADER + 8, "x", true, error));   /* a real shard stays one */
    assert_int_equal(shard.width, 4);
    free(bytes);
    free(moved);
}

static void test_damaged_shards_are_refused(void **state) {
    (void)state;
    expect_refused(0, MAGIC16, 1, 0, false, "is empty");
    expect_refused(0, MAGIC16, 1, 0, true, "is empty");
    expect_refused(3, MAGIC16, 1, 0, false, "no token shard");
    expect_refused(4, MAGIC16, 1, 0, false, "cut off");
    expect_refused(HEADER - 1, MAGIC32, 7, 1, true, "cut off: it has 1023 bytes");
    expect_refused(HEADER + 2, MAGIC16, 2, 1, false, "version 2");
    expect_refused(HEADER + 4, MAGIC32, 1, 1, false, "version 1");
    expect_refused(HEADER, MAGIC16, 1, 0, false, "no tokens");
    expect_refused(HEADER + 2, MAGIC16, 1, 0xFFFFFFFFu, false, "no tokens: its header counts -1");
    expect_refused(HEADER + 20, MAGIC16, 1, 11, false, "counts 11 tokens (22 bytes), but 20 bytes follow");
    expect_refused(HEADER + 21, MAGIC16, 1, 10, false, "counts 10 tokens (20 bytes), but 21 bytes follow");
    expect_refused(HEADER + 20, MAGIC32, 7, 10, true, "counts 10 tokens (40 bytes), but 20 bytes follow");
    expect_refused(HEADER + 4, MAGIC32, 7, 0x7FFFFFFF, false, "counts 2147483647 tokens (8589934588 bytes)");
    expect_refused(100, 1234567, 0, 0, false, "begins with 1234567");
    expect_refused(100, 1234567, 0, 0, false, "--vocab-size");
    expect_refused(101, 1234567, 0, 0, true, "odd number of bytes, 101");
}

static void test_shard_write_refuses(void **state) {
    (void)state;
    int32_t token = 0;
    assert_false(shard_write(at("none.bin"), &token, 0, 10, error));
    assert_false(path_exists(at("none.bin")));
    assert_false(shard_write(at("no such directory/x.bin"), &token, 1, 10, error));
    assert_non_null(strstr(error, "no such directory"));
}

/* ---- dataset.json ---- */

static void test_dataset_info(void **state) {
    (void)state;
    static const char whole[] = "{\"vocab_size\": 65, \"tokenizer\": \"characters\", \"source\": \"a \\\"book\\\"\", \"sha256\": \"0f\", "
                                "\"tokens\": {\"train\": 9, \"val\": 1}}";
    DatasetInfo info;
    make("info");
    assert_true(dataset_info_read(&info, at("info/train.bin"), error));
    assert_true(info.vocab_size == 0 && !info.tokenizer && !info.source && !info.sha256 && !info.directory);
    write_bytes(at("info/dataset.json"), whole, strlen(whole));
    const char *names[] = { "info/train.bin", "info", "info/*.bin" };
    for (int i = 0; i < 3; i++) {
        assert_true(dataset_info_read(&info, at(names[i]), error));
        assert_int_equal(info.vocab_size, 65);
        assert_string_equal(info.tokenizer, "characters");
        assert_string_equal(info.source, "a \"book\"");
        assert_string_equal(info.sha256, "0f");
        assert_string_equal(info.directory, at("info"));
        dataset_info_free(&info);
    }
    write_bytes(at("info/dataset.json"), "{}", 2);
    assert_true(dataset_info_read(&info, at("info"), error));
    assert_true(info.vocab_size == 0 && !info.tokenizer && info.directory);
    dataset_info_free(&info);
}

static void test_broken_dataset_info_is_refused(void **state) {
    (void)state;
    const char *texts[] = { "", "{", "[]", "{\"vocab_size\": 0}", "{\"vocab_size\": 2.5}", "{\"vocab_size\": \"65\"}",
                            "{\"vocab_size\": 2147483648}", "{\"tokenizer\": 1}", "{\"vocab_size\": 65, \"source\": null}",
                            "{\"sha256\": []}" };
    make("broken");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        DatasetInfo info;
        write_bytes(at("broken/dataset.json"), texts[i], strlen(texts[i]));
        if (dataset_info_read(&info, at("broken/train.bin"), error)) fail_msg("accepted: %s", texts[i]);
        assert_non_null(strstr(error, "broken/dataset.json"));
        assert_true(!info.tokenizer && !info.directory && info.vocab_size == 0);
    }
}

/* ---- Opening ---- */

static void open_narrow(const char *path) { dataloader_open(path, SAMPLE_CROPS, 8, 100, 1, false); }
static void open_headerless(const char *path) { dataloader_open(path, SAMPLE_SHARDS, 8, 100, 1, true); }

static void test_unreadable_files_die(void **state) {
    (void)state;
    make("bad");
    expect_death(open_narrow, at("bad/missing.bin"), "no token file", "missing.bin", "data/prepare.sh", NULL);
    expect_death(open_narrow, at("bad/*.bin"), "no token file", "*.bin", NULL);
    expect_death(open_narrow, at("bad"), "no token shards", "bad", NULL);
    write_bytes(at("bad/text.bin"), "Once upon a time there was", 26);
    expect_death(open_narrow, at("bad/text.bin"), "no token shard", "text.bin", "nanogpt_meta.py", NULL);
    write_bytes(at("bad/odd.bin"), "Once upon a time there were", 27);
    expect_death(open_headerless, at("bad/odd.bin"), "odd.bin", "odd number of bytes, 27", NULL);
    write_bytes(at("bad/few.bin"), "Once", 4);
    expect_death(open_headerless, at("bad/few.bin"), "few.bin' holds 2 tokens", NULL);
    write_counting(at("bad/short.bin"), 8, 0, 100);
    expect_death(open_narrow, at("bad/short.bin"), "'", "short.bin' holds 8 tokens, fewer than the 9", "--seq-len 8", NULL);
    write_counting(at("bad/shorter.bin"), 3, 0, 100);
    expect_death(open_narrow, at("bad/short*.bin"), "short.bin', the longest file of '", "holds 8 tokens", NULL);
    expect_death(open_narrow, at("bad"), "no token shard", "few.bin", NULL);   /* one damaged file spoils a directory */
    write_bytes(at("bad/empty.bin"), "", 0);
    expect_death(open_narrow, at("bad/empty.bin"), "empty.bin' is empty", NULL);
    assert_int_equal(mkfifo(at("bad/pipe"), 0600), 0);
    expect_death(open_narrow, at("bad/pipe"), "pipe", "regular file", NULL);
    assert_int_equal(symlink("nowhere", at("bad/dangling.bin")), 0);
    expect_death(open_narrow, at("bad/dangling.bin"), "dangling.bin", NULL);
}

static void test_patterns(void **state) {
    (void)state;
    make("many");
    write_counting(at("many/b[1].bin"), 20, 20, 100);
    write_counting(at("many/a.bin"), 20, 0, 100);
    write_counting(at("many/c.bin"), 5, 40, 100);   /* too short for a row: left out with a warning */
    write_bytes(at("many/notes.txt"), "x", 1);
    const struct { const char *pattern; int64_t tokens; } cases[] = {
        { "many", 45 }, { "many/", 45 }, { "many/[ab]*.bin", 40 }, { "many/b[1].bin", 20 }, { "many/a.bin", 20 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        DataLoader *loader = open_quietly(at(cases[i].pattern), SAMPLE_CROPS, 8, 100, 1);
        assert_int_equal(dataloader_tokens(loader), cases[i].tokens);
        assert_int_equal(dataloader_rows(loader), cases[i].tokens / 20 * 2);
        dataloader_close(loader);
    }
}

/* ---- Rows ---- */

static void test_crops(void **state) {
    (void)state;
    enum { N1 = 12, N2 = 9, T = 8, PLACES = (N1 - T) + (N2 - T), DRAWS = 20000 };
    make("crops");
    write_counting(at("crops/1.bin"), N1, 0, 100);
    write_counting(at("crops/2.bin"), N2, 50, 100);
    DataLoader *loader = dataloader_open(at("crops"), SAMPLE_CROPS, T, 100, 7, false);
    int32_t tokens[T], targets[T], counts[100] = { 0 }, previous = -1, repeats = 0;
    for (int64_t row = 0; row < DRAWS; row++) {
        assert_int_equal(dataloader_batch(loader, row, 1, tokens, targets), T);
        for (int t = 0; t < T; t++) {
            assert_int_equal(tokens[t], tokens[0] + t);   /* consecutive, so never across two shards */
            assert_int_equal(targets[t], tokens[t] + 1);
        }
        counts[tokens[0]]++;
        repeats += tokens[0] == previous;
        previous = tokens[0];
    }
    /* Places 0 ... 3 of the first shard and 0 of the second, each within five deviations of a fair share. */
    double share = (double)DRAWS / PLACES, deviation = sqrt(share * (1 - 1.0 / PLACES));
    for (int first = 0; first < 100; first++) {
        bool place = first < N1 - T || first == 50;
        assert_true(place ? fabs(counts[first] - share) < 5 * deviation : counts[first] == 0);
    }
    assert_true(fabs(repeats - share) < 5 * deviation);
    dataloader_close(loader);
}

/* Shards of unequal length, and an epoch's rows of them: row k of shard s begins with token 1000 s + k T. */
enum { SHARDS = 5, SHUFFLE_T = 4 };
static const int64_t shard_lengths[SHARDS] = { 5, 41, 40, 3, 170 };   /* 1 + 10 + 9 + 0 + 42 rows */

static DataLoader *open_shuffled(const char *name, uint64_t seed) {
    make(name);
    for (int s = 0; s < SHARDS; s++) {
        char file[64];
        snprintf(file, sizeof file, "%s/%d.bin", name, s);
        write_counting(at(file), shard_lengths[s], 1000 * s, 5000);
    }
    return open_quietly(at(name), SAMPLE_SHARDS, SHUFFLE_T, 5000, seed);
}

static void test_an_epoch_holds_every_row_once(void **state) {
    (void)state;
    enum { ROWS = 62, EPOCHS = 40 };
    DataLoader *loader = open_shuffled("epoch", 3);
    assert_int_equal(dataloader_rows(loader), ROWS);
    int32_t tokens[ROWS * SHUFFLE_T], targets[ROWS * SHUFFLE_T], previous[ROWS * SHUFFLE_T] = { 0 };
    bool first_visited[SHARDS] = { false };
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        int seen[5000] = { 0 }, changes = 0, ascending = 0;
        assert_int_equal(dataloader_batch(loader, (int64_t)epoch * ROWS, ROWS, tokens, targets), ROWS * SHUFFLE_T);
        for (int i = 0; i < ROWS; i++) {
            const int32_t *row = tokens + i * SHUFFLE_T;
            seen[row[0]]++;
            for (int t = 0; t < SHUFFLE_T; t++) assert_true(row[t] == row[0] + t && targets[i * SHUFFLE_T + t] == row[t] + 1);
            changes += i > 0 && row[0] / 1000 != row[-SHUFFLE_T] / 1000;
            ascending += i > 0 && row[0] == row[-SHUFFLE_T] + SHUFFLE_T;
        }
        for (int s = 0; s < SHARDS; s++)
            for (int k = 0; k < (shard_lengths[s] - 1) / SHUFFLE_T; k++) assert_int_equal(seen[1000 * s + k * SHUFFLE_T], 1);
        assert_int_equal(changes, SHARDS - 2);   /* one shard after the other: reads stay local */
        assert_true(ascending < 20);             /* in a random order the next row follows its neighbour about 3 times in 62 */
        assert_memory_not_equal(tokens, previous, sizeof tokens);
        memcpy(previous, tokens, sizeof tokens);
        first_visited[tokens[0] / 1000] = true;
    }
    for (int s = 0; s < SHARDS; s++) assert_true(first_visited[s] == (s != 3));   /* missed by chance once in 25,000 seeds */
    dataloader_close(loader);
}

static void test_rows_depend_on_their_number_alone(void **state) {
    (void)state;
    enum { ROWS = 200 };
    static int32_t all[2][ROWS * SHUFFLE_T], targets[2][ROWS * SHUFFLE_T], some[ROWS * SHUFFLE_T], unused[ROWS * SHUFFLE_T];
    DataLoader *shuffled = open_shuffled("alone", 11);
    DataLoader *crops = open_quietly(at("alone"), SAMPLE_CROPS, SHUFFLE_T, 5000, 11);
    for (int which = 0; which < 2; which++) {
        DataLoader *loader = which ? crops : shuffled;
        dataloader_batch(loader, 0, ROWS, all[which], targets[which]);
        /* Four ranks of micro-batches of three rows, and a resume in the middle of the second epoch, see parts of the same list. */
        for (int64_t first = 0; first + 3 <= ROWS; first += 3) {
            dataloader_batch(loader, first, 3, some, unused);
            assert_memory_equal(some, all[which] + first * SHUFFLE_T, 3 * SHUFFLE_T * sizeof *some);
            assert_memory_equal(unused, targets[which] + first * SHUFFLE_T, 3 * SHUFFLE_T * sizeof *some);
        }
        for (int64_t row = ROWS - 1; row >= 0; row -= 7) {
            dataloader_batch(loader, row, 1, some, unused);
            assert_memory_equal(some, all[which] + row * SHUFFLE_T, SHUFFLE_T * sizeof *some);
        }
    }
    DataLoader *again = open_quietly(at("alone"), SAMPLE_SHARDS, SHUFFLE_T, 5000, 11);
    dataloader_batch(again, 100, 100, some, unused);
    assert_memory_equal(some, all[0] + 100 * SHUFFLE_T, 100 * SHUFFLE_T * sizeof *some);
    dataloader_close(again);
    DataLoader *other = open_quietly(at("alone"), SAMPLE_SHARDS, SHUFFLE_T, 5000, 12);
    dataloader_batch(other, 0, ROWS, some, unused);
    assert_memory_not_equal(some, all[0], sizeof some);
    dataloader_close(other);
    dataloader_close(shuffled);
    dataloader_close(crops);
}

/* Every order of four rows comes up, each within five deviations of a fair share of the epochs: small bijections are fair ones. */
static void test_orders_are_equally_likely(void **state) {
    (void)state;
    enum { ROWS = 4, ORDERS = 24, EPOCHS = 12000 };
    write_counting(at("four.bin"), 5, 0, 10);
    DataLoader *loader = dataloader_open(at("four.bin"), SAMPLE_SHARDS, 1, 10, 5, false);
    int counts[256] = { 0 }, orders = 0;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int32_t row[ROWS], unused[ROWS];
        dataloader_batch(loader, epoch * ROWS, ROWS, row, unused);
        counts[row[0] << 6 | row[1] << 4 | row[2] << 2 | row[3]]++;
    }
    double share = (double)EPOCHS / ORDERS, deviation = sqrt(share * (1 - 1.0 / ORDERS));
    for (int i = 0; i < 256; i++) {
        orders += counts[i] > 0;
        assert_true(counts[i] == 0 || fabs(counts[i] - share) < 5 * deviation);
    }
    assert_int_equal(orders, ORDERS);
    dataloader_close(loader);
}

static void test_lengths_of_every_size_are_permuted(void **state) {
    (void)state;
    enum { MOST = 300 };
    static int32_t tokens[MOST], targets[MOST];
    for (int rows = 1; rows <= MOST; rows += rows < 40 ? 1 : 37) {
        int64_t sum = 0;
        write_counting(at("sizes.bin"), rows + 1, 0, 1000);
        DataLoader *loader = dataloader_open(at("sizes.bin"), SAMPLE_SHARDS, 1, 1000, rows, false);
        dataloader_batch(loader, 0, rows, tokens, targets);
        bool seen[MOST] = { false };
        for (int i = 0; i < rows; i++) {
            assert_true(tokens[i] < rows && !seen[tokens[i]]);
            seen[tokens[i]] = true;
            sum += tokens[i];
        }
        assert_int_equal(sum, (int64_t)rows * (rows - 1) / 2);
        dataloader_close(loader);
    }
}

static void test_in_order(void **state) {
    (void)state;
    make("ordered");
    write_counting(at("ordered/1.bin"), 11, 0, 100);    /* rows 0-3, 3-6, 6-9 */
    write_counting(at("ordered/2.bin"), 5, 50, 100);    /* row 50-53 */
    DataLoader *loader = dataloader_open(at("ordered"), SAMPLE_CROPS, 3, 100, 1, false);
    int32_t tokens[6 * 3], targets[6 * 3];
    const int32_t firsts[] = { 0, 3, 6, 50, 0, 3 };
    assert_int_equal(dataloader_batch_in_order(loader, 0, 6, tokens, targets), 18);
    for (int i = 0; i < 18; i++) {
        assert_int_equal(tokens[i], firsts[i / 3] + i % 3);
        assert_int_equal(targets[i], tokens[i] + 1);
    }
    assert_int_equal(dataloader_batch_in_order(loader, 4 * 1000000007LL + 2, 1, tokens, targets), 3);
    assert_int_equal(tokens[0], 6);
    dataloader_close(loader);
}

static void test_nanogpt_files(void **state) {
    (void)state;
    const unsigned char bytes[] = { 5, 0, 6, 0, 7, 0, 0, 1 };
    int32_t tokens[3], targets[3];
    write_bytes(at("nano.bin"), bytes, sizeof bytes);
    DataLoader *loader = dataloader_open(at("nano.bin"), SAMPLE_CROPS, 3, 257, 1, true);
    assert_int_equal(dataloader_batch(loader, 0, 1, tokens, targets), 3);
    assert_true(tokens[0] == 5 && tokens[2] == 7 && targets[2] == 256);
    dataloader_close(loader);
}

/* ---- Tokens ---- */

enum { CHECKED_FIRST = 1 << 20, TAIL = 9 };   /* the tokens of a file that dataloader_open looks at; rows of four divide them */

static void open_only(const char *path) { dataloader_close(dataloader_open(path, SAMPLE_CROPS, 4, 300, 1, false)); }

static void read_tail(const char *path) {
    int32_t tokens[8], targets[8];
    DataLoader *loader = dataloader_open(path, SAMPLE_CROPS, 4, 300, 1, false);
    dataloader_batch_in_order(loader, CHECKED_FIRST / 4, 2, tokens, targets);
    dataloader_close(loader);
}

/* A wide shard of zeros that ends with these nine tokens. */
static void write_tail(const char *path, int64_t zeros, const uint32_t tail[TAIL]) {
    size_t size = HEADER + 4 * (zeros + TAIL);
    unsigned char *bytes = shard_bytes(size, MAGIC32, 7, zeros + TAIL);
    for (int i = 0; i < TAIL; i++) put_u32(bytes + HEADER + 4 * (zeros + i), tail[i]);
    write_bytes(path, bytes, size);
    free(bytes);
}

static void test_tokens_outside_the_vocabulary_die(void **state) {
    (void)state;
    const uint32_t good[TAIL] = { 0, 299, 2, 3, 4, 5, 6, 7, 0xFFFFFFFF }, large[TAIL] = { 0, 299, 2, 3, 4, 5, 300, 7, 8 };
    const uint32_t masked[TAIL] = { 0, 1, 2, 3, 4, 5, 0xFFFFFFFF, 7, 8 }, negative[TAIL] = { 0, 1, 2, 3, 4, 5, 6, 7, 0xFFFFFFFE };
    write_tail(at("good.bin"), CHECKED_FIRST, good);
    read_tail(at("good.bin"));
    write_tail(at("large.bin"), 0, large);
    expect_death(open_only, at("large.bin"), "large.bin'", "offset 6 is 300", "the vocabulary has 300 tokens", "--vocab-size", NULL);
    write_tail(at("large.bin"), CHECKED_FIRST, large);
    open_only(at("large.bin"));
    expect_death(read_tail, at("large.bin"), "large.bin'", "offset 1048582 is 300", NULL);
    write_tail(at("masked.bin"), CHECKED_FIRST, masked);
    expect_death(read_tail, at("masked.bin"), "masked.bin'", "offset 1048582", "no target", NULL);
    write_tail(at("negative.bin"), 0, negative);
    expect_death(open_only, at("negative.bin"), "offset 8 is 4294967294", NULL);
    write_tail(at("negative.bin"), CHECKED_FIRST, negative);
    expect_death(read_tail, at("negative.bin"), "offset 1048584 is 4294967294", NULL);
}

static void test_masked_targets_are_counted_out(void **state) {
    (void)state;
    const int32_t stream[] = { 70000, 1, 2, 3, 4, 5, -1 };
    int32_t tokens[6], targets[6];
    assert_true(shard_write(at("mask.bin"), stream, 7, 70001, error));
    DataLoader *loader = dataloader_open(at("mask.bin"), SAMPLE_CROPS, 3, 70001, 1, false);
    assert_int_equal(dataloader_batch_in_order(loader, 0, 2, tokens, targets), 5);
    assert_int_equal(tokens[0], 70000);
    assert_int_equal(targets[4], 5);
    assert_int_equal(targets[5], -1);
    dataloader_close(loader);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_are_read_as_written),
        cmocka_unit_test(test_shards_have_llmc_bytes),
        cmocka_unit_test(test_unaligned_and_headerless_memory),
        cmocka_unit_test(test_damaged_shards_are_refused),
        cmocka_unit_test(test_shard_write_refuses),
        cmocka_unit_test(test_dataset_info),
        cmocka_unit_test(test_broken_dataset_info_is_refused),
        cmocka_unit_test(test_unreadable_files_die),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_crops),
        cmocka_unit_test(test_an_epoch_holds_every_row_once),
        cmocka_unit_test(test_rows_depend_on_their_number_alone),
        cmocka_unit_test(test_orders_are_equally_likely),
        cmocka_unit_test(test_lengths_of_every_size_are_permuted),
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_nanogpt_files),
        cmocka_unit_test(test_tokens_outside_the_vocabulary_die),
        cmocka_unit_test(test_masked_targets_are_counted_out),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
