#!/bin/sh
# Everything to be done on a machine with a GPU and no network:
#
#   sh dev/gpu_check.sh build | test | determinism | ranks | sanitize | bench MODEL | all   [--out DIR] [--build DIR] [--device NAME] [--again]
#
#   build         compiles the programs, tests and benchmarks for the GPU present
#   test          the ops' tests and test_gpt on the device, in fp32 and bf16, and the tests of single instructions and of cuDNN
#   determinism   equal checkpoints from equal runs, from a resumed one, and with and without graphs
#   ranks         NCCL with one rank and loopback with several, with and without ZeRO: the bits of one rank, of a second run, of a resumed one;
#                 and the tests of collectives and of models on several ranks
#   sanitize      compute-sanitizer's memcheck and racecheck over the ops' tests and a small training run
#   bench MODEL   our speed and PyTorch's, turn about, twice (gpt2-124M, gpt2-350M, gpt2-774M, gpt2-1558M;
#                 tinystories-17M and llama-350M: ours alone)
#   all           one after another
#
# A stage takes 8 minutes at most. What it does not get to is left for the next call, which passes over what this same build has passed already
# (unless --again). Results are written as they come to DIR/GPU-DATE.json and .md (DIR: dev/results), the output of the commands to
# DIR/GPU-DATE.STAGE.log. --build names the folder of the programs (build/gpu): built here, or elsewhere with ARCH=x86-64-v3 and carried here, with
# libraries that are missing here in its folder lib. --device is for trying this script out. Exit status 0: all passed.
stage_seconds=480

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 1
}

complain() {
    echo "gpu_check: $*" >&2
    exit 1
}

# ---- arguments ----

cd "$(dirname "$0")/.." || exit 1
stages=
model=
out=dev/results
build=build/gpu
device=cuda
again=
[ $# -gt 0 ] || usage
while [ $# -gt 0 ]; do
    case $1 in
    build | test | determinism | ranks | sanitize | all) stages=$1 ;;
    bench) stages=bench model=${2:?bench needs a MODEL} && shift ;;
    --out) out=${2:?--out needs a directory} && shift ;;
    --build) build=${2:?--build needs a directory} && shift ;;
    --device) device=${2:?--device needs a name} && shift ;;
    --again) again=1 ;;
    *) usage ;;
    esac
    shift
done
case $model in
'' | gpt2-124M | gpt2-350M | gpt2-774M | gpt2-1558M | tinystories-17M | llama-350M) ;;
*) complain "no model '$model'; there is gpt2-124M, gpt2-350M, gpt2-774M, gpt2-1558M, tinystories-17M, llama-350M" ;;
esac
[ -n "$stages" ] || usage

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
[ -n "$gpu" ] || complain "no GPU here: nvidia-smi is missing or lists none"
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || commit="$commit with changes"
PATH=$PATH:/usr/local/cuda/bin
nvcc=$(command -v nvcc)
[ -d "$build/lib" ] && LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} && export LD_LIBRARY_PATH

mkdir -p "$out" || complain "cannot make the directory $out"
report=$out/$(echo "$gpu" | tr '[:upper:]' '[:lower:]' | sed 's/^nvidia //; s/[^a-z0-9]\{1,\}/-/g; s/-$//')-$(date +%F)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# ---- results ----

failed=0
postponed=0

now() { date +%s; }
# Which programs these results are of.
build_id() { cat "$build/train_gpt" "$build/dev/bench" 2>/dev/null | cksum | cut -d ' ' -f 1; }
# As a JSON string may hold it.
plain() { tr '\\"' "/'" | tr -d '[:cntrl:]' | tr '|' '/' | cut -c 1-300; }

# The one line of the JSON file that a check has.
key() { echo "{\"stage\": \"$stage\", \"check\": \"$1\","; }

