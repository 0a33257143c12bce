/* timed.c: a backend that waits for every op and adds up its time, to be set against what the op's own cost function allows. */
#include "ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define X(name, outputs, arguments, call, bytes, flops) OP_##name,
enum { OP_LIST(X) };
#undef X

/* Calls of an op that cost alike: those of one shape. */
typedef struct {
    long long calls;
    double bytes, flops;   /* of one call */
} Cost;

enum { COSTS = 32 };   /* more than a model needs; the last one stands for all further shapes, with their mean */

typedef struct {
    const char *name;
    double seconds;
    Cost costs[COSTS];
} Timing;

static const Backend *timed_inner;
static Timing timings[BACKEND_OPS];

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double start_clock(Stream *s) {
    timed_inner->synchronize(s);
    return seconds_now();
}

static void stop_clock(Timing *timing, double start, double bytes, double flops, Stream *s) {
    timed_inner->synchronize(s);
    timing->seconds += seconds_now() - start;
    int i = 0;
    while (i < COSTS - 1 && timing->costs[i].calls && !(timing->costs[i].bytes == bytes && timing->costs[i].flops == flops)) i++;
    Cost *cost = &timing->costs[i];
    cost->calls++;
    cost->bytes += (bytes - cost->bytes) / (double)cost->calls;
    cost->flops += (flops - cost->flops) / (double)cost->calls;
}

#define X(name, outputs, arguments, call, bytes, flops)                            \
    static void timed_##name arguments {                                           \
        double start = start_clock(s);                                             \
        timed_inner->op.name call;                                                 \
        stop_clock(&timings[OP_##name], start, (double)(bytes), flops, s);         \
    }
OP_LIST(X)
#undef X

const Backend *backend_timed(const Backend *inner) {
    static Backend backend;
    backend = *inner;
    backend.graph_begin = NULL;   /* the ops of a graph are not called one by one */
    timed_inner = inner;
#define X(op_name, outputs, arguments, call, bytes, flops)       \
    backend.op.op_name = timed_##op_name;                        \
    timings[OP_##op_name] = (Timing){.name = #op_name};
    OP_LIST(X)
#undef X
    return &backend;
}

/* The floor of a call is the greater of the time to move its bytes and the time to do its arithmetic. */
static OpTime op_time(const Timing *timing, double bytes_per_second, double flops_per_second) {
    OpTime op = {.name = timing->name, .seconds = timing->seconds};
    for (int i = 0; i < COSTS && timing->costs[i].calls; i++) {
        const Cost *cost = &timing->costs[i];
        double calls = (double)cost->calls, moving = cost->bytes / bytes_per_second, computing = cost->flops / flops_per_second;
        op.calls += cost->calls;
        op.bytes += calls * cost->bytes;
        op.flops += calls * cost->flops;
        op.floor += calls * (moving > computing ? moving : computing);
    }
    return op;
}

static int by_seconds_descending(const void *a, const void *b) {
    double x = ((const OpTime *)a)->seconds, y = ((const OpTime *)b)->seconds;
    return (x < y) - (x > y);
}

int backend_timed_ops(OpTime ops[BACKEND_OPS], double bytes_per_second, double flops_per_second) {
    int n = 0;
    for (int i = 0; i < BACKEND_OPS; i++)
        if (timings[i].costs[0].calls) ops[n++] = op_time(&timings[i], bytes_per_second, flops_per_second);
    qsort(ops, (size_t)n, sizeof *ops, by_seconds_descending);
    return n;
}

void backend_timed_report(void *file, double bytes_per_second, double flops_per_second) {
    OpTime ops[BACKEND_OPS], total = {0};
    int n = backend_timed_ops(ops, bytes_per_second, flops_per_second);
    for (int i = 0; i < n; i++) {
        total.calls += ops[i].calls;
        total.seconds += ops[i].seconds;
        total.floor += ops[i].floor;
    }
    fprintf(file, "%-27s %9s %10s %7s %8s %9s %8s\n", "op", "calls", "ms", "share", "GB/s", "GFLOP/s", "x floor");
    for (int i = 0; i < n; i++) {
        fprintf(file, "%-27s %9lld %10.1f %6.1f%% %8.1f %9.1f ", ops[i].name, ops[i].calls, 1e3 * ops[i].seconds,
                100 * ops[i].seconds / total.seconds, 1e-9 * ops[i].bytes / ops[i].seconds, 1e-9 * ops[i].flops / ops[i].seconds);
        if (ops[i].floor > 0) fprintf(file, "%8.2f\n", ops[i].seconds / ops[i].floor);
        else fprintf(file, "%8s\n", "-");   /* an op whose cost is not worth stating */
    }
    fprintf(file, "%-27s %9lld %10.1f %36.2f\n", "all ops", total.calls, 1e3 * total.seconds, n ? total.seconds / total.floor : 0.0);
}
