#!/usr/bin/env python3
"""reference.py: what PyTorch computes for a small GPT, written down for test_gpt to compare with.

    python3 dev/reference.py --out dev/reference                 the committed set: one file for each line of SET below
    python3 dev/reference.py --out my.safetensors --n-layer 3 --pos rope --n-kv-head 2 ...      one dump of your own
    ./test_gpt my.safetensors

Needs numpy and PyTorch 1.13 or newer (on Debian: python3-torch) and nothing else. A dump is a safetensors file.

Metadata (strings): n_layer n_head n_kv_head head_size n_embd n_hidden vocab_size max_seq_len seq_len batch grad_accum pos rope_base
rope_layout norm norm_place qk_norm norm_eps activation bias qkv_bias tie dropout lr beta1 beta2 eps weight_decay grad_clip steps seed
precision torch, and bf16_names (see below); where RoPE is scaled also rope_scaling rope_factor rope_original_len rope_low_freq
rope_high_freq. Tensors, all F32 but for the tokens and targets, which are I32; N = grad_accum * batch rows,
of which micro-step g takes rows g*batch to (g+1)*batch - 1; T = seq_len, V = vocab_size:

    tokens (N,T), targets (N,T)       a target of -1 counts for nothing
    param.NAME                        initial parameters
    grad.NAME                         gradients, before clipping, of the mean loss over the valid targets of all N rows, at step 0
    logits (n,T,V)                    of the first n rows (all of them unless --logit-rows says otherwise), initial parameters
    token_losses (N,T)                initial parameters; 0 where masked
    losses (steps), norms (steps)     at each of the AdamW steps on this same batch: mean loss, and gradient norm before clipping
    after.NAME                        parameters after those steps

NAME is Hugging Face's GPT-2 name, matrices lie as GPT-2's do (inputs by outputs), and c_attn's columns are all query heads, then all
key heads, then all value heads. lm_head.weight exists only when untied, transformer.wpe.weight only with learned positions, ln_f only
with norms before the branches, no ln_ at all with norm none. With swiglu mlp.c_fc has 2 * n_hidden columns, the gate's first. QK-norm
adds attn.q_norm.weight and attn.k_norm.weight of one head's size.

Dropout acts in training, so on all but logits and token_losses. Its masks are part of the definition: element `index` of a site is
dropped at `step` (0, 1, ...) if a 32-bit number is below dropout * 2^32, and otherwise divided by 1 - dropout. The number is word
index % 4 of Philox4x32-10 (Salmon et al. 2011) keyed by `seed` at the counter (index / 4 low, index / 4 high, step, site). Layer l has
the sites 3l (attention probabilities, after the softmax, in the order N, query heads, queries, keys), 3l + 1 and 3l + 2 (what attention
and the MLP add to the residual stream: N, T, channels); site 3 * n_layer is the embeddings' sum (N, T, channels).

All of this is computed in double precision (--precision float: in single) from initial parameters that are exact floats, and stored
as floats. Initial values are larger than a training run's, so that no gradient, attention score or bias is too small to matter.

The bf16 errors say how far PyTorch's own bf16 model (parameters, activations and gradients bf16; softmax, norm statistics and loss
fp32; matrix products summed in fp32; micro-steps added in fp32; fp32 master weights) is from the above. Error means norm of the
difference over norm of the reference. One draw of rounding errors is no yardstick: on a bias of 16 elements other draws reach more than
twice as far. So each number is the largest of --bf16-runs runs, all but the first with parameters changed at random by up to 1/256
and compared with their own double-precision results:

    bf16.error.logits (1), bf16.error.losses (1)    of `logits` and of `token_losses`
    bf16.error.grad (n)                             of each gradient, in the order of the metadata's bf16_names (comma-separated)
    bf16.error.after (1)                            of what the AdamW steps did: the norm of the difference between the parameters
                                                    after them, over the norm of (after - param), all parameters taken together

With neither RoPE nor QK-norm the attention does not depend on the key bias, which adds the same to all scores of a query: its gradient
is zero in theory and noise in practice. There the key part of c_attn.bias is left out of its errors, and test_gpt leaves it out too.
"""
import argparse
import functools
import itertools
import json
import math
import os
import shlex
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F

# AdamW divides by its gradients: with the default epsilon an element whose gradient is zero but for rounding goes anywhere.
STEADY = "--eps 1e-6"

