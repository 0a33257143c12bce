/* team.c: see team.h. What all teams share; everything between ranks is made of the one thing that a body can do: gather. */
#include "team_body.h"

#include "error.h"
#include "files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int team_rank(const Team *t) { return t ? t->rank : 0; }
int team_ranks(const Team *t) { return t ? t->ranks : 1; }
int team_local_rank(const Team *t) { return t ? t->local_rank : 0; }
bool team_of_threads(const Team *t) { return t && t->body->threads; }
double team_timeout(const Team *t) { return t ? t->timeout : INFINITY; }

const char *team_host(const Team *t, int rank) {
    static char here[256];
    if (t) return t->hosts[rank];
    if (!here[0] && gethostname(here, sizeof here - 1) != 0) strcpy(here, "localhost");
    return here;
}

void team_wait_begin(Team *t, const char *what) {
    if (t && t->body->wait_begin) t->body->wait_begin(t, what);
}

void team_wait_end(Team *t) {
    if (t && t->body->wait_end) t->body->wait_end(t);
}

void team_excuse(Team *t, bool excused) {
    if (t && t->body->excuse) t->body->excuse(t, excused);
}

void team_note_step(Team *t, int64_t step) {
    if (t) __atomic_store_n(&t->step, step, __ATOMIC_RELAXED);
}

void team_gather(Team *t, const void *mine, size_t bytes, void *all, const char *what) {
    if (t) t->body->gather(t, mine, bytes, all, what);
    else if (bytes) memcpy(all, mine, bytes);
}

void team_barrier(Team *t, const char *what) {
    if (t) team_gather(t, NULL, 0, NULL, what);
}

void team_sum(Team *t, double *x, int n, const char *what) {
    if (!t) return;
    double *all = xmalloc(sizeof *all * (size_t)n * (size_t)t->ranks);
    team_gather(t, x, sizeof *x * (size_t)n, all, what);
    memcpy(x, all, sizeof *x * (size_t)n);
    for (int r = 1; r < t->ranks; r++)
        for (int i = 0; i < n; i++) x[i] += all[(size_t)r * (size_t)n + i];
    free(all);
}

char *team_text_of_first(Team *t, const char *text, const char *what) {
    if (!t) return text ? xstrdup(text) : NULL;
    int64_t length = text ? (int64_t)strlen(text) : -1, *lengths = xmalloc(sizeof length * (size_t)t->ranks);
    team_gather(t, &length, sizeof length, lengths, what);
    int64_t first = lengths[0];
    free(lengths);
    if (first < 0) return NULL;
    /* Everyone gives a piece as long as rank 0's; pieces bound the memory that this takes. */
    enum { PIECE = 16384 };
    char mine[PIECE] = {0}, *all = xmalloc((size_t)PIECE * (size_t)t->ranks), *result = xmalloc((size_t)first + 1);
    for (int64_t at = 0; at < first; at += PIECE) {
        size_t n = first - at < PIECE ? (size_t)(first - at) : PIECE;
        if (t->rank == 0) memcpy(mine, text + at, n);
        team_gather(t, mine, n, all, what);
        memcpy(result + at, all, n);
    }
    result[first] = 0;
    free(all);
    return result;
}

/* Of two texts that differ: *a and *b move to the first line that does, and its length in each is found. */
static void first_difference(const char **a, const char **b, int *a_length, int *b_length) {
    for (;;) {
        *a_length = (int)strcspn(*a, "\n");
        *b_length = (int)strcspn(*b, "\n");
        if (*a_length != *b_length || memcmp(*a, *b, (size_t)*a_length) != 0) return;
        bool a_over = (*a)[*a_length] == 0, b_over = (*b)[*b_length] == 0;
        *a += *a_length + !a_over;
        *b += *b_length + !b_over;
        if (a_over || b_over) {   /* one text has a line more */
            *a_length = (int)strcspn(*a, "\n") * !a_over;
            *b_length = (int)strcspn(*b, "\n") * !b_over;
            return;
        }
    }
}

/* The texts differ on `rank`: everyone gets both, and says so. */
static void die_of_difference(Team *t, const char *text, size_t longest, int rank, const char *what) {
    char *mine = xcalloc(longest + 1, 1), *all = xmalloc((longest + 1) * (size_t)t->ranks);
    memcpy(mine, text, strlen(text));
    team_gather(t, mine, longest + 1, all, what);
    const char *first = all, *other = all + (longest + 1) * (size_t)rank;
    int n, m;
    first_difference(&first, &other, &n, &m);
    die("rank %d on %s differs from rank 0 in the %s: '%.*s' there and '%.*s' on rank 0; all ranks need the same", rank,
        team_host(t, rank), what, m < 200 ? m : 200, other, n < 200 ? n : 200, first);
}

void team_expect_same(Team *t, const char *text, const char *what) {
    if (!t) return;
    uint64_t mine[2] = {strlen(text), crc32_of_text(text)}, (*all)[2] = xmalloc(sizeof mine * (size_t)t->ranks);
    team_gather(t, mine, sizeof mine, all, what);
    size_t longest = 0;
    int other = 0;
    for (int r = t->ranks - 1; r >= 0; r--) {
        if (all[r][0] > longest) longest = all[r][0];
        if (memcmp(all[r], all[0], sizeof mine) != 0) other = r;
    }
    free(all);
    if (other) die_of_difference(t, text, longest, other, what);
}

void team_close(Team *t) {
    if (!t) return;
    t->body->close(t);
    for (int r = 0; r < t->ranks; r++) free(t->hosts[r]);
    free(t->hosts);
    free(t);
}
