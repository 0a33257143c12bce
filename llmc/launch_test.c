/* launch_test.c: what makes a program several ranks, what is said where the launcher's words make no sense, and the processes that --gpus starts. */
#include "launch.h"
#include "team_test.h"

#include "comm_body.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum { SOON = 15, MOST = 12 };

/* A program under test: its environment and its arguments. Everything that a launcher sets is cleared before. */
typedef struct {
    const char *environment[MOST];   /* NAME=value */
    const char *arguments[MOST];
    RankMain rank_main;
} Program;

static int run_program(void *argument) {
    static const char *const variables[] = {
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_RANK", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS",
        "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "OMP_NUM_THREADS"};
    const Program *p = argument;
    char *argv[MOST + 1] = {"prog"};
    int argc = 1;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
    for (int i = 0; i < MOST && p->environment[i]; i++) putenv((char *)p->environment[i]);
    for (int i = 0; i < MOST && p->arguments[i]; i++) argv[argc++] = (char *)p->arguments[i];
    return launch(argc, argv, p->rank_main);
}

static Child run_one(Program p) { return child_run(run_program, &p); }

/* Sockets or not can be told by the team: a rank alone has none. */
static int alone(int argc, char **argv, Team *team) {
    (void)argv;
    return team ? 50 : argc;
}

static int sum_of_ranks(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    double x = 1 + team_rank(team);
    team_sum(team, &x, 1, "a sum");
    return (int)x;
}

static void one_rank_where_nothing_asks_for_more(void **state) {
    (void)state;
    static const Program programs[] = {
        {{NULL}, {NULL}, alone},
        {{"RANK=0", "WORLD_SIZE=1"}, {NULL}, alone},
        {{"RANK=0", "WORLD_SIZE=2"}, {"--help"}, alone},
        {{"RANK=0", "WORLD_SIZE=2"}, {"--plan"}, alone},
        {{NULL}, {"--gpus", "3", "--print-config"}, alone},
        {{"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=0"}, {"--export=directory"}, alone},
        {{"RANK=1", "WORLD_SIZE=2"}, {"--comm", "none"}, alone},
        {{"RANK=1", "WORLD_SIZE=2"}, {"--comm=none"}, alone},
        {{NULL}, {"--gpus", "1"}, alone},
        {{NULL}, {"--plan", "--ranks", "8"}, alone},
        {{NULL}, {"--out", "--gpus", "3"}, alone},   /* a directory of that name */
        {{NULL}, {"-o", "--gpus=3"}, alone},
        {{NULL}, {"--comm", "loopback"}, alone},
        {{"SLURM_STEP_NUM_TASKS=1", "SLURM_PROCID=0"}, {NULL}, alone},
        {{"OMPI_COMM_WORLD_SIZE=1", "OMPI_COMM_WORLD_RANK=0"}, {NULL}, alone},
    };
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        int arguments = 0;
        while (programs[i].arguments[arguments]) arguments++;
        Child c = run_one(programs[i]);
        if (c.status != 1 + arguments || *c.text) fail_msg("program %zu: %d, %s", i, c.status, c.text);
    }
}

static int unwanted(int argc, char **argv, Team *team) {
    (void)argc, (void)argv, (void)team;
    return 50;
}

static void one_rank_is_enough_to_print(void **state) {
    (void)state;
    static const Program programs[] = {
        {{"RANK=1", "WORLD_SIZE=2"}, {"-h"}, unwanted},
        {{"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=1"}, {"--plan"}, unwanted},
        {{"SLURM_STEP_NUM_TASKS=2", "SLURM_PROCID=1"}, {"--export", "directory"}, unwanted},
    };
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) assert_int_equal(run_one(programs[i]).status, 0);
    Program plan_off = {{"RANK=2", "WORLD_SIZE=2"}, {"--no-plan", "--plan", "0"}, alone};
    assert_holds(run_one(plan_off).text, "ranks count from 0 to 1");
}

