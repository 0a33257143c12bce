#!/usr/bin/env python3
"""Draws training and validation loss of one or several runs from their log.jsonl."""
import argparse
import json
import math
import os
import sys

X_AXES = {"step": "optimizer steps", "tokens": "tokens", "time": "seconds of training"}


def read_log(run):
    """The whole lines of a run's log, as dicts. A last line that is half-written is left out."""
    path = os.path.join(run, "log.jsonl") if os.path.isdir(run) else run
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"plot.py: cannot read {path}: {getattr(error, 'strerror', 'not UTF-8')}; name the directory of a run, or its log.jsonl")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError:
            if number < len(lines):
                sys.exit(f"plot.py: line {number} of {path} is not JSON")
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    if not records:
        sys.exit(f"plot.py: {path} holds no steps yet")
    return records


def x_values(records, axis):
    """Step, training seconds or tokens so far, for every record. A line counts the tokens of its own step only, so the steps
    between two lines are taken to be as large as the later one."""
    if axis == "step":
        return [r["step"] for r in records]
    if axis == "time":
        return [r.get("elapsed_s", math.nan) for r in records]
    total, before, values = 0, 0, []
    for r in records:
        total += r.get("tokens", math.nan) * (r["step"] - before)
        before = r["step"]
        values.append(total)
    return values


def draw(axes, records, x, label, color, smooth):
    """One run: validation loss as a line with points, training loss as a thin line, its running mean a bolder one."""
    train = [(a, r["loss"]) for a, r in zip(x, records) if isinstance(r.get("loss"), (int, float))]
    val = [(a, r["val_loss"]) for a, r in zip(x, records) if isinstance(r.get("val_loss"), (int, float))]
    if train:
        axes.plot(*zip(*train), color=color, linewidth=0.8, alpha=0.35 if smooth > 1 else 0.7, label=f"{label}training")
    if train and smooth > 1:
        means = [sum(loss for _, loss in train[max(0, i - smooth + 1):i + 1]) / min(i + 1, smooth) for i in range(len(train))]
        axes.plot([a for a, _ in train], means, color=color, linewidth=1.2, alpha=0.8)
    if val:
        best = min(loss for _, loss in val)
        axes.plot(*zip(*val), color=color, linewidth=1.6, marker="o", markersize=3.5, label=f"{label}validation (best {best:.4f})")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, or its log.jsonl")
    parser.add_argument("-o", "--output", help="picture; its ending tells the format, as .png or .svg (default: curve.png in the run)")
    parser.add_argument("--x", choices=sorted(X_AXES), default="step", help="horizontal axis (default: step)")
    parser.add_argument("--labels", help="names of the runs for the legend, separated by commas (default: their paths)")
    parser.add_argument("--title", default="")
    parser.add_argument("--smooth", type=int, default=1, metavar="N", help="also draw the mean of the last N training losses")
    parser.add_argument("--ymax", type=float, help="cut the loss axis above this")
    return parser.parse_args()


def main():
    arguments = parse()
    runs = [run.rstrip("/") or "/" for run in arguments.runs]
    labels = arguments.labels.split(",") if arguments.labels else runs
    if len(labels) != len(runs):
        sys.exit(f"plot.py: there are {len(runs)} runs, but {len(labels)} labels")
    logs = [read_log(run) for run in runs]
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py: matplotlib is missing (Debian and Ubuntu: apt-get install python3-matplotlib); "
                 "sh scripts/curve.sh RUN draws in the terminal without it")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(8, 5))
    for i, (label, records) in enumerate(zip(labels, logs)):
        draw(axes, records, x_values(records, arguments.x), f"{label}: " if len(runs) > 1 else "", f"C{i % 10}", arguments.smooth)
    axes.set(xlabel=X_AXES[arguments.x], ylabel="loss (nats per token)", title=arguments.title)
    if arguments.ymax is not None:
        axes.set_ylim(top=arguments.ymax)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    first = runs[0] if os.path.isdir(runs[0]) else os.path.dirname(runs[0])
    output = arguments.output or os.path.join(first, "curve.png")
    try:
        figure.savefig(output, dpi=130, bbox_inches="tight")
    except (OSError, ValueError) as error:
        sys.exit(f"plot.py: cannot write {output}: {getattr(error, 'strerror', error)}")
    print(f"the curve is in {output}")


if __name__ == "__main__":
    main()
