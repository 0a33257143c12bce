"""Tests of runs.py on made-up runs, and on a real one of $TRAIN_GPT, or ./train_gpt of this repository."""
import contextlib
import importlib
import io
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import runs as runs_of

HERE = os.path.dirname(os.path.abspath(runs_of.__file__))
TRAIN_GPT = os.path.abspath(os.environ.get("TRAIN_GPT") or os.path.join(HERE, "..", "train_gpt"))
OPTIONS = {"model": "baby", "n_layer": 2, "tie": True, "norm": "layernorm", "lr": 0.003, "train_data": "t.bin", "val_data": "v.bin",
           "vocab_size": 0, "steps": 100, "seed": 1, "out": "out"}
DATA = {"train": {"path": "t.bin", "files": 1, "tokens": 9000, "crc32": "000000aa"}, "val": {"path": "v.bin", "files": 1, "tokens": 900,
        "crc32": "000000bb"}, "vocab_size": 65, "source": "a test"}
END = {"status": "done", "time": "2026-11-23T12:40:00Z", "step": 100, "tokens": 102400, "elapsed_s": 50.5, "best_val_loss": 2.0,
       "peak_memory": 2097152}


def record(step, loss, **more):
    return dict({"step": step, "tokens": 1024, "loss": loss, "lr": 0.001, "grad_norm": 1.5, "tokens_per_s": 2000.0, "elapsed_s": step / 2}, **more)


def learning(floor=2.0, steps=100, every=10):
    """Lines of a log that goes from 4.1 to the floor, evaluated at every second line."""
    lines = []
    for step in [1] + list(range(every, steps + 1, every)):
        loss = floor + (4.1 - floor) * math.exp(-5 * step / steps)
        lines.append(record(step, loss, tokens_seen=1024 * step, **({"val_loss": loss + 0.05} if step % (2 * every) == 0 else {})))
    return lines


class Directory(unittest.TestCase):
    """Tests in a directory of their own, in which made-up runs are written."""

    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)

    def write(self, path, content):
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    def write_run(self, name, records=None, info=True, end=END, tail="", parameters=1000, **options):
        os.makedirs(name, exist_ok=True)
        lines = learning() if records is None else records
        self.write(os.path.join(name, "log.jsonl"), "".join(json.dumps(r) + "\n" for r in lines) + tail)
        if info:
            start = {"time": "2026-11-23T12:30:00Z", "host": "h", "command": ["./train_gpt"], "step": 0, "device": "cpu", "dtype": "fp32",
                     "ranks": 1, "commit": "3c75569"}
            self.write(os.path.join(name, "run.json"), json.dumps({"format": 1, "program": "train_gpt", "commit": "3c75569", "options":
                       dict(OPTIONS, out=name, **options), "model": {"parameters": parameters}, "data": DATA, "starts": [start], "end": end}))
        return name

    def read(self, *names):
        return [runs_of.read_run(name) for name in names]

    def script(self, name, *arguments):
        """(status, standard output, standard error) of a script, run in this process: an exception that it lets through is the test's."""
        module, output, errors, status = importlib.import_module(name[:-3]), io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), unittest.mock.patch("sys.argv", [name] + list(arguments)):
            try:
                runs_of.main_of(module.main, name)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
        return status, output.getvalue(), errors.getvalue()

    def program(self, name, *arguments, **more):
        """The same of a process of its own; a traceback is a failure whatever the test expects."""
        done = subprocess.run([sys.executable, os.path.join(HERE, name)] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, encoding="utf-8", timeout=120, **more)
        self.assertNotIn("Traceback", done.stderr)
        return done.returncode, done.stdout, done.stderr

    def refused(self, sentence, name, *arguments):
        status, _, errors = self.script(name, *arguments)
        self.assertEqual(status, 1, errors)
        self.assertRegex(errors, rf"^{name}: .*{sentence}")
        self.assertEqual(errors.count("\n"), 1, errors)


