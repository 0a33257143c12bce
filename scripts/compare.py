#!/usr/bin/env python3
"""A table of runs: validation loss, perplexity, bits per byte, speed, time, memory, how each ended, and what differs between them."""
import argparse
import csv
import json
import math
import statistics
import sys

import runs as runs_of


def perplexity(loss):
    return None if loss is None or loss > 700 else math.exp(loss)


def parameters(run):
    return ((run.info or {}).get("model") or {}).get("parameters")


# Key in --json and --csv, heading of the table, what it is of a run, how the table shows it. Lower is better for the losses: no sign says so.
COLUMNS = (
    ("final_val_loss", "val loss", lambda run: run.final_val, ".4f"),
    ("best_val_loss", "best", lambda run: run.best_val, ".4f"),
    ("val_perplexity", "ppl", lambda run: perplexity(run.final_val), ".2f"),
    ("val_bits_per_byte", "bits/byte", lambda run: run.val_bits_per_byte, ".4f"),
    ("parameters", "parameters", parameters, ",.0f"),
    ("steps", "steps", lambda run: run.steps, ",.0f"),
    ("tokens_per_s", "tok/s", lambda run: run.tokens_per_s, ",.0f"),
    ("elapsed_s", "time", lambda run: run.elapsed_s, "time"),
    ("peak_memory", "memory", lambda run: run.peak_memory, "bytes"),
)
SPREAD = ("final_val_loss", "best_val_loss", "val_perplexity", "val_bits_per_byte", "tokens_per_s")   # speeds vary by what else the machine does


# ---- rows ------------------------------------------------------------------------------------------------------------------------------


def row_of(text, group):
    """What is known of runs that differ by their seed alone: {key: (mean, standard deviation or None)} of those that did not diverge."""
    row = {"run": text, "runs": [run.path for run in group], "n": len(group), "status": status_of(group)}
    sound = [run for run in group if not run.diverged] or group
    for key, _, value, _ in COLUMNS:
        values = [v for v in (value(run) for run in sound) if v is not None]
        row[key] = (statistics.mean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None)
    row["commits"] = list(dict.fromkeys(str(run.info.get("commit")) for run in group if run.info))
    return row


def status_of(group):
    """"done", or of several runs "2 done, 1 diverged". Empty where unknown."""
    found = [run.status for run in group]
    kinds = list(dict.fromkeys(status for status in found if status))
    if len(kinds) < 2 and None not in found:
        return "".join(kinds)
    return ", ".join(f"{found.count(status)} {status}" for status in kinds) if len(group) > 1 else "".join(kinds)


def rows_of(runs, by_seed):
    if by_seed:
        return [row_of(text, group) for text, group in runs_of.groups(runs)]
    return [row_of(text, [run]) for text, run in zip(runs_of.labels(runs), runs)]


# ---- the table -------------------------------------------------------------------------------------------------------------------------


def duration(seconds):
    s = round(seconds)
    if s >= 3600:
        return f"{s // 3600}h{s // 60 % 60:02d}m"
    return f"{s // 60}m{s % 60:02d}s" if s >= 60 else f"{s}s"


def size(count):
    return f"{count / 2 ** 30:.2f} GiB" if count >= 2 ** 30 else f"{count / 2 ** 20:.1f} MiB"


def cell(mean, deviation, form):
    """"1.8012", "1.8012 +- 0.0021", "3m05s"; empty where unknown."""
    if mean is None:
        return ""
    if form == "time":
        return duration(mean)
    if form == "bytes":
        return size(mean)
    text = format(mean, form) if abs(mean) < 1e7 else f"{mean:.3g}"
    return text if deviation is None else f"{text} \u00b1 {format(deviation, form)}"


def cells_of(rows):
    """The table as lists of texts, the heading first. Left out: columns of which nothing is known, and parameters and commits where all are the
    same."""
    several = any(row["n"] > 1 for row in rows)
    known = [column for column in COLUMNS if any(row[column[0]][0] is not None for row in rows)]
    if len({row["parameters"][0] for row in rows}) == 1:
        known = [column for column in known if column[0] != "parameters"]
    commits = len({tuple(row["commits"]) for row in rows if row["commits"]}) > 1
    table = [["run"] + (["n"] if several else []) + [heading for _, heading, _, _ in known] + ["status"] + (["commit"] if commits else [])]
    for row in rows:
        values = [cell(row[key][0], row[key][1] if key in SPREAD else None, form) for key, _, _, form in known]
        table.append([row["run"].replace("|", "/")] + ([str(row["n"])] if several else []) + values + [row["status"]] +
                     ([", ".join(row["commits"])] if commits else []))
    return table


def markdown(table):
    """Text columns to the left (run, status, commit), numbers to the right."""
    left = [heading in ("run", "status", "commit") for heading in table[0]]
    widths = [max(3, max(len(row[i]) for row in table)) for i in range(len(left))]

    def line(row):
        return "| " + " | ".join(text.ljust(w) if l else text.rjust(w) for text, w, l in zip(row, widths, left)) + " |"
    rule = "|" + "|".join("-" * (w + 2) if l else "-" * (w + 1) + ":" for w, l in zip(widths, left)) + "|"
    return "\n".join([line(table[0]), rule] + [line(row) for row in table[1:]]) + "\n"


def table(runs, by_seed=True):
    """The comparison as Markdown text. by_seed: runs that differ by their seed alone are one row, mean and standard deviation (of a sample) of
    those that did not diverge; n counts all."""
    return markdown(cells_of(rows_of(runs, by_seed)))


# ---- files for other programs ----------------------------------------------------------------------------------------------------------


def as_record(row, names, runs_by_path):
    """A row as one flat dict: numbers as they are, deviations as NAME_sd, and the options that differ."""
    record = {"run": row["run"], "n": row["n"], "status": row["status"]}
    for key, _, _, _ in COLUMNS:
        record[key] = row[key][0]
        if row["n"] > 1:
            record[key + "_sd"] = row[key][1]
    record["commit"] = ", ".join(row["commits"])
    first = runs_by_path[row["runs"][0]]
    record.update({"option_" + name: first.options.get(name) for name in names if name != "seed" or row["n"] == 1})
    record["paths"] = row["runs"]
    return record


def records_of(runs, by_seed):
    by_path = {run.path: run for run in runs}
    names = runs_of.differing(runs)
    return [as_record(row, names, by_path) for row in rows_of(runs, by_seed)]


def print_csv(records):
    fields = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.DictWriter(sys.stdout, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(record, paths=" ".join(record["paths"])) for record in records)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, or its log.jsonl")
    parser.add_argument("--by-seed", action="store_true", help="one row for runs that differ by their seed alone: mean \u00b1 standard deviation")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="comma-separated values, exact")
    form.add_argument("--json", action="store_true", help="a JSON list of objects, exact")
    asked = parser.parse_args()
    runs = runs_of.read_runs(asked.runs, stats=False)
    runs_of.warn_of(runs, "compare.py")
    if asked.json:
        print(json.dumps(records_of(runs, asked.by_seed), indent=1))
    elif asked.csv:
        print_csv(records_of(runs, asked.by_seed))
    else:
        print(table(runs, asked.by_seed), end="")


if __name__ == "__main__":
    runs_of.main_of(main, "compare.py")
