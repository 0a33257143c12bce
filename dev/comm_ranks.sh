#!/bin/sh
# comm_ranks.sh PROGRAM: every collective among 2, 3 and 4 processes, over TCP and, where mpirun is, over MPI. Ends with "N passed, N failed".
passed=0
failed=0
# More ranks than cores, and root in a container: Open MPI wants to be asked for both. 4.x and 5.x ask for the first in two ways.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

run() {
    if timeout 120 "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "failed: $*"; fi
}
for ranks in 2 3 4; do
    run "$1" --gpus $ranks --comm tcp
    if command -v mpirun >/dev/null 2>&1; then run mpirun -np $ranks "$1" --comm mpi; fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
