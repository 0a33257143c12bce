#!/usr/bin/env python3
"""Trains every run of a sweep file, several at once, and compares them at the end.

    python3 scripts/sweep.py scripts/experiments/norms.ini --jobs 2
    python3 scripts/sweep.py mine.ini -o out/mine --gpus 0,1,2,3 --full -- --dtype bf16

A run trains in DIR/NAME, what it prints goes to DIR/NAME.txt. Started again, the same command skips what is done and goes on with what is not.
At the end: DIR/table.md, DIR/curves.png and .svg, and where one number was varied a picture of the loss against it. sweep_file.py says what
stands in the file; its relative paths, and those behind --, are seen from the repository. Environment: $TRAIN_GPT is the program to use, else
./train_gpt of this repository; $OMP_NUM_THREADS, else the threads of this machine divided by --jobs."""
import argparse
import concurrent.futures
import fcntl
import itertools
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
from typing import NamedTuple

import sweep_report
from runs import RunError, main_of, read_info, read_run, reason
from sweep_file import OWN, as_number, read_sweep, stem

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ANY_VOCABULARY = "--vocab-size=1000000"   # lets options be checked before there are data


class Stage(NamedTuple):
    """One training of a run: the first, or what [then] adds."""
    name: str
    options: dict


def stages_of(run, directory):
    """The one or two stages of a Planned run."""
    first = Stage(run.name, run.options)
    if run.then is None:
        return [first]
    return [first, Stage(run.name + ",then", {**run.then, "model": seen_from_root(os.path.join(directory, run.name, "last"))})]


def seen_from_root(path):
    """The path as a program sees it that runs in ROOT: without ROOT if it lies there."""
    relative = os.path.relpath(path, ROOT)
    return os.path.abspath(path) if relative.startswith(os.pardir) else relative


def arguments_of(options):
    return [f"--{name}={value}" for name, value in options.items()]


# ---- what there is already -------------------------------------------------------------------------------------------------------------


