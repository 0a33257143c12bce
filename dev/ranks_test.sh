#!/bin/sh
# Tests of several ranks: sh dev/ranks_test.sh BIN [EMULATED [ROUNDS]], where BIN holds train_gpt and tokenizer, and EMULATED is a train_gpt with
# the CUDA backend in the emulator. Ranks are processes under mpirun where train_gpt was built with MPI, processes joined by TCP, and threads
# (loopback). ROUNDS (20): how often a rank is killed at a random moment. Prints failures, a line a group, and last "N passed, N failed".
# shellcheck disable=SC2086   # $tiny and its like are commands with their arguments
LC_ALL=C
OMP_NUM_THREADS=1
OMP_WAIT_POLICY=passive
OMPI_ALLOW_RUN_AS_ROOT=1
OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export LC_ALL OMP_NUM_THREADS OMP_WAIT_POLICY OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM

bin=$(cd "${1:?usage: ranks_test.sh BIN}" && pwd) || exit 1
emulated=${2:+$(cd "$(dirname "$2")" && pwd)/$(basename "$2")}
rounds=${3:-20}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d) || exit 1
process=
clean() {
    pkill -9 -f "^$work/here/[a-z]*/ranked_train_gpt" 2>/dev/null
    umount "$work/here/small" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP
mkdir -p "$work/here/own" && cd "$work/here" || exit 1
. "$root/dev/shell_test.sh"

# A program of a name and place of its own, so that its processes can be found and counted.
cp "$bin/train_gpt" own/ranked_train_gpt
program=$work/here/own/ranked_train_gpt
write_text text
"$bin/tokenizer" chars --input text --out data >/dev/null || exit 1
model="-i data/train.bin -j data/val.bin --n-layer 2 --n-head 2 --n-embd 32 -t 16"
tiny="$model -b 2 -x 20 --warmup 5 --eval-every 10 --eval-batches 7 --log-every 1 --dropout 0.1 --schedule constant --comm-timeout 60 --no-curve --sample-tokens 0"

alive() { pgrep -f "^$program" >/dev/null; }
gone() { ! alive; }
# all_gone NAME: no rank is left, within half a minute.
all_gone() {
    tries=0
    while alive && [ $tries -lt 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    holds "$1: no rank is left" gone
    alive && pkill -9 -f "^$program"
}
# pid_of RANK: its process, a child of mpirun or of the program with --gpus; they are started in order.
pid_of() { pgrep -P "$process" -f "^$program" | sort -n | sed -n "$(($1 + 1))p" | grep .; }
# ends NAME REGEX...: what runs in the background has ended with a status other than 0, every REGEX stands on stderr, and no rank is left.
ends() {
    title=$1
    shift
    tries=0
    while kill -0 "$process" 2>/dev/null && [ $tries -lt 400 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    if kill -0 "$process" 2>/dev/null; then
        fail "$title" "it has not ended"
        kill -9 "$process"
    fi
    wait "$process"
    status=$?
    process=
    holds "$title: the exit status says so" [ $status -ne 0 ]
    for pattern in "$@"; do holds "$title: '$pattern' on stderr" grep -Eq -e "$pattern" "$work/stderr"; done
    all_gone "$title"
}
# begin COMMAND...: in the background.
begin() {
    "$@" >"$work/stdout" 2>"$work/stderr" &
    process=$!
}
# logged RUN STEP: the log has that step.
logged() { grep -q "\"step\": $2," "$1/log.jsonl"; }
# fails_once NAME REGEX COMMAND...: a status other than 0, the sentence once on stderr, and no rank left. (mpirun adds words of its own.)
fails_once() {
    title=$1
    pattern=$2
    shift 2
    run "$@"
    holds "$title: the exit status says so" [ $status -ne 0 ]
    holds "$title: one sentence, '$pattern'" [ "$(grep -Ec -e "$pattern" "$work/stderr")" -eq 1 ]
    holds "$title: no other sentence of ours" [ "$(grep -c '^train_gpt: ' "$work/stderr")" -eq 1 ]
    all_gone "$title"
}
# same_losses RUN RUN: equal to 1e-6.
same_losses() {
    for log in "$1" "$2"; do
        sed -En 's/.*"step": ([0-9]+).*"loss": ([0-9.e-]+),.*"grad_norm": ([0-9.e-]+).*/\1 \2 \3/p' "$log/log.jsonl"
    done | awk '$1 in loss { n++; if (!off($2, loss[$1], 1e-6) || !off($3, norm[$1], 1e-5)) bad = 1 }
                { loss[$1] = $2; norm[$1] = $3 }
                function off(a, b, tolerance) { return (a - b) / b <= tolerance && (b - a) / b <= tolerance }
                END { exit bad || n != 20 }'
}
# ranks KIND N OPTION...: trains. A file, so that timeout finds it.
cat >own/ranks <<END
kind=\$1
n=\$2
shift 2
case \$kind in
    one) exec $program "\$@" ;;
    mpi) exec mpirun --oversubscribe -np "\$n" $program "\$@" ;;
    tcp) exec $program --gpus "\$n" --device cpu --comm tcp "\$@" ;;
    loopback) exec $program --comm loopback --ranks "\$n" "\$@" ;;
