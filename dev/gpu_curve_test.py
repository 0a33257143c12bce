"""Tests of gpu_curve.py: python3 -m unittest discover -s dev -p 'gpu_*_test.py'"""
import json
import math
import os
import random
import tempfile
import unittest

import gpu_curve
from gpu_curve import RunError


def learning(seed, steps=200):
    """Losses that fall, and differ by seed as samples do."""
    chance = random.Random(seed)
    return [2 + 2 * math.exp(-n / 40) + chance.uniform(-0.15, 0.15) for n in range(steps)]


class CurveTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.cpu = [self.write(f"cpu{seed}", learning(seed)) for seed in (1, 2, 3)]

    def write(self, name, losses, steps=None, **more):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        with open(os.path.join(path, "log.jsonl"), "w") as file:
            for step, loss in zip(steps or range(1, len(losses) + 1), losses):
                file.write(json.dumps({"step": step, "loss": loss, **more}).replace("NaN", "null") + "\n")
        return path

    def compare(self, losses, dtype="fp32", **more):
        return gpu_curve.compare(self.cpu, [(dtype, self.write(f"card{len(os.listdir(self.directory))}", losses, **more))])

    def test_rounding_that_grows_passes(self):
        losses = [x * (1 + 1e-8 * 1.07**n) for n, x in enumerate(learning(1))]   # 4e-8 at step 20, 7e-3 at step 200
        self.assertTrue(self.compare(losses)[0])
        self.assertIn("| 200 |", self.compare(losses)[1])

    def test_bf16_may_start_further_away(self):
        losses = [x * 1.0008 for x in learning(1)]
        self.assertEqual([self.compare(losses, dtype)[0] for dtype in ("fp32", "bf16")], [False, True])

    def test_another_seed_is_no_same_curve(self):
        """TF32 or a wrong batch would show like this."""
        holds, text = self.compare(learning(4), "bf16")
        self.assertFalse(holds)
        self.assertIn("too far from the start", text)

    def test_further_than_seeds(self):
        losses = [x + (0.04 if n >= 40 else 0) for n, x in enumerate(learning(1))]
        self.assertIn("further than another seed", self.compare(losses)[1])

    def test_one_bad_stretch(self):
        noise = gpu_curve.seeds_noise([learning(seed) for seed in (1, 2, 3)])
        losses = [x + (2.5 * noise if 100 <= n < 120 else 0) for n, x in enumerate(learning(1))]
        self.assertIn("a stretch of it", self.compare(losses)[1])

    def test_numbers_only(self):
        for bad in (math.nan, None, "nan"):
            losses = learning(1)
            losses[36] = bad
            with self.assertRaisesRegex(RunError, "card, fp32: the loss of step 37 is"):
                self.compare(losses)
        with self.assertRaisesRegex(RunError, "update of step 1 was left out"):
            self.compare(learning(1), skipped="nan")

    def test_all_steps(self):
        with self.assertRaisesRegex(RunError, "100, 200 steps"):
            self.compare(learning(1, 100))
        with self.assertRaisesRegex(RunError, "step 2 is not in the log"):
            self.compare(learning(1, 20), steps=range(1, 41, 2))

    def test_seeds_must_differ(self):
        self.cpu = self.cpu[:1] * 2
        with self.assertRaisesRegex(RunError, "their seeds must differ"):
            self.compare(learning(1))


if __name__ == "__main__":
    unittest.main()
