/* team_processes.c: see team_processes.h. What the program's threads ask for is written down under the watch's lock, and the watch does it. */
#include "team_processes.h"

#include "error.h"
#include "kernels/ops.h"
#include "machine.h"
#include "watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Seconds that die() waits for rank 0 to print its sentence before it does so itself; of rank 0, for telling the others. */
enum { PATIENCE = 2, FIRST_PATIENCE = 5 };

/* Hooks have no argument: this process's team. */
static Watch *watched;

static void begin_wait(Watch *w, const char *what) {
    w->mine.waiting = 1;
    w->mine.waits++;
    memset(w->mine.what, 0, sizeof w->mine.what);   /* it travels, and is compared */
    snprintf(w->mine.what, sizeof w->mine.what, "%s", what);
    w->since = machine_seconds();
}

static void wait_begin(Team *t, const char *what) {
    Watch *w = t->own;
    pthread_mutex_lock(&w->lock);
    begin_wait(w, what);
    pthread_mutex_unlock(&w->lock);
}

static void wait_end(Team *t) {
    Watch *w = t->own;
    pthread_mutex_lock(&w->lock);
    w->mine.waiting = 0;
    pthread_mutex_unlock(&w->lock);
}

static void excuse(Team *t, bool excused) {
    Watch *w = t->own;
    pthread_mutex_lock(&w->lock);
    w->mine.excused = excused;
    pthread_mutex_unlock(&w->lock);
}

static void gather(Team *t, const void *mine, size_t bytes, void *all, const char *what) {
    Watch *w = t->own;
    pthread_mutex_lock(&w->lock);
    begin_wait(w, what);
    w->given = mine;
    w->all = all;
    w->bytes = (int64_t)bytes;
    w->given_away = false;
    watch_wake(w);
    while (w->bytes >= 0) pthread_cond_wait(&w->changed, &w->lock);
    w->mine.waiting = 0;
    pthread_mutex_unlock(&w->lock);
}

/* The report hook of die(). The watch ends this process as soon as rank 0 has printed the sentence; if that does not happen, we print it here. */
static bool tell_team(const char *sentence) {
    Watch *w = watched;
    if (!w || pthread_equal(pthread_self(), w->thread)) return false;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += w->team->rank == 0 ? FIRST_PATIENCE : PATIENCE;
    pthread_mutex_lock(&w->lock);
    if (!w->dying[0]) snprintf(w->dying, sizeof w->dying, "%s", sentence);
    watch_wake(w);
    while (!w->closed && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT) continue;
    pthread_mutex_unlock(&w->lock);
    return false;
}

/* exit() would wait for other threads, libraries and devices, which may hang. */
static void leave_at_once(int status) {
    error_flush();
    _exit(status);
}

static void device_failed(const char *sentence) { die("%s", sentence); }

static void set_hooks(Watch *w) {
    watched = w;
    error_report_hook(w ? tell_team : NULL);
    error_exit_hook(w ? leave_at_once : NULL);
    backend_on_failure(w ? device_failed : NULL);
}

static void close_team(Team *t) {
    Watch *w = t->own;
    pthread_mutex_lock(&w->lock);
    begin_wait(w, "the end of the run");
    w->closing = true;
    watch_wake(w);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    set_hooks(NULL);
    for (int r = 0; r < w->count; r++) connection_close(&w->members[r].link);
    close(w->wake);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w->members);
    free(w);
}

static const TeamBody body = {.gather = gather, .wait_begin = wait_begin, .wait_end = wait_end, .excuse = excuse, .close = close_team};

/* Signals are for the thread that computes. */
static void start_thread(Watch *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int cause = pthread_create(&w->thread, NULL, watch_run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (cause) die("rank %d on %s cannot start a thread: %s", w->team->rank, team_host(w->team, w->team->rank), strerror(cause));
}

static Watch *watch_open(Team *t, Connection *links) {
    Watch *w = xcalloc(1, sizeof *w);
    pthread_condattr_t clock;
    w->team = t;
    w->count = t->rank == 0 ? t->ranks : 1;
    w->members = xcalloc((size_t)w->count, sizeof *w->members);
    w->bytes = -1;
    w->ticked = machine_seconds();
    for (int r = 0; r < w->count; r++) w->members[r] = (Member){.link = links[r], .heard = w->ticked};
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(w->wake >= 0);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &clock);
    pthread_condattr_destroy(&clock);
    return w;
}

Team *team_of_processes(const TeamPlace *place) {
    Meeting meeting = rendezvous(place);
    Team *t = xcalloc(1, sizeof *t);
    *t = (Team){.body = &body, .rank = place->rank, .ranks = place->ranks, .local_rank = meeting.local_rank, .timeout = place->timeout, .step = -1};
    t->hosts = xcalloc((size_t)t->ranks, sizeof *t->hosts);
    for (int r = 0; r < t->ranks; r++) t->hosts[r] = xstrdup(meeting.hosts[r]);
    Watch *w = watch_open(t, meeting.links);
    t->own = w;
    free(meeting.links);
    free(meeting.hosts);
    start_thread(w);
    set_hooks(w);
    return t;
}

socklen_t team_address_of_first(Team *t, struct sockaddr_storage *address) {
    Watch *w = t->own;
    socklen_t length = sizeof *address;
    CHECK(t->rank > 0 && getpeername(w->members[0].link.socket, (struct sockaddr *)address, &length) == 0);
    return length;
}
