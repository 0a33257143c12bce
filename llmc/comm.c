/* comm.c: see comm.h. The table of bodies, the choice among them, and what all of them may take for granted of a collective. */
#include "comm_body.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

struct Comm {
    const CommBody *body;
    Team *team;
    void *own;   /* the body's */
};

/* Bodies that this build lacks are NULL. */
static const CommBody *body_named(const char *name) {
    const CommBody *bodies[] = {&comm_nccl, &comm_mpi, &comm_tcp, &comm_loopback};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        if (bodies[i] && strcmp(bodies[i]->name, name) == 0) return bodies[i];
    return NULL;
}

static const char *automatic(const Team *team, const Backend *backend) {
    if (team_ranks(team) == 1) return "none";
    if (team_of_threads(team)) return "loopback";
    if (!backend->host_memory) return "nccl";
    const CommBody *mpi = body_named("mpi");
    return mpi && !mpi->missing(team, backend) ? "mpi" : "tcp";
}

static const CommBody *body_wanted(const char *kind, const Team *team, const Backend *backend) {
    const CommBody *body = body_named(kind);
    if (!body && (strcmp(kind, "nccl") == 0 || strcmp(kind, "mpi") == 0))
        die("--comm %s is not in this build: install %s and build again (make prints what it finds), or choose another --comm", kind,
            strcmp(kind, "mpi") == 0 ? "an MPI with mpicc" : "NCCL's header nccl.h beside the CUDA toolkit");
    if (!body) die("--comm %s, but there are %d ranks, and they need nccl, mpi, tcp or loopback", kind, team_ranks(team));
    const char *missing = body->missing(team, backend);
    if (missing) die("--comm %s cannot be used: %s", kind, missing);
    return body;
}

Comm *comm_of_body(const CommBody *body, Team *team, const Backend *backend) {
    Comm *c = xcalloc(1, sizeof *c);
    c->body = body;
    c->team = team;
    c->own = body->open(team, backend);
    return c;
}

Comm *comm_open(Team *team, const Backend *backend, const char *kind) {
    if (strcmp(kind, "auto") == 0) kind = automatic(team, backend);
    if (team_ranks(team) == 1 && strcmp(kind, "nccl") != 0) return NULL;
    return comm_of_body(body_wanted(kind, team, backend), team, backend);
}

void comm_close(Comm *c) {
    if (c) c->body->close(c->own);
    free(c);
}

int comm_rank(const Comm *c) { return c ? team_rank(c->team) : 0; }
int comm_ranks(const Comm *c) { return c ? team_ranks(c->team) : 1; }
Team *comm_team(const Comm *c) { return c ? c->team : NULL; }
const char *comm_name(const Comm *c) { return c ? c->body->name : "none"; }

static Ticket start(Comm *c, Collective what, Tensor x, Stream *after) {
    CHECK(tensor_numel(x) > 0);
    return c->body->start(c->own, what, x, after);
}

Ticket comm_all_reduce(Comm *c, Tensor x, Stream *after) {
    CHECK(x.dtype == F32 || x.dtype == F64);
    return c ? start(c, COMM_ALL_REDUCE, x, after) : 0;
}

Ticket comm_reduce_scatter(Comm *c, Tensor x, Stream *after) {
    CHECK(x.dtype == F32 && tensor_numel(x) % comm_ranks(c) == 0);
    return c ? start(c, COMM_REDUCE_SCATTER, x, after) : 0;
}

Ticket comm_all_gather(Comm *c, Tensor x, Stream *after) {
    CHECK((x.dtype == F32 || x.dtype == BF16) && tensor_numel(x) % comm_ranks(c) == 0);
    return c ? start(c, COMM_ALL_GATHER, x, after) : 0;
}

void comm_wait(Comm *c, Ticket ticket, Stream *before) {
    if (c && ticket > 0) c->body->wait(c->own, ticket, before);
}

CommTimes comm_times(Comm *c) { return c && c->body->times ? c->body->times(c->own) : (CommTimes){0, 0}; }

