"""Runs of train_gpt as the other scripts see them: the one reader of RUN/run.json and RUN/log.jsonl.

What a user must know is a RunError, one sentence; a script catches it in main_of. What is no reason to stop (a broken line in the middle
of a log) stands in run.notes."""
import collections
import json
import math
import os
import statistics
import sys
import time

from run_files import RunError, number, read_info, read_log, reason   # the last for the scripts, which import from here

# Options that say where a run lies or what it shows of itself; runs do not differ by them.
HOUSEKEEPING = ("out", "config", "resume", "quiet", "live", "curve", "keep", "checkpoint_every", "checkpoint_async", "sample_every",
                "sample_tokens", "sample_prompt", "log_every", "stats", "profile", "check_numerics", "plan", "print_config", "export", "algorithms",
                "link_speed", "matmul_speed", "plan_memory")
SCATTER = 1.01              # times: what a loss is off by where nothing was learned
WORSE_THAN_GUESSING = 1.1   # times: an untrained model is near guessing, on either side of it
# Options that follow from others; they are left out of a label where it tells the runs apart without them.
FOLLOWING = ("model", "val_data")


def main_of(command, name):
    """Runs command(). A RunError is one line on standard error and status 1; so is Ctrl-C. A reader who closes the pipe ends it quietly."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")   # a terminal that knows only ASCII
    try:
        command()
        sys.stdout.flush()
    except RunError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted")
    except MemoryError:
        sys.exit(f"{name}: the memory of this machine is not enough for that log")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # what is left in the buffer goes there at exit
        sys.exit(1)


def warn_of(runs, name):
    """The notes of the runs, on standard error."""
    for run in runs:
        for note in run.notes:
            print(f"{name}: {note}", file=sys.stderr)


def median(values):
    """Of the finite ones; None if there is none."""
    finite = [v for v in values if math.isfinite(v)]
    return statistics.median(finite) if finite else None


# ---- one run ---------------------------------------------------------------------------------------------------------------------------


class Run:
    """path, name (its last part), info (run.json, or None for an older run), options ({} if unknown), records (the log's lines, by step) and
    notes (sentences on what was left out). A property that is not known is None."""

    def __init__(self, path, info, records, notes):
        self.path = path
        self.name = os.path.basename(os.path.abspath(path))
        self.info = info
        self.options = options_of(info)
        self.records = records
        self.notes = notes

    def values(self, key):
        """The finite values of that key in the log, in order."""
        return [v for v in (number(r.get(key)) for r in self.records) if math.isfinite(v)]

    def _last(self, key):
        values = self.values(key)
        return values[-1] if values else None

    def _end(self, key):
        end = (self.info or {}).get("end")
        return end.get(key) if isinstance(end, dict) else None

    def _end_number(self, key):
        value = number(self._end(key))
        return value if math.isfinite(value) else None

    @property
    def finished(self):
        """Nothing is left to do: all steps are done, or the time that --max-time gave is over. False where there is no run.json."""
        return self._end("status") in ("done", "max-time")

    @property
    def status(self):
        """"diverged", what run.json says of the end ("done", "interrupted", "max-time"), and without an end "running" or "killed": running
        is a run whose log changed within the last minute, or within ten times the usual time between its lines. None: no run.json."""
        if self.diverged:
            return "diverged"
        if self.info is None:
            return None
        said = self._end("status")
        if isinstance(said, str):
            return said
        return "running" if self._age() < max(60, 10 * self._pace()) else "killed"

    def _age(self):
        """Seconds since the log, or run.json where there is no log yet, was written to."""
        for name in ("log.jsonl", "run.json"):
            try:
                return time.time() - os.stat(os.path.join(self.path, name)).st_mtime
            except OSError:
                continue
        return math.inf

    def _pace(self):
        times = self.values("elapsed_s")
        return median([b - a for a, b in zip(times, times[1:])]) or 0

    @property
    def best_val(self):
        values = self.values("val_loss")
        return min(values) if values else self._end_number("best_val_loss")

    @property
    def final_val(self):
        return self._last("val_loss")

    @property
    def val_bits_per_byte(self):
        """Of the last evaluation."""
        return self._last("val_bits_per_byte")

    @property
    def tokens_per_s(self):
        return median(self.values("tokens_per_s"))

    @property
    def elapsed_s(self):
        """Seconds of training, over all starts."""
        times = [t for t in (self._last("elapsed_s"), self._end_number("elapsed_s")) if t is not None]
        return max(times) if times else None

    @property
    def peak_memory(self):
        """Bytes."""
        return self._end_number("peak_memory")

    @property
    def steps(self):
        """The last step in the log; 0 if there is none."""
        return self.records[-1]["step"] if self.records else 0

    @property
    def vocabulary(self):
        """V; None if unknown."""
        data = (self.info or {}).get("data")
        for value in (data.get("vocab_size") if isinstance(data, dict) else None, self.options.get("vocab_size")):
            if number(value) > 1:
                return number(value)
        return None

    @property
    def diverged(self):
        """Some loss in the log is not finite (on lines whose update was left out as a spike it may be); or the last loss, the validation's if
        there is one, is above the first training loss and, where V is known, above ln V, that of guessing, by a hundredth; or a validation loss
        before it was so by a tenth, even if the end of the learning rate's schedule brought it back; or run.json says so. With --overfit only
        training losses count: those of the validation get worse."""
        if self._end("status") == "diverged":
            return True
        for r in self.records:
            if not r.get("skipped") and any(key in r and not math.isfinite(number(r[key])) for key in ("loss", "val_loss")):
                return True
        losses, evaluations = self.values("loss"), [] if self.options.get("overfit") else self.values("val_loss")
        last = (evaluations or losses or [None])[-1]
        if last is None or len(self.records) < 2:
            return False
        worst = [losses[0]] if losses else []
        worst += [math.log(self.vocabulary)] if self.vocabulary else []
        return bool(worst) and (last > SCATTER * max(worst) or max(evaluations, default=0) > WORSE_THAN_GUESSING * max(worst))


def options_of(info):
    options = (info or {}).get("options")
    return options if isinstance(options, dict) else {}


def read_run(path, most=None, stats=True):
    """The run in that directory, or of that log.jsonl. most: of a longer log only about so many lines, evenly spread, and those with an
    evaluation or a loss that is not finite, as is enough for a picture. stats: False leaves out the norms of layers, the bulk of a log."""
    path = path.rstrip("/") or path
    directory = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if not os.path.exists(path):
        raise RunError(f"there is no {path}; name the directory of a run, or its log.jsonl")
    info = read_info(directory)
    log = os.path.join(path, "log.jsonl") if os.path.isdir(path) else path
    notes = []
    if not os.path.exists(log):
        if info is None:
            raise RunError(f"{path} is not a run: it has neither run.json nor log.jsonl")
        return Run(directory, info, [], notes)
    return Run(directory, info, read_log(log, notes, most, stats), notes)


def read_runs(paths, most=None, stats=True):
    """read_run of each; a directory that is named twice is read once."""
    once = collections.OrderedDict((os.path.realpath(path), path) for path in paths)
    return [read_run(path, most, stats) for path in once.values()]


# ---- curves ----------------------------------------------------------------------------------------------------------------------------


def x_values(run, x):
    """"step", "tokens" (all up to and with this line) or "time" (seconds of training), one for each record; NaN where unknown. Lines of older
    logs count the tokens of their own step only; there the steps between two lines are taken to be as large as the later one."""
    if x == "step":
        return [r["step"] for r in run.records]
    if x == "time":
        return [number(r.get("elapsed_s")) for r in run.records]
    if x != "tokens":
        raise RunError(f"'{x}' is not step, tokens or time")
    total, before, values = 0.0, 0, []
    for r in run.records:
        known = number(r.get("tokens_seen"))
        total = known if math.isfinite(known) else total + number(r.get("tokens")) * (r["step"] - before)
        before = r["step"]
        values.append(total)
    return values


def series(run, x, y):
    """(xs, ys): the finite values of the log's key y against x, "step", "tokens" or "time"."""
    points = [(a, number(r.get(y))) for a, r in zip(x_values(run, x), run.records)]
    points = [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in points], [b for _, b in points]


# ---- several runs ----------------------------------------------------------------------------------------------------------------------


def origin(run):
    """run.json of the run whose model this one began with (--model OTHER/last); None if it began anew."""
    model = run.options.get("model")
    if not isinstance(model, str) or os.sep not in model:
        return None
    parent = os.path.dirname(model.rstrip("/"))
    for directory in (parent, os.path.join(os.path.dirname(os.path.abspath(run.path)), os.path.basename(parent))):
        try:
            info = read_info(directory)
        except RunError:
            return None
        if info is not None:
            return info
    return None


def counting(options):
    """Without those that have no part in the run: the length of a table of positions that there is not."""
    return {name: value for name, value in options.items() if name != "max_seq_len" or options.get("pos", "learned") == "learned"}


def compared(run):
    """The options by which runs are told apart, each as something that equals only its like. Data are compared by their hash rather than their
    path, and a run that another one began by what that one's options were, its seed aside."""
    options = {name: value for name, value in counting(run.options).items() if name not in HOUSEKEEPING}
    data = (run.info or {}).get("data")
    for name, split in (("train_data", "train"), ("val_data", "val")):
        part = data.get(split) if isinstance(data, dict) else None
        if isinstance(part, dict) and part.get("crc32") is not None:
            options[name] = part["crc32"]
    parent = origin(run) if options else None
    if parent is not None:
        options["model"] = {name: value for name, value in counting(options_of(parent)).items() if name not in HOUSEKEEPING + ("seed",)}
    return {name: json.dumps(value, sort_keys=True) for name, value in options.items()}


def differing(runs):
    """Names of the options that differ between the runs, in the order of run.json, seed last. An option that a run does not know (it is older)
    is not counted as different."""
    all_options = [compared(run) for run in runs]
    names = list(collections.OrderedDict.fromkeys(name for options in all_options for name in options))
    names = [name for name in names if len({options[name] for options in all_options if name in options}) > 1]

    def kinds(of):
        return len({tuple(options.get(name) for name in of if name != "seed") for options in all_options})
    for name in FOLLOWING:
        rest = [other for other in names if other != name]
        if name in names and kinds(rest) == kinds(names):
            names = rest
    return [name for name in names if name != "seed"] + ["seed"] * ("seed" in names)


def shown(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value.count(os.sep) > 1:
        return os.sep.join(value.rstrip(os.sep).split(os.sep)[-2:])
    return "none" if value in ("", None) else str(value)


def label(run, names):
    """"norm=rmsnorm, lr=0.001": the values of those options, by the names one types. The run's own name where that says nothing."""
    options = counting(run.options)
    parts = [f"{name.replace('_', '-')}={shown(options[name])}" for name in names if name in options]
    return ", ".join(parts) or run.name


def labels(runs):
    """A label for each run by what differs; by path where options are unknown, or two would be called the same."""
    names = differing(runs)
    found = [label(run, names) if run.options and names else run.path if len(runs) > 1 else run.name for run in runs]
    return [f"{text} ({run.path})" if found.count(text) > 1 else text for run, text in zip(runs, found)]


def groups(runs):
    """[(label without seed, [runs])]: runs that differ by their seed alone are together, in the order given. A run of unknown options, and one
    that repeats another's seed, is alone."""
    together, seen = collections.OrderedDict(), collections.Counter()
    for run in runs:
        options = compared(run)
        seed = options.pop("seed", None)
        key = tuple(sorted(options.items())) if options else run.path
        repeat = seen[key, seed]
        seen[key, seed] += 1
        together.setdefault((key, repeat), []).append(run)
    members = list(together.values())
    return list(zip(group_labels(members), members))


def group_labels(members):
    if len(members) == 1:
        return [os.path.commonprefix([run.name for run in members[0]]).rstrip("-_. ") or members[0][0].name]
    names = [name for name in differing([run for group in members for run in group]) if name != "seed"]
    found = [label(group[0], names) if group[0].options and names else group[0].path for group in members]
    return [f"{text} ({group[0].path})" if found.count(text) > 1 else text for text, group in zip(found, members)]