# The committed dumps, and with them a table of pairs, below. What is not said is a flag's default.
SET = {
    "learned": "--n-head 4 --n-embd 32 --max-seq-len 24 --vocab-size 65",
    "rope_interleaved": "--pos rope --grad-clip 0 --weight-decay 0 --beta2 0.95",
    "rope_half": "--pos rope --rope-layout half --rope-base 500 --grad-clip 0.5 --eps 1e-3 --norm-eps 1e-3",
    "none_pos": "--pos none",
    "untied": "--tie 0",
    "no_bias": "--bias 0",
    "no_bias_rope": "--bias 0 --pos rope --tie 0",
    "masked": "--batch 2 --grad-accum 2 --masked 0.4",
    "accum1": "--batch 4 --grad-accum 1 --seed 7",
    "accum4": "--batch 1 --grad-accum 4 --seed 7",
    "odd": "--n-layer 1 --n-head 3 --n-embd 24 --n-hidden 40 --seq-len 37 --max-seq-len 37 --vocab-size 65",
    "head32": "--n-layer 1 --head-size 32 --seq-len 131 --batch 1 --pos rope --rope-layout half",
    "head64": "--n-layer 1 --head-size 64 --seq-len 150 --max-seq-len 151 --batch 1",
    "gqa": "--n-head 4 --n-kv-head 2 --head-size 8 --pos rope",
    "mqa": "--n-head 3 --n-kv-head 1 --head-size 8",
    "gelu_erf": "--activation gelu-erf",
    "relu": "--activation relu --batch 4 --seq-len 40",
    # shapes of whole tiles and more, and shapes that fit nothing
    "rmsnorm_gqa64": f"{STEADY} --n-layer 1 --norm rmsnorm --activation swiglu --n-hidden 72 --pos rope --rope-layout half --n-kv-head 1 "
                     "--head-size 64 --seq-len 70 --batch 1 --steps 4",
    "qk_norm64": f"{STEADY} --n-layer 1 --qk-norm 1 --pos rope --head-size 64 --seq-len 70 --batch 1 --norm-eps 1e-3 --steps 4",
    "qk_norm128": f"{STEADY} --n-layer 1 --n-embd 8 --qk-norm 1 --n-kv-head 1 --head-size 128 --seq-len 66 --batch 1 --steps 4",
    "dropout64": f"{STEADY} --n-layer 1 --dropout 0.1 --head-size 64 --seq-len 131 --batch 1 --grad-accum 2 --logit-rows 1 --steps 4 "
                 "--seed 1099511627777",
    "odd_all": f"{STEADY} --n-head 3 --n-kv-head 1 --n-embd 21 --n-hidden 37 --activation swiglu --norm rmsnorm --qk-norm 1 --dropout 0.3 "
               "--seq-len 37 --max-seq-len 41 --vocab-size 65 --logit-rows 1 --steps 4",
    # the families
    "llama": f"{STEADY} --norm rmsnorm --activation swiglu --bias 0 --pos rope --rope-layout half --rope-base 500000 --tie 0 "
             "--n-embd 24 --n-head 4 --n-kv-head 2 --n-hidden 40",
    "qwen2": f"{STEADY} --norm rmsnorm --activation swiglu --bias 0 --qkv-bias 1 --pos rope --rope-layout half --rope-base 1000000 "
             "--norm-eps 1e-6 --n-embd 24 --n-head 4 --n-kv-head 2 --n-hidden 40",
    "qwen3": f"{STEADY} --norm rmsnorm --activation swiglu --bias 0 --qk-norm 1 --pos rope --rope-layout half --rope-base 1000000 "
             "--norm-eps 1e-6 --n-embd 24 --n-head 4 --n-kv-head 2 --head-size 8 --n-hidden 40",
    # positions to three times the original context: of a head's 8 pairs some keep their speed, some are slowed, and some are between
    "llama3": f"{STEADY} --n-layer 1 --norm rmsnorm --activation swiglu --bias 0 --pos rope --rope-layout half --rope-base 100 "
              "--rope-scaling llama3 --rope-factor 3 --rope-original-len 8 --rope-low-freq 0.2 --rope-high-freq 1 --n-head 2 --n-kv-head 1 "
              "--n-embd 24 --head-size 16 --n-hidden 40 --seq-len 24",
    "yarn": f"{STEADY} --pos rope --rope-base 100 --rope-scaling yarn --rope-factor 3 --rope-original-len 8 --rope-low-freq 0.2 "
            "--rope-high-freq 1 --n-head 2 --n-kv-head 1 --head-size 16 --seq-len 24",
    "tinystories": f"{STEADY} --norm rmsnorm --activation swiglu --bias 0 --pos rope --tie 0 --n-embd 24 --n-head 3 --n-hidden 42",
}

