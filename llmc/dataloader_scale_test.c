/* dataloader_scale_test.c: thousands of shards, ranks, resuming, batches made ahead, and rows that begin at documents. */
#include "dataloader_test.h"

#include <dirent.h>

enum { T = 4 };

/* ---- Thousands of shards ---- */

enum { SHARDS = 3000, VOCAB = SHARDS * 100 };

/* Token i of shard s is 100 s + i; every tenth shard is too short for a row. */
static int64_t length_of(int s) { return s % 10 == 3 ? T : T + 1 + s * 7 % 50; }
static int64_t rows_of(int s) { return (length_of(s) - 1) / T; }

/* Without the sync of a FileWriter, which would take minutes. */
static void write_wide(const char *path, const uint32_t *tokens, int64_t count) {
    unsigned char *bytes = shard_bytes(HEADER + 4 * count, MAGIC32, 7, count);
    for (int64_t i = 0; i < count; i++) put_u32(bytes + HEADER + 4 * i, tokens[i]);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, HEADER + 4 * count, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    free(bytes);
}

static void write_thousands(void) {
    if (path_exists(at("thousands"))) return;
    make("thousands");
    for (int s = 0; s < SHARDS; s++) {
        char name[64];
        uint32_t tokens[100];
        for (int i = 0; i < 100; i++) tokens[i] = 100 * s + i;
        snprintf(name, sizeof name, "thousands/%06d.bin", s);
        write_wide(at(name), tokens, length_of(s));
    }
}

static DataLoader *open_thousands(SampleOrder order) {
    write_thousands();
    return open_quietly(at("thousands"), order, T, VOCAB, 17);
}

static int open_descriptors(void) {
    int n = 0;
    DIR *list = opendir("/proc/self/fd");
    if (!list) return 0;
    while (readdir(list)) n++;
    closedir(list);
    return n;
}

static int maps_of_shards(void) {
    char line[1024];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) n += strstr(line, "thousands/") != NULL;
    if (maps) fclose(maps);
    return n;
}

static void test_an_epoch_of_thousands_of_shards(void **state) {
    (void)state;
    enum { BATCH = 32 };
    static bool seen[VOCAB];
    memset(seen, 0, sizeof seen);
    int descriptors = open_descriptors(), changes = 0, shard = -1;
    DataLoader *loader = open_thousands(SAMPLE_SHARDS);
    int64_t rows = 0, total = 0, most = 0;
    for (int s = 0; s < SHARDS; s++) total += rows_of(s);
    assert_int_equal(dataloader_rows(loader), total);
    assert_int_equal(maps_of_shards(), 0);
    while (rows < total) {
        int32_t tokens[BATCH * T], targets[BATCH * T];
        int64_t n = total - rows < BATCH ? total - rows : BATCH;
        assert_int_equal(dataloader_batch(loader, 5 * total + rows, n, tokens, targets), n * T);
        for (int64_t i = 0; i < n; i++) {
            int32_t first = tokens[i * T];
            assert_true(first % 100 % T == 0 && !seen[first]);
            seen[first] = true;
            changes += first / 100 != shard;
            shard = first / 100;
            for (int t = 0; t < T; t++) assert_true(tokens[i * T + t] == first + t && targets[i * T + t] == first + t + 1);
        }
        rows += n;
        if (rows / BATCH % 100 == 0 && maps_of_shards() > most) most = maps_of_shards();
    }
    assert_int_equal(changes, SHARDS - SHARDS / 10);   /* each shard that has rows is visited once */
    assert_true(most > 0 && most <= 1024 && maps_of_shards() <= 1024);
    assert_int_equal(open_descriptors(), descriptors);
    dataloader_close(loader);
    assert_int_equal(maps_of_shards(), 0);
}

