"""Tests of sweep.py with a stand-in for train_gpt, and some with the real one: $TRAIN_GPT, or ./train_gpt of this repository."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import sweep
import sweep_report
from runs import RunError

HERE = os.path.dirname(os.path.abspath(sweep.__file__))
SCRIPT = os.path.join(HERE, "sweep.py")
REAL = os.path.abspath(os.environ.get("TRAIN_GPT") or os.path.join(HERE, "..", "train_gpt"))
CHARACTERS = os.path.join(HERE, "..", "data", "characters", "train.bin")
TINY = "n-layer = 1\nn-head = 1\nn-embd = 16\nseq-len = 16\nbatch = 2\ngrad-accum = 1\neval-batches = 2\nsample-tokens = 0\ncurve = 0\n" \
       "steps = 6\neval-every = 3\n"

# What sweep.py sees of train_gpt. Its loss is its lr; lr=9 diverges, lr=8 fails; lr=7 waits for a signal, unless it is resumed. It leaves a note of
# every start and its environment in the file $STARTS.
STAND_IN = '''#!{python}
import json, os, signal, sys
options = dict(a[2:].split("=", 1) for a in sys.argv[1:] if "=" in a)
if "lrr" in options: sys.exit("train_gpt: unknown option '--lrr'; the nearest is --lr (--help lists them all)")
if "--print-config" in sys.argv: sys.exit(0)
out, lr = options["out"], float(options.get("lr", 1))
if "--eval-only" in sys.argv:
    sys.exit(print("train loss 1.0 | val loss 4.25 | val ppl 1"))
with open(os.environ["STARTS"], "a") as f:
    print(os.path.basename(out), os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES"), options.get("resume"), file=f)
os.makedirs(out, exist_ok=True)
typed = dict((k.replace("-", "_"), v) for k, v in options.items())
typed["lr"], typed["seed"] = lr, int(options.get("seed", 1))
info = {{"format": 1, "options": typed, "data": {{"vocab_size": 65}}, "starts": [{{"command": sys.argv}}], "end": None}}
def end(status):
    if status: info["end"] = {{"status": status, "step": 2, "tokens": 9, "elapsed_s": 1.0, "best_val_loss": lr, "peak_memory": 9}}
    json.dump(info, open(out + "/run.json", "w"))
end(None)
def line(step):
    with open(out + "/log.jsonl", "a") as log:
        print(json.dumps({{"step": step, "tokens": 4, "loss": 4.0, "val_loss": lr, "elapsed_s": 1.0, "tokens_per_s": 5.0}}), file=log)
line(1)
if lr == 8: sys.exit("train_gpt: the disk is full")
if lr == 9: end("diverged"); sys.exit("train_gpt: step 2: the loss is nan and the gradient norm 1.0; no parameter was changed in it")
if lr == 7 and "resume" not in options:
    def stop(number, frame):
        os.makedirs(out + "/last"); end("interrupted"); sys.exit(130)
    signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
    os.write(os.open(os.environ["WAITING"], os.O_WRONLY), b"x%d\\n" % os.getpid())
    while True: signal.pause()
line(2)
end("done")
'''


class Directory(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def read(self, *parts):
        with open(self.path(*parts), encoding="utf-8") as file:
            return file.read()


class WordsTest(Directory):
    def test_what_a_run_says_at_its_end(self):
        path = self.write("a.txt", "step 1\ntrain_gpt: step 3: the loss is inf and the gradient norm nan; no\nmpi: words\n")
        self.assertEqual(sweep.last_words(path), "train_gpt: step 3: the loss is inf and the gradient norm nan; no")
        self.assertEqual(sweep.last_words(self.path("none")), "")

    def test_numbers_on_an_axis_are_short(self):
        self.assertEqual([sweep_report.tick(value) for value in (1e-4, 0.003, 0.1, 1, 10, 0.0)], ["1e-4", "3e-3", "0.1", "1", "10", "0"])

    def test_options_are_equal_however_numbers_are_written(self):
        self.assertEqual(sweep.given(["--lr=1e-3", "--out=a", "-x", "4"]), sweep.given(["--lr=2", "--lr=0.001", "--resume=auto", "-x", "4"]))
        self.assertNotEqual(sweep.given(["--lr=1e-3"]), sweep.given(["--lr=1e-4"]))
        self.assertNotEqual(sweep.given(["--norm=none"]), sweep.given([]))

    def test_devices(self):
        self.assertEqual(sweep.devices_of(None, "0, 3"), [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}])
        for jobs, gpus in ((2, "0"), (0, None), (-1, None), (None, "0,,1"), (None, "1,1"), (None, "")):
            with self.assertRaises(RunError):
                sweep.devices_of(jobs, gpus)

    def test_loss_before_a_second_stage(self):
        self.assertEqual(sweep_report.loss_before(self.write("b", "model x\ntrain loss 2.5 | val loss 2.25 | val ppl 9\n")), 2.25)
        self.assertIsNone(sweep_report.loss_before(self.write("b", "model x\n")))


class Commands(Directory):
    """sweep.py as one types it, with the stand-in."""

    def setUp(self):
        super().setUp()
        program = self.write("stand_in", STAND_IN.format(python=sys.executable))
        os.chmod(program, 0o755)
        self.starts = self.path("starts")
        os.mkfifo(self.path("waiting"))
        self.environment = dict(os.environ, TRAIN_GPT=program, STARTS=self.starts, WAITING=self.path("waiting"))
        self.environment.pop("OMP_NUM_THREADS", None)

    def command(self, text, *arguments):
        return [sys.executable, SCRIPT, self.write("s.ini", text), "-o", self.path("o"), *arguments]

    def run_sweep(self, text, *arguments):
        done = subprocess.run(self.command(text, *arguments), env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def started(self):
        """The names of what was started since the last call."""
        if not os.path.exists(self.starts):
            return []
        with open(self.starts, encoding="utf-8") as file:
            names = [line.split() for line in file]
        os.remove(self.starts)
        return sorted(names)


class CommandTest(Commands):
    def test_runs_then_skips_what_is_done(self):
        text = "[sweep]\nquestion = What is best?\n[grid]\nlr = 1, 2, 3\n"
        done = self.run_sweep(text)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual([start[0] for start in self.started()], ["lr=1", "lr=2", "lr=3"])
        self.assertIn("3/3  lr=3: best validation loss 3.0000", done.stdout)
        table = self.read("o", "table.md")
        self.assertIn("| lr=2 ", table)
        self.assertIn("What is best?", table)
        self.assertIn(table, done.stdout)
        self.assertIn("--lr=2", self.read("o", "lr=2.txt"))
        again = self.run_sweep(text.replace("3\n", "3.0, 4\n").replace("lr = 1", "lr = 1.0"))
        self.assertEqual(again.returncode, 0)
        self.assertEqual([start[0] for start in self.started()], ["lr=1.0", "lr=3.0", "lr=4"])   # names are as they are written
        self.assertIn("lr=2: done before", again.stdout)

    def test_changed_options_are_named_and_nothing_starts(self):
        self.run_sweep("[options]\nbatch = 2\n[grid]\nlr = 1, 2\n")
        self.started()
        for text, more in (("[options]\nbatch = 4\n[grid]\nlr = 1, 2, 3\n", []), ("[grid]\nlr = 1, 2\n", []),
                           ("[options]\nbatch = 2\n[grid]\nlr = 1, 2\n", ["--", "-x", "9"])):
            done = self.run_sweep(text, *more)
            self.assertEqual((done.returncode, self.started()), (1, []))
            self.assertRegex(done.stderr, "^sweep.py: .* other options .*: lr=1; lr=2; .*\n$")

    def test_divergence_is_noted_and_failure_named_after_the_others(self):
        text = "[grid]\nlr = 8, 9, 1\n"
        done = self.run_sweep(text)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "sweep.py: 1 of 3 runs failed; lr=8 failed: train_gpt: the disk is full\n")
        self.assertEqual(len(self.started()), 3)
        table = self.read("o", "table.md")
        self.assertIn("- lr=9 diverged at step 2", table)
        self.assertRegex(table, r"\| lr=9 .*\| diverged \|")
        self.assertIn("lr=9: diverged at step 2", done.stdout)
        self.assertEqual(self.run_sweep(text).returncode, 1)
        self.assertEqual([start[0] for start in self.started()], ["lr=8"])
        done = self.run_sweep("[grid]\nlr = 9, 1\n")
        self.assertEqual((done.returncode, self.started()), (0, []))

    def test_a_signal_reaches_the_runs_and_the_next_start_goes_on(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                shutil.rmtree(self.path("o"), ignore_errors=True)
                text = "[grid]\nlr = 1, 7, 2\n"
                process = subprocess.Popen(self.command(text), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
                self.addCleanup(process.terminate)   # a sweep takes its runs with it
                with open(self.path("waiting"), "rb") as waiting:
                    self.assertEqual(waiting.read(1), b"x")
                process.send_signal(number)
                out, errors = process.communicate(timeout=60)
                self.assertEqual((process.returncode, errors), (130, "sweep.py: interrupted; the same command goes on\n"), out)
                self.assertEqual([start[0] for start in self.started()], ["lr=1", "lr=7"])
                self.assertFalse(os.path.exists(self.path("o", "lr=2.txt")))
                listed = self.run_sweep(text, "--list").stdout
                for name, state in (("lr=1", "done"), ("lr=7", "started"), ("lr=2", "to do")):
                    self.assertIn(f"{name}  ({state})", listed)
                self.assertEqual(self.run_sweep(text).returncode, 0)
                self.assertEqual([(start[0], start[3]) for start in self.started()], [("lr=2", "None"), ("lr=7", "auto")])

    def test_what_a_killed_sweep_left_running_is_not_started_again(self):
        text = "[grid]\nlr = 7, 2\n"
        process = subprocess.Popen(self.command(text), env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.terminate)
        with open(self.path("waiting"), "rb") as waiting:
            left = int(waiting.readline()[1:])
            self.assertIn("another sweep is at work", self.run_sweep(text).stderr)
            process.kill()
            process.wait()
            self.assertIn("or a run of one that was killed", self.run_sweep(text).stderr)
            self.assertEqual([start[0] for start in self.started()], ["lr=7"])
            os.kill(left, signal.SIGTERM)
            self.assertEqual(waiting.read(), b"")   # until it has ended
        self.assertEqual(self.run_sweep(text).returncode, 0)
        self.assertEqual([(start[0], start[3]) for start in self.started()], [("lr=2", "None"), ("lr=7", "auto")])

    def test_jobs_share_the_cores_and_gpus_the_runs(self):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.run_sweep("[grid]\nlr = 1, 2\n", "--jobs", "2")
        self.assertEqual([start[1] for start in self.started()], [str(max(1, cores // 2))] * 2)
        self.run_sweep("[grid]\nlr = 3, 4\n", "--gpus", "4,5")
        self.assertLessEqual({start[2] for start in self.started()}, {"4", "5"})
        self.environment["OMP_NUM_THREADS"] = "3"
        self.run_sweep("[grid]\nlr = 5\n", "--jobs", "2")
        self.assertEqual([start[1] for start in self.started()], ["3"])

    def test_a_second_stage(self):
        text = "[grid]\nlr = 1, 9\n[then]\nseq-len = 256\n"
        self.assertEqual(self.run_sweep(text).returncode, 0)
        self.assertEqual([start[0] for start in self.started()], ["lr=1", "lr=1,then", "lr=9"])
        self.assertIn("--model=" + self.path("o", "lr=1", "last"), self.read("o", "lr=1,then.txt"))
        table = self.read("o", "table.md")
        self.assertIn("| lr=1 | 1.0000 | 4.2500 | 1.0000 |", table)
        self.assertEqual((self.run_sweep(text).returncode, self.started()), (0, []))

    def test_all_is_checked_before_anything_starts(self):
        done = self.run_sweep("[prepare]\ncommand = touch %s\n[run a]\n[run b]\nlrr = 1\n" % self.path("touched"))
        self.assertEqual((done.returncode, self.started(), os.path.exists(self.path("touched"))), (1, [], False))
        self.assertRegex(done.stderr, "^sweep.py: .*s.ini, run b: train_gpt: unknown option '--lrr'.*\n$")

    def test_prepare_runs_line_by_line(self):
        done = self.run_sweep("[prepare]\ncommand = echo one >%s\n    false\n    touch %s\n[run a]\n" % (self.path("one"), self.path("two")))
        self.assertEqual((done.returncode, self.started()), (1, []))
        self.assertIn("[prepare] ended with status 1", done.stderr)
        self.assertTrue(os.path.exists(self.path("one")) and not os.path.exists(self.path("two")))

    def test_what_cannot_stand_on_the_command_line(self):
        for arguments in (["--", "-o", "x"], ["--", "--out=x"], ["--", "--eval_only"], ["--", "-h"], ["--jobs", "x"], ["--frobnicate"]):
            self.assertEqual(self.run_sweep("[grid]\nlr = 1\n", *arguments).returncode, 2, arguments)
        for arguments in (["--jobs", "0"], ["--gpus", "0", "--jobs", "2"]):
            self.assertEqual(self.run_sweep("[grid]\nlr = 1\n", *arguments).returncode, 1, arguments)
        self.environment["TRAIN_GPT"] = self.path("nothing")
        self.assertIn("there is no program", self.run_sweep("[grid]\nlr = 1\n").stderr)

    def test_a_file_in_the_way_fails_one_run(self):
        os.makedirs(self.path("o", "lr=1.txt"))
        done = self.run_sweep("[grid]\nlr = 1, 2\n")
        self.assertEqual((done.returncode, [start[0] for start in self.started()]), (1, ["lr=2"]))
        self.assertEqual(done.stderr, "sweep.py: 1 of 2 runs failed; lr=1 failed: Is a directory\n")

    def test_a_damaged_record(self):
        for content, words in (("{", "not JSON"), ('{"format": 2}', "format 2"), ('{"format": 1}', "does not tell the command")):
            os.makedirs(self.path("o", "lr=1"), exist_ok=True)
            self.write("o/lr=1/run.json", content)
            done = self.run_sweep("[grid]\nlr = 1\n")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, f"^sweep.py: .*{words}.*\n$")


@unittest.skipUnless(os.access(REAL, os.X_OK) and os.path.exists(CHARACTERS), f"there is no {REAL} or no data/characters")
class RealTest(Commands):
    """What train_gpt has a part in."""

    def setUp(self):
        super().setUp()
        self.environment.update(TRAIN_GPT=REAL, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")

    def test_a_grid_with_a_second_stage(self):
        text = f"[sweep]\nseeds = 1, 2\n[options]\n{TINY}max-seq-len = 32\n[grid]\npos = learned, none\n[then]\nseq-len = 32\nsteps = 2\n"
        done = self.run_sweep(text, "--jobs", "2")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        table = self.read("o", "table.md")
        self.assertRegex(table, r"\| pos=learned +\| +2 \| ")
        self.assertRegex(table, r"\| pos=none \| 4\.\d+ ± 0\.\d+ \(2\) \| 4\.\d+ ± 0\.\d+ \(2\) \| 4\.\d+ ± 0\.\d+ \(2\) \|")
        again = self.run_sweep(text, "--jobs", "2")
        self.assertEqual((again.returncode, again.stdout.count("done before")), (0, 4))

    def test_divergence(self):
        text = f"[options]\n{TINY}optimizer = sgd\ngrad-clip = 0\nwarmup = 0\nnorm = none\n[grid]\nlr = 0.1, 1000\n"
        done = self.run_sweep(text)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertRegex(self.read("o", "table.md"), r"- lr=1000 diverged at step \d")
        self.assertIn("diverged at step", self.run_sweep(text).stdout)

    def test_an_interrupted_run_goes_on(self):
        text = f"[options]\n{TINY}[run long]\nsteps = 1000000\neval-every = 0\nlog-every = 1\n"
        log = self.path("o", "long.txt")
        process = subprocess.Popen(self.command(text), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.terminate)   # a sweep takes its runs with it
        deadline = time.monotonic() + 60
        while not (os.path.exists(log) and re.search(r"step +1/", self.read("o", "long.txt"))):
            self.assertIsNone(process.poll(), "it ended by itself")
            self.assertLess(time.monotonic(), deadline, "no step within a minute")
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        with open(self.path("o", "long", "run.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["end"]["status"], "interrupted")
        self.assertIn("long  (started)", self.run_sweep(text, "--list").stdout)

    def test_options_that_train_gpt_refuses(self):
        done = self.run_sweep("[grid]\nnorm = rmsnorm, bad\n")
        self.assertRegex(done.stderr, r"^sweep.py: .*s.ini, run norm=bad: train_gpt: --norm is 'bad'; expected one of .*\n$")
        done = self.run_sweep("[run a]\n[then]\nseq-len = zero\n")
        self.assertRegex(done.stderr, r"^sweep.py: .*run a in \[then\]: train_gpt: --seq-len is 'zero'.*\n$")


if __name__ == "__main__":
    unittest.main()