class ReadTest(Directory):
    def test_a_run_is_read(self):
        run = runs_of.read_run(self.write_run("a") + "/")
        self.assertEqual((run.path, run.name, run.status, run.finished, run.diverged, run.notes), ("a", "a", "done", True, False, []))
        self.assertEqual((run.steps, run.tokens_per_s, run.elapsed_s, run.peak_memory, run.vocabulary), (100, 2000.0, 50.5, 2097152, 65))
        self.assertAlmostEqual(run.final_val, 2.05 + 2.1 * math.exp(-5))
        self.assertEqual(runs_of.read_run("a/log.jsonl").options, run.options)

    def test_best_is_not_last(self):
        lines = [record(1, 4.0), record(2, 3.0, val_loss=2.5, val_bits_per_byte=3.5), record(3, 2.0, val_loss=2.75, val_bits_per_byte=4.0)]
        run, = self.read(self.write_run("a", lines))
        self.assertEqual((run.best_val, run.final_val, run.val_bits_per_byte), (2.5, 2.75, 4.0))

    def test_an_older_run_has_no_options(self):
        run, = self.read(self.write_run("a", info=False))
        self.assertEqual((run.info, run.options, run.status, run.finished, run.peak_memory), (None, {}, None, False, None))

    def test_a_half_written_last_line_is_left_out_and_named(self):
        run, = self.read(self.write_run("a", [record(1, 4.0), record(2, 3.0)], tail='{"step": 3, "lo'))
        self.assertEqual(([r["step"] for r in run.records], run.notes), ([1, 2], ["a/log.jsonl: the last line, 3, is cut short; left out"]))

    def test_broken_lines_in_the_middle_are_left_out_and_named(self):
        self.write_run("a", [])
        good = json.dumps(record(1, 4.0)) + "\n"
        bad = "not JSON\n\n[1]\n" + '{"step": "2"}\n{"step": true}\n' + "[" * 100000 + "\n"
        self.write("a/log.jsonl", good + bad + good.replace('"step": 1', '"step": 9'))
        run, = self.read("a")
        self.assertEqual([r["step"] for r in run.records], [1, 9])
        self.assertRegex(run.notes[0], "5 lines are not objects with a step, the first is line 2")
        self.write("a/log.jsonl", b"\xff\xfe\n" + good.encode())
        self.assertRegex(self.read("a")[0].notes[0], "line 1 is not")

    def test_values_that_are_no_numbers(self):
        lines = [record(1, 4.0), record(2, None, val_loss=None, skipped=True), record(3, "x", grad_norm=10 ** 400), record(4, 3.0)]
        run, = self.read(self.write_run("a", lines, tail='{"step": 5, "loss": NaN, "skipped": true}\n'))
        self.assertEqual(runs_of.series(run, "step", "loss"), ([1, 4], [4.0, 3.0]))
        self.assertEqual(runs_of.series(run, "step", "grad_norm"), ([1, 2, 4], [1.5, 1.5, 1.5]))

    def test_later_lines_replace_those_of_their_steps(self):
        lines = [record(step, 4.0) for step in (1, 2, 3, 4)] + [record(step, 3.0) for step in (3, 4, 4)]
        run, = self.read(self.write_run("a", lines))
        self.assertEqual([(r["step"], r["loss"]) for r in run.records], [(1, 4.0), (2, 4.0), (3, 3.0), (4, 3.0)])
        self.assertRegex(run.notes[0], "3 lines were left out")

    def test_a_long_log_is_thinned_but_keeps_what_counts(self):
        lines = [record(step, 4.0 if step != 777 else None, **({"val_loss": 3.0} if step % 500 == 0 else {})) for step in range(1, 5001)]
        self.write_run("a", lines)
        run = runs_of.read_run("a", most=100)
        steps = [r["step"] for r in run.records]
        self.assertLess(len(steps), 250)
        self.assertEqual(steps, sorted(set(steps)))
        self.assertTrue({1, 777, 500, 1000, 5000} <= set(steps))
        self.assertLess(max(b - a for a, b in zip(steps, steps[1:])), 150)
        self.assertEqual(len(runs_of.read_run("a").records), 5000)

    def test_stats_are_left_out_on_demand(self):
        self.write_run("a", [record(1, 4.0, stats={"weights": {"wte": [1]}})])
        self.assertIn("stats", runs_of.read_run("a").records[0])
        self.assertNotIn("stats", runs_of.read_run("a", stats=False).records[0])

    def test_what_is_no_run_is_refused_by_name(self):
        os.mkdir("empty")
        self.write("file", "x")
        self.write_run("other")
        for content, sentence in (('{"format": 2}', "other/run.json is of format 2, and this program reads format 1"), ("[]", "format null"),
                                  ("{", "other/run.json is not JSON"), ('{"format": true}', "format true"), (b"\xff", "not JSON")):
            self.write("other/run.json", content)
            with self.assertRaisesRegex(runs_of.RunError, sentence):
                runs_of.read_run("other")
        for path, sentence in (("nowhere", "there is no nowhere"), ("empty", "empty is not a run")):
            with self.assertRaisesRegex(runs_of.RunError, sentence):
                runs_of.read_run(path)
        self.assertEqual(runs_of.read_run("file").records, [])

    def test_a_run_without_steps_yet(self):
        run, = self.read(self.write_run("a", [], end=None))
        self.assertEqual((run.records, run.final_val, run.best_val, run.tokens_per_s), ([], None, None, None))
        self.assertEqual((run.diverged, run.status), (False, "running"))
        os.remove("a/log.jsonl")
        self.assertEqual(runs_of.read_run("a").records, [])

    def test_wrong_types_in_run_json(self):
        for key in ("options", "data", "end", "starts"):
            for value in (None, 1, "x", [1], {"status": 1, "vocab_size": "x", "train": 1}):
                self.write_run("a")
                with open("a/run.json", encoding="utf-8") as file:
                    info = json.load(file)
                info[key] = value
                self.write("a/run.json", json.dumps(info))
                run, = self.read("a")
                runs_of.groups([run, run])
                self.assertIsNotNone((run.finished, run.diverged, run.steps, run.status, run.best_val))


