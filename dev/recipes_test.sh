#!/bin/sh
# Tests of scripts/run_node.sh, run_slurm.sh and run_ssh.sh without a GPU, a cluster or a second machine: sh dev/recipes_test.sh BIN, where BIN holds
# train_gpt and tokenizer. Stand-ins for nvidia-smi, scontrol, srun and ssh are first on the PATH; a stand-in for the program writes down how each
# rank was started. At the end two real ranks train by way of run_ssh.sh. Prints failures, a line a group, and last "N passed, N failed".
# shellcheck disable=SC2016,SC2086   # what is not expanded shall not be; $slurm and $two are commands with their arguments
LC_ALL=C
OMP_NUM_THREADS=1
OMP_WAIT_POLICY=passive
export LC_ALL OMP_NUM_THREADS OMP_WAIT_POLICY

bin=$(cd "${1:?usage: recipes_test.sh BIN}" && pwd) || exit 1
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d) || exit 1
process=
clean() {
    [ -n "$process" ] && kill -9 "$process" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/here" "$work/stand-ins" && cd "$work/here" || exit 1
ln -s "$bin" bin
ln -s "$root/scripts" scripts

# shellcheck source=dev/shell_test.sh
. "$root/dev/shell_test.sh"

# ---- Stand-ins ----

# stand_in NAME: the script comes on stdin.
stand_in() {
    { echo '#!/bin/sh'; cat; } >"$work/stand-ins/$1"
    chmod +x "$work/stand-ins/$1"
}

stand_in nvidia-smi <<'SCRIPT'
[ -z "$NO_GPU" ] || exit 9
printf 'GPU %s: NVIDIA H100 (UUID: GPU-%s)\n' 0 a 1 b 2 c
SCRIPT

stand_in scontrol <<'SCRIPT'
echo "$*" >>scontrol.txt
case $1 in show) printf 'node-a\nnode-b\n' ;; esac
SCRIPT

# A signal to srun goes to the tasks; here srun becomes the task.
stand_in srun <<'SCRIPT'
while :; do case $1 in --*) shift ;; *) break ;; esac; done
RANK=0 exec "$@"
SCRIPT

# Logs in nowhere; a login shell gets the words. Nobody answers on the machine "down".
stand_in ssh <<'SCRIPT'
shift 2
[ "$1" != down ] || exit 255
shift
exec sh -c "$*"
SCRIPT

# Writes down how it was started, in rank.N, and does what `behave` says; with "fail" rank 1 fails while two others wait.
stand_in program <<'SCRIPT'
{
    echo "rank $RANK of $WORLD_SIZE, $LOCAL_RANK here, at $MASTER_ADDR $MASTER_PORT"
    for argument in "$@"; do echo "[$argument]"; done
} >"rank.$RANK.new"
saved() {
    echo "$1" >"signal.$RANK"
    [ "$(cat behave)" != spoil ] || exit 1
    mkdir -p out/step_00000003 && : >out/step_00000003/state.json
    exit 130
}
wait_for_a_signal() {
    trap 'saved USR1' USR1
    trap 'saved TERM' TERM
    mv "rank.$RANK.new" "rank.$RANK"
    for _ in $(seq 1200); do sleep 0.05; done
    exit 7
}
case $(cat behave) in
    wait | spoil) wait_for_a_signal ;;
    fail) [ "$RANK" = 1 ] || wait_for_a_signal; until [ -e rank.0 ] && [ -e rank.2 ]; do sleep 0.05; done; exit 3 ;;
    error) exit 3 ;;
esac
mv "rank.$RANK.new" "rank.$RANK"
SCRIPT

PATH=$work/stand-ins:$PATH
TRAIN_GPT=$work/stand-ins/program
export PATH TRAIN_GPT

# behave HOW: what ranks do from now on; forgets what they did.
behave() {
    rm -rf rank.* signal.* out scontrol.txt
    echo "$1" >behave
}
line_is() { holds "$1" [ "$(sed -n "${2}p" "$3")" = "$4" ]; }

# ---- One machine ----

