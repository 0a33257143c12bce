#!/bin/sh
# The default text in vocabularies of several sizes, all with the same training and validation text, that of data/characters:
#   sh scripts/experiments/vocabularies.sh characters 257 512 ...
# makes data/vocabularies/characters, data/vocabularies/257 (256 bytes and <|endoftext|>), data/vocabularies/512, ... What is there stays.
set -eu
cd "$(dirname "$0")/../.."
tokenizer=${TOKENIZER:-./tokenizer}
[ -x "$tokenizer" ] || { echo "vocabularies.sh: there is no program $tokenizer; make tokenizer" >&2; exit 1; }
[ -f data/characters/dataset.json ] || sh data/prepare.sh
text=data/vocabularies/text
mkdir -p "$text"

# The text is what the tokens of the characters stand for; a shard has a header of 1,024 bytes.
for split in train val; do
    [ -f "$text/$split.txt" ] && continue
    tail -c +1025 "data/characters/$split.bin" | "$tokenizer" decode --vocab data/characters --format u16 >"$text/$split.tmp"
    mv "$text/$split.tmp" "$text/$split.txt"
done

for name in "$@"; do
    directory=data/vocabularies/$name
    [ -f "$directory/dataset.json" ] && continue
    if [ "$name" = characters ]; then
        cat "$text/train.txt" "$text/val.txt" >"$text/all.txt"
        "$tokenizer" chars --input "$text/all.txt" --out "$directory" --source 'the text of data/characters'
        continue
    fi
    "$tokenizer" train --input "$text/train.txt" --vocab-size "$name" --special '<|endoftext|>' --out "$directory"
    "$tokenizer" shards --vocab "$directory" --input "$text/train.txt" --val-input "$text/val.txt" --out "$directory" \
        --source 'the text of data/characters'
done