# record CHECK RESULT SECONDS SAID [MEASURED]: replaces the check's line, and makes the tables anew.
record() {
    line="$(key "$1") \"result\": \"$2\", \"seconds\": $3, \"build\": \"$id\", \"said\": \"$4\"${5:+, \"measured\": $5}}"
    {
        grep '^{' "$report.json" 2>/dev/null | sed 's/,$//' | grep -vF -e '{"gpu":' -e "$(key "$1")"
        echo "$line"
    } >"$work/lines"
    {
        echo '['
        echo "{\"gpu\": \"$gpu\", \"driver\": \"$driver\", \"commit\": \"$commit\", \"nvcc\": \"$nvcc_version\"},"
        sed '$!s/$/,/' "$work/lines"
        echo ']'
    } >"$work/json" && mv "$work/json" "$report.json"
    write_tables >"$work/md" && mv "$work/md" "$report.md"
    printf '%-12s %-40s %s (%s s)%s\n' "$stage" "$1" "$2" "$3" "$([ "$2" = passed ] || echo ": $4")"
}

# Markdown from the JSON file: the benchmarks, then every check.
write_tables() {
    echo "# $gpu, $(date +%F)"
    echo
    echo "Command: \`sh dev/gpu_check.sh\`. Driver $driver, nvcc ${nvcc_version:-not here}, commit $commit."
    echo
    awk '
        # The first value of that name in the line.
        function field(name, at, rest) {
            at = index($0, "\"" name "\": ")
            if (!at) return ""
            rest = substr($0, at + length(name) + 4)
            if (substr(rest, 1, 1) == "\"") { rest = substr(rest, 2); return substr(rest, 1, index(rest, "\"") - 1) }
            match(rest, /^[^,}]*/)
            return substr(rest, 1, RLENGTH)
        }
        # With two rounds the median is the mean.
        function mean(who, what) { return count[who] ? sum[who, what] / count[who] : 0 }
        function add(who, what) { sum[who, what] += field(what) }
        /"measured":/ {
            model = field("model")
            who = field("program") == "pytorch" ? model " " field("attention") : model " own"
            if (!(model in known)) { known[model] = 1; models[++n] = model }
            count[who]++
            add(who, "tokens_per_s"); add(who, "ms"); add(who, "memory"); add(who, "mfu"); add(who, "floor_share")
            add(who, "nominal_floor_share"); add(who, "attention_forward"); add(who, "attention_both"); batch[who] = field("batch")
        }
        function percent(x) { return x > 0 ? sprintf("%.1f%%", 100 * x) : "-" }
        function speed(who) {
            return count[who] ? sprintf("%.0f (B=%s, %.1f GiB)", mean(who, "tokens_per_s"), batch[who], mean(who, "memory") / 2^30) : "-"
        }
        function ratio(model, kind, theirs) {
            theirs = mean(model " " kind, "tokens_per_s")
            return theirs > 0 ? sprintf("%.2f", mean(model " own", "tokens_per_s") / theirs) : "-"
        }
        END {
            if (!n) exit
            print "| model | tok/s | ms a step | MFU | of the floor, rates measured | of the floor, 3.0 TB/s, 798 TFLOP/s " \
                "| attention forward, both, TFLOP/s | PyTorch, flash | PyTorch, cuDNN | ratios |"
            print "|---|---|---|---|---|---|---|---|---|---|"
            for (i = 1; i <= n; i++) {
                m = models[i]; own = m " own"
                printf "| %s | %s | %.1f | %s | %s | %s | %.0f, %.0f | %s | %s | %s, %s |\n",
                    m, speed(own), mean(own, "ms"), percent(mean(own, "mfu")),
                    percent(mean(own, "floor_share")), percent(mean(own, "nominal_floor_share")), mean(own, "attention_forward") / 1e12,
                    mean(own, "attention_both") / 1e12, speed(m " flash"), speed(m " cudnn"), ratio(m, "flash"), ratio(m, "cudnn")
            }
            print ""
        }' "$report.json"
    echo "| stage | check | result | seconds | last words |"
    echo "|---|---|---|---|---|"
    awk -F '"' '/^{"stage":/ {
        seconds = $15
        gsub(/[^0-9]/, "", seconds)
        printf "| %s | %s | %s | %s | %s |\n", $4, $8, $12, seconds, $12 == "passed" ? "" : $22
    }' "$report.json"
}

