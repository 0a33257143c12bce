/* machine.c: rates and memory of the machine. */
#include "machine.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double machine_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void machine_share_cores(char **argv) {
    char program[4096];
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0 || setenv("GOMP_SPINCOUNT", "10000", 1) != 0) return;
    program[length] = 0;
    execv(program, argv);   /* if that is not possible, training is slow where the machine is busy, and nothing else */
}

double machine_peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return 1024.0 * (double)usage.ru_maxrss;
}

/* ---- timing a piece of work --------------------------------------------------------------------------------------------------- */

typedef struct { const Backend *backend; Tensor a, b, c; } Job;
typedef void (*Work)(const Job *job);

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds that `times` runs one behind the other take, the last one awaited. */
static double seconds_of(Work work, const Job *job, int times) {
    double start = machine_seconds();
    for (int i = 0; i < times; i++) work(job);
    job->backend->synchronize(NULL);
    return machine_seconds() - start;
}

/* Median seconds of one run, over at least `seconds`. Short ones are timed several in a row, so that the wait for the device does not count. */
static double median_seconds(Work work, const Job *job, double seconds) {
    enum { MOST = 4096 };
    double times[MOST], begin = machine_seconds();
    int n = 0, in_a_row = 1 + (int)(0.01 / (seconds_of(work, job, 1) + 1e-6));
    while (n < MOST && (n < 3 || machine_seconds() - begin < seconds)) times[n++] = seconds_of(work, job, in_a_row) / in_a_row;
    qsort(times, (size_t)n, sizeof *times, ascending);
    return times[n / 2];
}

/* ---- the rates ---------------------------------------------------------------------------------------------------------------- */

