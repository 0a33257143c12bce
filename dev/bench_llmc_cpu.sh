#!/bin/sh
# Training speed beside llm.c (github.com/karpathy/llm.c) on the CPU: GPT-2 124M in fp32, whole steps of AdamW, in turns, the same threads.
#
#   sh dev/bench_llmc_cpu.sh DIR [--rounds N] [--steps N] [--bench PROGRAM]
#
# DIR is a checkout of llm.c in which `make train_gpt2` was run. Its program has micro-batches of 4 rows of 64 tokens and nothing to set; weights are
# random here, tokens those of data/characters. Of each turn (2 of each program) the first two steps warm up and the next --steps (6) count; the
# median of the times that each program measures of itself. PROGRAM is ours: build/dev/bench. Prints a line for each turn, and the ratio.
set -eu

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 1
}
complain() {
    echo "bench_llmc_cpu: $*" >&2
    exit 1
}

cd "$(dirname "$0")/.."
[ $# -gt 0 ] || usage
[ -x "$1/train_gpt2" ] || complain "there is no program $1/train_gpt2; run \`make train_gpt2\` in a checkout of llm.c"
program=$(cd "$1" && pwd)/train_gpt2
shift
rounds=2 steps=6 warm_up=2 bench=build/dev/bench
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || usage
    case $1 in --rounds | --steps) case $2 in '' | 0* | *[!0-9]*) complain "$1 '$2' is not a whole number above 0" ;; esac ;; esac
    case $1 in
    --rounds) rounds=$2 ;;
    --steps) steps=$2 ;;
    --bench) bench=$2 ;;
    *) usage ;;
    esac
    shift 2
done
# Its steps 0 to 9 come one after another; then it evaluates.
[ $((warm_up + steps)) -le 10 ] || complain "--steps $steps is too many: llm.c evaluates after 10 steps, so at most $((10 - warm_up)) can count"
[ -x "$bench" ] || complain "there is no program $bench; run \`make $bench\`"
[ -f data/characters/train.bin ] || complain "there are no tokens in data/characters; run \`make data\` first"
python=$(command -v python3) || complain "the weights that llm.c starts from are made by python3, which is not here"

work=$(mktemp -d) || exit 1
process=
# shellcheck disable=SC2329   # by the trap
clean() {
    [ -z "$process" ] || { kill "$process" && wait "$process"; } 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP
mkdir -p "$work/dev/data/tinyshakespeare"
for split in train val; do cp data/characters/$split.bin "$work/dev/data/tinyshakespeare/tiny_shakespeare_$split.bin"; done

# llm.c's file of weights: 256 int32 (magic, version, T, V, L, NH, C, padded V), then every parameter in fp32. Normal numbers of deviation 0.02, a
# million of them over and over: time does not depend on them as long as they are ordinary.
"$python" - "$work/gpt2_124M.bin" <<'PYTHON' || complain "cannot write the weights for llm.c, 500 MB, into $work"
import array, random, sys
T, V, L, NH, C, Vp = 1024, 50257, 12, 12, 768, 50304
count = Vp * C + T * C + L * (12 * C * C + 13 * C) + 2 * C
some = array.array("f", (random.gauss(0, 0.02) for _ in range(1 << 20)))
with open(sys.argv[1], "wb") as file:
    array.array("i", [20240326, 3, T, V, L, NH, C, Vp] + [0] * 248).tofile(file)
    for start in range(0, count, len(some)):
        some[:count - start].tofile(file)
PYTHON

# The median of the numbers that come in.
median() { sort -g | awk '{ x[NR] = $1 } END { if (!NR) exit 1; printf "%.3f\n", NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'; }

# Milliseconds a step, by its own clock. NaN is no number to sed.
theirs() {
    (cd "$work" && exec stdbuf -oL "$program") >"$work/output" 2>&1 </dev/null &
    process=$!
    while [ "$(grep -c '^step ' "$work/output")" -lt $((warm_up + steps)) ]; do
        kill -0 "$process" 2>/dev/null || complain "llm.c ended early: $(tail -1 "$work/output" | cut -c 1-200)"
        sleep 0.2
    done
    { kill "$process" && wait "$process"; } 2>/dev/null || :
    process=
    sed -n 's/^step [0-9]*: train loss [0-9.]* (took \([0-9.]*\) ms)$/\1/p' "$work/output" | sed -n "$((warm_up + 1)),$((warm_up + steps))p" | median ||
        complain "cannot read what llm.c printed: $(grep '^step ' "$work/output" | head -1)"
}
# Milliseconds a step of ours, in about the same number of steps.
ours() {
    rm -f "$work/ours"
    "$bench" --seconds 8 --json "$work/ours" --device cpu --model gpt2-124M --dtype fp32 -b 4 -t 64 --total-batch 256 >"$work/output" 2>&1 ||
        complain "$bench ended with a failure: $(tail -1 "$work/output" | cut -c 1-200)"
    "$python" -c 'import json, sys; print("%.3f" % json.loads(open(sys.argv[1]).readline())["ms"])' "$work/ours"
}

echo "GPT-2 124M, fp32, B=4, T=64, $(nproc) cores"
for round in $(seq "$rounds"); do
    own=$(ours) other=$(theirs)
    echo "$own" >>"$work/own"
    echo "$other" >>"$work/other"
    echo "round $round: train_gpt $own ms, llm.c $other ms a step"
done
own=$(median <"$work/own") other=$(median <"$work/other")
awk -v own="$own" -v other="$other" 'BEGIN {
    printf "train_gpt %.1f tokens/s, llm.c %.1f tokens/s: %.2f times as fast\n", 256000 / own, 256000 / other, other / own }'
