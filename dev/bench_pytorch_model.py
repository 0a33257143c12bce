"""bench_pytorch_model.py: the models that bench_pytorch.py measures: those of train_gpt's presets, in plain PyTorch."""
import sys
from dataclasses import dataclass

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"bench_pytorch.py needs PyTorch 2.5 or newer, and this Python has none ({error})")
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5):
    sys.exit(f"bench_pytorch.py needs PyTorch 2.5 or newer, and this Python has {torch.__version__}")


@dataclass(frozen=True)
class Size:
    """A model, and the shape in which it is measured where the command line is silent."""
    layers: int
    heads: int
    C: int
    V: int
    hidden: int               # of the MLP
    kv_heads: int = 0         # a divisor of heads; 0: heads
    rows: int = 0             # of the embedding and the head: V, or more for speed; 0: V
    rope: str = ""            # rotary positions, pairs (2i, 2i+1): interleaved, or (i, i + HS/2): half; else a learned table
    rope_base: float = 10000
    llama: bool = False       # RMSNorm, SwiGLU, no biases; else LayerNorm, GELU, biases
    tied: bool = True         # the head is the embedding
    positions: int = 1024     # rows of a learned table
    beta2: float = 0.95
    batch: int = 8
    seq_len: int = 1024
    total: int = 524288       # tokens in a step

    @property
    def HS(self):
        return self.C // self.heads

    @property
    def NKV(self):
        return self.kv_heads or self.heads

    @property
    def padded(self):
        return self.rows or self.V


SIZES = {
    "baby": Size(6, 6, 192, 65, 768, rope="interleaved", beta2=0.99, batch=64, seq_len=128, total=8192),
    "tinystories-17M": Size(4, 16, 512, 10000, 1344, rope="interleaved", llama=True, tied=False, batch=256, seq_len=256, total=65536),
    "gpt2-124M": Size(12, 12, 768, 50257, 3072, rows=50304, batch=64),
    "gpt2-350M": Size(24, 16, 1024, 50257, 4096, rows=50304, batch=32),
    "gpt2-774M": Size(36, 20, 1280, 50257, 5120, rows=50304, batch=16),
    "gpt2-1558M": Size(48, 25, 1600, 50257, 6400, rows=50304, batch=8),
    "llama-350M": Size(26, 16, 1024, 50257, 2752, kv_heads=8, rows=50304, rope="half", llama=True, batch=16, seq_len=2048),
    "tiny": Size(2, 2, 64, 257, 256),
}


def rotations(size, T):
    """cos and sin (T, HS/2) of t * base^(-2i/HS)."""
    angles = torch.arange(T)[:, None] * size.rope_base ** (-torch.arange(0, size.HS, 2) / size.HS)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin, layout):
    """x(B, heads, T, HS), its pairs turned, in fp32."""
    if layout == "half":
        a, b = x.float().chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).type_as(x)
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).type_as(x)


def attend(q, k, v, grouped):
    """Causal attention of q(B, NH, T, HS) to k and v(B, NKV, T, HS); grouped: by kernels that take fewer heads of k and v as they are."""
    group = q.shape[1] // k.shape[1]
    if group == 1 or grouped:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=group > 1)
    return F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_causal=True)


class Block(nn.Module):
    def __init__(self, size, grouped):
        super().__init__()
        self.size, C, bias, self.grouped = size, size.C, not size.llama, grouped
        norm = nn.RMSNorm if size.llama else nn.LayerNorm
        self.ln1, self.ln2 = norm(C, eps=1e-5), norm(C, eps=1e-5)
        self.qkv, self.proj = nn.Linear(C, C + 2 * size.NKV * size.HS, bias), nn.Linear(C, C, bias)
        self.fc, self.fcproj = nn.Linear(C, (2 if size.llama else 1) * size.hidden, bias), nn.Linear(size.hidden, C, bias)

    def attention(self, x, turns):
        size, (B, T, C) = self.size, x.shape
        heads = self.qkv(x).view(B, T, size.heads + 2 * size.NKV, size.HS).transpose(1, 2)
        q, k, v = heads.split([size.heads, size.NKV, size.NKV], 1)
        if turns is not None:
            q, k = rotate(q, *turns, size.rope), rotate(k, *turns, size.rope)
        return self.proj(attend(q, k, v, self.grouped).transpose(1, 2).reshape(B, T, C))

    def mlp(self, x):
        if not self.size.llama:
            return self.fcproj(F.gelu(self.fc(x), approximate="tanh"))
        gate, up = self.fc(x).chunk(2, -1)
        return self.fcproj(F.silu(gate) * up)

    def forward(self, x, turns):
        x = x + self.attention(self.ln1(x), turns)
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    """For rows of up to T tokens."""

    def __init__(self, size, T, grouped=True):
        super().__init__()
        self.size, C = size, size.C
        self.wte = nn.Embedding(size.padded, C)
        self.head = nn.Linear(C, size.padded, bias=False)
        if size.tied:
            self.head.weight = self.wte.weight
        if size.rope:
            for name, table in zip(("cos", "sin"), rotations(size, T)):
                self.register_buffer(name, table)
        else:
            self.wpe = nn.Embedding(size.positions, C)
        self.blocks = nn.ModuleList(Block(size, grouped) for _ in range(size.layers))
        self.lnf = (nn.RMSNorm if size.llama else nn.LayerNorm)(C, eps=1e-5)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / (2 * size.layers) ** 0.5 if "proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def loss(self, x, targets):
        return F.cross_entropy(self.head(self.lnf(x)).float().flatten(0, 1), targets.flatten())

    def forward(self, tokens, targets):
        x, turns, T = self.wte(tokens), None, tokens.shape[1]
        if self.size.rope:
            turns = self.cos[:T], self.sin[:T]
        else:
            x = x + self.wpe.weight[:T]
        for block in self.blocks:
            x = block(x, turns)
        return self.loss(x, targets)

    def parameter_count(self):
        """Without the rows that pad the vocabulary."""
        padding = (self.size.padded - self.size.V) * self.size.C * (1 if self.size.tied else 2)
        return sum(p.numel() for p in self.parameters()) - padding

    def flops_per_token(self, T):
        """6 for each parameter in matrix products, and attention."""
        in_blocks = sum(p.numel() for p in self.blocks.parameters() if p.dim() == 2)
        return 6 * (in_blocks + self.size.V * self.size.C) + 6 * self.size.layers * self.size.C * T
