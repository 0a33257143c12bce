/* child_test.h: a process of a test, what it prints on stderr, and how it ends. */
#ifndef LLMC_CHILD_TEST_H
#define LLMC_CHILD_TEST_H

#include "error.h"
#include "machine.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { TEXT_SIZE = 8192 };

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

/* Runs act(argument) to its end, which a minute is enough for. */
static inline Child child_run(int (*act)(void *), void *argument) {
    Child c;
    child_start(&c, act, argument);
    assert_true(child_end(&c, 60));
    return c;
}

#endif
