#!/bin/sh
# A small model of short stories: 17M parameters beside the embedding, TinyStories, a byte-pair vocabulary of 10,000 made of the text itself.
#
# The model and its lengths are those of course notes: 4 layers of 16 heads, C=512, SwiGLU of 1,344, RMSNorm, RoPE, rows of 256 tokens; 5,000
# steps of 256 rows, 327,680,000 tokens. --small is 5,000 steps of 32 rows, 40,960,000 tokens, and what is done where there is no GPU. The
# learning rate, 1e-3 with 200 steps of warm-up to 0 along a cosine, is ours.
#
# Loss: the course asks for at most 1.45 after 327,680,000 tokens, 30 to 40 minutes on an H100; and has 1.80 after 40,960,000, in 82 minutes on a
# laptop. Neither has been measured here. Time on two Zen 4 cores, at the rate measured in dev/results/bench_cpu.md (2,856 tokens/s in bf16): 4
# hours for --small.
set -eu
cd "$(dirname -- "$0")/.."
accepts=--small
# shellcheck source=scripts/recipe.sh
. scripts/recipe.sh

dataset=tinystories vocab=10000 steps=5000 rows=256
options='-m tinystories-17M -t 256 --lr 1e-3 --min-lr 0 --warmup 200 --weight-decay 0.1 --grad-clip 1 --eval-every 250 --checkpoint-every 500'
prompt='Once upon a time'
if [ "$gpus" -eq 0 ]; then
    small=yes eval_tokens=40960
    options="$options --dtype $(cpu_dtype)"
else
    eval_tokens=1048576
fi
if [ -n "$small" ]; then
    name=tinystories-17M-small title='TinyStories, 17M parameters, 40,960,000 tokens' step_tokens=8192
    expected='1.80, as course notes report of these tokens; not measured here'
else
    name=tinystories-17M title='TinyStories, 17M parameters, 327,680,000 tokens' step_tokens=65536
    expected='at most 1.45, as course notes ask of these tokens; not measured here'
fi
recipe "$@"
