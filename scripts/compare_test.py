"""Tests of compare.py."""
import csv
import io
import json
import math
import statistics
import unittest

import compare
from runs_test import END, Directory, learning, record


class CompareTest(Directory):
    def rows(self, text):
        """The table as lists of cells, without the rule; every line is as wide as the first."""
        lines = text.splitlines()
        self.assertEqual({len(line) for line in lines}, {len(lines[0])})
        self.assertRegex(lines[1], r"^\|[-:|]+\|$")
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]

    def test_a_table(self):
        last = record(100, 1.5, val_loss=2.0, val_bits_per_byte=2.8)
        self.write_run("a", [record(1, 4.0), record(50, 2.0, val_loss=1.9)] + [last])
        self.write_run("b", learning()[:5], lr=0.1, end=dict(END, status="interrupted", elapsed_s=3725, peak_memory=3 << 30))
        status, output, errors = self.script("compare.py", "a", "b")
        self.assertEqual((status, errors), (0, ""))
        heading, a, b = self.rows(output)
        self.assertEqual(heading, ["run", "val loss", "best", "ppl", "bits/byte", "steps", "tok/s", "time", "memory", "status"])
        self.assertEqual(a, ["lr=0.003", "2.0000", "1.9000", "7.39", "2.8000", "100", "2,000", "50s", "2.0 MiB", "done"])
        self.assertEqual(b[4:], ["", "40", "2,000", "1h02m", "3.00 GiB", "interrupted"])

    def test_parameters_where_they_differ(self):
        self.write_run("a", learning(), tie=True, parameters=1234567)
        self.write_run("b", learning(), tie=False, parameters=2345678)
        heading, a, b = self.rows(self.script("compare.py", "a", "b")[1])
        column = heading.index("parameters")
        self.assertEqual((a[column], b[column]), ("1,234,567", "2,345,678"))
        self.assertNotIn("parameters", self.rows(self.script("compare.py", "a", "a")[1])[0])

    def test_columns_of_nothing_are_left_out(self):
        self.write_run("a", [record(1, 4.0)], info=False)
        self.assertEqual(self.rows(self.script("compare.py", "a")[1]), [["run", "steps", "tok/s", "time", "status"], ["a", "1", "2,000", "0s", ""]])

    def test_seeds(self):
        floors = (2.0, 2.1, 2.5)
        names = [self.write_run(f"s{seed}", learning(floor), seed=seed) for seed, floor in enumerate(floors)]
        names.append(self.write_run("bad", [record(1, 4.0), record(2, 3.0, val_loss=9.0)], seed=9))
        names.append(self.write_run("one", norm="none"))
        finals = [run.final_val for run in self.read(*names[:3])]
        rows = self.rows(self.script("compare.py", "--by-seed", *names)[1])
        self.assertEqual(rows[1][:3], ["norm=layernorm", "4", f"{statistics.mean(finals):.4f} \u00b1 {statistics.stdev(finals):.4f}"])
        self.assertEqual((rows[1][-1], rows[2][:2]), ("3 done, 1 diverged", ["norm=none", "1"]))
        self.assertEqual(compare.table(self.read(*names)), self.script("compare.py", "--by-seed", *names)[1])

    def test_numbers_for_programs_are_exact(self):
        names = [self.write_run("a"), self.write_run("b", learning(2.5), norm="none", seed=2)]
        run = self.read("b")[0]
        record_b = json.loads(self.script("compare.py", "--json", *names)[1])[1]
        self.assertEqual((record_b["final_val_loss"], record_b["val_perplexity"]), (run.final_val, math.exp(run.final_val)))
        self.assertEqual((record_b["option_norm"], record_b["option_seed"], record_b["paths"]), ("none", 2, ["b"]))
        rows = list(csv.DictReader(io.StringIO(self.script("compare.py", "--csv", *names)[1])))
        self.assertEqual((float(rows[1]["final_val_loss"]), rows[0]["option_norm"], rows[1]["status"]), (run.final_val, "layernorm", "done"))

    def test_huge_losses(self):
        for loss in (1000, 1e308):
            self.write_run("a", [record(1, 4.0), record(2, 4.0, val_loss=loss)])
            self.assertIn("diverged", self.script("compare.py", "a")[1])

    def test_another_commit_is_shown(self):
        self.write_run("a")
        self.write_run("b")
        with open("b/run.json", encoding="utf-8") as file:
            self.write("b/run.json", file.read().replace("3c75569", "bdf21f0-dirty"))
        self.assertEqual([row[-1] for row in self.rows(self.script("compare.py", "a", "b")[1])], ["commit", "3c75569", "bdf21f0-dirty"])

    def test_bad_input(self):
        self.write_run("a")
        self.refused("there is no nowhere", "compare.py", "a", "nowhere")
        self.write("a/run.json", '{"format": 2}')
        self.refused("of format 2", "compare.py", "a")


if __name__ == "__main__":
    unittest.main()
