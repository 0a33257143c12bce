#!/usr/bin/env python3
"""gpu_decisions.py: what the defaults should be on a GPU, from what dev/gpu_check.sh probe measured there.

    python3 dev/gpu_decisions.py FILE.probe.jsonl

FILE has a JSON object a line: "probe": "product" and "epilogue" of lt_probe, "attention" of gpu_attention, "step" of bench (whole steps of GPT-2
124M with one option changed: "option", "value", and the members of bench --json). Where a line was written twice the later counts. Prints one
Markdown table. The rule for each row stands in its function; a difference of less than 2% of one product, or 1% of a whole step, is none, and
the default then stays. A line that is not whole, of a probe that was ended, is left out."""
import json
import math
import sys

SMALL_PRODUCT, SMALL_STEP = 0.02, 0.01
NOT_MEASURED = "not measured"


class Figures:
    """The lines of one file, by what they measure."""

    def __init__(self, lines):
        self.products, self.epilogues, self.attention, self.steps = {}, {}, {}, {}
        for line in lines:
            kind = line.get("probe")
            if kind == "product":
                self.products[line["name"]] = line
            elif kind == "epilogue":
                self.epilogues[line["name"]] = line
            elif kind == "attention":
                self.attention[tuple(line[k] for k in ("head_size", "seq_len", "kv_heads", "deterministic"))] = line
            elif kind == "step":
                self.steps[line["option"], line["value"], line["batch"]] = line

    def step_ms(self, option, value, batch):
        line = self.steps.get((option, value, batch))
        return line["ms"] if line else None


def is_time(x):
    return isinstance(x, (int, float)) and math.isfinite(x) and x > 0


def kernels(count):
    return "not capturable" if count < 0 else "one kernel" if count == 1 else f"{count} kernels"


# ---- epilogues ------------------------------------------------------------------------------------------------------------------------


def both_ways(line):
    """us with the epilogue and us with a kernel in its place; None for one that the library has not. That kernel is taken to move its bytes as fast
    as can be, so an epilogue that wins here wins against any."""
    fused = line.get("fused_us")
    return fused + line["left_us"] if is_time(fused) else None, line["plain_us"] + line["apart_us"]


def better(fused, apart):
    if fused is None:
        return "apart: the library has no such product"
    if abs(fused / apart - 1) < SMALL_PRODUCT:
        return "no difference; as it is"
    return "in the product" if fused < apart else "apart"


def epilogue_row(figures, question, name, where):
    line = figures.epilogues.get(name)
    if not line:
        return question, NOT_MEASURED, "-", where
    fused, apart = both_ways(line)
    measured = f"apart {apart:.0f} us" if fused is None else f"{kernels(line['kernels'])}, {fused:.0f} us; apart {apart:.0f} us"
    return question, measured, better(fused, apart), where


def epilogue_rows(figures):
    fuses = "`gemm_fuses_activations`, kernels/gemm.cu"
    activations = [("GELU in the product, forward without backward", "fc forward, bias, GELU"),
                   ("GELU in the product, its input kept", "fc forward, bias, GELU, aux"),
                   ("GELU's backward in the product", "fcproj input gradient, DGELU")]
    rows = [epilogue_row(figures, question, name, fuses) for question, name in activations]
    rows.append(epilogue_row(figures, "fc's bias gradient behind GELU's backward, in that product", "fcproj input gradient, DGELU, bias gradient",
                             "not used: `cuda_matmul_backward_input`, kernels/matmul.cu"))
    return rows


def bias_gradient_row(figures):
    """All four products of a layer together, each added to fp32 gradients as all but a step's first micro-batch are."""
    question = "bias gradients in the product, summed in fp32 (BGRADB)"
    where = "`usually_fused` 0 in `cuda_matmul_backward_weight`, kernels/matmul.cu"
    lines = [figures.epilogues.get(f"{name} weight gradient, fp32, added, row sums") for name in ("qkv", "proj", "fc", "fcproj")]
    if None in lines:
        return question, NOT_MEASURED, "-", where
    ways = [both_ways(line) for line in lines]
    if any(fused is None for fused, _ in ways):
        return question, "not supported for all four products", "apart", where
    fused, apart = (sum(times) for times in zip(*ways))
    counts = sorted({kernels(line["kernels"]) for line in lines})
    return question, f"{', '.join(counts)}; {fused:.0f} us a layer; apart {apart:.0f} us", better(fused, apart), where


