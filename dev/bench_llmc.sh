#!/bin/sh
# Training speed of llm.c (github.com/karpathy/llm.c), to set beside that of `make bench` and of dev/bench_pytorch.py:
#
#   sh dev/bench_llmc.sh DIR --model d12|d24|d36|d48 [--defaults | --best] [--batch B] [--seq-len T] [--total-batch TOKENS] [--steps N] [--warm-up N]
#
# DIR is a checkout of llm.c with its programs, made as below. Models are GPT-2's, by llm.c's names or ours (gpt2-124M, ...), from random weights.
#   --defaults   DIR/train_gpt2cu with llm.c's own defaults
#   --best       DIR/train_gpt2cu_cudnn with -ge 2 -r 0: cuDNN's attention, GELU fused into the products forward and backward, nothing recomputed
# Steps are of 524288 tokens, the same tokens as in our other benchmarks; no sampling, no checkpoint, and evaluation only outside what llm.c times.
# Steps to warm up (2) do not count; of the others (10) the median of the times that llm.c itself prints. If a micro-batch does not fit into the
# GPU's memory, half of it is tried. Prints one JSON object, with the names that dev/bench.c uses. memory is what llm.c says is taken on the device
# before the first step, by it, its CUDA context, and whoever else.
#
# How to make the programs, with CUDA 12 or 13, cuDNN 9 and for an H100 (sm_90); commit f1e2ace of llm.c and cudnn-frontend 1.23 were built so:
#
#   git clone https://github.com/karpathy/llm.c && cd llm.c && git checkout f1e2ace651495b74ae22d45d1723443fd00ecd3a
#   git clone --depth 1 https://github.com/NVIDIA/cudnn-frontend
#   # with CUDA 13, of which a call has another argument; it is made only where memory runs out:
#   sed -i 's/SetPreferredLocation, cudaCpuDeviceId)/SetPreferredLocation, cudaMemLocation{cudaMemLocationTypeHost, 0})/' llmc/cuda_utils.cuh
#   options="CI=true GPU_COMPUTE_CAPABILITY=90 NO_MULTI_GPU=1 NO_USE_MPI=1"
#   make train_gpt2cu $options USE_CUDNN=1 CUDNN_FRONTEND_PATH=cudnn-frontend/include \
#       NVCC_LDFLAGS="-lcublas -lcublasLt -lcudnn -lnvrtc -lcuda -L/usr/local/cuda/lib64/stubs"
#   mv train_gpt2cu train_gpt2cu_cudnn
#   make train_gpt2cu $options NVCC_LDFLAGS="-lcublas -lcublasLt"
#
# The libraries are named so that it links without a driver; where the toolkit has nvml.h, both need -lnvidia-ml too.

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 1
}
complain() {
    echo "bench_llmc: $*" >&2
    exit 1
}
number() {
    case $2 in '' | 0* | *[!0-9]*) complain "$1 '$2' is not a whole number above 0" ;; esac
}

# ---- arguments ----

[ $# -gt 0 ] || usage
directory=$1
shift
model=
batch=
seq_len=1024
total=524288
steps=10
warm_up=2
way=defaults
while [ $# -gt 0 ]; do
    case $1 in
    --defaults | --best) way=${1#--} ;;
    --model | --batch | --seq-len | --total-batch | --steps | --warm-up)
        [ $# -gt 1 ] || complain "$1 needs a value"
        [ "$1" = --model ] || number "$1" "$2"
        case $1 in
        --model) model=$2 ;;
        --batch) batch=$2 ;;
        --seq-len) seq_len=$2 ;;
        --total-batch) total=$2 ;;
        --steps) steps=$2 ;;
        --warm-up) warm_up=$2 ;;
        esac
        shift
        ;;
    *) usage ;;
    esac
    shift
done
# Depth as llm.c has it, our name, channels, and rows of a micro-batch where nobody says.
case $model in
d12 | gpt2-124M) depth=d12 preset=gpt2-124M channels=768 rows=64 ;;
d24 | gpt2-350M) depth=d24 preset=gpt2-350M channels=1024 rows=32 ;;
d36 | gpt2-774M) depth=d36 preset=gpt2-774M channels=1280 rows=16 ;;
d48 | gpt2-1558M) depth=d48 preset=gpt2-1558M channels=1600 rows=8 ;;
*) complain "no model '$model' of llm.c; there is d12, d24, d36, d48" ;;
esac
batch=${batch:-$rows}
[ $((total % (batch * seq_len))) -eq 0 ] ||
    complain "--total-batch $total is not a multiple of batch x seq-len = $((batch * seq_len)); choose another --batch"