# Every value of every switch, to meet every value of every other switch in some dump of the table.
SWITCHES = [
    ["--norm layernorm", "--norm rmsnorm", "--norm layernorm --norm-place post", "--norm rmsnorm --norm-place post", "--norm none"],
    ["--pos learned", "--pos rope", "--pos rope --rope-layout half", "--pos none"],
    ["--n-head 2", "--n-head 4 --n-kv-head 2", "--n-head 4 --n-kv-head 1"],
    ["", "--head-size 6"],
    ["--qk-norm 0", "--qk-norm 1"],
    ["--bias 1", "--bias 0 --qkv-bias 1", "--bias 0"],
    ["--tie 1", "--tie 0"],
    ["--activation " + name for name in ("gelu", "gelu-erf", "relu --batch 6", "silu", "relu2", "swiglu")],   # rows even out relu's jumps
    ["", "--dropout 0.2"],
    ["--grad-accum 1", "--grad-accum 2"],
    ["", "--masked 0.2"],
]
PAIR_SHAPES = f"{STEADY} --n-hidden 24 --seq-len 18 --batch 3 --logit-rows 2 --steps 4"


def pairwise(sizes):
    """Rows of one value (0 to sizes[i] - 1) for each switch i, in which every two values of every two switches meet. Each row begins
    with the first pair still missing and goes on, largest switch first, with the value that brings most of the missing pairs, or among
    such the least used."""
    def pair(a, b):
        return min(a, b), max(a, b)

    def worth(row, i, value):
        return sum(pair((i, value), other) in missing for other in row.items()), -sum(done[i] == value for done in rows)
    places = [(i, value) for i, size in enumerate(sizes) for value in range(size)]
    missing = {(a, b) for a, b in itertools.combinations(places, 2) if a[0] != b[0]}
    rows = []
    while missing:
        row = dict(min(missing))
        for i in sorted(set(range(len(sizes))) - set(row), key=lambda i: -sizes[i]):
            row[i] = max(range(sizes[i]), key=lambda value: worth(row, i, value))
        missing -= {pair(a, b) for a, b in itertools.combinations(row.items(), 2)}
        rows.append([row[i] for i in range(len(sizes))])
    return rows


for number, row in enumerate(pairwise([len(values) for values in SWITCHES]), 1):
    SET[f"pair_{number:02}"] = " ".join([PAIR_SHAPES, f"--seed {number}"] + [values[k] for values, k in zip(SWITCHES, row) if values[k]])


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True, help="FILE.safetensors for one dump, or a directory for the committed set")
    p.add_argument("--n-layer", type=int, default=2)
    p.add_argument("--n-head", type=int, default=2)
    p.add_argument("--n-kv-head", type=int, default=0, help="default: n-head")
    p.add_argument("--head-size", type=int, default=0, help="default: n-embd / n-head")
    p.add_argument("--n-embd", type=int, default=16)
    p.add_argument("--n-hidden", type=int, default=0, help="width of the MLP; default: 2 * n-embd")
    p.add_argument("--vocab-size", type=int, default=33)
    p.add_argument("--seq-len", type=int, default=20)
    p.add_argument("--max-seq-len", type=int, default=0, help="default: seq-len")
    p.add_argument("--batch", type=int, default=3, help="rows of a micro-step")
    p.add_argument("--grad-accum", type=int, default=1, help="micro-steps of an optimizer step")
    p.add_argument("--pos", choices=["learned", "rope", "none"], default="learned")
    p.add_argument("--rope-base", type=float, default=10000.0)
    p.add_argument("--rope-layout", choices=["interleaved", "half"], default="interleaved")
    p.add_argument("--rope-scaling", choices=["none", "linear", "llama3", "yarn"], default="none")
    p.add_argument("--rope-factor", type=float, default=0.0, help="how many times as long the context becomes")
    p.add_argument("--rope-original-len", type=int, default=0, help="llama3, yarn: the context before")
    p.add_argument("--rope-low-freq", type=float, default=0.0, help="llama3, yarn: turns in it below which a pair is slowed by the whole factor")
    p.add_argument("--rope-high-freq", type=float, default=0.0, help="llama3, yarn: turns in it above which a pair is not slowed")
    p.add_argument("--norm", choices=["layernorm", "rmsnorm", "none"], default="layernorm")
    p.add_argument("--norm-place", choices=["pre", "post"], default="pre", help="x + f(norm(x)), with a final norm; or norm(x + f(x))")
    p.add_argument("--qk-norm", type=int, choices=[0, 1], default=0, help="RMSNorm of each query and key head, before RoPE")
    p.add_argument("--norm-eps", type=float, default=1e-5)
    p.add_argument("--activation", choices=["gelu", "gelu-erf", "relu", "silu", "relu2", "swiglu"], default="gelu")
    p.add_argument("--bias", type=int, choices=[0, 1], default=1)
    p.add_argument("--qkv-bias", type=int, choices=[0, 1], default=0, help="with --bias 0: still a bias on c_attn")
    p.add_argument("--tie", type=int, choices=[0, 1], default=1)
    p.add_argument("--dropout", type=float, default=0.0)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--beta1", type=float, default=0.9)
    p.add_argument("--beta2", type=float, default=0.999)
    p.add_argument("--eps", type=float, default=1e-8)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--grad-clip", type=float, default=1.0, help="0: never")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--masked", type=float, default=0.0, help="share of the targets set to -1; above 0 the last row is masked whole")
    p.add_argument("--logit-rows", type=int, default=0, help="store the logits of this many rows only; default: all")
    p.add_argument("--bf16-runs", type=int, default=16, help="runs that the bf16 errors are the largest of")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--precision", choices=["double", "float"], default="double")
    return p