static void test_crops_of_thousands_of_shards(void **state) {
    (void)state;
    enum { ROWS = 6000 };
    static int32_t tokens[ROWS * T], targets[ROWS * T], again[T], unused[T];
    DataLoader *loader = open_thousands(SAMPLE_CROPS);
    assert_int_equal(dataloader_batch(loader, 0, ROWS, tokens, targets), ROWS * T);
    assert_true(maps_of_shards() <= 1024);
    for (int64_t row = 0; row < ROWS; row += 13) {   /* most of them from shards that were unmapped since */
        dataloader_batch(loader, row, 1, again, unused);
        assert_memory_equal(again, tokens + row * T, sizeof again);
    }
    for (int64_t i = 0; i < ROWS; i++)
        for (int t = 0; t < T; t++) assert_true(tokens[i * T + t] == tokens[i * T] + t && targets[i * T + t] == tokens[i * T] + t + 1);
    dataloader_close(loader);
}

/* W ranks of G micro-batches of B rows, each rank with a loader of its own: together they see the rows of a step, each once, however a rank takes
   its share: as one piece, or a piece of each micro-batch. */
static void test_ranks_share_the_rows(void **state) {
    (void)state;
    enum { W = 3, G = 2, B = 4, STEP = W * G * B, STEPS = 5 };
    int32_t whole[STEP * T], whole_targets[STEP * T], pieces[STEP * T], piece_targets[STEP * T];
    DataLoader *all = open_thousands(SAMPLE_SHARDS), *of_rank[W];
    for (int r = 0; r < W; r++) of_rank[r] = open_thousands(SAMPLE_SHARDS);
    int64_t samples = 3 * dataloader_rows(all) - 2 * STEP - 1;   /* the third step crosses into the next epoch */
    for (int step = 0; step < STEPS; step++, samples += STEP) {
        dataloader_batch(all, samples, STEP, whole, whole_targets);
        for (int r = 0; r < W; r++) {
            int64_t first = (int64_t)r * G * B;
            dataloader_batch(of_rank[r], samples + first, G * B, pieces + first * T, piece_targets + first * T);
        }
        assert_memory_equal(pieces, whole, sizeof whole);
        assert_memory_equal(piece_targets, whole_targets, sizeof whole);
        memset(pieces, 0, sizeof pieces);
        for (int r = W - 1; r >= 0; r--)
            for (int g = 0; g < G; g++) {
                int64_t first = (g * W + r) * B;
                dataloader_batch(of_rank[r], samples + first, B, pieces + first * T, piece_targets + first * T);
            }
        assert_memory_equal(pieces, whole, sizeof whole);
    }
    for (int r = 0; r < W; r++) dataloader_close(of_rank[r]);
    dataloader_close(all);
}

/* A run that stops anywhere goes on with the row it would have had, for it knows how many it has used: in any of several epochs. */
static void test_resuming_needs_the_count_alone(void **state) {
    (void)state;
    enum { STEP = 12 };
    int32_t tokens[STEP * T], targets[STEP * T], again[STEP * T], unused[STEP * T];
    for (int order = SAMPLE_CROPS; order <= SAMPLE_SHARDS; order++) {
        DataLoader *loader = open_thousands((SampleOrder)order);
        int64_t rows = dataloader_rows(loader), stops[] = { 0, 7, rows - STEP, rows - 5, rows, 2 * rows + 12345, 40 * rows - 1 };
        for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
            dataloader_batch(loader, stops[i], STEP, tokens, targets);
            DataLoader *resumed = open_thousands((SampleOrder)order);
            dataloader_batch(resumed, stops[i], STEP, again, unused);
            assert_memory_equal(again, tokens, sizeof tokens);
            assert_memory_equal(unused, targets, sizeof tokens);
            dataloader_close(resumed);
        }
        dataloader_close(loader);
    }
}

static void replace_and_read(const char *path) {
    int32_t tokens[T], targets[T];
    uint32_t other[2 * T + 2] = { 0 };
    DataLoader *loader = dataloader_open(path, SAMPLE_CROPS, T, 10, 1, false);
    write_wide(path, other, 2 * T + 2);
    dataloader_batch(loader, 0, 1, tokens, targets);
}

