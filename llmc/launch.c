/* launch.c: see launch.h. What counts is looked at in that order, and the first that says something decides. */
#include "launch.h"

#include "comm_body.h"
#include "error.h"
#include "launch_children.h"
#include "options.h"
#include "sockets.h"
#include "team_processes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { MAX_RANKS = 1048576, LOWEST_PORT = 20000, PORTS = 40000 };

/* ---- the command line, and the file that it names by --config ---- */

typedef struct {
    bool prints;   /* --help and the like: what is asked for is printed or written, and that is all */
    bool alone, threads;
    int gpus, ranks;
    double timeout;
} Wishes;

/* The option that argv[i] names, and its value; *used: arguments that belong to it. NULL if it is none of ours, of which options_parse complains. */
static const OptionRow *option_at(int argc, char **argv, int i, const char **value, int *used) {
    const char *argument = argv[i];
    const OptionRow *row = NULL;
    *value = NULL;
    *used = 1;
    if (argument[0] == '-' && argument[1] == '-') {
        size_t n = strcspn(argument + 2, "=");
        char *name = xprintf("%.*s", (int)n, argument + 2);
        row = options_find(&train_options, name);
        free(name);
        if (argument[2 + n]) *value = argument + 3 + n;
    } else if (argument[0] == '-' && argument[1]) {
        for (int r = 0; r < train_options.count && !row; r++)
            if (train_options.rows[r].letter == argument[1]) row = &train_options.rows[r];
        if (argument[2]) *value = argument + 2;
    }
    if (row && !*value && row->kind != OPTION_FLAG && i + 1 < argc) *value = argv[i + 1], *used = 2;
    return row;
}

/* --plan may be followed by 1, 0, yes, no and so on. */
static bool is_flag_value(const OptionRow *row, const char *text) {
    char error[ERROR_SIZE];
    Options o;
    options_defaults(&o);
    bool is = options_set(&train_options, &o, row->name, text, FROM_COMMAND_LINE, error);
    options_release(&train_options, &o);
    return is;
}

static Wishes wishes_of(int argc, char **argv) {
    static const char *const ours[] = {"gpus", "comm", "ranks", "comm_timeout", "plan", "print_config", "export_", "config"};
    char error[ERROR_SIZE];
    Options o;
    Wishes w = {0};
    options_defaults(&o);
    for (int i = 1; i < argc; i++) w.prints |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    for (int i = 1, used; i < argc; i += used) {
        const char *value;
        const OptionRow *row = option_at(argc, argv, i, &value, &used);
        if (row && row->kind == OPTION_FLAG && !value) value = i + 1 < argc && is_flag_value(row, argv[i + 1]) ? argv[i + 1] : "1";
        if (!row || !value) continue;
        for (int k = 0; k < (int)(sizeof ours / sizeof *ours); k++)
            if (strcmp(row->name, ours[k]) == 0 && !options_set(&train_options, &o, row->name, value, FROM_COMMAND_LINE, error)) die("%s", error);
    }
    if (!w.prints && !options_read_config(&train_options, &o, error)) die("%s", error);
    char *comm = option_choice_word(options_find(&train_options, "comm")->choices, o.comm);
    w.alone = strcmp(comm, "none") == 0;
    w.threads = strcmp(comm, "loopback") == 0;
    free(comm);
    w.gpus = (int)o.gpus;
    w.ranks = (int)o.ranks;
    w.timeout = o.comm_timeout;
    w.prints |= o.plan || o.print_config || *o.export_;
    options_release(&train_options, &o);
    return w;
}

/* ---- the environment ---- */

static const char *variable(const char *name) {
    const char *text = getenv(name);
    return text && *text ? text : NULL;
}

static int64_t number(const char *name, int64_t least, int64_t most) {
    const char *text = variable(name);
    char *end;
    errno = 0;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text) die("%s is not set; expected a whole number from %lld to %lld", name, (long long)least, (long long)most);
    if (end == text || *end || errno || value < least || value > most)
        die("%s is '%.60s' in the environment; expected a whole number from %lld to %lld", name, text, (long long)least, (long long)most);
    return value;
}