def completed(c):
    """The options with their dependent defaults filled in, or exit with a sentence saying what does not fit."""
    c.n_kv_head = c.n_kv_head or c.n_head
    if not c.head_size and c.n_embd % c.n_head:
        sys.exit(f"--n-head {c.n_head} does not divide --n-embd {c.n_embd}: give --head-size")
    c.head_size = c.head_size or c.n_embd // c.n_head
    c.n_hidden = c.n_hidden or 2 * c.n_embd
    c.max_seq_len = c.max_seq_len or c.seq_len
    if c.n_head % c.n_kv_head:
        sys.exit(f"--n-kv-head {c.n_kv_head} does not divide --n-head {c.n_head}")
    if c.norm == "none" and c.norm_place == "post":
        sys.exit("--norm none leaves nothing to place: leave --norm-place out")
    if c.pos == "rope" and c.head_size % 2:
        sys.exit(f"RoPE turns pairs: --head-size {c.head_size} must be even")
    if c.rope_scaling != "none" and (c.pos != "rope" or c.rope_factor < 1):
        sys.exit(f"--rope-scaling {c.rope_scaling} wants --pos rope and a --rope-factor of 1 or more")
    if c.rope_scaling in ("llama3", "yarn") and not (c.rope_original_len > 0 and 0 < c.rope_low_freq < c.rope_high_freq):
        sys.exit(f"--rope-scaling {c.rope_scaling} wants --rope-original-len, and --rope-low-freq below --rope-high-freq")
    if c.seq_len < 2:
        sys.exit(f"--seq-len {c.seq_len} gives queries and keys no gradient: at least 2")
    if c.seq_len > c.max_seq_len:
        sys.exit(f"--seq-len {c.seq_len} is beyond --max-seq-len {c.max_seq_len}")
    if not 0 <= c.dropout <= 0.95:
        sys.exit(f"--dropout {c.dropout} should lie in 0 to 0.95")
    return c


# ---- parameters and data

