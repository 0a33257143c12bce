#!/usr/bin/env python3
"""bench_peers.py: this engine beside PyTorch: the same model, batch, threads and tokens, measured in turns in one run.

    make bench-peers PYTHON=python3                                   on the CPU, about ten minutes
    python3 dev/bench_peers.py --models baby --dtypes bf16 --rounds 5
    python3 dev/bench_peers.py --device cuda                          on a GPU

For each model and dtype, rounds in which every program takes whole steps (forward, backward, clipping, AdamW) for a few seconds, one program at a
time: build/dev/bench, which also measures the ceiling, the library's own matrix product, in every round; and PyTorch, by dev/bench_pytorch.py,
eager and compiled, in bf16 by autocast and with bf16 parameters beside fp32 masters; on a GPU compiled alone, with the flash kernels and with
cuDNN's, and refused where it had to take a smaller micro-batch. A round's figure is the median of its steps, a program's the
median of its rounds; ratios are taken round by round, so that what slows a round down slows all programs in it. A way to run PyTorch that comes in
far behind another in the first round has no further ones. Beside the clock stands the time of all cores together, which other work on the machine
disturbs less. Parameters and FLOPs per token must agree exactly, and the losses of the first steps nearly (initial weights are drawn by different
generators), or nothing is printed.

On the CPU PyTorch runs with glibc's malloc told to keep what is freed, as PyTorch's tuning guide advises by other means.
"""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CPU_MODELS = ["baby", "gpt2-124M", "tinystories-17M"]
GPU_MODELS = ["gpt2-124M", "gpt2-350M", "tinystories-17M", "llama-350M"]
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 26)}
GPU_KINDS = ["flash", "cudnn"]
FAR_BEHIND = 1.3         # times the fastest PyTorch of the first round
LOSS_TOLERANCE = 0.04    # relative: by the initial weights alone the loss of the baby GPT varies by about 0.1 of 4.2
WANTED_RATIO, WANTED_SHARE = 1.5, 0.70


