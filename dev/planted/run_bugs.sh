#!/bin/sh
# run_bugs.sh DIRECTORY [--table]: runs every kernel of bugs.cu under every build in the directory, and compares who catches it with
# expected.txt. A bug that it says is caught and that is now missed fails; so does a right kernel that is blamed. --table prints it anew.
# Verdicts: silent, wrong (answer), emulator, race, sanitizer, crash, hang. All but silent catch the bug.
bin=$1
here=$(dirname "$0")
output=$(mktemp)
trap 'rm -f "$output"' EXIT
export ASAN_OPTIONS=detect_leaks=0 OMP_WAIT_POLICY=passive

verdict() {   # verdict PROGRAM CASE ORDER
    EMU_ORDER=$3 timeout 60 "$bin/$1" "$2" >"$output" 2>&1
    status=$?
    if [ $status -eq 0 ]; then echo silent
    elif [ $status -eq 3 ]; then echo wrong
    elif [ $status -eq 124 ]; then echo hang
    elif grep -q '^race:' "$output"; then echo race
    elif grep -q '^emulator:' "$output"; then echo emulator
    elif grep -qE 'runtime error|AddressSanitizer' "$output"; then echo sanitizer
    else echo crash
    fi
}
row() {   # row CASE
    printf '%-28s %-9s %-9s %-9s %-9s %-10s %s\n' "$1" "$(verdict bugs "$1" fwd)" "$(verdict bugs "$1" rev)" "$(verdict bugs "$1" rand:7)" \
        "$(verdict bugs "$1" prio:7)" "$(verdict bugs_asan "$1" fwd)" "$(verdict bugs_race "$1" fwd)"
}

if [ "$2" = --table ]; then
    printf '%-28s %-9s %-9s %-9s %-9s %-10s %s\n' '# kernel' fwd rev rand prio asan race
    for name in $("$bin/bugs"); do row "$name"; done
    exit
fi
passed=0
failed=0
for name in $("$bin/bugs"); do
    now=$(row "$name")
    expected=$(grep "^$name " "$here/expected.txt")
    # 1 if a column that was not silent is now, or if a right kernel is blamed, or if the table lacks the row.
    worse=$(printf '%s\n%s\n' "$expected" "$now" | awk 'NR == 1 { n = split($0, was) }
        NR == 2 {
            bad = n != NF
            for (i = 2; i <= NF; i++) if (was[i] != "silent" && $i == "silent" || $1 ~ /^right/ && $i != "silent") bad = 1
            print bad + 0
        }')
    if [ "$worse" -eq 0 ]; then passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'expected %s\nfound    %s\n' "$expected" "$now"
    fi
done 2>/dev/null
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