def initial_parameters(c, rng):
    """NAME -> float32 array, matrices inputs by outputs (the embeddings and the head rows by channels)."""
    C, D, KV = c.n_embd, c.n_head * c.head_size, c.n_kv_head * c.head_size
    p = {}

    def normal(name, shape, scale, mean=0.0):
        p[name] = (mean + scale * rng.standard_normal(shape)).astype(np.float32)

    def matrix(name, inputs, outputs, bias=c.bias):
        normal(name + ".weight", (inputs, outputs), 0.8 / math.sqrt(inputs))
        if bias:
            normal(name + ".bias", outputs, 0.1)

    def norm(name):
        if c.norm == "none":
            return
        normal(name + ".weight", C, 0.1, mean=1.0)
        if c.bias and c.norm == "layernorm":
            normal(name + ".bias", C, 0.1)

    louder = 2 if c.norm == "none" else 1.5 if c.norm_place == "post" else 1   # where no norm brings what enters block 0 to size
    normal("transformer.wte.weight", (c.vocab_size, C), 0.3 * louder)
    if c.pos == "learned":
        normal("transformer.wpe.weight", (c.max_seq_len, C), 0.2 * louder)
    for i in range(c.n_layer):
        h = f"transformer.h.{i}."
        norm(h + "ln_1")
        matrix(h + "attn.c_attn", C, D + 2 * KV, c.bias or c.qkv_bias)
        if c.qk_norm:
            normal(h + "attn.q_norm.weight", c.head_size, 0.1, mean=1.0)
            normal(h + "attn.k_norm.weight", c.head_size, 0.1, mean=1.0)
        matrix(h + "attn.c_proj", D, C)
        norm(h + "ln_2")
        matrix(h + "mlp.c_fc", C, c.n_hidden * (2 if c.activation == "swiglu" else 1))
        matrix(h + "mlp.c_proj", c.n_hidden, C)
    if c.norm_place == "pre":
        norm("transformer.ln_f")
    if not c.tie:
        normal("lm_head.weight", (c.vocab_size, C), 0.3)
    return p


def batch(c, rng):
    """tokens and targets (N,T), each target the token after, some of them masked."""
    N = c.grad_accum * c.batch
    stream = rng.integers(0, c.vocab_size, (N, c.seq_len + 1))
    tokens, targets = stream[:, :-1].copy(), stream[:, 1:].copy()
    targets[rng.random(targets.shape) < c.masked] = -1
    if c.masked > 0:
        targets[-1] = -1
    return torch.from_numpy(tokens), torch.from_numpy(targets)


# ---- dropout's masks

ATTENTION, ATTENTION_BRANCH, MLP_BRANCH, SITES = 0, 1, 2, 3
WORD = np.uint64(0xFFFFFFFF)


