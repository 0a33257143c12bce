/* team_test.h: processes of a test, what they print, and how they end; for team_test.c, launch_test.c and comm_tcp_test.c. */
#ifndef LLMC_TEAM_TEST_H
#define LLMC_TEAM_TEST_H

#include "error.h"
#include "kernels/ops.h"
#include "machine.h"
#include "sockets.h"
#include "team_processes.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { MOST_RANKS = 5, TEXT_SIZE = 8192 };

typedef struct {
    pid_t pid;
    int output;             /* the reading end of its stderr */
    int status;             /* as a shell has it: 128 + n after signal n; -1: not ended */
    char text[TEXT_SIZE];   /* what it wrote on stderr */
} Child;

/* Runs act(argument) in a child, which exits with its result. */
static inline void child_start(Child *c, int (*act)(void *), void *argument) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    *c = (Child){.status = -1, .pid = fork()};
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        error_program_name("prog");
        int status = act(argument);
        error_flush();
        _exit(status);
    }
    close(ends[1]);
    c->output = ends[0];
}

/* Waits until it has ended and all its copies have closed its stderr, at most so many seconds; false if that is not enough: it is killed then. */
static inline bool child_end(Child *c, double seconds) {
    double until = machine_seconds() + seconds;
    size_t used = 0;
    bool closed = false;
    int status;
    while (!closed && machine_seconds() < until) {
        struct pollfd ready = {.fd = c->output, .events = POLLIN};
        if (poll(&ready, 1, 100) <= 0) continue;
        ssize_t n = read(c->output, c->text + used, sizeof c->text - 1 - used);
        if (n > 0) used += (size_t)n;
        closed = n <= 0;
    }
    if (!closed) kill(c->pid, SIGKILL);
    close(c->output);
    waitpid(c->pid, &status, 0);
    c->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return closed;
}

static inline int lines_in(const char *text) {
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

#define assert_holds(text, part)                                                                                                    \
    do {                                                                                                                            \
        if (!strstr(text, part)) fail_msg("'%s' was expected in: %s", part, text);                                                  \
    } while (0)

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
