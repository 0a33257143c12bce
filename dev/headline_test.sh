#!/bin/sh
# Tests of the recipes of the headline runs, scripts/run_gpt2_124M.sh and its like, in their short form: sh dev/headline_test.sh BIN, where BIN holds
# train_gpt, sample_gpt and tokenizer. They work in a copy of scripts/ and data/, without a network and without a GPU; one of the tests has stand-ins
# for eight GPUs and for the trainer on them. Prints failures, a line a group, and last "N passed, N failed".
# shellcheck disable=SC2016   # what is not expanded shall not be
LC_ALL=C
OMP_NUM_THREADS=1
OMP_WAIT_POLICY=passive
export LC_ALL OMP_NUM_THREADS OMP_WAIT_POLICY
unset DATA_MIRROR TRAIN_GPT PYTHON CUDA_VISIBLE_DEVICES

bin=$(cd "${1:?usage: headline_test.sh BIN}" && pwd) || exit 1
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d) || exit 1
process=
clean() {
    [ -n "$process" ] && kill "$process" && wait "$process"   # it ends its trainer
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/here" "$work/here/data" "$work/stand-ins" "$work/nothing" && cd "$work/here" || exit 1
cp -R "$root/scripts" .
cp "$root"/data/*.py "$root"/data/*.sh "$root"/data/README.md data/
cp "$root/README.md" .
for program in tokenizer train_gpt sample_gpt; do ln -s "$bin/$program" $program; done

# shellcheck source=dev/shell_test.sh
. "$root/dev/shell_test.sh"

# stand_in NAME: the script comes on stdin.
stand_in() {
    { echo '#!/bin/sh'; cat; } >"$work/stand-ins/$1"
    chmod +x "$work/stand-ins/$1"
}
# recipe NAME WORDS...: runs it on the CPU, in short.
recipe() { script=scripts/run_$1.sh; shift; echo "sh $script --short --device cpu --no-curve $*"; }
# step_of RUN: the step of its newest checkpoint.
step_of() { sed -n 's/^ *"step": *\([0-9]*\),.*/\1/p' "$1/last/state.json"; }
went_on() { [ "$(step_of "$1")" -gt "$2" ]; }
log_grew() { [ "$(wc -l <"$1/log.jsonl")" -gt "$2" ]; }

# ---- Each from nothing to the sample, and again ----

group "short recipes"
for pair in gpt2_124M=gpt2-124M gpt2_350M=gpt2-350M gpt2_774M=gpt2-774M gpt2_1558M=gpt2-1558M tinystories_17M=tinystories-17M-small \
        openwebtext=openwebtext-small wikitext=wikitext shakespeare_char=shakespeare_char; do
    this=${pair%=*} out=out/short/${pair#*=}
    # shellcheck disable=SC2046
    works "$this" $(recipe "$this")
    says "$this: how many steps" "^steps +40 of 128 tokens: 5,120 tokens"
    says "$this: memory, by the plan" "^memory +[0-9.]+ [KMG]iB, by --plan"
    says "$this: time, as an assumption" "^time .*assumed, not measured"
    says "$this: disk" "^disk .* for checkpoints"
    says "$this: trains" "^done: best validation loss"
    says "$this: perplexity" "^validation loss [0-9.]+, perplexity [0-9.]+; at its best"
    says "$this: how to export" "^export .*--export $out/export"
    holds "$this: a sample" [ "$(sed -n '/^== a sample/,/^== results/p' "$work/stdout" | wc -c)" -gt 200 ]
    holds "$this: 40 steps" [ "$(step_of "$out")" = 40 ]
    # shellcheck disable=SC2046
    works "$this again" $(recipe "$this")
    says "$this again: it is done" "^== $out is done: 40 steps"
    holds "$this again: nothing is trained" [ -z "$(grep '^== training' "$work/stdout")" ]
done
# shellcheck disable=SC2046
works "more steps" $(recipe wikitext) -x 45
says "more steps: it goes on" "^resume .*: step 40"
holds "more steps: to their end" [ "$(step_of out/short/wikitext)" = 45 ]
# shellcheck disable=SC2046
works "two ranks, a directory of one's own" $(recipe wikitext) --gpus 2 -o out/two
says "two ranks, of half the rows" "1 micro-batches x 2 rows x 32 tokens"
says "two ranks" "^ranks +2 over"
holds "a directory of one's own" [ "$(step_of out/two)" = 40 ]

# ---- Stopped and killed ----

group "recipes that are stopped"
endless="-x 100000000 --eval-every 0 -o out/stopped --restarts 0"
# begin: the recipe in the background, until its log has grown by some lines.
begin() {
    before=$([ -f out/stopped/log.jsonl ] && wc -l <out/stopped/log.jsonl || echo 0)
    # shellcheck disable=SC2046,SC2086
    $(recipe tinystories_17M) $endless >"$work/stdout" 2>"$work/stderr" &
    process=$!
    holds "$1: starts" wait_for log_grew out/stopped $((before + 3))
}
ended() {
    wait "$process" 2>/dev/null
    status=$?
    process=
}
begin "stopped"
kill -s TERM "$process"
ended
holds "stopped: its status" [ "$status" -eq 130 ]
says "stopped: the trainer saves" "^interrupted: step [0-9]+ is saved in out/stopped"
says "stopped: it says what to do" "^Stopped. The same command goes on"
last=$(step_of out/stopped)
begin "started again"
says "started again: from there" "^resume .*: step $last"
holds "started again: has a trainer" [ -n "$(pgrep -P "$process" train_gpt)" ]
holds "started again: a checkpoint comes" wait_for went_on out/stopped "$last"
kill -9 "$(pgrep -P "$process" train_gpt)"
ended
holds "the trainer is killed: its status" [ "$status" -eq 137 ]
last=$(step_of out/stopped)
endless="-x $((last + 7)) --eval-every 0 -o out/stopped"
# shellcheck disable=SC2046,SC2086
works "after the kill" $(recipe tinystories_17M) $endless
says "after the kill: from the newest checkpoint" "^resume .*: step $last"
holds "after the kill: to the end" [ "$(step_of out/stopped)" = $((last + 7)) ]

# Pauses of seconds are none here.
stand_in sleep <<'SCRIPT'
case $1 in 0.*) exec /bin/sleep "$1" ;; *) echo "$1" >>paused.txt ;; esac
SCRIPT
path=$PATH PATH=$work/stand-ins:$PATH
endless="-x 100000000 --eval-every 0 -o out/stopped"
begin "begins again by itself"
kill -9 "$(pgrep -P "$process" train_gpt)"
holds "begins again by itself: says so" wait_for grep -q '^run_tinystories_17M.sh: training ended' "$work/stderr"
last=$(step_of out/stopped)
holds "begins again by itself: it goes on" wait_for went_on out/stopped "$last"
kill -s TERM "$process"
ended
holds "begins again by itself: until it is stopped" [ "$status" -eq 130 ]
holds "begins again by itself: one sentence" [ "$(grep -c '^run_tinystories_17M.sh: training ended with status 137; in 10 s it goes on from step_' "$work/stderr")" -eq 1 ]
holds "begins again by itself: one pause" [ "$(cat paused.txt)" = 10 ]
PATH=$path
rm "$work/stand-ins/sleep"

