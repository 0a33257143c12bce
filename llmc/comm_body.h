/* comm_body.h: between comm.c and the bodies. Not for others. */
#ifndef LLMC_COMM_BODY_H
#define LLMC_COMM_BODY_H

#include "comm.h"
#include "launch.h"

typedef enum { COMM_ALL_REDUCE, COMM_REDUCE_SCATTER, COMM_ALL_GATHER } Collective;

typedef struct {
    const char *name;
    /* NULL if it can serve such a team on such a backend here, else why not. */
    const char *(*missing)(const Team *team, const Backend *backend);
    void *(*open)(Team *team, const Backend *backend);
    void (*close)(void *body);
    /* Tickets count from 1 in the order of the calls. */
    Ticket (*start)(void *body, Collective what, Tensor x, Stream *after);
    void (*wait)(void *body, Ticket ticket, Stream *before);
    CommTimes (*times)(void *body);   /* NULL: it cannot tell */
} CommBody;

/* comm_open with that body: for tests with one of their own. */
Comm *comm_of_body(const CommBody *body, Team *team, const Backend *backend);

/* Weak where a file is left out of the build: comm_mpi.c without MPI, comm_nccl.c without NCCL. */
extern const CommBody comm_nccl __attribute__((weak)), comm_mpi __attribute__((weak)), comm_tcp, comm_loopback;

/* What comm_mpi.c does for launch.c, weak as well. */
typedef struct {
    int rank, ranks, local_rank;
} MpiPlace;
/* MPI_Init; false if this process is alone, and then MPI is finished again. */
bool mpi_start(MpiPlace *place) __attribute__((weak));
/* Rank 0's text of at most `size` bytes, NUL included, on every rank. */
void mpi_text_of_first(char *text, size_t size) __attribute__((weak));
void mpi_finish(void) __attribute__((weak));

/* Runs rank_main on so many threads, a team, and returns the first status in the order of the ranks that is not 0. The threads take turns
   (comm_loopback.c). */
int loopback_run(int ranks, int argc, char **argv, RankMain rank_main);

/* A thread that runs collectives one after another, for the bodies in which the host does the work (comm_worker.c). */
typedef struct CommWorker CommWorker;
typedef void (*CollectiveRun)(void *context, Collective what, Tensor x);   /* on the worker's thread; waits until it is done */
CommWorker *worker_open(Team *team, CollectiveRun run, void *context);
void worker_close(CommWorker *w);
Ticket worker_start(CommWorker *w, Collective what, Tensor x);
void worker_wait(CommWorker *w, Ticket ticket);                            /* tells the watch of the team */
CommTimes worker_times(CommWorker *w);

#endif
