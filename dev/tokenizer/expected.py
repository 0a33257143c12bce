#!/usr/bin/env python3
"""Makes what llmc/bpe_test.c and llmc/pretokenize_test.c expect, with the tools that everybody uses: tokenizers and tiktoken.

    python3 dev/tokenizer/expected.py GPT2_VOCAB_JSON GPT2_MERGES_TXT

small/         a vocabulary of 2,000 tokens, made by tokenizers of this repository's words and the phrases below: vocab.json, merges.txt,
               tokenizer.json. Its one special token has the number 0, the bytes follow in another order than ours.
expected.txt   a case a line: how often the piece stands in the text, the piece (bytes that are not printable ASCII, and %, as %HH), its
               tokens in the small vocabulary, its tokens in GPT-2's. What repeats is written
               TOKEN*COUNT or TOKEN,TOKEN*COUNT.
               For GPT-2's vocabulary both tools must agree.
classes.txt    FIRST LAST CLASS, hexadecimal: the letters (L), numbers (N) and white space (S) among the code points, as tokenizers sees
               them, and what is none of them (O). Code points that this Python's Unicode version does not know, or classes otherwise,
               are left out.
"""
import glob
import itertools
import json
import os
import random
import sys
import unicodedata

import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = os.path.join(HERE, "small")
EXPRESSION = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

PHRASES = [
    "The quick brown fox jumps over the lazy dog.", "I'm sure they'll've known it's what we'd said you're not.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "敏捷的棕色狐狸跳过了懒狗。", "いろはにほへと ちりぬるを わかよたれそ つねならむ", "키스의 고유조건은 입술끼리 만나야 하고",
    "دع عنك لومي فإن اللوم إغراء", "דג סקרן שט בים מאוכזב ולפתע מצא חברה", "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "นกกระจาบ บินไปบินมา", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "Voix ambiguë d'un cœur qui préfère les jattes de kiwis",
    "Příliš žluťoučký kůň úpěl ďábelské ódy", "Pijamalı hasta yağız şoföre çabucak güvendi İstanbul'da",
    "e\u0301 n\u0303 o\u0302\u0323 A\u030a",
    "👩‍👩‍👧‍👦 👍🏽 🇺🇳🇩🇪 ❤️ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 😀😀", "3.14159 1,000,000 ½ ² ٣٤٥ ४५६ Ⅷ ㊿ 一二三",
]
SPACES = [chr(c) for c in (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)]
NOT_SPACES = [chr(c) for c in (0x1C, 0x1D, 0x1E, 0x1F, 0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)]


def assigned(character):
    return unicodedata.category(character) not in ("Cn", "Cs")


def make_small():
    files = [open(path, encoding="utf-8").read() for path in sorted(glob.glob(os.path.join(HERE, "../../llmc/*.h")))]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(files + PHRASES * 40, trainer)
    os.makedirs(SMALL, exist_ok=True)
    tokenizer.save(os.path.join(SMALL, "tokenizer.json"), pretty=False)
    tokenizer.model.save(SMALL)


def load_small():
    return tokenizers.Tokenizer.from_file(os.path.join(SMALL, "tokenizer.json"))


def load_gpt2(vocab_path, merges_path):
    """The vocabulary in tokenizers and in tiktoken."""
    hugging = tokenizers.Tokenizer(models.BPE.from_file(vocab_path, merges_path))
    hugging.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hugging.add_special_tokens(["<|endoftext|>"])
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    with open(vocab_path, encoding="utf-8") as file:
        vocab = json.load(file)
    special = {"<|endoftext|>": vocab.pop("<|endoftext|>")}
    ranks = {bytes(byte_of[letter] for letter in text): token for text, token in vocab.items()}
    return hugging, tiktoken.Encoding("gpt2", pat_str=EXPRESSION, mergeable_ranks=ranks, special_tokens=special)


