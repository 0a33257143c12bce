/* comm_loopback.c: ranks that are threads of one process, as a team and as the body of its collectives.

   All of them share one mutex, the baton, which a rank holds whenever it runs and gives up only while it waits for the others at a meeting: a gather
   or a collective. So one rank runs at a time, and nothing else in the program has to be safe among threads. Whoever comes last to a meeting does its
   work for all: sums are taken in the order of the ranks, the same bits on every run. */
#include "comm_body.h"
#include "error.h"
#include "team_body.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Code of the whole program runs in these threads, kernels with rows on the stack among it. */
enum { STACK_BYTES = 64 << 20 };

/* What a rank brings to a meeting. */
typedef struct {
    char text[160];   /* what it comes for: the same on all ranks */
    const void *mine;
    void *all;        /* of a gather */
    size_t bytes;
    Tensor x;         /* of a collective */
    Collective what;
    const Backend *backend;
    Stream *stream;
} Visit;

typedef struct {
    pthread_mutex_t baton;
    pthread_cond_t met;
    int ranks, here;          /* here: ranks that have come to the next meeting */
    int64_t meetings;         /* so far */
    int first, returned;      /* the rank that came first; one whose rank_main is over, or -1 */
    Visit *visits;            /* (ranks) */
} Circle;

static void die_of_return(const Circle *c, int waiting) {
    die("rank %d waits for the others at %s, but rank %d has returned; this is a bug of the program, please report it", waiting,
        c->visits[waiting].text, c->returned);
}

/* Waits for all ranks with the same text; work is done once. */
static void meet(Circle *c, int rank, const Visit *visit, void (*work)(Circle *c, int rank)) {
    c->visits[rank] = *visit;
    if (c->here == 0) c->first = rank;
    if (c->returned >= 0) die_of_return(c, rank);
    if (strcmp(c->visits[c->first].text, visit->text) != 0)
        die("rank %d comes to %s while rank %d is at %s: ranks must do the same in the same order; this is a bug of the program, please report it", rank,
            visit->text, c->first, c->visits[c->first].text);
    if (++c->here < c->ranks) {
        for (int64_t before = c->meetings; c->meetings == before;) pthread_cond_wait(&c->met, &c->baton);
        return;
    }
    work(c, rank);
    c->here = 0;
    c->meetings++;
    pthread_cond_broadcast(&c->met);
}

/* ---- the team ---- */

static void work_gather(Circle *c, int rank) {
    size_t bytes = c->visits[rank].bytes;
    for (int to = 0; to < c->ranks && bytes; to++)
        for (int from = 0; from < c->ranks; from++) memcpy((char *)c->visits[to].all + (size_t)from * bytes, c->visits[from].mine, bytes);
}

static void gather(Team *t, const void *mine, size_t bytes, void *all, const char *what) {
    Visit visit = {.mine = mine, .all = all, .bytes = bytes};
    snprintf(visit.text, sizeof visit.text, "a gathering of %zu bytes (%s)", bytes, what);
    meet(t->own, t->rank, &visit, work_gather);
}

static void close_team(Team *t) { (void)t; }   /* the circle goes after the last thread */

static const TeamBody body = {.gather = gather, .close = close_team, .threads = true};

static Team *member(Circle *c, int rank) {
    Team *t = xcalloc(1, sizeof *t);
    *t = (Team){.body = &body, .rank = rank, .ranks = c->ranks, .local_rank = rank, .timeout = INFINITY, .own = c};
    t->hosts = xmalloc(sizeof *t->hosts * (size_t)c->ranks);
    for (int r = 0; r < c->ranks; r++) t->hosts[r] = xstrdup(team_host(NULL, 0));
    return t;
}

typedef struct {
    pthread_t thread;
    Team *team;
    int argc, status;
    char **argv;
    RankMain rank_main;
} RankThread;

static void *run_rank(void *context) {
    RankThread *r = context;
    Circle *c = r->team->own;
    pthread_mutex_lock(&c->baton);
    r->status = r->rank_main(r->argc, r->argv, r->team);
    c->returned = r->team->rank;
    if (c->here > 0) die_of_return(c, c->first);
    pthread_mutex_unlock(&c->baton);
    return NULL;
}

