#!/usr/bin/env python3
"""Makes the vocabularies of other pre-tokenisations than GPT-2's that llmc/bpe_others_test.c reads, and what tokenizers says of them.

    python3 dev/tokenizer/others.py

llama3/, qwen2/, smollm/   tokenizer.json, about 1,500 tokens trained by tokenizers on this repository's words and phrases, with what the models'
                own have: Llama 3's expression, ignore_merges and the token before a text; Qwen 2's expression, normal form C, and added tokens
                that are not special, one of them sought in the normal form; digits one by one. Words that no merge makes stand in
                llama3's vocabulary: only ignore_merges finds them.
                expected.txt, a case a line: how often the piece stands in the text; the piece, as expected.py writes it; its tokens; its tokens
                where special ones are taken as letters; and its normal form where that is another text (else -).
"""
import glob
import json
import os
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from expected import HERE, NOT_SPACES, PHRASES, SPACES, assigned, written_piece, written_tokens

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3, QWEN2 = CL100K.replace("DIGITS", "{1,3}"), CL100K.replace("DIGITS", "")
WHOLE_WORDS = ["ĠSphinx", "Quartz", "-+-+", "ĠĠĠĠĠĠĠĠĠ", "'Ll", "z" * 200]   # in GPT-2's letters


def split_by(expression):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def trained(pre_tokenizer, specials, normalizer=None):
    files = [open(path, encoding="utf-8").read() for path in sorted(glob.glob(os.path.join(HERE, "../../llmc/[a-m]*.h")))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=[], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(files + PHRASES * 40, trainer)
    tokenizer.add_special_tokens(specials)
    return tokenizer


def llama3():
    tokenizer = trained(split_by(LLAMA3), [])
    state = json.loads(tokenizer.to_str())
    for word in WHOLE_WORDS:
        assert word not in state["model"]["vocab"], word
        state["model"]["vocab"][word] = len(state["model"]["vocab"])
    state["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    first = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single=[first, "$A"], pair=[first, "$A", first + ":1", "$B:1"], special_tokens=[(first, tokenizer.token_to_id(first))])])
    return tokenizer


def qwen2():
    tokenizer = trained(split_by(QWEN2), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC())
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<tool_call>", "</tool_call>", "<think>", "end|>")])
    tokenizer.add_tokens([AddedToken("=<|", normalized=True), AddedToken("->", normalized=True)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def smollm():
    return trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                   ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def cases(specials):
    yield from ((1, phrase) for phrase in PHRASES)
    yield 1, "\r\n".join(PHRASES)
    yield 1, " Sphinx of black Quartz, judge -+-+\nmy vow -+-+-+ x          1 we'Ll\n" + "z" * 200 + "\n" + "z" * 201
    for space in SPACES + NOT_SPACES:
        for form in ("{0}", "a{0}", "{0}a", "a{0}{0}b", "!{0}", "!{0}{0}!", "{0}{0}1", "1{0}\n{0}b", "\n{0}a", "{0}\r\n{0}", "漢{0}\n", "é{0}'s"):
            yield 1, form.format(space)
    for form in ("'s", "'S", "'t", "'RE", "'Ve", "'m", "'LL", "'lL", "'D", "'l", "'R", "'v", "''S", "' s", "\u2019s", "'sa", "'LLL", "?'s", " 'S",
                 "1'S", "'\u017f", "'\u017fa", "'\u212a", "'re\u0301", "'l\u0142"):
        for word in ("it", "é", "7", "", "!", " "):
            yield 1, word + form + " " + form + "x"
    for character in ("7", "\n", "\r\n", " ", "\t", "!", "é", "漢", "😀", "\u0301", "\u0664", "½", "a\n", "! \n", "12 ", "\n 1", "e\u0301"):
        for count in (2, 3, 4, 7, 129):
            yield count, character
    for digits in ("٠١٢٣٤", "०१२", "１２３４", "𝟘𝟙𝟚", "²³¹", "½¾", "ⅣⅫ", "12٣४５", "1a22b333c4444d55555", "-1 -12 $1234.5678 1,000,000"):
        yield 1, digits + "x" + digits + "  " + digits
    for text in ("e\u0301", "\u0301", "\n\u0301", "<\u0338", "\u212b\u212a\u037e", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0344", "a\u0323\u0302",
                 "\u1e9b\u0323", "\u0958", "\u2000\u2001", "\uf900\U0002f800", "q\u0307\u0323", "1\u0307", "'s\u0307", " \u0308", "\u09c7\u09be"):
        for form in ("{0}", "x{0}y", "{0}{0}", " {0} {0}\n", "!{0}!{0}"):
            yield 1, form.format(text)
    for special in specials:
        for form in ("{0}", "a{0}b", "a {0} b", " {0}\n{0}", "<{0}>", "{0}{0}", "={0}", "e{0}\u0301", "{0}'s", "  {0}  "):
            yield 1, form.format(special)
        yield 1, special[:-1] + special
    yield from random_cases(specials)


def random_cases(specials):
    random.seed(2)
    blocks = [(0x20, 0x7E), (0, 0x1F), (0xA0, 0x24F), (0x300, 0x345), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0x11FF),
              (0x1E00, 0x20CF), (0x2100, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x1F300, 0x1F5FF)]

    def letter():
        while True:
            character = chr(random.randint(*random.choice(blocks)))
            if assigned(character):
                return character
    pieces = [letter, lambda: random.choice(SPACES), lambda: random.choice(["'S", "'ll", " ", "the", "e\u0301", "12", "\r\n", "\n", "!", *specials])]
    for _ in range(200):
        text = ""
        while len(text) < 40:
            text += random.choice(pieces)() * random.choice([1, 1, 2])
        yield 1, text


def main():
    for make in (llama3, qwen2, smollm):
        tokenizer, directory = make(), os.path.join(HERE, make.__name__)
        os.makedirs(directory, exist_ok=True)
        tokenizer.save(os.path.join(directory, "tokenizer.json"), pretty=False)
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        with open(os.path.join(directory, "expected.txt"), "w", encoding="ascii") as file:
            for count, piece in cases(added):
                text = piece * count
                columns = []
                for letters in (False, True):
                    tokenizer.encode_special_tokens = letters
                    columns.append(written_tokens(tokenizer.encode(text, add_special_tokens=False).ids))
                normal = unicodedata.normalize("NFC", text) if tokenizer.normalizer else text
                columns.append("-" if normal == text or any(token in text for token in added) else written_piece(normal))
                file.write(f"{count}\t{written_piece(piece)}\t" + "\t".join(columns) + "\n")


if __name__ == "__main__":
    main()
