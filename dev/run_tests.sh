#!/bin/sh
# run_tests.sh BIN EMULATED TEST...: runs what `make test` built and adds up: the op and library tests named, then BIN/test_gpt against the PyTorch
# dumps, then the tests of command lines, of several ranks, and of recipes for these and for headline runs, with the programs in BIN and with EMULATED, a
# trainer that has the emulator, or ""; then that of measuring llm.c. Ends with one line, "N passed, N failed".
bin=$1
emulated=$2
shift 2
passed=0
failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# Threads that spin would starve each other where other programs run too.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

for test in "$@"; do
    "$test" >"$output" 2>&1
    status=$?
    p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test(s).*/\1/p' "$output" | tail -1)
    f=$(sed -n 's/^\[  FAILED  \] [^:]*: \([0-9]*\) test(s).*/\1/p' "$output" | tail -1)
    p=${p:-0}
    f=${f:-0}
    # A crash, or a test that never ran, is a failure too.
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ] || [ "$p" -eq 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    passed=$((passed + p))
    failed=$((failed + f))
    echo "$(basename "$test"): $p passed, $f failed"
    if [ "$f" -ne 0 ]; then sed 's/^/    /' "$output"; fi
done

for test in "$bin/test_gpt" "sh dev/cli_test.sh $bin $emulated" "sh dev/ranks_test.sh $bin $emulated" "sh dev/recipes_test.sh $bin" \
    "sh dev/headline_test.sh $bin" "sh dev/bench_llmc_test.sh"; do
    $test >"$output" 2>&1
    status=$?
    cat "$output"
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p' "$output" | tail -1)
    p=${counts% *}
    f=${counts#* }
    if [ -z "$counts" ] || { [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; }; then p=${p:-0}; f=1; fi
    passed=$((passed + p))
    failed=$((failed + f))
done

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
