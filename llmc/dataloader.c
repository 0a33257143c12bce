/* dataloader.c: see dataloader.h. */
#include "dataloader.h"
#include "error.h"
#include "kernels/philox.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

void dataloader_require_files(const char *pattern) {
    DataFiles files = data_files(pattern);
    data_files_free(&files);
}

/* ---- Opening ---- */

/* Rows that are being made, or were, on a thread of their own. */
typedef struct {
    int64_t first_row, rows;       /* rows is 0 where there are none */
    int32_t *tokens, *targets;     /* (rows,T) */
    int64_t valid;                 /* targets >= 0; -1: see error */
    char error[ERROR_SIZE];
} Ahead;

enum { MOST_MAPS = 1024 };         /* the system allows 65,530 to a process */

struct DataLoader {
    Shard *shards;                 /* mapped when a row is first read from them */
    int64_t count;                 /* shards */
    SampleOrder order;
    int64_t T, vocab_size;
    uint64_t seed;
    int64_t tokens;
    int64_t *crops_before;         /* (count+1) places where a crop may begin, in the shards before each one */
    int64_t *rows_before;          /* (count+1) whole rows likewise */
    int64_t epoch;                 /* that rows_before_visit is of, or -1 */
    int64_t *rows_before_visit;    /* (count+1) whole rows in the shards that this epoch visits before each visit */
    int64_t maps;                  /* made so far */
    int64_t mapped[MOST_MAPS];     /* map number i is of shard mapped[i % MOST_MAPS] */
    int32_t end_of_text;           /* at which rows begin, or -1 */
    bool *no_documents;            /* (count) found to be so */
    int64_t repeated;              /* rows that there are, or 0: no end of them */
    Ahead ahead;
    bool running;                  /* the thread */
    pthread_t thread;
};

static void check_lengths(const DataLoader *loader, const char *pattern) {
    int64_t longest = 0, short_ones = 0;
    const Shard *left_out = NULL;
    for (int64_t s = 0; s < loader->count; s++) {
        if (loader->shards[s].count > loader->shards[longest].count) longest = s;
        if (loader->shards[s].count > loader->T) continue;
        short_ones++;
        left_out = &loader->shards[s];
    }
    if (loader->rows_before[loader->count] > 0 && short_ones == 1)
        warn("'%s' is left out: its %" PRId64 " tokens are too few for a row of %" PRId64, left_out->path, left_out->count, loader->T);
    if (loader->rows_before[loader->count] > 0 && short_ones > 1)
        warn("%" PRId64 " of %" PRId64 " files are left out, as '%s' of %" PRId64 " tokens: too few for a row of %" PRId64, short_ones,
             loader->count, left_out->path, left_out->count, loader->T);
    if (loader->rows_before[loader->count] == 0)
        die("'%s'%s%s%s holds %" PRId64 " tokens, fewer than the %" PRId64 " that a row needs (--seq-len %" PRId64
            " and one more); give a smaller --seq-len or more text",
            loader->shards[longest].path, loader->count > 1 ? ", the longest file of '" : "", loader->count > 1 ? pattern : "",
            loader->count > 1 ? "'," : "", loader->shards[longest].count, loader->T + 1, loader->T);
}

static bool refuse_token(const DataLoader *loader, const Shard *shard, int64_t index, char error[ERROR_SIZE]) {
    int32_t token = shard_token(shard, index);
    if (token == -1)
        return file_error(error, "'%s': the token at offset %" PRId64 " is 4294967295, \"no target\", and cannot be an input of the model",
                          shard->path, index);
    return file_error(error, "'%s': the token at offset %" PRId64 " is %" PRIu32 ", but the vocabulary has %" PRId64 " tokens; the file "
                      "belongs to another tokenizer, or --vocab-size is wrong", shard->path, index, (uint32_t)token, loader->vocab_size);
}

/* Files of another tokenizer are refused before a run begins, and without reading all of them: the first FIRST tokens are looked at, and in each
   file those that cost nothing, for they come with the page of the header. */
