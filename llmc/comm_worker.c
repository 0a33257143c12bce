/* comm_worker.c: a thread of this rank that runs collectives one after another, in the order in which they were started. Nobody spins: with one core a
   rank, whoever waits leaves it to whoever computes. */
#include "comm_body.h"
#include "error.h"
#include "machine.h"

#include <pthread.h>
#include <stdlib.h>

/* More collectives than are under way in a step; a rank that starts still more waits. */
enum { QUEUE = 256 };

typedef struct {
    Collective what;
    Tensor x;
} Request;

struct CommWorker {
    Team *team;
    CollectiveRun run;
    void *context;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;   /* started, done or closing */
    Request queue[QUEUE];     /* number t lies in place t % QUEUE */
    Ticket started, done;
    bool closing;
    double busy_since;        /* while done < started */
    CommTimes times;
};

static void *work(void *context) {
    CommWorker *w = context;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->done == w->started && !w->closing) pthread_cond_wait(&w->changed, &w->lock);
        if (w->done == w->started) break;
        Request request = w->queue[(w->done + 1) % QUEUE];
        pthread_mutex_unlock(&w->lock);
        w->run(w->context, request.what, request.x);
        pthread_mutex_lock(&w->lock);
        if (++w->done == w->started) w->times.busy += machine_seconds() - w->busy_since;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

CommWorker *worker_open(Team *team, CollectiveRun run, void *context) {
    CommWorker *w = xcalloc(1, sizeof *w);
    w->team = team;
    w->run = run;
    w->context = context;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    if (pthread_create(&w->thread, NULL, work, w) != 0) die("no thread could be started for the collectives; end some processes, or raise ulimit -u");
    return w;
}

void worker_close(CommWorker *w) {
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static const char *const occasions[] = {
    [COMM_ALL_REDUCE] = "a sum over the ranks", [COMM_REDUCE_SCATTER] = "the sum of the gradients", [COMM_ALL_GATHER] = "the exchange of the parameters"};

/* The lock is held on entry and exit. */
static void wait_until_done(CommWorker *w, Ticket ticket) {
    if (w->done >= ticket) return;
    const char *occasion = occasions[w->queue[(w->done + 1) % QUEUE].what];
    /* The watch has locks of its own. */
    pthread_mutex_unlock(&w->lock);
    double begin = machine_seconds();
    team_wait_begin(w->team, occasion);
    pthread_mutex_lock(&w->lock);
    while (w->done < ticket) pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    team_wait_end(w->team);
    pthread_mutex_lock(&w->lock);
    w->times.exposed += machine_seconds() - begin;
}

Ticket worker_start(CommWorker *w, Collective what, Tensor x) {
    pthread_mutex_lock(&w->lock);
    wait_until_done(w, w->started + 1 - QUEUE);
    if (w->done == w->started) w->busy_since = machine_seconds();
    Ticket ticket = ++w->started;
    w->queue[ticket % QUEUE] = (Request){what, x};
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return ticket;
}

void worker_wait(CommWorker *w, Ticket ticket) {
    pthread_mutex_lock(&w->lock);
    CHECK(ticket <= w->started);
    wait_until_done(w, ticket);
    pthread_mutex_unlock(&w->lock);
}

CommTimes worker_times(CommWorker *w) {
    pthread_mutex_lock(&w->lock);
    if (w->done < w->started) {
        double now = machine_seconds();
        w->times.busy += now - w->busy_since;
        w->busy_since = now;
    }
    CommTimes times = w->times;
    w->times = (CommTimes){0, 0};
    pthread_mutex_unlock(&w->lock);
    return times;
}
