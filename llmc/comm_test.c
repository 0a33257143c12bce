/* comm_test.c: collectives among rank threads on every backend, what those threads may not do, and the worker's queue and clock. */
#include "comm_body.h"
#include "comm_test.h"
#include "child_test.h"
#include "kernels/op_test.h"
#include "machine.h"

#include <pthread.h>

/* ---- rank threads ---- */

static const Backend *backend;

static int rank_checks(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    Comm *c = comm_open(team, backend, "auto");
    int wrong = 0;
    if (team_ranks(team) > 1 && strcmp(comm_name(c), "loopback") != 0) wrong++;
    if (comm_rank(c) != team_rank(team) || comm_ranks(c) != team_ranks(team)) wrong++;
    if (team_ranks(team) > 1 && comm_team(c) != team) wrong++;
    wrong += check_collectives(c, backend, backend->host_memory ? 100003 : 20011);
    comm_close(c);
    return wrong;
}

static void collectives_of_threads(void **state) {
    (void)state;
    for (int i = 0; i < TEST_BACKENDS; i++) {
        backend = test_backend(i);
        for (int ranks = 1; backend && ranks <= 5; ranks++) assert_int_equal(loopback_run(ranks, 0, NULL, rank_checks), 0);
    }
}

static int team_checks(int argc, char **argv, Team *team) {
    int rank = team_rank(team), ranks = team_ranks(team), all[8] = {0}, wrong = argc != 2 || strcmp(argv[1], "argument") != 0;
    for (int round = 0; round < 50; round++) {
        int mine = 100 * rank + round;
        team_gather(team, &mine, sizeof mine, all, "numbers");
        for (int r = 0; r < ranks; r++) wrong += all[r] != 100 * r + round;
        team_barrier(team, "the end of a round");
    }
    double x[2] = {1.0 + rank, 0.5};
    team_sum(team, x, 2, "a sum");
    wrong += x[0] != ranks * (ranks + 1) / 2.0 || x[1] != 0.5 * ranks;
    char *text = team_text_of_first(team, rank == 0 ? "from rank 0" : "other", "a text");
    wrong += strcmp(text, "from rank 0") != 0 || strcmp(team_host(team, ranks - 1), team_host(team, 0)) != 0;
    free(text);
    team_expect_same(team, "the same", "texts");
    return wrong ? 1 : rank >= 2 ? 10 + rank : 0;
}

static void team_of_rank_threads(void **state) {
    (void)state;
    char *argv[] = {"program", "argument", NULL};
    assert_int_equal(loopback_run(1, 2, argv, team_checks), 0);
    assert_int_equal(loopback_run(2, 2, argv, team_checks), 0);
    assert_int_equal(loopback_run(5, 2, argv, team_checks), 12);   /* the first in the order of the ranks */
}

/* What reduce-scatter leaves undefined does not look like a sum, but zeros remain. */
static int rank_scatters(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    const Backend *b = backend_find("cpu");
    Comm *c = comm_open(team, b, "loopback");
    float x[6] = {1, 0, 3, 4, 0, 6};
    int mine = 3 * comm_rank(c), other = 3 - mine;
    comm_wait(c, comm_reduce_scatter(c, tensor(x, F32, 1, 6, 0, 0, 0), NULL), NULL);
    comm_close(c);
    bool summed = x[mine] == 2.0f * (float)(mine + 1) && x[mine + 1] == 0 && x[mine + 2] == 2.0f * (float)(mine + 3);
    return !(summed && isnan(x[other]) && x[other + 1] == 0 && isnan(x[other + 2]));
}

static void undefined_pieces_are_nan(void **state) {
    (void)state;
    assert_int_equal(loopback_run(2, 0, NULL, rank_scatters), 0);
}

/* ---- mistakes ---- */

typedef void (*Act)(void);
static int call(void *act) {
    error_exit_hook(_exit);
    (*(Act *)act)();
    return 77;
}
static void expect_death(Act act, const char *part) {
    Child c = child_run(call, &act);
    assert_int_equal(c.status, 1);
    assert_holds(c.text, part);
}

static int rank_differs(int argc, char **argv, Team *team) {
    (void)argv;
    Comm *c = comm_open(team, backend_find("cpu"), "loopback");
    double memory[8] = {0};
    bool odd = team_rank(team) == 1;
    Tensor x = tensor(memory, odd && argc == 2 ? F64 : F32, 1, odd && argc == 1 ? 6 : 4, 0, 0, 0);
    if (argc == 3 && odd) return 0;
    if (argc == 4 && odd) team_barrier(team, "a barrier");
    else if (argc == 0 && odd) comm_all_gather(c, x, NULL);
    else comm_all_reduce(c, x, NULL);
    return 0;
}
static void differ_in_kind(void) { loopback_run(2, 0, NULL, rank_differs); }
static void differ_in_size(void) { loopback_run(2, 1, NULL, rank_differs); }
static void differ_in_dtype(void) { loopback_run(2, 2, NULL, rank_differs); }
static void one_returns(void) { loopback_run(2, 3, NULL, rank_differs); }
static void one_gathers(void) { loopback_run(2, 4, NULL, rank_differs); }