group "run_node.sh"
behave end
works "all GPUs" sh scripts/run_node.sh -m gpt2-124M --out "my run"
line_is "counts the GPUs" '2,3' rank. "$(printf '[--gpus]\n[3]')"
line_is "passes options on" '4,$' rank. "$(printf '[-m]\n[gpt2-124M]\n[--out]\n[my run]')"
works "some GPUs" env CUDA_VISIBLE_DEVICES=0,2 sh scripts/run_node.sh
line_is "counts the visible GPUs" '2,3' rank. "$(printf '[--gpus]\n[2]')"
fails "no GPU" "lists no GPU; on the CPU use mpirun" env NO_GPU=1 sh scripts/run_node.sh
fails "no program" "run 'make train_gpt'" env TRAIN_GPT=./absent sh scripts/run_node.sh
works "its help" sh scripts/run_node.sh --help
says "help says when to use it" "one machine is enough"

# A trainer that does at each start what the next line of `fate` says.
stand_in trainer <<'SCRIPT'
echo "$*" >>starts.txt
what=$(sed -n "$(wc -l <starts.txt)p" fate)
[ "$what" != refuses ] || exit 1
mkdir -p out
echo "a start" >>out/run.json
echo '{"step": 1}' >>out/log.jsonl
case $what in
    crashes) exit 137 ;;
    saves*) mkdir -p "out/step_${what#saves }" && : >"out/step_${what#saves }/state.json" && exit 137 ;;
    diverges) echo '  "end": {"status": "diverged", "step": 9' >>out/run.json && exit 1 ;;
    stops) exit 130 ;;
    waits) trap 'exit 1' TERM; for _ in $(seq 1200); do /bin/sleep 0.05; done ;;
esac
SCRIPT
mkdir "$work/no-pauses"
cat >"$work/no-pauses/sleep" <<'SCRIPT'
#!/bin/sh
echo "$1" >>pauses.txt
SCRIPT
chmod +x "$work/no-pauses/sleep"
# fated NAME STATUS STARTS PAUSES FATE OPTION...: run_node.sh with a trainer of that fate, its lines separated by commas, ends so.
fated() {
    title=$1 expected=$2 starts=$3 pauses=$4
    rm -rf out starts.txt pauses.txt
    : >pauses.txt
    echo "$5" | tr ',' '\n' >fate
    shift 5
    run env TRAIN_GPT="$work/stand-ins/trainer" PATH="$work/no-pauses:$PATH" sh scripts/run_node.sh -m gpt2-124M "$@"
    holds "$title: status" [ "$status" -eq "$expected" ]
    holds "$title: starts" [ "$(wc -l <starts.txt)" -eq "$starts" ]
    holds "$title: pauses" [ "$(tr '\n' ' ' <pauses.txt)" = "$pauses" ]
}
group "run_node.sh, failures"
fated "done" 0 1 "" ends
fated "never a first step" 1 1 "" refuses
fated "a crash before a checkpoint" 0 2 "10 " crashes,ends
line_is "a crash before a checkpoint: once more from the beginning" 2 starts.txt "--gpus 3 -m gpt2-124M"
holds "a crash before a checkpoint: one sentence" [ "$(cat "$work/stderr")" = "run_node.sh: training ended with status 137; in 10 s it goes on from its \
beginning (failure 1 of the 3 in a row that --restarts allows; Ctrl-C ends it)" ]
fated "a crash after a checkpoint" 0 2 "10 " "saves 00000100,ends"
line_is "a crash after a checkpoint: from there" 2 starts.txt "--gpus 3 -m gpt2-124M --resume auto"
holds "a crash after a checkpoint: says so" grep -q 'goes on from step_00000100 ' "$work/stderr"
fated "too many crashes" 137 4 "10 20 40 " "saves 00000100,crashes,crashes,crashes,ends"
holds "too many crashes: says so" grep -q 'has failed 4 times in a row without a new checkpoint, and is not started again (--restarts 3)' "$work/stderr"
fated "crashes with progress" 0 6 "10 20 10 20 40 " "saves 00000100,crashes,saves 00000200,crashes,crashes,ends"
fated "a start that fails after one that did not" 0 3 "10 20 " crashes,refuses,ends
fated "divergence" 1 1 "" diverges,ends
fated "divergence later" 1 2 "10 " "saves 00000100,diverges,ends"
fated "stopped" 130 1 "" stops,ends
fated "no restarts" 137 1 "" crashes,ends --restarts 0
holds "no restarts: no words" [ ! -s "$work/stderr" ]
fated "one restart" 137 2 "10 " crashes,crashes,ends --restarts=1
mkdir -p mine && echo 'out = mine/run   # here' >mine/options
fated "a directory in a file of options" 137 1 "" crashes,ends --config mine/options   # where this trainer has written nothing
fails "no number of restarts" "--restarts 'often' is no number of times" sh scripts/run_node.sh --restarts often
fails "restarts without a number" "--restarts '' is no number of times" sh scripts/run_node.sh --restarts
rm -rf out starts.txt && echo waits >fate
TRAIN_GPT=$work/stand-ins/trainer sh scripts/run_node.sh >"$work/stdout" 2>"$work/stderr" &
process=$!
holds "asked to end: starts" wait_for [ -s out/log.jsonl ]
kill -s TERM "$process"
wait "$process"
status=$?
process=
holds "asked to end: as the trainer does, and once" [ "$status" -eq 1 -a "$(wc -l <starts.txt)" -eq 1 ]
rm -rf out

