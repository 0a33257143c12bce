"""Tests of plot.py: what a picture shows is read from the axes, or from the SVG's text; that it looks well is for the eye."""
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import unittest
import unittest.mock

import figures
import plot
import plot_kv_heads
import plot_positions
import plot_stats
import runs as runs_of
from runs_test import HERE, TRAIN_GPT, Directory, learning, record, train

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
needs_matplotlib = unittest.skipUnless(HAS_MATPLOTLIB, f"{sys.executable} has no matplotlib")
PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<?xml"


def safetensors(tensors, cut=0):
    """{name: (dtype, shape, bytes)} as a file."""
    header, data = {}, b""
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return (struct.pack("<Q", len(text)) + text + data)[:-cut or None]


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


class Drawn(Directory):
    """The figure that would be saved is kept instead."""

    def figure_of(self, draw, *arguments, **more):
        with unittest.mock.patch.object(figures, "save") as save:
            draw(*arguments, **more)
        return save.call_args[0][0]

    def legend_of(self, figure):
        axes = figure.axes[0]
        legends = [child for a in figure.axes for child in a.get_children() if type(child).__name__ == "Legend"]
        self.assertTrue(axes)
        return [text.get_text() for legend in legends for text in legend.get_texts()]


@needs_matplotlib
class CurveTest(Drawn):
    def test_one_run(self):
        figure = self.figure_of(plot.draw_curves, self.read(self.write_run("a")), "x.png")
        axes, = figure.axes
        train_line, val_line = axes.get_lines()
        self.assertEqual((list(train_line.get_xdata()), len(val_line.get_xdata())), ([1] + list(range(10, 101, 10)), 5))
        self.assertEqual(self.legend_of(figure), ["training", "validation (best 2.0641)"])
        self.assertEqual((axes.get_xlabel(), axes.get_ylabel()), ("optimizer steps", "loss (nats per token)"))

    def test_axes_in_units(self):
        runs = self.read(self.write_run("a"))
        figure = self.figure_of(plot.draw_curves, runs, "x.png", x="tokens", log_x=True, log_y=True, ymax=3, panels=["lr", "grad_norm"], title="t")
        self.assertEqual([a.get_ylabel() for a in figure.axes], ["loss (nats per token)", "learning rate", "gradient norm"])
        self.assertEqual(figure.axes[0].get_lines()[0].get_xdata()[-1], 102400)
        self.assertEqual((figure.axes[0].get_yscale(), figure.axes[2].get_xscale(), figure.axes[0].get_ylim()[1]), ("log", "log", 3))
        lines = [dict(r, elapsed_s=r["step"] * 60.0) for r in learning()]
        figure = self.figure_of(plot.draw_curves, self.read(self.write_run("b", lines)), "x.png", x="time")
        self.assertEqual((figure.axes[0].get_xlabel(), figure.axes[0].get_lines()[0].get_xdata()[-1]), ("minutes of training", 100))

    def test_smoothing(self):
        self.assertEqual(plot.running_mean([4.0, 2.0, 6.0, 1.0], 2), [4.0, 3.0, 4.0, 3.5])
        self.assertEqual(plot.running_mean([4.0, 1e20, 6.0, 1.0], 2)[-1], 3.5)
        figure = self.figure_of(plot.draw_curves, self.read(self.write_run("a", [record(1, 4.0), record(2, 2.0), record(3, 1.0)])), "x.png", smooth=2)
        self.assertEqual(list(figure.axes[0].get_lines()[0].get_ydata()), [4.0, 3.0, 1.5])

    def test_seeds_share_a_colour_a_mean_and_a_band(self):
        names = [self.write_run(f"{norm}{seed}", learning(floor + seed / 10), norm=norm, seed=seed)
                 for norm, floor in (("layernorm", 2), ("none", 2.5)) for seed in (1, 2, 3)]
        figure = self.figure_of(plot.draw_curves, self.read(*names), "x.png")
        axes = figure.axes[0]
        self.assertEqual({line.get_color() for line in axes.get_lines()}, {"C0", "C1"})
        self.assertEqual(len(axes.collections), 2)
        means = [line for line in axes.get_lines() if line.get_linewidth() > 1.5]
        self.assertAlmostEqual(means[0].get_ydata()[-1], 2.2 + 0.05 + 1.9 * 2.718281828 ** -5, places=6)
        self.assertEqual(self.legend_of(figure)[:2], ["training", "validation"])
        self.assertRegex(self.legend_of(figure)[2], "^norm=layernorm: best 2.26.. \u00b1 0.099., 3 seeds$")

    def test_a_seed_that_was_interrupted_does_not_bend_the_mean(self):
        runs = self.read(self.write_run("a", learning(2.0)), self.write_run("b", learning(3.0)[:5], seed=2))
        xs, means, _ = plot.mean_series(runs, "step", "loss")
        self.assertEqual((xs, len(means)), ([1, 10, 20, 30, 40], 5))

    def test_a_diverged_run_does_not_flatten_the_others(self):
        bad = learning()[:6] + [record(60, 1e6), record(70, None)]
        figure = self.figure_of(plot.draw_curves, self.read(self.write_run("a"), self.write_run("b", bad, lr=1.0)), "x.png")
        self.assertLess(figure.axes[0].get_ylim()[1], 5)
        self.assertIn("lr=1: diverged", self.legend_of(figure))
        spike = [dict(r, loss=99.0) if r["step"] == 50 else r for r in learning()]
        figure = self.figure_of(plot.draw_curves, self.read(self.write_run("a", spike), "b"), "x.png")
        self.assertLess(figure.axes[0].get_ylim()[1], 5)

    def test_a_diverged_seed_is_not_in_the_mean(self):
        bad = learning()[:6] + [record(60, 3.0, val_loss=1e6)]
        figure = self.figure_of(plot.draw_curves, self.read(self.write_run("a"), self.write_run("b", bad, seed=2)), "x.png")
        mean = max(figure.axes[0].get_lines(), key=lambda line: line.get_linewidth())
        self.assertEqual((len(mean.get_ydata()), mean.get_ydata()[-1]), (5, self.read("a")[0].final_val))

    def test_what_matplotlib_cannot_draw(self):
        figure = figures.new_figure(1, 1)
        figure.savefig = lambda *_, **__: [][0]   # as it is for losses of 1e308
        with self.assertRaisesRegex(runs_of.RunError, "matplotlib cannot draw x.png: list index"):
            figures.save(figure, ["x.png"], "the curve")

    def test_a_dollar_is_a_dollar(self):
        self.write_run("a")
        self.assertEqual(self.script("plot.py", "a", "-o", "x.png", "--title", "$x^$")[::2], (0, ""))

    def test_files(self):
        self.write_run("a")
        self.write_run("b", lr=0.5)
        for arguments, made in ((["a"], ["a/curve.png"]), (["a", "b"], ["curve.png"]), (["a", "--formats", "svg,png"], ["a/curve.svg"]),
                                (["a", "-o", "1.png", "-o", "2.svg", "--smooth", "3", "--labels", "x"], ["1.png", "2.svg"]),
                                (["a/log.jsonl"], ["a/curve.png"])):
            status, output, errors = self.script("plot.py", *arguments)
            self.assertEqual((status, errors), (0, ""))
            for name in made:
                self.assertIn(name, output)
                with open(name, "rb") as file:
                    self.assertTrue(file.read().startswith(PNG if name.endswith("png") else SVG))
                os.remove(name)

    def test_the_same_runs_give_the_same_bytes(self):
        self.write_run("a")
        for name in ("1", "2"):
            self.assertEqual(self.program("plot.py", "a", "-o", name, "--formats", "svg,png")[::2], (0, ""))
        for ending in ("svg", "png"):
            with open("1." + ending, "rb") as first, open("2." + ending, "rb") as second:
                self.assertEqual(first.read(), second.read())

    def test_logs_with_holes(self):
        self.write_run("a", [record(1, None), record(2, 3.0, val_loss=None), record(3, "x")])
        self.write_run("b", [{"step": 1}, {"step": 2}], lr=1.0)
        for axis in ("step", "tokens", "time"):
            self.assertEqual(self.script("plot.py", "a", "b", "--x", axis, "--norm", "-o", "x.png")[0], 0)
        self.assertEqual(self.script("plot.py", "a", "b", "--log-x", "--log-y", "-o", "x.png")[0], 0)
        self.refused("does not tell the time of its steps; use --x step", "plot.py", "b", "--x", "time")

    def test_a_broken_line_is_named_and_the_rest_is_drawn(self):
        self.write_run("a", tail="broken\n" + json.dumps(record(200, 2.0)) + "\n")
        status, _, errors = self.script("plot.py", "a")
        self.assertEqual(status, 0)
        self.assertRegex(errors, r"^plot.py: a/log.jsonl: line 12 is not an object with a step; left out\n$")

    @unittest.skipUnless(os.access(TRAIN_GPT, os.X_OK), f"there is no program {TRAIN_GPT}")
    def test_a_real_run(self):
        run = train(self.directory, "real")
        self.assertEqual(self.script("plot.py", run)[0], 0)
        self.assertEqual(self.script("plot.py", "--positions", run, "-o", "p.svg")[0], 0)
        table = plot_positions.table_of(run)
        self.assertEqual(table.shape, (16, 16))
        self.assertTrue(0.005 < table.std() < 0.1)   # 0.02 at the beginning, and little was learned


