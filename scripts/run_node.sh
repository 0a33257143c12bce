#!/bin/sh
# Trains on all GPUs of this one machine, or on those that CUDA_VISIBLE_DEVICES names. Use it where one machine is enough: nothing but the program is
# needed, no MPI, no Slurm, no torchrun. Several machines: run_slurm.sh on a cluster that has Slurm, run_ssh.sh where there is nothing but ssh.
#
# Usage: sh scripts/run_node.sh [options of train_gpt], as: sh scripts/run_node.sh -m gpt2-124M -b 64 -t 1024 --total-batch 524288 -i ... -o out/124M
# It starts ./train_gpt --gpus N, which starts N ranks, watches them and ends all when one fails; Ctrl-C or SIGTERM leads to a checkpoint.
# --count prints how many GPUs that would be.
set -eu
program=${TRAIN_GPT:-./train_gpt}

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
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 0 ;;
    --count)
    count_gpus
    exit ;;
esac
[ -x "$program" ] || fail "there is no $program here; run 'make train_gpt' in the repository, and this from there"
gpus=$(count_gpus) || fail "nvidia-smi lists no GPU; on the CPU use mpirun -np N $program (README, Many GPUs, many machines)"
echo "$program --gpus $gpus $*"
exec "$program" --gpus "$gpus" "$@"
