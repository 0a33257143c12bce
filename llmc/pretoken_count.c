/* pretoken_count.c: see pretoken_count.h. Each thread counts into a table of its own, which it empties into the shared ones when it has
   grown. */
#include "pretoken_count.h"
#include "error.h"
#include "nfc.h"
#include "specials.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 1 << 20,        /* of text that a thread takes at a time; more only where there is no place to cut */
    BLOCK_BYTES = 1 << 16,
    OWN_PRETOKENS = 1 << 16,      /* in a thread's own table before it is emptied */
    OWN_BYTES = 1 << 23,
    SHORT = 8,                    /* bytes of pre-tokens that are equal if their lengths and hashes are */
    SHARD_BITS = 8, SHARDS = 1 << SHARD_BITS,
};

/* ---- Hashing: up to 8 bytes by a bijection, more by 8 bytes a step, multiplied to 128 bits and folded (after Yi's wyhash, 2019) ---- */

static uint64_t load(const char *text, size_t bytes) {
    uint64_t word = 0;
    memcpy(&word, text, bytes);
    return word;
}

/* All of them in one number; different ones of the same length give different numbers. */
static uint64_t load_short(const char *text, size_t length) {
    if (length >= 4) return load(text + length - 4, 4) << 32 | load(text, 4);
    return load(text, 1) | load(text + length / 2, 1) << 8 | load(text + length - 1, 1) << 16;
}

static uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_bytes(const char *text, size_t length) {
    uint64_t hash = 0;
    if (length <= SHORT) {
        hash = load_short(text, length) * 0x9E3779B97F4A7C15u;
    } else {
        for (size_t at = 0; at < length - 8; at += 8) hash = fold(hash ^ load(text + at, 8), 0xD6E8FEB86659FD93u) + length;
        hash = fold(hash ^ load(text + length - 8, 8), 0xA0761D6478BD642Fu);
    }
    return (hash ^ hash >> 32) * 0xE7037ED1A0B428DBu;
}

/* ---- A table of pre-tokens: open addressing, places in the order of the hashes ---- */

typedef struct ByteBlock {
    struct ByteBlock *next;
    char bytes[];
} ByteBlock;

typedef struct {
    CountedPretoken *places;      /* count 0: free */
    int bits;
    int hash_shift;               /* bits of the hash that tell the shard */
    uint64_t used, bytes;
    ByteBlock *blocks;
    size_t room;                  /* left at the end of the first block */
} Table;

static Table table_make(int bits, int hash_shift) {
    CountedPretoken *places = xcalloc((size_t)1 << bits, sizeof *places);
    return (Table){ .places = places, .bits = bits, .hash_shift = hash_shift };
}

static void blocks_free(ByteBlock *block) {
    while (block) {
        ByteBlock *next = block->next;
        free(block);
        block = next;
    }
}

static void table_free(Table *table) {
    free(table->places);
    blocks_free(table->blocks);
    *table = (Table){ 0 };
}

static void table_empty(Table *table) {
    memset(table->places, 0, sizeof *table->places << table->bits);
    blocks_free(table->blocks);
    *table = (Table){ .places = table->places, .bits = table->bits, .hash_shift = table->hash_shift };
}

static uint64_t table_mask(const Table *table) { return ((uint64_t)1 << table->bits) - 1; }

static uint64_t table_first(const Table *table, uint64_t hash) { return hash << table->hash_shift >> (64 - table->bits); }

static CountedPretoken *table_place(const Table *table, const char *bytes, size_t length, uint64_t hash) {
    for (uint64_t i = table_first(table, hash);; i = (i + 1) & table_mask(table)) {
        CountedPretoken *p = &table->places[i];
        if (p->count == 0) return p;
        if (p->hash == hash && p->length == length && (length <= SHORT || memcmp(p->bytes, bytes, length) == 0)) return p;
    }
}

static void table_grow(Table *table) {
    Table larger = table_make(table->bits + 1, table->hash_shift);
    for (uint64_t i = 0; i <= table_mask(table); i++) {
        CountedPretoken *p = &table->places[i];
        if (p->count == 0) continue;
        uint64_t at = table_first(&larger, p->hash);
        while (larger.places[at].count) at = (at + 1) & table_mask(&larger);
        larger.places[at] = *p;
    }
    free(table->places);
    table->places = larger.places;
    table->bits = larger.bits;
}

static const char *table_keep(Table *table, const char *bytes, size_t length) {
    if (length > table->room) {
        size_t size = length > BLOCK_BYTES ? length : BLOCK_BYTES;
        ByteBlock *block = xmalloc(sizeof *block + size);
        block->next = table->blocks;
        table->blocks = block;
        table->room = size;
        table->bytes += size;
    }
    /* A block longer than usual holds one pre-token and has no room left. */
    char *kept = table->blocks->bytes + (length > BLOCK_BYTES ? 0 : BLOCK_BYTES - table->room);
    table->room -= length;
    return memcpy(kept, bytes, length);
}

