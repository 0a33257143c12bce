#!/bin/sh
# The folder rules of the README: who may include whom. Prints each offending line; exit status 1 if there is one.
cd "$(dirname "$0")/.." || exit 1
offences=$(mktemp)
trap 'rm -f "$offences"' EXIT
rule() {   # rule TEXT, offending lines on standard input
    lines=$(cat)
    if [ -n "$lines" ]; then
        echo "$1:"
        echo "$lines" | sed 's/^/    /'
    fi >>"$offences"
}
includes() { grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$@" /dev/null; }

includes kernels/*.[ch] kernels/*.cu kernels/*.cuh | grep -E 'llmc/|dev/|\.\./' | rule "kernels/ includes only itself"
includes llmc/*.[ch] | grep -E '\.cuh"|dev/|\.\./' | rule "llmc/ includes kernels/*.h and itself, never a .cuh"
grep -nE '#[[:space:]]*include[[:space:]]*[<"](cuda|cublas|cudnn|nccl)' kernels/*.[ch] llmc/*.[ch] ./*.c /dev/null |
    grep -vE '^(llmc/comm_nccl.c|kernels/cu.h):' | rule "CUDA headers appear only in .cu, .cuh, cu.h and the one NCCL file"
grep -nE '#[[:space:]]*include[[:space:]]*[<"]mpi' kernels/* llmc/*.[ch] ./*.c ./*.cu /dev/null | grep -v '^llmc/comm_mpi.c:' |
    rule "mpi.h appears only in llmc/comm_mpi.c"
grep -nE '#[[:space:]]*include[[:space:]]*[<"]nccl' kernels/* llmc/*.[ch] ./*.c ./*.cu /dev/null | grep -v '^llmc/comm_nccl.c:' |
    rule "nccl.h appears only in llmc/comm_nccl.c"
grep -nE '#[[:space:]]*include[[:space:]]*<(sys/socket|netdb|netinet/|ifaddrs)' kernels/* llmc/*.[ch] ./*.c ./*.cu /dev/null |
    grep -vE '^llmc/(sockets\.[ch]|frames\.c|team_processes\.h|[a-z_]+_test\.[ch]):' | rule "sockets appear only in sockets.[ch], frames.c and team_processes.h"
includes ./*.c ./*.cu | grep -vE '"(llmc/[a-z_]+\.h|kernels/[a-z_]+\.h)"' | rule "top-level files include llmc/ and kernels/*.h"
grep -lE '(ifdef|defined).*USE_CUDA' kernels/*.[ch] llmc/*.[ch] ./*.c ./*.cu /dev/null | grep -v '^kernels/backend.c$' |
    rule "only kernels/backend.c asks whether CUDA is in this build"
grep -nE 'ffast-math|Ofast|use_fast_math' Makefile kernels/* llmc/* /dev/null | rule "no fast-math"
if [ -s "$offences" ]; then
    cat "$offences"
    exit 1
fi
echo "folder rules hold"
