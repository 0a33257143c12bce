# recipe.sh: what the recipes of the headline runs share. A recipe is a short script: it sources this file, which understands the options of recipes,
# builds the programs if need be and finds the GPUs; says what to train; and calls `recipe "$@"`, which does everything else. It sets
#   name            of the run, which lies in out/NAME
#   title           in words
#   dataset         of data/prepare.py, in data/DATASET; or "characters": TinyShakespeare
#   vocab           tokens in its vocabulary
#   steps           of the optimizer
#   step_tokens     tokens in one, over all GPUs and micro-batches
#   rows            most rows in a micro-batch; fewer where memory is short, and on a CPU
#   eval_tokens     tokens of an evaluation of a split
#   options         of train_gpt, the others
#   expected        what loss to expect, and who says so
# and may set
#   prompt          of the sample at the end
#   all_gpus=yes    to use all GPUs of the machine, where the others use one
#   needs_gpu=yes   to refuse a machine without one
# and, before it sources this file, accepts='--small' or '--minutes': options that it has besides those of all. Then `small` and `minutes` tell.
# shellcheck shell=sh disable=SC2154,SC2034   # what a recipe sets, and what it reads
# shellcheck disable=SC2086            # $options are several words

accepts=${accepts:-} all_gpus='' needs_gpu='' prompt=''
this=$(basename -- "$0")
python=${PYTHON:-python3}
# shellcheck source=scripts/restarts.sh
. scripts/restarts.sh

say() { printf '\n== %s\n' "$*"; }
row() { printf '%-8s %s\n' "$1" "$2"; }
fail() {
    printf '%s: %s\n' "$this" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# ---- Options ----

accepted() { case " $accepts " in *" $1 "*) ;; *) return 1 ;; esac; }

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    cat <<END_OF_TEXT

usage: sh scripts/$this [options]
  --short      a model of two tiny layers for a moment, on this repository's own documentation: shows that everything works
END_OF_TEXT
    if accepted --small; then echo '  --small      an eighth of the tokens; without a GPU that is what is done'; fi
    if accepted --minutes; then echo '  --minutes N  the best model that N minutes allow, as --minutes 90: as many steps as there is time for'; fi
    echo '  --restarts N  training that fails once it has begun goes on after a pause, N times in a row without a new checkpoint: 3; 0 never'
    echo "  others       are train_gpt's and count before the recipe's, as --gpus 4, --device cpu, -o DIR, -x STEPS, -b ROWS (./train_gpt --help)
Started again, it goes on where it ended. \$DATA_MIRROR is a directory or URL to take the data's files from (data/README.md)."
}

# Takes the recipe's own options out of "$@", which in a file that is sourced is the script's.
short='' small='' minutes='' wanting=''
for argument in "$@"; do
    shift
    case $wanting in
        minutes) minutes=$argument wanting=''; continue ;;
        restarts) restarts=$argument wanting=''; continue ;;
    esac
    case $argument in
        --help | -h) usage; exit 0 ;;
        --short) short=yes; continue ;;
        --small) if accepted --small; then small=yes; continue; fi ;;
        --restarts) wanting=restarts restarts=''; continue ;;
        --restarts=*) restarts=${argument#*=}; continue ;;
        --minutes) if accepted --minutes; then wanting=minutes; continue; fi ;;
        --minutes=*) if accepted --minutes; then minutes=${argument#*=}; continue; fi ;;
    esac
    set -- "$@" "$argument"
done
is_count "$restarts" || fail "--restarts '$restarts' is no number of times; write --restarts 3"
if [ -n "$wanting$minutes" ] && ! echo "$minutes" | LC_ALL=C awk '{ exit !($0 ~ /^[0-9]+(\.[0-9]+)?$/ && $0 > 0) }'; then
    fail "--minutes '$minutes' is no number of minutes; write --minutes 90"
fi

# ---- Programs and device ----

build_programs() {
    missing=''
    for program in tokenizer train_gpt sample_gpt; do
        if [ ! -x "./$program" ]; then missing="$missing $program"; fi
    done
    if [ -z "$missing" ]; then return; fi
    if ! have make || ! { have "${CC:-cc}" || have gcc || have clang; }; then
        fail "the programs are not built, and there is no make or no C compiler; install them (Debian: apt-get install make gcc libc6-dev)"
    fi
    say "building$missing"
    make -s -j"$(nproc 2>/dev/null || echo 2)" NO_DATA=1 $missing || fail "the build failed; the compiler's words stand above"
}

# Sets gpus to their number, 0 where training is on the CPU.
find_gpus() {
    gpus=0
    case $(option '' --device "$@") in cpu) return ;; esac
    if ./train_gpt --device cuda --plan -m baby --vocab-size 65 >/dev/null 2>&1; then
        gpus=$(sh scripts/run_node.sh --count) || gpus=1
    elif sh scripts/run_node.sh --count >/dev/null; then
        echo "There is a GPU, but ./train_gpt cannot use it (./train_gpt --device cuda says why), so that the CPU is used."
    fi
}