static bool check_first_tokens(const DataLoader *loader, const Shard *shard, char error[ERROR_SIZE]) {
    enum { FIRST = 1 << 20, PAGE = 4096, HEADER = 1024 };
    int64_t n = (PAGE - HEADER) / shard->width;
    if (FIRST - loader->tokens > n) n = FIRST - loader->tokens;
    if (n > shard->count) n = shard->count;
    shard_will_read(shard, 0, n);
    for (int64_t i = 0; i < n; i++) {
        int32_t token = shard_token(shard, i);
        if (token < -1 || token >= loader->vocab_size) return refuse_token(loader, shard, i, error);
    }
    return true;
}

/* Opens a file, checks and counts it, and closes it until a row of it is wanted. */
static void add_shard(DataLoader *loader, int64_t s, const char *path, bool headerless) {
    char error[ERROR_SIZE];
    Shard *shard = &loader->shards[s];
    if (!shard_open(shard, path, headerless, error) || !check_first_tokens(loader, shard, error)) die("%s", error);
    shard_unmap(shard);
    loader->tokens += shard->count;
    loader->crops_before[s + 1] = loader->crops_before[s] + (shard->count > loader->T ? shard->count - loader->T : 0);
    loader->rows_before[s + 1] = loader->rows_before[s] + (shard->count - 1) / loader->T;
}

DataLoader *dataloader_open(const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed, bool headerless) {
    return dataloader_open_files(data_files(pattern), pattern, order, T, vocab_size, seed, headerless);
}

DataLoader *dataloader_open_files(DataFiles names, const char *pattern, SampleOrder order, int64_t T, int64_t vocab_size, uint64_t seed,
                                  bool headerless) {
    CHECK(T >= 1 && vocab_size >= 1);
    DataLoader *loader = xcalloc(1, sizeof *loader);
    *loader = (DataLoader){ .count = names.count, .order = order, .T = T, .vocab_size = vocab_size, .seed = seed, .epoch = -1,
                            .end_of_text = -1 };
    loader->shards = xcalloc(loader->count, sizeof *loader->shards);
    loader->crops_before = xcalloc(loader->count + 1, sizeof *loader->crops_before);
    loader->rows_before = xcalloc(loader->count + 1, sizeof *loader->rows_before);
    loader->rows_before_visit = xcalloc(loader->count + 1, sizeof *loader->rows_before_visit);
    loader->no_documents = xcalloc(loader->count, sizeof *loader->no_documents);
    for (int64_t s = 0; s < loader->count; s++) add_shard(loader, s, names.names[s], headerless);
    check_lengths(loader, pattern);
    data_files_free(&names);
    return loader;
}

/* Until the thread has ended nobody else may look at anything that a row changes: maps, epoch, no_documents, ahead. */
static void wait_for_thread(DataLoader *loader) {
    if (loader->running) pthread_join(loader->thread, NULL);
    loader->running = false;
}

void dataloader_close(DataLoader *loader) {
    if (!loader) return;
    wait_for_thread(loader);
    for (int64_t s = 0; s < loader->count; s++) shard_close(&loader->shards[s]);
    free(loader->shards);
    free(loader->crops_before);
    free(loader->rows_before);
    free(loader->rows_before_visit);
    free(loader->no_documents);
    free(loader->ahead.tokens);
    free(loader->ahead.targets);
    free(loader);
}

int64_t dataloader_files(const DataLoader *loader) { return loader->count; }
int64_t dataloader_tokens(const DataLoader *loader) { return loader->tokens; }
int64_t dataloader_rows(const DataLoader *loader) { return loader->rows_before[loader->count]; }

/* The shard, mapped. A map more than MOST_MAPS takes the place of the oldest. */
static const Shard *mapped_shard(DataLoader *loader, int64_t s, char error[ERROR_SIZE]) {
    Shard *shard = &loader->shards[s];
    if (shard->tokens) return shard;
    if (!shard_map(shard, error)) return NULL;
    shard_read_around(shard, loader->order == SAMPLE_SHARDS);
    int64_t *slot = &loader->mapped[loader->maps % MOST_MAPS];
    if (loader->maps++ >= MOST_MAPS) shard_unmap(&loader->shards[*slot]);
    *slot = s;
    return shard;
}

