"""Texts to a dataset: a vocabulary and shards of tokens, by ./tokenizer, for prepare.py."""
import contextlib
import fcntl
import glob
import itertools
import json
import mmap
import os
import random
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import catalog
import documents
from common import Failure, remove, say, signals_wait

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SAFE = 20   # documents that a draw should bring to each split; that it brings none then has a probability of exp(-20)


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
    process = None
    try:
        with signals_wait():      # else one that comes just now leaves a process that nobody knows
            process = subprocess.Popen(command, stdin=subprocess.PIPE if write else subprocess.DEVNULL)
        took_all = not write or feed(process, write, texts)
        process.wait()
    except BaseException:
        if process:
            process.kill()        # before its input ends, lest it takes half the text for all
            process.wait()
            if write:
                close(process.stdin)
        raise
    if process.returncode != 0:
        raise Failure(f"tokenizer {command[1]} ended with exit status {process.returncode}; its own words stand above")
    if not took_all:
        raise Failure(f"tokenizer {command[1]} ended before it had read all of the text")


def feed(process, write, texts):
    """Whether the process took all of it; if not it has ended, and said why."""
    try:
        write(texts, process.stdin)
    except BrokenPipeError:
        close(process.stdin)
        return False
    return close(process.stdin)


def close(pipe):
    """Whether what was left in it could be written."""
    try:
        pipe.close()
    except BrokenPipeError:
        return False
    return True


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
    train = text_of(job.train, paths, job)
    if job.val:
        return [train, text_of(job.val, paths, job)]
    return [train, None] if job.name and not job.limit else split_of_few(train, job)


def split_of_few(train, job):
    """Of few documents the tokenizer, which draws for each alone, might leave a split without any; so the share is drawn here."""
    if job.reader == "txt" and train.files:
        texts = [path for path in train.files if os.path.getsize(path) > 0]
        if not any(map(has_separator, texts)):   # each is one document, which may be a large one
            chosen = chosen_for_validation(len(texts), job)
            return [Text([path for number, path in enumerate(texts) if (number in chosen) == val], None) for val in (False, True)]
    read = train.read or written(train.files, iter, job).read
    few = int(SAFE / min(job.val_fraction, 1 - job.val_fraction))
    count = sum(1 for _ in itertools.islice(read(), few + 1))
    if count > few:
        return [train, None]
    chosen = chosen_for_validation(count, job)
    return [Text([], lambda: (document for number, document in enumerate(read()) if number not in chosen)),
            Text([], lambda: (document for number, document in enumerate(read()) if number in chosen))]


def chosen_for_validation(count, job):
    """Numbers of documents: at least one, and not all."""
    if count < 2:
        raise Failure(f"the text has {count} document{'' if count else 's'}, where training and validation need one each, and a "
                      "document is not cut in two unless it is a single .txt file; add files, or give those to validate on with --val")
    return set(random.Random(job.seed).sample(range(count), min(max(round(count * job.val_fraction), 1), count - 1)))


# ---- Vocabularies ----

def gpt2_vocabulary(store, directory=None):
    """GPT-2's, in data/vocab/gpt2 if no other place is named: whole or not there."""
    directory = directory or os.path.join(HERE, "vocab", "gpt2")
    if os.path.isdir(directory) and not os.path.exists(os.path.join(directory, "vocab.json")):
        raise Failure(f"'{directory}' is there and holds no vocabulary; name another place with --out")
    if not os.path.isdir(directory):
        paths = list(store.fetch_all(catalog.GPT2, 0))
        with temporary_directory(directory) as temporary:
            made = os.path.join(temporary, "gpt2")
            os.mkdir(made)
            for path in paths:
                shutil.copyfile(path, os.path.join(made, os.path.basename(path)))
            os.rename(made, directory)
        say(f"'{directory}' is ready")
    return directory


def gpt2_or_advice(store):
    try:
        return gpt2_vocabulary(store)
    except Failure as failure:
        raise Failure(f"{failure}; or do without GPT-2's vocabulary: --vocab train:N makes one of this text") from None


