#!/bin/sh
# Trains on several machines where there is nothing but ssh: no Slurm (run_slurm.sh), no MPI. For one machine there is run_node.sh.
#
# Usage: sh scripts/run_ssh.sh HOSTS [options of train_gpt], as: sh scripts/run_ssh.sh node1:8,node2:8 -m gpt2-1558M ... -o /shared/out/1558M
# HOSTS is a list like that one, of names and ranks (one a GPU), or a file with a line a machine: its name, a blank, its ranks.
#
# ssh must log in everywhere without a password. The repository lies at the same path on every machine, built there or alike; data and --out are where
# every rank sees them. The other machines reach the first under its name here (without "user@"), at port MASTER_PORT (default: made of this
# process's number). NCCL_* and OMP_* variables are passed on.
# Ctrl-C, SIGTERM or SIGUSR1 to this script leads to a checkpoint and the end of all ranks; so does its own death. When a machine cannot be reached or
# its ranks fail, all others end.
set -u
program=${TRAIN_GPT:-./train_gpt}

fail() {
    echo "run_ssh.sh: $*" >&2
    exit 1
}

# As one word for a shell.
quote() { printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/"; }

# Lines of name and ranks.
machines_of() {
    if [ -f "$1" ]; then sed 's/#.*//' "$1"; else echo "$1" | tr ',:' '\n '; fi | awk 'NF'
}

# What runs on a machine: its ranks, and a reader that stops them when its input ends, so when this script says so or is gone. A rank that nobody
# listens to any more must not die of that.
# shellcheck disable=SC2016
remote='
first=$1 ranks=$2
cd "$3" || exit 1
shift 3
trap "" PIPE
exec 3<&0 </dev/null
all= index=0
while [ "$index" -lt "$ranks" ]; do
    RANK=$((first + index)) LOCAL_RANK=$index env "$@" 3<&- &
    all="$all $!" index=$((index + 1))
done
{ while read -r word <&3; do :; done; kill -s TERM $all; } >/dev/null 2>&1 &
reader=$!
worst=0
for rank in $all; do
    wait "$rank"
    status=$?
    if [ "$status" -gt "$worst" ]; then worst=$status; fi
done
{ kill "$reader"; wait "$reader"; } 2>/dev/null
exit "$worst"'

# run_machine NAME FIRST RANKS COMMAND...: by ssh, until its ranks have ended; then a line about it into the pipe `ended`.
run_machine() {
    name=$1 words="exec sh -c $(quote "$remote") ranks $2 $3 $(quote "$PWD")"
    shift 3
    for word in "$@"; do words="$words $(quote "$word")"; done
    ssh -o BatchMode=yes "$name" "$words"
    echo "$name $?" >&4
}

# The environment of every rank, a line a variable.
environment() {
    echo "WORLD_SIZE=$world"
    echo "MASTER_ADDR=$master"
    echo "MASTER_PORT=${MASTER_PORT:-$((20000 + $$ % 20000))}"
    env | grep -E '^(NCCL|OMP)_[A-Z_]+='
}

# The ranks' readers come to the end of their input.
stop() { exec 5>&-; }

case ${1-} in
    --help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 0 ;;
    '') fail "it names no machine; give a list, as node1:8,node2:8, or a file (--help)" ;;
esac
hosts=$1
shift
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
machines_of "$hosts" >"$work/machines"
wrong=$(awk 'NF != 2 || $2 !~ /^[1-9][0-9]*$/' "$work/machines" | head -n 1)
[ -z "$wrong" ] || fail "'$wrong' in HOSTS is not a machine and its number of ranks, as node1:8 or, in a file, node1 8"
[ -s "$work/machines" ] || fail "HOSTS '$hosts' names no machine"
world=$(awk '{ n += $2 } END { print n }' "$work/machines")
master=$(awk 'NR == 1 { sub(/.*@/, "", $1); print $1 }' "$work/machines")

# Pipes: 4 tells which machine has ended; 5 is written by nobody, and 6, its other end, is what every ssh reads: they see its end when this shell
# closes 5 or is gone. Both ends are open here before anybody starts, so that nobody waits for the other.
mkfifo "$work/stop" "$work/ended"
# shellcheck disable=SC2094
exec 4<>"$work/ended" 5<>"$work/stop" 6<"$work/stop"
trap stop INT TERM HUP USR1

environment >"$work/environment"
first=0 left=0
while read -r name ranks; do
    ( set -f
      IFS='
'
      # shellcheck disable=SC2046   # a word a line
      run_machine "$name" "$first" "$ranks" $(cat "$work/environment") "$program" "$@" ) <&6 5<&- 6<&- &
    first=$((first + ranks)) left=$((left + 1))
done <"$work/machines"

# 130 is what stopped ranks end with; the first failure tells most.
result=0 failed=
while [ "$left" -gt 0 ]; do
    read -r name status <&4 || continue
    left=$((left - 1))
    if [ "$status" -eq 130 ] && [ "$result" -eq 0 ]; then result=130; fi
    case $status in 0 | 130) continue ;; esac
    if [ -z "$failed" ]; then
        failed=$name result=$status
        why="a rank on $name ended with status $status"
        if [ "$status" -eq 255 ]; then why="ssh to $name failed"; fi
        if [ "$left" -gt 0 ]; then echo "run_ssh.sh: $why; the others end" >&2; else echo "run_ssh.sh: $why" >&2; fi
    fi
    stop
done
exit "$result"
