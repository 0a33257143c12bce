#!/usr/bin/env python3
"""gpu_curve.py: is a training curve of the GPU that of the CPU, as far as chance lets one say?

    python3 dev/gpu_curve.py --cpu RUN RUN RUN --card fp32=RUN bf16=RUN

The runs differ in nothing but device, dtype and seed; --cpu are of several seeds in fp32, and the cards' have the seed of the first. What is asked
of a card's curve, and why:

- Every loss is a number, at every step, and no update was left out.
- In the first 20 steps it is within 1e-5 (fp32) or 5e-3 (bf16) of the CPU's, relatively. On the CPU another number of threads, so another order of
  sums, changes these losses by at most 1e-7, and bf16 by 8e-4; seeds differ by 7e-2. Rounding grows by the chaos of training at a high
  learning rate, about tenfold every 12 steps from step 50 on, so that after step 100 one sees it like another seed.
- Over all steps, in means of 20, the root mean square of its distance to the CPU's curve is at most that of the seeds' distances to each other, and
  no mean is further away than twice that.

Prints a Markdown table and a verdict for each card, the last line for all. Exit status 0: all hold."""
import argparse
import itertools
import math
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))
from runs import RunError, main_of, read_run   # noqa: E402

WINDOW = 20   # steps
EARLY = {"fp32": 1e-5, "bf16": 5e-3}
SHOWN = (1, 2, 5, 10, 20, 50, 100, 150, 200, 500, 1000)


def losses_of(path, name):
    """The losses of steps 1, 2, ...; a RunError says which is none."""
    records = read_run(path).records
    if not records:
        raise RunError(f"{name}: {path} has no step in its log")
    for expected, record in enumerate(records, 1):
        loss = record.get("loss")
        if record["step"] != expected:
            raise RunError(f"{name}: step {expected} is not in the log of {path}; the run needs --log-every 1")
        if not isinstance(loss, (int, float)) or not math.isfinite(loss):
            raise RunError(f"{name}: the loss of step {expected} is {loss}")
        if record.get("skipped"):
            raise RunError(f"{name}: the update of step {expected} was left out")
    return [record["loss"] for record in records]


def window_means(losses):
    return [statistics.fmean(losses[i : i + WINDOW]) for i in range(0, len(losses) - WINDOW + 1, WINDOW)]


def distances(a, b):
    return [x - y for x, y in zip(window_means(a), window_means(b))]


def root_mean_square(values):
    return math.sqrt(statistics.fmean(v * v for v in values))


def seeds_noise(cpu):
    """The root mean square of the distances of means, over all pairs of seeds."""
    return root_mean_square([d for a, b in itertools.combinations(cpu, 2) for d in distances(a, b)])


def judge(card, cpu, noise, dtype):
    """(holds, sentence) of a card's losses beside those of the CPU's run of the same seed."""
    early, step = max((abs(x / y - 1), n) for n, (x, y) in enumerate(zip(card[:WINDOW], cpu[:WINDOW]), 1))
    apart = distances(card, cpu)
    whole, furthest = root_mean_square(apart), max(apart, key=abs)
    figures = (f"at most {early:.1e} apart in the first {WINDOW} steps (step {step}; {EARLY[dtype]:.0e} allowed), then by means of {WINDOW} steps "
               f"{whole:.4f} ({noise:.4f} between seeds), {furthest:+.4f} at the furthest")
    if not early <= EARLY[dtype]:
        return False, figures + ": too far from the start, which is no matter of chance"
    if not whole <= noise:
        return False, figures + ": further than another seed"
    if not abs(furthest) <= 2 * noise:
        return False, figures + ": a stretch of it is further away than seeds are"
    return True, figures


def table(names, curves):
    steps = len(curves[0])
    rows = [["step", *names]]
    rows += [[str(s), *(f"{c[s - 1]:.5f}" for c in curves)] for s in SHOWN if s <= steps]
    rows.append([f"mean of {steps - WINDOW + 1} to {steps}", *(f"{statistics.fmean(c[-WINDOW:]):.5f}" for c in curves)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def compare(cpu_paths, cards):
    """(all hold, text) of the runs at these paths; cards: pairs of dtype and path."""
    cpu = [losses_of(path, f"CPU, run {n}") for n, path in enumerate(cpu_paths, 1)]
    curves = [losses_of(path, f"card, {dtype}") for dtype, path in cards]
    lengths = {len(losses) for losses in cpu + curves}
    if len(lengths) > 1 or min(lengths) < WINDOW:
        raise RunError(f"the runs have {', '.join(map(str, sorted(lengths)))} steps: all must have the same, at least {WINDOW}")
    noise = seeds_noise(cpu)
    if noise == 0:
        raise RunError("the runs of the CPU are the same to the bit: their seeds must differ")
    names = [f"CPU, seed {n}" for n in range(1, len(cpu) + 1)] + [f"card, {dtype}, seed 1" for dtype, _ in cards]
    verdicts = [judge(losses, cpu[0], noise, dtype) for (dtype, _), losses in zip(cards, curves)]
    said = [f"{dtype}: {'' if holds else 'FAILED, '}{sentence}" for (dtype, _), (holds, sentence) in zip(cards, verdicts)]
    return all(holds for holds, _ in verdicts), table(names, cpu + curves) + "\n\n" + "\n\n".join(said)


def card_of(text):
    dtype, _, path = text.partition("=")
    if dtype not in EARLY or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not fp32=RUN or bf16=RUN")
    return dtype, path


def command():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cpu", nargs="+", required=True, metavar="RUN", help="two or more seeds, in fp32; the first has the cards' seed")
    p.add_argument("--card", nargs="+", required=True, type=card_of, metavar="DTYPE=RUN")
    o = p.parse_args()
    if len(o.cpu) < 2:
        raise RunError("--cpu needs runs of two seeds or more: what they differ by is what chance does")
    holds, text = compare(o.cpu, o.card)
    print(text)
    failing = [line for line in text.split("\n\n") if "FAILED" in line]
    print("\n" + (failing[0] if failing else "The curves of the card are those of the CPU."))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main_of(command, "gpu_curve")