class StatusTest(Directory):
    def diverged(self, losses, vocabulary=65, **more):
        self.write_run("a", [record(step + 1, loss, **(more if step == len(losses) - 1 else {})) for step, loss in enumerate(losses)])
        if not vocabulary:
            os.remove("a/run.json")
        return runs_of.read_run("a").diverged

    def test_what_counts_as_diverged(self):
        self.assertFalse(self.diverged([4.2, 3.0, 2.0]))
        self.assertTrue(self.diverged([4.2, None]))
        self.assertTrue(self.diverged([4.2, 3.0, 4.3]))
        self.assertFalse(self.diverged([4.6, 3.0, 4.3]), "no worse than it began")
        self.assertFalse(self.diverged([3.0, 2.0, 4.1]), "still better than guessing: ln 65 = 4.17")
        self.assertTrue(self.diverged([3.0, 2.0, 4.1], vocabulary=0))
        self.assertTrue(self.diverged([4.2, 3.0], val_loss=5.0), "the validation loss is what counts")
        self.assertFalse(self.diverged([4.2, 9.0], val_loss=2.0))
        self.assertFalse(self.diverged([4.2, 4.21]), "nothing learned yet is no divergence")
        self.assertTrue(self.diverged([4.2, None, 2.0]), "whatever comes later")
        self.assertFalse(self.diverged([4.2, None], skipped=True), "its update was left out")
        for loss, diverged in ((4.5, False), (4.7, True), (80.0, True)):
            self.write_run("a", [record(1, 4.2), record(2, 90.0, val_loss=loss), record(3, 3.3, val_loss=3.3)])
            self.assertEqual(runs_of.read_run("a").diverged, diverged, "came back; a tenth above 4.2 is 4.62")
        for losses, diverged in (([4.2, 0.1], False), ([4.2, 5.0], True)):
            self.write_run("a", [record(1, losses[0]), record(2, losses[1], val_loss=9.0)], overfit=True)
            self.assertEqual(runs_of.read_run("a").diverged, diverged, "--overfit: only what is learned by heart counts")

    def test_status(self):
        self.write_run("a", end=None)
        self.assertEqual(self.read("a")[0].status, "running")
        os.utime("a/log.jsonl", (1, 1))
        self.assertEqual(self.read("a")[0].status, "killed")
        self.write_run("a", end=dict(END, status="interrupted"))
        self.assertEqual((self.read("a")[0].status, self.read("a")[0].finished), ("interrupted", False))
        self.write_run("a", end=dict(END, status="max-time"))
        self.assertTrue(self.read("a")[0].finished)
        self.write_run("a", [record(1, 4.0), record(2, None)])
        self.assertEqual(self.read("a")[0].status, "diverged")


