#!/bin/sh
# The model of run_tinystories_17M.sh, and as many steps of it, on text of the web: OpenWebText, a byte-pair vocabulary of 32,000 made of the text
# itself.
#
# With the larger vocabulary it has 45M parameters. 5,000 steps of 256 rows of 256 tokens; --small (and a CPU) 32 rows.
# --minutes 90 instead trains what 90 minutes allow: a trial finds the speed, the steps are as many as there is time for, so that the learning
# rate comes to its end as the time does, and --max-time ends the run in any case. On a GPU the model is then llama-125M with rows of 512 tokens:
# 90 minutes at 350 TFLOP/s are 1.9e18 FLOPs, of which 20 tokens a parameter (Hoffmann et al., arXiv:2203.15556) make 125M parameters and 2.5
# billion tokens. On a CPU it stays.
#
# Loss: none has been measured, and we know no published figure for these settings; it is far above that of TinyStories, for its text is harder. A
# vocabulary of another size changes the loss: compare bits per byte.
set -eu
cd "$(dirname -- "$0")/.."
accepts='--small --minutes'
# shellcheck source=scripts/recipe.sh
. scripts/recipe.sh

dataset=openwebtext vocab=32000 steps=5000 rows=256
options='--vocab-size 32000 --min-lr 0 --weight-decay 0.1 --grad-clip 1 --eval-every 250 --checkpoint-every 500'
expected='no figure, ours or published, is known for these settings'
prompt='The sea'
if [ "$gpus" -eq 0 ]; then
    eval_tokens=40960
    options="$options --dtype $(cpu_dtype)"
    if [ -z "$minutes" ]; then small=yes; fi
else
    eval_tokens=1048576
fi
step_tokens=65536 name=openwebtext title='OpenWebText, the TinyStories model, 327,680,000 tokens'
if [ -n "$small" ]; then step_tokens=8192 name=openwebtext-small title='OpenWebText, the TinyStories model, 40,960,000 tokens'; fi
if [ -n "$minutes" ]; then name=openwebtext-$minutes-minutes title="OpenWebText, the best of $minutes minutes"; fi

if [ -n "$minutes" ] && [ "$gpus" -gt 0 ]; then
    step_tokens=262144 rows=64
    options="-m llama-125M -t 512 --lr 1e-3 --warmup 300 $options"
elif [ -n "$minutes" ]; then
    step_tokens=8192
    options="-m tinystories-17M -t 256 --lr 1e-3 --warmup 100 $options"
else
    options="-m tinystories-17M -t 256 --lr 1e-3 --warmup 200 $options"
fi
recipe "$@"