# ---- So many minutes ----

group "recipes of some minutes"
# shellcheck disable=SC2046
works "a twentieth of a minute" $(recipe openwebtext) --minutes 0.05
says "a trial finds the steps" "^[0-9,]+ tokens/s, so [0-9,]+ steps in 0.05 minutes"
# shellcheck disable=SC2046
works "again" $(recipe openwebtext) --minutes 0.05
says "again: it is done" "^== out/short/openwebtext-0.05-minutes is done"
# shellcheck disable=SC2046
works "no time for all steps" $(recipe openwebtext) --minutes 0.05 -x 100000000 --eval-every 0 -o out/timed
says "no time for all steps: evaluated where it ended" "^validation loss [0-9.]+, perplexity"
# shellcheck disable=SC2046
works "fewer than there is time for" $(recipe openwebtext) --minutes 10 -x 10
holds "fewer than there is time for: no trial" [ -z "$(grep trial "$work/stdout")" ]
refuses "no number" "'soon' is no number of minutes" sh scripts/run_openwebtext.sh --minutes soon
refuses "not a number above 0" "'0' is no number" sh scripts/run_openwebtext.sh --minutes 0
refuses "nothing" "write --minutes 90" sh scripts/run_openwebtext.sh --minutes
refuses "not with this recipe" "unknown option '--minutes'" sh scripts/run_wikitext.sh --minutes 90

