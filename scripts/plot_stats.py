"""plot.py --stats: norms of weights and gradients and the size of activations over training, a small panel for each tensor, a line for each layer."""
import math

import figures
import runs as runs_of
from runs import RunError

COLUMNS = 6
KINDS = (("weights", "weights: L2 norm"), ("gradients", "gradients: L2 norm, before clipping"), ("activations", "activations: root mean square"))


def collect(run, x):
    """{kind: {name: (xs, [values of layer 0, of layer 1, ...])}} of the log's stats; a number that is missing or not finite is NaN."""
    found = {kind: {} for kind, _ in KINDS}
    for place, record in zip(runs_of.x_values(run, x), run.records):
        stats = record.get("stats")
        for kind, panels in found.items():
            tensors = stats.get(kind) if isinstance(stats, dict) else None
            for name, values in (tensors.items() if isinstance(tensors, dict) else ()):
                if isinstance(values, list) and math.isfinite(place):
                    panels.setdefault(name, ([], []))[0].append(place)
                    panels[name][1].append([runs_of.number(value) for value in values])
    return {kind: {name: (xs, by_layer(rows)) for name, (xs, rows) in panels.items()} for kind, panels in found.items()}


def by_layer(rows):
    layers = max(map(len, rows))
    return [[row[layer] if layer < len(row) else math.nan for row in rows] for layer in range(layers)]


def draw_panel(axes, name, xs, layers, most_layers, log_x):
    shades = figures.layer_colors(most_layers)
    for layer, values in enumerate(layers):
        axes.plot(xs, values, color=shades[layer] if len(layers) > 1 else "0.15", linewidth=1, marker="." if len(xs) == 1 else None)
    positive = [v for values in layers for v in values if v > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_yscale("log")
        figures.in_short_numbers(axes.yaxis, True, small=True)
    if log_x:
        axes.set_xscale("log")
    axes.set_title(name, fontsize=8, pad=3)
    axes.tick_params(labelsize=7)
    figures.in_short_numbers(axes.xaxis, log_x)
    if not log_x:
        axes.locator_params(axis="x", nbins=4)


def draw(run, outputs, x="step", log_x=False, title=""):
    """The picture of one run (of runs.read_run), which needs a log with stats."""
    sections = [(heading, panels) for (kind, heading), panels in zip(KINDS, collect(run, x).values()) if panels]
    if not sections:
        raise RunError(f"the log of {run.path} has no norms of layers; train with --stats N")
    longest = max(xs[-1] for _, panels in sections for xs, _ in panels.values())
    scale, unit = figures.time_unit(longest) if x == "time" else (1, "")
    most_layers = max(len(layers) for _, panels in sections for _, layers in panels.values())
    rows = [math.ceil(len(panels) / COLUMNS) for _, panels in sections]
    heights = [1.3 * n + 0.75 for n in rows]   # inches
    figure = figures.new_figure(13.5, sum(heights) + 0.4)
    top = 0.35
    for (heading, panels), n, height in zip(sections, rows, heights):
        grid = figure.add_gridspec(n, COLUMNS, left=0.05, right=0.93, top=1 - (top + 0.4) / figure.get_figheight(),
                                   bottom=1 - (top + height - 0.35) / figure.get_figheight(), hspace=0.4, wspace=0.32)
        figure.text(0.02, 1 - (top + 0.12) / figure.get_figheight(), heading, fontsize=10, fontweight="bold", va="center")
        for i, (name, (xs, layers)) in enumerate(panels.items()):
            axes = figure.add_subplot(grid[i // COLUMNS, i % COLUMNS])
            draw_panel(axes, name, [value / scale for value in xs], layers, most_layers, log_x)
            if i + COLUMNS < len(panels):
                axes.set_xticklabels([])
        top += height
    finish(figure, most_layers, figures.x_label(x, unit), title or run.name)
    figures.save(figure, outputs, "the picture")


def finish(figure, layers, x_label, title):
    """Title, the name of all horizontal axes, and which colour is which layer."""
    figure.text(0.49, 1 - 0.1 / figure.get_figheight(), title, ha="center", fontsize=11)
    figure.text(0.49, 0.0, x_label, ha="center", va="top")
    if layers < 2:
        return
    bar = figure.add_axes([0.95, 0.4, 0.01, 0.3])
    figures.layer_bar(bar, layers)
