#!/bin/sh
# Everything to be done on a machine with a GPU and no network:
#
#   sh dev/gpu_check.sh build | test | determinism | probe | curve | sanitize | ranks | bench MODEL | all
#                       [--out DIR] [--build DIR] [--seconds S] [--llmc DIR] [--device NAME] [--again]
#
#   build         compiles the programs, tests and benchmarks for the GPU present
#   test          the ops' tests and test_gpt on the device, in fp32 and bf16, and the tests of single instructions and of cuDNN
#   determinism   equal checkpoints from equal runs, from a resumed one, and with and without graphs
#   probe         what decides the defaults: epilogues, bias gradients, residual, attention by head size, timed algorithms, graphs by batch;
#                 ends in a table of decisions
#   curve         200 steps of the baby GPT on the card, in fp32 and bf16, against those of the CPU here
#   sanitize      compute-sanitizer's memcheck and racecheck over the ops' tests and a small training run
#   ranks         NCCL with one rank and loopback with several, with and without ZeRO: the bits of one rank, of a second run, of a resumed one;
#                 and the tests of collectives and of models on several ranks
#   bench MODEL   turn about, twice: ours with cuDNN's attention and with our own, PyTorch with flash and cuDNN, and, if --llmc names a checkout of
#                 llm.c that is built, that; ours deterministic once. MODEL: gpt2-124M, gpt2-350M, gpt2-774M, gpt2-1558M, tinystories-17M, llama-350M
#   all           one after another, what matters most first
#
# A stage takes 8 minutes at most, a call --seconds S. What is not reached is left for the next call, which passes over what this same build has
# passed already (unless --again). Results are written as they come to DIR/GPU-DATE.json and .md (DIR: dev/results), with .probe.jsonl,
# .decisions.md, .curve.md and .ops.md (time of every op over its floor) beside them, the output of the commands to .log. For the next call to go on,
# DIR must still hold them.
#
# --build names the folder of the programs (build/gpu): built here, or elsewhere with ARCH=x86-64-v3 and carried here. Libraries that are missing
# here may lie in its folder lib, their headers in include: to build the tests, cmocka. cuDNN and NCCL are also found where PyTorch has them.
# --device is for trying this script out. Exit status 0: all passed.
stage_seconds=480
curve_steps=${CURVE_STEPS:-200}   # fewer, and another model with fewer tokens: to try the script out on a machine without a GPU
probe_model=${PROBE_MODEL:-gpt2-124M}
probe_tokens=${PROBE_TOKENS:+--tokens $PROBE_TOKENS}

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
seconds=
llmc=
[ $# -gt 0 ] || usage
while [ $# -gt 0 ]; do
    case $1 in
    build | test | determinism | probe | curve | sanitize | ranks | all) stages=$1 ;;
    bench) stages=bench model=${2:?bench needs a MODEL} && shift ;;
    --out) out=${2:?--out needs a directory} && shift ;;
    --build) build=${2:?--build needs a directory} && shift ;;
    --device) device=${2:?--device needs a name} && shift ;;
    --seconds) seconds=${2:?--seconds needs a number} && shift ;;
    --llmc) llmc=${2:?--llmc needs a directory} && shift ;;
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
case $seconds in *[!0-9]*) complain "--seconds '$seconds' is not a whole number" ;; esac
call_ends=${seconds:+$(($(date +%s) + seconds))}

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
[ -n "$gpu" ] || complain "no GPU here: nvidia-smi is missing or lists none"
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || commit="$commit with changes"
PATH=$PATH:/usr/local/cuda/bin
nvcc=$(command -v nvcc)
python=$(command -v python3)
add_folder() { [ ! -d "$2" ] || eval "$1=\$2\${$1:+:\$$1}; export $1"; }
# Where PyTorch's wheels keep cuDNN and NCCL.
for library in cudnn nccl; do
    ask="import importlib.util as u; print(*u.find_spec('nvidia.$library').submodule_search_locations)"
    found=$([ -z "$python" ] || "$python" -c "$ask" 2>/dev/null)
    [ -n "$found" ] && add_folder LD_LIBRARY_PATH "$found/lib" && add_folder CPATH "$found/include"
done
add_folder LD_LIBRARY_PATH "$(realpath -m "$build/lib")"
add_folder LIBRARY_PATH "$(realpath -m "$build/lib")"
add_folder CPATH "$(realpath -m "$build/include")"

mkdir -p "$out" || complain "cannot make the directory $out"
report=$out/$(echo "$gpu" | tr '[:upper:]' '[:lower:]' | sed 's/^nvidia //; s/[^a-z0-9]\{1,\}/-/g; s/-$//')-$(date +%F)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# shellcheck source=dev/gpu_report.sh
. dev/gpu_report.sh