/* ---- A checksum ---- */

/* Continues crc with n tokens from number `first` on, counted over all files. */
static uint32_t crc32_of_tokens(DataLoader *loader, uint32_t crc, int64_t first, int64_t n) {
    char error[ERROR_SIZE];
    int64_t s = 0;
    for (; first >= loader->shards[s].count; s++) first -= loader->shards[s].count;
    for (; n > 0; s++, first = 0) {
        const Shard *shard = mapped_shard(loader, s, error);
        if (!shard) die("%s", error);
        int64_t end = first + n < shard->count ? first + n : shard->count;
        shard_will_read(shard, first, end - first);
        n -= end - first;
        for (; first < end; first++) {
            int32_t token = shard_token(shard, first);
            crc = crc32_update(crc, &token, sizeof token);
        }
    }
    return crc;
}

uint32_t dataloader_crc32(DataLoader *loader) {
    enum { BLOCKS = 256, BLOCK = 4096 };
    int64_t tokens = loader->tokens;
    wait_for_thread(loader);
    uint32_t crc = crc32_update(0, &tokens, sizeof tokens);
    if (tokens <= (int64_t)BLOCKS * BLOCK) return crc32_of_tokens(loader, crc, 0, tokens);
    for (int64_t i = 0; i < BLOCKS; i++) crc = crc32_of_tokens(loader, crc, (tokens - BLOCK) / (BLOCKS - 1) * i, BLOCK);
    return crc;
}

/* ---- Order ---- */

/* What a random number is for. It goes where dropout's Philox counter has the tensor's number, far above any of those. */
enum { RANDOM_CROP = 0x44415441, RANDOM_SHARD_ORDER, RANDOM_ROW_ORDER, RANDOM_ROUND };

static uint64_t random_bits(uint64_t key, uint32_t purpose, uint64_t index, uint32_t part) {
    uint32_t counter[4] = { (uint32_t)index, (uint32_t)(index >> 32), part, purpose };
    philox(counter, key);
    return (uint64_t)counter[1] << 32 | counter[0];
}

/* Number `index` of a shuffled 0 ... n-1, without storing the permutation. The index is written as two digits of bases a and b with
   n <= a*b < n + a, and each digit in turn is shifted by a random function of the other: a Feistel network. Where that leaves
   0 ... n-1 it is applied again (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). */
static int64_t shuffled(int64_t index, int64_t n, uint64_t key) {
    uint64_t a = (uint64_t)ceil(sqrt((double)n)), b = (n + a - 1) / a, x = index;
    do {
        uint64_t low = x % a, high = x / a;
        for (uint32_t round = 0; round < 8; round += 2) {
            low = (low + random_bits(key, RANDOM_ROUND, high, round) % a) % a;
            high = (high + random_bits(key, RANDOM_ROUND, low, round + 1) % b) % b;
        }
        x = high * a + low;
    } while (x >= (uint64_t)n);
    return x;
}

typedef struct {
    int64_t shard, start;   /* the row is the tokens start ... start+T of that shard */
} Place;

/* The i with before[i] <= index < before[i + 1], of the shards or visits that `before` sums up. */
static int64_t find_shard(const DataLoader *loader, const int64_t *before, int64_t index) {
    int64_t low = 0, high = loader->count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (before[middle] <= index) low = middle;
        else high = middle;
    }
    return low;
}

static Place place_of_crop(const DataLoader *loader, int64_t row) {
    uint64_t bits = random_bits(loader->seed, RANDOM_CROP, row, 0);
    int64_t crop = (int64_t)((unsigned __int128)bits * loader->crops_before[loader->count] >> 64);
    int64_t shard = find_shard(loader, loader->crops_before, crop);
    return (Place){ shard, crop - loader->crops_before[shard] };
}

