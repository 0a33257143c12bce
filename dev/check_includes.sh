#!/bin/sh
# The folder rules of the README: who may include whom. Prints each offending line; exit status 1 if there is one.
cd "$(dirname "$0")/.." || exit 1
found=0
rule() {   # rule TEXT, offending lines on standard input
    lines=$(cat)
    if [ -n "$lines" ]; then
        echo "$1:"
        echo "$lines" | sed 's/^/    /'
        found=1
    fi
}
includes() { grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$@" /dev/null; }

includes kernels/*.[ch] | grep -E 'llmc/|dev/|\.\./' | rule "kernels/ includes only itself"
includes llmc/*.[ch] | grep -E '\.cuh"|dev/|\.\./' | rule "llmc/ includes kernels/*.h and itself, never a .cuh"
grep -nE '#[[:space:]]*include[[:space:]]*[<"](cuda|cublas|cudnn|nccl)' kernels/*.[ch] llmc/*.[ch] ./*.c /dev/null |
    grep -v '^llmc/comm_nccl.c' | rule "CUDA headers appear only in .cu, .cuh and the one NCCL file"
includes ./*.c ./*.cu | grep -vE '"(llmc/[a-z_]+\.h|kernels/[a-z_]+\.h)"' | rule "top-level files include llmc/ and kernels/*.h"
grep -lE '(ifdef|defined).*USE_CUDA' kernels/*.[ch] llmc/*.[ch] ./*.c ./*.cu /dev/null | grep -v '^kernels/backend.c$' |
    rule "only kernels/backend.c asks whether CUDA is in this build"
grep -nE 'ffast-math|Ofast|use_fast_math' Makefile kernels/* llmc/* /dev/null | rule "no fast-math"
[ "$found" -eq 0 ] && echo "folder rules hold"
exit "$found"
