"""Tests of sweep_file.py."""
import glob
import os
import unittest

import sweep_file
from runs import RunError
from sweep_test import Directory


class FileTest(Directory):
    def sweep(self, text, full=False):
        return sweep_file.read_sweep(self.write("s.ini", text), full)

    def refused(self, text, *words, full=False):
        with self.assertRaises(RunError) as caught:
            self.sweep(text, full)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_a_grid_is_every_combination(self):
        found = self.sweep("[options]\nn_layer = 2\n[grid]\nnorm = rmsnorm, none  # two\nlr = 1e-3, 1e-2\n")
        self.assertEqual([run.name for run in found.runs], ["norm=rmsnorm,lr=1e-3", "norm=rmsnorm,lr=1e-2", "norm=none,lr=1e-3", "norm=none,lr=1e-2"])
        self.assertEqual(found.runs[1].options, {"n-layer": "2", "norm": "rmsnorm", "lr": "1e-2"})
        self.assertEqual((found.x, found.runs[0].then, found.title), ("lr", None, "s"))

    def test_a_list_with_seeds(self):
        found = self.sweep("[sweep]\nseeds = 1, 2\ntitle = A title\n[options]\nlr = 1\n[run a]\nlr = 2\n[run b]\n")
        self.assertEqual([(run.name, run.label, run.options) for run in found.runs],
                         [("a,seed=1", "a", {"lr": "2", "seed": "1"}), ("a,seed=2", "a", {"lr": "2", "seed": "2"}),
                          ("b,seed=1", "b", {"lr": "1", "seed": "1"}), ("b,seed=2", "b", {"lr": "1", "seed": "2"})])
        self.assertEqual((found.title, found.x), ("A title", ""))

    def test_names_are_safe_for_files(self):
        found = self.sweep("[grid]\ntrain-data = a/b*.bin, ../c d\nseed = 1, 2\n")
        self.assertEqual([run.name for run in found.runs][::2], ["train-data=a_b_.bin,seed=1", "train-data=.._c_d,seed=1"])
        self.assertEqual(found.runs[0].label, "train-data=a/b*.bin")

    def test_a_second_stage_has_the_options_of_the_first(self):
        found = self.sweep("[options]\nlr = 1\nsteps = 5\n[grid]\nseed = 3\n[then]\nsteps = 9\n")
        self.assertEqual(found.runs[0].then, {"lr": "1", "steps": "9", "seed": "3"})

    def test_full_replaces_options_grid_seeds_runs_and_then(self):
        text = "[sweep]\nseeds = 1, 2\n[options]\nsteps = 5\n[grid]\nlr = 1, 2\n[then]\nsteps = 6\n" \
               "[full]\nlr = 3, 4, 5\nseed = 7\nbatch = 8\n[full then]\nsteps = 60\n"
        self.assertEqual([run.name for run in self.sweep(text).runs], ["lr=1,seed=1", "lr=1,seed=2", "lr=2,seed=1", "lr=2,seed=2"])
        found = self.sweep(text, full=True)
        self.assertEqual([run.name for run in found.runs], ["lr=3,seed=7", "lr=4,seed=7", "lr=5,seed=7"])
        self.assertEqual(found.runs[0].options, {"steps": "5", "batch": "8", "lr": "3", "seed": "7"})
        self.assertEqual(found.runs[0].then["steps"], "60")
        found = self.sweep("[run a]\nlr = 1\n[full run a]\nlr = 2\n", full=True)
        self.assertEqual(found.runs[0].options, {"lr": "2"})

    def test_x_is_the_only_number_of_a_grid(self):
        self.assertEqual(self.sweep("[grid]\nlr = 1\nbatch = 2, 4\nnorm = a, b\nseed = 1, 2\n").x, "batch")
        self.assertEqual(self.sweep("[grid]\nlr = 1, 2\nbatch = 2, 4\n").x, "")
        listed = self.sweep("[sweep]\nx = n_layer\nlines = n_head, lr\n[run a]\nn-layer = 1\nn-head = 2\n[options]\nlr = 1\n")
        self.assertEqual((listed.x, listed.lines), ("n-layer", ["n-head", "lr"]))

    def test_bad_files_are_named_with_their_line(self):
        grid = "[grid]\nlr = 1, 2\n"
        self.refused("lr = 1\n", "s.ini, line 1", "before any section")
        self.refused(grid + "nonsense\n", "s.ini, line 3", "nonsense")
        self.refused(grid + "[grid]\n", "line 3", "[grid] already")
        self.refused("[run a]\n[run a]\n", "line 2", "[run a] already")
        self.refused("[grid]\nn_layer = 1\nn-layer = 2\n", "line 3", "n-layer", "twice")
        self.refused(grid + "[optoins]\n", "no section [optoins]")
        self.refused("[DEFAULT]\nlr = 1\n" + grid, "no section [DEFAULT]")
        self.refused(grid + "[sweep]\nname = x\n", "no 'name'", "title")
        self.refused(grid + "[prepare]\ncommands = x\n", "no 'commands'")
        self.refused(grid + "[sweep]\nx = lrr\n", "x in [sweep] is 'lrr'", "no run is given")
        self.refused(grid + "[sweep]\nlines = lr, batch\n", "lines in [sweep] is 'batch'")
        self.refused(grid + "[run a]\n", "a grid or a list")
        self.refused("[options]\nlr = 1\n", "asks for no runs")
        self.refused("", "asks for no runs")
        self.refused("[grid]\n", "the [grid] is empty")
        self.refused("[grid]\nlr =\n", "lr is ''", "a value is missing")
        self.refused("[grid]\nlr = 1,,2\n", "a value is missing")
        self.refused("[grid]\nlr = 1, 1\n", "two runs are called lr=1")
        self.refused("[run ]\n", "[run]", "one word")
        self.refused("[run a/b]\n", "[run a/b]", "one word")
        self.refused("[run ..]\n", "one word")
        self.refused(grid + "[options]\nout = x\n", "out stands in [options]")
        self.refused(grid + "[then]\nmodel = x\n", "model stands in [then]")
        self.refused(grid + "[options]\nlr = 1\n  2\n", "several lines")
        self.refused(grid + "[full then]\n", "[full then]", "no [then]")
        self.refused("[sweep]\nseeds = 1, 2\n[grid]\nseed = 1\n", "leave one out")
        self.refused("[grid]\nlr = %s\n" % ("1" * 300), "more than 200")
        with open(self.path("s.bin"), "wb") as file:
            file.write(b"[grid]\nlr = \xff\n")
        for path, words in ((self.path("s.bin"), "not UTF-8"), (self.path("none"), "No such file"), (self.directory, "cannot read")):
            with self.assertRaisesRegex(RunError, words):
                sweep_file.read_sweep(path)

    def test_the_experiments_are_files_as_these(self):
        paths = glob.glob(os.path.join(os.path.dirname(os.path.abspath(sweep_file.__file__)), "experiments", "*.ini"))
        self.assertGreaterEqual(len(paths), 11)
        for path in paths:
            for full in (False, True):
                found = sweep_file.read_sweep(path, full)
                self.assertTrue(found.question and found.runs, path)


if __name__ == "__main__":
    unittest.main()
