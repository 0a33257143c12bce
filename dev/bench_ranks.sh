#!/bin/sh
# How two ranks scale, each on a core of its own, beside what --plan --ranks 2 expects: sh dev/bench_ranks.sh [BIN [COMM_RANKS]], where BIN (.) holds
# train_gpt, built with MPI, and COMM_RANKS (build/dev/comm_ranks) times collectives. The baby GPT, 32 rows a micro-batch, 8 micro-batches a rank.
# STEPS=6 ROUNDS=3 set how long: about a minute a round and step. Prints tables in markdown; the machine should be idle.
#
# Four settings take turns in every round: one rank on core 0; two ranks under mpirun; the same with ZeRO-1; and two runs at once that know nothing of
# each other, which shows what two cores lose to each other without any communication. A figure is the median over the rounds of the median over the
# steps but the first; a ratio the median over the rounds of their own.
# shellcheck disable=SC2086   # $settings are several words
set -eu
bin=${1:-.}
comm_ranks=${2:-build/dev/comm_ranks}
steps=${STEPS:-6}
rounds=${ROUNDS:-3}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
OMP_NUM_THREADS=1
OMPI_ALLOW_RUN_AS_ROOT=1
OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM

settings="-b 32 -g 8 -x $steps --eval-every 0 --eval-batches 1 --checkpoint-every 0 --log-every 1 --no-curve --sample-tokens 0"

# on_core CORE RUN OPTION...: trains there.
on_core() {
    core=$1 run=$2
    shift 2
    taskset -c "$core" "$bin/train_gpt" $settings -o "$work/$run" "$@" >"$work/$run.txt"
}
# shellcheck disable=SC2016
pinned='exec taskset -c "$OMPI_COMM_WORLD_LOCAL_RANK" "$@"'
two_ranks() {
    run=$1
    shift
    mpirun -np 2 --bind-to none sh -c "$pinned" sh "$bin/train_gpt" $settings -o "$work/$run" "$@" >"$work/$run.txt"
}
apart() {
    on_core 0 "$1.0" --comm none &
    on_core 1 "$1.1" --comm none
    wait $!
}

median() { sort -g | awk '{ x[NR] = $1 } END { print (x[int((NR + 1) / 2)] + x[int((NR + 2) / 2)]) / 2 }'; }
# of_run RUN FIELD: its median over the steps but the first.
of_run() { sed -n "2,\$s/.*\"$2\": \([0-9.]*\).*/\1/p" "$work/$1/log.jsonl" | median; }
# of SETTING FIELD: the median over the rounds.
of() { for round in $(seq "$rounds"); do of_run "$1.$round" "$2"; done | median; }
# ratio SETTING TIMES OTHER...: of tokens per second: the setting's to TIMES that of the others together.
ratio() {
    setting=$1 times=$2
    shift 2
    for round in $(seq "$rounds"); do
        of_run "$setting.$round" tokens_per_s >"$work/numbers"
        for other in "$@"; do of_run "$(echo "$other" | sed "s/ROUND/$round/")" tokens_per_s >>"$work/numbers"; done
        awk -v times="$times" 'NR == 1 { mine = $1 } NR > 1 { others += $1 } END { print mine / (times * others) }' "$work/numbers"
    done | median
}
calculate() { awk "BEGIN { printf \"$1\", $2 }"; }

# ---- Measuring ----

load=$(cut -d ' ' -f 1 /proc/loadavg)
for round in $(seq "$rounds"); do
    on_core 0 "one.$round" --comm none
    two_ranks "two.$round"
    two_ranks "zero.$round" --zero 1
    apart "apart.$round"
done
mpirun -np 2 --bind-to none sh -c "$pinned" sh "$comm_ranks" --bench >"$work/collectives"

# GB/s out of a rank in a collective of 1 MB (a layer has 1.8), alone: WAYS times half of it leaves each of two ranks.
link_of() {
    awk -v name="$1" -v ways="$2" '/alone/ && $0 ~ name " .* 1\\.000 MB" { sub(/.*mean */, ""); printf "%.3g", ways / 2 / $1 }' "$work/collectives"
}
one=$(of one tokens_per_s)
flops=$("$bin/train_gpt" --plan | awk '/^FLOPs per token/ { gsub(/,/, ""); print $4 }')
rate=$(calculate %.6g "$flops * $one / 1e12")

# ---- What the plan says, and the tables ----

plan() {
    "$bin/train_gpt" -b 32 -g 8 --plan --ranks 2 --matmul-speed "$rate" "$@" >"$work/plan"
}
# planned WORD: the figure of that line, times in milliseconds, shares as they are.
planned_share() { sed -n "s/^ *$1 *\([0-9.]*%\).*/\1/p" "$work/plan"; }
planned() { sed -n "s/^ *$1 *//p" "$work/plan" | awk '{ unit = $2; print $1 * (unit == "us" ? 1e-3 : unit == "s" ? 1e3 : 1) }'; }
percent() { calculate %.1f%% "100 * ($1)"; }

# column SETTING LINK OPTION...: measured and planned, a line a figure.
column() {
    setting=$1 link=$2
    shift 2
    plan --link-speed "$link" "$@"
    busy=$(of "$setting" comm_ms) exposed=$(of "$setting" comm_exposed_ms)
    echo "$(of "$setting" tokens_per_s) | "
    echo "$(of "$setting" ms) | "
    echo "$(percent "$(ratio "$setting" 2 one.ROUND)") | $(planned_share 'scaling efficiency')"
    echo "$(percent "$(ratio "$setting" 1 apart.ROUND.0 apart.ROUND.1)") | "
    echo "$busy | $(planned communication)"
    echo "$exposed | $(planned exposed)"
    echo "$(percent "1 - $exposed / $busy") | $(planned_share hidden)"
}

echo "Baby GPT, fp32, 32 rows x 128 tokens a micro-batch, 8 micro-batches a rank and step; $rounds rounds of $steps steps; load before: $load."
echo "One rank on one core: $one tokens/s, $(of one ms) ms a step, so $(calculate %.1f "1000 * $rate") GFLOP/s, which the plan is told."
ring=$(link_of all-reduce 2) scatter=$(link_of reduce-scatter 1)
echo "Collectives of 1 MB alone, out of each rank: all-reduce $ring GB/s, reduce-scatter $scatter GB/s, all-gather $(link_of all-gather 1) GB/s;"
echo "the plan is told the first, and for ZeRO-1 the second."
echo
printf '%s\n' "tokens/s" "ms a step" "efficiency" "efficiency, against two runs apart" "communication, ms a step" "exposed, ms a step" "hidden" \
    >"$work/names"
column two "$ring" >"$work/two"
column zero "$scatter" --zero 1 >"$work/zero"
echo "| two ranks, a core each | all-reduce | planned | ZeRO-1 | planned |"
echo "|---|---|---|---|---|"
paste -d '|' "$work/names" "$work/two" "$work/zero" | sed 's/|/ | /g; s/^/| /; s/$/ |/; s/  */ /g'
