/* comm.h: collectives over device memory, among the ranks of a team. They run in the order they are started, on a queue of their own beside the
   stream that computes; every rank starts the same ones in the same order.

   Bodies: none (one rank), nccl (CUDA), mpi (CPU), tcp (CPU, by way of rank 0, where there is no MPI), loopback (rank threads). Each is one file,
   comm_NAME.c, and a row of the table in comm.c. All but NCCL add in the order of the ranks, and so give the same bits. */
#ifndef LLMC_COMM_H
#define LLMC_COMM_H

#include "kernels/ops.h"
#include "team.h"

#ifdef __cplusplus
extern "C" {
#endif

/* NULL is one rank alone: then collectives change nothing. */
typedef struct Comm Comm;

/* kind: a word of the option --comm. auto takes nccl on CUDA, on the CPU mpi under mpirun and else tcp, loopback for threads, none for one rank; nccl works
   with one rank too. Dies if that body is not in this build or cannot do it here. */
Comm *comm_open(Team *team, const Backend *backend, const char *kind);
void comm_close(Comm *c);
int comm_rank(const Comm *c);
int comm_ranks(const Comm *c);
Team *comm_team(const Comm *c);
const char *comm_name(const Comm *c);   /* of the body, for the banner */

/* Number of a collective, from 1; 0 is one that is over. */
typedef int64_t Ticket;

/* Each begins when what was put into stream `after` by now is done, and returns at once. x is contiguous device memory that nobody else
   touches until comm_wait. */
/* x becomes the sum over the ranks, the same bits on each: F32 or F64. */
Ticket comm_all_reduce(Comm *c, Tensor x, Stream *after);
/* Piece r of x (of as many equal pieces as ranks) becomes, on rank r, the sum over the ranks; the others are undefined then, but for elements that are 0 on
   every rank: they remain 0, as the gaps between tensors have to. F32. */
Ticket comm_reduce_scatter(Comm *c, Tensor x, Stream *after);
/* Piece r of x on every rank becomes that of rank r: F32 or BF16. */
Ticket comm_all_gather(Comm *c, Tensor x, Stream *after);
/* What is put into stream `before` from now on waits for that collective and all started before it; where the host does the work, so does the caller. */
void comm_wait(Comm *c, Ticket ticket, Stream *before);

/* Seconds since the last call: collectives under way; the part of it that the compute side waited for. Zeros where the body cannot tell (NCCL). */
typedef struct { double busy, exposed; } CommTimes;
CommTimes comm_times(Comm *c);

#ifdef __cplusplus
}
#endif
#endif
