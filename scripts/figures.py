"""What the pictures share: matplotlib without a display, colours, axes in readable units, and files that are the same whenever their
content is."""
import io
import logging
import os

from runs import RunError, reason

FORMATS = ("png", "svg", "pdf")
SETTINGS = {"svg.hashsalt": "train_gpt", "font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.6,
            "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8, "figure.dpi": 100}
AXES = {"step": "optimizer steps", "tokens": "tokens", "time": "of training"}
SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NO_DATES = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def matplotlib():
    """The library, set to its own defaults and ours, whatever the user's are: a picture depends on its data alone."""
    try:
        import matplotlib as library
        import matplotlib.figure
    except (ImportError, AttributeError):   # the second where numpy is too new for it
        raise RunError("matplotlib is missing (pip install matplotlib; Debian and Ubuntu: apt-get install python3-matplotlib); "
                       "sh scripts/curve.sh RUN draws in the terminal without it") from None
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    library.rcdefaults()
    library.rcParams.update(SETTINGS)
    if "text.parse_math" in library.rcParams:   # since 3.6: a $ in a title or a name is a $
        library.rcParams["text.parse_math"] = False
    return library


def new_figure(width, height):
    return matplotlib().figure.Figure(figsize=(width, height))


def output_names(asked, formats, default):
    """Names of the pictures: those of -o (or the default one), once in each of --formats, a list separated by commas, if that is given."""
    names = asked or [default]
    wanted = formats.split(",") if formats else []
    for ending in wanted:
        if ending not in FORMATS:
            raise RunError(f"'{ending}' is no format of pictures; there is: {', '.join(FORMATS)}")
    found = []
    for name in names:
        stem, ending = os.path.splitext(name)
        if not wanted and ending[1:] not in FORMATS:
            raise RunError(f"the name {name} does not end in .png, .svg or .pdf, which tells the format")
        found += [f"{stem if ending[1:] in FORMATS else name}.{w}" for w in wanted] or [name]
    return found


def save(figure, outputs, what):
    """Writes the figure under each of the names. A picture appears whole or not at all."""
    for output in outputs:
        ending = output.rsplit(".", 1)[-1]
        memory = io.BytesIO()
        try:
            figure.savefig(memory, format=ending, dpi=130, bbox_inches="tight", metadata=NO_DATES[ending])
        except (ValueError, ArithmeticError, IndexError) as error:   # a logarithmic axis for nothing above 0, numbers up to 1e308
            raise RunError(f"matplotlib cannot draw {output}: {error}") from None
        write_whole(output, memory.getvalue())
        print(f"{what} is in {output}")


def write_whole(path, content):
    """Bytes into a file by a temporary one beside it."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise RunError(f"cannot write {path}: {reason(error)}") from None


def colors(values):
    """A colour for each: of a scale from dark to bright where they are four or more numbers (as learning rates) or too many, else distinct."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if len(values) <= 10 and not (numbers and len(values) > 3):
        return [f"C{i}" for i in range(len(values))]
    order = sorted(range(len(values)), key=lambda i: values[i]) if numbers else range(len(values))
    if not numbers and len(values) <= 20:
        return [colormap("tab20")(i) for i in range(len(values))]
    scale, place = colormap("viridis"), {i: k / (len(values) - 1) for k, i in enumerate(order)}
    return [scale(0.92 * place[i]) for i in range(len(values))]


def colormap(name):
    library = matplotlib()
    if hasattr(library, "colormaps"):
        return library.colormaps[name]
    from matplotlib import cm   # before 3.5
    return cm.get_cmap(name)


def short(value, _=None):
    """12300 as 12.3k."""
    for size, letter in SCALES:
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def time_unit(seconds):
    """(seconds in it, its name): minutes above three of them, hours above three of those."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 3 * size:
            return size, name
    return 1, "seconds"


def x_label(x, unit):
    return f"{unit} {AXES[x]}".strip()


def in_short_numbers(axis, log=False, small=False):
    """Ticks as 10k, 2M; on a log axis that spans little, some between the powers of ten, in a small panel only a few."""
    from matplotlib import ticker
    axis.set_major_formatter(ticker.FuncFormatter(short))
    if not log:
        return
    low, high = sorted(axis.get_view_interval())
    few = low > 0 and high / low < 30 and not small
    axis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if few else (1, 3) if high / max(low, 1e-300) < 1e4 else (1,), numticks=12))
    axis.set_minor_formatter(ticker.NullFormatter())


def layer_colors(layers):
    """Dark for the first layer, bright for the last."""
    return [colormap("viridis")(0.92 * layer / max(1, layers - 1)) for layer in range(layers)]


def layer_bar(axes, layers):
    """Which colour is which layer."""
    axes.imshow([[color] for color in layer_colors(layers)], origin="lower", aspect="auto", extent=(0, 1, -0.5, layers - 0.5))
    axes.set(xticks=[], ylabel="layer")
    axes.grid(False)
    axes.yaxis.set_label_position("right")
    axes.yaxis.tick_right()
    axes.yaxis.get_major_locator().set_params(integer=True)