static int64_t rows_of_shard(const DataLoader *loader, int64_t shard) { return loader->rows_before[shard + 1] - loader->rows_before[shard]; }

/* Sums up the rows of an epoch's visits, once an epoch, so that a row is found among thousands of shards by bisection. */
static void begin_epoch(DataLoader *loader, int64_t epoch, uint64_t order_key) {
    int64_t *before = loader->rows_before_visit;
    for (int64_t visit = 0; visit < loader->count; visit++)
        before[visit + 1] = before[visit] + rows_of_shard(loader, shuffled(visit, loader->count, order_key));
    loader->epoch = epoch;
}

static Place place_in_shuffled_shards(DataLoader *loader, int64_t row) {
    int64_t epoch = row / dataloader_rows(loader);
    uint64_t order_key = random_bits(loader->seed, RANDOM_SHARD_ORDER, epoch, 0);
    if (epoch != loader->epoch) begin_epoch(loader, epoch, order_key);
    row %= dataloader_rows(loader);
    int64_t visit = find_shard(loader, loader->rows_before_visit, row), shard = shuffled(visit, loader->count, order_key);
    uint64_t row_key = random_bits(loader->seed, RANDOM_ROW_ORDER, epoch, (uint32_t)shard);
    return (Place){ shard, shuffled(row - loader->rows_before_visit[visit], rows_of_shard(loader, shard), row_key) * loader->T };
}

static Place place_in_order(const DataLoader *loader, int64_t row) {
    row %= dataloader_rows(loader);
    int64_t shard = find_shard(loader, loader->rows_before, row);
    return (Place){ shard, (row - loader->rows_before[shard]) * loader->T };
}

/* ---- Document starts ---- */

/* The first place of a document in the shard at or after `from`, else the first one before it, that leaves room for a row; or -1. */
static int64_t document_in_shard(const DataLoader *loader, const Shard *shard, int64_t from) {
    int64_t place = shard_find(shard, loader->end_of_text, from, shard->count - loader->T);
    return place >= 0 ? place : shard_find(shard, loader->end_of_text, 0, from);
}

/* Moves a place on to the next document, around the end of its shard, and where that has none to the shards after it. */
static bool move_to_document(DataLoader *loader, Place *place, char error[ERROR_SIZE]) {
    for (int64_t i = 0; i < loader->count; i++) {
        int64_t s = (place->shard + i) % loader->count;
        if (loader->no_documents[s]) continue;
        const Shard *shard = mapped_shard(loader, s, error);
        if (!shard) return false;
        int64_t start = document_in_shard(loader, shard, i == 0 ? place->start : 0);
        if (start >= 0) {
            *place = (Place){ s, start };
            return true;
        }
        loader->no_documents[s] = true;
    }
    return file_error(error, "--doc-start: no end-of-text token (%" PRId32 ") with %" PRId64 " tokens behind it is in '%s'%s; give a smaller "
                      "--seq-len, or leave --doc-start out", loader->end_of_text, loader->T, loader->shards[0].path,
                      loader->count > 1 ? " and its like" : "");
}

void dataloader_begin_at_documents(DataLoader *loader, int64_t end_of_text) {
    char error[ERROR_SIZE];
    Place first = { 0, 0 };
    if (end_of_text < 0)
        die("--doc-start needs data that names its end-of-text token, and no dataset.json beside '%s' does (\"end_of_text\": N); leave "
            "--doc-start out, or prepare the data with a vocabulary that has such a token", loader->shards[0].path);
    if (end_of_text >= loader->vocab_size)
        die("--doc-start: the data's end-of-text token is %" PRId64 ", but the vocabulary has %" PRId64 " tokens", end_of_text,
            loader->vocab_size);
    wait_for_thread(loader);
    loader->ahead.rows = 0;
    loader->end_of_text = (int32_t)end_of_text;
    if (!move_to_document(loader, &first, error)) die("%s", error);
}

/* ---- Batches ---- */

