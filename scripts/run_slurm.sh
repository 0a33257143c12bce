#!/bin/sh
# Trains on several machines of a Slurm cluster: one task a GPU. Use it where there is sbatch; a single machine needs only run_node.sh.
#
# Usage: sbatch [options of sbatch] scripts/run_slurm.sh [options of train_gpt], as:
#     sbatch -N 4 scripts/run_slurm.sh -m gpt2-1558M ... -o /shared/out/1558M
# Run it from the repository; program, data and --out must lie where every machine sees them. The lines below are for machines of 8 GPUs: change
# them, or override them on sbatch's command line (--ntasks-per-node and --gpus-per-node together).
#
# When the time is nearly up (and, where the cluster has send_user_signal, when the machines are wanted elsewhere) Slurm sends SIGUSR1: all ranks
# agree on a step and write one checkpoint, and the job goes back into the queue under the same number. It then goes on with --resume auto, as it does
# after a machine has failed or Slurm itself has put it back. A job that ends by an error, or is done, does not come back.
#SBATCH --job-name=train_gpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=train_gpt.%j.log
set -u
program=${TRAIN_GPT:-./train_gpt}

fail() {
    echo "run_slurm.sh: $*" >&2
    exit 1
}

# A job that Slurm has put back goes on from what it has written itself; the first start has none, and a requeued one may have none yet.
resume_options() {
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -n "$(newest_checkpoint "$(out_of "$@")")" ]; then echo "--resume auto"; fi
}

[ -n "${SLURM_JOB_ID:-}" ] || fail "this is not a Slurm job; start it with sbatch"
# Slurm has copied this script elsewhere.
[ -e scripts/restarts.sh ] || fail "there is no scripts/restarts.sh here; sbatch from the repository"
# shellcheck source=scripts/restarts.sh
. scripts/restarts.sh
[ -x "$program" ] || fail "there is no $program here; run 'make train_gpt' in the repository, and sbatch from there"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
[ -n "$MASTER_ADDR" ] || fail "scontrol names no host of '$SLURM_JOB_NODELIST'"
OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}   # which srun no longer takes from sbatch by itself
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS SRUN_CPUS_PER_TASK

# Slurm signals this shell, which passes it on to every rank by way of srun.
asked='' signalled=''
# shellcheck disable=SC2317   # for the traps
pass_on() {
    asked=$1 signalled=yes
    kill -s "$1" "$step" 2>/dev/null
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM

# Ranks come together at MASTER_ADDR, not by PMI, and one that ends in good order before the others is no reason to end those.
# shellcheck disable=SC2046
srun --mpi=none --kill-on-bad-exit=0 "$program" "$@" $(resume_options "$@") &
step=$!
# A signal ends the waiting, not srun; 127 is the word for one that has been waited for already.
status=127 signalled=yes
while [ -n "$signalled" ]; do
    signalled=''
    wait "$step"
    ended=$?
    [ "$ended" -eq 127 ] || status=$ended
done
# 130 is the ranks' word for: stopped by a signal, and all is saved.
if [ "$asked" = USR1 ] && [ "$status" -eq 130 ]; then scontrol requeue "$SLURM_JOB_ID" && exit 0; fi
exit "$status"
