/* timed.c: a backend that waits for every op and adds up its time, to be set against what the op's own cost function allows. */
#include "ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define X(name, outputs, arguments, call, bytes, flops) OP_##name,
enum { OP_LIST(X) OPS };
#undef X

typedef struct {
    const char *name;
    long long calls;
    double seconds, bytes, flops;
} Timing;

static const Backend *timed_inner;
static Timing timings[OPS];

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
    timing->calls++;
    timing->bytes += bytes;
    timing->flops += flops;
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
    timed_inner = inner;
#define X(op_name, outputs, arguments, call, bytes, flops)       \
    backend.op.op_name = timed_##op_name;                        \
    timings[OP_##op_name] = (Timing){.name = #op_name};
    OP_LIST(X)
#undef X
    return &backend;
}

static int by_seconds_descending(const void *a, const void *b) {
    double x = ((const Timing *)a)->seconds, y = ((const Timing *)b)->seconds;
    return (x < y) - (x > y);
}

/* The floor is the greater of the time to move the bytes and the time to do the arithmetic. */
static void print_line(FILE *file, const Timing *timing, double total_seconds, double bytes_per_second, double flops_per_second) {
    double moving = timing->bytes / bytes_per_second, computing = timing->flops / flops_per_second;
    fprintf(file, "%-27s %9lld %10.1f %6.1f%% %8.1f %9.1f %8.2f\n", timing->name, timing->calls, 1e3 * timing->seconds,
            100 * timing->seconds / total_seconds, 1e-9 * timing->bytes / timing->seconds, 1e-9 * timing->flops / timing->seconds,
            timing->seconds / (moving > computing ? moving : computing));
}

void backend_timed_report(void *file, double bytes_per_second, double flops_per_second) {
    Timing sorted[OPS], total = {.name = "all ops"};
    for (int i = 0; i < OPS; i++) {
        sorted[i] = timings[i];
        total.calls += timings[i].calls;
        total.seconds += timings[i].seconds;
    }
    qsort(sorted, OPS, sizeof *sorted, by_seconds_descending);
    fprintf(file, "%-27s %9s %10s %7s %8s %9s %8s\n", "op", "calls", "ms", "share", "GB/s", "GFLOP/s", "x floor");
    for (int i = 0; i < OPS; i++)
        if (sorted[i].calls) print_line(file, &sorted[i], total.seconds, bytes_per_second, flops_per_second);
    fprintf(file, "%-27s %9lld %10.1f\n", total.name, total.calls, 1e3 * total.seconds);
}
