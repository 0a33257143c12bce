"""plot.py --positions: what a model has learned about positions: some channels of its table against position, the norm of each position's
vector, and how alike the vectors of two positions are."""
import json
import os
import struct

import figures
from runs import RunError, reason

NAMES = ("wpe.weight", "transformer.wpe.weight")
ITEMS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
CHANNELS = 4
LONGEST_HEADER = 100000000   # bytes, as the format has it


def model_files(path):
    """The safetensors files of a model's directory, of a checkpoint, of a run's best (or last) checkpoint; or that file itself."""
    if not os.path.exists(path):
        raise RunError(f"there is no {path}; name the directory of a run, a checkpoint or a model")
    if not os.path.isdir(path):
        return [path]
    for part in ("", "best", "last"):
        directory = os.path.join(path, part)
        if os.path.isfile(os.path.join(directory, "model.safetensors")):
            return [os.path.join(directory, "model.safetensors")]
        index = os.path.join(directory, "model.safetensors.index.json")
        if os.path.isfile(index):
            return shards_of(index)
    raise RunError(f"{path} holds no model.safetensors, nor does a checkpoint in it")


def shards_of(index):
    """The files that an index of a model in shards names, which lie beside it."""
    try:
        with open(index, encoding="utf-8") as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
        return [os.path.join(os.path.dirname(index), os.path.basename(name)) for name in names]
    except OSError as error:
        raise RunError(f"cannot read {index}: {reason(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{index} is not the index of a model in shards") from None


def read_header(file, path):
    """(header, where the data begin) of an open safetensors file: 8 bytes of length, then so many of JSON."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    try:
        if not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise ValueError
        header = json.loads(file.read(length).decode("utf-8"))
        if not isinstance(header, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise RunError(f"{path} is not a safetensors file") from None
    return header, 8 + length


def read_table(path):
    """The (maxT, C) table of learned positions in a safetensors file as an array of doubles; None if it has none."""
    try:
        with open(path, "rb") as file:
            header, begin = read_header(file, path)
            entry = next((header[name] for name in NAMES if name in header), None)
            return None if entry is None else as_array(file, begin, entry, path)
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None


def as_array(file, begin, entry, path):
    import numpy
    try:
        kind, shape, (first, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        rows, columns = (int(n) for n in shape)
        if kind not in ITEMS or rows < 1 or columns < 1 or first < 0 or end - first != rows * columns * ITEMS[kind]:
            raise ValueError
        if begin + end > os.fstat(file.fileno()).st_size:
            raise RunError(f"{path} is cut short: its position table ends behind the end of the file")
    except (KeyError, TypeError, ValueError):
        raise RunError(f"the position table of {path} is not a matrix of F64, F32, F16 or BF16 numbers") from None
    file.seek(begin + first)
    raw = file.read(end - first)
    if kind == "BF16":   # the upper half of an fp32 number
        table = (numpy.frombuffer(raw, "<u2").astype(numpy.uint32) << 16).view(numpy.float32)
    else:
        table = numpy.frombuffer(raw, f"<f{ITEMS[kind]}")
    table = table.astype(numpy.float64).reshape(rows, columns)
    if not numpy.isfinite(table).all():
        raise RunError(f"the position table of {path} holds numbers that are not finite")
    return table


def table_of(path):
    tables = [table for table in map(read_table, model_files(path)) if table is not None]
    if not tables:
        raise RunError(f"{path} has no learned positions (--pos learned makes them): there is no {NAMES[1]} in it")
    return tables[0]


def busiest_channels(table):
    """The channels that vary most over the positions, in order of their number."""
    return sorted(sorted(range(table.shape[1]), key=lambda c: -table[:, c].var())[:CHANNELS])


def likeness(table):
    """(maxT, maxT) cosines between the vectors of two positions; 0 where one of them is zero."""
    import numpy
    norms = numpy.sqrt((table ** 2).sum(axis=1, keepdims=True))
    units = table / numpy.where(norms > 0, norms, 1)
    return units @ units.T


def draw_model(row, table, name):
    positions = range(len(table))
    for i, channel in enumerate(busiest_channels(table)):
        row[0].plot(positions, table[:, channel], color=f"C{i}", linewidth=1, label=f"channel {channel}")
    row[0].set(title=f"{name}: the channels that vary most", ylabel="embedding")
    low, high = row[0].get_ylim()
    row[0].set_ylim(low, high + 0.22 * (high - low))   # room for the legend
    row[0].legend(loc="upper center", ncol=CHANNELS, fontsize=7, handlelength=1.2, columnspacing=1)
    row[1].plot(positions, (table ** 2).sum(axis=1) ** 0.5, color="0.2", linewidth=1)
    row[1].set(title="norm of a position's vector", ylabel="L2 norm")
    row[1].set_ylim(bottom=0)
    image = row[2].imshow(likeness(table), cmap="RdBu_r", vmin=-1, vmax=1, origin="lower", interpolation="nearest", aspect="auto")
    row[2].set(title="cosine between two positions", ylabel="position")
    row[2].grid(False)
    row[2].figure.colorbar(image, ax=row[2], fraction=0.05, pad=0.03)


def draw(paths, outputs, title=""):
    """One row of panels for each model."""
    tables = [table_of(path) for path in paths]
    figure = figures.new_figure(12, 3.2 * len(paths) + 0.2)
    rows = figure.subplots(len(paths), 3, squeeze=False, gridspec_kw={"hspace": 0.45, "wspace": 0.26, "width_ratios": [1.5, 1, 1]})
    for row, table, path in zip(rows, tables, paths):
        draw_model(row, table, os.path.basename(os.path.abspath(path)))
        for axes in row:
            axes.set_xlabel("position")
    if title:
        figure.suptitle(title)
    figures.save(figure, outputs, "the picture")
