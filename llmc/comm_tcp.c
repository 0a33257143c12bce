/* comm_tcp.c: collectives over TCP by way of rank 0, for builds without MPI. Every rank has one connection with rank 0, which adds in the order of
   the ranks, so that the same bits come out on every rank and on every run. An all-reduce over W ranks takes (W-1) * 2 * bytes through rank 0's
   network: for a few ranks.

   x travels in chunks, and rank 0 sends back the sum of one while the next ones arrive. A rank sends and receives at once, and so never keeps rank 0
   waiting with its answers; the sum of a chunk can only come after the chunk has gone, so both are x itself. */
#include "comm_body.h"
#include "error.h"
#include "machine.h"
#include "sockets.h"
#include "team_processes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { CHUNK = 256 << 10 };                        /* bytes */
static const double patience = 10, lost_after = 5; /* seconds */

typedef struct {
    Team *team;
    CommWorker *worker;
    int *sockets;                                  /* (ranks) on rank 0, its own -1; (1) on the others */
    void *chunk;                                   /* rank 0: (CHUNK) of another rank */
    int64_t count;                                 /* collectives so far */
} Tcp;

/* What a rank sends before its part: rank 0 compares it with its own. */
typedef struct {
    int64_t number, bytes;
    uint32_t what, dtype;
} Order;

typedef struct {
    uint64_t token;                                /* of this job; strangers do not know it */
    int64_t rank;
} Caller;

/* The watch of the team knows better why, and ends this process; if it sees nothing wrong, it is this connection alone that broke. */
static void __attribute__((noreturn)) lost(const Tcp *t, int rank, int cause) {
    poll(NULL, 0, (int)(1000 * lost_after));
    die("rank %d lost its connection with rank %d on %s: %s", team_rank(t->team), rank, team_host(t->team, rank), cause ? strerror(cause) : "closed");
}

/* One system call, over and over, until so many bytes have gone or come. */
static void send_whole(const Tcp *t, int rank, const void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = send(t->sockets[rank], (const char *)data + done, bytes - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) lost(t, rank, errno);
        done += (size_t)n;
    }
}

static void receive_whole(const Tcp *t, int rank, void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = recv(t->sockets[rank], (char *)data + done, bytes - done, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) lost(t, rank, n < 0 ? errno : 0);
        done += (size_t)n;
    }
}

/* ---- rank 0 ---- */

static void add(void *sum, const void *x, size_t bytes, DType dtype) {
    if (dtype == F64) {
        double *a = sum;
        const double *b = x;
        for (size_t i = 0; i < bytes / sizeof *a; i++) a[i] += b[i];
    } else {
        float *a = sum;
        const float *b = x;
        for (size_t i = 0; i < bytes / sizeof *a; i++) a[i] += b[i];
    }
}

static void compare_orders(Tcp *t, Order mine) {
    for (int r = 1; r < team_ranks(t->team); r++) {
        Order theirs;
        receive_whole(t, r, &theirs, sizeof theirs);
        if (memcmp(&theirs, &mine, sizeof mine) != 0)
            die("collective %lld has %lld bytes (kind %u) on rank %d, and %lld bytes (kind %u) on rank 0: a bug of the program, please report it",
                (long long)theirs.number, (long long)theirs.bytes, theirs.what, r, (long long)mine.bytes, mine.what);
    }
}

/* One chunk, which belongs to piece `owner` (-1: to all). */
static void lead_chunk(Tcp *t, Collective what, DType dtype, int owner, char *chunk, size_t bytes) {
    int ranks = team_ranks(t->team);
    if (what == COMM_ALL_GATHER && owner > 0) receive_whole(t, owner, chunk, bytes);
    for (int r = 1; r < ranks && what != COMM_ALL_GATHER; r++) {
        receive_whole(t, r, t->chunk, bytes);
        add(chunk, t->chunk, bytes, dtype);
    }
    for (int r = 1; r < ranks; r++)
        if (what == COMM_ALL_REDUCE || (r == owner) == (what == COMM_REDUCE_SCATTER)) send_whole(t, r, chunk, bytes);
}

static void lead(Tcp *t, Collective what, Tensor x) {
    int pieces = what == COMM_ALL_REDUCE ? 1 : team_ranks(t->team);
    size_t piece = tensor_bytes(x) / (size_t)pieces;
    for (int p = 0; p < pieces; p++) {
        char *data = (char *)x.data + (size_t)p * piece;
        int owner = what == COMM_ALL_REDUCE ? -1 : p;
        for (size_t at = 0; at < piece; at += CHUNK) lead_chunk(t, what, x.dtype, owner, data + at, piece - at < CHUNK ? piece - at : CHUNK);
    }
}

/* ---- the others ---- */

typedef struct {
    char *data;
    size_t bytes, done;
} Range;

