#!/usr/bin/env python3
"""Writes runs as offline runs of Weights & Biases: every number of the log against step, norms of layers, options, samples. Nothing is sent
anywhere; the directory to send by `wandb sync` is printed."""
import argparse
import os

import exports
import runs as runs_of
from runs import RunError, reason


def library():
    """wandb, told before it is loaded to say nothing to anybody."""
    os.environ["WANDB_MODE"] = "offline"
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    os.environ["WANDB_SILENT"] = "true"
    try:
        import wandb
    except ImportError as error:
        raise RunError(f"wandb is missing, or does not work ({error}); install it by: pip install wandb") from None
    return wandb


def write_run(wandb, run, name, directory, project):
    """One offline run below directory/wandb. Returns where it is."""
    try:
        os.makedirs(directory, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise RunError(f"cannot write into {directory}: {reason(error)}") from None
    settings = wandb.Settings(console="off", disable_git=True, save_code=False, silent=True)
    config = dict(exports.flat_options(run), **{key: run.info[key] for key in ("commit", "model", "data") if run.info and key in run.info
                                                and key not in run.options})
    try:
        written = wandb.init(mode="offline", dir=directory, project=project, name=name, config=config, settings=settings)
        for at, record in zip(exports.wall_times(run), run.records):
            numbers = exports.scalars(record)
            step = int(numbers.pop("step"))
            written.log(dict(numbers, _timestamp=at), step=step)
        found = exports.samples(run)
        if found:
            table = wandb.Table(columns=["step", "text"], data=[list(sample) for sample in found])
            written.log({"samples": table, "_timestamp": at}, step=step)   # at the last line
        where = os.path.dirname(written.dir)   # of its files
        written.finish()
    except (wandb.errors.Error, OSError) as error:
        raise RunError(f"wandb could not write {run.path} into {directory}: {reason(error)}") from None
    return where


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, or its log.jsonl")
    parser.add_argument("-o", "--output", metavar="DIR", help="directory for wandb/offline-run-... (default: the run's own)")
    parser.add_argument("--project", default="train_gpt", help="name of the project (default: train_gpt)")
    asked = parser.parse_args()
    wandb = library()
    runs = exports.with_steps(runs_of.read_runs(asked.runs))
    runs_of.warn_of(runs, "to_wandb.py")
    for run, name in zip(runs, exports.distinct_names(runs)):
        where = write_run(wandb, run, name, asked.output or run.path, asked.project)
        print(f"{run.path}: {len(run.records)} lines are in {where}; send them by: wandb sync {where}")


if __name__ == "__main__":
    runs_of.main_of(main, "to_wandb.py")
