#!/usr/bin/env python3
"""bench_pytorch.py: training speed of the models of train_gpt in PyTorch, to set beside that of `make bench`.

    python3 dev/bench_pytorch.py --model gpt2-124M --attention flash
    python3 dev/bench_pytorch.py --model baby --device cpu --dtype fp32 --batch 64 --seq-len 128 --total-batch 8192

Needs PyTorch 2.5 or newer, and for the GPU a build of it with CUDA. One process measures one kind of attention, because compiled code keeps the
kind it was compiled with. The models are plain PyTorch as a careful user would write them: torch.compile, fused scaled_dot_product_attention,
fused AdamW, gradients added up over micro-batches and clipped at norm 1. bf16 is autocast over fp32 parameters or, with --pure, parameters in
bf16 beside fp32 masters. GPT-2's vocabulary has 50304 rows for speed, as nanoGPT has it. Tokens are those of bench.c, one for one. If a
micro-batch does not fit into a GPU's memory, half of it is tried. Prints one JSON object, with the names that bench.c uses.

With --serve it makes all variants of the dtype, prints a JSON line that describes them, and then for each line "VARIANT SECONDS" on standard
input takes steps of that variant for so long and prints a JSON line with their times: for bench_peers.py.
"""
import argparse
import json
import math
import os
import statistics
import sys
import time
from typing import NamedTuple

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"bench_pytorch.py needs PyTorch 2.5 or newer, and this Python has none ({error})")
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5):
    sys.exit(f"bench_pytorch.py needs PyTorch 2.5 or newer, and this Python has {torch.__version__}")


class Size(NamedTuple):
    layers: int
    heads: int
    C: int
    V: int
    rows: int             # of the embedding and the head: V, or more for speed
    hidden: int           # of the MLP
    rope: bool = False    # rotary positions, in interleaved pairs; else a learned table
    llama: bool = False   # RMSNorm, SwiGLU, no biases; else LayerNorm, GELU, biases
    tied: bool = True     # the head is the embedding
    beta2: float = 0.95


SIZES = {
    "baby": Size(6, 6, 192, 65, 65, 768, rope=True, beta2=0.99),
    "tinystories-17M": Size(4, 16, 512, 10000, 10000, 1344, rope=True, llama=True, tied=False),
    "gpt2-124M": Size(12, 12, 768, 50257, 50304, 3072),
    "gpt2-350M": Size(24, 16, 1024, 50257, 50304, 4096),
    "gpt2-774M": Size(36, 20, 1280, 50257, 50304, 5120),
    "gpt2-1558M": Size(48, 25, 1600, 50257, 50304, 6400),
    "tiny": Size(2, 2, 64, 257, 257, 256),
}
LONGEST = 1024   # rows of a learned table of positions
KINDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
FIRST_LOSSES = 3


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=SIZES, default="gpt2-124M")
    p.add_argument("--batch", type=int, default=64, help="B, rows in a micro-batch; on a GPU halved until it fits")
    p.add_argument("--seq-len", type=int, default=1024, help="T, tokens in a row")
    p.add_argument("--total-batch", type=int, default=524288, help="tokens in an optimizer step")
    p.add_argument("--attention", choices=KINDS, default="flash", help="on a GPU")
    p.add_argument("--steps", type=int, default=10, help="optimizer steps that count; the median is reported")
    p.add_argument("--warm-up", type=int, default=3, help="optimizer steps before them")
    p.add_argument("--no-compile", action="store_true", help="without torch.compile")
    p.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    p.add_argument("--pure", action="store_true", help="bf16 parameters with fp32 masters in place of autocast")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    p.add_argument("--threads", type=int, help="of the CPU; as PyTorch chooses")
    p.add_argument("--serve", action="store_true", help="measure all variants of the dtype, as told on standard input")
    return p