def some_of(names):
    return "; ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def last_words(path):
    """The last line that train_gpt itself says in that output, or else the last line; "" if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return ""
    said = [line for line in lines if line.startswith("train_gpt: ")]
    return (said or lines or [""])[-1]


def given(arguments):
    """({option: value} of all --option=value, the other arguments): the later one counts, and numbers are equal however they are written."""
    named, others = {}, []
    for argument in arguments:
        found = re.fullmatch(r"--([^=]+)=(.*)", argument, re.DOTALL)
        if not found:
            others.append(argument)
        elif found.group(1) not in ("out", "resume"):
            number = as_number(found.group(2))
            named[found.group(1)] = found.group(2) if number is None else number
    return named, others


def command_of(info, place):
    """The words of the command that began the run."""
    try:
        return [str(word) for word in info["starts"][0]["command"]]
    except (KeyError, IndexError, TypeError):
        raise RunError(f"{place}/run.json does not tell the command that began the run; remove that directory to have the run made again") from None


class Sweeper:
    """Runs what a sweep asks for in a directory. devices: the environment of each job; extra: more options of train_gpt."""

    def __init__(self, path, sweep, directory, devices, extra):
        self.path = path
        self.sweep = sweep
        self.directory = directory
        self.extra = extra
        self.program = os.path.abspath(os.environ.get("TRAIN_GPT") or os.path.join(ROOT, "train_gpt"))
        self.devices = queue.Queue()
        for device in devices:
            self.devices.put(device)
        self.jobs = len(devices)
        self.processes = set()
        self.lock = None
        self.stopped_by = None
        self.failures = {}      # {how it failed: [names]}
        self.seconds = []       # of the runs that were trained now

    def place(self, stage, ending=""):
        return os.path.join(self.directory, stage.name + ending)

    def command(self, stage):
        return [self.program] + arguments_of(stage.options) + self.extra + ["--out=" + seen_from_root(self.place(stage))]

    def state(self, stage):
        """"to do", "started" (with something to resume), "done", "diverged" or "changed": made with other options than now."""
        info = read_info(self.place(stage))
        if info is None:
            return "to do"
        if given(command_of(info, self.place(stage))[1:]) != given(self.command(stage)[1:]):
            return "changed"
        status = (info.get("end") or {}).get("status")
        if status in ("done", "max-time", "diverged"):
            return "diverged" if status == "diverged" else "done"
        return "started" if os.path.exists(os.path.join(self.place(stage), "last")) else "to do"

    def stages(self):
        return [stage for run in self.sweep.runs for stage in stages_of(run, self.directory)]

    # ---- before anything starts ----

    def check_program(self):
        if not os.access(self.program, os.X_OK):
            raise RunError(f"there is no program {self.program}; make train_gpt, or name one in $TRAIN_GPT")

    def check_options(self, more=()):
        """train_gpt itself says what is wrong with the options of a run."""
        for run in self.sweep.runs:
            for section, options in (("", run.options), (" in [then]", run.then)):
                if options is None:
                    continue
                command = [self.program] + arguments_of(options) + self.extra + [*more, "--print-config"]
                tried = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
                if tried.returncode != 0:
                    words = (tried.stderr.strip().splitlines() or [f"train_gpt ends with status {tried.returncode}"])[-1]
                    raise RunError(f"{self.path}, run {run.name}{section}: {words}")

    def check_changes(self):
        changed = [stage.name for stage in self.stages() if self.state(stage) == "changed"]
        if changed:
            raise RunError(f"{self.directory} holds runs made with other options than {self.path} gives them now: {some_of(changed)}; remove them to "
                           "have them made again, or choose another directory with -o")

    def claim(self):
        """Makes the directory, and takes it for this sweep alone. The processes of its runs hold the lock as well: a sweep that was killed leaves
        them behind, and a second start of such a run would write into the same files."""
        try:
            os.makedirs(self.directory, exist_ok=True)
            self.lock = open(os.path.join(self.directory, ".lock"), "ab")
        except OSError as error:
            raise RunError(f"cannot write into the directory {self.directory}: {reason(error)}") from None
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another sweep is at work in {self.directory}, or a run of one that was killed; wait for its end, or end it") from None
        except OSError:
            pass    # a file system without locks

    def prepare(self):
        if not self.sweep.prepare:
            return
        status = self.run_process(["sh", "-ec", self.sweep.prepare], {}, sys.stdout)
        if status != 0 and not self.stopped_by:
            raise RunError(f"{self.path}: the command of [prepare] ended with status {status}; its own words stand above")

    # ---- processes ----

    def run_process(self, command, environment, output):
        """Its exit status. A process is the first of a group, so that a signal reaches what it has started too."""
        output.flush()
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[self.lock.fileno()])
        self.processes.add(process)
        if self.stopped_by:     # the signal came before the process was known
            self.pass_on(process)
        status = process.wait()
        self.processes.discard(process)
        return status

    def pass_on(self, process):
        try:
            os.killpg(process.pid, self.stopped_by)
        except ProcessLookupError:
            pass

    def stop(self, number, _frame):
        """For a signal: the runs under way write a checkpoint and end, the others do not begin."""
        self.stopped_by = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        for process in list(self.processes):
            self.pass_on(process)

    # ---- runs ----

    def train(self, run):
        """All stages of a run, as far as they come. Returns words on its outcome, or None if a signal stopped it."""
        device = self.devices.get()
        try:
            for number, stage in enumerate(stages_of(run, self.directory)):
                words, goes_on = self.train_stage(stage, device, continues=number > 0)
                if not goes_on:
                    break
            return words
        except (OSError, RunError) as error:
            return self.failed(run, 1, reason(error))
        finally:
            self.devices.put(device)

    def train_stage(self, stage, device, continues):
        """(words on its outcome, whether there is a model to go on with)."""
        state = self.state(stage)
        if state == "done":
            return "done before", True
        if state == "diverged":
            return f"diverged at step {self.diverged_at(stage)}, before", False
        if self.stopped_by:
            return None, False
        if continues and state == "to do" and not self.evaluate_before(stage, device):
            return None if self.stopped_by else self.failed(stage, 1, last_words(self.place(stage, ".before.txt"))), False
        status = self.start(stage, device, ["--resume=auto"] if state == "started" else [])
        said = last_words(self.place(stage, ".txt"))
        if self.stopped_by and status != 0:
            return None, False
        if status == 0 and self.state(stage) == "done":
            return self.finished(stage), True
        step = self.diverged_at(stage)
        return f"diverged at step {step}" if step is not None else self.failed(stage, status, said), False

    def diverged_at(self, stage):
        """The step whose numbers were not finite, so that train_gpt gave up; None if there was none."""
        end = (read_info(self.place(stage)) or {}).get("end") or {}
        return end.get("step") if end.get("status") == "diverged" else None

    def start(self, stage, device, more):
        command = self.command(stage) + more
        with open(self.place(stage, ".txt"), "a" if more else "w", encoding="utf-8") as output:
            print("$", " ".join(map(shlex.quote, command)), file=output)
            return self.run_process(command, device, output)

    def evaluate_before(self, stage, device):
        """The loss with which a second stage begins: an evaluation with its options, before its first step. Returns whether that worked."""
        with open(self.place(stage, ".before.txt"), "w", encoding="utf-8") as output:
            return self.run_process(self.command(stage) + ["--eval-only"], device, output) == 0

    def failed(self, stage, status, said):
        """Words on the failure of a stage, or of a run, which are remembered."""
        how = f"was killed by signal {-status}" if status < 0 else "failed"
        self.failures.setdefault(f"{how}: {said}", []).append(stage.name)
        return f"{how}: {said}"

    def finished(self, stage):
        run = read_run(self.place(stage), stats=False)
        self.seconds.append(run.elapsed_s or 0)
        best = "no evaluation" if run.best_val is None else f"best validation loss {run.best_val:.4f}"
        return f"{best}, {run.elapsed_s or 0:.0f} s" + (", but diverged: at some time worse than guessing" if run.diverged else "")

    def train_all(self):
        runs = self.sweep.runs
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            waiting = {pool.submit(self.train, run): run for run in runs}
            ended = itertools.count(1)
            for future in concurrent.futures.as_completed(waiting):
                words = future.result()
                if words is not None:
                    n = next(ended)
                    print(f"{n}/{len(runs)}  {waiting[future].name}: {words}{self.time_left(len(runs) - n)}", flush=True)

    def time_left(self, left):
        if not left or not self.seconds:
            return ""
        seconds = sum(self.seconds) / len(self.seconds) * left / self.jobs
        return f"; about {seconds / 60:.0f} min left" if seconds >= 60 else f"; about {seconds:.0f} s left"

    def report(self):
        """The table and the pictures, of all runs that have something to show."""
        firsts, thens = [], []
        for run in self.sweep.runs:
            for stage, found in zip(stages_of(run, self.directory), (firsts, thens)):
                if os.path.exists(os.path.join(self.place(stage), "log.jsonl")):
                    before = sweep_report.loss_before(self.place(stage, ".before.txt"))
                    found.append(sweep_report.entry(run.label, self.place(stage), self.diverged_at(stage), before))
        sweep_report.write(self.sweep, self.directory, firsts, thens)


# ---- the command -----------------------------------------------------------------------------------------------------------------------


def parse_arguments(arguments):
    """The arguments, with what stands behind -- as .extra."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="sweep.py", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__.split("\n\n", 1)[0],
                                     usage="%(prog)s FILE [options] [-- more options of train_gpt]", epilog=__doc__.split("\n\n", 1)[1])
    parser.add_argument("file", metavar="FILE", help="the sweep")
    parser.add_argument("-o", "--out", metavar="DIR", help="directory of the runs (default: out/NAME of the file; with --full out/NAME-full)")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: 1)")
    parser.add_argument("--gpus", metavar="0,1,...", help="GPUs for a run each, as CUDA_VISIBLE_DEVICES has them")
    parser.add_argument("--full", action="store_true", help="the full size, as [full] says")
    parser.add_argument("--list", action="store_true", help="show runs, their state and options, and start nothing")
    found = parser.parse_args(arguments[:at])
    found.extra = arguments[at + 1:]
    for argument in found.extra:
        if re.match("-[oh]", argument) or re.sub("=.*", "", argument, flags=re.DOTALL).lstrip("-").replace("_", "-") in OWN:
            parser.error(f"{argument} cannot stand behind --: a sweep decides that by itself")
    return found


