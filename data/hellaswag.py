#!/usr/bin/env python3
"""Makes the file for `train_gpt --hellaswag`: HellaSwag's validation set (Zellers et al. 2019), its texts cleaned as
lm-evaluation-harness does. So acc compares with that program's; acc_norm does not: train_gpt divides an ending's log-probability by its
tokens, as llm.c does, and lm-evaluation-harness by the length of its text.

One JSON object a line: {"context": TEXT, "endings": [four TEXTs], "label": 0 to 3}. Texts, not tokens: the trainer tokenises them with the
vocabulary of the run, so the file is made once.

The source is FILE, a hellaswag_val.jsonl; else hellaswag/hellaswag_val.jsonl in $DATA_MIRROR (a directory or URL prefix) if it is set; else
that of the authors' repository."""
import argparse
import hashlib
import json
import os
import re

from catalog import Remote
from common import Failure, main_of, reason
from download import Store

NAME = "hellaswag_val.jsonl"
SOURCE = Remote("hellaswag/" + NAME, ("https://raw.githubusercontent.com/rowanz/hellaswag/master/data/" + NAME,))
BLOB = "0f5ee25d72216f12317d5d8a7b92deafa423d81e"   # the name git has for the file's content in that repository
EXAMPLES = 10042


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def read_source(path, downloads):
    """The bytes of the source, and its name. What was not named on the command line must be the authors' file."""
    name = path or next(Store(downloads, os.environ.get("DATA_MIRROR", "")).fetch_one_by_one([SOURCE]))
    try:
        with open(name, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Failure(f"cannot read {name}: {reason(error)}") from None
    if not path and git_blob(data) != BLOB:
        raise Failure(f"{name} is not the file of the authors: its git blob is {git_blob(data)}, where {BLOB} is expected; delete it, or give a "
                      f"{NAME} of your own")
    return data, name


def cleaned(text):
    """Without the artefacts of the WikiHow articles: [title] ends a sentence, other brackets say nothing."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def example_of(line):
    record = json.loads(line)
    context = record["activity_label"] + ": " + record["ctx_a"] + " " + record["ctx_b"].capitalize()
    endings, label = record["endings"], int(record["label"])
    if len(endings) != 4 or label not in range(4):
        raise ValueError(f"it has {len(endings)} endings and the label {label}")
    return {"context": cleaned(context), "endings": [cleaned(ending) for ending in endings], "label": label}


def examples_of(data, name):
    examples = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            examples.append(example_of(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Failure(f"{name}, line {number} is no example of HellaSwag with activity_label, ctx_a, ctx_b, four endings and label: "
                          f"{error!r}") from None
    return examples


def write(path, examples):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(example, ensure_ascii=False) + "\n")
    os.replace(path + ".tmp", path)


def command():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"a {NAME} of your own")
    parser.add_argument("--out", default=os.path.join(here, "hellaswag", "val.jsonl"), help="default: data/hellaswag/val.jsonl")
    parser.add_argument("--downloads", metavar="DIR", default=os.path.join(here, "downloads"), help="default: data/downloads")
    arguments = parser.parse_args()
    data, name = read_source(arguments.file, arguments.downloads)
    examples = examples_of(data, name)
    known = git_blob(data) == BLOB
    if not examples or (known and len(examples) != EXAMPLES):
        raise Failure(f"{name} gave {len(examples)} examples, where {EXAMPLES if known else 'at least one'} was expected")
    try:
        write(arguments.out, examples)
    except OSError as error:
        raise Failure(f"cannot write {arguments.out}: {reason(error)}") from None
    print(f"{arguments.out}: {len(examples):,} examples from {name}" + ("" if known else ", which is not the authors' file"))


if __name__ == "__main__":
    main_of(command, "hellaswag.py")