esac
END
ranks="sh own/ranks"
mpi=
command -v mpirun >/dev/null 2>&1 && mpirun --oversubscribe -np 2 $program $tiny -g 1 -x 1 -o probe --comm mpi >"$work/probe" 2>&1 && mpi=mpi
[ -n "$mpi" ] || echo "note: train_gpt has no MPI, or there is no mpirun: those tests are left out"
kinds="$mpi tcp loopback"

# ---- Equality ----

group "many ranks, equality"
works "one rank" $ranks one 1 $tiny -g 12 -o one
for kind in $kinds; do
    for n in 2 3 4; do
        works "$kind, $n ranks" $ranks $kind $n $tiny -g $((12 / n)) -o $kind$n --check-ranks 5
        holds "$kind, $n ranks: the losses of one" same_losses one $kind$n
        works "$kind, $n ranks with ZeRO" $ranks $kind $n $tiny -g $((12 / n)) -o zero_$kind$n --zero 1 --check-ranks 5
        holds "$kind, $n ranks with ZeRO: the losses of one" same_losses one zero_$kind$n
    done
    works "$kind again" $ranks $kind 3 $tiny -g 4 -o again_$kind
    holds "$kind again: the same bits" same_state again_$kind ${kind}3
done
[ -z "$mpi" ] || holds "two ranks by mpi and by tcp: the same bits" same_state mpi2 tcp2
holds "two ranks by tcp and by loopback: the same bits" same_state tcp2 loopback2
for kind in $kinds; do
    works "$kind, SGD with ZeRO" $ranks $kind 2 $tiny -g 2 --optimizer sgd --zero 1 -o sgd_$kind -x 4
done

group "many ranks, evaluation"
first=${mpi:-tcp}
works "evaluation on three ranks" $ranks $first 3 --model one --eval-only -i data/train.bin -j data/val.bin -b 2 -t 16 --eval-batches 0
three=$(sed -n 's/.*val loss \([0-9.]*\).*/\1/p' "$work/stdout")
works "evaluation on one" $ranks one 1 --model one --eval-only -i data/train.bin -j data/val.bin -b 2 -t 16 --eval-batches 0
holds "the same loss" [ "$three" = "$(sed -n 's/.*val loss \([0-9.]*\).*/\1/p' "$work/stdout")" ]

# ---- Checkpoints on another number of ranks ----

group "many ranks, resuming"
for zero in 0 1; do
    works "ten steps on four ranks, zero $zero" $ranks $first 4 $tiny -g 3 -x 10 -o saved$zero --zero $zero
    for n in 1 2 3 4 6; do
        copy saved$zero resumed
        case $n in 1) kind=one ;; 6) kind=loopback ;; *) kind=$first ;; esac
        works "resumed on $n" $ranks $kind $n --resume auto -x 20 -o resumed --log-every 1
        holds "resumed on $n, zero $zero: as if it had never stopped" same_losses one resumed
        if [ $n -eq 4 ] && [ $zero -eq 0 ]; then holds "resumed on 4: to the bit" same_state resumed ${first}4; fi
        if [ $n -eq 4 ] && [ $zero -eq 1 ]; then holds "resumed on 4, ZeRO: to the bit" same_state resumed zero_${first}4; fi
    done
    copy saved$zero resumed
    works "resumed with the other kind of optimizer memory" $ranks $first 2 --resume auto -x 20 -o resumed --log-every 1 --zero $((1 - zero))
    holds "as if it had never stopped" same_losses one resumed