int loopback_run(int ranks, int argc, char **argv, RankMain rank_main) {
    CHECK(ranks > 0);
    Circle c = {.ranks = ranks, .returned = -1, .visits = xcalloc((size_t)ranks, sizeof *c.visits)};
    RankThread *threads = xcalloc((size_t)ranks, sizeof *threads);
    pthread_attr_t attributes;
    pthread_mutex_init(&c.baton, NULL);
    pthread_cond_init(&c.met, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (int r = 0; r < ranks; r++) {
        threads[r] = (RankThread){.team = member(&c, r), .argc = argc, .argv = argv, .rank_main = rank_main};
        if (pthread_create(&threads[r].thread, &attributes, run_rank, &threads[r]) != 0)
            die("thread %d of --ranks %d could not be started; take fewer ranks, or raise ulimit -u or -v", r, ranks);
    }
    int status = 0;
    for (int r = 0; r < ranks; r++) {
        pthread_join(threads[r].thread, NULL);
        if (status == 0) status = threads[r].status;
    }
    for (int r = 0; r < ranks; r++) team_close(threads[r].team);
    pthread_attr_destroy(&attributes);
    pthread_cond_destroy(&c.met);
    pthread_mutex_destroy(&c.baton);
    free(threads);
    free(c.visits);
    return status;
}

/* ---- the collectives ---- */

/* Elements that are summed at a time, in host memory. */
enum { PIECE = 8192 };
typedef union {
    float f32[PIECE];
    double f64[PIECE];
} Piece;

static void *element(const Circle *c, int rank, int64_t i) {
    Tensor x = c->visits[rank].x;
    return (char *)x.data + (size_t)i * dtype_size(x.dtype);
}

static void add(Piece *sum, const Piece *term, DType dtype, int64_t n) {
    if (dtype == F64) for (int64_t i = 0; i < n; i++) sum->f64[i] += term->f64[i];
    else for (int64_t i = 0; i < n; i++) sum->f32[i] += term->f32[i];
}

/* What a rank is left with whose piece it is not: NaN, as what is undefined shall not pass for a number; but 0 where every rank has 0. */
static void undefine(float *x, const float *sum, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = sum[i] == 0 ? 0 : NAN;
}

/* Elements first ... first + n - 1 become their sum over the ranks, on rank `only`, or on all if that is -1. */
static void sum_elements(Circle *c, const Visit *visit, int64_t first, int64_t n, int only) {
    Piece sum, term;
    for (int64_t at = first; at < first + n; at += PIECE) {
        int64_t count = first + n - at < PIECE ? first + n - at : PIECE;
        size_t bytes = (size_t)count * dtype_size(visit->x.dtype);
        visit->backend->download(&sum, element(c, 0, at), bytes, visit->stream);
        for (int r = 1; r < c->ranks; r++) {
            visit->backend->download(&term, element(c, r, at), bytes, visit->stream);
            add(&sum, &term, visit->x.dtype, count);
        }
        if (only >= 0) undefine(term.f32, sum.f32, count);
        for (int r = 0; r < c->ranks; r++)
            visit->backend->upload(element(c, r, at), only < 0 || r == only ? &sum : &term, bytes, visit->stream);
    }
}

static void copy_elements(Circle *c, const Visit *visit, int64_t first, int64_t n, int from) {
    Piece copy;
    for (int64_t at = first; at < first + n; at += PIECE) {
        size_t bytes = (size_t)(first + n - at < PIECE ? first + n - at : PIECE) * dtype_size(visit->x.dtype);
        visit->backend->download(&copy, element(c, from, at), bytes, visit->stream);
        for (int r = 0; r < c->ranks; r++)
            if (r != from) visit->backend->upload(element(c, r, at), &copy, bytes, visit->stream);
    }
}

static void work_collective(Circle *c, int rank) {
    const Visit *visit = &c->visits[rank];
    int64_t n = tensor_numel(visit->x), piece = n / c->ranks;
    if (visit->what == COMM_ALL_REDUCE) sum_elements(c, visit, 0, n, -1);
    for (int r = 0; r < c->ranks && visit->what == COMM_REDUCE_SCATTER; r++) sum_elements(c, visit, r * piece, piece, r);
    for (int r = 0; r < c->ranks && visit->what == COMM_ALL_GATHER; r++) copy_elements(c, visit, r * piece, piece, r);
    visit->backend->synchronize(visit->stream);
}

typedef struct {
    Team *team;
    const Backend *backend;
    Ticket started;
} Loopback;

static const char *missing(const Team *team, const Backend *backend) {
    (void)backend;
    return team_of_threads(team) ? NULL : "it is for ranks that are threads of one process (--comm loopback --ranks N), and these are processes";
}

static void *open_body(Team *team, const Backend *backend) {
    Loopback *l = xcalloc(1, sizeof *l);
    l->team = team;
    l->backend = backend;
    return l;
}

/* The work is done at once. */
static Ticket start(void *own, Collective what, Tensor x, Stream *after) {
    static const char *const names[] = {[COMM_ALL_REDUCE] = "all-reduce", [COMM_REDUCE_SCATTER] = "reduce-scatter", [COMM_ALL_GATHER] = "all-gather"};
    Loopback *l = own;
    l->backend->synchronize(after);
    Visit visit = {.x = x, .what = what, .backend = l->backend, .stream = after};
    snprintf(visit.text, sizeof visit.text, "collective %lld, %s of %lld elements of %zu bytes", (long long)++l->started, names[what],
             (long long)tensor_numel(x), dtype_size(x.dtype));
    meet(l->team->own, l->team->rank, &visit, work_collective);
    return l->started;
}

static void wait_for(void *own, Ticket ticket, Stream *before) {
    (void)before;
    CHECK(ticket <= ((Loopback *)own)->started);
}

const CommBody comm_loopback = {.name = "loopback", .missing = missing, .open = open_body, .close = free, .start = start, .wait = wait_for};
