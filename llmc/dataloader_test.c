/* dataloader_test.c: refusals, order and completeness of the data loader. */
#include "dataloader_test.h"

#include <math.h>
#include <sys/stat.h>

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
    write_bytes(at("bad/few.bin"), "\1\0\2\0", 4);
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

/* Row n is row n % rows from then on, and what was made ahead of that is forgotten. */
static void test_repeated_rows(void **state) {
    (void)state;
    enum { ROWS = 6, FAR = 1000 };
    int32_t first[ROWS * SHUFFLE_T], targets[ROWS * SHUFFLE_T], some[ROWS * SHUFFLE_T], some_targets[ROWS * SHUFFLE_T];
    for (int order = SAMPLE_CROPS; order <= SAMPLE_SHARDS; order++) {
        dataloader_close(open_shuffled("repeated", 11));
        DataLoader *loader = open_quietly(at("repeated"), (SampleOrder)order, SHUFFLE_T, 5000, 11);
        dataloader_batch(loader, 0, ROWS, first, targets);
        dataloader_prefetch(loader, FAR * ROWS, ROWS);
        dataloader_repeat(loader, ROWS);
        dataloader_batch(loader, FAR * ROWS, ROWS, some, some_targets);
        assert_memory_equal(some, first, sizeof some);
        assert_memory_equal(some_targets, targets, sizeof some);
        for (int64_t row = 0; row < 3 * ROWS; row++)
            for (int64_t ahead = 0; ahead < 2; ahead++) {   /* parts of ranks, from any row on, across the end too */
                if (ahead) dataloader_prefetch(loader, row, 4);
                dataloader_batch(loader, row, 4, some, some_targets);
                for (int64_t i = 0; i < 4; i++) {
                    const int64_t same = (row + i) % ROWS * SHUFFLE_T;
                    assert_memory_equal(some + i * SHUFFLE_T, first + same, SHUFFLE_T * sizeof *some);
                    assert_memory_equal(some_targets + i * SHUFFLE_T, targets + same, SHUFFLE_T * sizeof *some);
                }
            }
        dataloader_close(loader);
    }
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

static void open_directory(const char *path) { dataloader_close(dataloader_open(path, SAMPLE_CROPS, 4, 300, 1, false)); }

/* Behind a first file that uses up what is looked at, the first page of the others still is. */
static void test_every_file_is_looked_at(void **state) {
    (void)state;
    const uint32_t good[TAIL] = { 0 }, large[TAIL] = { 0, 1, 2, 3, 4, 5, 6, 7, 300 };
    make("files");
    write_tail(at("files/1.bin"), CHECKED_FIRST, good);
    write_tail(at("files/2.bin"), 768, large);
    open_directory(at("files"));
    write_tail(at("files/2.bin"), 768 - TAIL, large);
    expect_death(open_directory, at("files"), "files/2.bin'", "offset 767 is 300", NULL);
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
        cmocka_unit_test(test_unreadable_files_die),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_crops),
        cmocka_unit_test(test_an_epoch_holds_every_row_once),
        cmocka_unit_test(test_rows_depend_on_their_number_alone),
        cmocka_unit_test(test_repeated_rows),
        cmocka_unit_test(test_orders_are_equally_likely),
        cmocka_unit_test(test_lengths_of_every_size_are_permuted),
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_nanogpt_files),
        cmocka_unit_test(test_tokens_outside_the_vocabulary_die),
        cmocka_unit_test(test_every_file_is_looked_at),
        cmocka_unit_test(test_masked_targets_are_counted_out),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
