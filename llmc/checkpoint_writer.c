/* checkpoint_writer.c: see checkpoint_writer.h. */
#include "checkpoint_writer.h"

#include "error.h"
#include "machine.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 3 };
static const double pauses[TRIES - 1] = {1, 3};   /* seconds */

struct CheckpointWriter {
    const char *run, *tokenizer_directory;
    const Options *options;
    void (*pause)(double seconds);
    bool background;
    pthread_t thread;

    pthread_mutex_t mutex;      /* of all below; while busy, the writing thread alone touches the first four */
    pthread_cond_t changed;     /* busy or closing */
    Snapshot snapshot;
    RunState state;
    bool best, last;
    bool busy, closing, failed;
    double best_on_disk;        /* a validation loss */
    int64_t failures;
    char error[ERROR_SIZE];     /* of the last save, if it failed */
    WriterTimes times;
};

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

static void sleep_for(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

static bool save_in_tries(CheckpointWriter *w, char error[ERROR_SIZE]) {
    for (int i = 0; i < TRIES; i++) {
        if (i) w->pause(pauses[i - 1]);
        if (checkpoint_save(w->run, &w->snapshot, &w->state, w->options, w->tokenizer_directory, w->best, error)) return true;
    }
    return false;
}

static void write_snapshot(CheckpointWriter *w) {
    char error[ERROR_SIZE];
    double start = machine_seconds();
    bool good = save_in_tries(w, error);
    if (!good && !w->last)
        warn("step %lld: the checkpoint could not be written: %s; training goes on, the earlier ones are untouched", (long long)w->state.step, error);
    pthread_mutex_lock(&w->mutex);
    w->failed = !good;
    w->failures += !good;
    if (good && w->best) w->best_on_disk = w->state.best_val_loss;
    if (!good) memcpy(w->error, error, sizeof error);
    w->times.writing += machine_seconds() - start;
    w->busy = false;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

/* Training comes first where both want a core. On Linux a thread has a priority of its own; where it may not be lowered, nothing is lost. */
static void lower_priority(void) {
    id_t self = (id_t)syscall(SYS_gettid);
    setpriority(PRIO_PROCESS, self, getpriority(PRIO_PROCESS, self) + 10);
}

static void *write_in_background(void *argument) {
    CheckpointWriter *w = argument;
    lower_priority();
    pthread_mutex_lock(&w->mutex);
    while (!w->closing || w->busy) {
        if (w->busy) {
            pthread_mutex_unlock(&w->mutex);
            write_snapshot(w);
            pthread_mutex_lock(&w->mutex);
        } else {
            pthread_cond_wait(&w->changed, &w->mutex);
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* The thread takes no signals: they are for the one that trains. */
static bool start_thread(CheckpointWriter *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int cause = pthread_create(&w->thread, NULL, write_in_background, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (cause) warn("no thread can be had to write checkpoints on: %s; training waits while they are written", strerror(cause));
    return cause == 0;
}

/* ---- the side of the trainer ------------------------------------------------------------------------------------------------ */

CheckpointWriter *checkpoint_writer_open(const char *run, const Options *options, const char *tokenizer_directory, double best_val_loss,
                                         bool background) {
    CheckpointWriter *w = (CheckpointWriter *)xcalloc(1, sizeof *w);
    w->run = run;
    w->options = options;
    w->tokenizer_directory = tokenizer_directory;
    w->best_on_disk = best_val_loss;
    w->pause = sleep_for;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->background = background && start_thread(w);
    return w;
}

bool checkpoint_writer_copies(const CheckpointWriter *w) { return w->background; }

void checkpoint_writer_pause_with(CheckpointWriter *w, void (*pause)(double seconds)) { w->pause = pause; }

/* Locks, and waits until nothing is being written. */
static void lock_idle(CheckpointWriter *w) {
    double start = machine_seconds();
    pthread_mutex_lock(&w->mutex);
    while (w->busy) pthread_cond_wait(&w->changed, &w->mutex);
    w->times.stall += machine_seconds() - start;
}

Snapshot *checkpoint_writer_snapshot(CheckpointWriter *w) {
    lock_idle(w);
    pthread_mutex_unlock(&w->mutex);
    return &w->snapshot;
}

void checkpoint_writer_save(CheckpointWriter *w, const RunState *state, bool best, bool last) {
    double start = machine_seconds();
    lock_idle(w);
    w->state = *state;
    if (!best) w->state.best_val_loss = w->best_on_disk;
    w->best = best;
    w->last = last;
    w->busy = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    if (w->background) return;
    write_snapshot(w);
    w->times.stall += machine_seconds() - start;
}

bool checkpoint_writer_wait(CheckpointWriter *w, char error[ERROR_SIZE]) {
    lock_idle(w);
    bool good = !w->failed || file_error(error, "%s", w->error);
    pthread_mutex_unlock(&w->mutex);
    return good;
}

int64_t checkpoint_writer_failures(CheckpointWriter *w) {
    pthread_mutex_lock(&w->mutex);
    int64_t failures = w->failures;
    pthread_mutex_unlock(&w->mutex);
    return failures;
}

double checkpoint_writer_best(CheckpointWriter *w) {
    pthread_mutex_lock(&w->mutex);
    double loss = w->busy && w->best ? w->state.best_val_loss : w->best_on_disk;
    pthread_mutex_unlock(&w->mutex);
    return loss;
}

WriterTimes checkpoint_writer_times(CheckpointWriter *w) {
    pthread_mutex_lock(&w->mutex);
    WriterTimes times = w->times;
    w->times = (WriterTimes){0, 0};
    pthread_mutex_unlock(&w->mutex);
    return times;
}

void checkpoint_writer_close(CheckpointWriter *w) {
    if (!w) return;
    lock_idle(w);
    w->closing = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    if (w->background) pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->changed);
    snapshot_release(&w->snapshot);
    free(w);
}
