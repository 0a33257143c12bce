"""Texts to a dataset: a vocabulary and shards of tokens, by ./tokenizer, for prepare.py."""
import contextlib
import json
import mmap
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import catalog
import documents
from common import Failure, say

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


# ---- The tokenizer ----

def tokenizer_program():
    program = os.environ.get("TOKENIZER") or os.path.join(ROOT, "tokenizer")
    if os.access(program, os.X_OK):
        return os.path.abspath(program)
    if os.environ.get("TOKENIZER"):
        raise Failure(f"there is no program '{program}', which $TOKENIZER names")
    if subprocess.run(["make", "-C", ROOT, "tokenizer"], check=False).returncode != 0:
        raise Failure("the program tokenizer could not be built")
    return program


def run(command, write=None, texts=()):
    """Runs the tokenizer; with write, on what write(texts, its standard input) writes. Its own words come first when it fails."""
    with subprocess.Popen(command, stdin=subprocess.PIPE if write else subprocess.DEVNULL) as process:
        try:
            if write:
                write(texts, process.stdin)
        except BrokenPipeError:   # it has ended, and said why
            pass
        except BaseException:
            process.kill()        # before its input ends, lest it makes a dataset of half the text
            process.wait()
            raise
        finally:
            if write:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
    if process.returncode != 0:
        raise Failure(f"tokenizer {command[1]} ended with exit status {process.returncode}; its own words stand above")


class Text(NamedTuple):
    """What a split is made of: files that the tokenizer reads itself, or documents to write for it."""
    files: list
    read: object        # () → documents; None if files are given


def written(files, paths, job):
    """The documents in `files`; paths(files) are their paths, one after another."""
    read = documents.READERS[job.reader]
    return Text([], lambda: documents.limited((document for path in paths(files) for document in read(path, job.field)), job.limit))


def text_of(files, paths, job):
    if job.reader in ("txt", "jsonl") and not job.limit:
        return Text(list(paths(files)), None)
    return written(files, paths, job)


def has_separator(path):
    with open(path, "rb") as file:
        if os.path.getsize(path) == 0:
            raise Failure(f"'{path}' is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(documents.SEPARATOR.encode()) >= 0


def cut_text(path, limit, fraction, directory):
    """A text that is one document: its lines up to a share of `fraction`, and the rest, as two files."""
    size = min(os.path.getsize(path), limit or sys.maxsize)
    halves = [os.path.join(directory, name) for name in ("train.txt", "val.txt")]
    with open(path, "rb") as text, open(halves[0], "wb") as train, open(halves[1], "wb") as val:
        left = int(size * (1 - fraction))
        copy(text, train, left)
        train.write(text.readline(max((size - left) // 2, 1)))
        copy(text, val, size - text.tell())
    return halves


def copy(source, target, count):
    while count > 0:
        piece = source.read(min(count, 1 << 20))
        target.write(piece)
        count -= len(piece)


def splits_of(job, store, staging):
    """The texts of the training and of the validation split; the second is None where the tokenizer is to choose documents of the first."""
    if job.name and not job.limit:
        list(store.fetch_all(job.train + job.val, job.download_bytes))
    paths = store.fetch_one_by_one if job.name else iter
    if job.reader == "txt" and len(job.train) == 1 and not job.val:
        path = next(iter(paths(job.train)))
        if not has_separator(path):
            return [Text([half], None) for half in cut_text(path, job.limit, job.val_fraction, staging)]
    return [text_of(job.train, paths, job), text_of(job.val, paths, job) if job.val else None]


# ---- Vocabularies ----

def gpt2_vocabulary(store):
    """GPT-2's, in data/vocab/gpt2: whole or not there."""
    directory = os.path.join(HERE, "vocab", "gpt2")
    if not os.path.isdir(directory):
        paths = list(store.fetch_all(catalog.GPT2, 0))
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        with temporary_directory(directory) as temporary:
            made = os.path.join(temporary, "gpt2")
            os.mkdir(made)
            for path in paths:
                shutil.copyfile(path, os.path.join(made, os.path.basename(path)))
            os.rename(made, directory)
        say(f"'{directory}' is ready")
    return directory


def own_vocabulary(job, train, program, directory):
    """Of the training text."""
    size = job.vocab[len("train:"):]
    say(f"making a vocabulary of {size} tokens")
    command = [program, "train", "--vocab-size", size, "--special", documents.SEPARATOR, "--out", directory]
    command += ["--threads", str(job.threads)] if job.threads else []
    if job.reader == "jsonl" and not train.read:
        train = written(train.files, iter, job)   # the text, without JSON's own letters
    if train.read:
        run(command + ["--input", "/dev/stdin"], documents.write_separated, train.read())
    else:
        run(command + ["--input", *train.files])
    return directory


# ---- Shards ----

def make_shards(job, texts, vocab, program, staging):
    train, val = texts
    command = [program, "shards", "--force", "--vocab", vocab, "--out", job.out, "--source", job.source, "--seed", str(job.seed)]
    command += ["--shard-tokens", str(job.shard_tokens)]
    command += ["--threads", str(job.threads)] if job.threads else []
    command += ["--field", job.field] if train.files and job.reader == "jsonl" else []
    command += ["--val-input", *val_files(val, staging)] if val else ["--val-fraction", str(job.val_fraction)]
    if train.read:
        run(command + ["--input", "-"], documents.write_jsonl, train.read())
    else:
        run(command + ["--input", *train.files])


def val_files(val, staging):
    if not val.read:
        return val.files
    path = os.path.join(staging, "val.jsonl")
    with open(path, "wb") as file:
        documents.write_jsonl(val.read(), file)
    return [path]


def discard_unfinished(out):
    """What a tokenizer leaves that was ended by force."""
    shutil.rmtree(os.path.join(out, "new.tmp"), ignore_errors=True)
    with contextlib.suppress(OSError):   # there is a dataset in it
        os.rmdir(out)


def sign(out, request):
    """Adds to dataset.json what was asked for."""
    path = os.path.join(out, "dataset.json")
    with open(path, encoding="utf-8") as file:
        description = {**json.load(file), "request": request}
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(description, file, ensure_ascii=False)
        file.write("\n")
    os.replace(path + ".tmp", path)


@contextlib.contextmanager
def temporary_directory(beside):
    """Removed whatever happens."""
    directory = f"{os.path.abspath(beside)}.{os.getpid()}.tmp"
    os.makedirs(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def make(job, request, store):
    """The dataset: whole, or not there. An older one stays until then."""
    program = tokenizer_program()
    with temporary_directory(job.out) as staging:
        vocab = gpt2_vocabulary(store) if job.vocab == "gpt2" else job.vocab
        texts = splits_of(job, store, staging)
        if vocab.startswith("train:"):
            vocab = own_vocabulary(job, texts[0], program, os.path.join(staging, "vocabulary"))
        say(f"tokenising {job.source}")
        try:
            make_shards(job, texts, vocab, program, staging)
        finally:
            discard_unfinished(job.out)
        sign(job.out, request)
