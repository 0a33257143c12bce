#!/bin/sh
# Installs what the tests need (on Debian and Ubuntu), builds everything, and runs all tests without a GPU: op tests, model parity with
# PyTorch, equality and command-line tests, on the CPU and on the CUDA kernels in the emulator; the scripts; then the same ops and library under
# AddressSanitizer and UBSan, what has threads of its own under ThreadSanitizer, a build with clang, the portable build without oneDNN, the
# emulator's own checks of the kernels, their compilation by nvcc where there is one, and each fuzz target for FUZZ_SECONDS (60 in CI, 5
# otherwise). Ends with "N passed, N failed".
set -eu
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive   # threads that spin would starve each other where other programs run too
jobs=$(nproc 2>/dev/null || echo 2)

missing="" optional=""
need() {   # need PROGRAM-OR-HEADER PACKAGE
    case $1 in
        *.h) for root in /usr/include /usr/local/include; do if [ -e "$root/$1" ]; then return 0; fi; done ;;
        *) if command -v "$1" >/dev/null 2>&1; then return 0; fi ;;
    esac
    missing="$missing $2"
}
need make make
need gcc "gcc libc6-dev"
need g++ g++
need clang clang
need cmocka.h libcmocka-dev
need oneapi/dnnl/dnnl.h libdnnl-dev
need pcre2.h libpcre2-dev
need utf8proc.h libutf8proc-dev
need mpicc libopenmpi-dev
need mpirun openmpi-bin
need python3 python3
python_has() { python3 -c "import $1" 2>/dev/null || /usr/bin/python3 -c "import $1" 2>/dev/null; }
python_has matplotlib || optional="$optional python3-matplotlib"
python3 -c 'import ensurepip' 2>/dev/null || optional="$optional python3-venv"
clang_has() { printf "$1" | clang -x c - "$2" -o /dev/null >/dev/null 2>&1; }
clang_has '#include <omp.h>\nint main(void) { return omp_get_max_threads() == 0; }' -fopenmp || optional="$optional libomp-dev"
clang_has '#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *d, size_t n) { return d == NULL && n; }' -fsanitize=fuzzer ||
    optional="$optional libclang-rt-dev"
