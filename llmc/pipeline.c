/* pipeline.c: see pipeline.h. */
#include "pipeline.h"
#include "error.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

/* Piece number n, counted over the stream, lies in place n % piece_count. */
typedef struct {
    const Pipeline *pipeline;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t read, written;      /* pieces so far */
    bool reading, writing, ended;
    bool *worked;               /* (piece_count) the piece waits for its turn to be written */
} Run;

typedef struct {
    Run *run;
    int thread;
} Worker;

int pipeline_pieces(int threads) { return 2 * threads + 1; }

static void *piece_at(const Run *run, int64_t number) {
    return (char *)run->pipeline->pieces + (size_t)(number % run->pipeline->piece_count) * run->pipeline->piece_size;
}

/* The number of the piece read, or -1 at the end. The lock is held, but not while reading. */
static int64_t read_next(Run *run) {
    const Pipeline *p = run->pipeline;
    while (!run->ended && (run->reading || run->read - run->written == p->piece_count)) pthread_cond_wait(&run->changed, &run->lock);
    if (run->ended) return -1;
    int64_t number = run->read;
    run->reading = true;
    pthread_mutex_unlock(&run->lock);
    bool more = p->read(p->context, piece_at(run, number));
    pthread_mutex_lock(&run->lock);
    run->reading = false;
    if (more) run->read++;
    else run->ended = true;
    pthread_cond_broadcast(&run->changed);
    return more ? number : -1;
}

/* Writes all pieces whose turn it is, unless another thread is at it, which then comes to them. */
static void write_in_order(Run *run) {
    const Pipeline *p = run->pipeline;
    while (!run->writing && run->worked[run->written % p->piece_count]) {
        run->writing = true;
        pthread_mutex_unlock(&run->lock);
        bool wanted = p->write(p->context, piece_at(run, run->written));
        pthread_mutex_lock(&run->lock);
        run->worked[run->written++ % p->piece_count] = false;
        /* After a refusal it stays "being written", so that nothing more is. */
        run->writing = !wanted;
        run->ended |= !wanted;
        pthread_cond_broadcast(&run->changed);
    }
}

static void *work(void *argument) {
    Worker *worker = argument;
    Run *run = worker->run;
    const Pipeline *p = run->pipeline;
    int64_t number;
    pthread_mutex_lock(&run->lock);
    while ((number = read_next(run)) >= 0) {
        pthread_mutex_unlock(&run->lock);
        p->work(p->context, worker->thread, piece_at(run, number));
        pthread_mutex_lock(&run->lock);
        run->worked[number % p->piece_count] = true;
        write_in_order(run);
    }
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

void pipeline_run(const Pipeline *pipeline) {
    Run run = { .pipeline = pipeline, .worked = xcalloc((size_t)pipeline->piece_count, sizeof(bool)) };
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.changed, NULL);
    pthread_t *threads = xcalloc((size_t)pipeline->threads, sizeof *threads);
    Worker *workers = xcalloc((size_t)pipeline->threads, sizeof *workers);
    for (int i = 0; i < pipeline->threads; i++) {
        workers[i] = (Worker){ &run, i };
        if (i > 0) CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    work(&workers[0]);
    for (int i = 1; i < pipeline->threads; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    pthread_cond_destroy(&run.changed);
    pthread_mutex_destroy(&run.lock);
    free(run.worked);
    free(threads);
    free(workers);
}