def cases():
    """(count, piece)"""
    yield from ((1, phrase) for phrase in PHRASES)
    yield 1, " ".join(PHRASES)
    yield 1, "\n\n".join(PHRASES)
    for space in SPACES + NOT_SPACES:
        for form in ("{0}", "a{0}", "{0}a", "a{0}b", "a{0}{0}b", "a {0}b", "a{0} b", "a{0}\nb", "1{0}{0}!", "{0}'s{0}"):
            yield 1, form.format(space)
        yield 1000, space
    for a, b in itertools.product(SPACES, SPACES):
        yield 1, "x" + a + b + a + "y"
    for form in ("'s", "'S", "'t", "'re", "'ve", "'m", "'ll", "'d", "'l", "'r", "'v", "''s", "' s", "\u2019s", "'sa", "'lll",
                 "?'s", " 's", "1's", "_'re"):
        for word in ("it", "é", "漢", "7", ""):
            yield 1, word + form
            yield 1, word + form * 3 + " " + word
    for character in ("\0", "a", " ", "\n", "!", "7", "é", "漢", "😀", "\u0301", "\u3000", "'", "\r\n", "ab", "a ", "'s", "\0 "):
        for count in (2, 3, 31, 127, 128, 129, 130, 257, 1023):
            yield count, character
    yield 1_000_000, "a"
    yield 1_000_000, " "
    yield 300_000, "é"
    yield 500_000, "ab"
    for digits in ("٠١٢٣٤", "०१२", "๑๒๓", "１２３", "𝟘𝟙𝟚", "²³¹", "½¾", "ⅣⅫ", "〇一", "①②", "৳৴", "12٣४５"):
        yield 1, digits
        yield 1, "x" + digits + "y " + digits
    for text in ("<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "  <|endoftext|>\n<|endoftext|>", "<|endoftext|",
                 "<<|endoftext|>>", "<|endoftext|><|endoftext|>", "<|endof<|endoftext|>text|>", "it's<|endoftext|>'s"):
        yield 1, text
    yield from random_cases()


def random_cases():
    random.seed(1)
    blocks = [(0x20, 0x7E), (0, 0x1F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0x11FF),
              (0x1E00, 0x20CF), (0x2100, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFB00, 0xFFFD),
              (0x10000, 0x103FF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)]

    def letter():
        while True:
            character = chr(random.randint(*random.choice(blocks)))
            if assigned(character):
                return character
    pieces = [letter, lambda: random.choice(SPACES), lambda: random.choice(["'s", "'ll", " ", "the", "é", "1"])]
    for _ in range(150):
        text = ""
        while len(text) < 40:
            text += random.choice(pieces)() * random.choice([1, 1, 2])
        yield 1, text
    for length in (100, 200, 1000, 3000):   # words of any letters, where merging is long
        for alphabet in ("ab", "abcdefghijklmnopqrstuvwxyz", "etaoinshr", "абвгдежзиклмн"):
            yield 1, "".join(random.choice(alphabet) for _ in range(length if alphabet != "абвгдежзиклмн" else length // 4))


def written_piece(piece):
    return "".join(chr(b) if 0x21 <= b < 0x7F and b != 0x25 else f"%{b:02X}" for b in piece.encode())


def written_tokens(tokens):
    words, at = [], 0
    while at < len(tokens):
        period, count = 1, 1
        for p in (1, 2, 3, 4):
            n = 1
            while tokens[at + n * p:at + (n + 1) * p] == tokens[at:at + p]:
                n += 1
            if n > 1 and n * p > count * period:
                period, count = p, n
        words.append(",".join(map(str, tokens[at:at + period])) + (f"*{count}" if count > 1 else ""))
        at += period * count
    return " ".join(words)


def write_expected(small, gpt2, tiktoken_gpt2):
    with open(os.path.join(HERE, "expected.txt"), "w", encoding="ascii") as file:
        for count, piece in cases():
            text = piece * count
            assert all(assigned(c) for c in piece), piece
            tokens = gpt2.encode(text, add_special_tokens=False).ids
            assert tokens == tiktoken_gpt2.encode(text, allowed_special="all"), (piece, count)
            small_tokens = small.encode(text, add_special_tokens=False).ids
            file.write(f"{count}\t{written_piece(piece)}\t{written_tokens(small_tokens)}\t{written_tokens(tokens)}\n")


def class_of(character, splitter):
    """By what it stays together with."""
    together = [len(splitter.pre_tokenize_str("!" + other + character)) == len(splitter.pre_tokenize_str("!" + other)) for other in "a1\n!"]
    return "LNSO"[together.index(True)]


def expected_class(character):
    return {"L": "L", "N": "N"}.get(unicodedata.category(character)[0], "S" if character in SPACES else "O")


def write_classes():
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    classes = {}
    for code in range(0x110000):
        character = chr(code)
        if assigned(character) and class_of(character, splitter) == expected_class(character):
            classes[code] = expected_class(character)
    with open(os.path.join(HERE, "classes.txt"), "w", encoding="ascii") as file:
        for _, run in itertools.groupby(classes.items(), key=lambda item, place=itertools.count(): (item[0] - next(place), item[1])):
            run = list(run)
            file.write(f"{run[0][0]:X} {run[-1][0]:X} {run[0][1]}\n")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_small()
    write_expected(load_small(), *load_gpt2(*sys.argv[1:]))
    write_classes()


if __name__ == "__main__":
    main()