class RefusalTest(Directory):
    def test_bad_input(self):
        self.write_run("empty", [])
        self.write_run("a")
        self.write_run("other")
        self.write("other/run.json", '{"format": 7}')
        self.refused("there is no nowhere", "plot.py", "nowhere")
        self.refused("empty holds no steps yet", "plot.py", "empty")
        self.refused("of format 7", "plot.py", "other")
        self.refused("does not end in .png, .svg or .pdf", "plot.py", "a", "-o", "a.jpg")
        self.refused("'bmp' is no format", "plot.py", "a", "--formats", "png,bmp")
        self.refused("--stats draws one run", "plot.py", "--stats", "a", "empty")
        self.assertEqual(self.script("plot.py", "a", "--ymax", "nan")[0], 2)
        self.assertEqual(self.script("plot.py", "a", "--smooth", "0")[0], 2)

    @needs_matplotlib
    def test_what_cannot_be_drawn(self):
        self.write_run("a")
        self.refused("cannot write nowhere/x.png: No such file", "plot.py", "a", "-o", "nowhere/x.png")
        self.refused("2 labels for 1 curves", "plot.py", "a", "--labels", "x,y")
        self.refused("train with --stats N", "plot.py", "--stats", "a")
        os.mkdir("taken.png")
        self.refused("cannot write taken.png", "plot.py", "a", "-o", "taken.png")
        self.assertEqual(sorted(os.listdir(".")), ["a", "taken.png"])

    def test_without_matplotlib(self):
        self.write_run("a")
        os.mkdir("broken")
        self.write("broken/matplotlib.py", "raise ImportError\n")
        done = subprocess.run([sys.executable, os.path.join(HERE, "plot.py"), "a"], stderr=subprocess.PIPE, universal_newlines=True,
                              env=dict(os.environ, PYTHONPATH="broken"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^plot.py: matplotlib is missing \(pip install matplotlib.*curve.sh[^\n]*\n$")


@needs_matplotlib
class StatsTest(Drawn):
    def stats(self, step):
        return {"weights": {"wte": [float(step)], "qkvw": [1.0, 2.0 * step]}, "gradients": {"wte": [None], "qkvw": [0.1, 0.2]},
                "activations": {"out": [1.0, 2.0], "lnf": [1.0]}}

    def test_a_panel_for_each_tensor_a_line_for_each_layer(self):
        run, = self.read(self.write_run("a", [record(step, 3.0, stats=self.stats(step)) for step in (1, 5, 9)] + [record(10, 3.0)]))
        figure = self.figure_of(plot_stats.draw, run, ["x.png"])
        self.assertEqual([a.get_title() for a in figure.axes[:6]], ["wte", "qkvw", "wte", "qkvw", "out", "lnf"])
        layers = figure.axes[1].get_lines()
        self.assertEqual([list(line.get_ydata()) for line in layers], [[1, 1, 1], [2, 10, 18]])
        self.assertEqual(list(layers[0].get_xdata()), [1, 5, 9])

    def test_odd_stats(self):
        odd = [self.stats(1), None, {"weights": [1], "gradients": {"wte": 1}}, {"weights": {"wte": [], "qkvw": [1.0, 2.0, "x"]}}]
        self.write_run("a", [record(step, 3.0, stats=stats) for step, stats in enumerate(odd)])
        self.assertEqual(self.script("plot.py", "--stats", "a", "--x", "time", "--log-x")[0], 0)


@needs_matplotlib
class PositionsTest(Drawn):
    def test_every_kind_of_number(self):
        numbers = (1, 2, -3, 0.5)
        bf16 = b"".join(struct.pack("<f", v)[2:] for v in numbers)
        for kind, raw in (("F32", floats(*numbers)), ("F16", struct.pack("<4e", *numbers)), ("F64", struct.pack("<4d", *numbers)), ("BF16", bf16)):
            self.write("m.safetensors", safetensors({"x": ("U8", [3], b"abc"), "transformer.wpe.weight": (kind, [2, 2], raw)}))
            self.assertEqual(plot_positions.table_of("m.safetensors").tolist(), [[1, 2], [-3, 0.5]])

    def test_a_model_in_shards(self):
        os.mkdir("m")
        self.write("m/a.safetensors", safetensors({"wte.weight": ("F32", [1, 2], floats(1, 1))}))
        self.write("m/b.safetensors", safetensors({"wpe.weight": ("F32", [3, 2], floats(0, 0, 3, 4, 6, 8))}))
        self.write("m/model.safetensors.index.json", json.dumps({"weight_map": {"wte.weight": "a.safetensors", "wpe.weight": "b.safetensors"}}))
        figure = self.figure_of(plot_positions.draw, ["m"], ["x.png"])
        self.assertEqual(list(figure.axes[1].get_lines()[0].get_ydata()), [0, 5, 10])
        self.assertEqual(figure.axes[2].get_images()[0].get_array().tolist(), [[0, 0, 0], [0, 1, 1], [0, 1, 1]])
        self.assertEqual(self.script("plot.py", "--positions", "m", "m", "--formats", "png,svg")[1].count("the picture is in positions."), 2)

    def test_bad_files(self):
        table = {"wpe.weight": ("F32", [2, 1], floats(1, 2))}
        nan = {"wpe.weight": ("F32", [1, 1], floats(float("nan")))}
        for content, sentence in ((b"", "not a safetensors"), (b"x" * 100, "not a safetensors"), (struct.pack("<Q", 2) + b"[]", "not a safetensors"),
                                  (safetensors({"wte.weight": ("F32", [1], floats(1))}), "has no learned positions"),
                                  (safetensors(table, 1), "cut short"),
                                  (safetensors({"wpe.weight": ("I8", [1, 1], b"1")}), "not a matrix"), (safetensors(nan), "not finite"),
                                  (safetensors({"wpe.weight": ("F32", [9], floats(1))}), "not a matrix")):
            self.write("m.safetensors", content)
            self.refused(sentence, "plot.py", "--positions", "m.safetensors")
        os.mkdir("m")
        self.refused("holds no model.safetensors", "plot.py", "--positions", "m")
        self.write("m/model.safetensors.index.json", "[]")
        self.refused("not the index of a model", "plot.py", "--positions", "m")


@needs_matplotlib
class KvHeadsTest(Drawn):
    def line(self, **more):
        return dict({"device": "cpu", "dtype": "fp32", "head_size": 32, "seq_len": 256, "batch": 4, "query_heads": 6, "kv_heads": 6,
                     "forward_ms": 4.0, "backward_ms": 8.0, "sublayer_ms": 30.0, "qkv_bytes": 2304, "kv_cache_bytes": 1536}, **more)

    def test_time_and_memory(self):
        lines = [self.line()] + [self.line(kv_heads=1, sublayer_ms=ms, kv_cache_bytes=256) for ms in (20.0, 10.24)]
        self.write("kv.json", "".join(json.dumps(line) + "\n" for line in lines))
        figure = self.figure_of(plot_kv_heads.draw, ["kv.json"], ["x.png"])
        attention, whole, memory = figure.axes
        self.assertEqual(list(attention.get_lines()[0].get_ydata()), [12000 / 1024] * 2)
        self.assertEqual(list(whole.get_lines()[0].get_ydata()), [10, 30000 / 1024])   # what was measured last counts
        self.assertEqual(list(memory.get_lines()[1].get_ydata()), [0.25, 1.5])
        self.assertEqual([text.get_text() for text in whole.get_xticklabels()], ["1", "6"])
        self.assertEqual(self.script("plot.py", "--kv-heads", "kv.json", "-o", "kv.svg")[0], 0)

    def test_bad_files(self):
        for content, sentence in (("", "holds no measurements"), ("| table |\n", "line 1 of kv.json is not JSON"),
                                  ('{"device": "cpu"}\n', "has no dtype"), ("[1]\n", "has no device"),
                                  (json.dumps(self.line(forward_ms=None)) + "\n", "has no forward_ms")):
            self.write("kv.json", content)
            self.refused(sentence, "plot.py", "--kv-heads", "kv.json")
        self.refused("cannot read nowhere", "plot.py", "--kv-heads", "nowhere")


if __name__ == "__main__":
    unittest.main()
