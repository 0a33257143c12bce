"""Tests of gpu_decisions.py: python3 -m unittest discover -s dev -p 'gpu_*_test.py'"""
import contextlib
import io
import json
import os
import tempfile
import unittest

import gpu_decisions


def epilogue(name, fused, plain, apart, left=0, kernels=1):
    return {"probe": "epilogue", "name": name, "fused_us": fused, "plain_us": plain, "apart_us": apart, "left_us": left, "kernels": kernels}


def product(name, times, first, best):
    return {"probe": "product", "name": name, "times": times, "first_us": first, "best_us": best}


def step(option, value, ms, batch=64):
    return {"probe": "step", "option": option, "value": value, "batch": batch, "ms": ms}


def attention(own, cudnn, size=64, T=1024, kv=12, deterministic=0):
    return {"probe": "attention", "head_size": size, "seq_len": T, "kv_heads": kv, "deterministic": deterministic,
            "own_forward_us": own[0], "own_backward_us": own[1], "cudnn_forward_us": cudnn[0], "cudnn_backward_us": cudnn[1]}


class DecisionsTest(unittest.TestCase):
    def row(self, question, *lines):
        """Measured and decision of the row that begins so."""
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in gpu_decisions.table(gpu_decisions.Figures(lines)).splitlines()]
        self.assertEqual({len(row) for row in rows}, {4})
        found = [row for row in rows if row[0].startswith(question)]
        self.assertEqual(len(found), 1, found)
        return found[0][1:3]

    def test_nothing_measured(self):
        text = gpu_decisions.table(gpu_decisions.Figures([]))
        self.assertEqual(text.count("not measured"), len(text.splitlines()) - 2)

    def test_epilogues(self):
        gelu = "fc forward, bias, GELU, aux"
        question = "GELU in the product, its input kept"
        self.assertEqual(self.row(question, epilogue(gelu, 420, 400, 60)), ["one kernel, 420 us; apart 460 us", "in the product"])
        self.assertEqual(self.row(question, epilogue(gelu, 500, 400, 60, kernels=2))[1], "apart")
        self.assertEqual(self.row(question, epilogue(gelu, 455, 400, 60))[1], "no difference; as it is")
        self.assertEqual(self.row(question, epilogue(gelu, None, 400, 60, kernels=-1)),
                         ["apart 460 us", "apart: the library has no such product"])
        self.assertEqual(self.row(question, epilogue(gelu, 9, 400, 60), epilogue(gelu, 500, 400, 60))[1], "apart")   # the later line counts

    def test_bias_gradients_of_a_layer_together(self):
        lines = [epilogue(f"{name} weight gradient, fp32, added, row sums", *times) for name, times in
                 (("qkv", (300, 290, 50)), ("proj", (130, 100, 20)), ("fc", (400, 390, 70)), ("fcproj", (410, 390, 20)))]
        self.assertEqual(self.row("bias gradients", *lines), ["one kernel; 1240 us a layer; apart 1330 us", "in the product"])
        self.assertEqual(self.row("bias gradients", *lines[1:])[0], "not measured")
        lines[0]["fused_us"] = None
        self.assertEqual(self.row("bias gradients", *lines)[1], "apart")

    def test_the_residual_is_decided_by_whole_steps(self):
        lines = [epilogue(f"{name} forward, bias, residual added", 150, 100, 130, left=70) for name in ("proj", "fcproj")]
        self.assertEqual(self.row("residual", *lines)[1], "matmul")
        self.assertEqual(self.row("residual", *lines, step("residual", "matmul", 99.5), step("residual", "norm", 100))[1], "norm")
        self.assertEqual(self.row("residual", step("residual", "matmul", 98), step("residual", "norm", 100))[1], "matmul")

    def test_attention(self):
        case = [attention((200, 500), (150, 400)), attention((100, 200), (150, 250), T=256), attention((100, 200), (101, 201), T=4096)]
        self.assertEqual(self.row("attention of heads of 64, us", case[0], case[2])[1], "cuDNN")
        self.assertEqual(self.row("attention of heads of 64, us", *case)[1], "own, but the other at T=1024 NKV=12")
        self.assertEqual(self.row("attention of heads of 96, us", attention((9, 9), (1, None), size=96)),
                         ["T=1024 NKV=12: own 9/9, cuDNN 1/-", "own"])
        self.assertEqual(self.row("attention of heads of 64, det", attention((9, 9), (5, 5), deterministic=1))[1], "cuDNN")

    def test_timed_selection(self):
        products = [product("a", 12, 100, 90), product("b", 0, 100, 1), product("c", 1, 1000, 1000), product("d", 1, None, None)]
        self.assertEqual(self.row("timed", *products)[0], "products of a micro-step: 2.20 ms first, 2.08 ms timed (5.5% less)")
        self.assertEqual(self.row("timed", step("autotune", "on", 98), step("autotune", "off", 100))[1], "timed")
        self.assertEqual(self.row("timed", step("autotune", "on", 99.5), step("autotune", "off", 100))[1][:12], "first choice")

    def test_graphs(self):
        self.assertEqual(self.row("graphs at B=4", step("graphs", "on", 10, 4), step("graphs", "off", 11, 4)),
                         ["10.0 ms a step with, 11.0 ms without", "on"])
        self.assertEqual(self.row("graphs at B=64", step("graphs", "on", 11), step("graphs", "off", 10))[1], "off")
        self.assertEqual(self.row("graphs at B=8", step("graphs", "on", 11, 8))[0], "not measured")

    def test_a_probe_that_was_ended_in_a_line(self):
        whole, said = json.dumps(step("graphs", "on", 11)), io.StringIO()
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(work, "probe.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"{whole}\n{whole[:20]}{whole}\n{whole}\n{whole[:9]}")
            with contextlib.redirect_stderr(said):
                lines = gpu_decisions.lines_of(path)
        self.assertEqual(lines, [step("graphs", "on", 11)] * 2)
        self.assertRegex(said.getvalue(), "line 2 is no JSON.*\n.*line 4 is no JSON")


if __name__ == "__main__":
    unittest.main()
