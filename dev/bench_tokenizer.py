"""Our tokenizer beside Hugging Face tokenizers and tiktoken: python3 dev/bench_tokenizer.py (or make bench-tokenizer)

Every tool gets the same text, made by dev/tokenizer_text.py, and the same number of threads: all processors for training, one for encoding.
Tools take turns and the best of --repeat runs counts. Of our training the whole process is timed; else the calls that do the work, without
imports and, for Hugging Face's training, without reading the text: it gets a list of documents, because from files it would take
<|endoftext|> as text. CPU seconds are of all threads together; they tell more than the clock where the machine is busy with other things.
Encoders get GPT-2's vocabulary and one document at a time (Hugging Face a thousand in a batch, which is faster), and must give the same
tokens.

Needs the Python packages tokenizers and tiktoken, and in $DATA_MIRROR (default ../shared/data) tinyshakespeare.txt, gpt2_vocab.json and
gpt2_merges.txt.
"""
import argparse
import array
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = "<|endoftext|>"
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


# ---- The other tools; each runs in a process of its own and prints one line ----

def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def child_hf_train(text, vocab_size, out):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=int(vocab_size), special_tokens=[SPECIAL], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inputs = documents(text)
    _, wall, cpu = timed(lambda: tokenizer.train_from_iterator(inputs, trainer))
    tokenizer.save(out)
    print(wall, cpu)


def documents(text):
    with open(text, encoding="utf-8", newline="") as file:
        return [document for document in file.read().split(SPECIAL) if document]


def encode_all(text, encode, tokens_of):
    """A thousand documents at a time, so that the tokens of all need not be in memory; only `encode` is timed."""
    inputs = documents(text)
    wall = cpu = crc = count = 0
    for first in range(0, len(inputs), 1000):
        results, more_wall, more_cpu = timed(lambda: encode(inputs[first:first + 1000]))
        wall, cpu = wall + more_wall, cpu + more_cpu
        for result in results:
            tokens = tokens_of(result)
            crc = zlib.crc32(array.array("i", tokens).tobytes(), crc)
            count += len(tokens)
    print(wall, cpu, count, f"{crc:08x}")


