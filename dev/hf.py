#!/usr/bin/env python3
"""Writes dev/hf/: a tiny random directory for each family that train_gpt reads, as transformers saves it, with transformers' own logits
beside.

    python3 dev/hf.py [DIRECTORY]

Needs torch, transformers and safetensors. Weights are larger than a model begins with, and norms and biases are random, so that no wrong
name, row or transposition leaves the logits as they are. logits.safetensors holds tokens (B, T) and logits (B, T, V), computed in fp32
from the weights as saved. llmc/huggingface_test.c compares them with ours.
"""
import os
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file

B, T, V = 2, 16, 67

COMMON = dict(vocab_size=V, bos_token_id=1, eos_token_id=2)
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24)

# name: (config, dtype that is saved, size of a shard)
MODELS = {
    "gpt2": (transformers.GPT2Config(n_embd=32, n_inner=80, n_layer=2, n_head=4, n_positions=24, **COMMON), torch.float32, None),
    "llama": (transformers.LlamaConfig(num_key_value_heads=2, head_dim=12, rope_theta=5e5, **SIZES, **COMMON), torch.float32, None),
    "llama_shards": (transformers.LlamaConfig(num_key_value_heads=1, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5, **SIZES,
                                              **COMMON),
                     torch.bfloat16, "12KB"),
    "qwen2": (transformers.Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1e6, **SIZES, **COMMON), torch.float32,
              None),
    "gpt_neox": (transformers.GPTNeoXConfig(use_parallel_residual=False, rotary_pct=1.0, **SIZES, **COMMON), torch.float32, None),
}
HAS_QWEN3 = hasattr(transformers, "Qwen3Config")   # since release 4.51
if HAS_QWEN3:
    MODELS["qwen3"] = (transformers.Qwen3Config(num_key_value_heads=2, head_dim=16, **SIZES, **COMMON), torch.float16, None)


def scaled(kind, base="rope_theta", **parameters):
    """RoPE scaled from 8 positions, half of T, to the models' 24, so that of the pairs of a head some keep their speed, some are slowed by the
    whole factor, and some are between."""
    first = {} if kind == "linear" else {"original_max_position_embeddings": 8}
    return {"rope_scaling": {"rope_type": kind, "factor": 3.0} | first | parameters, base: 100.0}


LLAMA3 = scaled("llama3", low_freq_factor=0.2, high_freq_factor=1.0)
YARN = scaled("yarn", beta_slow=0.2, beta_fast=1.0)
MODELS["llama3"] = (transformers.LlamaConfig(num_key_value_heads=1, head_dim=16, **LLAMA3, **SIZES, **COMMON), torch.bfloat16, None)
MODELS["yarn"] = (transformers.Qwen2Config(num_key_value_heads=1, **YARN, **SIZES, **COMMON), torch.bfloat16, None)
MODELS["linear"] = (transformers.GPTNeoXConfig(use_parallel_residual=False, rotary_pct=1.0, **scaled("linear", "rotary_emb_base"), **SIZES,
                                              **COMMON), torch.bfloat16, None)


def randomize(model, dtype, generator):
    """Matrices of standard deviation 0.15, norms around 1, biases around 0, all of them exact in dtype."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            values = 0.15 * noise if parameter.dim() == 2 else 1 + 0.3 * noise if name.endswith("weight") else 0.3 * noise
            parameter.copy_(values.to(dtype))


def make(config, dtype, seed):
    """A random model in fp32, its weights exact in dtype."""
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    randomize(model, dtype, torch.Generator().manual_seed(seed))
    return model


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens).logits.float()


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "hf")
    for seed, (name, (config, dtype, shard)) in enumerate(MODELS.items()):
        directory = os.path.join(out, name)
        shutil.rmtree(directory, ignore_errors=True)
        model = make(config, dtype, seed)
        tokens = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(100 + seed))
        logits = logits_of(model, tokens)
        model.to(dtype).save_pretrained(directory, **({"max_shard_size": shard} if shard else {}))
        save_file({"tokens": tokens.int(), "logits": logits.contiguous()}, os.path.join(directory, "logits.safetensors"))
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, logits of standard deviation {logits.std():.2f}")


if __name__ == "__main__":
    main()
