#!/usr/bin/env python3
"""Models of train_gpt in transformers, and models of transformers in train_gpt: the same logits to 1e-4 relative in fp32, both ways.

    make check-hf PYTHON=python3        or        dev/check_hf.py TRAIN_GPT HF_LOGITS

Ours: a tiny model of each family and variant is trained a few steps; its checkpoint and its --export are loaded by transformers, with no
key missing, unexpected or mismatched. Theirs: random models, saved by transformers in fp32, bf16 and fp16, whole and sharded. Where torch
or transformers is not installed there is nothing to compare with: the check says so and is skipped.
"""
import os
import struct
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}; pip install torch transformers safetensors")
    sys.exit(0)

import hf

V, T = hf.V, hf.T
MODERN = ["--norm", "rmsnorm", "--activation", "swiglu", "--no-bias", "--n-hidden", "48"]
LINEAR = ["--rope-scaling", "linear", "--rope-factor", "3"]
BOUNDS = ["--rope-factor", "2.5", "--rope-original-len", "8", "--rope-base", "100", "--rope-low-freq", "0.2", "--rope-high-freq", "1"]
LLAMA3, YARN = ["--rope-scaling", "llama3"] + BOUNDS, ["--rope-scaling", "yarn"] + BOUNDS

# name: (model_type that must come out, options)
OURS = {
    "gpt2": ("gpt2", ["--pos", "learned"]),
    "gpt2 untied relu": ("gpt2", ["--pos", "learned", "--no-tie", "--activation", "relu"]),
    "gpt2 gelu-erf": ("gpt2", ["--pos", "learned", "--activation", "gelu-erf", "--n-hidden", "40"]),
    "gpt2 silu": ("gpt2", ["--pos", "learned", "--activation", "silu"]),
    "gpt2 relu2 dropout": ("gpt2", ["--pos", "learned", "--activation", "relu2", "--dropout", "0.1"]),
    "gpt_neox": ("gpt_neox", []),
    "gpt_neox half untied": ("gpt_neox", ["--rope-layout", "half", "--no-tie", "--rope-base", "500"]),
    "gpt_neox relu2": ("gpt_neox", ["--activation", "relu2", "--norm-eps", "1e-3", "--dropout", "0.1"]),
    "llama": ("llama", MODERN),
    "llama half": ("llama", MODERN + ["--rope-layout", "half"]),
    "llama gqa untied": ("llama", MODERN + ["--n-kv-head", "2", "--no-tie", "--rope-base", "500000"]),
    "llama mqa, heads apart": ("llama", MODERN + ["--n-kv-head", "1", "--head-size", "12"]),
    "llama biases": ("llama", MODERN + ["--bias", "1", "--n-kv-head", "2"]),
    "qwen2": ("qwen2", MODERN + ["--qkv-bias", "--n-kv-head", "2"]),
    "qwen2 half untied": ("qwen2", MODERN + ["--qkv-bias", "--rope-layout", "half", "--no-tie"]),
    "qwen3": ("qwen3", MODERN + ["--qk-norm", "--n-kv-head", "2", "--head-size", "16"]),
    "qwen3 uneven": ("qwen3", MODERN + ["--qk-norm", "--n-head", "3", "--n-kv-head", "1", "--head-size", "10", "--no-tie"]),
    "qwen3 half": ("qwen3", MODERN + ["--qk-norm", "--rope-layout", "half"]),
    "llama linear": ("llama", MODERN + LINEAR),
    "llama llama3": ("llama", MODERN + LLAMA3 + ["--n-kv-head", "2", "--rope-layout", "half"]),
    "llama llama3, its own bounds": ("llama", MODERN + ["--rope-scaling", "llama3", "--rope-factor", "8", "--rope-original-len", "12"]),
    "llama yarn": ("llama", MODERN + YARN),
    "qwen2 yarn, no whole pairs": ("qwen2", MODERN + YARN + ["--qkv-bias", "--no-rope-whole-pairs"]),
    "qwen3 yarn, magnitude": ("qwen3", MODERN + YARN + ["--qk-norm", "--head-size", "16", "--rope-magnitude", "2"]),
    "gpt_neox linear": ("gpt_neox", LINEAR),
    "gpt_neox llama3": ("gpt_neox", LLAMA3),
    "gpt_neox yarn": ("gpt_neox", YARN),
}