class PeersError(Exception):
    """A sentence for the user."""


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", default="build/dev/bench", help="this engine's benchmark")
    p.add_argument("--python", default=sys.executable, help="a Python that has PyTorch")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--models", help="comma-separated; on the cpu " + ",".join(CPU_MODELS))
    p.add_argument("--dtypes", help="comma-separated; on the cpu fp32,bf16, on a GPU bf16")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of every program")
    p.add_argument("--batch", type=int, help="rows in a micro-batch of every program; as this engine's benchmark has it")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=1.5, help="time given to each program in a round, at least two steps")
    p.add_argument("--json", help="write all figures to this file")
    p.add_argument("--markdown", help="write the table to this file too")
    return p


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_engine(c, model, dtype):
    """One round of this engine: the JSON object of bench.c."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [c.bench, "--seconds", str(c.seconds), "--model", model, "--dtype", dtype, "--device", c.device, "--json", result.name,
                   *(["--batch", str(c.batch)] if c.batch else [])]
        try:
            done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(c.threads)}, capture_output=True, text=True)
        except OSError as error:
            raise PeersError(f"cannot run '{c.bench}' ({error.strerror}); make it with `make bench-peers`, or name it by --bench")
        lines = result.read().decode().splitlines()
    if done.returncode or not lines:
        raise PeersError(f"{c.bench} did not measure {model} in {dtype}: {last_line(done.stderr or done.stdout)}")
    return json.loads(lines[-1])


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


class PyTorch:
    """A process of bench_pytorch.py that holds all variants of a model and dtype, on a GPU with one kind of attention. There it ends after its
    turn, to make room."""

    def __init__(self, c, model, dtype, own, kind):
        self.device, self.name = c.device, f"{kind} " if kind else ""
        self.command = [c.python, os.path.join(HERE, "bench_pytorch.py"), "--serve", "--model", model, "--dtype", dtype, "--device", c.device,
                        "--threads", str(c.threads), "--batch", str(int(own["batch"])), "--seq-len", str(int(own["seq_len"])),
                        "--total-batch", str(int(own["tokens_per_step"])), *(["--attention", kind] if kind else [])]
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(c.threads), **(KEEP_MEMORY if c.device == "cpu" else {})}
        self.process = None
        self.about = self.start()
        self.end_turn()

    def start(self):
        self.errors = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(self.command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                            text=True)
        except OSError as error:
            raise PeersError(f"cannot run '{self.command[0]}' ({error.strerror}); name a Python that has PyTorch by --python")
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise PeersError(f"PyTorch stopped: {last_line(self.errors.read())}")
        try:
            return json.loads(line)
        except ValueError:
            raise PeersError(f"PyTorch answers with {line.strip()[:200]!r}, which is no figure") from None

    def measure(self, variant, seconds):
        if not self.process:
            self.start()
        self.process.stdin.write(f"{variant} {seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def names(self):
        """Of the variants, as the tables have them."""
        return [self.name + variant for variant in self.about["variants"]]

    def end_turn(self):
        if self.device == "cuda":
            self.stop()

    def stop(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.errors.close()
        self.process = None


def check_same_work(model, own, about):
    """Refuses to compare models that are not the same."""
    for field in ("parameters", "flops_per_token", "batch"):
        if own[field] != about[field]:
            raise PeersError(f"{model} has {own[field]:.0f} {field} here and {about[field]:.0f} in PyTorch: these are not the same "
                             + ("work; choose a --batch that fits" if field == "batch" else "model"))
    for name, variant in about["variants"].items():
        for step, (mine, theirs) in enumerate(zip(own["losses"], variant["losses"])):
            if not abs(mine - theirs) <= LOSS_TOLERANCE * mine:
                raise PeersError(f"{model}, step {step}: the loss is {mine:.4f} here and {theirs:.4f} in PyTorch ({name}): these do not train alike")


def round_of_pytorch(c, torch, going_on):
    """{program: figures} of those of its variants that are going on."""
    figures = {}
    for name in torch.names():
        if name in going_on:
            taken = torch.measure(name.removeprefix(torch.name), c.seconds)
            figures[name] = {"ms": 1e3 * statistics.median(taken["seconds"]), "cpu_ms": 1e3 * statistics.median(taken["cpu"])}
    torch.end_turn()
    return figures


def in_the_running(variants, rounds):
    """The variants that go on after the first round."""
    best = min(rounds[name][0]["ms"] for name in variants)
    return [name for name in variants if rounds[name][0]["ms"] <= FAR_BEHIND * best]


def measure_case(c, model, dtype):
    """{"rounds": {program: [round, ...]}, ...} of one model and dtype."""
    own = run_engine(c, model, dtype)   # to learn the shapes, and to warm the machine up
    say(f"{model} {dtype}: PyTorch is compiling")
    torches = []
    try:
        for kind in GPU_KINDS if c.device == "cuda" else [None]:
            torches.append(PyTorch(c, model, dtype, own, kind))
            check_same_work(model, own, torches[-1].about)
        rounds, ceilings, variants = {"train_gpt": []}, [], [name for torch in torches for name in torch.names()]
        for number in range(c.rounds):
            own = run_engine(c, model, dtype)
            rounds["train_gpt"].append({"ms": own["ms"], "cpu_ms": own["cpu_ms"]})
            ceilings.append(own["matmul_rate"])
            for torch in torches:
                for name, figures in round_of_pytorch(c, torch, variants).items():
                    rounds.setdefault(name, []).append(figures)
            measured = ", ".join(f"{name} {rounds[name][-1]['ms']:.0f} ms" for name in ["train_gpt", *variants])
            say(f"{model} {dtype}, round {number + 1} of {c.rounds}: {measured}")
            variants = in_the_running(variants, rounds)
    finally:
        for torch in torches:
            torch.stop()
    return {"model": model, "dtype": dtype, "batch": own["batch"], "seq_len": own["seq_len"], "tokens_per_step": own["tokens_per_step"],
            "parameters": own["parameters"], "flops_per_token": own["flops_per_token"], "device": own["device"], "losses": own["losses"],
            "pytorch": torches[0].about, "ceilings": ceilings, "rounds": rounds}


def ratio(case, program, field):
    """How many times as long as this engine the program takes: the median over the rounds that it has."""
    return statistics.median(theirs[field] / own[field] for theirs, own in zip(case["rounds"][program], case["rounds"]["train_gpt"]))


def median_of(case, program, field):
    return statistics.median(figures[field] for figures in case["rounds"][program])


def summarize(cases):
    """Adds to each case its programs' medians, and how it stands to what is wanted. The ceiling is of the dtype, by all its rounds."""
    for case in cases:
        ceiling = statistics.median(rate for other in cases if other["dtype"] == case["dtype"] for rate in other["ceilings"])
        flops = case["tokens_per_step"] * case["flops_per_token"]
        case["ceiling"] = ceiling
        case["programs"] = {
            name: {"ms": median_of(case, name, "ms"), "cpu_ms": median_of(case, name, "cpu_ms"),
                   "tokens_per_s": 1e3 * case["tokens_per_step"] / median_of(case, name, "ms"),
                   "share": 1e3 * flops / median_of(case, name, "ms") / ceiling,
                   "ratio": ratio(case, name, "ms"), "cpu_ratio": ratio(case, name, "cpu_ms")}
            for name in case["rounds"]
        }
        peers = [figures for name, figures in case["programs"].items() if name != "train_gpt"]
        share, least, by_cpu = case["programs"]["train_gpt"]["share"], min(p["ratio"] for p in peers), min(p["cpu_ratio"] for p in peers)
        case["verdict"] = {"share": share, "ratio": least, "cpu_ratio": by_cpu,
                           "met": least >= 1 and (least >= WANTED_RATIO or share >= WANTED_SHARE)}