def rotations(T, HS):
    """cos and sin (T, HS/2) of t * 10000^(-2i/HS)."""
    angles = torch.arange(T)[:, None] * 10000 ** (-torch.arange(0, HS, 2) / HS)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x(B, heads, T, HS), its pairs (2i, 2i+1) turned, in fp32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(x)


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, C, bias = size, size.C, not size.llama
        norm = nn.RMSNorm if size.llama else nn.LayerNorm
        self.ln1, self.ln2 = norm(C, eps=1e-5), norm(C, eps=1e-5)
        self.qkv, self.proj = nn.Linear(C, 3 * C, bias), nn.Linear(C, C, bias)
        self.fc, self.fcproj = nn.Linear(C, (2 if size.llama else 1) * size.hidden, bias), nn.Linear(size.hidden, C, bias)

    def attention(self, x, turns):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.size.heads, C // self.size.heads).permute(2, 0, 3, 1, 4)
        if turns is not None:
            q, k = rotate(q, *turns), rotate(k, *turns)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def mlp(self, x):
        if not self.size.llama:
            return self.fcproj(F.gelu(self.fc(x), approximate="tanh"))
        gate, up = self.fc(x).chunk(2, -1)
        return self.fcproj(F.silu(gate) * up)

    def forward(self, x, turns):
        x = x + self.attention(self.ln1(x), turns)
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, C = size, size.C
        self.wte = nn.Embedding(size.rows, C)
        self.head = nn.Linear(C, size.rows, bias=False)
        if size.tied:
            self.head.weight = self.wte.weight
        if size.rope:
            for name, table in zip(("cos", "sin"), rotations(LONGEST, C // size.heads)):
                self.register_buffer(name, table)
        else:
            self.wpe = nn.Embedding(LONGEST, C)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.lnf = (nn.RMSNorm if size.llama else nn.LayerNorm)(C, eps=1e-5)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / (2 * size.layers) ** 0.5 if "proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, targets):
        x, turns, T = self.wte(tokens), None, tokens.shape[1]
        if self.size.rope:
            turns = self.cos[:T], self.sin[:T]
        else:
            x = x + self.wpe.weight[:T]
        for block in self.blocks:
            x = block(x, turns)
        return F.cross_entropy(self.head(self.lnf(x)).float().flatten(0, 1), targets.flatten())

    def parameter_count(self):
        """Without the rows that pad the vocabulary."""
        padding = (self.size.rows - self.size.V) * self.size.C * (1 if self.size.tied else 2)
        return sum(p.numel() for p in self.parameters()) - padding

    def flops_per_token(self, T):
        """6 for each parameter in matrix products, and attention."""
        in_blocks = sum(p.numel() for p in self.blocks.parameters() if p.dim() == 2)
        return 6 * (in_blocks + self.size.V * self.size.C) + 6 * self.size.layers * self.size.C * T


def draw_tokens(rows, T, V, device):
    """tokens(rows,T) and, one place on, targets(rows,T): token k as often as 1/(k+1), by the generator of bench.c (Marsaglia's xorshift)."""
    state, drawn, mask = 88172645463325252, [], (1 << 64) - 1
    for _ in range(rows * T + 1):
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        drawn.append(int(math.pow(V, (state >> 11) * 2.0**-53)) - 1)
    drawn = torch.tensor(drawn, device=device)
    return drawn[:-1].view(rows, T), drawn[1:].view(rows, T)


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
        self.model = GPT(size).to(c.device)
        self.parameters = list(self.model.parameters())
        self.masters = self.parameters
        if pure:
            self.masters = [p.detach().clone() for p in self.parameters]
            for p, master in zip(self.parameters, self.masters):
                p.data = p.data.bfloat16()
                master.grad = torch.zeros_like(master)
        self.optimizer = make_optimizer(self.masters, size.beta2)
        self.run = torch.compile(self.model, dynamic=False) if compiled else self.model
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
        "attention": c.attention,
        "compiled": not c.no_compile,
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
        "memory": torch.cuda.max_memory_reserved() if c.device == "cuda" else None,
        "losses": [loss for _, _, loss in taken[:FIRST_LOSSES]],
        "loss": taken[-1][2],
    }


def variants(dtype):
    """name -> (compiled, pure)"""
    if dtype == "fp32":
        return {"eager": (False, False), "compiled": (True, False)}
    return {"autocast": (False, False), "autocast-compiled": (True, False), "pure": (False, True), "pure-compiled": (True, True)}


def serve(c):
    """The first steps of each variant, in which it is compiled, do not count as measured."""
    trainers, about = {}, {}
    for name, (compiled, pure) in variants(c.dtype).items():
        trainer = trainers[name] = Trainer(c, compiled, pure)
        taken = [trainer.step() for _ in range(FIRST_LOSSES)]
        about[name] = {"losses": [loss for _, _, loss in taken], "warm_up_s": sum(s for s, _, _ in taken)}
    model = trainer.model
    described = {"torch": torch.__version__, "threads": torch.get_num_threads(), "batch": c.batch, "parameters": model.parameter_count()}
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


def main():
    c = options().parse_args()
    if c.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"bench_pytorch.py needs a GPU, and PyTorch {torch.__version__} sees none here")
    if c.steps < 1 or c.batch < 1:
        sys.exit("--steps and --batch must be at least 1")
    if c.total_batch % (c.batch * c.seq_len):
        sys.exit(f"--total-batch {c.total_batch} is not a multiple of batch x seq-len = {c.batch * c.seq_len}")
    if c.pure and c.dtype == "fp32":
        sys.exit("--pure is about bf16; leave out --dtype fp32")
    if c.seq_len > LONGEST:
        sys.exit(f"--seq-len {c.seq_len} is more than the {LONGEST} positions of these models")
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