# ---- Slurm ----

group "run_slurm.sh"
slurm="env SLURM_JOB_ID=123456 SLURM_JOB_NODELIST=node-[a-b] SLURM_CPUS_PER_TASK=4"
in_job() { works "$1" $slurm sh scripts/run_slurm.sh -m gpt2-124M "a b"; }
# job_gets NAME SIGNAL: the job's script is sent a signal once its ranks run; its exit status.
job_gets() {
    $slurm sh scripts/run_slurm.sh >"$work/stdout" 2>"$work/stderr" &
    process=$!
    holds "$1: starts" wait_for [ -e rank.0 ]
    kill -s "$2" "$process"
    wait "$process"
    status=$?
    process=
    line_is "$1: the ranks hear of it" 1 signal.0 "$2"
}
behave end
fails "not a job" "start it with sbatch" sh scripts/run_slurm.sh
in_job "a job"
line_is "the first of its hosts, a port made of its number" 1 rank.0 "rank 0 of ,  here, at node-a 23456"
line_is "options as they were, and nothing to resume from" '2,$' rank.0 "$(printf '[-m]\n[gpt2-124M]\n[a b]')"
holds "a job that is done does not come back" [ -z "$(grep requeue scontrol.txt)" ]

behave wait
job_gets "time is nearly up" USR1
holds "time is nearly up: a good end" [ "$status" -eq 0 ]
line_is "time is nearly up: back into the queue" '$' scontrol.txt "requeue 123456"
echo end >behave
slurm="$slurm SLURM_RESTART_COUNT=1"
in_job "a job that came back"
line_is "goes on from its checkpoint" '$' rank.0 "[auto]"
behave end
in_job "a job that came back before its first checkpoint"
line_is "begins" '$' rank.0 "[a b]"
# came_back NAME DIRECTORY OPTION...: a job that came back finds its checkpoint in that directory, and goes on from it.
came_back() {
    title=$1 directory=$2
    shift 2
    behave end
    mkdir -p "$directory/step_00000003" && : >"$directory/step_00000003/state.json"
    works "$title" $slurm sh scripts/run_slurm.sh -m gpt2-124M "$@"
    line_is "$title: goes on" '$' rank.0 "[auto]"
    rm -r "$directory"
    behave end
    works "$title, without a checkpoint" $slurm sh scripts/run_slurm.sh -m gpt2-124M "$@"
    line_is "$title: begins" '$' rank.0 "$(for last; do :; done; echo "[$last]")"
}
came_back "--out D" "my run" --out "my run"
came_back "--out=D" runs/a --out=runs/a
came_back "-o D, the last counts" runs/b -o runs/a -o runs/b
came_back "-oD" runs/a -oruns/a
came_back "-o=D/" runs/a -o=runs/a/
printf '\357\273\277out = runs/a # here\r\n' >options
came_back "in a file of options" runs/a --config options
printf 'lr = 1\n  out="runs/#1 a"   # there\n' >options
came_back "in quotes there" "runs/#1 a" --config=options
came_back "the command line before the file" runs/b --config options -oruns/b

behave spoil
job_gets "time is nearly up, but nothing can be saved" USR1
holds "nothing saved: its status" [ "$status" -eq 1 ]
holds "nothing saved: does not come back" [ -z "$(grep requeue scontrol.txt)" ]
behave wait
job_gets "cancelled" TERM
holds "cancelled: its status" [ "$status" -eq 130 ]
holds "cancelled: does not come back" [ -z "$(grep requeue scontrol.txt)" ]
behave error
run $slurm sh scripts/run_slurm.sh
holds "an error: its status" [ "$status" -eq 3 ]
holds "an error: does not come back" [ -z "$(grep requeue scontrol.txt)" ]