# ---- Real data, from a mirror ----

# 21 archives as OpenWebText's, of a few texts.
cat >mirror.py <<'END_OF_PYTHON'
import io, lzma, os, sys, tarfile
def archive(files):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return memory.getvalue()
text = open("README.md", "rb").read()
os.makedirs("mirror/openwebtext")
for n in range(21):
    texts = archive([(f"{i}.txt", text[(n * 7 + i) * 90:][:900]) for i in range(40)])
    with open(f"mirror/openwebtext/urlsf_subset{n:02}.tar", "wb") as file:
        file.write(archive([("texts.xz", lzma.compress(texts))]))
END_OF_PYTHON
python3 mirror.py

group "data of recipes"
tiny="--n-layer 1 --n-head 2 --n-kv-head 0 --n-embd 16 --n-hidden 32 --vocab-size 0 -t 16 -b 2 -g 1 -x 4 --eval-batches 1 --no-curve"
# shellcheck disable=SC2086
run env DATA_MIRROR="$PWD/mirror" sh scripts/run_openwebtext.sh --device cpu $tiny
holds "from a mirror" [ "$status" -eq 0 ]   # with a warning of the small vocabulary
says "says how much it takes" "^data/openwebtext is missing. It takes about 13.5 GB to download .* and 33.4 GB of disk .* has [0-9.]+ GB free"
holds "makes the dataset" [ -f data/openwebtext/dataset.json ]
says "trains on it" "^data +data/openwebtext/train"
says "takes -g for --total-batch" "1 micro-batches x 2 rows x 16 tokens = 32 tokens"
# shellcheck disable=SC2086
works "data of one's own" sh scripts/run_tinystories_17M.sh $tiny -i "$PWD/data/openwebtext/train_000000.bin" -o out/own
says "trains on that" "^data +$PWD/data/openwebtext/train_000000.bin"
fails "a mirror without it" "DATA_MIRROR has no tinystories/" env DATA_MIRROR="$PWD/mirror" sh scripts/run_tinystories_17M.sh
fails "TinyShakespeare" "DATA_MIRROR has no tinyshakespeare.txt" env DATA_MIRROR="$PWD/mirror" sh scripts/run_shakespeare_char.sh
fails "no network" "without a network, set DATA_MIRROR" env https_proxy=http://nowhere.invalid:1 no_proxy= sh scripts/run_tinystories_17M.sh
printf 'import shutil, types\nshutil.disk_usage = lambda path: types.SimpleNamespace(free=1000)\n' >"$work/stand-ins/sitecustomize.py"
fails "no space" "are needed in .* and the disk has 1.0 kB" env PYTHONPATH="$work/stand-ins" sh scripts/run_tinystories_17M.sh
fails "no Python" "there is no 'absent'; install python3" env PYTHON=absent sh scripts/run_tinystories_17M.sh
holds "nothing is left of these" [ ! -e data/tinystories ]

# ---- Programs and options ----

group "recipes that cannot begin"
refuses "an unknown option" "unknown option '--stepps'; the nearest is --steps" sh scripts/run_gpt2_124M.sh --short --stepps 3
refuses "a value out of range" "dropout is '2'" sh scripts/run_wikitext.sh --dropout 2
refuses "no GPU for a large model" "there is no GPU here" sh scripts/run_gpt2_1558M.sh
works "its help" sh scripts/run_openwebtext.sh --help
says "help says what it does" "byte-pair vocabulary of 32,000"
says "help says its options" "^  --minutes N"
# Only what the scripts need is on the PATH, and no compiler.
for tool in sh sed awk cat dirname basename nproc head grep tr mkdir rm uname make; do
    ln -s "$(command -v $tool)" "$work/nothing/$tool"