# The data type that trains fastest on this CPU: bf16 where it has matrix products of it.
cpu_dtype() { if ./train_gpt --device cpu --dtype bf16 --plan -m baby --vocab-size 65 >/dev/null 2>&1; then echo bf16; else echo fp32; fi; }

# ---- The plan ----

# plan WORDS...: what train_gpt --plan says of these options. It refuses unknown ones, and needs no data.
plan() { ./train_gpt "$@" --vocab-size "$vocab" --plan; }
planned() { printf '%s\n' "$plan" | sed -n "s/^$1  *\\([^ ].*\\)/\\1/p" | sed 's/   (.*//'; }
planned_number() { planned "$1" | tr -d ,; }

# The largest power of two that is not above it: a step's rows are shared out evenly.
power_of_two() {
    power=1
    while [ $((2 * power)) -le "$1" ]; do power=$((2 * power)); done
    echo "$power"
}

smaller() { if [ "$1" -lt "$2" ]; then echo "$1"; else echo "$2"; fi; }

# choose_batch FITS: the most rows that divide a rank's rows of a step, are not above $rows, on a CPU not above 12, and leave a tenth of the memory.
choose_batch() {
    share=$((step_tokens / seq_len / ranks))
    batch=$(smaller "$(smaller "$rows" "$share")" $(($1 * 9 / 10)))
    if [ "$gpus" -eq 0 ]; then batch=$(smaller "$batch" 12); fi
    while [ "$batch" -gt 1 ] && [ $((share % batch)) -ne 0 ]; do batch=$((batch - 1)); done
    if [ "$batch" -lt 1 ]; then batch=1; fi
}

# Sets speed to the TFLOP/s assumed of a GPU, or of all cores of this CPU, assumption to the reason, and about to its word: no small model keeps a
# GPU busy.
assume_speed() {
    about=about
    if [ "$gpus" -eq 0 ]; then
        cores=$(nproc 2>/dev/null || echo 1) speed=0.08
        if [ "$(option '' --dtype "$@")" = bf16 ]; then speed=0.14; fi
        assumption="$speed TFLOP/s of each of $cores cores, as dev/results/bench_cpu.md has it of a Zen 4"
        speed=$(LC_ALL=C awk "BEGIN { print $cores * $speed }")
        return
    fi
    card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
    case $card in
        *H100* | *H200*) speed=350 assumption='350 TFLOP/s of each GPU, a little less than llm.c reaches on H100s' ;;
        *A100*) speed=170 assumption='170 TFLOP/s of each GPU, 55% of the peak of an A100' ;;
        *) speed=60 assumption="60 TFLOP/s of each GPU, a guess for ${card:-an unknown one}" ;;
    esac
    if [ "$parameters" -lt 100000000 ]; then about='several times' assumption="$assumption, which so small a model does not reach"; fi
}