static void table_add(Table *table, const char *bytes, size_t length, uint64_t hash, int64_t count) {
    CountedPretoken *p = table_place(table, bytes, length, hash);
    if (p->count == 0) {
        *p = (CountedPretoken){ table_keep(table, bytes, length), length, hash, 0 };
        table->used++;
    }
    p->count += count;
    if (4 * table->used > 3 * table_mask(table)) table_grow(table);
}

/* ---- The text, in pieces ---- */

typedef struct {
    char *text;
    size_t length, capacity;
} Piece;

static void piece_reserve(Piece *piece, size_t capacity) {
    if (capacity <= piece->capacity) return;
    piece->text = xrealloc(piece->text, capacity);
    piece->capacity = capacity;
}

typedef struct {
    const Corpus *corpus;
    Specials specials;
    PretokenCounts *counts;
    pthread_mutex_t lock;         /* of what follows, and of the sums in counts */
    int64_t next_file;
    FILE *file;
    Piece rest;                   /* read and not yet given out */
    bool failed;
    char error[ERROR_SIZE];
    struct Shard { pthread_mutex_t lock; Table table; } shards[SHARDS];
} Counter;

static bool counter_fail(Counter *c, const char *what) {
    c->failed = true;
    return file_error(c->error, "cannot %s '%s': %s", what, c->corpus->files[c->next_file - 1], strerror(errno));
}

/* More text into the piece until it is full or the file ends, when the file is closed. */
static bool fill(Counter *c, Piece *piece) {
    piece->length += fread(piece->text + piece->length, 1, piece->capacity - piece->length, c->file);
    if (ferror(c->file)) counter_fail(c, "read");
    if (piece->length == piece->capacity && !c->failed) return true;
    fclose(c->file);
    c->file = NULL;
    return !c->failed;
}

static size_t cut_piece(const Counter *c, const Piece *piece) {
    return specials_cut(&c->specials, pretoken_cut, &c->corpus->pretokenization, piece->text, piece->length);
}

/* The piece up to the last place where it may be cut, the rest being kept; it grows until there is such a place. */
static bool fill_and_cut(Counter *c, Piece *piece) {
    piece_reserve(piece, c->rest.length + PIECE_BYTES);
    memcpy(piece->text, c->rest.text, c->rest.length);
    piece->length = c->rest.length;
    c->rest.length = 0;
    size_t cut = 0;
    while (fill(c, piece) && c->file && (cut = cut_piece(c, piece)) == 0)
        piece_reserve(piece, 2 * piece->length);
    if (!c->file) return !c->failed;
    c->rest.length = piece->length - cut;
    piece_reserve(&c->rest, c->rest.length);
    memcpy(c->rest.text, piece->text + cut, c->rest.length);
    piece->length = cut;
    return true;
}

/* False at the end of the text, and after an error. */
static bool next_piece(Counter *c, Piece *piece) {
    piece->length = 0;
    while (!c->failed && piece->length == 0) {
        if (!c->file) {
            if (c->next_file == c->corpus->file_count) return false;
            c->file = fopen(c->corpus->files[c->next_file++], "rb");
            if (!c->file) return counter_fail(c, "open");
        }
        if (!fill_and_cut(c, piece)) return false;
    }
    return !c->failed;
}

/* ---- A thread ---- */

typedef struct {
    Counter *counter;
    Pretokenizer *pretokenizer;
    ByteBuffer normal;            /* what is counted, where it is another text */
    Table table;
    Piece piece;
    int64_t bytes, total, specials;
} Worker;

static void count_stretch(Worker *w, const char *text, size_t length) {
    if (pretokenization_normalizes(w->counter->corpus->pretokenization)) text = nfc(text, &length, &w->normal);
    while (length > 0) {
        size_t n = pretoken_length(w->pretokenizer, text, length);
        table_add(&w->table, text, n, hash_bytes(text, n), 1);
        w->total++;
        text += n;
        length -= n;
    }
}

static void count_piece(Worker *w) {
    const char *text = w->piece.text;
    size_t left = w->piece.length, size;
    w->bytes += (int64_t)left;
    while (left > 0) {
        size_t stretch = specials_find(&w->counter->specials, text, left, &size);
        count_stretch(w, text, stretch);
        w->specials += size > 0;
        text += stretch + size;
        left -= stretch + size;
    }
}

/* Places are in the order of the hashes, so that shard follows shard. */
static void empty_table(Worker *w) {
    struct Shard *shards = w->counter->shards, *held = NULL;
    for (uint64_t i = 0; i <= table_mask(&w->table); i++) {
        CountedPretoken *p = &w->table.places[i];
        if (p->count == 0) continue;
        struct Shard *shard = &shards[p->hash >> (64 - SHARD_BITS)];
        if (shard != held) {
            if (held) pthread_mutex_unlock(&held->lock);
            pthread_mutex_lock(&shard->lock);
            held = shard;
        }
        table_add(&shard->table, p->bytes, p->length, p->hash, p->count);
    }
    if (held) pthread_mutex_unlock(&held->lock);
    table_empty(&w->table);
}