def residual_row(figures):
    """By whole steps where there are some: they have the norms as they are."""
    question, where = "residual added by the product or by the norm behind it", "--residual, llmc/options.h"
    lines = [figures.epilogues.get(f"{name} forward, bias, residual added") for name in ("proj", "fcproj")]
    steps = figures.step_ms("residual", "matmul", 64), figures.step_ms("residual", "norm", 64)
    said, decision = [], "-"
    if None not in lines and None not in (ways := [both_ways(line) for line in lines]) and all(fused for fused, _ in ways):
        fused, apart = (sum(times) for times in zip(*ways))
        said.append(f"products and norms of a layer: {fused:.0f} us by the product, {apart:.0f} us by the norm")
        decision = {"in the product": "matmul", "apart": "norm"}.get(better(fused, apart), "no difference; norm")
    if None not in steps:
        said.append(f"a step at B=64: {steps[0]:.1f} ms by the product, {steps[1]:.1f} ms by the norm")
        decision = by_step(steps[0], steps[1], "matmul", "norm")
    return question, "; ".join(said) or NOT_MEASURED, decision, where


def by_step(one, other, name, standing):
    """The faster; that which is the default where there is no difference."""
    return name if one < other * (1 - SMALL_STEP) else standing


# ---- attention ------------------------------------------------------------------------------------------------------------------------


def winner(line):
    """Of forward and backward together. cuDNN, where it has one of the two alone, is not taken for both."""
    own, cudnn = line["own_forward_us"] + line["own_backward_us"], (line["cudnn_forward_us"], line["cudnn_backward_us"])
    if not all(map(is_time, cudnn)):
        return "own"
    ratio = sum(cudnn) / own
    return "either" if abs(ratio - 1) < SMALL_PRODUCT else "cuDNN" if ratio < 1 else "own"


def attention_case(line):
    theirs = (line["cudnn_forward_us"], line["cudnn_backward_us"])
    ours = (line["own_forward_us"], line["own_backward_us"])
    both = "/".join("-" if not is_time(x) else f"{x:.0f}" for x in theirs)
    return f"T={line['seq_len']} NKV={line['kv_heads']}: own {ours[0]:.0f}/{ours[1]:.0f}, cuDNN {both}"


def attention_rows(figures):
    """One kind for a head size if it wins, or is as good, in every case; else the exceptions are named."""
    rows = []
    for deterministic in (0, 1):
        for size in (32, 64, 96, 128):
            lines = [line for key, line in sorted(figures.attention.items()) if key[0] == size and key[3] == deterministic]
            question = f"attention of heads of {size}{', deterministic' if deterministic else ''}, us forward/backward"
            if not lines:
                rows.append((question, NOT_MEASURED, "-", "`choose`, kernels/attention.cu"))
                continue
            won = [winner(line) for line in lines]
            decided = "cuDNN" if won.count("cuDNN") > won.count("own") else "own"
            exceptions = [line for line, kind in zip(lines, won) if kind not in (decided, "either")]
            if exceptions:
                decided += ", but the other at " + ", ".join(f"T={line['seq_len']} NKV={line['kv_heads']}" for line in exceptions)
            rows.append((question, "; ".join(map(attention_case, lines)), decided, "`choose`, kernels/attention.cu"))
    return rows


# ---- selection and graphs -------------------------------------------------------------------------------------------------------------


def selection_row(figures):
    question, where = "timed selection of algorithms over the library's first choice", "--autotune, llmc/options.h"
    used = [line for line in figures.products.values() if line["times"] and is_time(line.get("first_us")) and is_time(line["best_us"])]
    said, decision = [], "-"
    if used:
        first, best = (sum(line["times"] * line[key] for line in used) for key in ("first_us", "best_us"))
        said.append(f"products of a micro-step: {first / 1e3:.2f} ms first, {best / 1e3:.2f} ms timed ({100 * (1 - best / first):.1f}% less)")
    on, off = figures.step_ms("autotune", "on", 64), figures.step_ms("autotune", "off", 64)
    if on and off:
        said.append(f"a step at B=64: {off:.1f} ms first, {on:.1f} ms timed")
        decision = by_step(on, off, "timed", "first choice: it is no slower, and the same on every run")
    return question, "; ".join(said) or NOT_MEASURED, decision, where


def graphs_rows(figures):
    rows = []
    for batch in (1, 4, 8, 16, 64):
        question, where = f"graphs at B={batch}", "--graphs, llmc/options.h"
        on, off = figures.step_ms("graphs", "on", batch), figures.step_ms("graphs", "off", batch)
        if on and off:
            rows.append((question, f"{on:.1f} ms a step with, {off:.1f} ms without", by_step(off, on, "off", "on"), where))
        else:
            rows.append((question, NOT_MEASURED, "-", where))
    return rows


def table(figures):
    rows = [("question", "measured", "decision", "where the default stands"), ("---",) * 4]
    rows += epilogue_rows(figures) + [bias_gradient_row(figures), residual_row(figures)]
    rows += attention_rows(figures) + [selection_row(figures)] + graphs_rows(figures)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def lines_of(path):
    lines = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                lines.append(json.loads(line))
            except ValueError:
                print(f"gpu_decisions: {path}, line {number} is no JSON and is left out", file=sys.stderr)
    return lines


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        lines = lines_of(sys.argv[1])
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"gpu_decisions: {sys.argv[1]} cannot be read: {error}")
    print(table(Figures(lines)))


if __name__ == "__main__":
    main()