# Sets disk to what the checkpoints need and what is free, and refuses too little: three numbers of 4 bytes a parameter; the best, the newest, and
# while it is written the next.
check_disk() {
    copies=3 place=$out
    if holds_run; then copies=1; fi
    while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
    disk=$(df -Pk "$place" | LC_ALL=C awk -v n=$((12 * parameters * copies)) \
        'NR == 2 { printf "%.1f GB for checkpoints, and %.1f GB are free", n / 1e9, $4 * 1024 / 1e9; exit !($4 * 1024 >= n) }') ||
        fail "$out needs $disk; make room, or choose another place with -o DIR"
}

duration() {
    LC_ALL=C awk -v s="$1" 'BEGIN {
        if (s < 90) printf "%.0f s", s + 0.5
        else if (s < 5400) printf "%.0f minutes", s / 60
        else if (s < 172800) printf "%.1f hours", s / 3600
        else printf "%.1f days", s / 86400
    }'
}
# 1234567 as 1,234,567.
grouped() { echo "$1" | sed -e :a -e 's/^\([0-9]*[0-9]\)\([0-9]\{3\}\)/\1,\2/' -e ta; }

# Before anything long begins: what it will be.
announce() {
    flops=$(planned_number 'FLOPs per token')
    tokens=$((steps * step_tokens)) parameters=$(planned_number parameters | head -n 1)
    assume_speed "$@"
    check_disk
    seconds=$(LC_ALL=C awk "BEGIN { print $flops * $tokens / (1e12 * $speed * ($gpus ? $ranks : 1)) }")
    where='the CPU' per_rank=''
    if [ "$ranks" -gt 1 ]; then per_rank=' for each of the ranks'; fi
    if [ "$gpus" -gt 0 ]; then where="$ranks of the machine's $gpus GPUs"; fi
    say "$title"
    row model "$(planned parameters | head -n 1) parameters"
    if [ -n "$minutes" ]; then
        row steps "of $(grouped "$step_tokens") tokens, as many as $minutes minutes allow"
    else
        row steps "$(grouped "$steps") of $(grouped "$step_tokens") tokens: $(grouped "$tokens") tokens"
        row time "$about $(duration "$seconds") ($(grouped "$flops") FLOPs a token; assumed, not measured: $assumption)"
    fi
    row device "$where, micro-batches of $batch rows, $seq_len tokens each"
    row memory "$(planned memory)$per_rank, by --plan"
    row disk "$disk"
    if [ -z "$short" ]; then row loss "$expected"; fi
    row run "$out"
}

# ---- Data ----

prepare_short() {
    mkdir -p out/short
    sed 's/<|endoftext|>//g' README.md data/README.md >out/short/text.txt
    if [ "$dataset" = characters ]; then
        sh data/prepare.sh out/short/text.txt --out "$data"
    else
        "$python" data/prepare.py out/short/text.txt --out "$data" --vocab "train:$vocab"
    fi
}