static void test_a_file_that_changes_dies(void **state) {
    (void)state;
    const uint32_t tokens[2 * T] = { 0 };
    write_wide(at("changing.bin"), tokens, 2 * T);
    expect_death(replace_and_read, at("changing.bin"), "changing.bin' has changed while it was in use: it held 8 tokens", NULL);
}

/* ---- Batches made ahead ---- */

enum { AHEAD = 8 };

static void expect_same(DataLoader *loader, DataLoader *plain, int64_t first_row, int64_t rows) {
    int32_t tokens[2 * AHEAD * T], targets[2 * AHEAD * T], expected[2 * AHEAD * T], expected_targets[2 * AHEAD * T];
    int64_t valid = dataloader_batch(loader, first_row, rows, tokens, targets);
    assert_int_equal(valid, dataloader_batch(plain, first_row, rows, expected, expected_targets));
    assert_memory_equal(tokens, expected, rows * T * sizeof *tokens);
    assert_memory_equal(targets, expected_targets, rows * T * sizeof *tokens);
}

static void test_batches_made_ahead_are_the_same(void **state) {
    (void)state;
    int32_t tokens[AHEAD * T], targets[AHEAD * T], in_order[AHEAD * T], unused[AHEAD * T];
    for (int order = SAMPLE_CROPS; order <= SAMPLE_SHARDS; order++) {
        DataLoader *loader = open_thousands((SampleOrder)order), *plain = open_thousands((SampleOrder)order);
        for (int64_t row = dataloader_rows(plain) - 50 * AHEAD - 3; row < dataloader_rows(plain) + 50 * AHEAD; row += AHEAD) {
            dataloader_prefetch(loader, row + AHEAD, AHEAD);
            expect_same(loader, plain, row, AHEAD);              /* other rows than those made ahead */
            dataloader_prefetch(loader, row + AHEAD, AHEAD);
            if (row % 3 == 0) {   /* an evaluation in between */
                dataloader_batch_in_order(loader, row, AHEAD, tokens, targets);
                dataloader_batch_in_order(plain, row, AHEAD, in_order, unused);
                assert_memory_equal(tokens, in_order, sizeof tokens);
            }
            expect_same(loader, plain, row + AHEAD, AHEAD);
            dataloader_prefetch(loader, row, AHEAD);
            dataloader_prefetch(loader, row, 2 * AHEAD);         /* the later wish counts, and buffers grow */
            if (row % 2) expect_same(loader, plain, row, AHEAD); /* the same first row, but fewer */
            expect_same(loader, plain, row, 2 * AHEAD);
        }
        dataloader_prefetch(loader, 0, AHEAD);
        dataloader_close(loader);   /* with the thread under way */
        dataloader_close(plain);
    }
}

/* That the rows made ahead are what dataloader_batch hands out: the file changes in between, its length does not. */
static void test_batches_made_ahead_are_used(void **state) {
    (void)state;
    const uint32_t before[2 * T] = { 0, 1, 2, 3, 4, 5, 6, 7 }, after[2 * T] = { 9, 9, 9, 9, 9, 9, 9, 9 };
    int32_t tokens[AHEAD * T], targets[AHEAD * T];
    write_wide(at("ahead.bin"), before, 2 * T);
    DataLoader *loader = dataloader_open(at("ahead.bin"), SAMPLE_CROPS, T, 10, 1, false);
    dataloader_prefetch(loader, 3, AHEAD);
    dataloader_batch_in_order(loader, 0, 1, tokens, targets);   /* returns when the thread has ended */
    write_wide(at("ahead.bin"), after, 2 * T);
    dataloader_batch(loader, 3, AHEAD, tokens, targets);
    for (int i = 0; i < AHEAD * T; i++) assert_true(tokens[i] < 8 && targets[i] == tokens[i] + 1);
    dataloader_batch(loader, 3, AHEAD, tokens, targets);        /* made anew: it is handed out once */
    for (int i = 0; i < AHEAD * T; i++) assert_true(tokens[i] == 9 && targets[i] == 9);
    dataloader_close(loader);
}