/* A GPU multiplies zeros faster than numbers, and copies them no slower; so the arrays hold random numbers in [-1, 1). */
static void fill(const Backend *backend, Tensor t) {
    enum { PIECE = 1 << 16 };
    float numbers[PIECE];
    uint16_t halves[PIECE];
    uint64_t state = 88172645463325252u;
    for (int i = 0; i < PIECE; i++) {
        uint32_t bits;
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;   /* Marsaglia's xorshift */
        numbers[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
        memcpy(&bits, &numbers[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16);
    }
    const void *source = t.dtype == BF16 ? (const void *)halves : numbers;
    size_t bytes = tensor_bytes(t), piece = PIECE * dtype_size(t.dtype);
    for (size_t at = 0; at < bytes; at += piece) backend->upload((char *)t.data + at, source, bytes - at < piece ? bytes - at : piece, NULL);
    backend->synchronize(NULL);   /* the source ends with this function */
}

static Tensor filled(const Backend *backend, DType dtype, int64_t rows, int64_t columns) {
    Tensor t = tensor((void *)1, dtype, 2, rows, columns, 0, 0);
    t.data = backend->alloc(tensor_bytes(t));
    fill(backend, t);
    return t;
}

/* c from a, and b where there are two inputs. */
static Job open_job(const Backend *backend, int inputs, DType dtype, int64_t rows, int64_t columns) {
    Job job = {backend, filled(backend, dtype, rows, columns), no_tensor(), filled(backend, dtype, rows, columns)};
    if (inputs == 2) job.b = filled(backend, dtype, rows, columns);
    return job;
}
static void close_job(const Job *job) {
    job->backend->release(job->a.data);
    if (job->b.data) job->backend->release(job->b.data);
    job->backend->release(job->c.data);
}

static void multiply(const Job *j) { j->backend->op.matmul_forward(j->c, no_tensor(), j->a, j->b, no_tensor(), ACT_NONE, NULL); }

static const StepState no_drop;
static void copy(const Job *j) {
    Dropout none = {0, 0, &no_drop};
    j->backend->op.dropout(j->c, j->a, none, NULL);   /* p is 0: reads one array and writes the other */
}

/* True if work of this size is what the machine should be measured with: it takes `least` seconds, or twice the size has no room. */
static bool large_enough(Work work, const Job *job, double least, bool largest) {
    if (largest || 3.0 * 4 * (double)tensor_bytes(job->a) > job->backend->free_memory() / 2) return true;
    seconds_of(work, job, 1);   /* to warm up */
    return seconds_of(work, job, 1) >= least;
}

double machine_matmul_rate(const Backend *backend, DType dtype, double seconds) {
    enum { LARGEST = 8192 };
    for (int64_t n = 256;; n *= 2) {
        Job job = open_job(backend, 2, dtype, n, n);
        bool enough = large_enough(multiply, &job, 0.03, n == LARGEST);
        double rate = enough ? 2.0 * (double)n * (double)n * (double)n / median_seconds(multiply, &job, seconds) : 0;
        close_job(&job);
        if (enough) return rate;
    }
}

/* Like machine_matmul_rate, but brief, and the fastest of all: a peak is not what the machine did while others were at work on it too. So the
   products are short and many: of these, some come to run undisturbed. */
static double brief_matmul_rate(const Backend *backend, DType dtype) {
    enum { LARGEST = 4096, LEAST_TIMES = 32 };
    double best = INFINITY;
    int64_t n = 256;
    for (;; n *= 2) {
        Job job = open_job(backend, 2, dtype, n, n);
        bool enough = large_enough(multiply, &job, 0.0005, n == LARGEST);
        double begin = machine_seconds();
        for (int i = 0; enough && (i < LEAST_TIMES || machine_seconds() - begin < 0.04); i++) best = fmin(best, seconds_of(multiply, &job, 1));
        close_job(&job);
        if (enough) return 2.0 * (double)n * (double)n * (double)n / best;
    }
}

/* ---- the peak ----------------------------------------------------------------------------------------------------------------- */

/* The first that fits counts. */
static const Card cards[] = {
    {"GB200", 2500, 0, 0}, {"B200", 2250, 0, 0},
    {"H200 NVL", 835.5, 0, 0}, {"H200", 989.4, 0, 0}, {"GH200", 989.4, 0, 0}, {"H20", 148, 0, 0},
    {"H100 NVL", 835.5, 0, 0}, {"H100 PCIe", 756.5, 0, 0}, {"H100", 989.4, 3.0, 798}, {"H800", 989.4, 0, 0},
    {"A100", 312, 0, 0}, {"A800", 312, 0, 0}, {"A6000", 154.8, 0, 0}, {"A40", 149.7, 0, 0}, {"A30", 165, 0, 0}, {"A10", 125, 0, 0},
    {"RTX 6000 Ada", 364.3, 0, 0}, {"L40S", 362.1, 0, 0}, {"L40", 181.1, 0, 0}, {"L4", 121, 0, 0},
    {"RTX 5090", 209.5, 0, 0}, {"RTX 4090", 165.2, 0, 0}, {"RTX 3090 Ti", 80, 0, 0}, {"RTX 3090", 71, 0, 0},
};

/* As words: an RTX A4000 is no A40. */
static bool stands_in(const char *words, const char *text) {
    for (const char *at = text; (at = strstr(at, words)); at++)
        if ((at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[strlen(words)])) return true;
    return false;
}

/* The device's name is what describe() says up to the first comma. */
const Card *machine_card(const Backend *backend) {
    char name[128];
    snprintf(name, sizeof name, "%s", backend->describe());
    name[strcspn(name, ",")] = 0;
    if (stands_in("MIG", name) || stands_in("Laptop", name) || stands_in("D", name)) return NULL;   /* less than the card of that name */
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (stands_in(cards[i].name, name)) return &cards[i];
    return NULL;
}

Peak machine_peak(const Backend *backend, DType dtype) {
    const Card *card = machine_card(backend);
    if (strcmp(backend->name, "cpu") == 0) return (Peak){brief_matmul_rate(backend, dtype), "measured"};
    if (card && dtype == BF16) return (Peak){1e12 * card->tera_flops, "published"};
    return (Peak){0, NULL};
}

double machine_utilization(Peak *peak, double flops) {
    if (peak->from && strcmp(peak->from, "measured") == 0 && flops > peak->flops && isfinite(flops)) peak->flops = flops;
    return peak->flops > 0 ? flops / peak->flops : 0;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------- */

double machine_bandwidth(const Backend *backend, double seconds) {
    enum { COLUMNS = 1 << 20, LARGEST = 256 };
    for (int64_t rows = 1;; rows *= 2) {
        Job job = open_job(backend, 1, F32, rows, COLUMNS);
        bool enough = large_enough(copy, &job, 0.01, rows == LARGEST);
        double rate = enough ? 2.0 * (double)tensor_bytes(job.a) / median_seconds(copy, &job, seconds) : 0;
        close_job(&job);
        if (enough) return rate;
    }
}

double machine_wait_seconds(const Backend *backend) {
    enum { TIMES = 101 };
    double times[TIMES];
    Job job = open_job(backend, 1, F32, 1, 1);
    for (int i = 0; i < TIMES; i++) times[i] = seconds_of(copy, &job, 1);
    qsort(times, TIMES, sizeof *times, ascending);
    close_job(&job);
    return times[TIMES / 2];
}
