#!/bin/sh
# Learned positions against RoPE in the setting of course notes: WikiText-103 in GPT-2's vocabulary, 8 layers, 8 heads, C=512, rows of 256 tokens,
# 64 rows a step (8 of them, 8 times), 5,000 steps, 81,920,000 tokens. RoPE as it comes; `-e learned -o out/wikitext-learned` is the other one.
# The learning rate, 1e-3 with 200 steps of warm-up to 0 along a cosine, is ours.
#
# Loss: the notes have 3.8175 with RoPE and 3.8967 with learned positions; they may clean and split the text otherwise. Not measured here.
set -eu
cd "$(dirname -- "$0")/.."
# shellcheck source=scripts/recipe.sh
. scripts/recipe.sh

name=wikitext
title='WikiText-103, 8 layers of 512 channels, 81,920,000 tokens'
dataset=wikitext103 vocab=50257
steps=5000 step_tokens=16384 rows=64 eval_tokens=327680
options='-m wikitext -e rope -t 256 --lr 1e-3 --min-lr 0 --warmup 200 --weight-decay 0.1 --grad-clip 1 --eval-every 250 --checkpoint-every 500'
expected='3.82 with RoPE, 3.90 with learned positions, as course notes report; not measured here'
prompt='The sea'
if [ "$gpus" -eq 0 ]; then
    eval_tokens=40960
    options="$options --dtype $(cpu_dtype)"
fi
recipe "$@"