/* Moves what the network takes or has now. */
static void move_some(const Tcp *t, Range *range, bool sends) {
    while (range->done < range->bytes) {
        char *at = range->data + range->done;
        size_t left = range->bytes - range->done;
        ssize_t n = sends ? send(t->sockets[0], at, left, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(t->sockets[0], at, left, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n < 0 || (n == 0 && !sends)) lost(t, 0, n < 0 ? errno : 0);
        range->done += (size_t)n;
    }
}

/* Sends one range while it receives another, either of which may have no bytes. */
static void exchange(const Tcp *t, Range out, Range in) {
    while (out.done < out.bytes || in.done < in.bytes) {
        bool to_send = out.done < out.bytes, to_come = in.done < in.bytes;
        struct pollfd ready = {.fd = t->sockets[0], .events = (short)((to_send ? POLLOUT : 0) | (to_come ? POLLIN : 0))};
        if (poll(&ready, 1, -1) <= 0) continue;
        if (to_come) move_some(t, &in, false);
        if (to_send) move_some(t, &out, true);
    }
}

static void follow(Tcp *t, Collective what, Tensor x) {
    size_t all = tensor_bytes(x), piece = all / (size_t)team_ranks(t->team), begin = piece * (size_t)team_rank(t->team), end = begin + piece;
    char *data = x.data;
    const Range whole = {data, all, 0}, mine = {data + begin, piece, 0}, nothing = {data, 0, 0};
    if (what == COMM_ALL_REDUCE) exchange(t, whole, whole);
    else if (what == COMM_REDUCE_SCATTER) exchange(t, whole, mine);
    else {
        exchange(t, mine, (Range){data, begin, 0});
        exchange(t, nothing, (Range){data + end, all - end, 0});
    }
}

static void run(void *context, Collective what, Tensor x) {
    Tcp *t = context;
    Order order = {++t->count, (int64_t)tensor_bytes(x), what, x.dtype};
    if (team_rank(t->team) == 0) {
        compare_orders(t, order);
        lead(t, what, x);
    } else {
        send_whole(t, 0, &order, sizeof order);
        follow(t, what, x);
    }
}

/* ---- coming together ---- */

/* A caller that has said its token and rank within the time that is left; -1 for a stranger. */
static int hear_caller(int s, uint64_t token, int ranks, double until) {
    Caller caller;
    size_t got = 0;
    while (got < sizeof caller) {
        struct pollfd ready = {.fd = s, .events = POLLIN};
        double left = until - machine_seconds();
        if (left <= 0 || poll(&ready, 1, (int)(1000 * left) + 1) <= 0) return -1;
        ssize_t n = recv(s, (char *)&caller + got, sizeof caller - got, MSG_DONTWAIT);
        if (n <= 0) return -1;
        got += (size_t)n;
    }
    return caller.token == token && caller.rank > 0 && caller.rank < ranks ? (int)caller.rank : -1;
}

/* A stranger that says nothing costs a second. */
static void take_callers(Tcp *t, int listener, uint64_t token) {
    int ranks = team_ranks(t->team), missing = ranks - 1;
    double until = machine_seconds() + patience + ranks;
    while (missing > 0 && machine_seconds() < until) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        if (poll(&ready, 1, 100) <= 0) continue;
        int s = socket_accept(listener);
        if (s < 0) continue;
        int rank = hear_caller(s, token, ranks, machine_seconds() + 1);
        if (rank < 0 || t->sockets[rank] >= 0) {
            close(s);
            continue;
        }
        socket_block(s, true);
        t->sockets[rank] = s;
        missing--;
    }
    if (missing > 0) die("--comm tcp: %d of %d ranks could not open a second connection to rank 0; is it a firewall's doing?", missing, ranks);
}

static void call_first(Tcp *t, int port, uint64_t token) {
    struct sockaddr_storage first;
    socklen_t length = team_address_of_first(t->team, &first);
    *(first.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&first)->sin6_port : &((struct sockaddr_in *)&first)->sin_port) = htons((uint16_t)port);
    t->sockets[0] = socket_connect((struct sockaddr *)&first, length, patience);
    if (t->sockets[0] < 0)
        die("rank %d cannot open a second connection to rank 0, port %d: %s; is it a firewall's doing?", team_rank(t->team), port, strerror(errno));
    socket_block(t->sockets[0], true);
    Caller caller = {token, team_rank(t->team)};
    send_whole(t, 0, &caller, sizeof caller);
}

static void *open_tcp(Team *team, const Backend *backend) {
    (void)backend;
    int ranks = team_ranks(team), rank = team_rank(team), port = 0, listener = -1;
    struct { int64_t port; uint64_t token; } mine = {0, 0}, *all = xcalloc((size_t)ranks, sizeof *all);
    Tcp *t = xcalloc(1, sizeof *t);
    t->team = team;
    t->sockets = xcalloc((size_t)ranks, sizeof *t->sockets);
    for (int r = 0; r < ranks; r++) t->sockets[r] = -1;
    if (rank == 0) {
        listener = socket_listen(NULL, &port);
        if (listener < 0) die("--comm tcp: rank 0 cannot listen on any port: %s", strerror(errno));
        CHECK(getrandom(&mine.token, sizeof mine.token, 0) == sizeof mine.token);
        mine.port = port;
        t->chunk = xmalloc(CHUNK);
    }
    team_gather(team, &mine, sizeof mine, all, "the ports of --comm tcp");
    if (rank == 0) take_callers(t, listener, mine.token);
    else call_first(t, (int)all[0].port, all[0].token);
    if (listener >= 0) close(listener);
    free(all);
    t->worker = worker_open(team, run, t);
    return t;
}

static void close_tcp(void *body) {
    Tcp *t = body;
    worker_close(t->worker);
    for (int r = 0; r < team_ranks(t->team); r++)
        if (t->sockets[r] >= 0) close(t->sockets[r]);
    free(t->sockets);
    free(t->chunk);
    free(t);
}

static const char *missing(const Team *team, const Backend *backend) {
    if (!backend->host_memory) return "tcp is for the CPU; on GPUs it is nccl";
    return team_of_threads(team) ? "tcp is for ranks that are processes; threads have loopback" : NULL;
}

static Ticket start(void *body, Collective what, Tensor x, Stream *after) {
    (void)after;   /* the CPU does everything at once */
    return worker_start(((Tcp *)body)->worker, what, x);
}

static void wait(void *body, Ticket ticket, Stream *before) {
    (void)before;
    worker_wait(((Tcp *)body)->worker, ticket);
}

static CommTimes times(void *body) { return worker_times(((Tcp *)body)->worker); }

const CommBody comm_tcp = {"tcp", missing, open_tcp, close_tcp, start, wait, times};
