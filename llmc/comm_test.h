/* comm_test.h: every collective of a Comm against plain sums in the order of the ranks, to the bit; for comm_test.c (rank threads) and dev/comm_ranks.c
   (processes). A rank can work out what all others hold. */
#ifndef LLMC_COMM_TEST_H
#define LLMC_COMM_TEST_H

#include "comm.h"
#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* splitmix64 of the place. */
static inline uint64_t place_hash(int rank, int64_t i, int salt) {
    uint64_t z = ((uint64_t)salt << 48 ^ (uint64_t)rank << 40 ^ (uint64_t)i) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Element i of rank's tensor: full mantissas of sizes 1 to 256, so that another order of a sum gives other bits. */
static inline double place_value(int rank, int64_t i, int salt) {
    uint64_t h = place_hash(rank, i, salt);
    return ((double)(h >> 11) * 0x1p-53 - 0.5) * (double)(1 << (h & 7));
}

static inline void put_value(void *data, DType dtype, int64_t at, int rank, int64_t i, int salt) {
    if (dtype == F64) ((double *)data)[at] = place_value(rank, i, salt);
    else if (dtype == F32) ((float *)data)[at] = (float)place_value(rank, i, salt);
    else ((uint16_t *)data)[at] = (uint16_t)place_hash(rank, i, salt);
}

static inline void put_sum(void *data, DType dtype, int64_t at, int ranks, int64_t i, int salt) {
    double sum = place_value(0, i, salt);
    float sum_f32 = (float)sum;
    for (int r = 1; r < ranks; r++) {
        sum += place_value(r, i, salt);
        sum_f32 += (float)place_value(r, i, salt);
    }
    if (dtype == F64) ((double *)data)[at] = sum;
    else ((float *)data)[at] = sum_f32;
}

typedef enum { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER } TestedCollective;

/* A tensor under way, between margins that must stay as they are. */
typedef struct {
    TestedCollective what;
    Tensor x;
    char *device;
    size_t bytes;   /* with the margins */
    int salt;
    Ticket ticket;
} Trial;

enum { MARGIN = 256 };

/* The tensor's memory and margins as the host sees them: before the collective, or after it as it must be (undefined parts taken from `got`). */
static inline char *trial_content(const Trial *trial, const Comm *c, const char *got) {
    char *host = xmalloc(trial->bytes), *x = host + MARGIN;
    int64_t n = tensor_numel(trial->x), piece = n / comm_ranks(c);
    memset(host, 0xA5, trial->bytes);
    for (int64_t i = 0; i < n; i++) {
        int owner = (int)(i / (piece ? piece : 1));
        if (!got) put_value(x, trial->x.dtype, i, comm_rank(c), i, trial->salt);
        else if (trial->what == ALL_GATHER) put_value(x, trial->x.dtype, i, owner, i, trial->salt);
        else if (trial->what == ALL_REDUCE || owner == comm_rank(c)) put_sum(x, trial->x.dtype, i, comm_ranks(c), i, trial->salt);
        else memcpy(x + (size_t)i * dtype_size(trial->x.dtype), got + MARGIN + (size_t)i * dtype_size(trial->x.dtype), dtype_size(trial->x.dtype));
    }
    return host;
}

static inline Trial trial_start(Comm *c, const Backend *b, Stream *s, TestedCollective what, DType dtype, int64_t n, int salt) {
    Trial trial = {.what = what, .salt = salt, .bytes = (size_t)n * dtype_size(dtype) + 2 * MARGIN};
    trial.device = b->alloc(trial.bytes);
    trial.x = tensor(trial.device + MARGIN, dtype, 1, n, 0, 0, 0);
    char *host = trial_content(&trial, c, NULL);
    b->upload(trial.device, host, trial.bytes, s);
    free(host);
    trial.ticket = what == ALL_REDUCE ? comm_all_reduce(c, trial.x, s)
                 : what == REDUCE_SCATTER ? comm_reduce_scatter(c, trial.x, s) : comm_all_gather(c, trial.x, s);
    return trial;
}

/* Waits, and returns 0 if the result is right; else says on stderr where it is not, and returns 1. */
static inline int trial_end(Comm *c, const Backend *b, Stream *s, Trial *trial) {
    static const char *const names[] = {"all-reduce", "reduce-scatter", "all-gather"};
    char *got = xmalloc(trial->bytes);
    comm_wait(c, trial->ticket, s);
    b->download(got, trial->device, trial->bytes, s);
    char *expected = trial_content(trial, c, got);
    size_t wrong = 0;
    while (wrong < trial->bytes && got[wrong] == expected[wrong]) wrong++;
    if (wrong < trial->bytes)
        fprintf(stderr, "%s on %s: %s of %lld elements of %zu bytes is wrong on rank %d of %d at byte %lld\n", comm_name(c), b->name, names[trial->what],
                (long long)tensor_numel(trial->x), dtype_size(trial->x.dtype), comm_rank(c), comm_ranks(c), (long long)wrong - MARGIN);
    free(expected);
    free(got);
    b->release(trial->device);
    return wrong < trial->bytes;
}

/* Returns the number of collectives whose result is wrong. largest: elements. */
static inline int check_collectives(Comm *c, const Backend *b, int64_t largest) {
    static const struct { TestedCollective what; DType dtype; } kinds[] = {
        {ALL_REDUCE, F32}, {ALL_REDUCE, F64}, {REDUCE_SCATTER, F32}, {ALL_GATHER, F32}, {ALL_GATHER, BF16}};
    enum { KINDS = sizeof kinds / sizeof *kinds, MANY = 300 };
    const int64_t sizes[] = {1, 3, 7, 510, 1025, 8193, largest};
    int wrong = 0, ranks = comm_ranks(c);
    Stream *s = b->stream_open(0);
    for (int k = 0; k < KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            int64_t n = kinds[k].what == ALL_REDUCE ? sizes[i] : (sizes[i] + ranks - 1) / ranks * ranks;
            Trial trial = trial_start(c, b, s, kinds[k].what, kinds[k].dtype, n, (int)(k * 16 + (int)i));
            wrong += trial_end(c, b, s, &trial);
        }
    /* More than any queue holds; waited for from both ends, and one of them twice. */
    Trial *trials = xmalloc(MANY * sizeof *trials);
    for (int i = 0; i < MANY; i++) trials[i] = trial_start(c, b, s, kinds[i % KINDS].what, kinds[i % KINDS].dtype, (i % 13 + 1) * ranks, 100 + i);
    comm_wait(c, trials[MANY / 2].ticket, s);
    for (int i = 0; i < MANY; i++) wrong += trial_end(c, b, s, &trials[i % 2 ? MANY - 1 - i / 2 : i / 2]);
    free(trials);
    b->synchronize(s);
    b->stream_close(s);
    return wrong;
}

#endif
