#!/bin/sh
# The registers, static shared memory and spills of every CUDA kernel, as ptxas reports them, in markdown: sh dev/ptxas.sh >dev/results/ptxas.md
# Needs nvcc and no GPU. Exit status 1 if a file does not compile, or if one of the hot kernels below spills or is missing.
#
#   sh dev/ptxas.sh [-a ARCHS] [FILE.cu ...]       ARCHS: "80 90"; the files: kernels/*.cu
LC_ALL=C
export LC_ALL

# Kernels in which a training step on a GPU spends its time, at the shapes of GPT-2: patterns of their names. Not among them: attention with
# dropout.
hot='
^flash_(forward|dq)_kernel<[0-9]+, false>
^flash_dkv_kernel<[0-9]+, false, (false|true)>
^round_dq_kernel<
^norm_(forward|backward)_kernel<NormLayout<Vec<[a-z_0-9]+>, [0-9]+, (32|64|96|128|256|512), (true|false)>
^residual_kernel<Vec
^swiglu_(forward|backward)_kernel<Vec
^qk_norm_(forward|backward)_kernel<HalvesCut
^norm_weights_kernel
^rope_packs_kernel<
^activate(_backward)?_kernel<[a-z_0-9]+, [48],
^activation_(forward|backward)_kernel<
^column_sums_kernel<[a-z_0-9]+, [48]>
^cross_entropy_kernel<__nv_bfloat16, 8,
^segments_kernel<AdamWRule>
^sum_of_squares_kernel
^add_squares_kernel
^embedding_kernel<Vec
^tokens_backward_kernel<Vec
'

archs="80 90"
if [ "$1" = -a ]; then
    archs=${2:?-a needs architectures, as "80 90"}
    shift 2
fi
cd "$(dirname "$0")/.." || exit 1
[ $# -gt 0 ] || { set -- kernels/*.cu && all=1; }
PATH=$PATH:/usr/local/cuda/bin
nvcc=$(command -v nvcc) || { echo "ptxas.sh: there is no nvcc on the PATH or in /usr/local/cuda/bin" >&2 && exit 1; }
demangle=$(command -v cu++filt || command -v c++filt || echo cat)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0

for arch in $archs; do
    for file in "$@"; do
        if ! "$nvcc" -O3 -std=c++17 -I. -Xptxas -v -gencode "arch=compute_$arch,code=sm_$arch" -c "$file" -o "$work/object" >"$work/words" 2>&1; then
            echo "ptxas.sh: $file does not compile for sm_$arch:" >&2
            head -5 "$work/words" >&2
            status=1
        fi
        # One line a kernel: arch, file, mangled name, registers, shared memory, spill stores, spill loads.
        awk -v arch="$arch" -v file="${file##*/}" '
            # The number before the word in this line, 0 if it is not there.
            function before(word, text) {
                if (!match($0, "[0-9]+ " word)) return 0
                text = substr($0, RSTART, RLENGTH)
                return text + 0
            }
            /Compiling entry function/ { split($0, part, "\047"); name = part[2]; stores = loads = 0 }
            /Function properties for/ { about = $NF }
            /spill stores/ && about == name { stores = before("bytes spill stores"); loads = before("bytes spill loads") }
            /Used [0-9]+ registers/ && name != "" {
                match($0, /Used [0-9]+/)
                print arch, file, name, substr($0, RSTART + 5, RLENGTH - 5), before("bytes smem"), stores, loads
                name = ""
            }' "$work/words" >>"$work/kernels"
    done
done
[ -s "$work/kernels" ] || { echo "ptxas.sh: no kernel was compiled" >&2 && exit 1; }

# The demangled name without its parameters: name<arguments>, enumerators as numbers.
cut -d ' ' -f 3 "$work/kernels" | "$demangle" |
    sed 's/^void //; s/(anonymous namespace):://g; s/([A-Za-z_ ]*)\([0-9]\)/\1/g; s/(.*//' >"$work/names"
paste -d '\t' "$work/names" "$work/kernels" >"$work/table"

echo "# Registers, shared memory and spills"
echo
echo "Command: \`sh dev/ptxas.sh\`. $("$nvcc" --version | sed -n 's/.*release .*, V/nvcc /p')."
echo "For sm_$(echo "$archs" | sed 's/ /, sm_/g'), in this order; one number where they are the same."
echo "Shared memory is what a kernel declares; what it is given at launch comes on top. Spills are bytes a thread, stored and loaded."
echo "Nothing here has run on a GPU."
echo
echo "| kernel | file | registers | shared memory | spills: stores, loads |"
echo "|---|---|---|---|---|"
awk -F '\t' -v archs="$archs" '
    function cell(row, what, i, text, same) {
        same = 1
        for (i = 1; i <= n; i++) if (value[row, arch[i], what] != value[row, arch[1], what]) same = 0
        if (same) return value[row, arch[1], what]
        for (i = 1; i <= n; i++) text = text (i > 1 ? " / " : "") value[row, arch[i], what]
        return text
    }
    BEGIN { n = split(archs, arch, " ") }
    {
        split($2, k, " ")
        row = $1 " | " k[2]
        rows[row] = 1
        value[row, k[1], "registers"] = k[4]
        value[row, k[1], "shared"] = k[5]
        value[row, k[1], "spills"] = k[6] + k[7] ? k[6] ", " k[7] : "-"
    }
    END { for (row in rows) printf "| %s | %s | %s | %s |\n", row, cell(row, "registers"), cell(row, "shared"), cell(row, "spills") }
' "$work/table" | sort -t '|' -k3,3 -k2,2

# Every pattern must find a kernel, and no kernel that it finds may spill.
echo "$hot" | grep . >"$work/hot"
while read -r pattern; do
    grep -qE "$pattern" "$work/names" || [ -z "$all" ] || { echo "ptxas.sh: no kernel is called $pattern" >&2 && status=1; }
done <"$work/hot"
spilling=$(grep -Ef "$work/hot" "$work/table" | awk '$(NF - 1) + $NF > 0')
if [ -n "$spilling" ]; then
    echo "ptxas.sh: hot kernels spill (arch, file, mangled name, registers, shared memory, bytes stored, bytes loaded):" >&2
    echo "$spilling" >&2
    status=1
fi
exit $status
