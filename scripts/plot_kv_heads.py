"""plot.py --kv-heads: what fewer key/value heads save in attention, from the lines that bench_attention --json writes."""
import json

import figures
from run_files import RunError, lines_of, number

VALUES = ("forward_ms", "backward_ms", "sublayer_ms", "qkv_bytes", "kv_cache_bytes")
NEEDED = ("device", "dtype", "head_size", "seq_len", "batch", "query_heads", "kv_heads") + VALUES


def read_measurements(path):
    """The lines of that file, those measured last where a case is there twice."""
    found = {}
    for n, line, whole in lines_of(path):
        try:
            record = json.loads(line.decode("utf-8")) if line.strip() else None
        except (ValueError, RecursionError):
            if whole:
                raise RunError(f"line {n} of {path} is not JSON; the file is made by bench_attention --json FILE") from None
            continue
        if record is None:
            continue
        missing = [key for key in NEEDED if key not in record] if isinstance(record, dict) else NEEDED
        bad = missing or [key for key in NEEDED[2:] if not number(record[key]) > 0]
        if bad:
            raise RunError(f"line {n} of {path} has no {bad[0]}; the file is made by bench_attention --json FILE")
        found[tuple(str(record[key]) for key in NEEDED[:7])] = record
    if not found:
        raise RunError(f"{path} holds no measurements; the file is made by bench_attention --json FILE")
    return list(found.values())


def grouped(records, *keys):
    """{values of those keys: [records]}, in order of the values."""
    found = {}
    for record in sorted(records, key=lambda r: tuple(r[key] for key in keys)):
        found.setdefault(tuple(record[key] for key in keys), []).append(record)
    return found


def us_per_token(record, *keys):
    return sum(1e3 * record[key] for key in keys) / (record["batch"] * record["seq_len"])


def draw_line(axes, records, places, value, **style):
    records = sorted(records, key=lambda r: r["kv_heads"])
    axes.plot([places[r["kv_heads"]] for r in records], [value(r) for r in records], marker="o", markersize=3.5, linewidth=1.4, **style)


def draw_row(row, records, places):
    """One device and dtype: time of attention, time with the projections, memory."""
    for i, ((size, length), case) in enumerate(grouped(records, "head_size", "seq_len").items()):
        style = {"color": f"C{i}", "label": f"head size {size}, T={length}"}
        draw_line(row[0], case, places, lambda r: us_per_token(r, "forward_ms", "backward_ms"), **style)
        draw_line(row[1], case, places, lambda r: us_per_token(r, "sublayer_ms"), **style)
    for i, ((size,), case) in enumerate(grouped(records, "head_size").items()):
        one = list({r["kv_heads"]: r for r in case}.values())   # bytes a token do not depend on T
        color = str(0.1 + 0.45 * i)
        in_training = f"Q, K and V in training, head size {size}"
        draw_line(row[2], one, places, lambda r: r["qkv_bytes"] / 1024, color=color, linestyle="--", label=in_training)
        draw_line(row[2], one, places, lambda r: r["kv_cache_bytes"] / 1024, color=color, label=f"KV cache, head size {size}")
    for axes, unit in zip(row, ("\u00b5s per token", "\u00b5s per token", "KiB per token and layer")):
        axes.set_xticks(list(places.values()))
        axes.set_xticklabels([str(heads) for heads in places])
        axes.set(xlabel="key/value heads", ylabel=unit)
        axes.set_ylim(bottom=0)


def draw(paths, outputs, title=""):
    """A row of panels for each device and dtype in the files."""
    records = [record for path in paths for record in read_measurements(path)]
    heads = sorted({r["kv_heads"] for r in records})
    places = {n: i for i, n in enumerate(heads)}
    parts = grouped(records, "device", "dtype")
    figure = figures.new_figure(11, 3.1 * len(parts) + 1.1)
    rows = figure.subplots(len(parts), 3, squeeze=False, gridspec_kw={"hspace": 0.5, "wspace": 0.28})
    for row, ((device, dtype), part) in zip(rows, parts.items()):
        draw_row(row, part, places)
        for axes, name in zip(row, ("attention, forward and backward", "the same with its projections", "memory")):
            axes.set_title(name)
        row[0].annotate(f"{device}; {dtype}; {part[0]['query_heads']} query heads", (0, 1.18), xycoords="axes fraction", fontweight="bold")
    below(rows[-1][0], 2)
    below(rows[-1][2], 1)
    if title:
        figure.suptitle(title)
    figures.save(figure, outputs, "the picture")


def below(axes, columns):
    """The legend under these axes."""
    axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.2), ncol=columns)