done
copy saved0 resumed
works "resumed with another -g" $ranks $first 2 --resume auto -x 11 -o resumed -g 3
holds "says that steps are smaller now" grep -q "^note    steps have 192 tokens from here on; before, 384" "$work/stdout"
fails_once "a number of ranks that does not divide the step" "12 *ranks|do not divide among 5 ranks" $ranks tcp 5 --resume auto -o saved0 -x 20
works "which evaluates all the same" $ranks tcp 5 --eval-only --resume auto -o saved0
# same_tokens RUN STEP TOKENS: that step was as large.
same_tokens() { grep -q "\"step\": $2, \"tokens\": $3," "$1/log.jsonl"; }
works "steps that grow" $ranks tcp 2 $model -b 2 --batch-schedule 0:1,3:3 -x 4 -o growing --log-every 1
holds "a step of the schedule" same_tokens growing 4 192
copy growing resumed
works "steps that grow, resumed on one rank" $ranks one 1 --resume auto -o resumed -x 5 --log-every 1
holds "are as large as they were" same_tokens resumed 5 192
copy growing resumed
works "and on three, among which the first of them would not divide" $ranks loopback 3 --resume auto -o resumed -x 5 --log-every 1
holds "as large as they were" same_tokens resumed 5 192
copy growing resumed
works "resumed with --grad-accum" $ranks one 1 --resume auto -o resumed -x 5 --log-every 1 -g 5
holds "which counts now" same_tokens resumed 5 160
works "and later on with --total-batch" $ranks one 1 --resume auto -o resumed -x 6 --log-every 1 --total-batch 128
holds "which counts now" same_tokens resumed 6 128
works "and with --grad-accum again" $ranks one 1 --resume auto -o resumed -x 7 --log-every 1 -g 2
holds "which counts now" same_tokens resumed 7 64

# ---- Faults ----

# In milliseconds, since the program began.
random_below() { awk -v seed="$1" -v most="$2" 'BEGIN { srand(seed); printf "%d", rand() * most }'; }

group "many ranks, killed"
# The run goes on from whatever was saved; in the end it has the bits of one that nobody killed.
works "undisturbed" $ranks $first 2 $tiny -g 2 -x 200 --checkpoint-every 3 --eval-every 0 -o calm
long="$tiny -g 2 -x 200 --checkpoint-every 3 --eval-every 0 -o stormy"
rm -rf stormy
round=0
killed=0
survived=0
while [ $killed -lt "$rounds" ] && [ $round -lt $((3 * rounds)) ]; do
    round=$((round + 1))
    if [ -e stormy/last ]; then
        begin $ranks $first 2 --resume auto -o stormy -x 200
    else
        rm -rf stormy
        begin $ranks $first 2 $long
    fi
    victim=$((round % 2))
    wait_for pid_of $victim >/dev/null
    sleep "0.$(printf %03d "$(random_below $round 900)")"
    pid=$(pid_of $victim) && kill -9 "$pid" 2>/dev/null && killed=$((killed + 1))
    wait "$process"
    if [ $? -eq 0 ]; then   # it came to its end: from the start
        holds "round $round: to the bit as if nobody had been killed" same_state stormy calm
        rm -rf stormy
    fi
    process=
    tries=0
    while alive && [ $tries -lt 300 ]; do tries=$((tries + 1)) && sleep 0.1; done
    if alive; then
        fail "round $round" "a rank is left"
        pkill -9 -f "^$program"
    else survived=$((survived + 1))
    fi
done
echo "rounds: $round, in $killed of them a rank was killed, survived: $survived"
holds "so many kills" [ $killed -eq "$rounds" ]
holds "every round" [ $survived -eq $round ]
[ -e stormy/last ] || $ranks $first 2 $long >/dev/null
works "the rest" $ranks $first 2 --resume auto -o stormy -x 200
holds "to the bit as if nobody had been killed" same_state stormy calm
holds "nothing half-written is left" [ -z "$(ls -d stormy/.writing* 2>/dev/null)" ]

group "many ranks, one dies"
endless="$tiny -g 2 -x 100000 --eval-every 0 --checkpoint-every 0"
for kind in ${mpi} tcp; do
    for victim in 0 1 2; do
        begin $ranks $kind 3 $endless -o dying
        wait_for logged dying 3
        kill -9 "$(pid_of $victim)"
        ends "$kind, rank $victim killed" "rank $victim on [^ ]* "
        rm -rf dying dying.*
    done
    begin $ranks $kind 3 $endless -o hanging --comm-timeout 4
    wait_for logged hanging 3
    kill -STOP "$(pid_of 1)"
    ends "$kind, rank 1 hangs" "rank 1 on [^ ]* "
    rm -rf hanging hanging.*
