"""A sweep file: the runs that it asks for. Its sections, in the format of Python's configparser:

    [sweep]      title, question; seeds = 1, 2, 3: every run with each; x = lr: the option along a picture of the loss, if not the grid's
                 only number; lines = batch: the options for whose values it has a line each, if not those that are no numbers
    [options]    options of train_gpt for all runs, their names with - or _
    [grid]       option = a, b, c: every combination; or
    [run NAME]   a run with these options, a section for each
    [then]       options of a second stage, which continues each run from its last checkpoint
    [prepare]    command = shell lines that run first; an exit status other than 0 ends the sweep
    [full]       for --full: options that replace those of [options] and, lists too, of [grid]; seed = ... replaces seeds
    [full then], [full run NAME]     for --full: options that replace those of that section

A mistake is a RunError with file and, where it is known, line."""
import configparser
import itertools
import os
import re
from typing import NamedTuple, Optional

from runs import RunError, reason

SECTIONS = ("sweep", "options", "grid", "then", "prepare", "full")
KEYS = {"sweep": ("title", "question", "seeds", "x", "lines"), "prepare": ("command",)}
# What a sweep decides by itself, or what does not train.
OWN = ("out", "resume", "config", "eval-only", "plan", "print-config", "export", "help")
LONGEST_NAME = 200   # a file system has names of 255 bytes


class Planned(NamedTuple):
    """A run: its name, which is its directory's; its label, the same of all seeds; options by name as text; those of its second stage, or None."""
    name: str
    label: str
    options: dict
    then: Optional[dict]


class Sweep(NamedTuple):
    """x: the option along the picture, or "". lines: those for whose values it has a line each; empty: those that differ and are no numbers."""
    title: str
    question: str
    x: str
    lines: list
    prepare: str
    runs: list


def read_sweep(path, full=False):
    """The Sweep in that file; with full, at its full size."""
    sections = read_sections(path)
    check_sections(path, sections)
    about, options = sections.get("sweep", {}), dict(sections.get("options", {}))
    grid = {name: split(path, name, text) for name, text in sections.get("grid", {}).items()}
    seeds = split(path, "seeds", about["seeds"]) if "seeds" in about else []
    if full:
        for name, text in sections.get("full", {}).items():
            if name in grid:
                grid[name] = split(path, name, text)
            elif name == "seed" and seeds:
                seeds = split(path, name, text)
            else:
                options[name] = text
        sections = {name: {**own, **sections.get("full " + name, {})} for name, own in sections.items()}
    runs = plan(path, sections, options, grid, seeds, sections.get("then"))
    lines = [name.replace("_", "-") for name in split(path, "lines", about["lines"])] if "lines" in about else []
    x = about.get("x", "").replace("_", "-")
    for key, name in [("x", x)] * bool(x) + [("lines", name) for name in lines]:
        if not any(name in run.options for run in runs):
            raise RunError(f"{path}: {key} in [sweep] is '{shortened(name)}', an option that no run is given")
    return Sweep(about.get("title") or stem(path), about.get("question", ""), x or only_number(grid), lines,
                 sections.get("prepare", {}).get("command", ""), runs)


def stem(path):
    return os.path.splitext(os.path.basename(path))[0]


# ---- the file --------------------------------------------------------------------------------------------------------------------------


def read_sections(path):
    """{section: {option: text}}, - for _ in the options' names."""
    parser = configparser.ConfigParser(interpolation=None, default_section="", inline_comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = lambda name: name.replace("_", "-")
    try:
        with open(path, encoding="utf-8-sig") as file:
            parser.read_file(file)
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}; name a sweep file, as those in scripts/experiments") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is not UTF-8 text; name a sweep file, as those in scripts/experiments") from None
    except configparser.MissingSectionHeaderError as error:
        raise RunError(f"{path}, line {error.lineno}: '{shortened(error.line)}' stands before any section; begin with [sweep]") from None
    except configparser.DuplicateSectionError as error:
        raise RunError(f"{path}, line {error.lineno}: there is a section [{error.section}] already") from None
    except configparser.DuplicateOptionError as error:
        raise RunError(f"{path}, line {error.lineno}: {error.option} stands twice in [{error.section}]") from None
    except configparser.ParsingError as error:
        line, text = error.errors[0]
        raise RunError(f"{path}, line {line}: {shortened(text)} is neither [section], nor option = value") from None
    return {" ".join(name.split()): dict(parser[name]) for name in parser.sections()}