static void *work(void *argument) {
    Worker *w = (Worker *)argument;
    Counter *c = w->counter;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        bool more = next_piece(c, &w->piece);
        pthread_mutex_unlock(&c->lock);
        if (!more) break;
        count_piece(w);
        if (w->table.used > OWN_PRETOKENS || w->table.bytes > OWN_BYTES) empty_table(w);
        if (w->piece.capacity > 4 * PIECE_BYTES) {
            free(w->piece.text);
            w->piece = (Piece){ 0 };
        }
    }
    empty_table(w);
    pthread_mutex_lock(&c->lock);
    c->counts->bytes += w->bytes;
    c->counts->total += w->total;
    c->counts->specials += w->specials;
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static bool workers_open(Worker *workers, Counter *c, char error[ERROR_SIZE]) {
    for (int i = 0; i < c->corpus->threads; i++) {
        workers[i] = (Worker){ .counter = c, .pretokenizer = pretokenizer_open(c->corpus->pretokenization, error) };
        if (!workers[i].pretokenizer) return false;
        workers[i].table = table_make(12, 0);
    }
    return true;
}

static void workers_run(Worker *workers, int threads) {
    pthread_t *running = xcalloc((size_t)threads, sizeof *running);
    for (int i = 1; i < threads; i++) CHECK(pthread_create(&running[i], NULL, work, &workers[i]) == 0);
    work(&workers[0]);
    for (int i = 1; i < threads; i++) pthread_join(running[i], NULL);
    free(running);
}

static void workers_close(Worker *workers, int threads) {
    for (int i = 0; i < threads; i++) {
        pretokenizer_close(workers[i].pretokenizer);
        table_free(&workers[i].table);
        byte_buffer_free(&workers[i].normal);
        free(workers[i].piece.text);
    }
    free(workers);
}

/* ---- The whole ---- */

/* What the shards hold becomes one list; they are freed on the way. */
static void gather(Counter *c) {
    PretokenCounts *counts = c->counts;
    for (int s = 0; s < SHARDS; s++) counts->distinct += (int64_t)c->shards[s].table.used;
    counts->pretokens = xmalloc((size_t)counts->distinct * sizeof *counts->pretokens);
    CountedPretoken *next = counts->pretokens;
    for (int s = 0; s < SHARDS; s++) {
        Table *table = &c->shards[s].table;
        for (uint64_t i = 0; i <= table_mask(table); i++)
            if (table->places[i].count) *next++ = table->places[i];
        for (ByteBlock *block = table->blocks, *after; block; block = after) {
            after = block->next;
            block->next = counts->blocks;
            counts->blocks = block;
        }
        table->blocks = NULL;
        table_free(table);
    }
}

/* Before the first is read: the last may be hours away. */
static bool check_files(const Corpus *corpus, char error[ERROR_SIZE]) {
    for (int64_t i = 0; i < corpus->file_count; i++)
        if (access(corpus->files[i], R_OK) != 0) return file_error(error, "cannot open '%s': %s", corpus->files[i], strerror(errno));
    return true;
}

bool pretoken_count(PretokenCounts *counts, const Corpus *corpus, char error[ERROR_SIZE]) {
    *counts = (PretokenCounts){ 0 };
    Counter *c = xcalloc(1, sizeof *c);
    c->corpus = corpus;
    c->counts = counts;
    piece_reserve(&c->rest, PIECE_BYTES);
    pthread_mutex_init(&c->lock, NULL);
    for (int s = 0; s < SHARDS; s++) {
        pthread_mutex_init(&c->shards[s].lock, NULL);
        c->shards[s].table = table_make(6, SHARD_BITS);
    }
    Worker *workers = xcalloc((size_t)corpus->threads, sizeof *workers);
    bool good = specials_init(&c->specials, corpus->specials, corpus->special_count, error) && check_files(corpus, error) &&
                (!pretokenization_normalizes(corpus->pretokenization) || nfc_available(error)) &&
                workers_open(workers, c, error);
    if (good) workers_run(workers, corpus->threads);
    workers_close(workers, corpus->threads);
    if (good && c->failed) good = file_error(error, "%s", c->error);
    gather(c);
    if (!good) pretoken_counts_free(counts);
    if (c->file) fclose(c->file);
    for (int s = 0; s < SHARDS; s++) pthread_mutex_destroy(&c->shards[s].lock);
    pthread_mutex_destroy(&c->lock);
    specials_free(&c->specials);
    free(c->rest.text);
    free(c);
    return good;
}

void pretoken_counts_free(PretokenCounts *counts) {
    free(counts->pretokens);
    blocks_free(counts->blocks);
    *counts = (PretokenCounts){ 0 };
}
