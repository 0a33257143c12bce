#!/bin/sh
# Tests of the command line: sh dev/cli_test.sh BIN [EMULATED], where BIN holds train_gpt, sample_gpt and tokenizer, and EMULATED is a train_gpt
# that has the CUDA backend in the emulator. They work in a directory of their own, on a text and on models that they make. Prints failures, a
# line a group, and last "N passed, N failed".
# shellcheck disable=SC2086   # $tiny and its like are commands with their arguments
LC_ALL=C
OMP_NUM_THREADS=2
OMP_WAIT_POLICY=passive   # threads that spin would starve each other where other programs run too
export LC_ALL OMP_NUM_THREADS OMP_WAIT_POLICY

bin=$(cd "${1:?usage: cli_test.sh BIN}" && pwd) || exit 1
emulated=${2:+$(cd "$(dirname "$2")" && pwd)/$(basename "$2")}
root=$(cd "$(dirname "$0")/.." && pwd)
meta_script=$root/data/nanogpt_meta.py
work=$(mktemp -d) || exit 1
process=
clean() {
    [ -n "$process" ] && kill -9 "$process" 2>/dev/null
    umount "$work/here/small" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/here" && cd "$work/here" || exit 1
ln -s "$bin" bin

. "$root/dev/shell_test.sh"

# ---- The text, its tokens, and the model that most tests use ----

write_text text
mkdir empty
# Without what takes longer than the training: it has tests of its own.
plain="--no-curve --sample-tokens 0"
tiny="bin/train_gpt -i data/train.bin -j data/val.bin --n-layer 2 --n-head 2 --n-embd 32 -t 16 -b 2 -g 1 -x 20 --warmup 5 --eval-batches 4 $plain"

group "tokenizer"
works "chars" bin/tokenizer chars --input text --out data
for file in train.bin val.bin characters.json dataset.json; do holds "chars writes $file" [ -s data/$file ]; done
bin/tokenizer encode --vocab data <text >tokens && bin/tokenizer decode --vocab data <tokens >decoded
holds "encode and decode give the text again" cmp text decoded
works "help" bin/tokenizer --help
refuses "no command" "chars, stats, encode or decode" bin/tokenizer
refuses "unknown command" "no command 'words'" bin/tokenizer words
refuses "unknown option" "no option '--inputs'" bin/tokenizer chars --inputs text
refuses "missing text" "missing.*No such file" bin/tokenizer chars --input missing --out x
refuses "fraction out of range" "between 0 and 1, not '1.5'" bin/tokenizer chars --input text --out x --val-fraction 1.5
refuses "fraction NaN" "between 0 and 1, not 'nan'" bin/tokenizer chars --input text --out x --val-fraction nan
refuses "out below a file" "cannot create the directory 'text'.*in the way" bin/tokenizer chars --input text --out text/x
printf 'caf\351' >latin1 && : >nothing
refuses "text that is no UTF-8" "line 1, character 4 .*not UTF-8" bin/tokenizer chars --input latin1 --out x
refuses "empty text" "empty" bin/tokenizer chars --input nothing --out x
refuses "no vocabulary" "no vocabulary in 'empty'" bin/tokenizer decode --vocab empty
refuses "a character that it lacks" "'standard input': line 2, character 3: .* is not among" sh -c 'printf "the\nse#a" | bin/tokenizer encode --vocab data'
refuses "a token that it lacks" "token number 2 is '999', which is no token number from 0 to" sh -c 'echo 1 999 | bin/tokenizer decode --vocab data'

# Documents, the same as text and as JSON lines; and a vocabulary of them, whose first 256 tokens are the bytes.
mkdir words && awk '{ printf("%s%s\n", NR % 7 == 1 && NR > 1 ? "<|endoftext|>\n" : "", $0) }' text >words/all.txt
awk 'NR % 7 == 1 { printf("%s{\"id\": %d, \"text\": \"", NR > 1 ? "\"}\n" : "", NR) } { printf "%s\\n", $0 } END { print "\"}" }' text >words/all.jsonl
head -c 300000 /dev/urandom >words/bytes
if bin/tokenizer train --input words/all.txt --vocab-size 320 --special "<|endoftext|>" --out pairs >/dev/null 2>"$work/stderr"; then
    group "tokenizer streams"
    encode="bin/tokenizer encode --vocab pairs"
    decode="bin/tokenizer decode --vocab pairs"
    works "encode a text" $encode --input words/all.txt --output tokens
    works "decode it" $decode --input tokens --output decoded
    holds "which gives it again" cmp words/all.txt decoded
    holds "in fewer tokens" [ "$(wc -w <tokens)" -lt $(($(size words/all.txt) / 2)) ]
    for format in text u16 u32; do
        $encode --format $format --threads 3 <words/bytes >tokens && $decode --format $format --bytes --threads 3 <tokens >decoded
        holds "any bytes as $format" cmp words/bytes decoded
    done
    holds "u32 takes twice the bytes of u16" [ "$(size tokens)" -eq $((2 * $($encode --format u16 <words/bytes | wc -c))) ]
    # More than a piece, cut where a special token, a word and a run of blanks may be.
    { for _ in 1 2 3 4 5 6 7 8 9; do cat words/all.txt words/bytes; done; printf '<|endoftext|>%070000d%70000s' 1 ' '; } >words/large
    for threads in 1 4; do $encode --threads $threads --format u16 <words/large >tokens$threads; done
    holds "threads change nothing" cmp tokens1 tokens4
    $decode --format u16 --bytes --output decoded <tokens4
    holds "a text of many pieces" cmp words/large decoded
    encodes() {
        printf "$1" >words/one
        shift
        [ "$($encode "$@" <words/one)" = "$expected" ]
    }
    expected="319 65" && holds "a special token" encodes '<|endoftext|>A'
    expected="65 320 66 321" && holds "more of them" encodes 'A<a>B<b>' --special '<a>' '<b>'
    holds "as decode has them" [ "$(echo 65 320 66 321 | $decode --special '<a>' --special='<b>')" = 'A<a>B<b>' ]
    holds "letters like others" [ "$(printf '<|endoftext|>' | $encode --ordinary | wc -w)" -gt 5 ]
    expected="" && holds "nothing" encodes ''
    printf 'H\357\277\275i\357\277\275' >words/one && echo 72 195 105 240 159 | $decode >decoded
    holds "what is no UTF-8 is replaced" cmp words/one decoded
    printf 'H\303i\360\237' >words/one && echo 72 195 105 240 159 | $decode --bytes >decoded
    holds "but not with --bytes" cmp words/one decoded
    refuses "token beyond the vocabulary" "'standard input': token number 3 is '320', which is no token number from 0 to 319" sh -c "echo 1 2 320 | $decode"
    refuses "a word" "token number 2 is '-2'" sh -c "printf '1\n-2 3' | $decode"
    refuses "bytes for numbers" "token number [0-9]+ is '.*', which is no token" sh -c "$decode <words/bytes"
    refuses "token beyond it in u16" "token number 2 is '65535'" sh -c "printf '\101\000\377\377' | $decode --format u16"
    refuses "half a token" "ends within token number 2" sh -c "printf '\101\000\102' | $decode --format u16"
    refuses "format" "--format is 'u8'; expected text, u16 or u32" $encode --format u8
    refuses "no threads" "--threads is '0'; expected a whole number from 1" $encode --threads 0
    refuses "no vocabulary given" "the command encode needs --vocab" bin/tokenizer encode
    refuses "missing vocabulary" "no directory 'nowhere'" bin/tokenizer encode --vocab nowhere
    [ -e gpt2 ] || refuses "GPT-2's, which is not there" "data/prepare.py gpt2" bin/tokenizer encode --vocab gpt2
    mkdir halfpairs && cp pairs/vocab.json halfpairs
    refuses "vocabulary without merges" "merges.txt" bin/tokenizer encode --vocab halfpairs
    refuses "special characters" "vocabulary of characters, which has no special tokens" bin/tokenizer encode --vocab data --special x
    refuses "two inputs" "--input is given twice, as 'text' and as 'tokens'" $encode --input text --input tokens
    refuses "missing input" "cannot open 'missing'" $encode --input missing
    refuses "a directory" "tokenizer: cannot read 'empty': Is a directory" $encode --input empty
    mkfifo pipe && timeout 60 cat pipe >through &
    reader=$!
    until [ -p pipe ]; do sleep 0.01; done
    $encode --input words/all.txt --output pipe && wait $reader
    $encode --input words/all.txt --output - >tokens
    holds "a pipe as output stays one" [ -p pipe ]
    holds "and gets what standard output does" cmp through tokens
    : >tokens.old && ln -s tokens.old link
    works "a link as output" $encode --input words/all.txt --output link
    holds "stays one" [ -h link ]
    holds "to what was written" cmp tokens.old tokens
    ln -sf nowhere link
    refuses "a link to nothing" "link to what is not there" $encode --input words/all.txt --output link
    refuses "a directory as output" "cannot write 'empty': Is a directory" $encode --input words/all.txt --output empty
    rm pipe through link tokens.old
    refuses "output that cannot be" "cannot create 'missing/tokens'" $encode --input text --output missing/tokens
    fails "standard output is full" "cannot write standard output: No space left" sh -c "$encode --input words/large >/dev/full"
    fails "the same of tokens" "cannot write standard output: No space left" sh -c "$decode --format u16 --input tokens4 >/dev/full"
    echo 1 2 x >tokens
    cp decoded before
    fails "a token that it lacks leaves the older output" "token number 3" $decode --input tokens --output decoded
    holds "as it was" cmp before decoded
    holds "and nothing beside it" [ ! -e decoded.tmp ]
    rm before

    group "tokenizer shards"
    shards="bin/tokenizer shards --vocab pairs"
    works "shards of a text" $shards --input words/all.txt --out set --val-fraction 0.2 --shard-tokens 2000
    for file in train_000000.bin train_000001.bin val_000000.bin dataset.json tokenizer.json; do holds "shards writes $file" [ -s set/$file ]; done
    works "of JSON lines" $shards --input words/all.jsonl --out lines --val-fraction 0.2 --shard-tokens 2000 --source words/all.txt --threads 1
    holds "the same" diff -r set lines
    works "of JSON lines on standard input" sh -c "$shards --input - --out piped --val-fraction 0.2 --shard-tokens 2000 --source words/all.txt <words/all.jsonl"
    holds "the same again" diff -r set piped
    count() { sed -nE "s/.*\"$1\": \{\"train\": ([0-9]+), \"val\": ([0-9]+)\}.*/\1 + \2/p" $2/dataset.json; }
    holds "every document is somewhere" [ $(($(count documents set))) -eq "$(wc -l <words/all.jsonl)" ]
    holds "every byte is" [ $(($(count bytes set))) -eq $(($(size text) + 1)) ]   # the newline that its end lacks
    tail -q -c +1025 set/train_*.bin set/val_*.bin | $decode --format u16 | tr -d '\n' | awk 'BEGIN { RS = "<" } { sub(/^.*>/, ""); print }' | sort >found
    tr -d '\n' <words/all.txt | awk 'BEGIN { RS = "<" } { sub(/^.*>/, ""); print } END { print "" }' | sort >expected
    holds "documents are whole" cmp expected found
    works "a model of them" bin/train_gpt -i 'set/train_*.bin' -j 'set/val_*.bin' --n-layer 1 --n-head 1 --n-embd 16 -t 16 -b 2 -g 1 -x 2 --eval-batches 2 $plain -o setrun
    printf '\342\202\254 \377x' >words/prompt && printf '\342\202\254 \357\277\275x' >expected
    works "a prompt that is no UTF-8" bin/sample_gpt --model setrun --max-tokens 50 --prompt FILE:words/prompt
    head -c 8 "$work/stdout" >found
    holds "comes back as UTF-8, a character of several tokens whole" cmp expected found
    holds "and so does the text" iconv -f UTF-8 -t UTF-8 "$work/stdout"
    works "again" $shards --input words/all.txt --out set
    says "nothing is done" "'set' holds a dataset already; --force"
    untouched "again changes nothing"
    works "by force, another seed" $shards --input words/all.txt --out lines --val-fraction 0.2 --shard-tokens 2000 --seed 1 --force
    holds "other documents" [ -n "$(cmp set/val_000000.bin lines/val_000000.bin 2>&1)" ]
    works "the first documents for validation" $shards --input words/all.txt --out lines --val-documents 3 --force
    says "three" "^validation: 3 documents"
    holds "shards of the older set are gone" [ "$(echo lines/*.bin)" = "lines/train_000000.bin lines/val_000000.bin" ]
    works "a text for validation" $shards --input words/all.txt --val-input words/all.jsonl --out lines --force
    holds "all of it" [ "$(count documents lines)" = "$(wc -l <words/all.jsonl) + $(wc -l <words/all.jsonl)" ]
    { head -2 words/all.jsonl; echo '{"text": 1}'; echo '{"text": "a"'; tail -1 words/all.jsonl; } >words/bad.jsonl
    fails "a line without text" "words/bad.jsonl, line 3: there is no text under \"text\".*--skip-bad" $shards --input words/bad.jsonl --out x
    fails "another field" "line 1: there is no text under \"words\"" $shards --input words/bad.jsonl --out x --field words
    works "without the bad lines" $shards --input words/bad.jsonl --out skipped --skip-bad --val-documents 1
    says "which are counted" "left out: 2 bad lines"
    copy set before
    fails "a broken line leaves the older set" "line 3" $shards --input words/bad.jsonl --out set --force
    holds "in place" diff -r before set
    fails "one document" "of 1 documents 1 are for training and 0 for validation" sh -c "mv text text.txt; $shards --input text.txt --out x; s=\$?; mv text.txt text; exit \$s"
    : >words/nothing.txt
    fails "no text" "there is no text in 'words/nothing.txt'" $shards --input words/nothing.txt --out x
    holds "of which nothing is left" [ ! -e x ]
    refuses "parquet" "'words/all.parquet' is neither NAME.txt nor NAME.jsonl" $shards --input words/all.parquet --out x
    refuses "two ways to choose" "only one" $shards --input words/all.txt --out x --val-documents 3 --val-fraction 0.1
    refuses "characters" "'data' is a vocabulary of characters; the command chars" $shards --vocab data --input words/all.txt --out x
    refuses "beside characters" "'data' holds a dataset of characters" $shards --input words/all.txt --out data --force
    bin/tokenizer train --input words/all.txt --vocab-size 300 --out plain >/dev/null
    refuses "a vocabulary without end of text" "has no token <.endoftext.>.*--special" $shards --vocab plain --input words/all.txt --out x
    mkdir small
    if mount -t tmpfs -o size=100k tmpfs small 2>/dev/null; then
        works "a small disk" $shards --input words/all.jsonl --out small/set --val-documents 2
        copy small/set before
        cat words/large words/large >words/large.txt
        fails "full disk" "cannot write 'small/set/new.tmp/train_00000[0-9].bin': No space left" $shards --input words/large.txt --out small/set --force --val-documents 1
        holds "full disk: the older set stays" diff -r before small/set
        rm words/large.txt
        umount small
    fi
    rmdir small

    group "tokenizer stats"
    works "stats" bin/tokenizer stats --vocab pairs plain --input words/all.txt words/all.jsonl --documents 50
    holds "a line for each pair" [ "$(grep -Ec '^words/all.(txt|jsonl) +(pairs|plain) +3[0-9]+ +50 +[0-9.]+ +[1-9][0-9.]+ +[0-9.]+ +[0-9.]+ (min|h|days)$' "$work/stdout")" -eq 4 ]
    works "stats of characters" bin/tokenizer stats --vocab data --input words/all.jsonl
    fails "stats of a broken line" "line 3: there is no text under .text.; --field names another$" bin/tokenizer stats --vocab pairs --input words/bad.jsonl
    fails "stats of no text" "there is no text in 'words/nothing.txt'" bin/tokenizer stats --vocab pairs --input words/nothing.txt
    refuses "stats of nothing" "needs --vocab" bin/tokenizer stats --vocab pairs
elif grep -q PCRE2 "$work/stderr"; then
    echo "command line, byte pairs: left out ($(cat "$work/stderr"))"
else
    fail "train" "no vocabulary was made"
fi

# ---- Training works ----

group "options"
works "help" bin/train_gpt --help
while read -r shown; do says "help names $shown" "(^| |,)$shown( |$)"; done <<LIST
-e, --pos
-g, --grad-accum
-b, --batch
-t, --seq-len
-l, --lr
-i, --train-data
-j, --val-data
-o, --out
-x, --steps
-m, --model
-s, --seed
--n-layer
--n-head
--n-kv-head
--head-size
--n-embd
--vocab-size
--max-seq-len
--bias
--tie
--rope-base
--rope-layout
--optimizer
--beta1
--beta2
--eps
--schedule
--warmup
--decay-steps
--min-lr
--weight-decay
--grad-clip
--dropout
--eval-every
--eval-batches
--log-every
--checkpoint-every
--keep
--resume
--total-batch
--device
--dtype
--deterministic
--attention
--tf32
--autotune
--algorithms
--graphs
--residual
--recompute
--head-chunks
--config
--plan
--profile
--eval-only
--max-time
LIST
untouched "help writes nothing"
works "plan" $tiny --plan
says "plan counts parameters" "^parameters +[1-9]"
says "plan counts memory" "^memory .*(KiB|MiB|GiB)"
says "plan names the largest batch" "^largest batch +[1-9]"
untouched "plan writes nothing"
for printed in --plan --print-config; do
    fails "$printed on a full disk" "standard output could not be written: No space left" sh -c "exec $tiny $printed >/dev/full"
done
for choice in "-e learned" "-e none --no-bias" "--rope-layout half --n-kv-head 1" "--no-tie --head-size 6" \
    "--activation relu --init-scheme xavier" "--activation gelu-erf --init-scheme kaiming" "--optimizer sgd" \
    "--schedule linear" "--schedule wsd" "--schedule inverse-sqrt" \
    "--schedule sqrt-decay --warmup 0" "--dropout 0.2 --n-hidden 50" "--grad-clip 0 --weight-decay 0" "--data-order shards" "--check-numerics" \
    "--recompute mlp" "--recompute norm" "--recompute block" "--head-chunks 3"; do
    works "train $choice" $tiny -x 4 -o choice $choice
done
works "profile" $tiny -x 2 -o choice --profile
says "profile has a line for an op" "^attention_forward +[0-9]+ "
printf '# a comment\nlr = 1e-3   # another\n\nn_embd=16\nn-layer = 1\nsteps = 3\n' >good.conf
works "config" $tiny --n-embd 32 --config good.conf -o config
says "the command line wins over the file" "2 layers, 2 heads, 32 channels"
says "the file wins over the default" "peak lr 0.001"
printf '\357\273\277sample-tokens = 9\nsample_prompt = "the sea"   # a prompt\ntie = 0\ngpus = 2\ndevice = cpu\ncomm = tcp\n' >ranks.conf
works "ranks, a prompt and a mark in a file" ${tiny% --no-curve*} --no-curve --config ranks.conf -x 2 -o config
says "two ranks" "^ranks +2 over tcp"
holds "all of the prompt" grep -q '"sample_prompt": "the sea"' config/run.json
works "the command line wins there too" ${tiny% --no-curve*} --no-curve --config ranks.conf --gpus 1 --comm auto -x 2 -o config
holds "one rank" sh -c "! grep -q '^ranks' '$work/stdout'"
works "a plan of ranks on paper" $tiny --plan --gpus 8
says "of so many" "^tokens per step +256 +\(ranks 8 x grad-accum 1 x batch 2 x seq-len 16\)"
works "a plan of steps that grow" ${tiny%-g 1*} ${tiny#*-g 1} --plan --batch-schedule 0:2,10:64
says "from the first to the largest" "^tokens per step +64 +\(grad-accum 2 x batch 2 x seq-len 16; up to 2,048 at grad-accum 64\)"
largest() { $tiny --plan --plan-memory "$1" | sed -n 's/^largest batch *\([0-9]*\).*/\1/p'; }
holds "a plan of more memory has a larger batch" [ "$(largest 2)" -gt "$(largest 1)" ]
works "a preset's warm-up on few steps" bin/train_gpt -m gpt2-124M --n-layer 1 --n-head 1 --n-embd 16 -i data/train.bin -j data/val.bin -t 16 -b 1 -g 1 -x 10 \
    --max-time 1e-9 $plain -o choice
says "is shorter, and said" "^note +a warm-up of 1 steps, not 700: at most a tenth of the schedule"
holds "and kept" grep -q '"warmup": 1,' choice/run.json
works "the default's" bin/train_gpt --n-layer 1 -i data/train.bin -j data/val.bin -t 16 -b 1 -g 1 -x 1 $plain -o choice
says "stays, as a run that is to be longer has it, but is said" "^note +the peak lr is never reached: the warm-up takes 50 steps, and the run has 1$"
works "a warm-up as long as the run" $tiny -x 5 -o choice
says "is said" "^note +the peak lr is never reached: the warm-up takes 5 steps, and the run has 5"
works "and one that is not" $tiny -x 6 -o choice
holds "is not" sh -c "! grep -q '^note.*peak' '$work/stdout'"
works "the vocabulary's size by hand" $tiny -x 2 -o choice --vocab-size 200
works "a glob and a directory of shards" $tiny -x 2 -o choice -i 'data/trai[n].bin' -j data
holds "of which the validation tokens are taken" grep -Eq '"val": \{"path": "data", "files": 1,' choice/run.json
works "a directory to train on" ${tiny%% -i *} -i data ${tiny#*val.bin} -x 2 -o choice
holds "but its validation tokens, which are for that" grep -Eq '"train": \{"path": "data", "files": 1,.*"val": \{"path": "data", "files": 1,' choice/run.json
holds "of one text both" [ "$(grep -o '"tokens": [0-9]*, "crc32"' choice/run.json | sort -u | wc -l)" -eq 2 ]

group "refused options"
refuses "unknown flag" "unknown option '--n-layers'; the nearest is --n-layer " $tiny --n-layers 3
refuses "unknown letter" "unknown option '-q'" $tiny -q 3
refuses "stray word" "unexpected argument 'fast'" $tiny fast
refuses "a pattern without quotes" "unexpected argument 'data/val.bin'; .* stands in quotes" $tiny -i data/*.bin
refuses "an option for a value" "--out needs a value, and '--quiet' looks like another option; if it is the value, write --out=--quiet" $tiny -o --quiet
refuses "a decay that ends in the warm-up" "--decay-steps 5 is the step at which the decay ends, and --warmup 6 is not over before" \
    $tiny -x 12 --warmup 6 --decay-steps 5
refuses "a decay longer than the run" "--decay-steps 30 is the length of the decay .* 20 --steps in all" $tiny --schedule wsd --decay-steps 30
refuses "a decay upwards" "--min-lr 0.1, at which the decay ends, is above the peak, --lr 0.01" $tiny --lr 1e-2 --min-lr 0.1
refuses "value left out" "--lr needs a value" $tiny --lr
refuses "no number" "--lr is 'fast'; expected a number from 0 to 1000" $tiny --lr fast
refuses "number too large" "--lr is '1e9'; expected a number from 0 to 1000" $tiny --lr 1e9
refuses "number too small" "--batch is '0'; expected a whole number from 1" $tiny -b 0
refuses "no whole number" "--steps is '1.5'; expected a whole number" $tiny --steps=1.5
refuses "NaN" "--dropout is 'nan'; expected a number" $tiny --dropout nan
refuses "infinite" "--lr is 'inf'; expected a number" $tiny --lr inf
refuses "empty value" "--lr is ''; expected a number" $tiny --lr=
refuses "none of the choices" "--pos is 'alibi'; expected one of learned\|rope\|none" $tiny -e alibi
refuses "neither 0 nor 1" "--bias is '2'; expected 0 or 1" $tiny --bias=2
printf 'lr = 1e-3\n\nwarm_ups = 3\n' >key.conf && printf 'lr = 1e-3\nseed = NaN\n' >value.conf && printf 'lr 3\n' >equals.conf
refuses "unknown key in a file" "key.conf, line 3: unknown option 'warm_ups'; the nearest is --warmup" $tiny --config key.conf
refuses "bad value in a file" "value.conf, line 2: --seed is 'NaN'; expected a whole number" $tiny --config value.conf
refuses "line without =" "equals.conf, line 1: .*no '='" $tiny --config equals.conf
refuses "missing file of options" "missing.conf" $tiny --config missing.conf
printf 'config = value.conf\n' >more.conf && printf 'no_tie = 1\n' >negated.conf
refuses "a file of options in another" "more.conf, line 1: a file of options names no other" $tiny --config more.conf
refuses "an option's opposite in a file" "negated.conf, line 1: 'no_tie' is for the command line; in a file write tie = 0" $tiny --config negated.conf
refuses "binary file of options" "zero byte" $tiny --config data/train.bin
refuses "n-head does not divide n-embd" "--n-head 3 does not divide --n-embd 32" $tiny --n-head 3
refuses "key/value heads do not divide heads" "4 key/value heads do not divide 2" $tiny --n-kv-head 4
refuses "odd head size with RoPE" "head size is 5; choose an even" $tiny --head-size 5
works "odd head size without RoPE" $tiny -x 2 -o choice --head-size 5 -e learned
refuses "T beyond the learned table" "--seq-len 16 is beyond the learned position table of 8 rows; use a shorter one, a larger --max-seq-len, or --pos rope" $tiny -e learned --max-seq-len 8
refuses "total-batch no multiple" "--total-batch 100 is not a multiple of batch x seq-len = 32" $tiny --total-batch 100
for schedule in 5:2 0:0 0:1,0:2 0:1,9 0:x words; do
    refuses "batch-schedule $schedule" "--batch-schedule is '$schedule'; expected STEP:MICRO-BATCHES" $tiny --batch-schedule $schedule
done
for pair in "-g 2 --total-batch 128=--total-batch 128 is 4 micro-batches, and --grad-accum says 2; give one" \
    "-g 2 --batch-schedule 0:1,3:2=--grad-accum 2 and --batch-schedule 0:1,3:2 both say how many micro-batches" \
    "--total-batch 32 --batch-schedule 0:1,3:2=--total-batch 32 and --batch-schedule 0:1,3:2 both say how large a step is" \
    "--profile --check-numerics=--profile times ops, and --check-numerics makes them slow" \
    "--overfit --eval-only=--overfit trains, and --eval-only does not" \
    "--overfit --batch-schedule 0:1,5:2=--overfit trains on one batch, and --batch-schedule changes its size"; do
    refuses "${pair%%=*}" "${pair#*=}.*" bin/train_gpt -i data/train.bin -j data/val.bin -t 16 -b 2 ${pair%%=*}
done
printf 'total_batch = 128\n' >total.conf && printf 'batch_schedule = 0:1,3:2\n' >schedule.conf
works "a step's size in a file and another on the command line" $tiny --config total.conf -x 2 -o choice
says "the command line wins" "^step +1 micro-batches x 2 rows"
works "the same of a schedule" $tiny --config schedule.conf -x 2 -g 3 -o choice
says "the command line wins" "^step +3 micro-batches x 2 rows"
refuses "two sizes in a file" "--total-batch 128 and --batch-schedule 0:1,3:2 both" sh -c "cat total.conf schedule.conf >both.conf; touch $work/stamp; exec $tiny --config both.conf"
# idle OPTIONS=REASON: trains, and one line on stderr says that the first of the options changes nothing.
idle() {
    run $tiny -x 1 -o choice ${1%%=*}
    option=${1%%[ =]*}
    holds "$1: one line" [ "$status" -eq 0 -a "$(wc -l <"$work/stderr")" -eq 1 ]
    holds "$1: says so" grep -q -e "^train_gpt: warning: $option changes nothing: ${1#*=}" "$work/stderr"
}
for pair in "--attention own --device cpu=it is for GPUs" "--tf32 --device cpu=it is for GPUs" "--graphs --device cpu=it is for GPUs" \
    "--autotune --device cpu=it is for GPUs" "--algorithms kept.txt --device cpu=it is for GPUs" \
    "--beta1 0.5 --optimizer sgd=it is AdamW's" "--min-lr 1e-5 --schedule constant=that --schedule" \
    "--decay-steps 9 --schedule sqrt-decay --warmup 0=that --schedule" "--rope-base 20 -e learned=--pos is not rope" \
    "--rope-layout half -e none=--pos is not rope" "--qkv-bias=without --no-bias" "--norm-eps 1e-6 --norm none=there are no norms" \
    "--hellaswag-limit 3=there is no --hellaswag" "--sample-every 3=--sample-tokens is 0" "--link-speed 3=it is for --plan" \
    "--plan-memory 3=it is for --plan"; do
    idle "$pair"
done
works "what is as it would be anyway" $tiny -x 1 -o choice --no-tf32 --no-graphs --algorithms= --attention auto --zero 1
works "batch-schedule of very many steps" $tiny --batch-schedule 0:1,200:4 -x 1000000000 --plan
refuses "unknown device" "--device 'tpu' is not in this build" $tiny --device tpu
if ! $tiny --device cuda --plan >/dev/null 2>&1; then
    refuses "cuda where there is none" "--device 'cuda' (is not in this build|cannot be used here: .*); there is: .*cpu" $tiny --device cuda
fi
bf16=
if $tiny --dtype bf16 --plan >/dev/null 2>&1; then bf16=1; else refuses "bf16 where there is none" "use --dtype fp32" $tiny --dtype bf16; fi
refuses "unknown preset" "--model 'gpt5' is neither a preset \(baby, .*\) nor a directory" bin/train_gpt -m gpt5
refuses "directory without a model" "empty holds no model" bin/train_gpt -m empty
refuses "eval-only without a model" "--eval-only needs a trained model" $tiny --eval-only
refuses "a model larger than any memory" "of memory.*, but only .* are free; choose a smaller" \
    $tiny --n-layer 1024 --n-head 128 --n-embd 16384 --n-hidden 1048576
refuses "a batch larger than any memory" "of memory.*, but only .* are free; --batch [1-9][0-9]* fits" $tiny -b 65536 -t 2000
refuses "no such attention" "--attention is 'fast'; expected one of auto\|own\|cudnn\|plain" $tiny --attention fast
refuses "cuDNN on the CPU" "--attention cudnn is for the cuda device" $tiny --device cpu --attention cudnn

group "refused data"
refuses "missing" "no token file 'missing.bin'" $tiny -i missing.bin
refuses "missing shards" "no token file 'missing/train_\*.bin'; prepare data with data/prepare.py" $tiny -i 'missing/train_*.bin'
refuses "missing validation data" "no token file 'missing.bin'" $tiny -j missing.bin
refuses "directory without shards" "'empty' holds no token shards" $tiny -i empty --vocab-size 60
mkdir bad
head -c 2001 data/train.bin >bad/cut.bin && head -c 100 data/train.bin >bad/header.bin && : >bad/empty.bin
{ cat data/train.bin && printf 'xx'; } >bad/long.bin
cp data/train.bin bad/token.bin && put bad/token.bin $(($(size bad/token.bin) - 1)) 255
cp data/train.bin bad/version.bin && put bad/version.bin 4 9
head -c 1024 data/train.bin >bad/none.bin && put bad/none.bin 8 0 && put bad/none.bin 9 0 && put bad/none.bin 10 0
refuses "cut off" "bad/cut.bin' is damaged: its header counts [0-9]+ tokens" $tiny --vocab-size 60 -i bad/cut.bin
refuses "cut off within the header" "bad/header.bin' is cut off: it has 100 bytes" $tiny --vocab-size 60 -i bad/header.bin
refuses "empty" "bad/empty.bin' is empty" $tiny --vocab-size 60 -i bad/empty.bin
refuses "too long" "bad/long.bin' is damaged: its header counts" $tiny --vocab-size 60 -i bad/long.bin
refuses "another version" "bad/version.bin' is a token shard of version 9" $tiny --vocab-size 60 -i bad/version.bin
refuses "no tokens" "bad/none.bin' holds no tokens" $tiny --vocab-size 60 -i bad/none.bin
refuses "a text" "'text' is no file of uint16 tokens|'text': the token at offset 0 is" $tiny --vocab-size 60 -i text
refuses "a text, the vocabulary unknown" "vocabulary size is unknown.*give --vocab-size" $tiny -i text
large="bad/token.bin': the token at offset [0-9]+ is 65[0-9]+, but the vocabulary has 60"
refuses "token beyond the vocabulary" "$large" $tiny --vocab-size 60 -i bad/token.bin
refuses "the same in validation" "$large" $tiny --vocab-size 60 -j bad/token.bin
refuses "vocabulary smaller than the data's" "data has a vocabulary of [0-9]+ tokens, the model one of 20" $tiny --vocab-size 20
refuses "text shorter than a row" "fewer than the [0-9]+ that a row needs" $tiny -t 100000
copy data broken && printf '{"vocab_size": -1}' >broken/dataset.json
refuses "broken description" "broken/dataset.json'.*vocab_size must be" $tiny -i broken/train.bin
nano="$tiny -i nano/train.bin -j nano/val.bin"
mkdir nano && tail -c +1025 data/train.bin >nano/train.bin && tail -c +1025 data/val.bin >nano/val.bin
refuses "headerless, vocabulary unknown" "no dataset.json lies beside nano/train.bin; give --vocab-size" $nano
refuses "headerless, vocabulary too small" "is [0-9]+, but the vocabulary has 9 tokens" $nano --vocab-size 9
works "headerless with --vocab-size" $nano --vocab-size 60 -o nano/out
$tiny --vocab-size 60 -o nano/same >/dev/null
holds "headerless files hold the same tokens" same_state nano/out nano/same
if python3 -c '
import json, pickle
characters = json.load(open("data/characters.json"))["characters"]
meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": {c: i for i, c in enumerate(characters)}}
pickle.dump(meta, open("nano/meta.pkl", "wb"))' 2>/dev/null; then
    works "nanogpt_meta.py" python3 "$meta_script" nano
    works "headerless with its description" $nano -o nano/out
    $tiny -o nano/same >/dev/null
    holds "the description gives the same vocabulary" same_state nano/out nano/same
    works "its text" bin/sample_gpt --model nano/out --max-tokens 20 --prompt "the sea"
    says "its text begins with the prompt" "^the sea"
fi

# ---- A run and its files ----

group "runs"
works "train" $tiny --log-every 1 --eval-every 5 --checkpoint-every 5 --keep 2 --lr 1e-2 -o run
says "and steps" "^step +1 micro-batches x 2 rows x 16 tokens = 32 tokens; 20 steps of AdamW, peak lr 0.01$"
says "the banner counts parameters" "2 layers, 2 heads, 32 channels, vocabulary [0-9]+, RoPE, [0-9,]+ parameters"
says "the banner names the source" "from text"
says "the end names the best loss" "^done: best validation loss [0-9.]+; the model is in run/best"
keys_complete() {
    awk '{ for (i = split("step loss lr grad_norm tokens_per_s ms elapsed_s", key, " "); i > 0; i--)
               if (!index($0, "\"" key[i] "\": ")) bad = 1 }
         !/^\{.*\}$/ || ((NR % 5 == 0) != (/"train_loss": [0-9]/ && /"val_loss": [0-9]/)) || !index($0, "{\"step\": " NR ",") { bad = 1 }
         END { exit bad || NR != 20 }' "$1/log.jsonl"
}
holds "the log has every step once, with its keys" keys_complete run
best_is_best() {
    step=$(sed -nE 's/.*"step": ([0-9]+).*"val_loss": ([0-9.]+).*/\2 \1/p' run/log.jsonl | sort -n | sed -n '1s/.* //p')
    [ "$(readlink run/best)" = "$(printf 'step_%08d' "$step")" ]
}
holds "best is the checkpoint of the lowest validation loss" best_is_best
holds "the last two are kept" [ -e run/step_00000015/state.json -a -e run/step_00000020/state.json -a ! -e run/step_00000005 ]
holds "last is the newest" [ "$(readlink run/last)" = step_00000020 ]
works "eval-only of a run's newest state" bin/train_gpt --eval-only --resume auto -o run
says "it gives the loss of the log" "val loss $(printf %.4f "$(sed -nE '$s/.*"val_loss": ([0-9.]+).*/\1/p' run/log.jsonl)") "
untouched "eval-only writes nothing"
says "its banner names the weights" "^weights run/step_00000020$"
holds "and nothing of training" [ -z "$(grep -E '^(step|run) ' "$work/stdout")" ]
fails "eval-only on a full disk" "standard output could not be written: No space left" \
    sh -c "exec bin/train_gpt --eval-only --resume auto -o run >/dev/full"
works "eval-only of a model" bin/train_gpt --eval-only --model run/last -i data/train.bin -j data/val.bin
says "it prints losses and perplexity" "^train loss [0-9.]+ \| val loss [0-9.]+ \| val ppl [0-9.]+"
works "the same again, into another directory" $tiny --log-every 1 --eval-every 5 --checkpoint-every 5 --keep 2 --lr 1e-2 -o again
holds "the weights are the same" same_state run again
holds "the logs are the same, times aside" same_log run again
works "another seed" $tiny -o again2 -s 7
holds "another seed gives other weights" [ -n "$(same_state again again2 2>&1)" ]
works "a second run into one directory" $tiny -x 3 -o again
says "it tells where the older one is" "earlier run in again is kept as again.1"
holds "the older run is whole" same_state run again.1
works "a third, the name ending in /" $tiny -x 3 -o again/
holds "the second is kept" [ -e again.2/last/state.json -a "$(readlink again.2/last)" = step_00000003 ]
works "no steps" $tiny -x 0 -o zero
works "its state is the first one" bin/train_gpt --resume auto -x 2 -o zero

refuses "out is a file" "directory 'text'.*in the way" $tiny -o text
refuses "out lies below a file" "cannot create the directory 'text'.*in the way" $tiny -o text/run
refuses "out cannot be made" "cannot create the directory '/proc/run'" $tiny -o /proc/run
refuses "a refused command leaves the older run in place" "expected a number" $tiny -o run --lr x
refuses "bad data leave the older run in place" "no token file" $tiny -o run -i missing.bin

group "a directory of more than a run"
# ends_at RUN STEP: a whole run, of so many steps.
ends_at() { [ "$(readlink "$1/last")" = "step_0000000$2" -a -s "$1/last/state.json" -a -s "$1/log.jsonl" -a -s "$1/run.json" -a -e "$1/best/state.json" ]; }
works "a run" $tiny -x 2 -o nest
echo mine >nest/notes
$tiny --schedule constant -x 1000000 --eval-every 0 --checkpoint-every 20 -o nest/inner >"$work/first" 2>&1 &
process=$!
wait_for [ -e nest/inner/last ]
works "the outer one anew, while one below it trains" $tiny -x 3 -o nest
says "it tells where the older one is" "earlier run in nest is kept as nest.1$"
holds "the older one is whole" ends_at nest.1 2
holds "so is the new one" ends_at nest 3
holds "the older one left nothing" [ ! -e nest/step_00000002 ]
holds "what is not the run's stayed" [ "$(cat nest/notes)" = mine -a ! -e nest.1/notes -a ! -e nest.1/inner ]
newest=$(readlink nest/inner/last)
holds "the one below goes on, where it was" wait_for sh -c "[ \$(readlink nest/inner/last) != $newest ]"
kill -TERM $process
wait $process
status=$?
process=
holds "to its end" [ $status -eq 130 ]
stopped_at=$(readlink nest/inner/last | sed 's/step_0*//')
works "and can be resumed" bin/train_gpt --resume auto -o nest/inner -x $((stopped_at + 5))
# Killed after some of the older run was moved, and after all of it was.
rm -rf nest/inner
copy nest before && rm before/notes before/.lock
mkdir nest.2.moving && mv nest/step_00000003 nest/best nest.2.moving
works "a new one after a kill while the older one was moved" $tiny -x 4 -o nest
holds "the older one is put together again" diff -r --no-dereference before nest.2
holds "the new one is whole" ends_at nest 4
holds "nothing else is left" [ ! -e nest.2.moving -a ! -e nest.3 ]
copy nest before && rm before/notes before/.lock
mkdir nest.3.moving && for file in before/*; do mv "nest/${file#before/}" nest.3.moving; done
works "a new one after a kill just before the end of that" $tiny -x 5 -o nest
holds "the older one has its name" diff -r --no-dereference before nest.3
works "a run by itself" $tiny -x 2 --sample-tokens 5 -o alone
: >alone/curve.png && : >alone/.curve.png && mkdir alone/damaged_step_00000001 alone/.writing-step_00000003
inode=$(stat -c %i alone)
works "again" $tiny -x 3 -o alone
holds "moves as a whole" [ "$(stat -c %i alone.1)" = "$inode" -a -e alone.1/damaged_step_00000001 ]
mkdir -p scratch/there && ln -s scratch/there linked
works "a run in a directory behind a link" $tiny -x 2 -o linked
works "again" $tiny -x 3 -o linked/
says "the older one is beside what the link points to" "earlier run in linked is kept as .*/scratch/there.1$"
holds "whole" ends_at scratch/there.1 2
holds "the link stays" [ -h linked -a -d scratch/there ]
holds "and the new run is behind it" ends_at scratch/there 3
holds "nothing came beside the link" [ ! -e linked.1 ]
works "resumed by its other name" bin/train_gpt --resume scratch/there/last -o linked -x 4
works "a run in the working directory" sh -c "cd scratch/there && exec $(echo "$tiny" | sed "s,bin/,$bin/,; s,data/,$work/here/data/,g") -x 2 -o ."
holds "the older one goes beside it" ends_at scratch/there.2 4
holds "the new one is there" ends_at scratch/there 2
another="holds another run than the one that .* is of, and would mix the two; give -o scratch/there to go on with the run that it is of, or a new directory"
refuses "to go on in the directory of another run" "^train_gpt: alone $another" bin/train_gpt --resume scratch/there/last -o alone -x 9
works "a run below a run" $tiny -x 2 -o alone/below
refuses "to go on above it" "^train_gpt: alone holds another run.* give -o alone/below to" bin/train_gpt --resume alone/below -o alone -x 9
copy alone/below/last loose
refuses "from a checkpoint of no run" "alone holds another run than the one that loose is of, and would mix the two; give a new directory" \
    bin/train_gpt --resume loose -o alone -x 9
works "but not where no run is" bin/train_gpt --resume loose -o scratch -x 3
rm -rf nest nest.* alone alone.* scratch linked before loose

group "evaluation and documents"
# The text is ASCII: a token is a byte.
bits_per_loss() {
    sed -nE 's/.*"val_loss": ([0-9.]+).*"val_bits_per_byte": ([0-9.]+).*/\1 \2/p' "$1/log.jsonl" |
        awk '{ d = $2 - $1 / log(2); n++; if (!(d < 1e-6 && d > -1e-6)) bad = 1 } END { exit bad || n != 4 }'
}
holds "the log has bits per byte" bits_per_loss run
works "evaluation prints them" bin/train_gpt --eval-only --resume auto -o run
says "as the loss over ln 2" "\| $(sed -nE '$s/.*"val_bits_per_byte": ([0-9.]+).*/\1/p' run/log.jsonl | xargs printf %.4f) bits per byte$"
copy data silent
sed 's/, "bytes".*/}/' data/dataset.json >silent/dataset.json
works "a dataset that does not know its bytes" $tiny -i silent/train.bin -j silent/val.bin -x 1 -o quiet
holds "there they are absent" [ -z "$(grep bits_per_byte quiet/log.jsonl; grep 'bits per byte' "$work/stdout")" ]
printf 'h\303\251 h\303\251 h\303\251 ' >accents
works "characters of two bytes" bin/tokenizer chars --input accents --out accented --val-fraction 0.34
holds "are counted as bytes" grep -q '"tokens": {"train": 5, "val": 4}, "bytes": {"train": 7, "val": 5}' accented/dataset.json
endings='"endings": ["out", "and slept", "home again", "they went out"]'
for label in 0 3 1; do echo "{\"context\": \"old men went\", $endings, \"label\": $label}"; done >swag
works "HellaSwag of a model" bin/train_gpt --eval-only --resume auto -o run --hellaswag swag
says "three labels of one example: at most a third is right" "HellaSwag acc 0\.(0000|3333), acc_norm 0\.(0000|3333)$"
works "HellaSwag in a run" $tiny -x 2 -o swagrun --hellaswag swag --hellaswag-limit 1
holds "its log has the scores" grep -Eq '"hellaswag_acc": [01], "hellaswag_acc_norm": [01], "hellaswag_examples": 1' swagrun/log.jsonl
refuses "HellaSwag without a file" "cannot open 'no/file'" $tiny -o never --hellaswag no/file
refuses "HellaSwag of no examples" "'text', line 1: " $tiny -o never --hellaswag text
refuses "documents without their token" "no dataset.json beside 'data/train.bin' does" $tiny -o never --doc-start
copy data documents
newline=$(printf '\n' | bin/tokenizer encode --vocab data)
sed "s/{/{\"end_of_text\": $newline, /" data/dataset.json >documents/dataset.json
works "rows that begin at documents" $tiny -i documents/train.bin -j documents/val.bin --doc-start -o docs
works "half of it" $tiny -i documents/train.bin -j documents/val.bin --doc-start --max-time 1e-9 -o halfdocs
works "the rest of it" bin/train_gpt --resume auto --max-time 0 -o halfdocs
holds "resumed: the same bits" same_state docs halfdocs
holds "other rows than without" [ -n "$(same_state docs again2 2>&1)" ]

group "batches"
works "grad-accum 4 x batch 2" $tiny --log-every 1 --dropout 0.1 -b 2 -g 4 -o accumulated
works "batch 8" $tiny --log-every 1 --dropout 0.1 -b 8 -g 1 -o whole
works "total-batch" ${tiny%-g 1*} ${tiny#*-g 1} --log-every 1 --dropout 0.1 -b 4 --total-batch 128 -o total
holds "accumulation gives the losses of one batch" losses_agree accumulated whole
holds "total-batch sets grad-accum" losses_agree accumulated total
works "batch-schedule" $tiny --log-every 1 --batch-schedule 0:1,5:4 -o growing
says "the banner shows it" "^step +1 to 4 micro-batches x 2 rows x 16 tokens = 32 to 128 tokens \(--batch-schedule 0:1,5:4\); 20 steps"
holds "the batch grows when it should" [ "$(sed -nE '5,6s/.*"tokens": ([0-9]+),.*/\1/p' growing/log.jsonl | tr '\n' ' ')" = "32 128 " ]

group "a run that explains itself"
record() { sed -nE "s/.*\"$2\": \"?([^\",}]*).*/\1/p" "$1/run.json" | tail -1; }
starts() { grep -c '^    {"time": "20[0-9-]*T[0-9:]*Z", "host": ".*"command": \["bin/train_gpt", .*"device": "cpu, [0-9]* thread' "$1/run.json"; }
works "a run" $tiny --log-every 1 -o told
says "MFU on every line" "tok/s \| mfu [0-9.]+% \| [0-9]+s left$"
holds "no line is written over where there is no terminal" sh -c "! grep -q '$(printf '\033')' '$work/stdout'"
holds "MFU in the log" [ "$(grep -Ec '"mfu": 0?\.?[0-9.e-]+,' told/log.jsonl)" -eq 20 ]
holds "all tokens so far" [ "$(sed -nE 's/.*"tokens_seen": ([0-9]+),.*/\1/p' told/log.jsonl | tail -1)" -eq 640 ]
holds "run.json has its end" [ "$(record told status) $(record told step) $(record told tokens)" = "done 20 640" ]
holds "its one start" [ "$(starts told)" -eq 1 ]
holds "options by their types" grep -q '"n_embd": 32, .*"tie": true, .*"seq_len": 16, .*"curve": false' told/run.json
holds "the data" grep -Eq '"train": \{"path": "data/train.bin", "files": 1, "tokens": [0-9]+, "crc32": "[0-9a-f]{8}"\}' told/run.json
holds "and what MFU is counted against" grep -Eq '"peak_flops": [0-9.e+]+, "peak_from": "measured"' told/run.json
works "the same on the same data, as other files" $nano --vocab-size 60 -o told_nano
crc() { sed -nE 's/.*"val": .*"crc32": "([0-9a-f]+)".*/\1/p; s/.*"train": .*"crc32": "([0-9a-f]+)"\}, "val".*/\1/p' "$1/run.json"; }
holds "the data's checksums are the same" [ -n "$(crc told)" -a "$(crc told)" = "$(crc told_nano)" ]
works "resumed" bin/train_gpt --resume auto -x 30 -o told
holds "two starts" [ "$(starts told)" -eq 2 ]
holds "and another end" [ "$(record told status) $(record told step) $(record told tokens)" = "done 30 960" ]
holds "the log counts on" [ "$(sed -nE 's/.*"tokens_seen": ([0-9]+),.*/\1/p' told/log.jsonl | tail -1)" -eq 960 ]
works "stopped by the clock" $tiny --max-time 1e-9 -o told
holds "which is said" [ "$(record told status) $(record told step)" = "max-time 1" ]
for kind in "" "--eval-every 1000000000" "--comm loopback --ranks 2"; do
    works "stopped by the clock, with time to evaluate $kind" $tiny -x 1000000000 --eval-every 0 --max-time 2 -o timed $kind
    holds "at the end only" [ "$(grep -c '"val_loss": [0-9]' timed/log.jsonl) $(sed -n '$s/.*"val_loss": [0-9].*/last/p' timed/log.jsonl)" = "1 last" ]
    holds "which the record has" grep -Eq '"status": "max-time", .*"best_val_loss": [0-9.]+,' timed/run.json
    holds "and a checkpoint" [ "$(readlink timed/best)" = "$(readlink timed/last)" -a -s timed/best/state.json ]
done
rm -rf timed timed.*
$tiny -x 1000000000 --eval-every 0 --max-time 1000 -o timed >"$work/stdout" 2>"$work/stderr" &
process=$!
wait_for grep -q '"step": 100,' timed/log.jsonl
kill -TERM $process
wait $process
process=
holds "after a signal there is no evaluation" [ -z "$(grep val_loss timed/log.jsonl)" -a -s timed/last/state.json ]
rm -rf timed timed.*
sed -i 's/"format": 1/"format": 9/' told/run.json
fails "a record of another format" "told/run.json is not a record of format 1" bin/train_gpt --resume auto --max-time 0 -o told
holds "is left as it is" grep -q '"format": 9' told/run.json
rm told/run.json
works "a run from before there were records" bin/train_gpt --resume auto --max-time 0 -o told
holds "has one from now on" [ "$(record told status) $(record told step)" = "done 20" ]
works "quietly" $tiny --eval-every 5 -o told --quiet
holds "a line, the last" [ "$(wc -l <"$work/stdout")" -eq 1 ]
says "it is the last" "^done: best validation loss [0-9.]+; the model is in told/best"
works "again, resumed" bin/train_gpt --resume auto -x 21 -o told
says "no longer quiet" "^step 21/21"

write="--sample-tokens 50 --sample-every 10 -o written"
sample_of() { sed -n "/^--- step $2\$/,/^--- step/p" "$1/samples.txt" | sed '/^--- step/d'; }
# as_sample_gpt RUN STEP: the sample of the last step is what sample_gpt writes.
as_sample_gpt() {
    bin/sample_gpt --model "$1/last" --max-tokens 50 -s 1337 >"$work/text"
    sample_of "$1" "$2" | cmp - "$work/text"
}
works "samples and statistics" $tiny $write --stats 8
$tiny -o written_not >/dev/null
holds "the same bits as without" same_state written written_not
holds "two samples" [ "$(grep '^--- step' written/samples.txt | tr '\n' ' ')" = "--- step 10 --- step 20 " ]
holds "the last is sample_gpt's" as_sample_gpt written 20
holds "the first is another" [ "$(sample_of written 10)" != "$(sample_of written 20)" ]
holds "statistics of two steps" [ "$(sed -nE 's/.*"step": ([0-9]+),.*"stats": \{"weights": \{"wte": \[[0-9.]+\].*"ln1w": \[[0-9.]+, [0-9.]+\].*"gradients": .*"activations": \{"embedded".*\}\}\}$/\1/p' written/log.jsonl | tr '\n' ' ')" = "8 16 " ]
works "more samples than checkpoints" $tiny --sample-tokens 50 --sample-every 5 --checkpoint-every 10 --keep 5 --eval-every 0 -o written
cp written/samples.txt samples_before
rm -r written/step_00000020
works "resumed before the last of them" bin/train_gpt --resume auto -o written
says "there" "written/step_00000010: step 10"
holds "those are made again, in their place" cmp samples_before written/samples.txt
for kind in "--zero 0" "--zero 1"; do
    works "two ranks, $kind" $tiny $write --comm loopback --ranks 2 $kind
    holds "$kind: the last is sample_gpt's" as_sample_gpt written 20
    works "without" $tiny --comm loopback --ranks 2 $kind -o written_not
    holds "$kind: the same bits" same_state written written_not
done
works "a text to go on from" $tiny $write --sample-prompt "the sea" -x 2
holds "is where it begins" grep -q "^the sea" written/samples.txt
mkdir mute && cp data/train.bin data/val.bin mute
mute="$tiny -i mute/train.bin -j mute/val.bin --vocab-size 60"
works "no vocabulary, no samples" $mute -o written --sample-tokens 5
holds "none" [ ! -e written/samples.txt ]
run $mute $write
holds "no vocabulary, but asked" [ $status -eq 0 -a "$(wc -l <"$work/stderr")" -eq 1 ]
holds "is warned of" grep -q "warning: no samples will be written: no vocabulary" "$work/stderr"
run $tiny $write --sample-prompt "Z"
holds "a prompt that the vocabulary lacks is, too" grep -q "warning: no samples will be written: the prompt cannot be read: .*'Z'" "$work/stderr"
mkdir -p written/samples.txt && run $tiny --resume auto -x 22 -o written $write --sample-every 1
holds "a file that cannot be written" [ $status -eq 0 -a "$(wc -l <"$work/stderr")" -eq 1 ]
rm -rf written written.*

# A program of its own place, with a plot.py beside it that a stand-in for python3 runs.
mkdir -p placed/scripts stand-ins && cp bin/train_gpt placed && echo 'raise SystemExit(1)' >placed/scripts/plot.py
printf '#!/bin/sh\n[ -e stand-ins/fails ] && exit 1\necho "$*" >"$4"\necho words\necho more >&2\n' >stand-ins/python3 && chmod +x stand-ins/python3
drawn="env PATH=$work/here/stand-ins:$PATH $(echo "$tiny" | sed 's,bin/,placed/,') -x 2 -o drawn"
works "a picture" $drawn --curve
holds "drawn by the script beside the program" grep -q "^.*/placed/scripts/plot.py drawn -o drawn/.*png$" drawn/curve.png
holds "nothing else is left" [ -z "$(find drawn -name '.curve*')" ]
works "no picture" $drawn --no-curve
holds "none" [ ! -e drawn/curve.png ]
: >stand-ins/fails
works "a picture that cannot be drawn" $drawn --curve
holds "is left out" [ ! -e drawn/curve.png ]

# What GCC's OpenMP says of itself: how long its threads spin, the last time that the program begins.
spins() { env -u OMP_WAIT_POLICY OMP_DISPLAY_ENV=verbose "$@" 2>&1 | sed -n "s/.*GOMP_SPINCOUNT = '\([0-9]*\)'.*/\1/p" | tail -n 1; }
if [ -n "$(spins bin/train_gpt --help)" ]; then
    holds "threads leave the cores to others" [ "$(spins bin/train_gpt --help) $(spins bin/sample_gpt --help)" = "10000 10000" ]
    holds "unless told otherwise" [ "$(GOMP_SPINCOUNT=77 spins bin/train_gpt --help)" = 77 ]
fi

works "one batch again and again" $tiny --overfit --dropout 0.5 -x 400 --lr 1e-2 --weight-decay 0 --eval-every 0 -o overfit
says "is learned by heart" "^step 400/400 \| loss 0\.0"
holds "which nothing else is" [ "$(sed -nE '$s/.*"val_loss": ([0-9]).*/\1/p' overfit/log.jsonl)" -ge 1 ]

if python3 -c 'import pty' 2>/dev/null; then
    on_terminal() { TERM=$1 run python3 -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) != 0)' sh -c "stty cols 120 && exec $2" </dev/null; }
    on_terminal xterm "$tiny -x 200 --eval-every 100 -o live"
    holds "a terminal: status" [ $status -eq 0 ]
    escape=$(printf '\033')
    says "a line that is written over" "$escape\[K(\[[#.]+\] )?step +1/200"
    says "above it what lasts" "step 100/200 \| train loss [0-9.]+ \| val loss"
    holds "the last line" sh -c "tail -1 '$work/stdout' | grep -q 'K.*done: best validation loss'"
    on_terminal xterm "$tiny -o live --no-live"
    holds "--no-live" sh -c "! grep -q '$escape' '$work/stdout'"
    on_terminal dumb "$tiny -o live"
    holds "a terminal that can do nothing" sh -c "! grep -q '$escape' '$work/stdout'"
fi
rm -rf told* written* drawn* live* overfit

# ---- Resuming ----

# exactly NAME OPTIONS...: stopped after the first step and after the second, then resumed, a run ends as if it had never stopped.
exactly() {
    what=$1
    shift
    works "$what, straight" $tiny --log-every 1 --eval-every 5 -o straight "$@"
    works "$what, stopped" $tiny --log-every 1 --eval-every 5 -o stopped "$@" --max-time 1e-9
    works "$what, stopped again" bin/train_gpt --resume auto -o stopped --max-time 1e-9
    works "$what, resumed" bin/train_gpt --resume auto -o stopped
    says "$what, resumed where it stopped" "stopped/step_00000002: step 2"
    holds "$what: the same weights and moments" same_state straight stopped
    holds "$what: the same log" same_log straight stopped
    rm -rf straight stopped straight.* stopped.*
}

group "resume"
exactly "rope, dropout" --dropout 0.1
exactly "learned, untied, shards in order" -e learned --no-tie --data-order shards --dropout 0.1
exactly "sgd, growing batch" --optimizer sgd --lr 0.1 --batch-schedule 0:1,2:3,10:2
[ -n "$bf16" ] && exactly "bf16" --dtype bf16 --dropout 0.1
works "half the steps" $tiny --schedule constant --dropout 0.1 -x 10 -o half
works "then all of them" bin/train_gpt --resume auto -x 20 -o half
$tiny --schedule constant --dropout 0.1 -o straight >/dev/null
holds "as if never stopped" same_state straight half
works "a finished run has nothing left to do" bin/train_gpt --resume auto -o half
works "from a named checkpoint into a new directory" bin/train_gpt --resume half/last -x 22 -o branch
works "and to a worse model" bin/train_gpt --resume half/last -x 22 -o worse --lr 5 --schedule constant --grad-clip 0
holds "which is the best one there" [ -e worse/best ]
works "the run's own --model may be repeated" $tiny -m baby --resume auto -x 21 -o half
refuses "no run there" "no checkpoint in empty to resume from" $tiny --resume auto -o empty
refuses "no such directory" "no checkpoint in missing to resume from" $tiny --resume auto -o missing
refuses "no such checkpoint" "missing is not a directory" $tiny --resume missing -o half
refuses "more layers" "n_layer is 2 in the checkpoint, but 3 was asked for" $tiny --resume auto -o run --n-layer 3
refuses "more channels" "n_embd is 32 in the checkpoint, but 64 was asked for" $tiny --resume auto -o run --n-embd 64
refuses "other positions" "pos is rope in the checkpoint, but learned was asked for" $tiny --resume auto -o run -e learned
refuses "other RoPE base" "rope_base is 10000 in the checkpoint, but 500 was asked for" $tiny --resume auto -o run --rope-base 500
refuses "another preset" "run began with --model baby, not gpt2-124M" bin/train_gpt --resume auto -o run -m gpt2-124M
copy data moved && copy run onmoved
works "a run on data of its own" $tiny -i moved/train.bin -j moved/val.bin -o onmoved
head -c 2000 text | tr a-z A-Z >shorter && bin/tokenizer chars --input shorter --out moved >/dev/null
refuses "data that changed since" "it was trained on 1 files of [0-9]+ tokens.*put the data back" bin/train_gpt --resume auto -o onmoved -x 30
refuses "validation in another vocabulary" "the vocabulary of --val-data .* is not that of --train-data" $tiny -j moved/val.bin
works "validation beside training" $tiny -i data/train.bin -x 2 -o beside
refuses "validation nowhere" "given without --val-data" bin/train_gpt -i text --vocab-size 60
refuses "an older step than the newest there" "newer than step 15 to resume from; choose another --out" \
    $tiny --resume run/step_00000015 -o run

group "signals"
for signal in INT TERM HUP; do
    $tiny --schedule constant --dropout 0.1 -x 1000000 --log-every 1 -o signal >"$work/stdout" 2>"$work/stderr" &
    process=$!
    wait_for grep -q '"step": 5,' signal/log.jsonl
    kill -$signal $process
    wait $process
    status=$?
    process=
    holds "SIG$signal: exit status 130" [ $status -eq 130 ]
    holds "SIG$signal: no complaint" [ ! -s "$work/stderr" ]
    holds "SIG$signal: the record says so" grep -q '"end": {"status": "interrupted"' signal/run.json
    says "SIG$signal: the last line tells how to go on" "^interrupted: step [0-9]+ is saved in signal; go on with --resume auto"
    stopped_at=$(readlink signal/last | sed 's/step_0*//')
    steps=$((stopped_at + 5))
    works "SIG$signal: resumed" bin/train_gpt --resume auto -x $steps -o signal
    $tiny --schedule constant --dropout 0.1 -x $steps --log-every 1 -o straight >/dev/null
    holds "SIG$signal: as if never stopped" same_state straight signal
    rm -rf signal straight
done

( trap '' HUP; exec $tiny --schedule constant -x 1000000 --log-every 1 -o signal ) >"$work/stdout" 2>"$work/stderr" &
process=$!
wait_for grep -q '"step": 5,' signal/log.jsonl
kill -HUP $process
wait_for grep -q '"step": 1000,' signal/log.jsonl
holds "SIGHUP under nohup: it goes on" kill -0 $process
kill -TERM $process
wait $process
status=$?
process=
holds "SIGHUP under nohup: until SIGTERM" [ $status -eq 130 ]
rm -rf signal

# Samples without an end.
timeout -s KILL 60 $tiny -x 20 --log-every 1 --sample-every 5 --sample-tokens 1000000000 -o said >"$work/stdout" 2>"$work/stderr" &
process=$!
wait_for grep -q '"step": 5,' said/log.jsonl
kill -TERM $process
wait $process
status=$?
process=
holds "a signal ends a sample" [ $status -eq 130 ]
holds "of which nothing is written" [ ! -e said/samples.txt ]
holds "and the run is saved there" [ "$(readlink said/last)" = step_00000005 ]
works "resumed" bin/train_gpt --resume auto -o said --sample-tokens 20
holds "it has all samples" [ "$(grep '^--- step' said/samples.txt | tr '\n' ' ')" = "--- step 5 --- step 10 --- step 15 --- step 20 " ]
cp said/samples.txt samples_before
works "resumed at its end" bin/train_gpt --resume auto -o said
holds "no sample comes twice" cmp said/samples.txt samples_before
$tiny --log-every 1 -o straight >/dev/null
holds "the bits are those of a run without samples" same_state straight said
rm -rf said straight
timeout -s KILL 60 $tiny -x 5 --sample-tokens 1000000000 -o said >"$work/stdout" 2>"$work/stderr" &
process=$!
wait_for grep -q '"status": "done"' said/run.json
kill -TERM $process
wait $process
status=$?
process=
holds "a signal ends the last sample" [ $status -eq 0 ]
says "of a run that is done" "^done: "
rm -rf said

for gone in "| head -n 2 >/dev/null" ">/dev/full"; do
    run sh -c "{ $tiny -x 300 --log-every 1 -o unheard; echo \$? >ended; } $gone"
    holds "stdout $gone: status" [ "$(cat ended)" = 0 ]
    holds "stdout $gone: the whole log" [ "$(wc -l <unheard/log.jsonl)" -eq 300 ]
    holds "stdout $gone: one line says so" [ "$(grep -c 'warning: standard output cannot be written: .*; training goes on' "$work/stderr")" -eq 1 ]
done
rm -rf unheard*

group "two runs in one directory"
$tiny --schedule constant -x 1000000 --eval-every 0 --checkpoint-every 5 -o shared >"$work/first" 2>&1 &
process=$!
wait_for [ -e shared/last ]
fails "a new run where one is under way" "a run is under way in shared, which has shared/.lock locked" $tiny -o shared
fails "the same run a second time" "a run is under way in shared" bin/train_gpt --resume auto -o shared -x 2000000
works "it may be evaluated" bin/train_gpt --eval-only --model shared -i data/train.bin -j data/val.bin --eval-batches 2
holds "it goes on" kill -0 $process
kill -9 $process
wait $process 2>/dev/null
process=
stopped_at=$(readlink shared/last | sed 's/step_0*//')
works "one that was killed leaves nothing locked" bin/train_gpt --resume auto -o shared -x $((stopped_at + 20))
works "nor does one at its end" $tiny -x 2 -o shared
rm -rf shared shared.*

# ---- Damage ----

group "damaged checkpoints"
copy run/step_00000020 sound
damages() { refuses "$1: resume" "bad/point|damaged" $tiny --resume bad/point -o new; }
for file in config.json model.safetensors optimizer.safetensors characters.json state.json; do
    bytes=$(size sound/$file)
    for at in 0 $((bytes / 3)) $((bytes / 2)) $((bytes - 2)); do
        copy sound bad/point && flip bad/point/$file $at
        damages "a bit flipped at byte $at of $file"
    done
    if [ $file != optimizer.safetensors ]; then
        refuses "a bit flipped in $file: sample" "bad/point|damaged" bin/sample_gpt --model bad/point --max-tokens 5
        refuses "a bit flipped in $file: start from it" "bad/point|damaged" $tiny --model bad/point -o new
    fi
    copy sound bad/point && head -c $((bytes - 1)) sound/$file >bad/point/$file
    damages "$file a byte short"
    printf 'xx' >>bad/point/$file
    damages "$file a byte too long"
    : >bad/point/$file
    damages "$file empty"
    rm bad/point/$file
    damages "$file missing"
done
copy sound bad/point && printf '{"format": "another"}' >bad/point/state.json
damages "state.json of another program"
copy run lost && flip lost/step_00000020/model.safetensors 70000
run $tiny --resume auto -o lost --checkpoint-every 5
holds "auto passes over a damaged checkpoint" [ $status -eq 0 ]
says "it goes on from the one before" "^resume .*lost/step_00000015: step 15"
holds "it names the damaged one" grep -q "warning: .*renamed damaged_step_00000020: .*model.safetensors is damaged" "$work/stderr"
holds "the result is the same" same_state run lost
copy run lost && for point in lost/step_*; do flip $point/model.safetensors 70000; done
refuses "auto with none whole" "no complete checkpoint in lost .*model.safetensors is damaged" $tiny --resume auto -o lost
copy run lost && mv lost/step_00000020 lost/.writing-step_00000020
works "auto with a half-written one" $tiny --resume auto -o lost --checkpoint-every 5
holds "the half-written one is gone" [ ! -e lost/.writing-step_00000020 ]
holds "and the run ends alike" same_state run lost
rm -rf lost bad/point

group "full disk"
works "the run before" $tiny -x 10 -o full
cp -R full/step_00000010 full_before
fails "a checkpoint too large" "step 20: the last checkpoint could not be written: .*File too large; the newest one, of step 10, is untouched in full$" \
    sh -c "trap '' XFSZ; ulimit -f 60; exec bin/train_gpt --resume auto -x 20 -o full"
holds "the earlier checkpoint is untouched" diff -r full_before full/step_00000010
holds "nothing is left of the new one" [ -z "$(ls -d full/.writing-* full/step_00000020 2>/dev/null)" ]
works "the run goes on when there is room" bin/train_gpt --resume auto -x 20 -o full
run sh -c "trap '' XFSZ; ulimit -f 60; exec $tiny -x 2 --eval-every 1 -o never"
holds "a disk that takes no checkpoint: exit status 1" [ $status -eq 1 ]
holds "it is told when it happens" grep -q "^train_gpt: warning: step 1: the checkpoint could not be written: .*; training goes on" "$work/stderr"
holds "and at the end" grep -q "^train_gpt: step 2: the last checkpoint could not be written: .*; there is none in never$" "$work/stderr"
holds "none is called saved" [ -z "$(grep saved "$work/stdout")" ]
$tiny -x 1000000000 --eval-every 0 --checkpoint-every 20 -o obstructed >"$work/stdout" 2>"$work/stderr" &
process=$!
wait_for [ -e obstructed/last ]
until rm -f obstructed/last && mkdir obstructed/last 2>/dev/null; do :; done
wait_for grep -q "warning: step" "$work/stderr"
rmdir obstructed/last
kill -TERM $process
wait $process
status=$?
process=
holds "a disk that takes some: the end is as ever" [ $status -eq 130 ]
holds "the warning is said again" grep -Eq "warning: [0-9]+ of the checkpoints could not be written, as was said then; that of the end, step [0-9]+, is there$" "$work/stderr"
rm -rf full full_before full.* never obstructed
mkdir small
if mount -t tmpfs -o size=2m tmpfs small 2>/dev/null; then
    run $tiny -x 8 --checkpoint-every 1 --keep 1000 -o small/run
    holds "full disk: exit status 1" [ $status -eq 1 ]
    holds "full disk: training goes on" grep -Eq "step [0-9]+: the checkpoint .*: .*No space left on device; training goes on" "$work/stderr"
    holds "full disk: the end" grep -Eq "step 8: the last checkpoint could not be written: .*No space left on device" "$work/stderr"
    works "full disk: the earlier checkpoint loads" bin/train_gpt --eval-only --resume auto -o small/run
    works "full disk: it can be sampled" bin/sample_gpt --model small/run/last --max-tokens 5
    rm -rf small/run/step_00000001 small/run/step_00000002
    works "full disk: the run goes on when there is room" bin/train_gpt --resume auto -x 15 --keep 1 -o small/run
    umount small
fi

# Each round gets at least one checkpoint further. Every other one is killed while it writes one, the others anywhere.
group "kill -9"
OMP_NUM_THREADS=1   # the many steps go quicker so on a busy machine
long="$tiny --n-embd 96 --dropout 0.1 -x 500 --eval-every 100"
works "the run that nobody disturbs" $long -o undisturbed
further() { [ "$(readlink killed/last)" != "$newest" ]; }
half_written() {
    set -- killed/.writing-*
    [ -e "$1" ]
}
newest=
midway=0
round=0
$long --checkpoint-every 1 -o killed >/dev/null 2>"$work/stderr" &
process=$!
while [ $round -lt 24 ]; do
    round=$((round + 1))
    if ! wait_for further; then
        fail "round $round" "no checkpoint after $newest"
        break
    fi
    pass
    if [ $((round % 2)) -eq 0 ]; then sleep 0.00$((round * 7 % 10))
    else while ! half_written && kill -0 $process 2>/dev/null; do :; done
    fi
    kill -9 $process 2>/dev/null
    wait $process 2>/dev/null
    newest=$(readlink killed/last)
    half_written && midway=$((midway + 1))
    bin/train_gpt --resume auto -o killed >/dev/null 2>"$work/stderr" &
    process=$!
done
kill -9 $process 2>/dev/null
wait $process 2>/dev/null
process=
holds "several of the rounds hit a checkpoint half-written" [ $midway -ge 4 ]
works "the last round ends the run" bin/train_gpt --resume auto --checkpoint-every 0 -o killed
holds "its weights are those of the undisturbed run" same_state undisturbed killed
holds "its log is that of the undisturbed run" same_log undisturbed killed
holds "nothing half-written is left" [ -z "$(ls -d killed/.writing-* killed/damaged_* 2>/dev/null)" ]

# ---- Numbers that are not finite ----


group "not finite"
OMP_NUM_THREADS=2
wild="$tiny --optimizer sgd --lr 1000 --grad-clip 0 --schedule constant --warmup 0 --checkpoint-every 1"
fails "the loss" "step [0-9]+: the loss is -?(nan|inf) and the gradient norm .*; no parameter was changed" $wild -o wild
says "the steps before were taken" "^step  1/20"
# The step that the sentence names.
diverged_in() { [ "$(record "$1" status) $(record "$1" step)" = "diverged $(sed -nE 's/.*: step ([0-9]+): .*/\1/p' "$work/stderr")" ]; }
holds "the record says so" diverged_in wild
steps_before() { [ "$(sed -nE 's/.*"step": ([0-9]+),.*/\1/p' wild/log.jsonl)" = "$(seq $(($(record wild step) - 1)))" ]; }
holds "the log has the steps before it" steps_before
cp -R wild wild_before
fails "it stops there again" "step [0-9]+: the loss is -?(nan|inf)" $wild --resume auto -o wild
holds "the checkpoints are as they were" diff -r -x run.json wild_before wild
fails "check-numerics names the op" "step [0-9]+: output [0-9] of [a-z_]+ holds NaN or Inf" $wild --check-numerics --resume auto -o wild
holds "and the record says so" diverged_in wild
holds "the checkpoints are still as they were" diff -r -x run.json wild_before wild
fails "in an evaluation" "step [0-9]+: the (evaluation gives a train loss of|loss is)" $wild --eval-every 1 -o wild
works "the best one before can be resumed" bin/train_gpt --eval-only --resume wild/best

# ---- Context length ----

group "context"
from="bin/train_gpt -i data/train.bin -j data/val.bin -b 2 -g 1 -x 2 $plain"
works "a longer table than the rows" $tiny -e learned --max-seq-len 64 -t 32 -o table
works "all of it used" $from --model table -t 64 -o table64
refuses "more than there is" "--seq-len 65 is beyond the learned position table of 64 rows; use a shorter one, as the table of a trained model does not" $from --model table -t 65 -o new
works "a model's own length is the default" $from --model table -o table2
says "it is that of the table" "2 rows x 64 tokens"
works "RoPE at twice the length" $from --model run -t 32 -o longer
says "it is the same model" "2 layers, 2 heads, 32 channels"
holds "its context is the new length" grep -q '"max_position_embeddings": 32' longer/last/config.json
works "a scaled context" $from --model run -t 64 --rope-scaling yarn --rope-factor 4 -o scaled
holds "is in its config" grep -q '"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16' scaled/last/config.json
works "resumed" bin/train_gpt --resume auto -o scaled -x 4
refuses "another scaling" "rope_factor is 4 in the checkpoint, but 8 was asked for" bin/train_gpt --resume auto -o scaled --rope-factor 8 -x 6
refuses "a factor of nothing" "rope_scaling none knows nothing" $tiny --rope-factor 2
works "no position at twice the length" $tiny -e none -x 4 -o none
works "resumed there" bin/train_gpt --resume auto -o none -t 32 -x 6
says "with longer rows" "2 rows x 32 tokens"
works "RoPE" $tiny -x 4 -o rope16
works "resumed at twice the length" bin/train_gpt --resume auto -o rope16 -t 32 -x 6
works "and at half of it" bin/train_gpt --resume auto -o rope16 -t 8 -x 8
holds "which leaves the model its context" grep -q '"max_position_embeddings": 32' rope16/last/config.json
works "learned, with rows to spare" $tiny -e learned --max-seq-len 32 -x 4 -o learned16
works "resumed at the table's length" bin/train_gpt --resume auto -o learned16 -t 32 -x 6
refuses "but not beyond" "--seq-len 33 is beyond the learned position table of 32 rows" bin/train_gpt --resume auto -o learned16 -t 33 -x 8
works "learned, as long as the rows" $tiny -e learned -x 4 -o learned8 -t 8
works "resumed with shorter rows" bin/train_gpt --resume auto -o learned8 -t 4 -x 6
holds "keeps the table" grep -q '"n_positions": 8' learned8/last/config.json
refuses "resumed beyond it" "--seq-len 16 is beyond the learned position table of 8 rows" bin/train_gpt --resume auto -o learned8 -t 16 -x 8
works "a table cropped" $from --model table --max-seq-len 16 -t 16 -o cropped
holds "has that many rows" grep -q '"n_positions": 16' cropped/last/config.json
refuses "no table grows" "--max-seq-len 65 is more than the 64 rows of the position table in table" $from --model table --max-seq-len 65 -t 16 -o new

# ---- Architectures, and directories for Hugging Face ----

group "architectures"
llama="--norm rmsnorm --activation swiglu --no-bias --n-kv-head 1 --rope-layout half"
works "the config alone" $tiny $llama --print-config
says "is that of a family" '"model_type": "llama"'
works "a Llama" $tiny $llama -x 3 -o llama
says "the banner tells what it is" "2 heads \(1 for keys and values\), 32 channels, vocabulary [0-9]+, RoPE, RMSNorm, SwiGLU, "
holds "its checkpoint is a Llama" grep -q '"model_type": "llama"' llama/last/config.json
works "sampled from" bin/sample_gpt --model llama --max-tokens 5
works "exported" bin/train_gpt --model llama --export exported
holds "whole" [ -s exported/config.json -a -s exported/model.safetensors -a -s exported/generation_config.json ]
holds "without state" [ ! -e exported/state.json -a ! -e exported/optimizer.safetensors ]
works "exported in bf16" bin/train_gpt --model llama --export exported16 --dtype bf16
holds "in half the bytes" [ "$(size exported16/model.safetensors)" -lt $(($(size exported/model.safetensors) * 6 / 10)) ]
works "from a checkpoint to resume" bin/train_gpt --resume auto -o llama --export exported_again
holds "to the same bytes" cmp exported/model.safetensors exported_again/model.safetensors
works "trained on" $tiny --model exported -x 2 -o from_export
says "as what it was" "RMSNorm, SwiGLU"
works "sampled from" bin/sample_gpt --model exported --max-tokens 5
refuses "another activation than the model's" "holds a llama.*activation is swiglu.*gelu was asked for" $tiny --model exported --activation gelu
refuses "another position than the model's" "holds a llama.*pos is rope.*learned was asked for" $tiny --model exported --pos learned
refuses "a head of its own for a tied model" "tie is 1.*0 was asked for" $tiny --model exported --no-tie
works "but another dropout" $tiny --model exported --dropout 0.1 -x 1 -o dropped
refuses "a directory that is there" "exported" bin/train_gpt --model llama --export exported
refuses "nothing to export" "--export needs a model" $tiny --export new
refuses "an export without a name" "--export is empty" bin/train_gpt --model llama --export ""
refuses "an export that changes the model" "n_layer has no part in it" bin/train_gpt --model llama --export new --n-layer 1
refuses "an export of a longer table" "--max-seq-len 65 is more than the 64 rows" bin/train_gpt --model table --max-seq-len 65 --export new
works "the whole validation set" bin/train_gpt --eval-only --resume auto -o llama --eval-batches 0
grep -o "val loss [0-9.]*" "$work/stdout" >loss_b2
works "in other micro-batches" bin/train_gpt --eval-only --resume auto -o llama --eval-batches 0 -b 7
grep -o "val loss [0-9.]*" "$work/stdout" >loss_b7
holds "has the same loss" cmp loss_b2 loss_b7
mkdir bare && cp data/train.bin data/val.bin bare
works "trained on tokens without a vocabulary" bin/train_gpt --model exported -i bare/train.bin -j bare/val.bin -b 2 -g 1 -x 2 -t 16 $plain -o kept
holds "it keeps its own" cmp exported/characters.json kept/last/characters.json
rm kept/best   # no longer kept for its own sake
works "it goes on, and removes what it went on from" bin/train_gpt --resume auto -x 8 -o kept --checkpoint-every 2 --eval-every 0 --keep 1
holds "so it has" [ ! -e kept/step_00000002 ]
holds "and keeps its vocabulary" cmp exported/characters.json kept/last/characters.json
works "with which it goes on again" bin/train_gpt --resume auto -x 9 -o kept
refuses "the plan and the config at once" "give one of them" $tiny --plan --print-config
works "post-norm" $tiny --norm-place post -x 3 -o post
holds "is a family of its own" grep -q '"model_type": "train_gpt"' post/last/config.json
works "which resumes" bin/train_gpt --resume auto -o post -x 5
works "and writes" bin/sample_gpt --model post --max-tokens 5
refuses "but cannot be exported" "norm.place" bin/train_gpt --model post --export new
works "no norms, ReLU^2, QK-norm" $tiny --norm none --activation relu2 --qk-norm -x 3 -o plain
works "biases on Q, K and V alone" $tiny $llama --qkv-bias -x 3 -o qwen
holds "are Qwen2's" grep -q '"model_type": "qwen2"' qwen/last/config.json
refuses "no norm to place" "no norm to place" $tiny --norm none --norm-place post
refuses "unknown norm" "expected one of layernorm\|rmsnorm\|none" $tiny --norm batchnorm
for preset in gpt2-1558M gpt3-6.7B wikitext tinystories-17M llama-1B qwen2-0.5B qwen3-0.6B; do
    works "$preset: config" $tiny -m $preset --n-layer 2 --n-head 2 --n-kv-head 2 --n-embd 32 --print-config
done
works "the plan of a preset" bin/train_gpt -m tinystories-17M -b 8 --plan
says "its parameters" "^parameters +22,696,448$"

# ---- Sampling ----

sample="bin/sample_gpt --model run --max-tokens 100"
# texts_agree NAME COMMAND1 COMMAND2: both print the same; texts_differ: they do not.
two_texts() {
    works "$1, one" $2
    cp "$work/stdout" "$work/text"
    works "$1, two" $3
}
texts_agree() {
    two_texts "$@"
    holds "$1" cmp "$work/text" "$work/stdout"
}
texts_differ() {
    two_texts "$@"
    holds "$1" sh -c "! cmp -s '$work/text' '$work/stdout'"
}

group "sampling"
works "help" bin/sample_gpt --help
for shown in --model --prompt --n --max-tokens --temperature --top-k --top-p --seed --cache; do
    says "help names $shown" "(^| )$shown( |$)"
done
works "a prompt" $sample --prompt "the sea"
says "the text begins with it" "^the sea"
printf 'a ship' >prompt
works "a prompt in a file" $sample --prompt FILE:prompt
says "the text begins with the file's" "^a ship"
works "a prompt longer than the context" $sample --prompt "the sea and a ship of old men went out, but no wind came"
texts_agree "the same seed, the same text" "$sample -s 5" "$sample -s 5"
texts_differ "another seed, another text" "$sample -s 5" "$sample -s 6"
texts_agree "with and without the cache, beyond the context" "$sample -s 5 --cache 1" "$sample -s 5 --cache 0"
texts_agree "temperature 0 needs no seed" "$sample --temperature 0 -s 1" "$sample --temperature 0 -s 2"
texts_agree "top-k 1 is temperature 0" "$sample --temperature 0" "$sample --top-k 1 -s 3"
texts_agree "top-p 0 is temperature 0" "$sample --temperature 0" "$sample --top-p 0 -s 4"
texts_agree "a run is its best checkpoint" "$sample" "bin/sample_gpt --model run/best --max-tokens 100"
texts_agree "a checkpoint by name" "$sample" "bin/sample_gpt --model run/$(readlink run/best) --max-tokens 100"
[ -n "$bf16" ] && works "bf16" $sample --dtype bf16
[ -n "$bf16" ] || refuses "bf16 where there is none" "use --dtype fp32" $sample --dtype bf16
works "a learned table" bin/sample_gpt --model table --max-tokens 100
works "three samples" $sample -n 3
holds "they are numbered" [ "$(grep -c '^--- sample [123]$' "$work/stdout")" -eq 3 ]
for signal in INT TERM; do
    $sample --max-tokens 1000000000 >endless 2>"$work/stderr" &
    process=$!
    wait_for sh -c 'tail -c +10000 endless | grep -q .'
    kill -$signal $process
    wait $process
    status=$?
    process=
    holds "SIG$signal: status" [ $status -eq 130 ]
    holds "SIG$signal: whole lines" [ "$(tail -c 1 endless | od -An -tu1)" -eq 10 ]
done
run sh -c "$sample --max-tokens 1000000000 | head -c 10"
holds "a reader that goes away ends it" [ $status -eq 0 -a "$(size "$work/stdout")" -eq 10 ]
fails "nowhere to write" "could not be written" sh -c "$sample >/dev/full"
refuses "missing model" "missing is not a directory" bin/sample_gpt --model missing
refuses "no run yet" "there is no run in 'out' yet; train one with ./train_gpt" bin/sample_gpt
refuses "no model there" "empty holds no model" bin/sample_gpt --model empty
refuses "empty prompt" "prompt is empty" $sample --prompt ""
refuses "empty prompt in a file" "prompt is empty" $sample --prompt FILE:nothing
refuses "missing prompt file" "missing.*No such file" $sample --prompt FILE:missing
refuses "unknown character" "prompt.*line 1, character 3: 'Z' .*not among the [0-9]+ characters" $sample --prompt "abZ"
refuses "unknown character of many bytes" "prompt.*'\\?*.*' .*U\+4E2D.*not among" $sample --prompt 中
refuses "prompt that is no UTF-8" "prompt.*not UTF-8" $sample --prompt "$(printf 'a\377')"
refuses "prompt with a zero byte" "zero byte" $sample --prompt FILE:data/train.bin
refuses "top-p out of range" "--top-p is '1.5'; expected a number from 0 to 1" $sample --top-p 1.5
refuses "temperature NaN" "--temperature is 'nan'; expected a number" $sample --temperature nan
refuses "unknown flag" "unknown option '--topk'; the nearest is --top-k" $sample --topk 3
refuses "unknown device" "--device 'tpu' is not in this build" $sample --device tpu
copy run/last plain && rm plain/state.json plain/optimizer.safetensors
texts_agree "a directory of weights alone" "bin/sample_gpt --model plain" "bin/sample_gpt --model run/last"
rm plain/characters.json
refuses "a model without a vocabulary" "no vocabulary in 'plain'" bin/sample_gpt --model plain
cp data/characters.json plain && head -c 50000 run/last/model.safetensors >plain/model.safetensors
refuses "weights cut off" "plain/model.safetensors" bin/sample_gpt --model plain
fails "wild weights" "logits are not finite" bin/sample_gpt --model wild_before/last

# The CUDA backend, its kernels run by the emulator: the same program, so only what depends on the device.
if [ -n "$emulated" ]; then
    group "CUDA backend, emulated"
    emu="$emulated --device emu -i data/train.bin -j data/val.bin --n-layer 2 --n-head 2 --n-embd 64 -t 16 -b 2 -g 3 -x 6 --warmup 2 --eval-batches 1
         --eval-every 3 --log-every 1 --algorithms= --deterministic $plain"
    same_model() { holds "$1" cmp "$2/last/model.safetensors" "$3/last/model.safetensors"; }
    works "bf16" $emu -o emu
    says "it names the device" "^device +emulated GPU"
    works "again" $emu -o emu_again
    same_model "the same bits" emu emu_again
    works "with samples and statistics" $emu -o emu_sampled --sample-tokens 20 --sample-every 2 --stats 3
    same_model "the same bits with samples and statistics" emu emu_sampled
    holds "three samples" [ "$(grep -c '^--- step [246]$' emu_sampled/samples.txt)" -eq 3 ]
    holds "two measurements" [ "$(grep -c '"stats": {"weights": {"wte": \[[0-9]' emu_sampled/log.jsonl)" -eq 2 ]
    holds "the peak of the emulator is unknown" [ -z "$(grep -e '"mfu"' emu_sampled/log.jsonl; grep -e '"peak_flops' emu_sampled/run.json)" ]
    works "without graphs" $emu -o emu_launches --no-graphs
    same_model "the same bits without graphs" emu emu_launches
    works "recomputing blocks" $emu -o emu_block --recompute block
    same_model "the same bits" emu emu_block
    works "stopped" $emu -o emu_stopped --max-time 1e-9
    holds "after one step" [ "$(readlink emu_stopped/last)" = step_00000001 ]
    works "resumed" $emulated --device emu --resume auto -o emu_stopped --max-time 0
    same_model "the same bits as never stopped" emu emu_stopped
    works "fp32" $emu -o emu_fp32 --dtype fp32
    works "fp32 on the cpu" $emu --device cpu -o cpu_fp32 --dtype fp32
    loss() { sed -n 's/.*"step": *6,.*"loss": *\([0-9.]*\).*/\1/p' "$1/log.jsonl"; }
    holds "and there the same loss to 1e-5" awk "BEGIN { d = $(loss emu_fp32) / $(loss cpu_fp32) - 1; exit !(d * d < 1e-10) }"
    works "timed algorithms" $emu -o emu_timed --no-deterministic --algorithms kept.txt
    holds "are kept in a file" grep -q "^gelu+aux 32 x 256 x 64 = " kept.txt
    holds "and in checkpoints" grep -q "gelu+aux 32 x 256 x 64 = " emu_timed/last/state.json
    works "and taken over from there" $emulated --device emu --resume auto -o emu_timed -x 7
    works "plain attention" $emu -o emu_plain --attention plain
    says "the banner says so" "plain attention"
    works "numerics checked" $emu -o emu_checked --check-numerics
    works "profiled" $emu -o emu_profile --profile
    says "ops are listed" "^attention_backward "
    works "its model samples on the cpu" bin/sample_gpt --model emu --max-tokens 5
    refuses "no cuDNN" "--attention cudnn cannot be had here: .*; install cuDNN 9, or use --attention auto" $emu --attention cudnn
    refuses "no GPU for the product" "--device 'cuda' (is not in this build|cannot be used here: .*); there is: .*emu" $emu --device cuda
    works "a run with checkpoints" $emu -o emu_failing --checkpoint-every 1 -x 2
    fails "a CUDA error in the middle" "^CUDA error: a failure .*, at .*_kernel.*; the kernel launched last was .*_kernel.*Checkpoints on disk are as they were" \
        env EMU_FAIL=100 $emulated --device emu --resume auto -o emu_failing -x 6
    holds "leaves the checkpoints" [ "$(readlink emu_failing/last)" = step_00000002 ]
    works "which can be resumed" $emulated --device emu --resume auto -o emu_failing -x 4
    refuses "too little memory" "of memory, but only .* are free; --batch [1-9][0-9]* fits" $emu -b 30000 -t 1000
fi

group
echo
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
