#!/bin/sh
# Tests of gpu_check.sh on a machine without a GPU, with stand-ins for nvidia-smi, PyTorch and the programs of a build: what it runs, what it writes,
# what it notices, and that a second call goes on where the first ended.
#
#   sh dev/gpu_check_test.sh
cd "$(dirname "$0")/.." || exit 1
home=$PWD
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2034   # for shell_test.sh
process=
# shellcheck source=dev/shell_test.sh
. dev/shell_test.sh
mkdir -p "$work/bin" "$work/build/dev" "$work/build/llmc" "$work/build/kernels" "$work/here"
cd "$work/here" || exit 1

# stand_in FILE: a program of which the text comes on standard input.
stand_in() { cat >"$1" && chmod +x "$1"; }

stand_in "$work/bin/nvidia-smi" <<'END'
#!/bin/sh
case $* in
*clocks_event_reasons*) echo 'Field "clocks_event_reasons.active" is not a valid field to query.' && exit 2 ;;
*clocks.sm*) echo "1755, 2619, 512.31, 55, 0x0000000000000004" ;;
*driver_version*) echo 580.1 ;;
-L) echo "GPU 0" ;;
*) echo "NVIDIA Stand-in H100" ;;
esac
END
# Learns as seeds do: apart by sampling; bf16 a little away from fp32. $TROUBLE is what goes wrong on the card.
stand_in "$work/build/train_gpt" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in -o) out=$2 ;; --device) device=$2 ;; --seed) seed=$2 ;; --dtype) dtype=$2 ;; -x) steps=$2 ;; --log-every) every=$2 ;; esac
    shift
done
mkdir -p "$out/last" && echo weights >"$out/last/model.safetensors" && echo moments >"$out/last/optimizer.safetensors"
[ "$TROUBLE$device" != crashfake ] || { echo "out of memory" && exit 1; }
awk -v seed="${seed:-1}" -v steps="$steps" -v every="${every:-10}" -v dtype="$dtype" -v device="$device" -v trouble="$TROUBLE" 'BEGIN {
    srand(seed)
    for (i = 1; i <= steps; i++) {
        loss = 2 + 2 * exp(-i / 40) + 0.3 * (rand() - 0.5)
        if (dtype == "bf16") loss *= 1 + 0.0005 * (i % 3 - 1)
        if (device == "fake" && trouble == "drift" && i > 100) loss += 0.2
        if (device == "fake" && trouble == "early") loss *= 1.00002
        text = device == "fake" && trouble == "nan" && i == 150 ? "null" : sprintf("%.9f", loss)
        if (i % every == 0) printf "{\"step\": %d, \"loss\": %s}\n", i, text
    }
}' >"$out/log.jsonl"
END
stand_in "$work/build/tokenizer" <<'END'
#!/bin/sh
exit 0
END
stand_in "$work/build/dev/bench" <<'END'
#!/bin/sh
[ "$TROUBLE" != slow ] || sleep 30
model= rows=64 json= ms=100
while [ $# -gt 0 ]; do
    case $1 in --model) model=$2 ;; --batch) rows=$2 ;; --json) json=$2 ;; own) ms=110 ;; --no-graphs) ms=105 ;; --no-autotune) ms=100.5 ;; esac
    shift
done
printf 'op                              calls         ms\nattention_forward 12 3.5\nall ops 4\nend\n'
shape="\"batch\": $rows, \"seq_len\": 1024, \"tokens_per_step\": 524288"
echo "{\"model\": \"$model\", $shape, \"tokens_per_s\": $((52428800 / ${ms%.*})), \"ms\": $ms, \"memory\": 1073741824, \"mfu\": 0.5}" >>"$json"
END
stand_in "$work/build/dev/gpu_attention" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --seq-len) T=$2 ;; --json) json=$2 ;; esac; shift; done
times='"own_forward_us": 200, "own_backward_us": 500, "cudnn_forward_us": 150, "cudnn_backward_us": 400'
echo "{\"probe\": \"attention\", \"head_size\": 64, \"kv_heads\": 12, \"seq_len\": $T, \"deterministic\": 0, $times}" >>"$json"
END
python=$(command -v python3)
stand_in "$work/bin/python3" <<END
#!/bin/sh
case \$1 in
dev/bench_pytorch.py)
    echo "\$*" >>"$work/asked"
    echo '{"program": "pytorch", "batch": 64, "tokens_per_s": 300000, "ms": 1747, "memory": 2147483648}'
    ;;
*) exec "$python" "\$@" ;;
esac
END
stand_in "$work/bin/nvcc" <<'END'
#!/bin/sh
echo "Cuda compilation tools, release 13.0, V13.0.88"
END
stand_in "$work/bin/make" <<END
#!/bin/sh
echo "\$*" >>"$work/made"
[ "\$TROUBLE" != make ]
END
stand_in "$work/bin/cc" <<'END'
#!/bin/sh
[ "$TROUBLE" != cmocka ]
END
PATH=$work/bin:$PATH

# gpu_check STAGE ...: as $status says it ended; its results in $work/out.
gpu_check() { run sh "$home/dev/gpu_check.sh" "$@" --device fake --build "$work/build" --out "$work/out"; }
report() { ls "$work"/out/stand-in-h100-????-??-??"$1"; }
# passes NAME STAGE ...: so does the stage.
passes() {
    name=$1
    shift
    gpu_check "$@"
    if [ "$status" -eq 0 ]; then pass; else fail "$name" "exit status $status: $(tail -3 "$work/stdout")"; fi
}
# catches NAME TROUBLE REGEX STAGE: with that trouble the stage fails, and says so in the report.
catches() {
    name=$1 trouble=$2 pattern=$3
    shift 3
    rm -rf "$work/out" "$work/build/check"
    TROUBLE=$trouble
    export TROUBLE
    gpu_check "$@"
    unset TROUBLE
    if [ "$status" -eq 0 ]; then fail "$name" "it passed"; else pass; fi
    holds "$name: in the report" grep -Eq "$pattern" "$(report .md)"
}
valid_json() { "$python" -c 'import json, sys; json.load(open(sys.argv[1]))' "$(report .json)"; }