static int rank_opens(int argc, char **argv, Team *team) {
    (void)argc;
    comm_open(team, backend_find("cpu"), argv[0]);
    return 0;
}
static void open_as(const char *kind) { loopback_run(2, 1, (char *[]){(char *)kind, NULL}, rank_opens); }
static void open_mpi(void) { open_as("mpi"); }
static void open_nccl(void) { open_as("nccl"); }
static void open_none(void) { open_as("none"); }
static void reduce_bf16(void) {
    uint16_t x[2] = {0, 0};
    comm_all_reduce(NULL, tensor(x, BF16, 1, 2, 0, 0, 0), NULL);
}

static void mistakes_are_named(void **state) {
    (void)state;
    expect_death(differ_in_kind, "all-gather of 4 elements of 4 bytes");
    expect_death(differ_in_kind, "all-reduce of 4 elements of 4 bytes");
    expect_death(differ_in_size, "all-reduce of 6 elements");
    expect_death(differ_in_dtype, "all-reduce of 4 elements of 8 bytes");
    expect_death(one_gathers, "a gathering of 0 bytes (a barrier)");
    expect_death(one_returns, "but rank 1 has returned");
    expect_death(open_mpi, "--comm mpi is not in this build");
    expect_death(open_nccl, "--comm nccl is not in this build");
    expect_death(open_none, "--comm none, but there are 2 ranks");
    expect_death(reduce_bf16, "CHECK");
}

static void one_rank_alone_has_none(void **state) {
    (void)state;
    const Backend *b = backend_find("cpu");
    const char *const kinds[] = {"auto", "none", "mpi", "tcp", "loopback"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) assert_null(comm_open(NULL, b, kinds[i]));
    float x[2] = {1, 2};
    assert_int_equal(comm_all_reduce(NULL, tensor(x, F32, 1, 2, 0, 0, 0), NULL), 0);
    comm_wait(NULL, 0, NULL);
    assert_true(x[0] == 1 && x[1] == 2);
    assert_int_equal(comm_rank(NULL), 0);
    assert_int_equal(comm_ranks(NULL), 1);
    assert_string_equal(comm_name(NULL), "none");
    assert_true(comm_times(NULL).busy == 0);
    comm_close(NULL);
}

/* ---- the worker ---- */

/* The worker writes down what it is given, after so many seconds of work. */
typedef struct {
    int64_t order[2000];
    int64_t count;
    double work;
} Log;

static void log_collective(void *context, Collective what, Tensor x) {
    Log *log = context;
    for (double begin = machine_seconds(); machine_seconds() - begin < log->work;) {}
    log->order[log->count++] = x.shape[0] * 4 + (int64_t)what;
}

static Tensor numbered(int64_t n) { return tensor(&backend, F32, 1, n, 0, 0, 0); }

static void worker_keeps_the_order(void **state) {
    (void)state;
    enum { COUNT = 2000 };   /* many times what the queue holds */
    Log *log = xcalloc(1, sizeof *log);
    CommWorker *w = worker_open(NULL, log_collective, log);
    for (int i = 0; i < COUNT; i++) assert_int_equal(worker_start(w, (Collective)(i % 3), numbered(i)), i + 1);
    worker_wait(w, COUNT / 2);
    worker_wait(w, 1);
    worker_wait(w, COUNT);
    assert_int_equal(log->count, COUNT);
    for (int i = 0; i < COUNT; i++) assert_int_equal(log->order[i], i * 4 + i % 3);
    /* Closing waits for what was started. */
    log->count = 0;
    log->work = 0.001;
    for (int i = 0; i < 5; i++) worker_start(w, COMM_ALL_GATHER, numbered(i));
    worker_close(w);
    assert_int_equal(log->count, 5);
    free(log);
}

static void worker_tells_times(void **state) {
    (void)state;
    const double work = 0.01;
    Log log = {.work = work};
    CommWorker *w = worker_open(NULL, log_collective, &log);
    double begin = machine_seconds();
    worker_wait(w, worker_start(w, COMM_ALL_REDUCE, numbered(1)));
    CommTimes waited = worker_times(w);
    double wall = machine_seconds() - begin;
    assert_true(waited.busy >= work && waited.busy <= wall);
    assert_true(waited.exposed > 0 && waited.exposed <= wall);
    CommTimes after = worker_times(w);
    assert_true(after.busy == 0 && after.exposed == 0);

    /* Nobody waits until it is over: nothing is exposed. Asked for while it is under way, the parts add up to the whole. */
    begin = machine_seconds();
    Ticket hidden = worker_start(w, COMM_ALL_REDUCE, numbered(1));
    double busy = 0;
    for (CommTimes t = worker_times(w); t.busy > 0; t = worker_times(w)) busy += t.busy;
    wall = machine_seconds() - begin;
    worker_wait(w, hidden);
    assert_true(worker_times(w).exposed == 0);
    assert_true(busy >= work && busy <= wall);
    worker_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(collectives_of_threads),
        cmocka_unit_test(team_of_rank_threads),
        cmocka_unit_test(undefined_pieces_are_nan),
        cmocka_unit_test(one_rank_alone_has_none),
        cmocka_unit_test(worker_keeps_the_order),
        cmocka_unit_test(worker_tells_times),
    };
    return cmocka_run_group_tests_name("comm", tests, NULL, NULL);
}