# ---- the stages ----

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# What the programs are made of: make goes by the files' times, which are new wherever the files were copied to.
sources() { find Makefile ./*.c ./*.cu kernels llmc dev -name '*.[ch]*' -o -name Makefile | sort | xargs cat | cksum; }

stage_build() {
    if [ -z "$nvcc" ] && [ -x "$build/train_gpt" ]; then
        check "carried build" 60 "$build/train_gpt" --help
    elif [ -z "$nvcc" ]; then
        note "nvcc" failed "there is no nvcc here, and no programs in $build: carry a build here and name it with --build"
    else
        for target in all tests "$build/dev/bench" device-tests "$build/dev/lt_probe" "$build/dev/gpu_attention"; do
            build_target "$target" "$build/sources_of_$(basename "$target")"
        done
    fi
}

# build_target TARGET FILE: unless FILE says that it was made of these sources. `all` compiles what the others share; these need little time, and so
# are begun even where it took long.
build_target() {
    seconds_of_target=120
    [ "$1" != all ] || seconds_of_target=$stage_seconds
    if [ -z "$again" ] && [ "$(cat "$2" 2>/dev/null)" = "$(sources)" ]; then
        printf '%-12s %-40s passed before\n' build "make $(basename "$1")"
    elif [ "$1" = tests ] && ! echo '#include <cmocka.h>' | ${CC:-cc} -x c -E - >/dev/null 2>&1; then
        note "make tests" failed "there is no cmocka.h here: bring it in $build/include, and the library in $build/lib"
    else
        mkdir -p "$build" && rm -f "$2"
        check "make $(basename "$1")" $seconds_of_target make -j"$cores" BUILD="$build" BIN="$build" NO_DATA=1 CUDA=1 EMU=0 "$1" && sources >"$2"
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

# The CPU's curves are made here and now rather than kept in the repository: by the same sources from the same data, they cannot be out of date. Their
# steps are of 1,024 tokens, and the seeds run side by side, so that they take about a minute.
# shellcheck disable=SC2016,SC2086
stage_curve() {
    if [ -z "$python" ]; then
        note "curves" skipped "there is no python3 here to compare them"
        return
    fi
    small_training || return
    runs=$build/check/curve
    [ -d "$runs" ] || fresh=1   # what passed before passed on another machine
    mkdir -p "$runs"
    train="$build/train_gpt -i $data/train.bin -j $data/val.bin --schedule constant --batch 4 --grad-accum 2 -x $curve_steps --log-every 1 --quiet"
    train="$train --eval-batches 1 --eval-every 0 --checkpoint-every 0 --sample-tokens 0 --no-curve"
    cpu="$train --device cpu --dtype fp32"
    threads=$((cores > 4 ? (cores - 1) / 3 : 1))
    check "runs on the CPU, three seeds" 400 env OMP_NUM_THREADS=$threads OMP_WAIT_POLICY=passive sh -c '
        cpu=$1 runs=$2
        rm -rf "$runs"/cpu_?
        for seed in 1 2 3; do $cpu --seed $seed -o "$runs/cpu_$seed" >"$runs/cpu_$seed.log" 2>&1 & eval "run_$seed=\$!"; done
        trap "kill $run_1 $run_2 $run_3" TERM
        wait $run_1 && wait $run_2 && wait $run_3 || { tail -n 3 "$runs"/cpu_?.log; exit 1; }' curve "$cpu" "$runs"
    for dtype in fp32 bf16; do
        check "run on the card, $dtype" 200 sh -c 'rm -rf "$0" && exec "$@" -o "$0"' "$runs/card_$dtype" \
            $train --device "$device" --dtype $dtype --seed 1 --algorithms=
    done
    for run in cpu_1 cpu_2 cpu_3 card_fp32 card_bf16; do [ -s "$runs/$run/log.jsonl" ] || return; done   # that it is not there was said
    fresh=1
    check "curves" 60 "$python" dev/gpu_curve.py --cpu "$runs/cpu_1" "$runs/cpu_2" "$runs/cpu_3" \
        --card "fp32=$runs/card_fp32" "bf16=$runs/card_bf16"
    sed '/^==== status/,$d' "$work/output" >"$report.curve.md"
}

# step OPTION VALUE ROWS MICRO FLAGS: the speed of whole steps of GPT-2 124M with that option so, as a line for the decisions.
# shellcheck disable=SC2086
step() {
    measure "$1 $2" "step at B=$3, $1 $2" 120 "$build/dev/bench" --seconds 2 --model $probe_model --batch "$3" --grad-accum "$4" --device "$device" \
        --json "$work/figures" --algorithms "$build/matmul_algorithms.txt" $5 &&
        sed "s|^{|{\"probe\": \"step\", \"option\": \"$1\", \"value\": \"$2\", |" "$work/measured" >>"$report.probe.jsonl"
}

stage_probe() {
    probes=$report.probe.jsonl
    if [ "$device" = cuda ]; then
        need dev/lt_probe && check "products and epilogues" 150 "$build/dev/lt_probe" --json "$probes"
    fi
    for T in 1024 256 4096; do
        # shellcheck disable=SC2086
        need dev/gpu_attention && check "attention, T=$T" 150 "$build/dev/gpu_attention" --device "$device" --seq-len $T $probe_tokens \
            --json "$probes"
    done
    need dev/bench || return
    step autotune on 64 1 --autotune
    step autotune off 64 1 --no-autotune
    step residual norm 64 1 "--residual norm"
    step residual matmul 64 1 "--residual matmul"
    for rows in 1 4 8 16 64; do
        step graphs on $rows 4 --graphs
        step graphs off $rows 4 --no-graphs
    done
    if [ -z "$python" ]; then note "decisions" skipped "there is no python3 here; elsewhere: python3 dev/gpu_decisions.py $probes"
    elif [ -s "$probes" ]; then
        fresh=1
        "$python" dev/gpu_decisions.py "$probes" >"$work/decisions" 2>/dev/null && cp "$work/decisions" "$report.decisions.md"
        check "decisions" 20 "$python" dev/gpu_decisions.py "$probes"
    fi
}

# own MODEL KIND ROUND FLAGS: ours, and its ops in a table.
# shellcheck disable=SC2086
own() {
    measure "own, $2" "$1, own, $2, round $3" 240 "$build/dev/bench" --seconds 8 --model "$1" --device "$device" --json "$work/figures" \
        --algorithms "$build/matmul_algorithms.txt" $4 || return
    {
        echo "# $1 on $gpu, $(date +%F): own, $2, round $3"
        echo
        sed -n '/^op  *calls/,/^all ops/s/^/    /p' "$work/output"
        echo
    } >>"$report.ops.md"
}

# The value of a number in the last line of ours that was measured with that model.
measured_of() { grep -F "\"check\": \"$1, own, " "$report.json" | grep -F '"measured":' | tail -1 | sed -n "s/.*\"$2\": \\([0-9]*\\).*/\\1/p"; }

bench_model() {
    need dev/bench || return
    case $1 in gpt2-124M) steps=10 llmc_model=d12 ;; gpt2-350M) steps=5 llmc_model=d24 ;; gpt2-774M) steps=4 llmc_model=d36 ;;
    gpt2-1558M) steps=3 llmc_model=d48 ;; *) steps=5 llmc_model= ;; esac
    case $1 in gpt2-774M | gpt2-1558M) compiled=--blocks ;; *) compiled='' ;; esac   # else compiling takes longer than the check may
    [ -n "$python" ] || note "$1, PyTorch" skipped "there is no python3 here"
    [ -n "$llmc" ] || [ -z "$llmc_model" ] || note "$1, llm.c" skipped "no checkout of it was named with --llmc"
    case $device in cuda) cudnn=cudnn ;; *) cudnn=auto ;; esac
    for round in 1 2; do
        own "$1" "own attention" $round "--attention own"
        own "$1" "cuDNN attention" $round "--attention $cudnn"
        [ $round -eq 2 ] || own "$1" deterministic 1 --deterministic
        rows=$(measured_of "$1" batch) length=$(measured_of "$1" seq_len) tokens=$(measured_of "$1" tokens_per_step)
        case ",$rows,$length,$tokens," in *,,*) continue ;; esac   # without a speed of ours there is nothing to compare with
        for kind in flash cudnn; do
            [ -z "$python" ] || measure "PyTorch, $kind" "$1, PyTorch $kind, round $round" 300 "$python" dev/bench_pytorch.py --model "$1" --pure \
                --attention $kind --batch "$rows" --seq-len "$length" --total-batch "$tokens" --steps $steps --warm-up 2 $compiled
        done
        [ $round -eq 1 ] || [ -z "$python" ] || measure "PyTorch, flash, autocast" "$1, PyTorch flash, autocast" 300 "$python" dev/bench_pytorch.py \
            --model "$1" --batch "$rows" --seq-len "$length" --total-batch "$tokens" --steps $steps --warm-up 2 $compiled
        case ",$llmc,$llmc_model," in *,,*) continue ;; esac
        for kind in best defaults; do
            measure "llm.c, $kind" "$1, llm.c $kind, round $round" 240 sh dev/bench_llmc.sh "$llmc" --model $llmc_model --batch "$rows" \
                --seq-len "$length" --$kind --steps $steps
        done
    done
}

# A stage all of which this build has passed before is passed over as a whole.
run_stage() {
    begin_stage "$1"
    whole="all of $1${2:+ $2}"
    [ "$1" != bench ] || whole="$whole${llmc:+ and llm.c}"
    if [ "$1" != build ] && passed_before "$whole"; then
        printf '%-12s %-40s passed before\n' "$stage" "$whole"
        return
    fi
    troubles=$((failed + postponed))
    case $1 in
    bench) bench_model "$2" ;;
    *) "stage_$1" ;;
    esac
    [ $((failed + postponed)) -ne $troubles ] || [ "$1" = build ] || note "$whole" passed ""
}

case $stages in
all)
    for stage in build test determinism probe; do run_stage $stage; done
    run_stage bench gpt2-124M
    for stage in curve sanitize; do run_stage $stage; done
    for model in gpt2-350M llama-350M tinystories-17M gpt2-774M gpt2-1558M; do run_stage bench $model; done
    run_stage ranks
    ;;
*) run_stage "$stages" "$model" ;;
esac

echo "$failed failed, $postponed left for the next call; results in $report.md"
[ $failed -eq 0 ] && [ $postponed -eq 0 ]
