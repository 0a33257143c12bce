#!/usr/bin/env python3
"""Makes a dataset that train_gpt reads: downloads the text, or takes yours, and has ./tokenizer turn it into shards of tokens.

    python3 data/prepare.py tinystories                     # data/tinystories/, with a vocabulary of its own
    python3 data/prepare.py fineweb-edu --limit 1G          # the first gigabyte of text
    python3 data/prepare.py mine/*.jsonl --out data/mine    # .txt, .jsonl and .parquet files of your own

README.md beside this file says more."""
import argparse
import json
import os
import re
import shutil
import signal
import sys
from typing import NamedTuple

import catalog
import documents
import shards
from common import Failure, bytes_text, main_of, reason, say
from download import Store

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = """

$DATA_MIRROR is a directory or URL prefix to take files from instead of the network;
$TOKENIZER the program to use, else ./tokenizer, which is built if missing."""
BYTES_OF_TOKENS = 0.5   # for each byte of text, about: a token is 2 bytes and stands for 4


# ---- What is asked for ----

def list_of_datasets():
    rows = [f"  {name:16} {row.title}: {bytes_text(row.download_bytes)} to download, {bytes_text(row.text_bytes)} of text; "
            f"vocabulary {row.vocab}; {row.license}" for name, row in catalog.DATASETS.items()]
    return "\n".join(["datasets (sizes are approximate):", *rows,
                      "  gpt2             only GPT-2's vocabulary, in data/vocab/gpt2 or --out DIR"])


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not match or int(match.group(1)) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of bytes; write 500M or 2G")
    return int(match.group(1)) * 1000 ** " KMGT".index(match.group(2) or " ")


def parse_fraction(text):
    try:
        value = float(text)
    except ValueError:
        value = -1
    if value == 0:
        raise argparse.ArgumentTypeError("0 would leave nothing to validate on; write a number between 0 and 1, or name files with --val")
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number between 0 and 1")
    return value


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__, epilog=list_of_datasets() + ENVIRONMENT,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", nargs="+", metavar="DATASET|FILE", help="the name of a dataset, or .txt, .jsonl or .parquet files")
    add("--vocab", metavar="V", help="gpt2; train:N for one of N tokens, made of this text; or a directory that has one (default: the "
        "dataset's; for files gpt2)")
    add("--out", metavar="DIR", help="default: data/NAME")
    add("--limit", type=parse_size, metavar="BYTES", help="of text, from the beginning of each split; as 500M or 2G; whole documents")
    add("--val-fraction", type=parse_fraction, metavar="F", help="share of the documents to validate on, where the dataset has no "
        "validation split")
    add("--val", nargs="+", metavar="FILE", help="files of your own to validate on, instead of a share of the others")
    add("--field", help="the column or member that holds the text (default: text)")
    add("--seed", type=int, default=0, help="of the choice of validation documents (default: 0)")
    add("--shard-tokens", type=int, default=100_000_000, metavar="N", help="in a file (default: 100,000,000)")
    add("--threads", type=int, metavar="N", help="default: one for each processor")
    add("--downloads", metavar="DIR", default=os.path.join(HERE, "downloads"), help="where what is downloaded is kept (default: "
        "data/downloads)")
    add("--force", action="store_true", help="make it anew")
    return parser.parse_args(arguments)


class Job(NamedTuple):
    name: str               # of the dataset; "": files of the user's
    source: str             # for dataset.json
    reader: str             # of documents.READERS
    field: str
    train: tuple            # of Remote files to fetch, or of paths
    val: tuple              # likewise; () where a share of the training documents is taken
    val_fraction: float     # that share
    vocab: str
    out: str
    download_bytes: int     # about
    text_bytes: int         # about
    limit: int              # or None
    seed: int
    shard_tokens: int
    threads: int            # or None


def job_of_dataset(name, a):
    row = catalog.DATASETS[name]
    if a.val:
        raise Failure(f"--val goes with files of your own, not with {name}; leave it out")
    if row.val and a.val_fraction:
        raise Failure(f"{name} has a validation split of its own, so that --val-fraction has no effect; leave it out")
    where = row.train[0].urls[0].rsplit("/resolve/", 1)[0]
    return Job(name=name, source=f"{row.title}, {where} ({row.license})", reader=row.reader, field=a.field or row.field, train=row.train,
               val=row.val, val_fraction=a.val_fraction or row.val_fraction, vocab=a.vocab or row.vocab,
               out=a.out or os.path.join(HERE, name), download_bytes=row.download_bytes, text_bytes=row.text_bytes, **plain_options(a))


