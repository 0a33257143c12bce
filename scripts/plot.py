#!/usr/bin/env python3
"""Pictures of runs: training and validation loss; or what goes on inside a model (--stats), its learned positions (--positions), and what
fewer key/value heads save (--kv-heads)."""
import argparse
import math
import os
import statistics

import figures
import runs as runs_of
from runs import RunError

LINES = 200000   # of one log: more cannot be seen
PANELS = {"lr": "learning rate", "grad_norm": "gradient norm"}


# ---- what is drawn ---------------------------------------------------------------------------------------------------------------------


def running_mean(values, n):
    """Mean of the last n values, of fewer at the beginning."""
    windows = (values[max(0, i + 1 - n):i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]   # each anew: what a loss of 1e20 adds cannot be taken off again


def smoothed_series(run, x, y, smooth):
    xs, ys = runs_of.series(run, x, y)
    return xs, running_mean(ys, smooth) if smooth > 1 else ys


def mean_series(group, x, y, smooth=1):
    """(xs, means, deviations) over the runs of a group, at the steps that all of them have."""
    if len(group) == 1:
        xs, ys = smoothed_series(group[0], x, y, smooth)
        return xs, ys, [0.0] * len(ys)
    at = []
    for run in group:
        steps, ys = smoothed_series(run, "step", y, smooth)
        places = {r["step"]: a for r, a in zip(run.records, runs_of.x_values(run, x))}
        at.append({step: (places[step], value) for step, value in zip(steps, ys) if math.isfinite(places[step])})
    common = sorted(set(at[0]).intersection(*at[1:]))
    xs = [statistics.mean(points[step][0] for points in at) for step in common]
    values = [[points[step][1] for points in at] for step in common]
    return xs, [statistics.mean(v) for v in values], [statistics.stdev(v) for v in values]


def draw_group(axes, group, x, color, smooth, scale):
    """Validation as a line with points, training as a thin one. Of several seeds the means of those that did not diverge, each seed as a thin
    line behind them, and a band of one standard deviation."""
    sound = [run for run in group if not run.diverged] or group
    xs, ys, _ = mean_series(sound, x, "loss", smooth)
    axes.plot([a / scale for a in xs], ys, color=color, linewidth=0.9, alpha=0.55 if smooth > 1 else 0.45, zorder=1)
    xs, ys, spread = mean_series(sound, x, "val_loss")
    if len(group) > 1:
        for run in group:
            a, b = runs_of.series(run, x, "val_loss")
            axes.plot([v / scale for v in a], b, color=color, linewidth=0.7, alpha=0.5, zorder=2)
        axes.fill_between([a / scale for a in xs], [y - s for y, s in zip(ys, spread)], [y + s for y, s in zip(ys, spread)], color=color, alpha=0.15,
                          linewidth=0, zorder=2)
    axes.plot([a / scale for a in xs], ys, color=color, linewidth=1.7, marker="o", markersize=3 if len(xs) < 40 else 0, zorder=3)


def result(group):
    """"best 1.8012", "best 1.8012 +- 0.0021, 3 seeds", "diverged": what a legend says behind the label."""
    gone = sum(run.diverged for run in group)
    if gone:
        return "diverged" if gone == len(group) else f"{gone} of {len(group)} seeds diverged"
    best = [run.best_val for run in group if run.best_val is not None]
    if not best:
        return "not evaluated"
    if len(best) == 1:
        return f"best {best[0]:.4f}"
    return f"best {statistics.mean(best):.4f} \u00b1 {statistics.stdev(best):.4f}, {len(best)} seeds"


def group_colors(groups, members):
    """Of a scale where the groups differ by one number alone."""
    names = [name for name in runs_of.differing([run for group in members for run in group]) if name != "seed"]
    values = [group[0].options.get(names[0]) for group in members] if len(names) == 1 else [label for label, _ in groups]
    return figures.colors(values)


def loss_limits(members, ymax):
    """(lowest, highest) of the loss axis: the highest is ymax, or where some runs diverged, which would flatten all others, that with which the
    others begin or are evaluated. None where the axis may find its limits by itself."""
    runs = [run for group in members for run in group]
    sound = [run for run in runs if not run.diverged]
    if ymax is None and len(sound) in (0, len(runs)):
        return None
    values = [value for run in sound or runs for key in ("loss", "val_loss") for value in run.values(key)]
    upper = [value for run in sound or runs for value in run.values("loss")[:1] + run.values("val_loss")]
    low, high = min(values, default=0), ymax if ymax is not None else max(upper, default=1)
    return (low - 0.05 * (high - low), high if ymax is not None else high + 0.05 * (high - low)) if low < high else (0, high)


def draw_legend(axes, entries, single):
    """In the corner that falling curves leave free; for more than two runs below the axes."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import offset_copy
    color = entries[0][0] if single else "0.35"
    kinds = [Line2D([], [], color=color, linewidth=0.9, alpha=0.6, label="training"),
             Line2D([], [], color=color, linewidth=1.7, marker="o", markersize=3, label=f"validation ({entries[0][1]})" if single else "validation")]
    if single:
        axes.legend(handles=kinds, loc="upper right")
        return
    handles = [Line2D([], [], color=color, linewidth=2.5, label=text) for color, text in entries]
    longest = max(len(text) for _, text in entries)
    lowest, corner = axes.figure.axes[-1], axes.legend(handles=kinds, loc="upper right")
    if lowest is axes:
        axes.add_artist(corner)   # axes keep one legend by themselves
    below = offset_copy(lowest.transAxes, axes.figure, 0, -34, units="points")
    lowest.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0,
                  ncol=1 if longest > 44 else 2 if longest > 27 else 3)   # as many as the axes are wide


def draw_curves(runs, output, x="step", log_x=False, log_y=False, smooth=1, ymax=None, title="", panels=(), labels=None):
    """Loss curves of runs (of runs.read_runs) into the picture `output`, or into each of a list of them. x: step, tokens or time; panels: of
    "lr" and "grad_norm", drawn below; labels: for the legend, one for each group of runs that differ by their seed alone."""
    runs = [run for run in runs if run.records]
    if not runs:
        raise RunError("there is no step to draw yet")
    groups = runs_of.groups(runs)
    members = [group for _, group in groups]
    if labels is not None:
        if len(labels) == len(runs) != len(groups):
            groups = [(text, [run]) for text, run in zip(labels, runs)]
            members = [group for _, group in groups]
        elif len(labels) != len(groups):
            raise RunError(f"there are {len(labels)} labels for {len(groups)} curves: {'; '.join(text for text, _ in groups)}")
    texts = labels or [label for label, _ in groups]
    figure = figures.new_figure(7.5, 4.6 + 1.5 * len(panels))
    all_axes = figure.subplots(1 + len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [3] + [1] * len(panels), "hspace": 0.1})
    all_axes = [row[0] for row in all_axes]
    longest = max((v for run in runs for v in runs_of.x_values(run, x) if math.isfinite(v)), default=math.nan)
    if math.isnan(longest):
        raise RunError(f"the log does not tell the {'tokens' if x == 'tokens' else 'time'} of its steps; use --x step")
    scale, unit = figures.time_unit(longest) if x == "time" else (1, "")
    shades = group_colors(groups, members)
    for color, group in zip(shades, members):
        draw_group(all_axes[0], group, x, color, smooth, scale)
        for axes, key in zip(all_axes[1:], panels):
            xs, ys, _ = mean_series(group, x, key, smooth if key == "grad_norm" else 1)
            axes.plot([a / scale for a in xs], ys, color=color, linewidth=1)
    for axes, key in zip(all_axes[1:], panels):
        axes.set_ylabel(PANELS[key])
    entries = [(color, result(group) if len(groups) == 1 else f"{text}: {result(group)}") for color, text, group in zip(shades, texts, members)]
    finish_axes(all_axes, figures.x_label(x, unit), log_x, log_y, loss_limits(members, ymax), title)
    draw_legend(all_axes[0], entries, len(groups) == 1)
    figures.save(figure, [output] if isinstance(output, str) else output, "the curve")


def finish_axes(all_axes, x_label, log_x, log_y, limits, title):
    axes = all_axes[0]
    axes.set(ylabel="loss (nats per token)", title=title)
    if log_y:
        axes.set_yscale("log")
    if log_x:
        axes.set_xscale("log")
    if limits:
        axes.set_ylim(max(limits[0], limits[1] / 1e4) if log_y else limits[0], limits[1])
    if log_y:
        figures.in_short_numbers(axes.yaxis, log_y)
    figures.in_short_numbers(all_axes[-1].xaxis, log_x)
    all_axes[-1].set_xlabel(x_label)


# ---- the command -----------------------------------------------------------------------------------------------------------------------


def at_least_one(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def positive(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, or its log.jsonl; with --positions also of a model or "
                        "checkpoint, with --kv-heads a file of bench_attention --json")
    parser.add_argument("-o", "--output", action="append", metavar="FILE", help="picture; its ending tells the format, .png, .svg or .pdf; may be "
                        "given several times (default: curve.png in the run)")
    parser.add_argument("--formats", metavar="LIST", help="write the picture in each of these formats, as png,svg")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--stats", action="store_true", help="norms of weights, gradients and activations, layer by layer (of train_gpt --stats N)")
    kind.add_argument("--positions", action="store_true", help="learned position embeddings of models")
    kind.add_argument("--kv-heads", action="store_true", help="time and memory of attention by its key/value heads")
    parser.add_argument("--x", choices=list(figures.AXES), default="step", help="horizontal axis (default: step)")
    parser.add_argument("--log-x", action="store_true", help="logarithmic horizontal axis")
    parser.add_argument("--log-y", action="store_true", help="logarithmic loss axis")
    parser.add_argument("--smooth", type=at_least_one, default=1, metavar="N", help="draw the mean of the last N training losses in the log")
    parser.add_argument("--ymax", type=positive, help="cut the loss axis above this")
    parser.add_argument("--learning-rate", dest="panels", action="append_const", const="lr", help="the learning rate in a panel below")
    parser.add_argument("--norm", dest="panels", action="append_const", const="grad_norm", help="the norm of the gradient in a panel below")
    parser.add_argument("--title", default="")
    parser.add_argument("--labels", help="names for the legend, separated by commas (default: what differs between the runs)")
    return parser.parse_args()


def default_name(paths, name):
    """Of one run: in it. Of several: in the directory that they share."""
    directories = [path if os.path.isdir(path) else os.path.dirname(path) or "." for path in paths]
    if len(set(directories)) == 1:
        return os.path.join(directories[0], name)
    return os.path.join(os.path.relpath(os.path.commonpath([os.path.abspath(d) for d in directories])), name)


def main():
    asked = parse()
    if asked.kv_heads:
        import plot_kv_heads
        plot_kv_heads.draw(asked.runs, figures.output_names(asked.output, asked.formats, "kv_heads.png"), asked.title)
        return
    if asked.positions:
        import plot_positions
        plot_positions.draw(asked.runs, figures.output_names(asked.output, asked.formats, "positions.png"), asked.title)
        return
    if asked.stats:
        import plot_stats
        if len(asked.runs) > 1:
            raise RunError("--stats draws one run at a time")
        outputs = figures.output_names(asked.output, asked.formats, default_name(asked.runs, "stats.png"))
        plot_stats.draw(runs_of.read_run(asked.runs[0], LINES), outputs, asked.x, asked.log_x, asked.title)
        return
    outputs = figures.output_names(asked.output, asked.formats, default_name(asked.runs, "curve.png"))
    runs = runs_of.read_runs(asked.runs, LINES, stats=False)
    runs_of.warn_of(runs, "plot.py")
    empty = [run.path for run in runs if not run.records]
    if empty:
        raise RunError(f"{empty[0]} holds no steps yet")
    draw_curves(runs, outputs, asked.x, asked.log_x, asked.log_y, asked.smooth, asked.ymax, asked.title, list(dict.fromkeys(asked.panels or ())),
                asked.labels.split(",") if asked.labels else None)


if __name__ == "__main__":
    runs_of.main_of(main, "plot.py")
