"""Makes text for the tokenizer's benchmark: python3 dev/tokenizer_text.py SOURCE OUTPUT [--bytes N] [--seed S]

No part of it is a copy of another. Words are those of SOURCE and many more that a letter model of them makes (the next letter follows from
the last three). The word of rank r comes up as often as 1 / (r + 2.7), beyond rank 8000 as 1 / r^1.6: the two slopes of Zipf's law that
large corpora show, so that rare and new words never end. There are sentences, paragraphs, numbers, punctuation, indented lines as of
programs, words in other scripts, and documents that end in <|endoftext|>. The same arguments give the same bytes.
"""
import argparse
import collections
import itertools
import random
import re

WORDS, KNEE = 1_000_000, 8000
SCRIPTS = [  # written in another alphabet, letter by letter; and the share of sentences in it
    ("абцдефгхийклмнопярстуввхызАБЦДЕФГХИЙКЛМНОПЯРСТУВВХЫЗ", 0.03),
    ("αβψδεφγηιξκλμνοπθρστυωςχυζΑΒΨΔΕΦΓΗΙΞΚΛΜΝΟΠΘΡΣΤΥΩΣΧΥΖ", 0.01),
    ("ابثدعفغهيجكلمنوپقرستوڤطخىظابثدعفغهيجكلمنوپقرستوڤطخىظ", 0.01),
    ("àbçdéfghîjklmñöpqrštúvwxÿžÀBÇDÉFGHÎJKLMÑÖPQRŠTÚVWXŸŽ", 0.03),
]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
CODE = ("%s = %s(%s)", "if (%s->%s == %s) {", "return %s_%s + %s;", "def %s(self, %s, %s):", "# %s %s %s", "%s[%s] += %s")
CJK_SHARE, CODE_SHARE = 0.02, 0.05


def letter_model(words):
    following = collections.defaultdict(list)
    for word in words:
        padded = "^^^" + word + "$"
        for i in range(3, len(padded)):
            following[padded[i - 3:i]].append(padded[i])
    return following


def new_word(following, chance):
    word = "^^^"
    while not word.endswith("$"):
        choices = following[word[-3:]]
        word += choices[int(chance() * len(choices))]
    return word[3:-1]


def make_words(source, rng):
    """Words, the most frequent first: those of the source in its order, then new ones."""
    found = collections.Counter(re.findall(r"[a-z]+", source.lower()))
    words = dict.fromkeys(word for word, _ in found.most_common())
    following = letter_model(words)
    while len(words) < WORDS:
        word = new_word(following, rng.random)
        if 1 < len(word) < 24:
            words[word] = None
    return list(words)


class Writer:
    def __init__(self, source, seed):
        self.rng = random.Random(seed)
        self.words = make_words(source, self.rng)
        weights = (1 / (rank + 2.7) if rank < KNEE else KNEE ** 0.6 / rank ** 1.6 for rank in range(1, WORDS + 1))
        weights = list(itertools.accumulate(weights))
        self.drawn = iter(lambda: self.rng.choices(self.words, cum_weights=weights, k=1 << 16), None)
        self.stream = itertools.chain.from_iterable(self.drawn)
        self.alphabets = [(str.maketrans(LETTERS, alphabet), share) for alphabet, share in SCRIPTS]

    def take(self, n):
        return list(itertools.islice(self.stream, n))

    def number(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.3:
            return str(rng.randrange(10))
        if kind < 0.6:
            return str(rng.randrange(1900, 2030))
        if kind < 0.8:
            return f"{rng.randrange(1000)}.{rng.randrange(100)}"
        return str(int(10 ** (rng.random() * 7)))

    def decorate(self, word):
        rng = self.rng
        luck = rng.random()
        if luck < 0.47:
            return word + ","
        if luck < 0.7:
            return word.capitalize()
        if luck < 0.85:
            return self.number()
        if luck < 0.93:
            return word + rng.choice(("'s", "'t", "'re", "'ll", "'d"))
        if luck < 0.98:
            return rng.choice(('"%s"', "(%s)", "%s-based", "%s;", "%s --", "*%s*", "%s:")) % word
        return word.upper()

    def sentence(self):
        rng = self.rng
        words = self.take(rng.randrange(4, 28))
        at = int(16 * rng.random())
        while at < len(words):
            words[at] = self.decorate(words[at])
            at += 1 + int(16 * rng.random())
        words[0] = words[0].capitalize()
        text = " ".join(words) + rng.choice((".", ".", ".", ".", ".", "?", "!", "...", "."))
        luck = rng.random()
        for alphabet, share in self.alphabets:
            if luck < share:
                return text.translate(alphabet)
            luck -= share
        return text

    def cjk(self):
        rng = self.rng

        def part():
            return "".join(chr(0x4E00 + int(20000 * rng.random() ** 4)) for _ in range(rng.randrange(2, 14)))
        return "，".join(part() for _ in range(rng.randrange(2, 8))) + "。"

    def code(self):
        rng = self.rng
        lines = []
        for _ in range(rng.randrange(2, 12)):
            a, b, c = self.take(3)
            lines.append("    " * rng.randrange(4) + rng.choice(CODE) % (a, b, c))
        return "\n".join(lines)

    def document(self):
        rng = self.rng
        paragraphs = []
        for _ in range(rng.randrange(1, 12)):
            luck = rng.random()
            if luck < CODE_SHARE:
                paragraphs.append(self.code())
            elif luck < CODE_SHARE + CJK_SHARE:
                paragraphs.append("".join(self.cjk() for _ in range(rng.randrange(1, 6))))
            else:
                paragraphs.append(" ".join(self.sentence() for _ in range(rng.randrange(1, 9))))
        return "\n\n".join(paragraphs) + "\n<|endoftext|>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--bytes", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open(options.source, encoding="utf-8") as file:
        writer = Writer(file.read(), options.seed)
    written = 0
    with open(options.output, "wb") as file:
        while written < options.bytes:
            written += file.write(writer.document().encode())


if __name__ == "__main__":
    main()
