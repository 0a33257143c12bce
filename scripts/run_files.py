"""The files of a run as they lie on the disk: run.json, and the lines of log.jsonl."""
import json
import math
import os
import sys

FORMAT = 1
LONGEST_LINE = 1 << 24


class RunError(Exception):
    """A sentence for the user."""


def reason(error):
    """What an OSError says, without its number and file name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def number(value):
    """A JSON value as a float; NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def read_info(directory):
    """run.json as a dict; None where there is none."""
    path = os.path.join(directory, "run.json")
    try:
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None
    except (ValueError, RecursionError):
        raise RunError(f"{path} is not JSON; without that file the run is read as one of unknown options") from None
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise RunError(f"{path} is of format {json.dumps(found)}, and this program reads format {FORMAT}; "
                       "use the scripts of the train_gpt that made it")
    return info


def lines_of(path):
    """(number, text, whether its newline is there) of every line; longer ones than any log has come in pieces."""
    try:
        with open(path, "rb") as file:
            for n, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                yield n, line, line.endswith(b"\n")
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None


def parse_line(line):
    """A line of the log as a dict, or None if it is none."""
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=lambda pairs: {sys.intern(key): value for key, value in pairs})
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if type(step) is int and 0 <= step < 1 << 53 else None


def read_log(path, notes, most=None, stats=True):
    """The lines of a log.jsonl, by ascending step. A last line that is half-written, and others that are broken, are left out and noted.
    A line whose step is not above the one before it replaces the lines from its step on: the run was resumed from there."""
    records, bad, replaced, stride, seen = [], [], 0, 1, 0
    for n, line, whole in lines_of(path):
        record = parse_line(line) if line.strip() else {}
        if record is None and whole:
            bad.append(n)
        elif record is None:
            notes.append(f"{path}: the last line, {n}, is cut short; left out")
        if not record:
            continue
        if not stats:
            record.pop("stats", None)
        while records and records[-1]["step"] >= record["step"]:
            records.pop()
            replaced += 1
        seen += 1
        if seen % stride == 0 or must_stay(record):
            records.append(record)
        if most and len(records) >= 2 * most:
            stride *= 2
            records = [r for i, r in enumerate(records) if i % 2 == 0 or must_stay(r)]
            most = max(most, len(records))   # where nothing more can go
    if bad:
        notes.append(f"{path}: line {bad[0]} is not an object with a step; left out" if len(bad) == 1 else
                     f"{path}: {len(bad)} lines are not objects with a step, the first is line {bad[0]}; left out")
    if replaced:
        notes.append(f"{path}: {replaced} lines were left out: later lines begin at their steps anew")
    return records


def must_stay(record):
    return "val_loss" in record or "stats" in record or record["step"] <= 1 or not math.isfinite(number(record.get("loss")))