class SeriesTest(Directory):
    def test_axes(self):
        run, = self.read(self.write_run("a", [record(1, 4.0), record(3, 3.0), record(4, 2.0, tokens=10, tokens_seen=5000), record(6, 1.0, tokens=1)]))
        self.assertEqual(runs_of.series(run, "step", "loss"), ([1, 3, 4, 6], [4.0, 3.0, 2.0, 1.0]))
        self.assertEqual(runs_of.series(run, "time", "loss")[0], [0.5, 1.5, 2.0, 3.0])
        self.assertEqual(runs_of.series(run, "tokens", "loss")[0], [1024, 3072, 5000, 5002])
        self.assertEqual(runs_of.series(run, "tokens", "nothing"), ([], []))
        with self.assertRaises(runs_of.RunError):
            runs_of.series(run, "miles", "loss")


class DifferenceTest(Directory):
    def test_only_what_differs_seed_last(self):
        runs = self.read(self.write_run("a", seed=1), self.write_run("b", seed=2, norm="rmsnorm", lr=1e-3, tie=False))
        self.assertEqual(runs_of.differing(runs), ["tie", "norm", "lr", "seed"])
        self.assertEqual(runs_of.label(runs[1], ["tie", "norm", "lr"]), "tie=no, norm=rmsnorm, lr=0.001")
        self.assertEqual(runs_of.labels(runs)[0], "tie=yes, norm=layernorm, lr=0.003, seed=1")

    def test_older_runs_are_called_by_path(self):
        runs = self.read(self.write_run("a", info=False), self.write_run("b", info=False), self.write_run("c"))
        self.assertEqual((runs_of.differing(runs), runs_of.labels(runs)), ([], ["a", "b", "c"]))
        self.assertEqual([label for label, _ in runs_of.groups(runs)], ["a", "b", "c"])

    def test_an_option_that_an_older_program_lacks_is_no_difference(self):
        runs = self.read(self.write_run("a"), self.write_run("b", new_option=1))
        self.assertEqual(runs_of.differing(runs), [])

    def test_a_table_that_there_is_not_is_no_difference(self):
        short = self.write_run("a", pos="rope", max_seq_len=64, seq_len=64)
        long = self.write_run("b", pos="rope", max_seq_len=128, seq_len=128)
        self.assertEqual(runs_of.differing(self.read(short, long)), ["seq_len"])
        learned = [self.write_run(name, pos="learned", max_seq_len=rows, seq_len=64) for name, rows in (("c", 64), ("d", 128))]
        self.assertEqual(runs_of.labels(self.read(*learned)), ["max-seq-len=64", "max-seq-len=128"])

    def test_seeds_go_together(self):
        names = [self.write_run(f"{norm}-{seed}", norm=norm, seed=seed) for seed in (1, 2, 3) for norm in ("layernorm", "none")]
        found = [(label, [run.name for run in group]) for label, group in runs_of.groups(self.read(*names))]
        self.assertEqual(found, [("norm=layernorm", ["layernorm-1", "layernorm-2", "layernorm-3"]), ("norm=none", ["none-1", "none-2", "none-3"])])
        (label, group), = runs_of.groups(self.read("none-1", "none-2"))
        self.assertEqual((label, len(group)), ("none", 2))

    def test_a_repeated_seed_is_no_further_seed(self):
        runs = self.read(self.write_run("a"), self.write_run("b"), self.write_run("c", seed=2))
        self.assertEqual([(label, len(group)) for label, group in runs_of.groups(runs)], [("a", 2), ("b", 1)])

    def test_data_differ_by_content_not_by_path(self):
        runs = self.read(self.write_run("a"), self.write_run("b", train_data="elsewhere/t.bin", val_data="elsewhere/v.bin"))
        self.assertEqual(runs_of.differing(runs), [])
        data = dict(DATA, train=dict(DATA["train"], crc32="00000001"), val=dict(DATA["val"], crc32="00000002"))
        info = dict(runs[1].info, data=data)
        self.write("b/run.json", json.dumps(info))
        self.assertEqual(runs_of.differing(self.read("a", "b")), ["train_data"])

    def test_runs_that_go_on_from_others_are_told_apart_by_those(self):
        for pos in ("rope", "learned"):
            for seed in (1, 2):
                self.write_run(f"{pos}-{seed}", pos=pos, seed=seed)
                self.write_run(f"{pos}-{seed}-then", model=f"{pos}-{seed}/last", seed=seed)
        runs = self.read("rope-1-then", "rope-2-then", "learned-1-then", "learned-2-then")
        self.assertEqual(runs_of.differing(runs), ["model", "seed"])
        self.assertEqual([len(group) for _, group in runs_of.groups(runs)], [2, 2])
        os.chdir("rope-1")   # the paths in run.json lead nowhere from here
        self.assertEqual([len(group) for _, group in runs_of.groups(self.read("../rope-1-then", "../rope-2-then"))], [2])


