"""Tests of bench_pytorch.py, its models, and bench_tokens.py: python3 -m unittest discover -s dev -p 'bench_pytorch_test.py'

That the models measured are those of train_gpt: the same loss, gradients and number of parameters as the reference dumps of test_gpt, from the same
weights; and the sizes that train_gpt prints for its presets. Both need PyTorch 2.5 or newer, the second also TRAIN_GPT or ./train_gpt."""
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from bench_tokens import draw, write_shard  # noqa: E402

try:
    import bench_pytorch as bench
    import bench_pytorch_model as models
    import torch
except SystemExit as error:
    bench, why = None, str(error)
TRAIN_GPT = os.environ.get("TRAIN_GPT", os.path.join(HERE, "..", "train_gpt"))
needs_torch = unittest.skipIf(bench is None, "" if bench else why)

# Where the matrices of a block are in a dump, which has inputs by outputs.
BLOCK = {"ln1": "ln_1", "ln2": "ln_2", "qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "fcproj": "mlp.c_proj"}
TOP = {"wte": "transformer.wte", "wpe": "transformer.wpe", "lnf": "transformer.ln_f", "head": "lm_head"}


def read_dump(name):
    """metadata, {tensor's name: tensor}"""
    with open(os.path.join(HERE, "reference", name + ".safetensors"), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = bytearray(file.read())
    metadata, tensors = header.pop("__metadata__"), {}
    for key, about in header.items():
        begin, end = about["data_offsets"]
        dtype = {"F32": torch.float32, "I32": torch.int32}[about["dtype"]]
        tensors[key] = torch.frombuffer(data, dtype=dtype, count=(end - begin) // 4, offset=begin).view(about["shape"])
    return metadata, tensors


def size_of(m):
    return models.Size(*(int(m[key]) for key in ("n_layer", "n_head", "n_embd", "vocab_size", "n_hidden")), kv_heads=int(m["n_kv_head"]),
                      rope=m["rope_layout"] if m["pos"] == "rope" else "", rope_base=float(m["rope_base"]), llama=m["norm"] == "rmsnorm",
                      tied=m["tie"] == "1", positions=int(m["max_seq_len"]))


def name_in_dump(name):
    parts = name.split(".")
    if parts[0] == "blocks":
        return f"transformer.h.{parts[1]}.{BLOCK[parts[2]]}.{parts[3]}"
    return f"{TOP[parts[0]]}.{parts[1]}"


def as_in_dump(name, value):
    """Of a parameter or its gradient."""
    return value.t() if name.startswith("blocks") and value.dim() == 2 else value


@needs_torch
class ModelTest(unittest.TestCase):
    def compare(self, dump, grouped=True):
        metadata, tensors = read_dump(dump)
        size = size_of(metadata)
        model = models.GPT(size, int(metadata["seq_len"]), grouped).double()
        parameters = dict(model.named_parameters())
        self.assertEqual({"param." + name_in_dump(name) for name in parameters}, {name for name in tensors if name.startswith("param.")})
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(as_in_dump(name, tensors["param." + name_in_dump(name)]))
        loss = model(tensors["tokens"].long(), tensors["targets"].long())
        loss.backward()
        # A dump holds floats, and so does the table of rotations.
        self.assertLess(abs(loss.item() / tensors["losses"][0].item() - 1), 1e-5)
        for name, p in parameters.items():
            wanted = tensors["grad." + name_in_dump(name)].double()
            self.assertLess(((as_in_dump(name, p.grad) - wanted).norm() / wanted.norm()).item(), 1e-5, name)
        self.assertEqual(model.parameter_count(), sum(p.numel() for p in parameters.values()))

    def test_gpt2(self):
        self.compare("accum1")

    def test_tinystories(self):
        self.compare("tinystories")

    def test_llama(self):
        self.compare("llama")
        self.compare("llama", grouped=False)

    def test_the_kind_of_attention_is_what_runs(self):
        q = torch.zeros(1, 4, 8, 16, requires_grad=True)
        for kind, backend in (("flash", "FLASH_ATTENTION"), ("math", "MATH")):
            with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, backend)):
                self.assertEqual(bench.kind_of_attention(models.attend(q, q, q, True).grad_fn), kind)

    def test_rows_that_pad_are_not_counted(self):
        narrow, wide = (models.GPT(models.Size(2, 2, 16, 33, 32, rows=rows), 8) for rows in (0, 64))
        self.assertEqual(narrow.parameter_count(), wide.parameter_count())
        self.assertEqual(narrow.flops_per_token(8), wide.flops_per_token(8))
        self.assertEqual(wide.wte.weight.shape[0], 64)

    def test_clocks_are_read_while_steps_are_taken(self):
        taken = []
        with tempfile.TemporaryDirectory() as directory:
            def step():
                taken.append(1)
                open(os.path.join(directory, "stepped"), "w").close()
            tool = os.path.join(directory, "nvidia-smi")
            with open(tool, "w") as file:
                file.write(f"#!/bin/sh\nwhile [ ! -e {directory}/stepped ]; do sleep 0.01; done\necho '1755, 2619, 651.20, [N/A]'\n")
            os.chmod(tool, 0o755)
            with mock.patch.object(torch.cuda, "get_device_properties", return_value=None), \
                    mock.patch.dict(os.environ, PATH=f"{directory}:{os.environ['PATH']}"):
                self.assertEqual(bench.clocks_under_load(step), {"clock_mhz": 1755, "memory_clock_mhz": 2619, "power_w": 651.2})
            self.assertTrue(taken)
            with mock.patch.object(torch.cuda, "get_device_properties", return_value=None), mock.patch.dict(os.environ, PATH=directory + "/nowhere"):
                self.assertEqual(bench.clocks_under_load(step), {})

    @unittest.skipUnless(os.access(TRAIN_GPT, os.X_OK), "no train_gpt, whose presets these are")
    def test_sizes_are_the_presets(self):
        for name, size in models.SIZES.items():
            if name == "tiny":
                continue
            vocabulary = ["--vocab-size", str(size.V)] if name == "baby" else []
            command = [TRAIN_GPT, "-m", name, *vocabulary, "--print-config"]
            config = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

            def of(*keys):
                return next((config[key] for key in keys if config.get(key) is not None), None)
            self.assertEqual((size.layers, size.heads, size.C, size.V, size.hidden, size.tied),
                             (of("num_hidden_layers", "n_layer"), of("num_attention_heads", "n_head"), of("hidden_size", "n_embd"), of("vocab_size"),
                              of("intermediate_size", "n_inner"), config.get("tie_word_embeddings", True)), (name, config))
            self.assertEqual(size.NKV, of("num_key_value_heads") or size.heads, name)
            self.assertEqual(size.rope, "" if "n_positions" in config else config.get("train_gpt_rope_layout", "half"), name)


class TokensTest(unittest.TestCase):
    def test_a_shard_is_whole(self):
        file = io.BytesIO()
        write_shard(file, 50257, 100, 3)
        written = file.getvalue()
        self.assertEqual(struct.unpack("<4i", written[:16]), (20240520, 1, 301, 0))
        tokens = struct.unpack("<301H", written[1024:])
        self.assertEqual(list(tokens), draw(100, 50257) * 3 + [tokens[0]])
        self.assertLess(max(tokens), 50257)

    def test_few_tokens_are_drawn_often(self):
        drawn = draw(20000, 1000)
        # 1/(k+1), in the integral: a share of log(2)/log(1000) for token 0; five standard deviations.
        self.assertLess(abs(drawn.count(0) / 20000 - 0.1003), 0.011)
        self.assertTrue(0 <= min(drawn) and max(drawn) < 1000)

    def test_no_shard_of_tokens_too_many(self):
        done = subprocess.run([sys.executable, os.path.join(HERE, "bench_tokens.py"), "70000", "8", "1"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("70000", done.stderr)


if __name__ == "__main__":
    unittest.main()