/* Rank and size, of which a launcher sets both or neither. */
static void read_place(TeamPlace *place, const char *rank, const char *ranks, const char *local_rank) {
    place->ranks = (int)number(ranks, 1, MAX_RANKS);
    place->rank = (int)number(rank, 0, MAX_RANKS);
    if (place->rank >= place->ranks) die("%s is %d and %s %d; ranks count from 0 to %d", rank, place->rank, ranks, place->ranks, place->ranks - 1);
    place->local_rank = variable(local_rank) ? (int)number(local_rank, 0, MAX_RANKS) : -1;
}

static void read_master(TeamPlace *place, const char *launcher) {
    if (!variable("MASTER_ADDR") || !variable("MASTER_PORT"))
        die("%s started %d ranks, and %s is not set; set MASTER_ADDR to the host of rank 0 and MASTER_PORT to a free port there", launcher,
            place->ranks, variable("MASTER_ADDR") ? "MASTER_PORT" : "MASTER_ADDR");
    place->addresses = variable("MASTER_ADDR");
    place->port = (int)number("MASTER_PORT", 1, 65535);
}

/* What mpirun sets, by Open MPI or by MPICH and its kin; false if it did not start us. */
static bool mpi_variables(TeamPlace *place, int *local_ranks) {
    static const char *const names[][4] = {
        {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
        {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    };
    for (int i = 0; i < 2; i++) {
        if (!variable(names[i][0]) || !variable(names[i][1])) continue;
        read_place(place, names[i][0], names[i][1], names[i][2]);
        *local_ranks = variable(names[i][3]) ? (int)number(names[i][3], 1, MAX_RANKS) : 0;
        return true;
    }
    return false;
}

/* ---- ways to a team ---- */

/* A rank takes no more threads than its share of this machine's cores, unless it is told how many; fewer where a launcher has bound it. */
static void share_cores(const Team *team) {
#ifdef _OPENMP
    int here = 0, cores = (int)sysconf(_SC_NPROCESSORS_ONLN), threads = omp_get_num_procs();
    for (int r = 0; r < team_ranks(team); r++) here += strcmp(team_host(team, r), team_host(team, team_rank(team))) == 0;
    if (threads > cores / here) threads = cores / here > 0 ? cores / here : 1;
    if (!getenv("OMP_NUM_THREADS")) omp_set_num_threads(threads);
#else
    (void)team;
#endif
}

static int run_in_team(const TeamPlace *place, int argc, char **argv, RankMain rank_main) {
    Team *team = team_of_processes(place);
    share_cores(team);
    int status = rank_main(argc, argv, team);
    team_close(team);
    return status;
}

/* MPI tells who is who, and carries rank 0's addresses and port to the others; the team's own connections do the rest, as they can tell a dead rank.
   */
static int run_under_mpi(MpiPlace mpi, TeamPlace place, int argc, char **argv, RankMain rank_main) {
    char text[1024] = "";
    int port = 0;
    place.rank = mpi.rank;
    place.ranks = mpi.ranks;
    place.local_rank = mpi.local_rank;
    if (mpi.rank == 0) {
        char *addresses = socket_addresses();
        place.listener = socket_listen(NULL, &port);
        if (place.listener < 0) die("rank 0 cannot listen on any port: %s", strerror(errno));
        snprintf(text, sizeof text, "%d %ld %.900s", port, (long)getpid(), addresses);
        free(addresses);
    }
    mpi_text_of_first(text, sizeof text);
    char *rest;
    place.port = (int)strtol(text, &rest, 10);
    place.job = crc32_of_text(text);
    strtol(rest, &rest, 10);
    place.addresses = rest + 1;
    int status = run_in_team(&place, argc, argv, rank_main);
    mpi_finish();
    return status;
}

/* Under mpirun without MPI in this build: the variables say who is who, and on one machine the job's name gives a port. */
static void meet_without_mpi(TeamPlace *place, int local_ranks) {
    if (variable("MASTER_ADDR") || variable("MASTER_PORT")) {
        read_master(place, "mpirun");
        return;
    }
    const char *job = variable("OMPI_MCA_ess_base_jobid") ? variable("OMPI_MCA_ess_base_jobid") : variable("PMIX_NAMESPACE");
    if (local_ranks != place->ranks || !job)
        die("mpirun started %d ranks, and this build has no MPI of its kind to bring them together; set MASTER_ADDR to the host of rank 0 and "
            "MASTER_PORT to a free port there, or build where mpicc is", place->ranks);
    place->addresses = "127.0.0.1";
    place->job = crc32_of_text(job);
    place->port = LOWEST_PORT + (int)(place->job % PORTS);
}

static int launch_under_mpirun(TeamPlace place, int local_ranks, int argc, char **argv, RankMain rank_main) {
    MpiPlace mpi;
    if (place.ranks == 1) return rank_main(argc, argv, NULL);
    if (mpi_start && mpi_start(&mpi)) return run_under_mpi(mpi, place, argc, argv, rank_main);
    meet_without_mpi(&place, local_ranks);
    return run_in_team(&place, argc, argv, rank_main);
}

/* The launcher's name for the job, where it has one. */
static uint64_t job_of_launcher(void) {
    if (variable("TORCHELASTIC_RUN_ID")) return crc32_of_text(variable("TORCHELASTIC_RUN_ID"));
    if (!variable("SLURM_JOB_ID")) return 0;
    char *name = xprintf("%s.%s", variable("SLURM_JOB_ID"), variable("SLURM_STEP_ID") ? variable("SLURM_STEP_ID") : "");
    uint64_t job = crc32_of_text(name);
    free(name);
    return job;
}

static int launch_by_environment(TeamPlace place, int argc, char **argv, RankMain rank_main) {
    int local_ranks;
    place.job = job_of_launcher();
    if (variable("RANK") || variable("WORLD_SIZE")) {
        read_place(&place, "RANK", "WORLD_SIZE", "LOCAL_RANK");
        if (place.ranks == 1) return rank_main(argc, argv, NULL);
        read_master(&place, "torchrun (RANK, WORLD_SIZE)");
        /* torchrun's agent listens on MASTER_PORT itself then, for its own workers. */
        const char *taken = variable("TORCHELASTIC_USE_AGENT_STORE");
        if (taken && strcmp(taken, "True") == 0) place.port += place.port < 65535 ? 1 : -1;
        return run_in_team(&place, argc, argv, rank_main);
    }
    if (mpi_variables(&place, &local_ranks)) return launch_under_mpirun(place, local_ranks, argc, argv, rank_main);
    MpiPlace mpi;
    if (variable("PMIX_RANK") && mpi_start && mpi_start(&mpi)) return run_under_mpi(mpi, place, argc, argv, rank_main);
    if (variable("SLURM_STEP_NUM_TASKS") && variable("SLURM_PROCID")) {
        read_place(&place, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID");
        if (place.ranks == 1) return rank_main(argc, argv, NULL);
        read_master(&place, "srun");
        return run_in_team(&place, argc, argv, rank_main);
    }
    return rank_main(argc, argv, NULL);
}

/* Which a launcher started beside rank 0. */
static bool is_another_rank(void) {
    static const char *const names[] = {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (variable(names[i]) && strcmp(variable(names[i]), "0") != 0) return true;
    return false;
}

int launch(int argc, char **argv, RankMain rank_main) {
    Wishes w = wishes_of(argc, argv);
    TeamPlace place = {.local_rank = -1, .listener = -1, .timeout = w.timeout};
    if (w.prints) return is_another_rank() ? EXIT_SUCCESS : rank_main(argc, argv, NULL);
    if (w.alone) {
        if (w.gpus > 1) die("--comm none is for one rank, and --gpus is %d", w.gpus);
        return rank_main(argc, argv, NULL);
    }
    if (w.threads) {
        if (w.gpus > 1) die("--comm loopback is for threads of one process, and --gpus is %d; say how many with --ranks", w.gpus);
        return w.ranks > 1 ? loopback_run(w.ranks, argc, argv, rank_main) : rank_main(argc, argv, NULL);
    }
    if (w.gpus <= 0) return launch_by_environment(place, argc, argv, rank_main);
    TeamPlace unused;
    int local_ranks;
    if (variable("RANK") || variable("WORLD_SIZE") || mpi_variables(&unused, &local_ranks))
        die("--gpus %d starts ranks by itself, and a launcher has started this one already (its variables are in the environment); leave out "
            "one of the two", w.gpus);
    if (w.gpus == 1) return rank_main(argc, argv, NULL);
    int status;
    place.ranks = w.gpus;
    return children_start(&place, &status) ? run_in_team(&place, argc, argv, rank_main) : status;
}