# attempt NAME SECONDS COMMAND ...: runs it for so long at most, unless this build passed it before or the stage's time is nearly over. Leaves its
# output in $work/output too, and $result, $took and $said. Returns 0 if it passed now, 2 if it was not run.
attempt() {
    name=$1
    limit=$2
    shift 2
    if [ -z "$fresh" ] && grep -F "$(key "$name") \"result\": \"passed\"" "$report.json" 2>/dev/null | grep -qF "\"build\": \"$id\""; then
        printf '%-12s %-40s passed before\n' "$stage" "$name"
        return 2
    fi
    left=$((deadline - $(now)))
    if [ $((2 * left)) -lt "$limit" ] || [ $left -lt 5 ]; then
        printf '%-12s %-40s left for the next call\n' "$stage" "$name"
        postponed=$((postponed + 1))
        return 2
    fi
    [ "$limit" -le $left ] || limit=$left
    began=$(now)
    timeout -k 5 "$limit" "$@" >"$work/output" 2>&1 </dev/null
    status=$?
    took=$(($(now) - began))
    {
        echo "==== $name: $*"
        cat "$work/output"
        echo "==== status $status after $took s"
    } >>"$report.$stage.log"
    said=$(grep -v '^[[:space:]]*$' "$work/output" | tail -1 | plain)
    case $status in
    0) result=passed ;;
    124 | 137) result='timed out' ;;
    *) result=failed ;;
    esac
    [ $status -eq 0 ] && return 0
    failed=$((failed + 1))
    return 1
}

# check NAME SECONDS COMMAND ...: the same, written down.
check() {
    attempt "$@"
    outcome=$?
    [ $outcome -eq 2 ] || record "$1" "$result" "$took" "$said"
    return $outcome
}

# A result without a command.
note() {
    [ "$2" != failed ] || failed=$((failed + 1))
    record "$1" "$2" 0 "$3"
}

begin_stage() {
    stage=$1
    id=$(build_id)
    deadline=$(($(now) + stage_seconds))
    fresh=$again
    [ "$stage" != build ] || fresh=1
    nvcc_version=$([ -z "$nvcc" ] || "$nvcc" --version | sed -n 's/.*, \(V[0-9.]*\).*/\1/p')
}

# ---- the stages ----

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

stage_build() {
    if [ -z "$nvcc" ] && [ -x "$build/train_gpt" ]; then
        check "carried build" 60 "$build/train_gpt" --help
    elif [ -z "$nvcc" ]; then
        note "nvcc" failed "there is no nvcc here, and no programs in $build: carry a build here and name it with --build"
    else
        for target in all tests "$build/dev/bench" device-tests; do
            check "make $(basename "$target")" $stage_seconds make -j"$cores" BUILD="$build" BIN="$build" NO_DATA=1 CUDA=1 EMU=0 "$target"
        done
    fi
}

# The path of a program of the build; a note if it is not there.
need() {
    [ -x "$build/$1" ] && return 0
    note "$1" failed "$build/$1 is missing: run the stage build first, or name a build with --build"
    return 1
}

# tests FOLDER ...: those of the build.
tests() { (cd "$build" && find "$@" -name '*_test' -type f -perm -u+x) 2>/dev/null | sort; }