NATIVE = ["--norm-place", "post"]   # of no family

S = hf.SIZES | hf.COMMON
GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=24) | hf.COMMON
NEOX = dict(use_parallel_residual=False) | S
t = transformers

# name: (config, dtype, size of a shard)
THEIRS = hf.MODELS | {
    "gpt2 untied, gelu": (t.GPT2Config(tie_word_embeddings=False, activation_function="gelu", **GPT2), torch.bfloat16, "20KB"),
    "gpt2 relu": (t.GPT2Config(activation_function="relu", layer_norm_epsilon=1e-3, **GPT2), torch.float32, None),
    "gpt_neox tied, tanh": (t.GPTNeoXConfig(tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh", rotary_pct=1.0, rotary_emb_base=700,
                                            **NEOX), torch.float16, "9KB"),
    "gpt_neox relu": (t.GPTNeoXConfig(hidden_act="relu", rotary_pct=1.0, layer_norm_eps=1e-3, **NEOX), torch.float32, None),
    "llama tied": (t.LlamaConfig(tie_word_embeddings=True, num_key_value_heads=4, rope_theta=300.0, **S), torch.float32, None),
    "llama one key head": (t.LlamaConfig(num_key_value_heads=1, rope_theta=700.0, **S), torch.float16, None),
    "qwen2 untied": (t.Qwen2Config(num_key_value_heads=4, rope_theta=700.0, rms_norm_eps=1e-3, **S), torch.bfloat16, None),
}
THEIRS |= {
    "llama linear": (t.LlamaConfig(**hf.scaled("linear"), **S), torch.float32, None),
    "llama heads of 64, llama3": (t.LlamaConfig(head_dim=64, num_key_value_heads=2, **hf.LLAMA3, **S), torch.float32, None),
    "llama heads of 128, yarn": (t.LlamaConfig(head_dim=128, num_key_value_heads=1, **hf.scaled("yarn"), **S), torch.float32, None),
    "llama yarn, attention factor": (t.LlamaConfig(**hf.scaled("yarn", beta_slow=0.2, beta_fast=1.0, attention_factor=0.7, truncate=False), **S),
                                     torch.float32, None),
    "llama yarn, mscale": (t.LlamaConfig(**hf.scaled("yarn", mscale=2.0, mscale_all_dim=0.5), **S), torch.float32, None),
    "gpt_neox yarn": (t.GPTNeoXConfig(rotary_pct=1.0, **hf.scaled("yarn", "rotary_emb_base", beta_slow=0.2, beta_fast=1.0), **NEOX),
                      torch.float32, None),
}
if hf.HAS_QWEN3:
    THEIRS["qwen3 llama3"] = (t.Qwen3Config(num_key_value_heads=1, head_dim=32, **hf.LLAMA3, **S), torch.float32, None)
    THEIRS["qwen3 tied"] = (t.Qwen3Config(num_key_value_heads=1, head_dim=6, tie_word_embeddings=True, rope_theta=700.0, **S),
                            torch.float32, "9KB")


