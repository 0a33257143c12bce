/* team_test.h: ranks of a team, each a process of the test; for team_test.c, launch_test.c, rendezvous_test.c, comm_tcp_test.c and agree_test.c. */
#ifndef LLMC_TEAM_TEST_H
#define LLMC_TEAM_TEST_H

#include "child_test.h"
#include "kernels/ops.h"
#include "sockets.h"
#include "team_processes.h"

enum { MOST_RANKS = 5 };

/* ---- ranks of a team ---- */

typedef int (*RankAct)(Team *team);

typedef struct {
    TeamPlace place;
    RankAct act;
} TestRank;

static inline int test_rank_run(void *argument) {
    const TestRank *r = argument;
    if (r->place.rank > 0 && r->place.listener >= 0) close(r->place.listener);
    Team *t = team_of_processes(&r->place);
    int status = r->act(t);
    team_close(t);
    return status;
}

/* Starts rank `rank` of `ranks`, which all meet at `listener`, that the test has opened at port. */
static inline void rank_start(Child *c, int rank, int ranks, int listener, int port, double timeout, RankAct act) {
    TestRank r = {.act = act, .place = {.rank = rank, .ranks = ranks, .local_rank = -1, .addresses = "127.0.0.1", .port = port,
                                        .listener = rank == 0 ? listener : -1, .timeout = timeout}};
    child_start(c, test_rank_run, &r);
}

/* All ranks of a team, each in its process. */
static inline void team_start(Child *c, int ranks, double timeout, RankAct act) {
    int port = 0, listener = socket_listen("127.0.0.1", &port);
    assert_true(listener >= 0);
    for (int r = 0; r < ranks; r++) rank_start(&c[r], r, ranks, listener, port, timeout, act);
    close(listener);
}

/* Waits for all; the number that had to be killed. */
static inline int team_end(Child *c, int ranks, double seconds) {
    double until = machine_seconds() + seconds;
    int killed = 0;
    for (int r = 0; r < ranks; r++) {
        double left = until - machine_seconds();
        killed += !child_end(&c[r], left > 0 ? left : 0);
    }
    return killed;
}

/* All ended by themselves with that status, and rank 0 printed this one line (NULL: none) and the others nothing. */
static inline void assert_ended(const Child *c, int ranks, int status, const char *part) {
    for (int r = 0; r < ranks; r++) {
        if (c[r].status != status)
            fail_msg("rank %d ended with %d; %d was expected; it said: %s; rank 0: %s", r, c[r].status, status, c[r].text, c[0].text);
        int expected = r == 0 && part;
        if (lines_in(c[r].text) != expected) fail_msg("rank %d printed %d lines, not %d: %s", r, lines_in(c[r].text), expected, c[r].text);
    }
    if (part) assert_holds(c[0].text, part);
}

#endif