def random_bits(seed, step, site, index):
    """Word index % 4 of Philox4x32-10 keyed by seed at the counter (index / 4, step, site), for an array of indices."""
    block = index >> np.uint64(2)
    counter = [block & WORD, block >> np.uint64(32), np.full_like(index, step), np.full_like(index, site)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [(b >> np.uint64(32)) ^ counter[1] ^ np.uint64(key[0]), b & WORD,
                   (a >> np.uint64(32)) ^ counter[3] ^ np.uint64(key[1]), a & WORD]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.choose((index & np.uint64(3)).astype(np.int64), counter)


@functools.lru_cache(maxsize=None)
def kept(seed, p, step, site, sample, shape):
    """1 where an element of a tensor stays and 0 where it is dropped. The tensor's first row is row `sample` of the global batch."""
    index = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(sample * math.prod(shape[1:]))
    return torch.from_numpy(random_bits(seed, step, site, index) >= np.uint64(float(np.float32(p)) * 2 ** 32)).view(shape)


# ---- the model, from its formulas

def frequencies(c):
    """base^(-2i/HS) of each pair, scaled: linear after Chen et al. 2023; llama3 by wavelengths, as Llama 3.1's own code has it; yarn after Peng
    et al. 2023, with a ramp between whole pairs."""
    HS, base = c.head_size, c.rope_base
    plain = base ** (-2 * torch.arange(HS // 2, dtype=torch.float64) / HS)
    if c.rope_scaling == "none":
        return plain
    slow = plain / c.rope_factor
    if c.rope_scaling == "linear":
        return slow
    if c.rope_scaling == "llama3":
        wavelength = 2 * math.pi / plain
        smooth = (c.rope_original_len / wavelength - c.rope_low_freq) / (c.rope_high_freq - c.rope_low_freq)
        between = (1 - smooth) * slow + smooth * plain
        longest, shortest = c.rope_original_len / c.rope_low_freq, c.rope_original_len / c.rope_high_freq
        return torch.where(wavelength > longest, slow, torch.where(wavelength < shortest, plain, between))

    def pair_that_turns(times):
        return HS * math.log(c.rope_original_len / (2 * math.pi * times)) / (2 * math.log(base))
    first = max(math.floor(pair_that_turns(c.rope_high_freq)), 0)
    last = min(math.ceil(pair_that_turns(c.rope_low_freq)), HS - 1)
    slowed = torch.clamp((torch.arange(HS // 2, dtype=torch.float64) - first) / max(last - first, 0.001), 0, 1)
    return slowed * slow + (1 - slowed) * plain


class Model:
    """A GPT. `full` is the type that sums, norms, softmax and loss are computed in; whatever lies between two ops is rounded to
    `stored`. With both the same this is the plain model; with float32 and bfloat16 it is the bf16 model."""

    def __init__(self, c, parameters, full, stored):
        self.c, self.full, self.stored = c, full, stored
        self.p = {name: value.to(stored, copy=True).requires_grad_() for name, value in parameters.items()}
        self.step = self.sample = None   # of training; no step: evaluation, without dropout

    def parameter(self, name):
        return self.p[name].to(self.full) if name in self.p else None

    def dropout(self, x, site):
        c = self.c
        if self.step is None or c.dropout == 0:
            return x
        mask = kept(c.seed, c.dropout, self.step, site, self.sample, tuple(x.shape))
        return (x.to(self.full) * mask.to(self.full) / (1 - c.dropout)).to(self.stored)

    def linear(self, x, name):
        y, bias = x.to(self.full) @ self.parameter(name + ".weight"), self.parameter(name + ".bias")
        return (y if bias is None else y + bias).to(self.stored)

    def rmsnorm(self, x, name):
        """x / sqrt(mean of x^2 + eps) * w"""
        x = x.to(self.full)
        return (x / torch.sqrt((x ** 2).mean(-1, keepdim=True) + self.c.norm_eps) * self.parameter(name + ".weight")).to(self.stored)

    def layernorm(self, x, name):
        """(x - mean) / sqrt(variance + eps) * w + b, the variance over n, not n - 1."""
        x, bias = x.to(self.full), self.parameter(name + ".bias")
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt((centred ** 2).mean(-1, keepdim=True) + self.c.norm_eps) * self.parameter(name + ".weight")
        return (y if bias is None else y + bias).to(self.stored)

    def norm(self, x, name):
        return {"layernorm": self.layernorm, "rmsnorm": self.rmsnorm, "none": lambda x, name: x}[self.c.norm](x, name)

    def activation(self, x):
        kind = "silu" if self.c.activation == "swiglu" else self.c.activation
        if kind == "relu":
            return torch.clamp(x, min=0)
        if kind == "relu2":
            return torch.clamp(x, min=0) ** 2
        if kind == "silu":
            return x / (1 + torch.exp(-x))
        if kind == "gelu-erf":
            return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))

    def rope(self, x):
        """x (B,heads,T,HS): pair i at position t turned by t * frequency i, and with yarn made larger."""
        c, half = self.c, self.c.head_size // 2
        angle = torch.outer(torch.arange(x.shape[2], dtype=torch.float64), frequencies(c))
        larger = 1 + 0.1 * math.log(c.rope_factor) if c.rope_scaling == "yarn" else 1
        cos, sin, x = angle.cos().to(self.full), angle.sin().to(self.full), x.to(self.full) * larger
        a, b = (x[..., 0::2], x[..., 1::2]) if c.rope_layout == "interleaved" else (x[..., :half], x[..., half:])
        a, b = a * cos - b * sin, a * sin + b * cos
        turned = torch.stack((a, b), -1).flatten(-2) if c.rope_layout == "interleaved" else torch.cat((a, b), -1)
        return turned.to(self.stored)

    def attention(self, x, name, layer):
        c, (B, T, _) = self.c, x.shape
        heads = self.linear(x, name + ".c_attn").view(B, T, c.n_head + 2 * c.n_kv_head, c.head_size).transpose(1, 2)
        q, k, v = heads.split([c.n_head, c.n_kv_head, c.n_kv_head], 1)
        if c.qk_norm:
            q, k = self.rmsnorm(q, name + ".q_norm"), self.rmsnorm(k, name + ".k_norm")
        if c.pos == "rope":
            q, k = self.rope(q), self.rope(k)
        group = c.n_head // c.n_kv_head
        k, v = (t.to(self.full).repeat_interleave(group, 1) for t in (k, v))
        scores = (q.to(self.full) @ k.transpose(2, 3) / math.sqrt(c.head_size)).to(self.stored).to(self.full)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        probabilities = torch.softmax(scores.masked_fill(future, -math.inf), -1).to(self.stored)
        probabilities = self.dropout(probabilities, SITES * layer + ATTENTION)
        y = (probabilities.to(self.full) @ v).to(self.stored)
        return self.linear(y.transpose(1, 2).reshape(B, T, c.n_head * c.head_size), name + ".c_proj")

    def mlp(self, x, name):
        hidden = self.linear(x, name + ".c_fc").to(self.full)
        if self.c.activation == "swiglu":
            gate, up = hidden.chunk(2, -1)
            hidden = self.activation(gate).to(self.stored).to(self.full) * up
        else:
            hidden = self.activation(hidden)
        return self.linear(hidden.to(self.stored), name + ".c_proj")

    def residual(self, x, branch, norm, site):
        """The stream x with what a branch adds to it."""
        if self.c.norm_place == "post":
            return self.norm(x + self.dropout(branch(x), site), norm)
        return x + self.dropout(branch(self.norm(x, norm)), site)

    def logits(self, tokens):
        c = self.c
        x = self.parameter("transformer.wte.weight")[tokens]
        if c.pos == "learned":
            x = x + self.parameter("transformer.wpe.weight")[:tokens.shape[1]]
        x = self.dropout(x.to(self.stored), SITES * c.n_layer)
        for i in range(c.n_layer):
            h = f"transformer.h.{i}."
            x = self.residual(x, lambda y: self.attention(y, h + "attn", i), h + "ln_1", SITES * i + ATTENTION_BRANCH)
            x = self.residual(x, lambda y: self.mlp(y, h + "mlp"), h + "ln_2", SITES * i + MLP_BRANCH)
        if c.norm_place == "pre":
            x = self.norm(x, "transformer.ln_f")
        x = x.to(self.full)
        return (x @ self.parameter("transformer.wte.weight" if c.tie else "lm_head.weight").t()).to(self.stored)

    def run(self, tokens, targets, step=None):
        """logits (N,T,V), token losses (N,T) and {NAME: gradient of the mean loss}, micro-step by micro-step."""
        valid, logits, losses = int((targets >= 0).sum()), [], []
        gradients = {name: torch.zeros_like(value, dtype=self.full) for name, value in self.p.items()}
        self.step = step
        for self.sample in range(0, len(tokens), self.c.batch):
            x, y = (rows[self.sample:self.sample + self.c.batch] for rows in (tokens, targets))
            z = self.logits(x)
            loss = F.cross_entropy(z.to(self.full).flatten(0, 1), y.flatten(), ignore_index=-1, reduction="none").view(y.shape)
            for name, g in zip(self.p, torch.autograd.grad(loss.sum() / valid, list(self.p.values()))):
                gradients[name] += g.to(self.full)
            logits.append(z.detach().to(self.full))
            losses.append(loss.detach())
        return torch.cat(logits), torch.cat(losses), gradients


def first_look(c, parameters, full, stored, tokens, targets):
    """logits and token losses of evaluation, gradients of training at step 0"""
    model = Model(c, parameters, full, stored)
    logits, losses, gradients = model.run(tokens, targets)
    return logits, losses, model.run(tokens, targets, 0)[2] if c.dropout > 0 else gradients


def train(c, parameters, full, stored, tokens, targets):
    """The AdamW steps: parameters after them, and the loss and gradient norm at each."""
    masters = {name: value.to(full, copy=True).requires_grad_() for name, value in parameters.items()}
    optimizer = torch.optim.AdamW([
        {"params": [p for p in masters.values() if p.dim() >= 2], "weight_decay": c.weight_decay},
        {"params": [p for p in masters.values() if p.dim() < 2], "weight_decay": 0.0}], lr=c.lr, betas=(c.beta1, c.beta2), eps=c.eps)
    losses, norms = [], []
    for step in range(c.steps):
        model = Model(c, {name: p.detach() for name, p in masters.items()}, full, stored)
        _, token_losses, gradients = model.run(tokens, targets, step)
        for name, p in masters.items():
            p.grad = gradients[name]
        norms.append(float(torch.nn.utils.clip_grad_norm_(list(masters.values()), c.grad_clip or math.inf)))
        losses.append(float(token_losses.sum() / (targets >= 0).sum()))
        optimizer.step()
    return {name: p.detach() for name, p in masters.items()}, losses, norms


# ---- the bf16 errors

def compared(c, name, value):
    """The part of a tensor that has a meaning: all of it, but for the key bias with neither RoPE nor QK-norm."""
    if c.pos == "rope" or c.qk_norm or not name.endswith("c_attn.bias"):
        return value
    D, KV = c.n_head * c.head_size, c.n_kv_head * c.head_size
    return torch.cat((value[:D], value[D + KV:]))


def error(value, reference):
    return float((value.double() - reference.double()).norm() / reference.double().norm())


def bf16_errors(c, parameters, tokens, targets, rng, full):
    """logits, losses, what training did, and, in sorted order of the names, gradients: the largest of the runs' errors."""
    names = sorted(parameters)
    low = (torch.float32, torch.bfloat16)
    rows = []
    for run in range(c.bf16_runs):
        near = {name: value if run == 0 else (value * torch.from_numpy(1 + rng.uniform(-1, 1, value.shape) / 256)).float()
                for name, value in parameters.items()}

        def training(*types):
            after, _, _ = train(c, near, *types, tokens, targets)
            return torch.cat([compared(c, name, after[name].double() - near[name].double()).flatten() for name in names])
        logits, losses, gradients = first_look(c, near, full, full, tokens, targets)
        low_logits, low_losses, low_gradients = first_look(c, near, *low, tokens, targets)
        rows.append([error(low_logits, logits), error(low_losses, losses), error(training(*low), training(full, full))]
                    + [error(compared(c, name, low_gradients[name]), compared(c, name, gradients[name])) for name in names])
    return np.max(rows, 0)


# ---- the file

def write_safetensors(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, value in tensors.items():
        dtype = {"float32": "F32", "int32": "I32"}[value.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            f.write(np.ascontiguousarray(value).tobytes())


def dump(c, path):
    rng = np.random.default_rng(c.seed)
    full = torch.float64 if c.precision == "double" else torch.float32
    parameters = {name: torch.from_numpy(value) for name, value in initial_parameters(c, rng).items()}
    tokens, targets = batch(c, rng)
    logits, token_losses, gradients = first_look(c, parameters, full, full, tokens, targets)
    after, losses, norms = train(c, parameters, full, full, tokens, targets)
    errors = bf16_errors(c, parameters, tokens, targets, rng, full)

    def floats(value):
        return np.atleast_1d(np.asarray(value, dtype=np.float32))
    tensors = {"tokens": tokens.numpy().astype(np.int32), "targets": targets.numpy().astype(np.int32),
               "logits": floats(logits[:c.logit_rows or len(logits)]), "token_losses": floats(token_losses),
               "losses": floats(losses), "norms": floats(norms),
               "bf16.error.logits": floats(errors[0]), "bf16.error.losses": floats(errors[1]),
               "bf16.error.after": floats(errors[2]), "bf16.error.grad": floats(errors[3:])}
    for prefix, values in (("param.", parameters), ("grad.", gradients), ("after.", after)):
        tensors.update({prefix + name: floats(value) for name, value in values.items()})

    scaling = ("rope_scaling", "rope_factor", "rope_original_len", "rope_low_freq", "rope_high_freq")
    left_out = ("out", "masked", "logit_rows", "bf16_runs") + (scaling if c.rope_scaling == "none" else ())
    metadata = {key: str(value) for key, value in vars(c).items() if key not in left_out}
    metadata.update(torch=torch.__version__, bf16_names=",".join(sorted(parameters)))
    write_safetensors(path, tensors, metadata)
    print(f"{path}: {sum(p.numel() for p in parameters.values()):,} parameters, {os.path.getsize(path):,} bytes; "
          f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, gradient norm {norms[0]:.3f}; "
          f"bf16 errors: logits {errors[0]:.1e}, losses {errors[1]:.1e}, gradients {errors[3:].min():.1e}..{errors[3:].max():.1e}, "
          f"after {errors[2]:.1e}")


def main():
    parser = options()
    c = parser.parse_args()
    torch.set_num_threads(1)   # so that the same machine writes the same bits
    if c.out.endswith(".safetensors"):
        dump(completed(c), c.out)
        return
    if len(sys.argv) > 2 + ("--out" in sys.argv):
        parser.error(f"--out {c.out} is a directory, for the committed set, which takes no other flag: "
                     "give --out FILE.safetensors for a dump of your own")
    os.makedirs(c.out, exist_ok=True)
    for name, flags in SET.items():
        path = os.path.join(c.out, name + ".safetensors")
        dump(completed(parser.parse_args(["--out", path] + shlex.split(flags))), path)


if __name__ == "__main__":
    main()
