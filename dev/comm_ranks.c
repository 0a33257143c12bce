/* comm_ranks.c: the collectives among processes, checked or timed:

     mpirun -np 3 comm_ranks                     checks every collective of mpi; the exit status says whether all is right
     comm_ranks --gpus 3 --comm tcp              of tcp
     mpirun -np 2 comm_ranks --bench             times them, alone and beside a thread that computes without a pause */
#include "llmc/comm_test.h"
#include "llmc/launch.h"
#include "llmc/machine.h"

#include <pthread.h>

static bool over;            /* atomic */
static volatile double sum;
static void *compute(void *context) {
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
        for (int i = 0; i < 100000; i++) sum += 0.5 * i;
    return context;
}

/* Milliseconds that each of `rounds` collectives takes, one at a time: the least and the mean. */
static void time_collective(Comm *c, TestedCollective what, Tensor x, int rounds, double *least, double *mean) {
    *least = 1e30;
    *mean = 0;
    for (int i = 0; i < rounds; i++) {
        team_barrier(comm_team(c), "the next round");
        double begin = machine_seconds();
        Ticket ticket = what == ALL_REDUCE ? comm_all_reduce(c, x, NULL)
                      : what == REDUCE_SCATTER ? comm_reduce_scatter(c, x, NULL) : comm_all_gather(c, x, NULL);
        comm_wait(c, ticket, NULL);
        double ms = 1e3 * (machine_seconds() - begin);
        if (ms < *least) *least = ms;
        *mean += ms / rounds;
    }
}

static void bench(Comm *c, const Backend *b, const char *beside) {
    static const char *const names[] = {"all-reduce", "reduce-scatter", "all-gather"};
    const double megabytes[] = {1e-3, 0.1, 1, 10, 40};
    for (size_t i = 0; i < sizeof megabytes / sizeof *megabytes; i++) {
        int64_t n = (int64_t)(megabytes[i] * 1e6 / 4) / comm_ranks(c) * comm_ranks(c);
        Tensor x = tensor((void *)1, F32, 1, n, 0, 0, 0);
        x.data = b->alloc(tensor_bytes(x));
        for (int what = ALL_REDUCE; what <= ALL_GATHER; what++) {
            double least, mean;
            time_collective(c, (TestedCollective)what, x, megabytes[i] < 5 ? 50 : 10, &least, &mean);
            if (comm_rank(c) == 0)
                printf("%s, %d ranks, %s: %-14s of %6.3f MB: least %8.3f ms, mean %8.3f ms, %6.2f GB/s\n", comm_name(c), comm_ranks(c), beside,
                       names[what], 1e-6 * (double)tensor_bytes(x), least, mean, 1e-6 * (double)tensor_bytes(x) / mean);
        }
        b->release(x.data);
    }
}

static void bench_twice(Comm *c, const Backend *b) {
    pthread_t thread;
    bench(c, b, "alone");
    if (pthread_create(&thread, NULL, compute, NULL) != 0) die("no thread could be started");
    bench(c, b, "beside work");
    __atomic_store_n(&over, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}

static int check(Comm *c, const Backend *b) {
    double wrong = check_collectives(c, b, 5000011);
    CommTimes times = comm_times(c);
    if (!(times.busy > 0 && times.exposed > 0)) {
        fprintf(stderr, "rank %d: %g s busy and %g s exposed cannot be\n", comm_rank(c), times.busy, times.exposed);
        wrong++;
    }
    team_sum(comm_team(c), &wrong, 1, "the number of wrong results");
    if (comm_rank(c) == 0) printf("%s, %d ranks: %.0f wrong\n", comm_name(c), comm_ranks(c), wrong);
    return wrong != 0;
}

static int rank_main(int argc, char **argv, Team *team) {
    const char *kind = "auto";
    bool timed = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--comm") == 0 && i + 1 < argc) kind = argv[i + 1];
        timed |= strcmp(argv[i], "--bench") == 0;
    }
    const Backend *b = backend_find("cpu");
    Comm *c = comm_open(team, b, kind);
    if (!c) die("there is one rank: start several, as with mpirun -np 2 or --gpus 2");
    int status = 0;
    if (timed) bench_twice(c, b);
    else status = check(c, b);
    comm_close(c);
    return status;
}

int main(int argc, char **argv) {
    error_program_name(argv[0]);
    return launch(argc, argv, rank_main);
}