done
for kind in $kinds; do fails_once "$kind: numbers that are not finite" "step [0-9]+: the loss is .*nan" $ranks $kind 2 $tiny -g 1 --lr 900 --optimizer sgd --grad-clip 0 --norm none -x 2000 -o nan; done

group "many ranks, told to stop"
for kind in ${mpi} tcp; do
    for signal in TERM USR1; do
        begin $ranks $kind 3 $tiny -g 2 -x 100000 --eval-every 0 --checkpoint-every 0 -o told
        wait_for logged told 3
        kill -$signal "$(pid_of 2)"
        ends "$kind: SIG$signal to one rank"
        holds "$kind: SIG$signal: exit status 130" [ $status -eq 130 ]
        stopped=$(sed -n 's/^interrupted: step \([0-9]*\) is saved.*/\1/p' "$work/stdout")
        holds "$kind: SIG$signal: one consistent checkpoint" [ "$(readlink told/last)" = "step_$(printf %08d "${stopped:-0}")" ]
        works "$kind: SIG$signal: resumed" $ranks $kind 3 --resume auto -o told -x $((${stopped:-0} + 3))
        works "$kind: SIG$signal: the same without stopping" $ranks $kind 3 $tiny -g 2 -x $((${stopped:-0} + 3)) --eval-every 0 -o straight
        holds "$kind: SIG$signal: the same bits" same_state told straight
        rm -rf told told.* straight straight.*
    done
done
port=$((20000 + $$ % 20000))
listening() { cat /proc/net/tcp /proc/net/tcp6 | grep -q ":$(printf %04X $port) 0*:0000 0A"; }
for signal in TERM USR1; do
    begin env RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port $program $tiny -o never
    wait_for listening
    kill -$signal $process
    ends "SIG$signal before there is anything to save"
    holds "SIG$signal before there is anything to save: exit status 130" [ $status -eq 130 ]
done
for signal in TERM HUP; do
    begin $program --gpus 2 --device cpu $endless -o parent
    wait_for logged parent 3
    kill -$signal $process
    ends "--gpus: SIG$signal to the one that started them"
    holds "--gpus: SIG$signal: exit status 130" [ $status -eq 130 ]
    holds "--gpus: SIG$signal: a checkpoint was written" [ -e parent/last ]
    rm -rf parent
done

group "many ranks, one is slow"
begin $ranks $first 2 $tiny -g 6 -o slow
for i in 1 2 3 4 5; do
    wait_for pid_of 1 >/dev/null
    pid=$(pid_of 1)
    kill -STOP $pid 2>/dev/null
    sleep 0.2
    kill -CONT $pid 2>/dev/null
    sleep 0.1
done
wait $process
holds "it ends well" [ $? -eq 0 ]
process=
holds "the same bits" same_state slow ${first}2

group "many ranks, full disk and damage"
mkdir -p small
if mount -t tmpfs -o size=1500k none small 2>/dev/null; then
    big="$tiny --n-embd 64 --n-head 4 -g 1 --eval-every 0"
    begin $ranks $first 2 $big -x 400 --checkpoint-every 20 -o small/run --keep 30
    wait_for grep -q "could not be written" "$work/stderr"
    holds "a full disk is reported while training goes on" kill -0 $process
    mount -o remount,size=64m small
    wait $process
    status=$?
    process=
    holds "and with room again it ends well" [ $status -eq 0 ]
    holds "with the last checkpoint" [ "$(readlink small/run/last)" = step_00000400 ]
    works "which can be resumed" $ranks $first 2 --resume auto -o small/run -x 401
    umount small
else
    echo "note: no small file system can be mounted here: the full disk was tried in checkpoint_writer_test alone"
fi
works "three checkpoints" $ranks $first 2 $tiny -g 2 -x 9 --checkpoint-every 3 --eval-every 0 --keep 5 -o damage
flip damage/step_00000009/optimizer.safetensors 5000
rm damage/step_00000006/state.json
run $ranks $first 4 --resume auto -g 1 -x 12 -o damage
holds "damaged ones are passed over" [ $status -eq 0 ]
holds "the one before them is taken" grep -q "resume.*step 3" "$work/stdout"
holds "both are named once" [ "$(grep -c 'checkpoint passed over' "$work/stderr")" -eq 2 ]

