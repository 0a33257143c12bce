#!/usr/bin/env python3
"""Vocabularies that we write, in the tools that read them: tokenizers and transformers must give the tokens that we give.

    python3 dev/tokenizer/check.py TOKENIZER DIRECTORY ...

TOKENIZER is the program; each DIRECTORY holds a tokenizer.json, vocab.json and merges.txt that it wrote, for any --pretokenizer. Random texts
of every script, of every kind of white space and with special tokens are encoded by all; only code points that this Python's Unicode version
knows. The last two files by themselves mean GPT-2's pre-tokens.
"""
import json
import os
import random
import subprocess
import sys
import unicodedata

import tokenizers
import transformers

SPACES = [chr(c) for c in (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)]


def random_text(specials):
    pieces = [lambda: chr(random.randrange(random.choice([0x7F, 0x250, 0x3100, 0x20000]))),
              lambda: random.choice(SPACES) * random.randint(1, 3),
              lambda: random.choice(["'s", "'LL", " the", " and", "ing", "n't", "123", "!\r\n", "e\u0301", "<\u0338"]),
              lambda: random.choice([*specials, "<|", "|>"])]
    text = "".join(random.choices(pieces, [4, 2, 4, 1])[0]() for _ in range(random.randint(1, 400)))
    return "".join(c for c in text if unicodedata.category(c) not in ("Cn", "Cs"))


def ours(program, directory, text):
    output = subprocess.run([program, "encode", "--vocab", directory], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    return [int(word) for word in output.split()]


def check(program, directory):
    path = os.path.join(directory, "tokenizer.json")
    hugging = tokenizers.Tokenizer.from_file(path)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=path)
    model = tokenizers.models.BPE.from_file(os.path.join(directory, "vocab.json"), os.path.join(directory, "merges.txt"))
    with open(path, encoding="utf-8") as file:
        state = json.load(file)
    specials = [token["content"] for token in state["added_tokens"]]
    parts = tokenizers.Tokenizer(model)
    parts.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts.add_special_tokens(specials)
    for number in range(150):
        random.seed(number)
        text = random_text(specials)
        expected = ours(program, directory, text)
        assert hugging.encode(text).ids == expected, (number, text)
        assert fast(text)["input_ids"] == expected, (number, text)
        if state["pre_tokenizer"]["type"] == "ByteLevel":
            assert parts.encode(text).ids == expected, (number, text)
        assert state["normalizer"] or hugging.decode(expected, skip_special_tokens=False) == text, (number, text)
    print(f"{directory}: {hugging.get_vocab_size()} tokens, 150 texts: tokenizers and transformers agree")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for directory in sys.argv[2:]:
        check(sys.argv[1], directory)


if __name__ == "__main__":
    main()
