#!/usr/bin/env python3
"""bench_pytorch.py: training speed of the models of train_gpt in PyTorch, to set beside that of `make bench`.

    python3 dev/bench_pytorch.py --model gpt2-124M --attention flash --pure
    python3 dev/bench_pytorch.py --model baby --device cpu --dtype fp32

Needs PyTorch 2.5 or newer, and for the GPU a build of it with CUDA. One process measures one kind of attention, because compiled code keeps the
kind it was compiled with. The models are plain PyTorch as a careful user would write them: torch.compile over model and loss, so that norms, rotary
positions, activations and the cross-entropy are fused; scaled_dot_product_attention; gradients added up over micro-batches, clipped at norm 1 by
tensor lists; fused AdamW. Nothing within a step waits for the device, and tokens are there before it begins. GPT-2's vocabulary has 50304 rows for
speed, as nanoGPT has it. What a user has to choose is measured in different runs, of which the best counts:

    --pure    bf16 parameters beside fp32 masters, and so bf16 activations, as train_gpt has them (but gradients add up in bf16, where it has fp32).
              Without: autocast over fp32 parameters, which keeps the residual stream and the outputs of the norms in fp32, and casts the weights anew
              in each micro-batch.
    --blocks  compiles one block and uses it for all, as is usual where layers are many: in a fraction of the time, which grows with the layers
              otherwise, but what ends one block and begins the next is not fused.
    --mode    default: products by cuBLAS, the rest by generated kernels. max-autotune-no-cudagraphs: generated products too, where they are
              faster; compiles for minutes. CUDA graphs are not offered: the steps of these models are tens of milliseconds long and keep the GPU's
              queue full.

Tokens are those of bench.c, one for one. If a micro-batch does not fit into a GPU's memory, half of it is tried. Prints one JSON object, with the
names that bench.c uses; attention is the kernel that PyTorch really took, gqa whether it took grouped heads as they are (where it refuses, keys and
values are repeated), memory what it reserved of the device, memory_allocated what tensors had of that at most; clocks, power and temperature are
asked of nvidia-smi, where it is there, while further steps run.

With --serve it makes the variants of the dtype, prints a JSON line that describes them, and then for each line "VARIANT SECONDS" on standard
input takes steps of that variant for so long and prints a JSON line with their times: for bench_peers.py.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

from bench_pytorch_model import GPT, SIZES, attend   # says so where there is no PyTorch, or an old one
from bench_tokens import draw

import torch

KINDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
MODES = ["default", "max-autotune-no-cudagraphs"]
FIRST_LOSSES = 3
CLOCKS = {"clock_mhz": "clocks.sm", "memory_clock_mhz": "clocks.mem", "power_w": "power.draw", "temperature_c": "temperature.gpu"}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=SIZES, default="gpt2-124M")
    p.add_argument("--batch", type=int, help="B, rows in a micro-batch; as suits the model; on a GPU halved until it fits")
    p.add_argument("--seq-len", type=int, help="T, tokens in a row; as suits the model")
    p.add_argument("--total-batch", type=int, help="tokens in an optimizer step; as suits the model")
    p.add_argument("--attention", choices=KINDS, default="flash", help="on a GPU")
    p.add_argument("--steps", type=int, default=10, help="optimizer steps that count; the median is reported")
    p.add_argument("--warm-up", type=int, default=3, help="optimizer steps before them")
    p.add_argument("--no-compile", action="store_true", help="without torch.compile")
    p.add_argument("--blocks", action="store_true", help="compile one block for all, not the model as a whole")
    p.add_argument("--mode", choices=MODES, default="default", help="of torch.compile")
    p.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    p.add_argument("--pure", action="store_true", help="bf16 parameters with fp32 masters in place of autocast")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    p.add_argument("--threads", type=int, help="of the CPU; as PyTorch chooses")
    p.add_argument("--serve", action="store_true", help="measure all variants of the dtype, as told on standard input")
    return p


def draw_tokens(rows, T, V, device):
    """tokens(rows,T) and, one place on, targets(rows,T)."""
    drawn = torch.tensor(draw(rows * T + 1, V), device=device)
    return drawn[:-1].view(rows, T), drawn[1:].view(rows, T)


def kind_of_attention(node):
    """The kind of fused attention in the graph of gradients that ends in node, or math where there is none."""
    found = re.search("ScaledDotProduct(Flash|Cudnn|Efficient)", node.name())
    if found:
        return found[1].lower()
    kinds = [kind_of_attention(before) for before, _ in node.next_functions if before]
    return next((kind for kind in kinds if kind != "math"), "math")


def attention_used(c, size):
    """The kind of kernel that PyTorch takes for the attention of this model, and whether it takes grouped heads. They are repeated where it would
    not, or only with what fuses nothing."""
    dtype, found = torch.bfloat16 if c.dtype == "bf16" else torch.float32, []
    for grouped in [True, False] if size.NKV != size.heads else [True]:
        q, k, v = (torch.zeros(1, n, c.seq_len, size.HS, dtype=dtype, device=c.device, requires_grad=True) for n in (size.heads, size.NKV, size.NKV))
        try:
            y = attend(q, k, v, grouped)
            y.sum().backward()
        except RuntimeError:   # the kernels allowed do not do this
            continue
        found.append((kind_of_attention(y.grad_fn), grouped))
    if not found:
        sys.exit(f"bench_pytorch.py: PyTorch {torch.__version__} has no {c.attention} attention in {c.dtype} for heads of {size.HS} "
                 f"on this {c.device}; choose another --attention")
    return next((way for way in found if way[0] != "math"), found[0])


def make_optimizer(parameters, beta2):
    groups = [
        {"params": [p for p in parameters if p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, beta2), eps=1e-8, fused=True)


class Trainer:
    """A model and what trains it, on the same tokens at every step."""

    def __init__(self, c, compiled, pure):
        self.c, size = c, SIZES[c.model]
        torch.manual_seed(1)
        self.attention, self.grouped = attention_used(c, size)
        self.model = GPT(size, c.seq_len, self.grouped).to(c.device)
        self.parameters = list(self.model.parameters())
        self.masters = self.parameters
        if pure:
            self.masters = [p.detach().clone() for p in self.parameters]
            for p, master in zip(self.parameters, self.masters):
                p.data = p.data.bfloat16()
                master.grad = torch.zeros_like(master)
        self.optimizer = make_optimizer(self.masters, size.beta2)
        self.run = self.model
        if compiled and c.blocks:
            for block in self.model.blocks:
                block.compile(dynamic=False, mode=c.mode)
            self.model.loss = torch.compile(self.model.loss, dynamic=False, mode=c.mode)
        elif compiled:
            self.run = torch.compile(self.model, dynamic=False, mode=c.mode)
        self.autocast = c.dtype == "bf16" and not pure
        self.accum = c.total_batch // (c.batch * c.seq_len)
        self.tokens, self.targets = draw_tokens(self.accum * c.batch, c.seq_len, size.V, c.device)

    def update(self):
        if self.masters is not self.parameters:
            torch._foreach_copy_([m.grad for m in self.masters], [p.grad for p in self.parameters])
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        if self.masters is not self.parameters:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.masters)
        for p in self.parameters:
            p.grad = None

    def step(self):
        """Seconds by the clock, seconds of all cores, and the loss before the update."""
        start, cpu, total = time.perf_counter(), time.process_time(), 0
        for x, y in zip(self.tokens.split(self.c.batch), self.targets.split(self.c.batch)):
            with torch.autocast(self.c.device, dtype=torch.bfloat16, enabled=self.autocast):
                loss = self.run(x, y) / self.accum
            loss.backward()
            total = total + loss.detach()
        self.update()
        if self.c.device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        loss = total.item()
        if not abs(loss) < 1e6:
            sys.exit(f"bench_pytorch.py: the loss became {loss}; the speed of that means nothing")
        return seconds, cpu, loss


def clocks_under_load(step):
    """What nvidia-smi says of the GPU while steps are taken; {} where it is not there or says nothing."""
    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    command = ["nvidia-smi", *([f"--id=GPU-{uuid}"] if uuid else []), "--query-gpu=" + ",".join(CLOCKS.values()), "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return {}
    began = time.perf_counter()
    while process.poll() is None and time.perf_counter() - began < 20:
        step()
    process.kill()
    said = process.communicate()[0].splitlines()
    return {name: float(value) for name, value in zip(CLOCKS, said[0].split(",") if said else []) if re.fullmatch(r" *[0-9.]+ *", value)}


def of_device(c, trainer):
    """What only a GPU has, after the steps that count."""
    if c.device == "cpu":
        return {"memory": None}
    memory = {"memory": torch.cuda.max_memory_reserved(), "memory_allocated": torch.cuda.max_memory_allocated()}
    libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {**memory, **libraries, **clocks_under_load(trainer.step)}


def measure(c):
    trainer = Trainer(c, not c.no_compile, c.pure)
    taken = [trainer.step() for _ in range(c.warm_up + c.steps)]
    seconds = [s for s, _, _ in taken]
    counted = sorted(seconds[c.warm_up :])
    median = statistics.median(counted)
    return {
        "program": "pytorch",
        "model": c.model,
        "device": torch.cuda.get_device_name() if c.device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "attention": trainer.attention,
        "gqa": None if trainer.model.size.NKV == trainer.model.size.heads else "grouped" if trainer.grouped else "repeated",
        "compiled": not c.no_compile,
        "mode": None if c.no_compile else c.mode,
        "blocks": c.blocks,
        "dtype": c.dtype,
        "pure": c.pure,
        "parameters": trainer.model.parameter_count(),
        "flops_per_token": trainer.model.flops_per_token(c.seq_len),
        "batch": c.batch,
        "seq_len": c.seq_len,
        "grad_accum": trainer.accum,
        "tokens_per_step": c.total_batch,
        "tokens_per_s": c.total_batch / median,
        "ms": 1e3 * median,
        "ms_least": 1e3 * counted[0],
        "ms_most": 1e3 * counted[-1],
        "cpu_ms": 1e3 * statistics.mean(cpu for _, cpu, _ in taken[c.warm_up :]),
        "steps": c.steps,
        "warm_up_s": sum(seconds[: c.warm_up]),
        "losses": [loss for _, _, loss in taken[:FIRST_LOSSES]],
        "loss": taken[-1][2],
        **of_device(c, trainer),
    }


def variants(c):
    """name -> (compiled, pure). On a GPU compiled alone: eager takes several times the memory, and would halve the micro-batch of all."""
    every = {"eager": (False, False), "compiled": (True, False)}
    if c.dtype == "bf16":
        every = {"autocast": (False, False), "autocast-compiled": (True, False), "pure": (False, True), "pure-compiled": (True, True)}
    return {name: way for name, way in every.items() if way[0] or c.device == "cpu"}


def serve(c):
    """The first steps of each variant, in which it is compiled, do not count as measured."""
    trainers, about = {}, {}
    for name, (compiled, pure) in variants(c).items():
        trainer = trainers[name] = Trainer(c, compiled, pure)
        taken = [trainer.step() for _ in range(FIRST_LOSSES)]
        about[name] = {"losses": [loss for _, _, loss in taken], "warm_up_s": sum(s for s, _, _ in taken)}
    model = trainer.model
    described = {"torch": torch.__version__, "attention": trainer.attention, "threads": torch.get_num_threads(), "batch": c.batch,
                 "parameters": model.parameter_count()}
    print(json.dumps({**described, "flops_per_token": model.flops_per_token(c.seq_len), "variants": about}), flush=True)
    for line in sys.stdin:
        name, limit = line.split()
        taken, begin = [], time.perf_counter()
        while len(taken) < 2 or time.perf_counter() - begin < float(limit):
            taken.append(trainers[name].step())
        print(json.dumps({"seconds": [s for s, _, _ in taken], "cpu": [cpu for _, cpu, _ in taken]}), flush=True)


def run(c):
    """Under the kind of attention that is asked for."""
    torch.set_float32_matmul_precision("high" if c.device == "cuda" else "highest")
    if c.threads:
        torch.set_num_threads(c.threads)
    work = serve if c.serve else lambda c: print(json.dumps(measure(c)), flush=True)
    if c.device == "cpu":
        return work(c)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, KINDS[c.attention])):
        return work(c)


def completed(c):
    """The options with the model's own shape where they are silent, or exit with a sentence saying what does not fit."""
    size = SIZES[c.model]
    c.batch, c.seq_len, c.total_batch = c.batch or size.batch, c.seq_len or size.seq_len, c.total_batch or size.total
    if c.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"bench_pytorch.py needs a GPU, and PyTorch {torch.__version__} sees none here")
    if min(c.steps, c.batch, c.seq_len) < 1 or c.warm_up < 0:
        sys.exit("--steps, --batch and --seq-len must be at least 1, and --warm-up at least 0")
    if c.total_batch % (c.batch * c.seq_len) or c.total_batch < 1:
        sys.exit(f"--total-batch {c.total_batch} is not a multiple of batch x seq-len = {c.batch * c.seq_len}")
    if c.pure and c.dtype == "fp32":
        sys.exit("--pure is about bf16; leave out --dtype fp32")
    if not size.rope and c.seq_len > size.positions:
        sys.exit(f"--seq-len {c.seq_len} is more than the {size.positions} positions of {c.model}")
    return c


def main():
    c = completed(options().parse_args())
    try:
        run(c)
    except torch.cuda.OutOfMemoryError:
        if c.batch % 2:
            sys.exit(f"bench_pytorch.py: {c.model} does not fit into the memory of this GPU with a micro-batch of {c.batch}")
        print(f"bench_pytorch.py: a micro-batch of {c.batch} does not fit, trying {c.batch // 2}", file=sys.stderr, flush=True)
        # A new process, because this one's memory is in pieces. The last --batch counts.
        os.execv(sys.executable, [sys.executable, *sys.argv, "--batch", str(c.batch // 2)])


if __name__ == "__main__":
    main()