# ---- Bad input ----

group "many ranks, bad input"
for kind in ${mpi} tcp; do
    fails_once "$kind: a batch that does not divide" "--total-batch 100 is not a multiple of ranks x batch x seq-len = 96" $ranks $kind 3 $tiny --total-batch 100 -o bad
    fails_once "$kind: an unknown option" "unknown option '--bath'" $ranks $kind 3 $tiny --bath 3 -o bad
    works "$kind: --plan is printed once" $ranks $kind 2 $tiny --plan
    holds "$kind: --plan is printed once" [ "$(grep -c '^FLOPs per token ' "$work/stdout")" -eq 1 ]
done
# other COMMAND0 -- COMMAND1: ranks 0 and 1 with commands of their own.
cat >own/other <<END
export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 20000))
first=
while [ "\$1" != -- ]; do first="\$first \$1" && shift; done
shift
env RANK=1 LOCAL_RANK=1 "\$@" >/dev/null &
env RANK=0 LOCAL_RANK=0 \$first
result=\$?
wait \$!
exit \$result
END
other="sh own/other"
fails "processes for GPUs that are not there" "--gpus 2, but .*; say --device cpu" $program $tiny --gpus 2 -o bad
all_gone "processes for GPUs that are not there"
fails "--ranks by itself" "--ranks 2 is for --plan, and for --comm loopback" $program $tiny --ranks 2 -o bad
fails "spikes everywhere" "--skip-spikes is 0.5 standard deviations" $program $tiny --skip-spikes 0.5 -o bad
pair="$program $tiny -g 1 -x 2 -o pair --comm-timeout 20"
works "ranks as torchrun starts them" $other $pair -- $pair
fails_once "unequal options" "rank 1 on .*lr = " $other $pair -- $pair --lr 0.5
mkdir other
cp own/ranked_train_gpt other/ && printf x >>other/ranked_train_gpt
fails_once "unequal programs" "rank 1 on .* runs another " $other $pair -- "$work/here/other/ranked_train_gpt" $tiny -g 1 -x 2 -o pair --comm-timeout 20
mkdir elsewhere && ln -s "$work/here/own" elsewhere/own
fails_once "missing data on one rank" "rank 1 on .*data/train.bin" $other $pair -- sh -c "cd elsewhere && exec $pair"
mkdir -p shorter/data && cp data/* shorter/data/ && "$bin/tokenizer" chars --input text --out shorter/data --val-fraction 0.5 >/dev/null
fails_once "other data on one rank" "rank 1 on .*training data" $other $pair -- sh -c "cd shorter && exec $pair"
fails_once "nobody listens" "cannot reach rank 0 at 127.0.0.1:9" env RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=9 $program $tiny -o bad --comm-timeout 2
fails_once "nobody comes" "rank 1 has not come within" env RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 20000)) $program $tiny -o bad --comm-timeout 2
fails_once "a rank beyond the world" "RANK" env RANK=2 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=9 $program $tiny -o bad
fails_once "no master" "MASTER_ADDR" env -u MASTER_ADDR RANK=1 WORLD_SIZE=2 $program $tiny -o bad

# ---- The CUDA kernels ----

if [ -n "$emulated" ]; then
    group "many ranks, emulated CUDA"
    small="$model -b 1 -x 3 --warmup 2 --eval-every 0 --eval-batches 1 --log-every 1 --device emu --checkpoint-every 0"
    for dtype in fp32 bf16; do
        works "$dtype: one rank" $emulated $small -g 4 --dtype $dtype -o emu_one
        for zero in 0 1; do
            works "$dtype: two ranks, zero $zero" $emulated $small -g 2 --dtype $dtype -o emu_two$zero --comm loopback --ranks 2 --zero $zero --check-ranks 1
            works "$dtype: again" $emulated $small -g 2 --dtype $dtype -o emu_again --comm loopback --ranks 2 --zero $zero
            holds "$dtype: the same bits" same_state emu_two$zero emu_again
            rm -rf emu_again emu_again.*
        done
        rm -rf emu_one emu_one.* emu_two*
    done
fi

group
echo
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
