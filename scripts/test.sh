#!/bin/sh
# Installs what the tests need (on Debian and Ubuntu), builds everything, and runs all tests without a GPU: op tests, model parity with
# PyTorch, equality and command-line tests; then the same ops and library under AddressSanitizer and UBSan, a build with clang, the
# portable build without oneDNN, and each fuzz target for FUZZ_SECONDS (60 in CI, 5 otherwise). Ends with "N passed, N failed".
set -eu
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)

missing=""
need() {   # need PROGRAM-OR-HEADER PACKAGE
    case $1 in
        *.h) for root in /usr/include /usr/local/include; do [ -e "$root/$1" ] && return 0; done ;;
        *) command -v "$1" >/dev/null 2>&1 && return 0 ;;
    esac
    missing="$missing $2"
}
need make make
need gcc gcc
need clang clang
need cmocka.h libcmocka-dev
need oneapi/dnnl/dnnl.h libdnnl-dev
need python3 python3
if command -v clang >/dev/null 2>&1; then
    [ -e "$(clang -print-resource-dir 2>/dev/null)/lib/linux/libclang_rt.fuzzer-$(uname -m).a" ] || missing="$missing libclang-rt-dev"
    printf '#include <omp.h>\n' | clang -fopenmp -E - >/dev/null 2>&1 || missing="$missing libomp-dev"
else
    missing="$missing libclang-rt-dev libomp-dev"
fi
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "test.sh: please install:$missing" >&2
        exit 1
    fi
    echo "== installing:$missing"
    if ! { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing libc6-dev g++; }; then
        echo "test.sh: the installation failed; please run: apt-get install$missing" >&2
        exit 1
    fi
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "== folder rules"
make -s check
echo "== build with gcc, no warnings"
make -s -j"$jobs" WERROR=1 all tests
echo "== tests"
status=0
make -s test >"$log" 2>&1 || status=1
cat "$log"
summary=$(tail -1 "$log")
passed=${summary%% passed*}
failed=$(echo "$summary" | sed 's/.* passed, \([0-9]*\) failed/\1/')

stage() {   # stage NAME COMMAND...: counts as one test
    name=$1
    shift
    echo "== $name"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        tail -1 "$log"
    else
        failed=$((failed + 1))
        status=1
        tail -40 "$log"
        echo "FAILED: $name"
    fi
}
run_each() { for t in "$@"; do "$t" || return 1; done; }
sanitized() {
    make -s -j"$jobs" CUDA=0 NO_DATA=1 WERROR=1 SANITIZE=address,undefined CFLAGS="-O1 -g" BUILD=build/asan BIN=build/asan tests test_gpt &&
        run_each build/asan/*/*_test && build/asan/test_gpt dev/reference/odd.safetensors dev/reference/gqa.safetensors
}
with_clang() { make -s -j"$jobs" CUDA=0 NO_DATA=1 WERROR=1 CC=clang BUILD=build/clang BIN=build/clang all tests && run_each build/clang/kernels/*_test build/clang/test_gpt; }
portable() {
    make -s -j"$jobs" CUDA=0 NO_DATA=1 WERROR=1 ONEDNN=0 ARCH= BUILD=build/portable BIN=build/portable all tests &&
        run_each build/portable/kernels/*_test && build/portable/test_gpt dev/reference/learned.safetensors
}
seconds=${FUZZ_SECONDS:-5}
[ -n "${CI:-}" ] && seconds=${FUZZ_SECONDS:-60}
stage "AddressSanitizer and UBSan" sanitized
stage "clang, no warnings" with_clang
stage "without oneDNN, for any CPU" portable
stage "fuzzing, $seconds s a target" sh dev/fuzz/run.sh "$seconds"

echo
echo "$passed passed, $failed failed"
exit $status