# What it will take, from prepare.py's own catalogue.
say_download() {
    sizes=$(cd data && "$python" -c "
import catalog, common, prepare
row = catalog.DATASETS['$dataset']
made = int(row.text_bytes * prepare.BYTES_OF_TOKENS)
text = common.bytes_text
print(f'{text(row.download_bytes)} to download into data/downloads, and {text(row.download_bytes + made)} of disk with the tokens made of it')
") || fail "data/prepare.py needs Python 3.9 or later, and '$python' will not do; PYTHON=... names another one"
    free=$(df -Pk data | LC_ALL=C awk 'NR == 2 { printf "%.1f GB", $4 * 1024 / 1e9 }')
    echo "$data is missing. It takes about $sizes; the disk has $free free."
}

# The dataset in $data, made if it is not there. prepare.py says itself what stands against it: no network, no space, no pyarrow.
have_data() {
    if [ -n "$(option -i --train-data "$@")" ] || [ -f "$data/dataset.json" ]; then return; fi
    say "the data"
    if [ -n "${DATA_MIRROR:-}" ] && [ -z "$short" ]; then echo "Files are taken from $DATA_MIRROR."; fi
    if [ -n "$short" ]; then prepare_short
    elif [ "$dataset" = characters ]; then
        echo "$data is missing. It takes 1.1 MB to download, and 3 MB of disk."
        sh data/prepare.sh --sources download --out "$data"
    else
        have "$python" || fail "data/prepare.py needs Python, and there is no '$python'; install python3"
        say_download
        "$python" data/prepare.py "$dataset"
    fi || exit 1
}

# TinyShakespeare is where the build puts it, unless the build had to take another text.
choose_data() {
    data=data/$dataset
    if [ "$dataset" = characters ] && ! grep -qs '"source": "TinyShakespeare' data/characters/dataset.json; then data=data/shakespeare_char; fi
    if [ -z "$short" ]; then return; fi
    data=out/short/tokens
    if [ "$dataset" = characters ]; then data=out/short/characters; fi
}

# ---- The run ----

holds_run() { [ -f "$out/last/state.json" ]; }
# saved KEY: a number in the newest checkpoint.
saved() { sed -n "s/^ *\"$1\": *\"\\{0,1\\}\\([0-9][0-9.e+-]*\\).*/\\1/p" "$out/last/state.json" | head -n 1; }
# logged KEY RUN: its numbers in the log, one a line.
logged() { sed -n "s/.*\"$1\": *\\([0-9][0-9.e+-]*\\).*/\\1/p" "$2/log.jsonl"; }

# Of --minutes, what the run has not had yet, in seconds.
seconds_left() {
    elapsed=0
    if holds_run; then elapsed=$(saved elapsed_s); fi
    LC_ALL=C awk "BEGIN { left = 60 * $minutes - $elapsed; print (left > 0 ? left : 0) }"
}

is_done() {
    holds_run || return 1
    [ "$(saved step)" -ge "$steps" ] || { [ -n "$minutes" ] && time_is_over; }
}
# --max-time stops a little early: a fifth of the minutes that is left is not worth a start.
time_is_over() {
    least=0
    if grep -q '"end": {"status": "max-time"' "$out/run.json"; then least=$(LC_ALL=C awk "BEGIN { print 12 * $minutes }"); fi
    LC_ALL=C awk "BEGIN { exit !($(seconds_left) <= $least) }"
}

# The words as a shell would have them typed.
as_typed() {
    line=''
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./,=:+-]*) word="'$word'" ;; esac
        line="$line $word"
    done
    printf '%s\n' "${line# }"
}

# Of --minutes, a start after a failure has what is left.
more_options() {
    if [ -z "$minutes" ]; then return; fi
    left=$(seconds_left)
    if [ "$left" = 0 ]; then left=0.001; fi   # for train_gpt, 0 is no limit
    echo "--max-time $left"
}

# stopped STATUS: of a trainer that did not come to its end.
stopped() {
    if [ "$1" -eq 130 ]; then echo "Stopped. The same command goes on from there."; fi
    exit "$1"
}

# fit_steps COMMAND...: sets steps to as many as --minutes has time for, by the speed of a trial; a twentieth is left for evaluations. The trial has
# twelve steps, or as many as take a twentieth of the time.
fit_steps() {
    say "a trial of a few steps, for their speed"
    train "$@" -x 12 --max-time "$(LC_ALL=C awk "BEGIN { print 3 * $minutes }")" --eval-every 0 --eval-batches 1 --checkpoint-every 0 --log-every 1 \
        -o "$out.trial" >/dev/null || stopped "$?"
    speed=$(logged tokens_per_s "$out.trial" | tail -n 6 | LC_ALL=C awk '{ sum += $1 } END { print sum / NR }')
    rm -rf "$out.trial"
    steps=$(LC_ALL=C awk "BEGIN { n = int(60 * $minutes * 0.95 * $speed / $step_tokens); print (n > 1 ? n : 1) }")
    echo "$(grouped "${speed%.*}") tokens/s, so $(grouped "$steps") steps in $minutes minutes"
}

