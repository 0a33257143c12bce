/* machine.c: rates and memory of the machine. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

double machine_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double machine_peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return 1024.0 * (double)usage.ru_maxrss;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct { const Backend *backend; Tensor a, b, c; } Job;

/* Median seconds of run(job), after one run to warm up. */
static double median_seconds(void (*run)(const Job *), const Job *job, double seconds) {
    enum { MOST = 4096 };
    double times[MOST], begin = machine_seconds();
    int n = 0;
    run(job);
    while (n < MOST && (n < 3 || machine_seconds() - begin < seconds)) {
        double start = machine_seconds();
        run(job);
        job->backend->synchronize(NULL);
        times[n++] = machine_seconds() - start;
    }
    qsort(times, (size_t)n, sizeof *times, ascending);
    return times[n / 2];
}

static void multiply(const Job *j) { j->backend->op.matmul_forward(j->c, no_tensor(), j->a, j->b, no_tensor(), ACT_NONE, NULL); }

double machine_matmul_rate(const Backend *backend, DType dtype, double seconds) {
    enum { N = 2048 };
    Tensor t[3];
    for (int i = 0; i < 3; i++) {
        t[i] = tensor(NULL, dtype, 2, N, N, 0, 0);
        t[i].data = backend->alloc((size_t)N * N * dtype_size(dtype));
    }
    Job job = {backend, t[0], t[1], t[2]};
    double rate = 2.0 * N * N * N / median_seconds(multiply, &job, seconds);
    for (int i = 0; i < 3; i++) backend->release(t[i].data);
    return rate;
}

static const StepState no_drop;
static void copy(const Job *j) {
    Dropout none = {0, 0, &no_drop};
    j->backend->op.dropout(j->c, j->a, none, NULL);   /* p is 0: reads one array and writes the other */
}

double machine_bandwidth(const Backend *backend, double seconds) {
    enum { COUNT = 32 << 20 };
    Job job = {backend, tensor(NULL, F32, 1, COUNT, 0, 0, 0), no_tensor(), tensor(NULL, F32, 1, COUNT, 0, 0, 0)};
    job.a.data = backend->alloc((size_t)COUNT * 4);
    job.c.data = backend->alloc((size_t)COUNT * 4);
    double rate = 8.0 * COUNT / median_seconds(copy, &job, seconds);
    backend->release(job.a.data);
    backend->release(job.c.data);
    return rate;
}