enum { BAD_AT = 5000 };

/* Opens a file of zeros, one of which is then overwritten, so that it is not met before a batch is made. */
static DataLoader *open_with_a_bad_token(const char *path) {
    static uint32_t tokens[BAD_AT + 100];
    tokens[BAD_AT] = 0;
    write_wide(path, tokens, BAD_AT + 100);
    DataLoader *loader = dataloader_open(path, SAMPLE_CROPS, T, 300, 1, false);
    tokens[BAD_AT] = 300;
    write_wide(path, tokens, BAD_AT + 100);
    return loader;
}

static void meet_bad_token(const char *path, bool ahead) {
    static int32_t tokens[BAD_AT * T], targets[BAD_AT * T];
    DataLoader *loader = open_with_a_bad_token(path);
    if (ahead) {
        dataloader_prefetch(loader, 0, BAD_AT);
        dataloader_batch(loader, 1, 1, tokens, targets);   /* another batch is not harmed */
    }
    dataloader_batch(loader, 0, BAD_AT, tokens, targets);
}
static void meet_bad_token_ahead(const char *path) { meet_bad_token(path, true); }
static void meet_bad_token_now(const char *path) { meet_bad_token(path, false); }

static void test_a_bad_token_made_ahead_dies_in_the_same_words(void **state) {
    (void)state;
    static const char words[] = "bad token.bin': the token at offset 5000 is 300, but the vocabulary has 300 tokens; the file belongs to "
                                "another tokenizer, or --vocab-size is wrong\n";
    expect_death(meet_bad_token_now, at("bad token.bin"), words, NULL);
    expect_death(meet_bad_token_ahead, at("bad token.bin"), words, NULL);
    DataLoader *loader = open_with_a_bad_token(at("bad token.bin"));
    dataloader_prefetch(loader, 0, BAD_AT);
    dataloader_close(loader);   /* what nobody asked for harms nobody */
}

/* ---- Rows that begin at documents ---- */

enum { DOC_SHARDS = 4, DOC_LENGTH = 60, END_OF_TEXT = 9999 };

/* Token i of shard s is 100 s + i, but for these places, which hold the end of a text. In shard 1 no row fits behind it; shard 2 has none. */
static bool ends_text(int s, int i) {
    static const int places[DOC_SHARDS][5] = { { 0, 7, 8, 30, 58 }, { 56, 57, 58, 59, 59 }, { -1, -1, -1, -1, -1 }, { 20, 21, 40, 55, 57 } };
    for (int k = 0; k < 5; k++)
        if (places[s][k] == i) return true;
    return false;
}

static void write_documents(void) {
    make("documents");
    for (int s = 0; s < DOC_SHARDS; s++) {
        char name[64];
        uint32_t tokens[DOC_LENGTH];
        for (int i = 0; i < DOC_LENGTH; i++) tokens[i] = ends_text(s, i) ? END_OF_TEXT : 100 * s + i;
        snprintf(name, sizeof name, "documents/%d.bin", s);
        write_wide(at(name), tokens, DOC_LENGTH);
    }
}

/* Shard and start of a row, 100 s + i, from the tokens in it that end no text. */
static int place_of(const int32_t *tokens) {
    int t = 0;
    while (t < T && tokens[t] == END_OF_TEXT) t++;
    assert_true(t < T);
    return tokens[t] - t;
}

/* What dataloader.h says, spelled out. */
static int next_document(int place) {
    for (int k = 0, s = place / 100; k < DOC_SHARDS; k++, s = (s + 1) % DOC_SHARDS)
        for (int i = 0; i < DOC_LENGTH; i++) {
            int start = ((k == 0 ? place % 100 : 0) + i) % DOC_LENGTH;
            if (ends_text(s, start) && start + T < DOC_LENGTH) return 100 * s + start;
        }
    fail_msg("no document");
    return -1;
}