static void senseless_launches_are_named(void **state) {
    (void)state;
    static const struct { Program program; const char *sentence; } cases[] = {
        {{{"RANK=0"}, {NULL}, alone}, "prog: WORLD_SIZE is not set; expected a whole number from 1 to 1048576\n"},
        {{{"WORLD_SIZE=2"}, {NULL}, alone}, "prog: RANK is not set; expected a whole number from 0 to 1048576\n"},
        {{{"RANK=x1", "WORLD_SIZE=2"}, {NULL}, alone}, "prog: RANK is 'x1' in the environment; expected a whole number from 0 to 1048576\n"},
        {{{"RANK=1", "WORLD_SIZE=2.5"}, {NULL}, alone}, "prog: WORLD_SIZE is '2.5' in the environment; expected a whole number from 1 to 1048576\n"},
        {{{"RANK=0", "WORLD_SIZE=0"}, {NULL}, alone}, "prog: WORLD_SIZE is '0' in the environment; expected a whole number from 1 to 1048576\n"},
        {{{"RANK=2", "WORLD_SIZE=2"}, {NULL}, alone}, "prog: RANK is 2 and WORLD_SIZE 2; ranks count from 0 to 1\n"},
        {{{"RANK=1", "WORLD_SIZE=2", "MASTER_PORT=1"}, {NULL}, alone},
         "prog: torchrun (RANK, WORLD_SIZE) started 2 ranks, and MASTER_ADDR is not set; set MASTER_ADDR to the host of rank 0 and MASTER_PORT to a "
         "free port there\n"},
        {{{"RANK=1", "WORLD_SIZE=2", "MASTER_ADDR=a"}, {NULL}, alone}, "and MASTER_PORT is not set;"},
        {{{"RANK=1", "WORLD_SIZE=2", "MASTER_ADDR=a", "MASTER_PORT=65536"}, {NULL}, alone},
         "prog: MASTER_PORT is '65536' in the environment; expected a whole number from 1 to 65535\n"},
        {{{"SLURM_STEP_NUM_TASKS=2", "SLURM_PROCID=1"}, {NULL}, alone}, "prog: srun started 2 ranks, and MASTER_ADDR is not set;"},
        {{{"RANK=1", "WORLD_SIZE=2"}, {"--gpus", "2"}, alone}, "prog: --gpus 2 starts ranks by itself, and a launcher has started this one already"},
        {{{NULL}, {"--gpus", "2", "--comm", "none"}, alone}, "prog: --comm none is for one rank, and --gpus is 2\n"},
        {{{NULL}, {"--gpus", "2", "--comm=loopback"}, alone},
         "prog: --comm loopback is for threads of one process, and --gpus is 2; say how many with --ranks\n"},
        {{{NULL}, {"--gpus", "two"}, alone}, "prog: --gpus is 'two'; expected a whole number from 0 to 1024\n"},
        {{{NULL}, {"--gpus=-1"}, alone}, "prog: --gpus is '-1'; expected a whole number from 0 to 1024\n"},
        {{{NULL}, {"--comm", "tpc"}, alone}, "prog: --comm is 'tpc'; expected one of "},
        {{{NULL}, {"--comm-timeout", "nan"}, alone}, "prog: --comm-timeout is 'nan'; expected a number from 1 to 1000000\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Child c = run_one(cases[i].program);
        assert_int_equal(c.status, 1);
        assert_int_equal(lines_in(c.text), 1);
        assert_holds(c.text, cases[i].sentence);
    }
}

/* What a file says counts like the command line, which wins. */
static void a_file_of_options_counts(void **state) {
    (void)state;
    char path[] = P_tmpdir "/launch_testXXXXXX", word[64];
    FILE *file = fdopen(mkstemp(path), "w");
    fputs("gpus = 3\ncomm-timeout = 30\n", file);
    fclose(file);
    snprintf(word, sizeof word, "--config=%s", path);
    Child three = run_one((Program){{NULL}, {word}, sum_of_ranks}), one = run_one((Program){{NULL}, {"--gpus", "1", word}, alone});
    Child refused = run_one((Program){{NULL}, {word, "--comm", "none"}, alone}), printed = run_one((Program){{NULL}, {word, "--plan"}, alone});
    file = fopen(path, "a");
    fputs("ranks = some\n", file);
    fclose(file);
    Child wrong = run_one((Program){{NULL}, {word}, alone});
    unlink(path);
    Child missing = run_one((Program){{NULL}, {word}, alone});
    assert_int_equal(three.status, 6);
    assert_int_equal(one.status, 4);
    assert_holds(refused.text, "prog: --comm none is for one rank, and --gpus is 3\n");
    assert_int_equal(printed.status, 3);
    assert_holds(wrong.text, "line 3: --ranks is 'some'");
    assert_holds(missing.text, "cannot open");
}

/* ---- ranks that others started ---- */

static int free_port(void) {
    int port = 0;
    close(socket_listen("127.0.0.1", &port));
    return port;
}

/* Three processes with a launcher's variables; formats take the rank. */
static void start_three(Child c[3], const char *rank, const char *size, const char *more, RankMain rank_main) {
    char *port = xprintf("MASTER_PORT=%d", free_port());
    for (int r = 0; r < 3; r++) {
        char *variable = xprintf("%s=%d", rank, r);
        Program p = {{variable, size, "MASTER_ADDR=localhost", port, more}, {"--comm-timeout", "30"}, rank_main};
        child_start(&c[r], run_program, &p);
        free(variable);
    }
    free(port);
}

static void launchers_of_processes(void **state) {
    (void)state;
    Child c[3];
    static const char *const variables[][3] = {
        {"RANK", "WORLD_SIZE=3", NULL},
        {"RANK", "WORLD_SIZE=3", "TORCHELASTIC_USE_AGENT_STORE=True"},
        {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS=3", "SLURM_JOB_ID=17"},
    };
    for (int i = 0; i < 3; i++) {
        start_three(c, variables[i][0], variables[i][1], variables[i][2], sum_of_ranks);
        assert_int_equal(team_end(c, 3, 2 * SOON), 0);
        assert_ended(c, 3, 6, NULL);
    }
}

/* MASTER_PORT is in use by the agent, which does not speak with us. */
static void torchrun_keeps_its_port(void **state) {
    (void)state;
    Child c[2];
    int port = 0, agent = socket_listen("127.0.0.1", &port);
    char *master = xprintf("MASTER_PORT=%d", port);
    for (int r = 0; r < 2; r++) {
        Program p = {{r ? "RANK=1" : "RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", master, "TORCHELASTIC_USE_AGENT_STORE=True"},
                     {NULL}, sum_of_ranks};
        child_start(&c[r], run_program, &p);
    }
    assert_int_equal(team_end(c, 2, SOON), 0);
    assert_ended(c, 2, 3, NULL);
    Program p = {{"RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", master}, {NULL}, sum_of_ranks};
    Child busy = run_one(p);
    assert_int_equal(busy.status, 1);
    assert_holds(busy.text, "Address already in use; is another job there? give this one another MASTER_PORT\n");
    close(agent);
    free(master);
}

/* On one machine the job's name gives the port. */
static void mpirun_without_mpi(void **state) {
    (void)state;
    if (mpi_start) skip();
    Child c[2];
    char *job = xprintf("OMPI_MCA_ess_base_jobid=%ld", (long)getpid());
    for (int r = 0; r < 2; r++) {
        Program p = {{r ? "OMPI_COMM_WORLD_RANK=1" : "OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_SIZE=2", job},
                     {NULL}, sum_of_ranks};
        child_start(&c[r], run_program, &p);
    }
    assert_int_equal(team_end(c, 2, 2 * SOON), 0);
    assert_ended(c, 2, 3, NULL);
    Program apart = {{"OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_SIZE=1", job}, {NULL}, sum_of_ranks};
    Child one = run_one(apart);
    assert_int_equal(one.status, 1);
    assert_holds(one.text, "prog: mpirun started 2 ranks, and this build has no MPI");
    free(job);
}

static int is_thread(int argc, char **argv, Team *team) {
    (void)argv;
    return argc != 5 || team_ranks(team) != 3 || !team_of_threads(team) ? 50 : sum_of_ranks(0, NULL, team);
}

static void loopback_is_threads(void **state) {
    (void)state;
    Program p = {{NULL}, {"--comm", "loopback", "--ranks", "3"}, is_thread};
    Child c = run_one(p);
    assert_int_equal(c.status, 6);
    assert_string_equal(c.text, "");
}

/* ---- --gpus ---- */

/* Each of three copies has a third of the cores, its place, and the arguments. */
static int gpus_work(int argc, char **argv, Team *team) {
    int wrong = argc != 4 || strcmp(argv[3], "--steps=5") != 0;
    wrong |= team_local_rank(team) != team_rank(team) || team_of_threads(team) || team_timeout(team) != 300;
#ifdef _OPENMP
    int cores = omp_get_num_procs();
    wrong |= omp_get_max_threads() != (cores >= 3 ? cores / 3 : 1);
#endif
    return wrong || sum_of_ranks(0, NULL, team) != 6;
}

static int gpus_seven(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    return team_rank(team) == 1 ? 7 : 0;
}

static int gpus_dies(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    if (team_rank(team) == 2) die("no data");
    team_barrier(team, "the data");
    return 0;
}

static int gpus_killed(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    if (team_rank(team) == 1) raise(SIGKILL);
    team_barrier(team, "the data");
    return 0;
}

static void gpus_starts_ranks(void **state) {
    (void)state;
    Program p = {{NULL}, {"--gpus", "3", "--steps=5"}, gpus_work};
    Child c = run_one(p);
    assert_int_equal(c.status, 0);
    assert_string_equal(c.text, "");
    p = (Program){{NULL}, {"--gpus=3"}, gpus_seven};
    c = run_one(p);
    assert_int_equal(c.status, 7);
    p.rank_main = gpus_dies;
    c = run_one(p);
    assert_int_equal(c.status, 1);
    assert_int_equal(lines_in(c.text), 1);
    assert_holds(c.text, "prog: rank 2 on ");
    assert_holds(c.text, ": no data\n");
    p.rank_main = gpus_killed;
    c = run_one(p);
    assert_int_equal(lines_in(c.text), 1);
    assert_holds(c.text, "prog: rank 1 on ");
    assert_holds(c.text, "ended without a word");
    /* The others leave at once; which of them the parent sees first is up to the machine. */
    assert_true(c.status == 128 + SIGKILL || c.status == 1);
}

static volatile sig_atomic_t caught;
static void on_signal(int number) { caught = number; }

/* Each rank says on stderr that it is ready, and ends with the signal that it caught. */
static int gpus_waits_for_signal(int argc, char **argv, Team *team) {
    (void)argc, (void)argv;
    sigset_t set, before;
    sigemptyset(&set);
    for (int i = 0; i < 3; i++) {
        int number = (const int[]){SIGTERM, SIGINT, SIGUSR1}[i];
        sigaddset(&set, number);
        signal(number, on_signal);
    }
    sigprocmask(SIG_BLOCK, &set, &before);
    team_barrier(team, "all ready");
    if (team_rank(team) == 0 && write(STDERR_FILENO, "r", 1) != 1) return 1;
    while (!caught) sigsuspend(&before);
    return caught;
}

static void wait_until_ready(const Child *c) {
    struct pollfd ready = {.fd = c->output, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 1000 * SOON), 1);
}

static void signals_reach_all_ranks(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        int number = (const int[]){SIGTERM, SIGINT, SIGUSR1}[i];
        Program p = {{NULL}, {"--gpus", "3"}, gpus_waits_for_signal};
        Child c;
        child_start(&c, run_program, &p);
        wait_until_ready(&c);
        kill(c.pid, number);
        assert_true(child_end(&c, SOON));
        assert_int_equal(c.status, number);
        assert_string_equal(c.text, "r");
    }
}

/* The pipe of stderr closes when the last copy has gone. */
static void no_copy_outlives_a_killed_parent(void **state) {
    (void)state;
    Program p = {{NULL}, {"--gpus", "3"}, gpus_waits_for_signal};
    Child c;
    child_start(&c, run_program, &p);
    wait_until_ready(&c);
    kill(c.pid, SIGKILL);
    assert_true(child_end(&c, SOON));
    assert_int_equal(c.status, 128 + SIGKILL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_where_nothing_asks_for_more),
        cmocka_unit_test(one_rank_is_enough_to_print),
        cmocka_unit_test(senseless_launches_are_named), cmocka_unit_test(a_file_of_options_counts),
        cmocka_unit_test(launchers_of_processes),
        cmocka_unit_test(torchrun_keeps_its_port),
        cmocka_unit_test(mpirun_without_mpi),
        cmocka_unit_test(loopback_is_threads),
        cmocka_unit_test(gpus_starts_ranks),
        cmocka_unit_test(signals_reach_all_ranks),
        cmocka_unit_test(no_copy_outlives_a_killed_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
