"""Tests of bench_peers.py, with stand-ins for the two programs that it measures: python3 -m unittest discover -s dev -p 'bench_peers_test.py'"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPE = {"batch": 64, "parameters": 2682048, "flops_per_token": 16884864}
OWN = {**SHAPE, "seq_len": 128, "tokens_per_step": 8192, "device": "cpu, 2 threads", "ms": 1000, "cpu_ms": 1900, "matmul_rate": 2e11,
       "losses": [4.13, 3.77, 3.66]}
BENCH = """#!{python}
import json, sys
json.dump({own!r}, open(sys.argv[sys.argv.index("--json") + 1], "w"))
"""
PYTORCH = """#!{python}
import json, sys
print({about!r}, flush=True)
for line in sys.stdin:
    seconds = {seconds!r}[line.split()[0]]
    print(json.dumps({{"seconds": [seconds, seconds, 99], "cpu": [2 * seconds] * 3}}), flush=True)
"""


def about(losses=(4.19, 3.84, 3.72), **changes):
    return {**SHAPE, "torch": "2.9.0", "variants": {name: {"losses": list(losses)} for name in ("eager", "compiled")}, **changes}


class PeersTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def write(self, name, text):
        path = os.path.join(self.directory.name, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o755)
        return path

    def measure(self, described, seconds, own=OWN, flags=()):
        bench = self.write("bench", BENCH.format(python=sys.executable, own=own))
        pytorch = self.write("python", PYTORCH.format(python=sys.executable, about=json.dumps(described), seconds=seconds))
        out = os.path.join(self.directory.name, "peers.json")
        done = subprocess.run([sys.executable, os.path.join(HERE, "bench_peers.py"), "--bench", bench, "--python", pytorch, "--models", "baby",
                               "--dtypes", "fp32", "--json", out, *flags], capture_output=True, text=True)
        if done.returncode:
            return done, None
        with open(out) as file:
            return done, json.load(file)["cases"][0]

    def test_ratio_share_and_verdict(self):
        done, case = self.measure(about(), {"eager": 1.6, "compiled": 1.2})
        self.assertEqual(done.returncode, 0, done.stderr)
        verdict = case["verdict"]
        self.assertAlmostEqual(verdict["ratio"], 1.2)
        self.assertAlmostEqual(verdict["cpu_ratio"], 2.4 / 1.9)
        self.assertAlmostEqual(verdict["share"], 8192 * 16884864 / 2e11)
        self.assertFalse(verdict["met"])   # 69% of the ceiling, and 1.2 times as fast
        self.assertIn("| missed |", done.stdout)

    def test_met_by_either_but_never_below_pytorch(self):
        fast = {**OWN, "matmul_rate": 1.9e11}   # 73%
        self.assertTrue(self.measure(about(), {"eager": 1.6, "compiled": 1.2}, fast)[1]["verdict"]["met"])
        self.assertFalse(self.measure(about(), {"eager": 1.6, "compiled": 0.9}, fast)[1]["verdict"]["met"])
        self.assertTrue(self.measure(about(), {"eager": 1.6, "compiled": 1.55})[1]["verdict"]["met"])

    def test_who_is_far_behind_has_one_round(self):
        _, case = self.measure(about(), {"eager": 1.6, "compiled": 1.2})
        self.assertEqual([len(case["rounds"][name]) for name in ("train_gpt", "compiled", "eager")], [3, 3, 1])

    def test_both_kinds_of_attention_on_a_gpu(self):
        _, case = self.measure(about(), {"eager": 1.6, "compiled": 1.2}, flags=["--device", "cuda", "--rounds", "2"])
        self.assertEqual({name: len(rounds) for name, rounds in case["rounds"].items()},
                         {"train_gpt": 2, "flash eager": 1, "flash compiled": 2, "cudnn eager": 1, "cudnn compiled": 2})
        self.assertAlmostEqual(case["programs"]["cudnn compiled"]["ratio"], 1.2)

    def refused(self, described, *words):
        done, _ = self.measure(described, {})
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("Traceback", done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_another_model_is_refused(self):
        self.refused(about(parameters=2682049), "2682048 parameters", "2682049")
        self.refused(about(flops_per_token=1), "flops_per_token")
        self.refused(about(batch=32), "64 batch here and 32", "choose a --batch")
        self.refused(about(losses=(4.85, 3.84, 3.72)), "step 0", "4.8500")
        self.refused(about(losses=(4.19, 3.84, float("nan"))), "step 2", "nan")

    def test_pytorch_that_stops_is_named(self):
        bench = self.write("bench", BENCH.format(python=sys.executable, own=OWN))
        stopping = self.write("python", "#!/bin/sh\necho 'no torch here' >&2\nexit 1\n")
        done = subprocess.run([sys.executable, os.path.join(HERE, "bench_peers.py"), "--bench", bench, "--python", stopping, "--models", "baby"],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr.splitlines()[-1]), (1, "bench_peers.py: PyTorch stopped: no torch here"))


if __name__ == "__main__":
    unittest.main()