stage_test() {
    TEST_BACKENDS=$device
    export TEST_BACKENDS
    programs=$(tests kernels dev)
    [ -n "$programs" ] || note "tests" failed "there are none in $build: run the stage build first, or name a build with --build"
    for program in $programs llmc/model_step_test; do
        need "$program" && check "$(basename "$program")" 240 "$build/$program"
    done
    need test_gpt || return
    for dtype in fp32 bf16; do check "test_gpt $dtype" 240 "$build/test_gpt" --device "$device" --dtype $dtype; done
}

# The text of this repository as characters, and a trainer of them in $train.
small_training() {
    data=$build/check/data
    need train_gpt && need tokenizer || return 1
    mkdir -p "$build/check" && cat README.md kernels/*.c llmc/*.c >"$build/check/text"
    "$build/tokenizer" chars --input "$build/check/text" --out "$data" >"$work/output" 2>&1 ||
        { note "data" failed "$(tail -1 "$work/output" | plain)" && return 1; }
    train="$build/train_gpt -i $data/train.bin -j $data/val.bin --device $device --schedule constant"
    train="$train --eval-batches 1 --eval-every 0 --checkpoint-every 0 --no-curve"
    tiny="--n-layer 2 --n-head 2 --n-embd 128 --seq-len 64 --batch 2 --grad-accum 2"
}

# same RUN RUN: the newest checkpoints hold the same bytes. A run that failed has said so itself.
same() {
    [ -d "$build/check/$1/last" ] && [ -d "$build/check/$2/last" ] || return
    for file in model optimizer; do
        check "$1 and $2, the same $file" 20 cmp "$build/check/$1/last/$file.safetensors" "$build/check/$2/last/$file.safetensors"
    done
}

# shellcheck disable=SC2086   # $train and its like are commands with their arguments
stage_determinism() {
    small_training || return
    runs=$build/check
    rm -rf "$runs/first" "$runs/second" "$runs/third" "$runs/graphless" "$runs/resumed"
    train="$train --deterministic --algorithms= --dropout 0.1"
    [ "$device" != emu ] || train="$train $tiny"
    fresh=1   # the runs are compared with each other, so all of them are made anew
    for run in first second third; do check "run $run" 120 $train -x 20 -o "$runs/$run"; done
    check "run without graphs" 120 $train -x 20 -o "$runs/graphless" --no-graphs
    check "run of 10 steps" 120 $train -x 10 -o "$runs/resumed"
    check "run resumed to 20" 120 "$build/train_gpt" --resume auto --device "$device" -x 20 -o "$runs/resumed"
    for run in second third graphless resumed; do same first $run; done
}

# Several rank threads share the device and take turns; NCCL has one rank, for a rank wants a GPU of its own, or two where there are two.
# shellcheck disable=SC2086
stage_ranks() {
    TEST_BACKENDS=$device
    export TEST_BACKENDS
    for program in llmc/comm_test llmc/model_ranks_test; do need "$program" && check "$(basename "$program")" 240 "$build/$program"; done
    small_training || return
    runs=$build/check
    rm -rf "$runs"/rank_*
    train="$train $tiny --deterministic --algorithms= --dropout 0.1 --check-ranks 1 -x 10"
    fresh=1
    check "one rank" 120 $train -o "$runs/rank_alone"
    if [ "$device" = cuda ]; then
        check "one rank by NCCL" 120 $train --comm nccl -o "$runs/rank_nccl"
        same rank_alone rank_nccl
        check "one rank by NCCL, ZeRO" 120 $train --comm nccl --zero 1 -o "$runs/rank_nccl_zero"
    fi
    for zero in 0 1; do
        loopback="$train --comm loopback --zero $zero"
        for run in first second; do check "three ranks, ZeRO $zero, $run run" 120 $loopback --ranks 3 -o "$runs/rank_${run}_$zero"; done
        same rank_first_$zero rank_second_$zero
        check "three ranks, ZeRO $zero, 5 steps" 120 $loopback --ranks 3 -x 5 -o "$runs/rank_resumed_$zero"
        check "three ranks, ZeRO $zero, resumed" 120 "$build/train_gpt" --resume auto --device "$device" --comm loopback --ranks 3 -x 10 \
            -o "$runs/rank_resumed_$zero"
        same rank_first_$zero rank_resumed_$zero
    done
    [ "$(nvidia-smi -L | wc -l)" -gt 1 ] || return
    for zero in 0 1; do check "two GPUs by NCCL, ZeRO $zero" 120 $train --gpus 2 --zero $zero -o "$runs/rank_gpus_$zero"; done
}

# shellcheck disable=SC2086
stage_sanitize() {
    tool=$(command -v compute-sanitizer || ls /usr/local/cuda/compute-sanitizer/compute-sanitizer 2>/dev/null)
    if [ -z "$tool" ]; then
        note "compute-sanitizer" skipped "it is not installed here, so nothing was checked"
        return
    fi
    small_training || return
    TEST_BACKENDS=$device
    export TEST_BACKENDS
    for kind in memcheck racecheck; do
        for dtype in bf16 fp32; do
            check "$kind of training, $dtype" 120 "$tool" --tool $kind --error-exitcode 9 $train $tiny --dtype $dtype -x 2 --dropout 0.1 --no-graphs \
                -o "$build/check/sanitized"
            check "$kind of two ranks, $dtype" 120 "$tool" --tool $kind --error-exitcode 9 $train $tiny --dtype $dtype -x 2 --dropout 0.1 --zero 1 \
                --comm loopback --ranks 2 -o "$build/check/sanitized"
        done
        for program in $(tests kernels); do
            check "$kind of $(basename "$program")" 120 "$tool" --tool $kind --error-exitcode 9 "$build/$program"
        done
    done
}

# measure NAME SECONDS COMMAND ...: a check with figures: the last line of JSON that it prints, or appends to $work/figures.
measure() {
    rm -f "$work/figures"
    attempt "$@"
    outcome=$?
    [ $outcome -ne 2 ] || return
    [ -s "$work/figures" ] || grep '^{' "$work/output" >"$work/figures"
    if [ $outcome -ne 0 ]; then record "$1" "$result" "$took" "$said"
    elif [ -s "$work/figures" ]; then record "$1" passed "$took" "" "$(tail -1 "$work/figures")"
    else note "$1" failed "it gave no figures"
    fi
}

bench_model() {
    need dev/bench || return
    case $1 in gpt2-124M) rows=64 steps=10 ;; gpt2-350M) rows=32 steps=5 ;; gpt2-774M) rows=16 steps=4 ;; *) rows=8 steps=3 ;; esac
    python=$(command -v python3)
    [ -n "$python" ] || note "$1, PyTorch" skipped "there is no python3 here"
    case $1 in gpt2-*) ;; *) python='' ;; esac   # dev/bench_pytorch.py has GPT-2 alone
    for round in 1 2; do
        measure "$1, own, round $round" 240 "$build/dev/bench" --seconds 10 --model "$1" --device "$device" --json "$work/figures" \
            --algorithms "$build/matmul_algorithms.txt"
        [ -n "$python" ] || continue
        for kind in flash cudnn; do
            measure "$1, PyTorch $kind, round $round" 300 "$python" dev/bench_pytorch.py --model "$1" --attention $kind --batch $rows \
                --steps $steps --warm-up 2
        done
    done
}

run_stage() {
    begin_stage "$1"
    case $1 in
    bench) bench_model "$2" ;;
    *) "stage_$1" ;;
    esac
}

case $stages in
all)
    for stage in build test determinism ranks sanitize; do run_stage $stage; done
    for model in gpt2-124M gpt2-350M gpt2-774M gpt2-1558M tinystories-17M llama-350M; do run_stage bench $model; done
    ;;
*) run_stage "$stages" "$model" ;;
esac

echo "$failed failed, $postponed left for the next call; results in $report.md"
[ $failed -eq 0 ] && [ $postponed -eq 0 ]