[ "$seq_len" -le 1024 ] || complain "--seq-len $seq_len is more than the 1024 positions of GPT-2"
case $way in
best) program=$directory/train_gpt2cu_cudnn flags='-ge 2 -r 0' ;;
*) program=$directory/train_gpt2cu flags='' ;;
esac
[ -x "$program" ] || complain "there is no program $program; the head of $0 says how to make it"
program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
attention=own
if ldd "$program" 2>/dev/null | grep -q libcudnn; then attention=cudnn; fi
[ "$way$attention" != bestown ] || complain "$program was made without cuDNN, so it is not llm.c at its best; the head of $0 says how to make it"

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
process=
clean() {
    [ -n "$process" ] && kill "$process" 2>/dev/null && wait "$process"
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP

# ---- the run ----

python=$(command -v python3) || complain "the tokens are made by python3, which is not here"
"$python" "$here/bench_tokens.py" 50257 "$total" $((warm_up + steps)) >"$work/shard.bin" || complain "cannot make the tokens"

# A line at a time, so that it shows at once where memory runs out.
line_by_line=$(command -v stdbuf) && line_by_line="$line_by_line -oL"

short_of_memory() { grep -Eq 'Fell back to cudaMallocManaged|^out of memory' "$work/output"; }
# train: its words in $work/output, its status in $status. Where tensors went into the host's memory, it would go on slowly, and is ended.
# shellcheck disable=SC2086   # flags are words
train() {
    : >"$work/output"
    (cd "$work" && exec $line_by_line "$program" -i shard.bin -j shard.bin -e "$depth" -b "$batch" -t "$seq_len" -d "$total" \
        -x $((warm_up + steps)) -l 1e-4 -v 1000000000 -m 1 -s 0 $flags) >"$work/output" 2>&1 </dev/null &
    process=$!
    while kill -0 "$process" 2>/dev/null; do
        ! short_of_memory || kill "$process" 2>/dev/null
        sleep 0.1
    done
    wait "$process"
    status=$?
    process=
}

train
while short_of_memory; do
    [ $((batch % 2)) -eq 0 ] || complain "$preset does not fit into the memory of this GPU with a micro-batch of $batch"
    echo "bench_llmc: a micro-batch of $batch does not fit, trying $((batch / 2))" >&2
    batch=$((batch / 2))
    train
done

# ---- what it said ----

last_words() { grep -v '^[[:space:]]*$' "$work/output" | tail -1 | cut -c 1-200; }
[ $status -eq 0 ] || complain "llm.c ended with status $status: $(last_words)"

# The value of a row of its table of settings.
setting() { sed -n "s/^| $1  *| *\(.*[^ ]\) *|\$/\1/p" "$work/output" | head -1; }
# plain TEXT: as a JSON string may hold it.
plain() { printf %s "$1" | tr '\\"' "/'" | tr -d '[:cntrl:]'; }

# whole SETTING: a number, or null.
whole() { setting "$1" | grep '^[0-9]\{1,\}$' || echo null; }

commit=$(git -C "$directory" rev-parse --short HEAD 2>/dev/null)
dtype=$(setting precision | tr '[:upper:]' '[:lower:]')
about="\"program\": \"llm.c\", \"model\": \"$preset\", \"device\": \"$(plain "$(setting device)")\", \"commit\": \"$commit\", \"way\": \"$way\""
about="$about, \"flags\": \"$flags\", \"attention\": \"$attention\", \"dtype\": \"$dtype\""
about="$about, \"gelu_fusion\": $(whole gelu_fusion), \"recompute\": $(whole recompute)"
awk -v about="$about" \
    -v parameters="$(setting num_parameters)" -v padding=$((47 * channels)) -v batch="$batch" -v seq_len="$seq_len" -v total="$total" \
    -v steps="$steps" -v warm_up="$warm_up" '
    function broken(why) { print why; failed = 1; exit 1 }
    # The number before a word in a line; NaN and infinity are none.
    function before(word, text) {
        text = $0
        if (!match(text, "[-+0-9.e]+ " word)) return ""
        return substr(text, RSTART, RLENGTH - length(word) - 1)
    }
    function after(word, text, end) {
        text = substr($0, index($0, word) + length(word))
        end = match(text, /[ |]/)
        text = substr(text, 1, end - 1)
        return text ~ /^[-+]?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$/ ? text : ""
    }
    # Of the n values of sorted[].
    function median(n) { return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2 }
    /^device memory usage: [0-9]+ MiB/ { memory = $4 * 1048576 }
    /^step / {
        n++
        loss = after("loss "); ms = before("ms ")
        if (ms + 0 <= 0) broken("no time is in its line \"" $0 "\"")
        if (loss == "") broken("the loss became no number in \"" $0 "\"; the speed of that means nothing")
        if (n <= 3) losses = losses (n > 1 ? ", " : "") loss
        if (n <= warm_up) next
        for (i = n - warm_up; i > 1 && sorted[i - 1] > ms + 0; i--) sorted[i] = sorted[i - 1]
        sorted[i] = ms + 0
    }
    END {
        if (failed) exit 1
        if (n != warm_up + steps) broken("it printed " n + 0 " of " warm_up + steps " steps")
        ms = median(steps)
        printf "{%s, \"parameters\": %s, \"batch\": %d, \"seq_len\": %d, \"grad_accum\": %d, \"tokens_per_step\": %d, \"tokens_per_s\": %.1f, " \
            "\"ms\": %.3f, \"ms_least\": %.3f, \"ms_most\": %.3f, \"steps\": %d, \"memory\": %s, \"losses\": [%s], \"loss\": %s}\n",
            about, (parameters ? sprintf("%d", parameters - padding) : "null"), batch, seq_len, total / (batch * seq_len), total, 1000 * total / ms,
            ms, sorted[1], sorted[steps], steps, (memory ? sprintf("%.0f", memory) : "null"), losses, loss
    }' "$work/output" >"$work/figures" || complain "cannot read what llm.c printed: $(head -1 "$work/figures")"
cat "$work/figures"