def shortened(text):
    text = text.strip()
    return text if len(text) <= 60 else text[:57] + "..."


def check_sections(path, sections):
    listed = [name for name in sections if name.split()[:1] == ["run"]]
    replaced = ["full " + name for name in [*listed, "then"] if name in sections]
    for name in sections:
        if name.startswith("full ") and name not in replaced:
            raise RunError(f"{path} has [{name}], and nothing that it could replace: there is no [{name[5:]}], or it is no [then] or [run NAME]")
        if name not in SECTIONS and name not in listed and name not in replaced:
            raise RunError(f"{path}: there is no section [{name}]; there are " + ", ".join(f"[{s}]" for s in SECTIONS) + " and [run NAME]")
    for name in listed:
        if not re.fullmatch(r"run [A-Za-z0-9_][A-Za-z0-9_.=+-]*", name):
            raise RunError(f"{path}: [{name}] needs one word as the run's name, of letters, digits and any of _ . = + -, as [run sgd-0.1]")
    for name, keys in KEYS.items():
        for key in sections.get(name, {}):
            if key not in keys:
                raise RunError(f"{path}: [{name}] has no '{key}'; it has {', '.join(keys)}")
    if "grid" in sections and listed:
        raise RunError(f"{path} has [grid] and [{listed[0]}]; a sweep is a grid or a list")
    if "grid" in sections and not sections["grid"]:
        raise RunError(f"{path}: the [grid] is empty; give it a line, as lr = 1e-3, 3e-3")
    if "grid" not in sections and not listed:
        raise RunError(f"{path} asks for no runs; give it a [grid], or sections [run NAME]")
    for name in sections:
        if name not in KEYS:
            check_options(path, name, sections[name])


def check_options(path, section, options):
    """What train_gpt cannot find wrong about them."""
    for name, text in options.items():
        if name in OWN or (name == "model" and section in ("then", "full then")):
            raise RunError(f"{path}: {name} stands in [{section}], but a sweep decides that by itself; leave it out")
        if "\n" in text and section != "grid":
            raise RunError(f"{path}: {name} in [{section}] has several lines: '{shortened(text.splitlines()[1])}'")


def split(path, name, text):
    """The values of a list."""
    values = [value.strip() for value in re.split(r"[,\n]", text)]
    if not all(values):
        raise RunError(f"{path}: {name} is '{shortened(' '.join(text.split()))}', in which a value is missing; write {name} = a, b, c")
    return values


# ---- the runs --------------------------------------------------------------------------------------------------------------------------


def plan(path, sections, options, grid, seeds, then):
    """Every Planned run, in the order of the file, the last option of a grid and then the seed changing fastest."""
    if grid:
        points = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
        bare = [(named(point), point) for point in points]
    else:
        bare = [(name.split()[1], sections[name]) for name in sections if name.startswith("run ")]
    runs = []
    for name, own in bare:
        if seeds and "seed" in own:
            raise RunError(f"{path}: there are seeds in [sweep], and a seed of its own in the run {name}; leave one out")
        for seed in seeds or [None]:
            last = {} if seed is None else {"seed": seed}
            whole = ",".join(filter(None, [name, named(last)]))
            label = named({option: value for option, value in own.items() if option != "seed"}).replace(",", ", ") if grid else name
            mine = {**options, **own, **last}
            runs.append(Planned(safe_name(path, whole), label or "all", mine, None if then is None else {**mine, **then}))
    check_names(path, runs)
    return runs


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


def safe_name(path, name):
    name = re.sub(r"[^A-Za-z0-9_.=,+-]", "_", name)
    if len(name) > LONGEST_NAME:
        raise RunError(f"{path}: a run would be called {shortened(name)} with {len(name)} letters, more than {LONGEST_NAME}; use sections [run NAME]")
    return name


def check_names(path, runs):
    seen = set()
    for run in runs:
        if run.name in seen:
            raise RunError(f"{path}: two runs are called {run.name}; is a value there twice?")
        seen.add(run.name)


def as_number(text):
    try:
        return float(text)
    except ValueError:
        return None


def only_number(grid):
    """The one option of a grid with several values that are all numbers; "" if there is none, or more than one."""
    names = [name for name, values in grid.items() if name != "seed" and len(values) > 1 and None not in map(as_number, values)]
    return names[0] if len(names) == 1 else ""