results() {
    say 'a sample'
    ./sample_gpt --model "$out" --max-tokens 256 ${prompt:+--prompt "$prompt"} ${device:+--device "$device"}
    say 'results'
    logged val_loss "$out" | LC_ALL=C awk '{ last = $1; if (NR == 1 || last < best) best = last }
        END { if (NR == 0) print "it has ended before its first evaluation; the line below makes one"
              else printf "validation loss %.4f, perplexity %.2f; at its best %.4f, perplexity %.2f\n", last, exp(last), best, exp(best) }'
    if [ -f "$out/curve.png" ]; then row curve "$out/curve.png"; else row curve "python3 scripts/plot.py $out"; fi
    if [ -f "$out/samples.txt" ]; then row samples "$out/samples.txt"; fi
    row sample "./sample_gpt --model $out --prompt '...'"
    row evaluate "./train_gpt --model $out --eval-only --eval-batches 0 -t $seq_len -i '$data/train*.bin' -j '$data/val*.bin'"
    row export "./train_gpt --model $out --export $out/export       # for Hugging Face transformers"
}

# recipe WORDS...: everything, with further options of train_gpt.
recipe() {
    out=out/$name ranks=1
    if [ -n "$short" ]; then
        out=out/short/$name title="$title; in short" steps=40 step_tokens=128 eval_tokens=1024 vocab=512
        options="$options --n-layer 2 --n-head 2 --n-kv-head 0 --n-embd 32 --n-hidden 64 --vocab-size 0 -t 32 --warmup 5 --eval-every 10 \
--checkpoint-every 10 --log-every 5"
    fi
    if [ "$needs_gpu" = yes ] && [ "$gpus" -eq 0 ] && [ -z "$short$(option '' --device "$@")" ]; then
        fail "there is no GPU here, and a CPU would need years; --short shows the recipe at work, and --device cpu starts it all the same"
    fi
    choose_data
    if [ "$all_gpus" = yes ] && [ "$gpus" -gt 1 ]; then ranks=$(power_of_two "$gpus"); fi
    set -- $options "$@"
    device=$(option '' --device "$@") seq_len=$(option -t --seq-len "$@")
    given=$(option '' --gpus "$@") ranks=${given:-$ranks}
    given=$(option -o --out "$@") out=${given:-$out}
    given=$(option -x --steps "$@") steps=${given:-$steps}
    if [ -n "$minutes" ] && [ -z "$given" ]; then
        steps=0   # found by a trial, or by the run's beginning
        if holds_run; then steps=$(saved steps); fi
    fi
    given=$(option '' --total-batch "$@") step_tokens=${given:-$step_tokens}

    plan=$(plan "$@" -b 1) || exit 1
    choose_batch "$(planned_number 'largest batch')"
    given=$(option -b --batch "$@") batch=${given:-$batch}
    plan=$(plan "$@" -b "$batch") || exit 1
    if is_done; then
        say "$out is done: $(saved step) steps; another -o begins a new run, more -x goes on with this one"
        results
        return
    fi
    announce "$@"
    have_data "$@"
    check_disk   # of which the data have taken theirs

    passes=$((eval_tokens / batch / seq_len))
    if [ -z "$(option -g --grad-accum "$@")$(option '' --batch-schedule "$@")" ]; then set -- --total-batch "$step_tokens" "$@"; fi
    if [ -z "$(option -i --train-data "$@")" ]; then set -- -i "$data/train*.bin" -j "$data/val*.bin" "$@"; fi
    if [ "$ranks" -gt 1 ]; then set -- --gpus "$ranks" "$@"; fi
    if [ -n "$prompt" ]; then set -- --sample-prompt "$prompt" "$@"; fi
    set -- ./train_gpt -b "$batch" --eval-batches "$((passes > 0 ? passes : 1))" -o "$out" "$@"
    if [ -n "$minutes" ]; then
        if [ "$steps" -eq 0 ]; then fit_steps "$@"; fi
        set -- "$@" --max-time "$(seconds_left)"
    fi
    set -- "$@" -x "$steps"
    if holds_run; then set -- "$@" --resume auto; fi
    say "training: $(as_typed "$@")"
    keep_training "$out" "$@" || stopped "$?"
    results
}

build_programs
find_gpus "$@"