done
rm sample_gpt
refuses "not built and no compiler" "not built, and there is no make or no C compiler" env -u CC PATH="$work/nothing" sh scripts/run_wikitext.sh
stand_in make <<'SCRIPT'
echo "$*" >made.txt
case $* in *sample_gpt*) ln -s "$BIN/sample_gpt" sample_gpt ;; *) exit 1 ;; esac
SCRIPT
ln -s /bin/true "$work/stand-ins/gcc"
# shellcheck disable=SC2046
works "not built" env PATH="$work/stand-ins:$PATH" BIN="$bin" $(recipe wikitext)
holds "makes what is missing, and no more" grep -q 'NO_DATA=1 sample_gpt$' made.txt
rm sample_gpt
stand_in make <<'SCRIPT'
exit 2
SCRIPT
fails "a build that fails" "the build failed" env PATH="$work/stand-ins:$PATH" sh scripts/run_wikitext.sh
ln -s "$bin/sample_gpt" sample_gpt

# ---- Eight GPUs, which are stand-ins ----

group "recipes on GPUs"
stand_in nvidia-smi <<'SCRIPT'
case $1 in
    -L) for n in 0 1 2 3 4 5 6 7; do [ $n -ge "$GPUS" ] || echo "GPU $n: $CARD (UUID: GPU-$n)"; done ;;
    *) echo "$CARD" ;;
esac
SCRIPT
stand_in on_gpus <<'SCRIPT'
case " $* " in
    *' --plan '*)
        printf '%s\n' 'parameters  124,439,808' 'FLOPs per token  797,815,296   (6N)' 'memory  21.42 GiB' "largest batch   $FITS   (fits)" ;;
    *) printf '[%s]\n' "$@" >trained.txt; exit 3 ;;
esac
SCRIPT
mv train_gpt train_gpt.real && ln -s "$work/stand-ins/on_gpus" train_gpt
mkdir -p data/fineweb && echo '{}' >data/fineweb/dataset.json
# on_gpus NAME GPUS FITS WORDS...: the recipe for 124M, where so many rows fit. The trainer ends with status 3 there, and so must the recipe.
on_gpus() {
    name=$1 gpus=$2 fits=$3
    shift 3
    run env PATH="$work/stand-ins:$PATH" GPUS="$gpus" FITS="$fits" CARD='NVIDIA H100 80GB HBM3' sh scripts/run_gpt2_124M.sh "$@"
    holds "$name: ends as the trainer does" [ "$status" -eq 3 ]
}
# is_given NAME OPTION VALUE: the trainer got it, in the last place where that option stands.
is_given() { holds "$1" [ "$(grep -A 1 -F -x -e "[$2]" trained.txt | tail -n 1)" = "[$3]" ]; }
on_gpus "eight" 8 240
is_given "eight: all of them" --gpus 8
is_given "eight: 64 rows" -b 64
is_given "eight: the same step" --total-batch 524288
is_given "eight: evaluations of 5 million tokens" --eval-batches 80
says "eight: memory" "^memory +21.42 GiB for each of the ranks, by --plan"
says "eight: time" "^time +about 47 minutes .*350 TFLOP/s of each GPU"   # 797,815,296 x 9,999,745,024 / (8 x 350e12) = 2,849 s
says "eight: disk" "^disk +4.5 GB for checkpoints, and [0-9.]+ GB are free"   # 36 bytes a parameter
says "eight: loss, and whose it is" "^loss +about 3.28, as llm.c reports .*not measured here"
stand_in df <<'SCRIPT'
printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/none 9 9 4000000 9%% /\n'
SCRIPT
fails "no room for checkpoints" "out/gpt2-124M needs 4.5 GB for checkpoints, and 4.1 GB are free; make room" \
    env PATH="$work/stand-ins:$PATH" GPUS=8 FITS=240 CARD=H100 sh scripts/run_gpt2_124M.sh
rm "$work/stand-ins/df"
on_gpus "six" 6 240
is_given "six: four of them" --gpus 4
on_gpus "one" 1 30
holds "one: by itself" [ -z "$(grep -x -F '[--gpus]' trained.txt)" ]
is_given "one: rows that fit and divide the step" -b 16
on_gpus "one's own choice" 8 240 --gpus 2 -b 5 --total-batch 10240
is_given "one's own choice: ranks" --gpus 2
is_given "one's own choice: rows" -b 5
is_given "one's own choice: tokens" --total-batch 10240

group ""
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
