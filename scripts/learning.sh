#!/bin/sh
# The learning-quality runs: RoPE against learned positions, three seeds each, on the default text, in two settings:
#   small   nanoGPT's CPU recipe: 4 layers, 4 heads, C=128, T=64, batch 12, 2,000 steps, no dropout
#   baby    the default model: 6 layers, 6 heads, C=192, T=128, batch 64, 600 steps
# Usage: sh scripts/learning.sh [small|baby|all] [DIRECTORY] [more options of train_gpt]. JOBS=2 runs at once, on one thread each. A run
# that is complete is not repeated. At the end: a table of validation losses over the whole validation split, and DIRECTORY/*.png.
set -eu
cd "$(dirname "$0")/.."
which=${1:-all}
directory=${2:-out/learning}
[ $# -ge 2 ] && shift 2 || shift $#
jobs=${JOBS:-2}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
mkdir -p "$directory"

small="--n-layer 4 --n-head 4 --n-embd 128 -t 64 -b 12 -g 1 -x 2000 --lr 3e-3 --min-lr 1e-4 --warmup 100 --eval-every 250 --eval-batches 50"
baby="--model baby -b 64 -g 1 -x 600 --eval-every 100 --eval-batches 14"
case $which in small) names=small ;; baby) names=baby ;; all) names="small baby" ;; *) echo "learning.sh: '$which' is not small, baby or all" >&2; exit 1 ;; esac

commands=$(mktemp)
trap 'rm -f "$commands"' EXIT
for name in $names; do
    eval "options=\$$name"
    for seed in 1 2 3; do
        for pos in rope learned; do
            run=$directory/$name-$pos-$seed
            if grep -qs '^train loss' "$run.final.txt"; then continue; fi
            printf '%s\n' "./train_gpt $options -e $pos -s $seed --checkpoint-every 0 --log-every 10 -o $run $* >$run.txt 2>&1 && \
./train_gpt $options -e $pos -s $seed --eval-only --eval-batches 0 --model $run/last -o $run $* >$run.final.txt 2>&1" >>"$commands"
        done
    done
done
if [ -s "$commands" ]; then tr '\n' '\0' <"$commands" | xargs -0 -n 1 -P "$jobs" sh -c; fi

status=0
for name in $names; do
    echo
    echo "$name: $(eval "echo \$$name") $*"
    echo "| seed | rope train | rope val | learned train | learned val |"
    echo "|---|---|---|---|---|"
    for seed in 1 2 3; do
        row="| $seed"
        for pos in rope learned; do
            run=$directory/$name-$pos-$seed
            losses=$(sed -n 's/^train loss \([0-9.]*\) | val loss \([0-9.]*\).*/\1 | \2/p' "$run.final.txt" 2>/dev/null)
            if [ -z "$losses" ]; then
                echo "learning.sh: $run did not finish; see $run.txt" >&2
                status=1
            fi
            row="$row | ${losses:-- | -}"
        done
        echo "$row |"
    done
    runs=""
    for pos in rope learned; do for seed in 1 2 3; do runs="$runs $directory/$name-$pos-$seed"; done; done
    for python in python3 /usr/bin/python3; do
        if $python -c 'import matplotlib' 2>/dev/null; then $python scripts/plot.py $runs -o "$directory/$name.png"; break; fi
    done
done
exit $status