# ---- ssh ----

group "run_ssh.sh"
behave end
works "three ranks on two machines" env MASTER_PORT=29999 sh scripts/run_ssh.sh me@alpha:2,beta:1 "it's" 'a  "b" $c*' ''
line_is "rank 0" 1 rank.0 "rank 0 of 3, 0 here, at alpha 29999"
line_is "rank 1" 1 rank.1 "rank 1 of 3, 1 here, at alpha 29999"
line_is "rank 2" 1 rank.2 "rank 2 of 3, 0 here, at alpha 29999"
line_is "arguments come whole" '2,$' rank.2 "$(printf '%s\n' "[it's]" '[a  "b" $c*]' '[]')"
behave end
printf '# our machines\nalpha 1\n\nbeta 2   # a small one\n' >machines
works "machines in a file" sh scripts/run_ssh.sh machines
holds "three of them" [ "$(cat rank.? | cut -c 1-24 | tr '\n' ';')" = "rank 0 of 3, 0 here, at ;rank 1 of 3, 0 here, at ;rank 2 of 3, 1 here, at ;" ]
fails "no number of ranks" "'alpha' in HOSTS" sh scripts/run_ssh.sh alpha,beta:2
fails "no machines" "names no machine" sh scripts/run_ssh.sh ''

behave fail
run sh scripts/run_ssh.sh alpha:1,beta:1,gamma:1
holds "a rank fails: its status" [ "$status" -eq 3 ]
holds "a rank fails: it is said where" grep -q 'a rank on beta ended with status 3; the others end' "$work/stderr"
line_is "a rank fails: the first is stopped" 1 signal.0 TERM
line_is "a rank fails: the last is stopped" 1 signal.2 TERM
behave wait
run sh scripts/run_ssh.sh alpha:1,down:1
holds "a machine does not answer: its status" [ "$status" -eq 255 ]
holds "a machine does not answer: which" grep -q 'ssh to down failed' "$work/stderr"

# stopped_by NAME SIGNAL: to the script, once its two ranks run.
stopped_by() {
    behave wait
    sh scripts/run_ssh.sh alpha:1,beta:1 >"$work/stdout" 2>"$work/stderr" &
    process=$!
    holds "$1: starts" wait_for test -e rank.0 -a -e rank.1
    kill -s "$2" "$process"
    wait "$process" 2>/dev/null
    status=$?
    process=$$
    holds "$1: ends the first rank" wait_for [ -e signal.0 ]
    holds "$1: ends the last rank" wait_for [ -e signal.1 ]
    process=
}
stopped_by "stopped" TERM
holds "stopped: the ranks' status" [ "$status" -eq 130 ]
stopped_by "its sudden death" KILL

# ---- Two ranks that train ----

group "two ranks"
unset TRAIN_GPT
write_text text
bin/tokenizer chars --input text --out data >/dev/null
ln -s bin/train_gpt train_gpt
two="sh scripts/run_ssh.sh localhost:1,localhost:1 --device cpu --comm tcp -i data/train.bin -j data/val.bin --n-layer 2 --n-head 2 --n-embd 32 \
-t 16 -b 2 -g 1 --warmup 5 --eval-batches 4 --no-curve --sample-tokens 0"
works "train" $two -x 20 -o trained
says "over tcp" "^ranks +2 over tcp"
holds "to the end" [ -d trained/step_00000020 ]
$two -x 1000000 -o stopped >"$work/stdout" 2>"$work/stderr" &
process=$!
holds "a long run starts" wait_for grep -q '"step": 1,' stopped/log.jsonl
kill -s TERM "$process"
wait "$process"
status=$?
process=
holds "stopped, it ends with 130" [ "$status" -eq 130 ]
says "and says what it saved" "^interrupted: step [0-9]+ is saved"
last=$(basename "$(readlink stopped/last)" | sed 's/step_0*//')
works "and goes on" $two --resume auto -o stopped -x $((${last:-0} + 3))
says "from there" "^resume +stopped/step_0*$last: step $last"

group ""
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