def job_of_files(a):
    for path in a.what + (a.val or []):
        if not os.path.isfile(path):
            raise Failure(f"there is neither a file nor a dataset '{path}'; datasets: {', '.join(catalog.DATASETS)}")
    readers = {documents.reader_of(path) for path in a.what + (a.val or [])}
    if len(readers) > 1:
        raise Failure(f"the files are of several kinds, {', '.join(sorted(readers))}; prepare each kind for itself")
    if not a.out:
        raise Failure("files of your own need --out DIR, the directory of the dataset that is made of them")
    if a.val and a.val_fraction:
        raise Failure("--val and --val-fraction both say what to validate on; give one of them")
    first, more = os.path.basename(a.what[0]), len(a.what) - 1
    return Job(name="", source=f"{first} and {more} more" if more else first, reader=readers.pop(), field=a.field or "text",
               train=tuple(a.what), val=tuple(a.val or ()), val_fraction=a.val_fraction or 0.1, vocab=a.vocab or "gpt2", out=a.out,
               download_bytes=0, text_bytes=sum(map(os.path.getsize, a.what + (a.val or []))), **plain_options(a))


def plain_options(a):
    return {name: getattr(a, name) for name in ("limit", "seed", "shard_tokens", "threads")}


def job_of(a):
    if len(a.what) > 1 and any(what in catalog.DATASETS for what in a.what):
        raise Failure("one dataset at a time, and without files")
    job = job_of_dataset(a.what[0], a) if a.what[0] in catalog.DATASETS else job_of_files(a)
    if not re.fullmatch(r"gpt2|train:\d+", job.vocab) and not os.path.isdir(job.vocab):
        raise Failure(f"--vocab is '{job.vocab}', where gpt2, train:N or a directory that holds a vocabulary is needed")
    return job._replace(out=job.out.rstrip("/") or job.out)


def request_of(job):
    """What a dataset is made from and how, by which a second run sees whether it is the same."""
    request = {"dataset": job.name or names_and_sizes(job.train), "vocab": job.vocab,
               "field": job.field, "limit": job.limit, "seed": job.seed, "shard_tokens": job.shard_tokens}
    if not job.val:
        return {**request, "val_fraction": job.val_fraction}
    return request if job.name else {**request, "val": names_and_sizes(job.val)}


def names_and_sizes(paths):
    return [[os.path.basename(path), os.path.getsize(path)] for path in paths]


# ---- What is there already ----

def is_done(job, request, force):
    description = os.path.join(job.out, "dataset.json")
    names = os.listdir(job.out) if os.path.isdir(job.out) else []
    if "characters.json" in names:
        raise Failure(f"'{job.out}' holds a dataset of characters, whose files would be mixed with these; name another place with --out")
    if not os.path.exists(description):
        if names and "new.tmp" not in names:   # which one that was not finished has
            raise Failure(f"'{job.out}' is not empty and holds no dataset; name another place with --out")
        return False
    if force:
        return False
    try:
        with open(description, encoding="utf-8") as file:
            made_of = json.load(file).get("request")
    except (OSError, ValueError, AttributeError) as error:
        raise Failure(f"'{description}' cannot be read ({error}); --force makes the dataset anew") from None
    if made_of == request:
        return True
    raise Failure(f"'{job.out}' holds another dataset, or one made with other options; --force replaces it, --out DIR puts the new one "
                  "elsewhere")


def require_space(job, store):
    """Before hours of work. What is known is approximate; a download that the disk cannot hold is refused when it begins."""
    needs = {}
    missing = len(store.missing(job.train + job.val)) if job.name and not job.limit else 0
    if missing:
        add_need(needs, store.directory, job.download_bytes * missing // len(job.train + job.val))
    add_need(needs, job.out, int(BYTES_OF_TOKENS * min(job.limit or job.text_bytes, job.text_bytes)))
    for need, place, free in needs.values():
        if need > free:
            raise Failure(f"about {bytes_text(need)} are needed in '{place}', and the disk has {bytes_text(free)}: free some space, take "
                          "less with --limit, or name other places with --out and --downloads")


def add_need(needs, place, count):
    """Adds to what is needed on the disk of `place`, which may not exist yet."""
    there = os.path.abspath(place)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    device = os.stat(there).st_dev
    before, first, free = needs.get(device, (0, place, shutil.disk_usage(there).free))
    needs[device] = (before + count, first, free)


def end_on_signals():
    """As an exception does, so that nothing is left and the tokenizer does not go on alone."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:   # as nohup wants it
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def command():
    a = parse_arguments(sys.argv[1:])
    end_on_signals()
    store = Store(a.downloads, os.environ.get("DATA_MIRROR", ""))
    try:
        if a.what == ["gpt2"]:
            shards.gpt2_vocabulary(store, a.out)
        else:
            make_dataset(a, store)
    except OSError as error:
        raise Failure(f"{error.filename or a.out or HERE}: {reason(error)}") from None


def make_dataset(a, store):
    job = job_of(a)
    request = request_of(job)
    if is_done(job, request, a.force):
        say(f"'{job.out}' is there already; --force makes it anew")
        return
    if job.reader in documents.NEED_PARQUET:
        documents.parquet_module()
    require_space(job, store)
    shards.make(job, request, store)
    say(f"'{job.out}' is ready: ./train_gpt -i '{job.out}/train_*.bin' -j '{job.out}/val_*.bin'")


if __name__ == "__main__":
    main_of(command)
