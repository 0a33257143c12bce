/* launch.h: how a program becomes several ranks. Which, is decided by the options and by what a launcher put into the environment:

     --help, --plan, --print-config, --export
                                 one rank; those that a launcher started beside it have nothing to do
     --comm none                 one rank, whatever the environment says
     --comm loopback --ranks N   N threads of this process, which take turns: for tests
     --gpus N                    N processes on this machine, started, watched and ended by this one
     RANK, WORLD_SIZE            as torchrun sets them, with MASTER_ADDR, MASTER_PORT and LOCAL_RANK
     mpirun                      (OMPI_COMM_WORLD_SIZE, PMI_SIZE, PMIX_RANK) by MPI where this build has it
     srun                        (SLURM_STEP_NUM_TASKS, SLURM_PROCID, SLURM_LOCALID) with MASTER_ADDR and MASTER_PORT
     else                        one rank */
#ifndef LLMC_LAUNCH_H
#define LLMC_LAUNCH_H

#include "team.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The work of one rank; team is NULL where it is alone. Returns the exit status. */
typedef int (*RankMain)(int argc, char **argv, Team *team);

/* Forms the team, runs rank_main on each rank and returns the exit status. Dies, naming what is missing, if the team does not come together. The
   options --gpus, --comm, --ranks and --comm-timeout count here, as they stand on the command line or in the file of --config; everything else is
   rank_main's. */
int launch(int argc, char **argv, RankMain rank_main);

#ifdef __cplusplus
}
#endif
#endif
