#!/usr/bin/env python3
"""Makes dataset.json and characters.json of the meta.pkl that nanoGPT writes beside its train.bin, so that train_gpt reads the
directory as it is and sample_gpt prints text. A pickle is a program; this one may build numbers, texts, lists and dicts, nothing else."""
import argparse
import json
import os
import pickle
import sys


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a vocabulary does not need")


def fail(message):
    sys.exit(f"nanogpt_meta.py: {message}")


def read_meta(path):
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file).load()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except Exception as error:   # a damaged pickle raises nearly anything
        fail(f"{path} is refused: {error or type(error).__name__}")


def characters_of(meta, path):
    """The characters in the order of their tokens."""
    itos = meta.get("itos") if isinstance(meta, dict) else None
    if not isinstance(itos, dict) or not itos:
        fail(f"{path} holds no dict 'itos' of tokens and their characters")
    if set(itos) != set(range(len(itos))):
        fail(f"{path}: the tokens of 'itos' are not 0 to {len(itos) - 1}")
    characters = [itos[token] for token in range(len(itos))]
    for token, character in enumerate(characters):
        if not isinstance(character, str) or len(character) != 1 or character == "\0" or "\ud800" <= character <= "\udfff":
            fail(f"{path}: token {token} is {character!r}, not one character")
    if len(set(characters)) != len(characters):
        fail(f"{path}: two tokens of 'itos' are the same character")
    if meta.get("stoi", {c: i for i, c in enumerate(characters)}) != {c: i for i, c in enumerate(characters)}:
        fail(f"{path}: 'stoi' and 'itos' contradict each other")
    if meta.get("vocab_size", len(characters)) != len(characters):
        fail(f"{path}: vocab_size is {meta['vocab_size']!r}, but 'itos' has {len(characters)} characters")
    return characters


def count_tokens(directory):
    counts = {}
    for split in ("train", "val"):
        path = os.path.join(directory, split + ".bin")
        if not os.path.isfile(path):
            fail(f"{path} is missing: run nanoGPT's prepare.py, and then this in its directory")
        if os.path.getsize(path) % 2:
            fail(f"{path} has an odd number of bytes, {os.path.getsize(path)}: it is no file of uint16 tokens")
        counts[split] = os.path.getsize(path) // 2
    return counts


def write_json(path, value):
    temporary = path + ".tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", help="where meta.pkl, train.bin and val.bin lie, as nanoGPT/data/shakespeare_char")
    directory = parser.parse_args().directory
    path = os.path.join(directory, "meta.pkl")
    characters = characters_of(read_meta(path), path)
    counts = count_tokens(directory)
    description = os.path.join(directory, "dataset.json")
    write_json(os.path.join(directory, "characters.json"), {"type": "characters", "characters": characters})
    write_json(description, {"vocab_size": len(characters), "tokenizer": "characters",
                             "source": "nanoGPT, " + os.path.basename(os.path.abspath(directory)), "tokens": counts})
    print(f"{description}: {len(characters)} characters, {counts['train']} tokens for training, {counts['val']} for validation")


if __name__ == "__main__":
    main()