if [ -n "$missing$optional" ]; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "test.sh: please install:$missing$optional" >&2
        exit 1
    fi
    install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
    echo "== installing:$missing$optional"
    $sudo apt-get update || echo "test.sh: the package lists could not be brought up to date; going on with the old ones"
    # shellcheck disable=SC2086
    if [ -n "$missing" ] && ! install $missing; then
        echo "test.sh: the installation failed; please run as root: apt-get install$missing" >&2
        exit 1
    fi
    for package in $optional; do install "$package" || echo "test.sh: no package $package here; its tests do less"; done
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
summary=$(grep "^[0-9]* passed, [0-9]* failed$" "$log" | tail -1)   # of what make test added up; nothing if it broke off
summary=${summary:-0 passed, 1 failed}
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
# The emulator's own checks are in the stages below; of the sanitized tests only the ops run on it, the whole model is too slow.
sanitized() {
    make -s -j"$jobs" CUDA=0 NO_DATA=1 SANITIZE=address,undefined CFLAGS="-O1 -g" BUILD=build/asan BIN=build/asan tests test_gpt &&
        run_each build/asan/kernels/*_test && TEST_BACKENDS=cpu run_each build/asan/llmc/*_test &&
        build/asan/test_gpt --device cpu dev/reference/odd.safetensors dev/reference/gqa.safetensors
}
# What has threads of its own; those of OpenMP would be false alarms.
threads() {
    make -s -j"$jobs" CUDA=0 NO_DATA=1 EMU=0 SANITIZE=thread CFLAGS="-O1 -g" BUILD=build/tsan BIN=build/tsan \
        $(for t in team rendezvous comm comm_tcp checkpoint_writer; do echo "build/tsan/llmc/${t}_test"; done) &&
        OMP_NUM_THREADS=1 run_each build/tsan/llmc/*_test
}
with_clang() { make -s -j"$jobs" CUDA=0 NO_DATA=1 WERROR=1 EMU=0 CC=clang BUILD=build/clang BIN=build/clang all tests && run_each build/clang/kernels/*_test &&
        build/clang/test_gpt --device cpu; }
portable() {
    make -s -j"$jobs" CUDA=0 NO_DATA=1 WERROR=1 EMU=0 ONEDNN=0 ARCH= BUILD=build/portable BIN=build/portable all tests &&
        run_each build/portable/kernels/*_test && build/portable/test_gpt dev/reference/learned.safetensors
}
datasets() {
    python3 -m unittest discover -s data -p '*_test.py' || return 1
    python3 -c 'import pyarrow' 2>/dev/null || echo "OK, but parquet files were not tested: this python3 has no pyarrow"
}
# Pictures need matplotlib, which may be the system's python3's alone; exports the libraries of TensorBoard and W&B, which Debian has not.
laboratory() {
    python=python3
    $python -c 'import matplotlib' 2>/dev/null || python=/usr/bin/python3
    TRAIN_GPT=$PWD/train_gpt $python -m unittest discover -s scripts -p '*_test.py' && $python -m unittest discover -s dev -p '*_test.py'
}
exports() {
    [ -x build/python/bin/python ] || python3 -m venv build/python || return 0
    build/python/bin/python -c 'import tensorboard, wandb' 2>/dev/null || build/python/bin/pip install -q tensorboard wandb ||
        { echo "OK, but exports were not tested: TensorBoard and W&B cannot be installed here"; return 0; }
    TRAIN_GPT=$PWD/train_gpt build/python/bin/python -m unittest discover -s scripts -p 'exports_test.py'
}
emulated() { make -s -j"$jobs" CUDA=0 "$1"; }
# Without a GPU the CUDA build can be compiled, linked (it needs no oneDNN), and seen to fall back.
with_nvcc() {
    make -s -j"$jobs" CUDA=1 CUDA_ARCHS="80 90" ONEDNN=0 NO_DATA=1 WERROR=1 EMU=0 BUILD=build/cuda BIN=build/cuda all build/cuda/dev/bench device-tests \
        build/cuda/dev/lt_probe build/cuda/dev/gpu_attention && build/cuda/train_gpt -x 1 -g 1 --eval-batches 1 -o build/cuda/run >build/cuda/log && grep '^device' build/cuda/log
}
with_nccl() { make -s -j"$jobs" CUDA=1 CUDA_ARCHS="80 90" ONEDNN=0 NO_DATA=1 WERROR=1 EMU=0 BUILD=build/cuda BIN=build/cuda test-nccl; }
seconds=${FUZZ_SECONDS:-5}
[ -n "${CI:-}" ] && seconds=${FUZZ_SECONDS:-60}
stage "datasets" datasets
stage "laboratory: plots, tables, sweeps" laboratory
stage "laboratory: TensorBoard and W&B" exports
stage "AddressSanitizer and UBSan" sanitized
stage "ThreadSanitizer" threads
stage "collectives between processes" make -s CUDA=0 NO_DATA=1 test-comm
stage "clang, no warnings" with_clang
stage "without oneDNN, for any CPU" portable
stage "CUDA kernels: races" emulated test-race
stage "CUDA kernels: other orders of threads" emulated test-emu-orders
stage "CUDA kernels: bytes moved" emulated test-costs
stage "CUDA kernels: tensor-core wrappers" emulated test-device
stage "CUDA kernels: planted bugs" emulated test-planted
stage "cuDNN's attention graphs" emulated test-sdpa
stage "what cuBLASLt is asked for" emulated test-gemm
stage "what to run on a GPU, with stand-ins" sh dev/gpu_check_test.sh
if command -v nvcc >/dev/null 2>&1 || [ -x /usr/local/cuda/bin/nvcc ]; then
    stage "CUDA kernels: nvcc, no warnings" with_nvcc
    stage "what NCCL is asked for" with_nccl
else echo "== CUDA kernels: not compiled, for there is no nvcc here"
fi
stage "fuzzing, $seconds s a target" sh dev/fuzz/run.sh "$seconds"

echo
echo "$passed passed, $failed failed"
exit $status