def table(c, cases):
    lines = [f"{cases[0]['device']}, {c.threads} threads, PyTorch {cases[0]['pytorch']['torch']}, {c.rounds} rounds of {c.seconds:g} s, "
             f"{datetime.date.today()}, {platform.platform()}", "",
             "| model | dtype | program | ms a step | CPU ms a step | tokens/s | of the ceiling | times train_gpt's time | by CPU time |",
             "|---|---|---|--:|--:|--:|--:|--:|--:|"]
    for case in cases:
        for name, p in case["programs"].items():
            program = name if name == "train_gpt" else f"PyTorch {name}"
            lines.append(f"| {case['model']} | {case['dtype']} | {program} | {p['ms']:,.1f} | {p['cpu_ms']:,.1f} | {p['tokens_per_s']:,.0f} | "
                         f"{p['share']:.1%} | {p['ratio']:.2f} | {p['cpu_ratio']:.2f} |")
    lines += ["", f"| model | dtype | against the best PyTorch | by CPU time | of the ceiling (GFLOP/s) | "
              f"{WANTED_RATIO}x or {WANTED_SHARE:.0%}, never below 1 |", "|---|---|--:|--:|--:|---|"]
    for case in cases:
        v = case["verdict"]
        lines.append(f"| {case['model']} | {case['dtype']} | {v['ratio']:.2f} | {v['cpu_ratio']:.2f} | "
                     f"{v['share']:.1%} ({case['ceiling'] / 1e9:,.0f}) | {'met' if v['met'] else 'missed'} |")
    return "\n".join(lines) + "\n"


def save(path, text):
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PeersError(f"cannot write '{path}': {error.strerror}")


def run(c):
    models = c.models.split(",") if c.models else CPU_MODELS if c.device == "cpu" else GPU_MODELS
    dtypes = c.dtypes.split(",") if c.dtypes else ["fp32", "bf16"] if c.device == "cpu" else ["bf16"]
    if c.rounds < 1 or not c.seconds > 0 or not c.threads or c.threads < 1:
        raise PeersError("--rounds and --threads must be at least 1, and --seconds more than 0")
    cases = [measure_case(c, model, dtype) for model in models for dtype in dtypes]
    summarize(cases)
    text = table(c, cases)
    print(text, end="")
    if c.json:
        save(c.json, json.dumps({"rounds": c.rounds, "seconds": c.seconds, "threads": c.threads, "cases": cases}, indent=1) + "\n")
    if c.markdown:
        save(c.markdown, text)


def main():
    try:
        run(options().parse_args())
    except PeersError as error:
        sys.exit(f"bench_peers.py: {error}")


if __name__ == "__main__":
    main()
