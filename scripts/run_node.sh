#!/bin/sh
# Trains on all GPUs of this one machine, or on those that CUDA_VISIBLE_DEVICES names. Use it where one machine is enough: nothing but the program is
# needed, no MPI, no Slurm, no torchrun. Several machines: run_slurm.sh on a cluster that has Slurm, run_ssh.sh where there is nothing but ssh.
#
# Usage: sh scripts/run_node.sh [options of train_gpt], as: sh scripts/run_node.sh -m gpt2-124M -b 64 -t 1024 --total-batch 524288 -i ... -o out/124M
# It starts ./train_gpt --gpus N, which starts N ranks, watches them and ends all when one fails; Ctrl-C or SIGTERM leads to a checkpoint. Training
# that fails once it has begun (not that which diverges) goes on from its newest checkpoint after a pause: --restarts N (3) says how often in a row without
# a new checkpoint, 0 never. --count prints how many GPUs there are for it.
set -eu
program=${TRAIN_GPT:-./train_gpt} this=run_node.sh
# shellcheck source=scripts/restarts.sh
. "$(dirname -- "$0")/restarts.sh"

fail() {
    echo "run_node.sh: $*" >&2
    exit 1
}

count_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        echo "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | grep -c .
    else
        nvidia-smi -L 2>/dev/null | grep -c '^GPU '
    fi
}

case ${1:-} in --help | -h)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0 ;;
    --count)
    count_gpus
    exit ;;
esac
# Takes --restarts out of "$@".
wanting=''
for argument in "$@"; do
    shift
    if [ -n "$wanting" ]; then restarts=$argument wanting=''; continue; fi
    case $argument in
        --restarts) wanting=yes restarts='' ;;
        --restarts=*) restarts=${argument#*=} ;;
        *) set -- "$@" "$argument" ;;
    esac
done
is_count "$restarts" || fail "--restarts '$restarts' is no number of times; write --restarts 3"
[ -x "$program" ] || fail "there is no $program here; run 'make train_gpt' in the repository, and this from there"
gpus=$(count_gpus) || fail "nvidia-smi lists no GPU; on the CPU use mpirun -np N $program (README, Many GPUs, many machines)"
echo "$program --gpus $gpus $*"
if [ "$restarts" -eq 0 ]; then exec "$program" --gpus "$gpus" "$@"; fi
keep_training "$(out_of "$@")" "$program" --gpus "$gpus" "$@"
