#!/usr/bin/env python3
"""bench_pytorch.py: training speed of GPT-2 in PyTorch, to set beside that of `make bench`.

    python3 dev/bench_pytorch.py --model gpt2-124M --attention flash
    python3 dev/bench_pytorch.py --model gpt2-124M --attention cudnn

Needs PyTorch 2.5 or newer with CUDA, and a GPU. One process measures one kind of attention, because compiled code keeps the kind it was
compiled with. The model is plain PyTorch as a careful user would write it: fp32 parameters under bf16 autocast, torch.compile, fused
scaled_dot_product_attention, fused AdamW, gradients added up over micro-batches and clipped at norm 1, the vocabulary padded to a multiple of
128 for speed. Tokens are random, token k as often as 1/(k+1), as bench.c draws them. If a micro-batch does not fit into memory, half of it
is tried. Prints one JSON object, with the names that bench.c uses.
"""
import argparse
import json
import os
import statistics
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"bench_pytorch.py needs PyTorch 2.5 or newer, and this Python has none ({error})")

# layers, heads, channels, vocabulary
SIZES = {
    "gpt2-124M": (12, 12, 768, 50257),
    "gpt2-350M": (24, 16, 1024, 50257),
    "gpt2-774M": (36, 20, 1280, 50257),
    "gpt2-1558M": (48, 25, 1600, 50257),
    "tiny": (2, 2, 64, 257),
}
KINDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=SIZES, default="gpt2-124M")
    p.add_argument("--batch", type=int, default=64, help="B, rows in a micro-batch; halved until it fits")
    p.add_argument("--seq-len", type=int, default=1024, help="T, tokens in a row")
    p.add_argument("--total-batch", type=int, default=524288, help="tokens in an optimizer step")
    p.add_argument("--attention", choices=KINDS, default="flash")
    p.add_argument("--steps", type=int, default=10, help="optimizer steps that count; the median is reported")
    p.add_argument("--warm-up", type=int, default=3, help="optimizer steps before them")
    p.add_argument("--no-compile", action="store_true", help="without torch.compile")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the script out")
    return p


class Block(nn.Module):
    def __init__(self, heads, C):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.fcproj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def attention(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.fcproj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, layers, heads, C, V, T):
        super().__init__()
        self.padding = -V % 128
        self.wte, self.wpe = nn.Embedding(V + self.padding, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block(heads, C) for _ in range(layers))
        self.lnf = nn.LayerNorm(C)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / (2 * layers) ** 0.5 if "proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.lnf(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def parameter_count(self):
        """As GPT-2 counts them: without the rows that pad the vocabulary."""
        return sum(p.numel() for p in self.parameters()) - self.padding * self.wte.weight.shape[1]


def draw_tokens(rows, T, V, device):
    """tokens(rows,T) and, one place on, targets(rows,T)."""
    uniform = torch.rand(rows * T + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = (V**uniform - 1).long().to(device)
    return drawn[:-1].view(rows, T), drawn[1:].view(rows, T)


def make_optimizer(model, fused):
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, **({"fused": True} if fused else {}))


def timed_steps(c, model, synchronize):
    """Seconds of each optimizer step, those to warm up included, and the last loss."""
    _, _, _, V = SIZES[c.model]
    accum = c.total_batch // (c.batch * c.seq_len)
    optimizer = make_optimizer(model, fused=c.device == "cuda")
    run = model if c.no_compile else torch.compile(model, dynamic=False)
    tokens, targets = draw_tokens(accum * c.batch, c.seq_len, V, c.device)
    seconds = []
    for _ in range(c.warm_up + c.steps):
        start = time.perf_counter()
        for x, y in zip(tokens.split(c.batch), targets.split(c.batch)):
            with torch.autocast(c.device, dtype=torch.bfloat16):
                loss = run(x, y) / accum
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds, loss.item() * accum


def measure(c):
    layers, heads, C, V = SIZES[c.model]
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    cuda = c.device == "cuda"
    model = GPT2(layers, heads, C, V, c.seq_len).to(c.device)
    if cuda:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, KINDS[c.attention])):
            seconds, loss = timed_steps(c, model, torch.cuda.synchronize)
    else:
        seconds, loss = timed_steps(c, model, lambda: None)
    if not abs(loss) < 1e6:
        sys.exit(f"bench_pytorch.py: the loss became {loss}; the speed of that means nothing")
    counted = sorted(seconds[c.warm_up :])
    median = statistics.median(counted)
    return {
        "program": "pytorch",
        "model": c.model,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "attention": c.attention,
        "compiled": not c.no_compile,
        "dtype": "bf16",
        "parameters": model.parameter_count(),
        "batch": c.batch,
        "seq_len": c.seq_len,
        "grad_accum": c.total_batch // (c.batch * c.seq_len),
        "tokens_per_step": c.total_batch,
        "tokens_per_s": c.total_batch / median,
        "ms": 1e3 * median,
        "ms_least": 1e3 * counted[0],
        "ms_most": 1e3 * counted[-1],
        "steps": c.steps,
        "warm_up_s": sum(seconds[: c.warm_up]),
        "memory": torch.cuda.max_memory_reserved() if cuda else None,
        "loss": loss,
    }


def main():
    c = options().parse_args()
    if c.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"bench_pytorch.py needs a GPU, and PyTorch {torch.__version__} sees none here")
    if c.total_batch % (c.batch * c.seq_len):
        sys.exit(f"--total-batch {c.total_batch} is not a multiple of batch x seq-len = {c.batch * c.seq_len}")
    if c.steps < 1 or c.batch < 1:
        sys.exit("--steps and --batch must be at least 1")
    try:
        print(json.dumps(measure(c)), flush=True)
    except torch.cuda.OutOfMemoryError:
        if c.batch % 2:
            sys.exit(f"bench_pytorch.py: {c.model} does not fit into the memory of this GPU with a micro-batch of {c.batch}")
        print(f"bench_pytorch.py: a micro-batch of {c.batch} does not fit, trying {c.batch // 2}", file=sys.stderr, flush=True)
        # A new process, because this one's memory is in pieces. The last --batch counts.
        os.execv(sys.executable, [sys.executable, *sys.argv, "--batch", str(c.batch // 2)])


if __name__ == "__main__":
    main()
