/* comm_late_test.h: a comm that shows who reads or writes what is under way. */
#ifndef LLMC_COMM_LATE_TEST_H
#define LLMC_COMM_LATE_TEST_H

#include "comm_body.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

/* The loopback at its latest: a collective takes its tensor away, leaving NaN, and does its work only when it is waited for. So whatever is read or
   written between the two, or is not waited for at all, shows. */
typedef struct {
    Collective what;
    Tensor x;
    void *taken;
    Stream *stream;
} Pending;

typedef struct {
    const Backend *backend;
    void *loopback;
    Pending pending[64];
    Ticket started, done;
} Late;

static inline const char *late_missing(const Team *team, const Backend *backend) { return (void)team, (void)backend, NULL; }
static inline void *late_open(Team *team, const Backend *backend) {
    Late *late = calloc(1, sizeof *late);
    late->backend = backend;
    late->loopback = comm_loopback.open(team, backend);
    return late;
}
static inline void late_close(void *body) {
    Late *late = body;
    CHECK(late->done == late->started);
    comm_loopback.close(late->loopback);
    free(late);
}
static inline Ticket late_start(void *body, Collective what, Tensor x, Stream *after) {
    Late *late = body;
    size_t bytes = tensor_bytes(x);
    void *taken = malloc(bytes), *nan = malloc(bytes);
    memset(nan, 0xFF, bytes);
    late->backend->download(taken, x.data, bytes, after);
    late->backend->upload(x.data, nan, bytes, after);
    late->backend->synchronize(after);
    free(nan);
    CHECK(late->started - late->done < 64);
    late->pending[++late->started % 64] = (Pending){what, x, taken, after};
    return late->started;
}
static inline void late_wait(void *body, Ticket ticket, Stream *before) {
    Late *late = body;
    while (late->done < ticket) {
        Pending *p = &late->pending[++late->done % 64];
        late->backend->upload(p->x.data, p->taken, tensor_bytes(p->x), p->stream);
        comm_loopback.wait(late->loopback, comm_loopback.start(late->loopback, p->what, p->x, p->stream), before);
        free(p->taken);
    }
}
static const CommBody comm_late = {"late", late_missing, late_open, late_close, late_start, late_wait, NULL};

#endif