def devices_of(jobs, gpus):
    """The environment that each job adds to its runs."""
    if gpus is not None and jobs is not None:
        raise RunError("--gpus gives each of them a run at a time; leave out --jobs")
    if gpus is not None:
        names = [name.strip() for name in gpus.split(",")]
        if not all(names) or len(set(names)) < len(names):
            raise RunError(f"--gpus is '{gpus}'; expected different GPUs, as 0,1")
        return [{"CUDA_VISIBLE_DEVICES": name} for name in names]
    jobs = 1 if jobs is None else jobs
    if not 1 <= jobs <= 1024:
        raise RunError(f"--jobs is {jobs}; expected a number of runs from 1 to 1024")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {} if os.environ.get("OMP_NUM_THREADS") else {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    return [threads] * jobs


def show_list(sweeper):
    for stage in sweeper.stages():
        words = " ".join(map(shlex.quote, arguments_of(stage.options) + sweeper.extra))
        print(f"{stage.name}  ({sweeper.state(stage)})\n    {words}")


def main():
    arguments = parse_arguments(sys.argv[1:])
    sweep = read_sweep(arguments.file, arguments.full)
    directory = arguments.out or os.path.join(ROOT, "out", stem(arguments.file) + ("-full" if arguments.full else ""))
    sweeper = Sweeper(arguments.file, sweep, directory, devices_of(arguments.jobs, arguments.gpus), arguments.extra)
    if arguments.list:
        show_list(sweeper)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, sweeper.stop)
    sweeper.check_program()
    sweeper.check_options([ANY_VOCABULARY] if sweep.prepare else [])
    sweeper.check_changes()
    sweeper.claim()
    sweeper.prepare()
    if sweep.prepare and not sweeper.stopped_by:
        sweeper.check_options()
    sweeper.train_all()
    if sweeper.stopped_by:
        print("sweep.py: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
    sweeper.report()
    if sweeper.failures:
        count = sum(map(len, sweeper.failures.values()))
        causes = [f"{some_of(names)} {how}" for how, names in sweeper.failures.items()]
        raise RunError(f"{count} of {len(sweep.runs)} runs failed; {'; '.join(causes)}")


if __name__ == "__main__":
    main_of(main, "sweep.py")
