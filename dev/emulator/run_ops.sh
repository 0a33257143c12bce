#!/bin/sh
# run_ops.sh ORDER TEST...: runs op tests on the backend emu alone, with threads in that order, and adds up.
order=$1
shift
passed=0
failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
export TEST_BACKENDS=emu EMU_ORDER="$order" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
for test in "$@"; do
    timeout 900 "$test" >"$output" 2>&1
    status=$?
    p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test(s).*/\1/p' "$output" | tail -1)
    if [ $status -eq 0 ] && [ "${p:-0}" -gt 0 ]; then passed=$((passed + p))
    else
        failed=$((failed + 1))
        sed 's/^/    /' "$output"
    fi
    echo "$(basename "$test") $order: ${p:-0} passed, status $status"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