group "build"
catches "a build that fails" make '\| build \| make all \| failed' build
catches "cmocka that is missing" cmocka '\| build \| make tests \| failed .*no cmocka.h here: bring it' build
lines=$(wc -l <"$work/made")
passes "a build" build
holds "only what was missing is built then" [ "$(sed "1,${lines}d" "$work/made" | grep -o '[^ ]*$')" = tests ]
holds "the probes are built" grep -q "CUDA=1 EMU=0 $work/build/dev/lt_probe" "$work/made"
lines=$(wc -l <"$work/made")
passes "again" build
holds "nothing is built twice" [ "$(wc -l <"$work/made")" -eq "$lines" ]

group "curve"
passes "a card that learns as the CPU does" curve
holds "the table of losses" grep -q '^| 150 | ' "$(report .curve.md)"
holds "which is in the report" grep -q '^| mean of 181 to 200 | ' "$(report .md)"
passes "again" curve
says "nothing is run twice" 'all of curve +passed before'
catches "a curve that is off after step 100" drift '\| curve \| curves \| failed .*further' curve
catches "a curve that is off from the start" early '\| curve \| curves \| failed .*too far from the start' curve
catches "NaN" nan '\| curve \| curves \| failed .*loss of step 150 is None' curve
catches "a run that fails" crash '\| curve \| run on the card, fp32 \| failed .*out of memory' curve
holds "and nothing compared then" sh -c "! grep -q '| curves |' '$(report .md)'"
rm -rf "$work/build/check"
passes "the rest on another machine, with that report" curve
holds "where all are run anew and compared" grep -q '| curve | curves | passed ' "$(report .md)"

group "probe"
rm -rf "$work/out" "$work/build/check"
passes "the probes" probe
holds "a decision from steps" grep -q '^| graphs at B=8 | 100.0 ms a step with, 105.0 ms without | on |' "$(report .decisions.md)"
holds "a decision from attention" grep -q '^| attention of heads of 64, us.*T=4096 NKV=12: own 200/500, cuDNN 150/400 | cuDNN |' \
    "$(report .decisions.md)"
holds "what was not measured" grep -q '^| attention of heads of 32, us.* | not measured | - |' "$(report .decisions.md)"
holds "all of it in the report" grep -q '^| graphs at B=64 ' "$(report .md)"
lines=$(wc -l <"$(report .probe.jsonl)")
passes "again" probe
holds "figures are not taken twice" [ "$(wc -l <"$(report .probe.jsonl)")" -eq "$lines" ]

group "bench"
rm -rf "$work/out"
passes "a model" bench gpt2-124M
holds "ours, the kinds apart" grep -q '^| gpt2-124M | own, own attention | 476625 | 1.10 | 110.0 | 64 | 1.0 | 50.0% |' "$(report .md)"
holds "PyTorch, our best over it" grep -q '^| gpt2-124M | PyTorch, cudnn | 300000 | 1.75 | 1747.0 | 64 | 2.0 |' "$(report .md)"
holds "under which clocks" grep -q 'SM 1755-1755, memory 2619 MHz, to 512 W, 55 C, throttled 0x0000000000000004 |$' "$(report .md)"
holds "clocks before and after, in JSON" grep -q '"card_before": "1755,2619,512.31,55,0x0000000000000004", "card_after": "1755,' "$(report .json)"
holds "PyTorch gets our shape" grep -q -e '--batch 64 --seq-len 1024 --total-batch 524288' "$work/asked"
holds "the ops" grep -q 'attention_forward 12 3.5' "$(report .ops.md)"
holds "llm.c is left out, and that is said" grep -q '| gpt2-124M, llm.c | skipped | 0 | no checkout' "$(report .md)"
holds "JSON that others can read" valid_json
gpu_check bench gpt2-124M --llmc "$work/none"
holds "llm.c is not passed over when it is named later" grep -q '| gpt2-124M, llm.c best, round 1 | failed ' "$(report .md)"
passes "two models" bench gpt2-350M
holds "one log and one table of ops for all" [ "$(find "$work/out" -type f | sed 's/.*-[0-9]*\.//' | sort | tr '\n' ' ')" = "json log md ops.md " ]

group "time"
rm -rf "$work/out"
TROUBLE=slow
export TROUBLE
gpu_check bench gpt2-124M --seconds 8
unset TROUBLE
holds "a call that has no time left fails" [ "$status" -eq 1 ]
says "and leaves the rest" '^0 failed, [0-9]+ left for the next call; results'
passes "the next call" bench gpt2-124M
refuses "a wrong number of seconds" "'soon' is not a whole number" sh "$home/dev/gpu_check.sh" curve --seconds soon

group "what is missing"
mv "$work/bin/nvidia-smi" "$work/nvidia-smi"
refuses "a GPU" 'no GPU here' sh "$home/dev/gpu_check.sh" curve
mv "$work/nvidia-smi" "$work/bin/nvidia-smi"
rm -rf "$work/out" "$work/build/dev/bench"
gpu_check bench gpt2-124M
holds "a program" grep -q 'dev/bench is missing: run the stage build first' "$(report .md)"

group
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
