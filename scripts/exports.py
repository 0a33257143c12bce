"""What to_tensorboard.py and to_wandb.py share: a log's line as named numbers with a time of day, a run's samples, its options as text."""
import bisect
import calendar
import json
import math
import os
import re
import time

import runs as runs_of
from runs import RunError, reason


def scalars(record):
    """{name: number} of a line of the log: its keys as they are, and stats as weights/qkvw/3 (layer 3), or gradients/wte where a tensor is no
    layer's. What is not finite (the log has null) is NaN."""
    found = {}
    for key, value in record.items():
        if key == "stats":
            found.update(stats_scalars(value))
        elif isinstance(value, bool):
            found[key] = float(value)
        elif value is None or isinstance(value, (int, float)):
            found[key] = runs_of.number(value)
    return found


def stats_scalars(stats):
    found = {}
    for kind, tensors in (stats.items() if isinstance(stats, dict) else ()):
        for name, values in (tensors.items() if isinstance(tensors, dict) else ()):
            values = values if isinstance(values, list) else []
            for layer, value in enumerate(values):
                found[f"{kind}/{name}/{layer}" if len(values) > 1 else f"{kind}/{name}"] = runs_of.number(value)
    return found


def seconds_since_1970(text):
    """Of "2026-11-23T12:30:00Z"; NaN for anything else."""
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except (TypeError, ValueError):
        return math.nan


def starts_of(run):
    """[(step, time of day)] of the starts that run.json tells, by step; later ones win, as a resumed run repeats steps."""
    starts = (run.info or {}).get("starts")
    found = {}
    for start in starts if isinstance(starts, list) else ():
        step = runs_of.number(start.get("step")) if isinstance(start, dict) else math.nan
        at = seconds_since_1970(start.get("time")) if isinstance(start, dict) else math.nan
        if math.isfinite(step) and math.isfinite(at):
            found = {s: t for s, t in found.items() if s < step}
            found[step] = at
    return sorted(found.items())


def wall_times(run):
    """Seconds since 1970 of every record: the time of the start it belongs to and the training since then. A run without run.json is taken
    to have ended when its log was last written."""
    elapsed, last = [], 0.0
    for record in run.records:
        now = runs_of.number(record.get("elapsed_s"))
        last = now if math.isfinite(now) else last
        elapsed.append(last)
    starts = starts_of(run)
    if not starts:
        return [log_time(run) - last + value for value in elapsed]
    steps = [record["step"] for record in run.records]
    times = []
    for step, value in zip(steps, elapsed):
        began, at = starts[max(0, bisect.bisect_left([s for s, _ in starts], step) - 1)]
        before = bisect.bisect_right(steps, began) - 1   # the last record of earlier starts
        times.append(at + value - (elapsed[before] if before >= 0 and began > 0 else 0))
    return times


def log_time(run):
    try:
        return os.stat(os.path.join(run.path, "log.jsonl")).st_mtime
    except OSError:
        return 0.0


def samples(run):
    """[(step, text)] of samples.txt; none where there is no such file."""
    path = os.path.join(run.path, "samples.txt")
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None
    parts = re.split(r"^--- step (\d{1,15})\n", text, flags=re.MULTILINE)
    return [(int(step), sample.rstrip("\n")) for step, sample in zip(parts[1::2], parts[2::2])]


def options_text(run):
    """The options and what else run.json tells, as Markdown."""
    info = {key: value for key, value in (run.info or {}).items() if key not in ("options", "format")}
    rows = "\n".join(f"| {name} | {runs_of.shown(value)} |" for name, value in run.options.items())
    return f"| option | value |\n|---|---|\n{rows}\n\n```\n{json.dumps(info, indent=1)}\n```\n"


def flat_options(run):
    """The options as numbers, flags and words."""
    return {name: value for name, value in run.options.items() if isinstance(value, (bool, int, float, str))}


def distinct_names(runs):
    """A name for each run: its directory's, with as much of the path before it as tells it from the others."""
    paths = [os.path.abspath(run.path).strip(os.sep).split(os.sep) for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["_".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def with_steps(runs):
    """The runs, of which each must have a step to export."""
    for run in runs:
        if not run.records:
            raise RunError(f"{run.path} holds no steps yet")
    return runs