class MainTest(Directory):
    def test_a_closed_pipe_ends_quietly(self):
        program = ("import sys; sys.path.insert(0, sys.argv[1]); import runs\n"
                   "runs.main_of(lambda: [print('x' * 1000) for i in range(10000)], 'x.py')")
        child = subprocess.Popen([sys.executable, "-c", program, HERE], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.readline()
        child.stdout.close()
        self.assertEqual((child.stderr.read(), child.wait()), (b"", 1))
        child.stderr.close()

    def test_notes_are_printed(self):
        self.write_run("a", [record(1, 4.0)], tail="broken\n")
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            runs_of.warn_of(self.read("a"), "x.py")
        self.assertRegex(errors.getvalue(), r"^x.py: a/log.jsonl: line 2 is not")


def write_tokens(path, tokens):
    """A shard as llm.c has it."""
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", 20240520, 1, len(tokens), *[0] * 253) + struct.pack(f"<{len(tokens)}H", *tokens))


def train(directory, name, *options):
    """A tiny real run. Returns its directory."""
    for split, first in (("train", 1), ("val", 5)):
        write_tokens(os.path.join(directory, split + ".bin"), [(first + i * i) % 61 for i in range(4000)])
    run = os.path.join(directory, name)
    data = ["-i", os.path.join(directory, "train.bin"), "-j", os.path.join(directory, "val.bin"), "--vocab-size", "61"]
    small = "--n-layer 2 --n-head 2 --n-embd 16 -e learned -t 16 -b 2 -g 1 -x 12 --warmup 2 --eval-every 4 --eval-batches 2 --log-every 2"
    subprocess.run([TRAIN_GPT] + data + small.split() + ["--device", "cpu", "-o", run] + list(options), check=True, stdout=subprocess.DEVNULL,
                   timeout=120, env=dict(os.environ, OMP_NUM_THREADS="1"))
    return run


@unittest.skipUnless(os.access(TRAIN_GPT, os.X_OK), f"there is no program {TRAIN_GPT}")
class RealRunTest(Directory):
    def test_what_the_trainer_writes_is_read(self):
        run, = self.read(train(self.directory, "real"))
        self.assertEqual([r["step"] for r in run.records], [1, 2, 4, 6, 8, 10, 12])
        self.assertEqual(runs_of.series(run, "tokens", "loss")[0][-1], 12 * 32)
        self.assertEqual((len(runs_of.series(run, "step", "val_loss")[0]), run.notes, run.diverged), (3, [], False))
        if run.info is not None:
            self.assertEqual((run.status, run.finished, run.options["pos"], run.options["steps"], run.vocabulary), ("done", True, "learned", 12, 61))
            self.assertAlmostEqual(run.info["end"]["best_val_loss"], run.best_val, places=6)


if __name__ == "__main__":
    unittest.main()