def own_vocabulary(job, train, program, directory):
    """Of the training text; where the tokenizer is to draw validation documents of it, of these too."""
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
    made = os.path.join(staging, "dataset")
    command = [program, "shards", "--vocab", vocab, "--out", made, "--source", job.source, "--seed", str(job.seed)]
    command += ["--shard-tokens", str(job.shard_tokens)]
    command += ["--threads", str(job.threads)] if job.threads else []
    command += ["--field", job.field] if train.files and job.reader == "jsonl" else []
    command += ["--val-input", *val_files(val, staging)] if val else ["--val-fraction", str(job.val_fraction)]
    if train.read:
        run(command + ["--input", "-"], documents.write_jsonl, train.read())
    else:
        run(command + ["--input", *train.files])
    return made


def val_files(val, staging):
    if not val.read:
        return val.files
    path = os.path.join(staging, "val.jsonl")
    with open(path, "wb") as file:
        documents.write_jsonl(val.read(), file)
    return [path]


def sign(made, request):
    """Adds to dataset.json what was asked for."""
    path = os.path.join(made, "dataset.json")
    with open(path, encoding="utf-8") as file:
        description = {**json.load(file), "request": request}
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(description, file, ensure_ascii=False)
        file.write("\n")
    sync(path + ".tmp")
    os.replace(path + ".tmp", path)


def belongs_to_a_dataset(name):
    return re.fullmatch(r"(train|val)_\d{6,}\.bin|tokenizer\.json|vocab\.json|merges\.txt", name) is not None


def put_in_place(made, out):
    """Moves a whole dataset to `out`, where dataset.json goes first and comes last; while new.tmp is there it is unfinished."""
    os.makedirs(out, exist_ok=True)
    new = os.path.join(out, "new.tmp")
    if os.path.exists(new):
        shutil.rmtree(new)
    shutil.move(made, new)
    remove(os.path.join(out, "dataset.json"))
    for name in filter(belongs_to_a_dataset, os.listdir(out)):
        os.remove(os.path.join(out, name))
    for name in sorted(os.listdir(new), key=lambda name: name == "dataset.json"):
        if name == "dataset.json":
            sync(out)   # so that it comes last even when the power fails
        os.rename(os.path.join(new, name), os.path.join(out, name))
    os.rmdir(new)


def sync(path):
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def locked(directory, mode):
    """By the file `lock` in it, until the end of the block, or of the process, however it ends. BlockingIOError if another has it."""
    with open(os.path.join(directory, "lock"), mode) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_abandoned(beside):
    """The temporary directories of processes that were killed."""
    for directory in glob.glob(glob.escape(beside) + ".*.tmp"):
        if re.fullmatch(r"\.\d+\.tmp", directory[len(beside):]):
            with contextlib.suppress(OSError), locked(directory, "r+"):   # fails if its process is at work, or it is not ours
                shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def temporary_directory(beside):
    """On the same disk. Removed whatever happens: after a kill by the next call."""
    beside = os.path.realpath(beside)
    remove_abandoned(beside)
    fresh, directory = (f"{beside}.{os.getpid()}.{ending}" for ending in ("new", "tmp"))
    os.makedirs(fresh, exist_ok=True)
    with locked(fresh, "w"):
        os.rename(fresh, directory)   # only now can others find it
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def make(job, request, store):
    """The dataset: whole, or not there. An older one stays until then."""
    program = tokenizer_program()
    with temporary_directory(job.out) as staging:
        vocab = gpt2_or_advice(store) if job.vocab == "gpt2" else job.vocab
        texts = splits_of(job, store, staging)
        if vocab.startswith("train:"):
            vocab = own_vocabulary(job, texts[0], program, os.path.join(staging, "vocabulary"))
        say(f"tokenising {job.source}")
        made = make_shards(job, texts, vocab, program, staging)
        sign(made, request)
        put_in_place(made, job.out)