void dataloader_repeat(DataLoader *loader, int64_t rows) {
    CHECK(rows >= 1);
    wait_for_thread(loader);
    loader->ahead.rows = 0;
    loader->repeated = rows;
}

/* tokens(T) and targets(T) of one row; returns the number of targets >= 0, or -1 with the reason. */
static int64_t copy_row(DataLoader *loader, Place place, int32_t *tokens, int32_t *targets, char error[ERROR_SIZE]) {
    const Shard *shard = mapped_shard(loader, place.shard, error);
    int64_t T = loader->T;
    if (shard && loader->order == SAMPLE_CROPS) shard_will_read(shard, place.start, T + 1);
    for (int64_t t = 0; shard && t <= T; t++) {
        int32_t token = shard_token(shard, place.start + t);
        bool valid = token >= 0 && token < loader->vocab_size;
        if (!valid && !(token == -1 && t == T)) {
            refuse_token(loader, shard, place.start + t, error);
            return -1;
        }
        if (t < T) tokens[t] = token;
        if (t > 0) targets[t - 1] = token;
    }
    return !shard ? -1 : targets[T - 1] >= 0 ? T : T - 1;
}

/* The rows of a batch; returns the number of targets >= 0, or -1 with the reason. */
static int64_t copy_batch(DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets, char error[ERROR_SIZE]) {
    int64_t valid = 0, T = loader->T;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = loader->repeated ? (first_row + i) % loader->repeated : first_row + i;
        Place place = loader->order == SAMPLE_CROPS ? place_of_crop(loader, row) : place_in_shuffled_shards(loader, row);
        if (loader->end_of_text >= 0 && !move_to_document(loader, &place, error)) return -1;
        int64_t n = copy_row(loader, place, tokens + i * T, targets + i * T, error);
        if (n < 0) return -1;
        valid += n;
    }
    return valid;
}

static void *copy_ahead(void *argument) {
    DataLoader *loader = argument;
    Ahead *a = &loader->ahead;
    a->valid = copy_batch(loader, a->first_row, a->rows, a->tokens, a->targets, a->error);
    return NULL;
}

void dataloader_prefetch(DataLoader *loader, int64_t first_row, int64_t rows) {
    CHECK(first_row >= 0 && rows >= 1);
    wait_for_thread(loader);
    Ahead *a = &loader->ahead;
    size_t bytes = rows * loader->T * sizeof(int32_t);
    a->tokens = xrealloc(a->tokens, bytes);
    a->targets = xrealloc(a->targets, bytes);
    a->first_row = first_row;
    a->rows = rows;
    loader->running = pthread_create(&loader->thread, NULL, copy_ahead, loader) == 0;
    if (!loader->running) a->rows = 0;   /* no thread to be had: the batch will be made when it is asked for */
}

int64_t dataloader_batch(DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets) {
    CHECK(first_row >= 0);
    char error[ERROR_SIZE];
    wait_for_thread(loader);
    Ahead *a = &loader->ahead;
    bool ready = a->rows > 0 && a->rows == rows && a->first_row == first_row;
    int64_t valid = ready ? a->valid : copy_batch(loader, first_row, rows, tokens, targets, error);
    if (valid < 0) die("%s", ready ? a->error : error);
    if (ready) {
        size_t bytes = rows * loader->T * sizeof(int32_t);
        memcpy(tokens, a->tokens, bytes);
        memcpy(targets, a->targets, bytes);
        a->rows = 0;
    }
    return valid;
}

int64_t dataloader_batch_in_order(DataLoader *loader, int64_t first_row, int64_t rows, int32_t *tokens, int32_t *targets) {
    CHECK(first_row >= 0);
    char error[ERROR_SIZE];
    int64_t valid = 0, T = loader->T;
    wait_for_thread(loader);
    for (int64_t i = 0; i < rows; i++) {
        int64_t n = copy_row(loader, place_in_order(loader, first_row + i), tokens + i * T, targets + i * T, error);
        if (n < 0) die("%s", error);
        valid += n;
    }
    return valid;
}