static void test_rows_begin_at_documents(void **state) {
    (void)state;
    enum { ROWS = 400 };
    static int32_t plain[ROWS * T], found[ROWS * T], targets[ROWS * T], again[ROWS * T];
    write_documents();
    for (int order = SAMPLE_CROPS; order <= SAMPLE_SHARDS; order++) {
        int times[DOC_SHARDS * 100] = { 0 };
        DataLoader *loader = dataloader_open(at("documents"), (SampleOrder)order, T, END_OF_TEXT + 1, 3, false);
        dataloader_batch(loader, 0, ROWS, plain, targets);
        dataloader_begin_at_documents(loader, END_OF_TEXT);
        assert_int_equal(dataloader_batch(loader, 0, ROWS, found, targets), ROWS * T);
        for (int64_t n = 0; n < ROWS; n++) {
            const int32_t *row = found + n * T;
            int place = place_of(row);
            assert_int_equal(row[0], END_OF_TEXT);
            assert_int_equal(place, next_document(place_of(plain + n * T)));
            for (int t = 0; t < T; t++) {
                int i = place % 100 + t;
                assert_int_equal(row[t], ends_text(place / 100, i) ? END_OF_TEXT : place + t);
                assert_int_equal(targets[n * T + t], ends_text(place / 100, i + 1) ? END_OF_TEXT : place + t + 1);
            }
            times[place]++;
        }
        /* Every document that a row fits behind comes up in crops; none lies in the middle two shards. */
        for (int p = 0; p < DOC_SHARDS * 100; p++) {
            bool document = p % 100 + T < DOC_LENGTH && ends_text(p / 100, p % 100);
            assert_true(document ? times[p] > 0 || order == SAMPLE_SHARDS : times[p] == 0);
        }
        dataloader_prefetch(loader, 100, 50);   /* a function of the row's number here too */
        dataloader_batch(loader, 100, 50, again, targets);
        assert_memory_equal(again, found + 100 * T, 50 * T * sizeof *again);
        dataloader_batch(loader, 77, 1, again, targets);
        assert_memory_equal(again, found + 77 * T, T * sizeof *again);
        dataloader_batch_in_order(loader, 1, 1, again, targets);
        assert_int_equal(again[0], T);          /* evaluation is not touched */
        dataloader_close(loader);
    }
}

static void begin_without_name(const char *path) { dataloader_begin_at_documents(dataloader_open(path, SAMPLE_CROPS, T, 10000, 1, false), -1); }
static void begin_out_of_range(const char *path) { dataloader_begin_at_documents(dataloader_open(path, SAMPLE_CROPS, T, 10000, 1, false), 10000); }
static void begin_at_nothing(const char *path) { dataloader_begin_at_documents(dataloader_open(path, SAMPLE_CROPS, T, 10000, 1, false), 9998); }

static void test_document_starts_are_refused(void **state) {
    (void)state;
    if (!path_exists(at("documents"))) write_documents();
    expect_death(begin_without_name, at("documents"), "--doc-start", "no dataset.json beside '", "documents/0.bin", "\"end_of_text\": N", NULL);
    expect_death(begin_out_of_range, at("documents"), "end-of-text token is 10000", "the vocabulary has 10000 tokens", NULL);
    expect_death(begin_at_nothing, at("documents"), "no end-of-text token (9998) with 4 tokens behind it", "documents/0.bin' and its like", NULL);
    expect_death(begin_at_nothing, at("documents/1.bin"), "documents/1.bin';", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_epoch_of_thousands_of_shards),
        cmocka_unit_test(test_crops_of_thousands_of_shards),
        cmocka_unit_test(test_ranks_share_the_rows),
        cmocka_unit_test(test_resuming_needs_the_count_alone),
        cmocka_unit_test(test_a_file_that_changes_dies),
        cmocka_unit_test(test_batches_made_ahead_are_the_same),
        cmocka_unit_test(test_batches_made_ahead_are_used),
        cmocka_unit_test(test_a_bad_token_made_ahead_dies_in_the_same_words),
        cmocka_unit_test(test_rows_begin_at_documents),
        cmocka_unit_test(test_document_starts_are_refused),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
