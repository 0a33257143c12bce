/* launch_children.c: see launch_children.h. Copies are forks without exec: they go on from here with what the parent has read, and it has run no
   thread and touched no device yet. */
#include "launch_children.h"

#include "error.h"
#include "machine.h"
#include "sockets.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const double mercy = 20;   /* seconds between the first failure and SIGKILL */

typedef struct {
    pid_t *pids;     /* 0: it has ended */
    int count, left;
    int status;      /* of the first failure; 0: none */
    int culprit;     /* whose that was */
    double failed;   /* and when */
} Children;

static void send_all(const Children *c, int signal) {
    for (int r = 0; r < c->count; r++)
        if (c->pids[r]) kill(c->pids[r], signal);
}

static void become_child(TeamPlace *place, int rank, pid_t parent, const sigset_t *before) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(EXIT_FAILURE);   /* it died before we asked */
    sigprocmask(SIG_SETMASK, before, NULL);
    place->rank = place->local_rank = rank;
    if (rank > 0) {
        close(place->listener);
        place->listener = -1;
    }
}

static void collect(Children *c) {
    for (int r = 0; r < c->count; r++) {
        int status;
        if (!c->pids[r] || waitpid(c->pids[r], &status, WNOHANG) != c->pids[r]) continue;
        c->pids[r] = 0;
        c->left--;
        int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (c->status == 0 && code != 0) {
            c->status = code;
            c->culprit = r;
            c->failed = machine_seconds();
        }
    }
}

/* The signals in `ours` are blocked and waited for, so that none can come between a look and a sleep. One from the terminal has reached the copies
   too. */
static void watch_over(Children *c, const sigset_t *ours) {
    bool killed = false;
    while (c->left > 0) {
        struct timespec second = {.tv_sec = 1};
        siginfo_t from;
        int signal = sigtimedwait(ours, &from, &second);
        if (signal > 0 && signal != SIGCHLD && from.si_code != SI_KERNEL) send_all(c, signal);
        collect(c);
        if (c->status && !killed && machine_seconds() - c->failed > mercy) {
            warn("rank %d ended with status %d, and %d other%s did not end within %.3g s: killed", c->culprit, c->status, c->left,
                 c->left == 1 ? "" : "s", mercy);
            send_all(c, SIGKILL);
            killed = true;
        }
    }
}

bool children_start(TeamPlace *place, int *status) {
    Children c = {.pids = xcalloc((size_t)place->ranks, sizeof *c.pids)};
    sigset_t ours, before;
    pid_t parent = getpid();
    place->addresses = "127.0.0.1";
    place->port = 0;
    place->job = (uint64_t)parent;
    place->listener = socket_listen(place->addresses, &place->port);
    if (place->listener < 0) die("cannot listen on 127.0.0.1: %s", strerror(errno));
    sigemptyset(&ours);
    for (int i = 0; i < 5; i++) sigaddset(&ours, (const int[]){SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1}[i]);
    sigprocmask(SIG_BLOCK, &ours, &before);
    signal(SIGCHLD, SIG_DFL);   /* where it was ignored, children would leave without a status */
    fflush(NULL);   /* or every copy prints it again */
    for (int r = 0; r < place->ranks; r++) {
        pid_t pid = fork();
        if (pid == 0) {
            free(c.pids);
            become_child(place, r, parent, &before);
            return true;
        }
        if (pid < 0) {
            int cause = errno;
            send_all(&c, SIGKILL);
            die("cannot start rank %d of %d: %s", r, place->ranks, strerror(cause));
        }
        c.pids[c.count++] = pid;
        c.left++;
    }
    close(place->listener);
    watch_over(&c, &ours);
    sigprocmask(SIG_SETMASK, &before, NULL);
    free(c.pids);
    *status = c.status;
    return false;
}
