#!/bin/sh
# Tests of dev/bench_llmc.sh, without llm.c and without a GPU: sh dev/bench_llmc_test.sh. A stand-in for llm.c's program checks what it is given and
# prints what llm.c would, with times that the tests set; a stand-in for ldd is first on the PATH. Prints failures, a line a group, and last
# "N passed, N failed".
# shellcheck disable=SC2016   # what is not expanded shall not be
LC_ALL=C
export LC_ALL
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/here" "$work/here/llm.c" "$work/stand-ins" "$work/nothing" && cd "$work/here" || exit 1

# shellcheck source=dev/shell_test.sh
. "$root/dev/shell_test.sh"

# stand_in FILE: the script comes on stdin.
stand_in() {
    { echo '#!/bin/sh'; cat; } >"$1"
    chmod +x "$1"
}

# Prints steps of $TIMES ms; says what it was given and ends with $STATUS; has room for $ROOM rows. The shard must have the tokens it asks for.
stand_in llm.c/train_gpt2cu <<'SCRIPT'
echo "$*" >"$WORK/given"
while [ $# -gt 0 ]; do
    case $1 in -b) batch=$2 ;; -i) shard=$2 ;; -x) steps=$2 ;; -d) total=$2 ;; -ge) gelu=$2 ;; -r) recompute=$2 ;; esac
    shift 2
done
[ "$(od -An -td4 -N12 "$shard" | tr -s ' ')" = " 20240520 1 $((steps * total + 1))" ] || { echo "Bad magic in the data file"; exit 1; }
[ "$(wc -c <"$shard")" -eq $((1024 + 2 * (steps * total + 1))) ] || { echo "Error: file size is not as expected"; exit 1; }
# More rows than fit: the host's memory, and slow steps; or the end.
if [ "$batch" -gt "${ROOM:-99}" ]; then
    [ -n "$MANAGED" ] || { printf '[CUDA ERROR] at file llmc/cuda_common.h:90:\nout of memory\n'; exit 1; }
    echo 'WARNING: Fell back to cudaMallocManaged when initializing m,v,master_weights on 1 GPUs'
    exec sleep 100
fi
row() { printf '| %-21s | %-50s |\n' "$1" "$2"; }
row 'micro batch size B' 2
row gelu_fusion "${gelu:-0}"
row recompute "${recompute:-1}"
row device 'NVIDIA "H100" 80GB'
row precision BF16
row num_parameters 124475904
echo 'allocating 237 MiB for parameters'
echo 'device memory usage: 20000 MiB / 81079 MiB'
echo 'val loss 11.009205'
step=0
for ms in $TIMES; do
    step=$((step + 1))
    printf 'step %4d/%d | loss %s (+nanz)| norm 1.5000 (+0.12z)| lr 1.00e-04 | %s ms | 39.5%% bf16 MFU | 470123 tok/s\n' $step 6 \
        "${LOSS:-10.95}$step" "$ms"
done
[ -n "$TIMES" ] && echo 'total average iteration time: 120.000000 ms'
exit "${STATUS:-0}"
SCRIPT
cp llm.c/train_gpt2cu llm.c/train_gpt2cu_cudnn
stand_in "$work/stand-ins/ldd" <<'SCRIPT'
case $1 in *_cudnn) echo "        ${CUDNN:-libcudnn.so.9} => /usr/lib/somewhere (0x00007f0000000000)" ;; esac
SCRIPT
WORK=$work
TIMES='900 130 120.5 121.5 120 200'
PATH=$work/stand-ins:$PATH
export WORK TIMES PATH

bench="sh $root/dev/bench_llmc.sh"
small='--model d12 --batch 2 --seq-len 8 --total-batch 32 --steps 4 --warm-up 2'
# has NAME MEMBER: the figures have it.
has() { holds "$1: $2" grep -Fq -e "$2" "$work/stdout"; }
given() { holds "$1: $2" grep -Fq -e "$2" "$work/given"; }

# shellcheck disable=SC2086,SC2154   # $bench and $small are words; shell_test.sh counts
{
    group "figures"
    works "defaults" $bench llm.c $small
    holds "one line" [ "$(wc -l <"$work/stdout")" -eq 1 ]
    holds "JSON" python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$work/stdout"
    for member in '"program": "llm.c"' '"model": "gpt2-124M"' "\"device\": \"NVIDIA 'H100' 80GB\"" '"attention": "own"' '"dtype": "bf16"' \
        '"flags": ""' '"gelu_fusion": 0' '"recompute": 1' '"parameters": 124439808' '"batch": 2' '"grad_accum": 2' \
        '"tokens_per_step": 32' '"ms": 121.000' \
        '"tokens_per_s": 264.5' '"ms_least": 120.000' '"ms_most": 200.000' '"steps": 4' '"memory": 20971520000' \
        '"losses": [10.951, 10.952, 10.953], "loss": 10.956'; do has "defaults" "$member"; done
    given "defaults" "-e d12 -b 2 -t 8 -d 32 -x 6 -l 1e-4"
    holds "no flags of the other way" sh -c "! grep -Eq -e '-ge|-r' '$work/given'"
    works "best" $bench llm.c $small --best
    given "best" "-ge 2 -r 0"
    for member in '"attention": "cudnn"' '"flags": "-ge 2 -r 0"' '"gelu_fusion": 2' '"recompute": 0'; do has "best" "$member"; done
    works "an odd number of steps" env TIMES='900 130 120 121 122' $bench llm.c --model gpt2-124M --batch 2 --seq-len 8 --total-batch 32 \
        --steps 3 --warm-up 2
    has "an odd number of steps" '"ms": 121.000'

    group "memory"
    for way in '' 1; do
        name="out of memory${way:+ of the GPU alone}"
        run env ROOM=2 MANAGED=$way $bench llm.c --model d12 --batch 4 --seq-len 8 --total-batch 32 --steps 4 --warm-up 2
        holds "$name" [ "$status" -eq 0 ]
        holds "$name: said" grep -q 'micro-batch of 4 does not fit, trying 2' "$work/stderr"
        for member in '"batch": 2' '"grad_accum": 2' '"ms": 121.000'; do has "$name" "$member"; done
    done
    refuses "one row is too many" 'gpt2-124M does not fit into the memory of this GPU with a micro-batch of 1' env ROOM=0 $bench llm.c --model d12 \
        --batch 1 --seq-len 8 --total-batch 32

    group "complaints"
    refuses "no program" 'no program nowhere/train_gpt2cu; the head of' $bench nowhere $small
    refuses "no such model" "no model 'd13'" $bench llm.c --model d13
    refuses "no number" "batch 'many' is not a whole number" $bench llm.c $small --batch many
    refuses "no multiple" '32 is not a multiple of batch x seq-len = 24' $bench llm.c $small --batch 3
    refuses "too long" '2048 is more than the 1024' $bench llm.c --model d12 --batch 1 --seq-len 2048
    refuses "without cuDNN" 'made without cuDNN' env CUDNN=libother.so $bench llm.c $small --best
    refuses "a run that fails" 'ended with status 7: val loss' env TIMES='' STATUS=7 $bench llm.c $small
    refuses "too few steps" 'cannot read what llm.c printed: it printed 3 of 6 steps' env TIMES='900 130 120' $bench llm.c $small
    refuses "a time that is none" 'no time is in its line' env TIMES='900 130 120 nan 120 120' $bench llm.c $small
    refuses "a loss that is none" 'the loss became no number' env LOSS=nan $bench llm.c $small
    holds "nothing is printed then" [ ! -s "$work/stdout" ]
    group ""
}

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
