"""What a sweep shows at its end: DIR/table.md, the curves, and the loss against the one number that was varied."""
import math
import os
import re
import statistics
from typing import NamedTuple, Optional

import compare
import figures
import plot
import runs as reader
from runs import RunError

BEFORE = re.compile(r"^train loss \S+ \| val loss (\S+)", re.MULTILINE)
STEP_SIZES = {"batch", "grad_accum", "total_batch", "seq_len"}


class Entry(NamedTuple):
    """The label of a run in its sweep; the run; the step at which it ended by numbers that are not finite, or None; the validation loss before its
    first step, or None."""
    label: str
    run: reader.Run
    diverged_at: Optional[int]
    before: Optional[float]

    @property
    def diverged(self):
        return self.diverged_at is not None or self.run.diverged


def loss_before(path):
    """The validation loss that train_gpt --eval-only printed into that file; None if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = BEFORE.search(file.read())
    except OSError:
        return None
    return float(found.group(1)) if found else None


def entry(label, path, diverged_at, before):
    return Entry(label, reader.read_run(path, stats=False), diverged_at, before)


def write(sweep, directory, firsts, thens):
    """Writes table.md, prints it, and draws the pictures. firsts, thens: the Entries of the first and the second stages."""
    if not firsts:
        return
    parts = ["# " + sweep.title] + [sweep.question] * bool(sweep.question) + table(firsts)
    if thens:
        parts += ["## Continued"] + table(thens) + continued(firsts, thens)
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    figures.write_whole(os.path.join(directory, "table.md"), text.encode())
    print("\n" + text, flush=True)
    for name, entries in (("curves", firsts), ("curves-then", thens)):
        if entries:
            draw_curves(sweep, entries, os.path.join(directory, name))
    lines = lines_against(sweep, thens or firsts) if sweep.x else {}
    if lines:
        draw(lambda outputs: draw_against(sweep, lines, outputs), os.path.join(directory, "loss-against-" + sweep.x))


def groups(entries):
    """[(label, [entries])]: those that differ by their seed alone are together."""
    by_path = {entry.run.path: entry for entry in entries}
    found = [[by_path[run.path] for run in group] for _, group in reader.groups([entry.run for entry in entries])]
    return [(group[0].label, group) for group in found]


def draw_curves(sweep, entries, name):
    """Against steps; and where a step is not the same for all, against tokens too."""
    runs, labels = [entry.run for entry in entries if entry.run.records], [label for label, _ in groups([e for e in entries if e.run.records])]
    draw(lambda outputs: plot.draw_curves(runs, outputs, title=sweep.title, labels=labels), name)
    if STEP_SIZES.intersection(reader.differing(runs)):
        draw(lambda outputs: plot.draw_curves(runs, outputs, x="tokens", title=sweep.title, labels=labels), name + "-tokens")


def draw(picture, name):
    """A picture that cannot be drawn, as without matplotlib, is no reason to fail."""
    try:
        picture([name + ".png", name + ".svg"])
    except RunError as error:
        print(f"there is no {os.path.basename(name)}.png: {error}")


# ---- tables ----------------------------------------------------------------------------------------------------------------------------


def table(entries):
    """The table, and a sentence for each run that diverged."""
    rows = [compare.row_of(label, [entry.run for entry in group]) for label, group in groups(entries)]
    gone = [f"- {e.run.name} diverged at step {e.diverged_at}" if e.diverged_at is not None else
            f"- {e.run.name} diverged: its validation loss is, or once was, above that of guessing" for e in entries if e.diverged]
    return [compare.markdown(compare.cells_of(rows))] + ["\n".join(gone)] * bool(gone)


def mean_and_spread(values):
    """"1.234 ± 0.005 (3)", of the finite ones."""
    values = [v for v in values if v is not None and math.isfinite(v)]
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f} ({len(values)})"


def continued(firsts, thens):
    """What the change of options did by itself: losses at the end of the first stage, right after the change, and at the end of the second."""
    found = {entry.run.name: entry for entry in thens}
    rows = ["| run | val loss, first stage | same weights, options of the second | val loss, second stage |", "|---|---|---|---|"]
    for label, members in groups(firsts):
        pairs = [(entry, found[entry.run.name + ",then"]) for entry in members if entry.run.name + ",then" in found]
        if pairs:
            columns = [[first.run.final_val for first, _ in pairs], [then.before for _, then in pairs], [then.run.final_val for _, then in pairs]]
            rows.append("| " + " | ".join([label] + [mean_and_spread(values) for values in columns]) + " |")
    return ["\n".join(rows)]


# ---- the loss against a number ---------------------------------------------------------------------------------------------------------


def lines_against(sweep, entries):
    """{label: [(value of x, best validation loss or None where it diverged)]}."""
    runs = [entry.run for entry in entries]
    key = sweep.x.replace("-", "_")
    names = [name.replace("-", "_") for name in sweep.lines] or [
        name for name in reader.differing(runs) if name not in (key, "seed") and not all(is_number(run.options.get(name)) for run in runs)]
    lines = {}
    for entry in entries:
        if is_number(entry.run.options.get(key)) and (entry.diverged or entry.run.best_val is not None):
            label = reader.label(entry.run, names) if names else ""
            lines.setdefault(label, []).append((entry.run.options[key], None if entry.diverged else entry.run.best_val))
    return lines


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def tick(value):
    """The shorter of 0.0001 and 1e-4, so that numbers stand apart."""
    digits, power = f"{value:e}".split("e")
    return min(f"{value:g}", f"{float(digits):g}e{int(power)}", key=len)


def draw_against(sweep, lines, outputs):
    """Means over the seeds as a line, every run as a point; those that diverged as crosses at the upper edge."""
    figure = figures.new_figure(7, 4.5)
    axes = figure.subplots()
    losses = [loss for points in lines.values() for _, loss in points if loss is not None]
    top = max(losses) + 0.08 * (max(losses) - min(losses) or 1) if losses else 1
    for color, (label, points) in zip(figures.colors(list(lines)), lines.items()):
        sound = [(x, loss) for x, loss in points if loss is not None]
        xs = sorted({x for x, _ in sound})
        axes.plot(xs, [statistics.mean(loss for at, loss in sound if at == x) for x in xs], color=color, linewidth=1.5, label=label or None)
        axes.plot([x for x, _ in sound], [loss for _, loss in sound], "o", color=color, markersize=3.5)
        gone = sorted({x for x, loss in points if loss is None})
        axes.plot(gone, [top] * len(gone), "x", color=color, markersize=8)
        for x in gone:
            axes.annotate(gone_words(points, x), (x, top), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7, color=color)
    values = sorted({x for points in lines.values() for x, _ in points})
    if values[0] > 0 and values[-1] >= 8 * values[0]:
        axes.set_xscale("log")
    if len(values) <= 12:
        axes.set_xticks(values)
        axes.set_xticklabels([tick(value) for value in values])
        axes.minorticks_off()
    axes.set(xlabel=sweep.x, ylabel="best validation loss")
    axes.set_title(sweep.title, pad=16)
    if any(lines):
        axes.legend()
    figures.save(figure, outputs, "the loss against " + sweep.x)


def gone_words(points, x):
    """"diverged", "1 of 3 diverged"."""
    all_there = [loss for at, loss in points if at == x]
    gone = sum(loss is None for loss in all_there)
    return "diverged" if gone == len(all_there) else f"{gone} of {len(all_there)} diverged"