def child_hf_encode(text, vocabulary):
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokenizer = Tokenizer(models.BPE.from_file(f"{vocabulary}/vocab.json", f"{vocabulary}/merges.txt"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encode_all(text, tokenizer.encode_batch_fast, lambda encoding: encoding.ids)


def child_tiktoken_encode(text, vocabulary):
    import tiktoken
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of.update((chr(256 + i), byte) for i, byte in enumerate(sorted(set(range(256)) - set(printable))))
    with open(f"{vocabulary}/vocab.json", encoding="utf-8") as file:
        ranks = {bytes(byte_of[letter] for letter in spelled): token for spelled, token in json.load(file).items() if spelled != SPECIAL}
    encoding = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={SPECIAL: len(ranks)})
    encode_all(text, lambda part: [encoding.encode_ordinary(document) for document in part], lambda tokens: tokens)


CHILDREN = {"hf-train": child_hf_train, "hf-encode": child_hf_encode, "tiktoken-encode": child_tiktoken_encode}


# ---- Measuring ----

def run(command, threads):
    """Words on stdout, wall and CPU seconds, and peak memory in bytes of a process."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true" if threads > 1 else "false")
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"bench_tokenizer.py: this failed: {' '.join(command)}")
    return output, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss


def figures(output, peak):
    wall, cpu, *rest = output.split()
    return {"wall": float(wall), "cpu": float(cpu), "peak": peak, "rest": rest}


def child(name, threads, *arguments):
    output, _, _, peak = run([sys.executable, os.path.abspath(__file__), "--child", name, *arguments], threads)
    return figures(output, peak)


def train(options, text, out, threads, vocab_size):
    command = [options.tokenizer, "train", "--input", text, "--vocab-size", str(vocab_size), "--special", SPECIAL, "--out", out,
               "--threads", str(threads)]
    output, wall, cpu, peak = run(command, threads)
    counted = re.search(r"counted .* in ([0-9.]+) s with .*: ([0-9]+) pre-tokens, ([0-9]+) distinct", output).groups()
    merged = re.search(r"merged ([0-9]+) pairs in ([0-9.]+) s", output).groups()
    return {"wall": wall, "cpu": cpu, "peak": peak, "count": float(counted[0]), "total": int(counted[1]), "distinct": int(counted[2]),
            "merges": int(merged[0]), "merge": float(merged[1])}


def best_of(options, runs):
    """The best of several runs of each, taken in turn; best in CPU seconds and on the clock may be two runs."""
    results = [[run() for run in runs] for _ in range(options.repeat)]
    return [{**min(tries, key=lambda result: result["wall"]), "cpu": min(result["cpu"] for result in tries)} for tries in zip(*results)]


def line(name, size, result, ours, wanted=None):
    wall, cpu = result["wall"], result["cpu"]
    text = f"  {name:12}{wall:8.2f} s {size / wall / 1e6:8.2f} MB/s | CPU {cpu:7.2f} s {size / cpu / 1e6:8.2f} MB/s"
    text += f" | peak {result['peak'] / 2**20:5.0f} MiB"
    if result is not ours:
        text += f" | ours is {wall / ours['wall']:.1f} times as fast by the clock, {cpu / ours['cpu']:.1f} times by CPU"
    print(text + (f" (wanted: {wanted})" if wanted else ""), flush=True)


# ---- The benchmark ----

def merges_of(directory_or_file):
    path = directory_or_file if os.path.isfile(directory_or_file) else os.path.join(directory_or_file, "tokenizer.json")
    with open(path, encoding="utf-8") as file:
        merges = json.load(file)["model"]["merges"]
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]


def bench_training(options, text, size, work):
    ours_out, theirs_out = os.path.join(work, "ours"), os.path.join(work, "theirs.json")
    print(f"training, {options.vocab_size} tokens, {options.threads} threads")
    ours, theirs = best_of(options, [lambda: train(options, text, ours_out, options.threads, options.vocab_size),
                                     lambda: child("hf-train", options.threads, text, str(options.vocab_size), theirs_out)])
    print(f"  the text has {ours['total']} pre-tokens, {ours['distinct']} of them distinct (wanted: 500000)")
    line("ours", size, ours, ours)
    print(f"    of it {ours['count']:.2f} s for counting pre-tokens, {ours['merge']:.2f} s for {ours['merges']} merges")
    line("tokenizers", size, theirs, ours, 3)
    a, b = merges_of(ours_out), merges_of(theirs_out)
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    print(f"  the first {same} merges are the same, and {len(set(a) & set(b))} of {len(a)} are in both; of equally frequent pairs theirs takes another")
    return ours


def bench_extrapolation(options, text, size, ours, work):
    """Counting goes with bytes and threads, merging with distinct pre-tokens on one thread, and those with a power of the bytes (Heaps'
    law), which two sizes of our text give. As many merges as here are taken for both."""
    quarter = os.path.join(work, "quarter.txt")
    with open(text, "rb") as source, open(quarter, "wb") as file:
        file.write(source.read(size // 4))
    out = os.path.join(work, "other")
    power = math.log(ours["distinct"] / train(options, quarter, out, options.threads, 300)["distinct"]) / math.log(4)
    one = min((train(options, text, out, 1, options.vocab_size) for _ in range(options.repeat)), key=lambda r: r["wall"])
    print(f"extrapolated to 8 cores: one thread counts {size / one['count'] / 1e6:.1f} MB/s and merges in {one['merge']:.2f} s; "
          f"distinct pre-tokens grow as bytes^{power:.2f}")
    for name, target, limit in (("TinyStories, 2.2 GB", 2.2e9, 2), ("OpenWebText, 12 GB", 12e9, 15)):
        times = target / size
        count, merge = one["count"] * times / 8, one["merge"] * times ** power
        print(f"  {name}: counting {count:.0f} s, merging {merge:.0f} s, together {(count + merge) / 60:.1f} minutes (wanted: {limit})")


def bench_encoding(options, text, work):
    vocabulary = os.path.join(work, "gpt2")
    os.mkdir(vocabulary)
    for name in "vocab.json", "merges.txt":
        shutil.copy(os.path.join(options.data, "gpt2_" + name), os.path.join(vocabulary, name))
    part = os.path.join(work, "part.txt")
    with open(text, "rb") as source, open(part, "wb") as file:
        data = source.read(options.encode_bytes)
        file.write(data[:data.rfind(SPECIAL.encode()) + len(SPECIAL)])
    size = os.path.getsize(part)

    def ours_encode():
        output, _, _, peak = run([options.encoder, vocabulary, part], 1)
        return figures(output, peak)

    print(f"encoding {size / 1e6:.1f} MB with GPT-2's vocabulary, 1 thread")
    ours, tiktoken, theirs = best_of(options, [ours_encode, lambda: child("tiktoken-encode", 1, part, vocabulary),
                                               lambda: child("hf-encode", 1, part, vocabulary)])
    line("ours", size, ours, ours)
    line("tiktoken", size, tiktoken, ours, 3)
    line("tokenizers", size, theirs, ours, 10)
    if not ours["rest"] == tiktoken["rest"] == theirs["rest"]:
        sys.exit(f"bench_tokenizer.py: the tokens differ: ours {ours['rest']}, tiktoken {tiktoken['rest']}, tokenizers {theirs['rest']}")
    print(f"  all three give the same {ours['rest'][0]} tokens ({size / int(ours['rest'][0]):.3f} bytes each)")


def main():
    if sys.argv[1:2] == ["--child"]:
        return CHILDREN[sys.argv[2]](*sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", default="./tokenizer")
    parser.add_argument("--encoder", default="build/dev/bench_bpe")
    parser.add_argument("--data", default=os.environ.get("DATA_MIRROR", "../shared/data"))
    parser.add_argument("--text", help="UTF-8 text to use instead of one made for the occasion")
    parser.add_argument("--bytes", type=int, default=100_000_000)
    parser.add_argument("--encode-bytes", type=int, default=100_000_000)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", choices=("training", "encoding"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        text = options.text or os.path.join(work, "text.txt")
        if not options.text:
            source = os.path.join(options.data, "tinyshakespeare.txt")
            maker = os.path.join(HERE, "tokenizer_text.py")
            subprocess.run([sys.executable, maker, source, text, "--bytes", str(options.bytes)], check=True)
        size = os.path.getsize(text)
        print(f"text: {size / 1e6:.1f} MB")
        if options.only != "encoding":
            bench_extrapolation(options, text, size, bench_training(options, text, size, work), work)
        if options.only != "training":
            bench_encoding(options, text, work)


if __name__ == "__main__":
    main()