class Check:
    def __init__(self, trainer, logits_program, folder):
        self.trainer, self.logits_program, self.folder = trainer, logits_program, folder
        self.failed = self.passed = 0
        self.tokens = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(7))
        self.tokens_file = os.path.join(folder, "tokens.safetensors")
        save_file({"tokens": self.tokens.int()}, self.tokens_file)
        self.data = os.path.join(folder, "data.bin")
        stream = torch.randint(V, (4096,), generator=torch.Generator().manual_seed(8)).tolist()
        with open(self.data, "wb") as file:   # a shard as llm.c writes it
            file.write(struct.pack("<256i", 20240520, 1, len(stream), *[0] * 253) + struct.pack(f"<{len(stream)}H", *stream))

    def report(self, name, problem):
        self.failed += problem is not None
        self.passed += problem is None
        print(f"{'ok    ' if problem is None else 'FAILED'} {name}{'' if problem is None else ': ' + problem}", flush=True)

    def run(self, *command):
        """None, or what the program said when it failed."""
        done = subprocess.run(command, capture_output=True, text=True)
        return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-300:]

    def our_logits(self, directory):
        out = os.path.join(self.folder, "logits.safetensors")
        problem = self.run(self.logits_program, directory, self.tokens_file, out)
        if problem:
            raise RuntimeError(problem)
        return load_file(out)["logits"]

    def difference(self, ours, theirs):
        """What is wrong, or None. NaN must not pass."""
        whole = ((ours - theirs).norm() / theirs.norm()).item()
        worst = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        return None if whole <= 1e-4 and worst <= 1e-4 else f"logits differ by {whole:.2g}, the worst by {worst:.2g} of the greatest"

    def in_transformers(self, directory, model_type):
        """The directory, loaded by transformers, against itself loaded by us."""
        model, info = t.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, attn_implementation="eager",
                                                             output_loading_info=True)
        wrong = {key: sorted(value) for key, value in info.items() if value and key != "error_msgs"}
        if wrong or info.get("error_msgs"):
            return f"{wrong or info['error_msgs']}"
        if model.config.model_type != model_type:
            return f"a {model.config.model_type}, not a {model_type}"
        if t.GenerationConfig.from_pretrained(directory).eos_token_id is not None:
            return "an end-of-text token that the vocabulary lacks"
        return self.difference(self.our_logits(directory), hf.logits_of(model.eval(), self.tokens))

    def train(self, name, options):
        """A few steps so large that every bias and norm leaves its initial value."""
        out = os.path.join(self.folder, "run " + name)
        problem = self.run(self.trainer, "--train-data", self.data, "--val-data", self.data, "--vocab-size", str(V), "--seq-len", str(T),
                           "--n-layer", "2", "--n-head", "4", "--n-embd", "32", "--batch", "4", "--grad-accum", "1", "--steps", "4",
                           "--lr", "0.05", "--warmup", "0", "--device", "cpu", "--out", out, *options)
        if problem:
            raise RuntimeError(problem)
        return out

    def ours(self, name, model_type, options):
        out = self.train(name, options)
        checkpoint = os.path.join(out, "last")
        self.report(f"ours   {name}: checkpoint", self.in_transformers(checkpoint, model_type))
        for dtype in ("fp32", "bf16"):
            exported = os.path.join(self.folder, f"{name} {dtype}")
            problem = self.run(self.trainer, "--model", checkpoint, "--export", exported, "--dtype", dtype)
            self.report(f"ours   {name}: export {dtype}", problem or self.in_transformers(exported, model_type))

    def theirs(self, name, config, dtype, shard, seed):
        directory = os.path.join(self.folder, "theirs " + name)
        model = hf.make(config, dtype, seed)
        expected = hf.logits_of(model, self.tokens)
        model.to(dtype).save_pretrained(directory, **({"max_shard_size": shard} if shard else {}))
        self.report(f"theirs {name}", self.difference(self.our_logits(directory), expected))

    def native(self):
        out = self.train("native", NATIVE)
        problem = self.run(self.trainer, "--model", out, "--export", os.path.join(self.folder, "native"))
        right = problem and "norm_place post" in problem and not os.path.exists(os.path.join(self.folder, "native"))
        self.report("no family: --export is refused", None if right else f"it said: {problem}")


def main():
    t.logging.set_verbosity_error()
    trainer, logits_program = (os.path.abspath(path) for path in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        check = Check(trainer, logits_program, folder)
        for name, (model_type, options) in OURS.items():
            if model_type == "qwen3" and not hf.HAS_QWEN3:
                print(f"skipped ours   {name}: this transformers has no qwen3")
                continue
            try:
                check.ours(name, model_type, options)
            except (RuntimeError, OSError, ValueError) as problem:
                check.report(f"ours   {name}", str(problem))
        for seed, (name, (config, dtype, shard)) in enumerate(THEIRS.items()):
            try:
                check.theirs(name, config, dtype, shard, seed)
            except (RuntimeError, OSError, ValueError) as problem:
                check.report(f"theirs {name}", str(problem))
        check.native()
    print(f"transformers {t.__version__}: {check.passed} passed, {check.failed} failed")
    sys.exit(check.failed > 0)


if __name__ == "__main__":
    main()
