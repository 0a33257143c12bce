# shell_test.sh: what the tests of command lines share; they source it, in a directory of their own, with $work a directory beside it and
# $process the pid of what runs in the background, or empty. They print failures, a line a group, and last "N passed, N failed".
# shellcheck disable=SC2154   # work, process

passed=0
failed=0
group_name=
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED: $1: $2"
    [ -s "$work/stderr" ] && sed 's/^/    /' "$work/stderr" | head -5
}
# group NAME: ends the group before with its summary.
group() {
    [ -n "$group_name" ] && echo "command line, $group_name: $((passed - group_passed)) passed, $((failed - group_failed)) failed"
    group_name=$1
    group_passed=$passed
    group_failed=$failed
}

# run COMMAND...: its status in $status, its words in $work/stdout and $work/stderr; $work/stamp is from just before.
run() {
    touch "$work/stamp"
    timeout 120 "$@" >"$work/stdout" 2>"$work/stderr"
    status=$?
}
# holds NAME COMMAND...: the command succeeds.
holds() {
    name=$1
    shift
    if "$@" >"$work/why" 2>&1; then pass; else fail "$name" "not so: $(echo "$* $(cat "$work/why")" | tr '\n' ' ' | cut -c 1-300)"; fi
}
# works NAME COMMAND...: exit status 0, and no complaint.
works() {
    name=$1
    shift
    run "$@"
    if [ "$status" -ne 0 ]; then fail "$name" "exit status $status"
    elif [ -s "$work/stderr" ]; then fail "$name" "words on stderr"
    else pass
    fi
}
# says NAME REGEX: so did the last command on stdout.
says() { holds "$1" grep -Eq -e "$2" "$work/stdout"; }
# untouched NAME: the last command changed no file here.
untouched() { holds "$1" [ -z "$(find . -newer "$work/stamp")" ]; }
# fails NAME REGEX COMMAND...: exit status 1 and one line on stderr, which matches.
fails() {
    name=$1
    pattern=$2
    shift 2
    run "$@"
    if [ "$status" -ne 1 ]; then fail "$name" "exit status $status, not 1"
    elif [ "$(wc -l <"$work/stderr")" -ne 1 ]; then fail "$name" "$(wc -l <"$work/stderr") lines on stderr, not 1"
    elif ! grep -Eq -e "$pattern" "$work/stderr"; then fail "$name" "the sentence does not match '$pattern'"
    else pass
    fi
}
# refuses NAME REGEX COMMAND...: fails, before any file here is changed.
refuses() {
    before=$failed
    fails "$@"
    touched=$(find . -newer "$work/stamp")
    if [ "$failed" -eq "$before" ] && [ -n "$touched" ]; then
        passed=$((passed - 1))
        fail "$1" "something was written: $touched"
    fi
}
# wait_for COMMAND...: until it succeeds; gives up after half a minute, or when $process has ended.
wait_for() {
    tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] && kill -0 "$process" 2>/dev/null || return 1
        sleep 0.01
    done
}

# put FILE OFFSET BYTE: writes one byte, given in decimal.
put() { printf "\\$(printf %03o "$3")" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
# flip FILE OFFSET: changes the lowest bit of a byte.
flip() { put "$1" "$2" $(($(od -An -tu1 -j "$2" -N 1 "$1") ^ 1)); }
size() { wc -c <"$1"; }
# copy FROM TO: a fresh copy of a directory.
copy() { rm -rf "$2" && mkdir -p "$2" && cp -R "$1/." "$2"; }
# same_state RUN RUN: the newest checkpoints hold the same bits.
same_state() {
    for file in model optimizer; do cmp "$1/last/$file.safetensors" "$2/last/$file.safetensors" || return 1; done
}
# timeless RUN: its log without what a clock measured.
timeless() { sed -E 's/, "(tokens_per_s|mfu|ms|elapsed_s)": [^,}]*//g' "$1/log.jsonl"; }
same_log() { timeless "$1" >"$work/log1" && timeless "$2" >"$work/log2" && [ -s "$work/log1" ] && cmp "$work/log1" "$work/log2"; }
# losses_agree RUN RUN: the same steps, losses equal to 1e-4.
losses_agree() {
    for log in "$1" "$2"; do sed -E 's/.*"step": ([0-9]+).*"loss": ([0-9.e-]+),.*/\1 \2/' "$log/log.jsonl"; done |
        awk '$1 in loss { n++; d = ($2 - loss[$1]) / $2; if (!(d < 1e-4 && d > -1e-4)) bad = 1 }
             { loss[$1] = $2 }
             END { exit bad || n != 20 }'
}

# write_text FILE: words in an order that is always the same.
write_text() {
    awk 'BEGIN { split("the sea and a ship of old men went out, but no wind came. Where is it? Home again; so they slept!", word, " ")
                 for (x = 1; n < 9000; n++) {
                     x = (x * 16807) % 2147483647
                     printf "%s%s", word[x % 21 + 1], n % 11 == 10 ? "\n" : " "
                 } }' >"$1"
}
