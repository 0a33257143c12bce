"""Tests of to_tensorboard.py and to_wandb.py: what they write is read back by the libraries' own readers and compared with the log, number
by number."""
import importlib.util
import json
import math
import os
import struct
import sys
import unittest
import zlib

import exports
from runs_test import HERE, Directory, learning, record

has = importlib.util.find_spec
STATS = {"weights": {"wte": [1.25], "qkvw": [0.5, 0.75]}, "gradients": {"wte": [None], "qkvw": [0.1, 0.2]}, "activations": {"out": [1.0, 2.0]}}
LINES = learning() + [record(110, None, skipped=True), record(120, 2.5, stats=STATS, val_loss=2.25, tokens_seen=12345678901)]
START = 1795437000.0   # 2026-11-23T12:30:00Z


def same(found, expected):
    return found == expected or (math.isnan(found) and math.isnan(expected))


def offline_messages(content):
    """The messages in a .wandb file: 7 bytes, then LevelDB's log format: blocks of 32 KiB in which pieces follow each other, each of CRC-32 (of
    type and data), length, type (1: whole, 2, 3, 4: first, middle, last) and data; the end of a block too short for a piece is padding."""
    assert content.startswith(b":W&B"), content[:7]
    place, message = 7, b""
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        crc, length, kind = struct.unpack_from("<IHB", content, place)
        data = content[place + 7:place + 7 + length]
        assert crc == zlib.crc32(bytes([kind]) + data), place
        message = data if kind in (1, 2) else message + data
        place += 7 + length
        if kind in (1, 4):
            yield message


def as_float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class NamesTest(Directory):
    def test_scalars(self):
        numbers = exports.scalars(LINES[-1])
        names = ("weights/wte", "weights/qkvw/1", "activations/out/0", "val_loss")
        self.assertEqual([numbers[name] for name in names], [1.25, 0.75, 1.0, 2.25])
        self.assertTrue(math.isnan(numbers["gradients/wte"]))
        self.assertEqual(exports.scalars({"step": 1, "skipped": True, "word": "x", "stats": {"weights": 1}}), {"step": 1, "skipped": 1})

    def test_times_of_day(self):
        run, = self.read(self.write_run("a", [record(step, 4.0, elapsed_s=s) for step, s in ((1, 5), (2, None), (3, 20), (4, 30))]))
        self.assertEqual(exports.wall_times(run), [START + 5, START + 5, START + 20, START + 30])
        run.info["starts"].append({"time": "2026-11-23T13:30:00Z", "step": 2})
        self.assertEqual(exports.wall_times(run), [START + 5, START + 5, START + 3600 + 15, START + 3600 + 25])
        run.info["starts"] = [1, {"time": "x", "step": 0}, {"time": "2026-11-23T12:30:00Z"}]
        os.utime("a/log.jsonl", (1000, 1000))
        self.assertEqual(exports.wall_times(run), [975, 975, 990, 1000])

    def test_samples(self):
        self.write("samples.txt", "--- step 50\nROMEO:\n--- no\n\n--- step 100\nx\n")
        self.write_run(".")
        self.assertEqual(exports.samples(self.read(".")[0]), [(50, "ROMEO:\n--- no"), (100, "x")])

    def test_names(self):
        runs = self.read(self.write_run("x/a"), self.write_run("y/a"))
        self.assertEqual(exports.distinct_names(runs), ["x_a", "y_a"])

    def test_bad_input_and_missing_libraries(self):
        self.write_run("a", [])
        for script, library in (("to_tensorboard.py", "tensorboard"), ("to_wandb.py", "wandb")):
            if has(library):
                self.refused("a holds no steps", script, "a")
                self.refused("there is no nowhere", script, "nowhere")
            os.makedirs("broken/" + library)
            self.write(f"broken/{library}/__init__.py", "raise ImportError('none')\n")
            status, _, errors = self.program(script, "a", env=dict(os.environ, PYTHONPATH="broken"))
            self.assertEqual((status, errors.count("\n")), (1, 1))
            self.assertRegex(errors, rf"^{script}: {library} is missing, .*pip install {library}$")


@unittest.skipUnless(has("tensorboard"), f"{sys.executable} has no tensorboard")
class TensorboardTest(Directory):
    def accumulated(self, directory):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        return EventAccumulator(directory, size_guidance={"scalars": 0, "tensors": 0, "images": 0}).Reload()

    def test_every_number_comes_back(self):
        run, = self.read(self.write_run("a", LINES))
        self.write("a/samples.txt", "--- step 100\nROMEO: \u00fc\n")
        self.write("a/curve.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s2I", 13, b"IHDR", 40, 30) + b"rest")
        os.mkdir("a/tensorboard")
        self.write("a/tensorboard/events.out.tfevents.0000000001.train_gpt", "an earlier export")
        self.write("a/tensorboard/mine", "")
        for _ in range(2):
            status, output, errors = self.script("to_tensorboard.py", "a")
            self.assertEqual((status, errors), (0, ""))
        self.assertEqual(sorted(os.listdir("a/tensorboard")), [f"events.out.tfevents.{int(START)}.train_gpt", "mine"])
        found = self.accumulated("a/tensorboard")
        expected = {}
        for at, line in zip(exports.wall_times(run), run.records):
            for tag, value in exports.scalars(line).items():
                if tag != "step":
                    expected.setdefault(tag, []).append((line["step"], at, as_float32(value)))
        self.assertEqual(set(found.Tags()["scalars"]), set(expected))
        for tag, values in expected.items():
            events = found.Scalars(tag)
            self.assertEqual([(e.step, e.wall_time) for e in events], [(step, at) for step, at, _ in values], tag)
            self.assertTrue(all(same(e.value, value) for e, (_, _, value) in zip(events, values)), tag)
        sample, = found.Tensors("sample")
        self.assertEqual((sample.step, sample.tensor_proto.string_val[0].decode()), (100, "```\nROMEO: \u00fc\n```"))
        self.assertIn("| norm | layernorm |", found.Tensors("options")[0].tensor_proto.string_val[0].decode())
        self.assertEqual((found.Images("curve")[0].width, found.Images("curve")[0].height), (40, 30))
        self.check_hparams(found)

    def check_hparams(self, found):
        from tensorboard.plugins.hparams import plugin_data_pb2
        content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        data = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        self.assertEqual((data["lr"].number_value, data["norm"].string_value, data["tie"].bool_value), (0.003, "layernorm", True))

    def test_several_runs_and_another_directory(self):
        self.write_run("a")
        self.write_run("b", info=False)
        self.assertEqual(self.script("to_tensorboard.py", "a", "b", "-o", "tb")[0], 0)
        self.assertEqual(sorted(os.listdir("tb")), ["a", "b"])
        self.assertEqual(len(self.accumulated("tb/b").Scalars("loss")), 11)
        self.write("file", "")
        self.refused("cannot make file/a", "to_tensorboard.py", "a", "-o", "file")


@unittest.skipUnless(has("wandb"), f"{sys.executable} has no wandb")
class WandbTest(Directory):
    def offline_records(self, directory):
        """(history lines by step, configuration) of the one offline run there."""
        from wandb.proto import wandb_internal_pb2
        place, = [name for name in os.listdir(directory) if name.startswith("offline-run-")]
        path, = [name for name in os.listdir(os.path.join(directory, place)) if name.endswith(".wandb")]
        history, config = {}, {}
        with open(os.path.join(directory, place, path), "rb") as file:
            content = file.read()
        for data in offline_messages(content):
            message = wandb_internal_pb2.Record.FromString(data)
            if message.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message.history.item}
                history.setdefault(items["_step"], {}).update(items)
            elif message.WhichOneof("record_type") == "run":
                config.update({item.key or item.nested_key[0]: json.loads(item.value_json) for item in message.run.config.update})
        return history, config

    def test_every_number_comes_back(self):
        run, = self.read(self.write_run("a", LINES))
        self.write("a/samples.txt", "--- step 100\nROMEO:\n")
        status, output, errors = self.program("to_wandb.py", "a", "-o", "w", "--project", "p")
        self.assertEqual((status, errors), (0, ""))
        self.assertRegex(output, r"a: 13 lines are in w/wandb/offline-run-\S+; send them by: wandb sync w/wandb/offline-run-")
        history, config = self.offline_records("w/wandb")
        self.assertEqual((config["norm"], config["lr"], config["tie"], config["commit"]), ("layernorm", 0.003, True, "3c75569"))
        self.assertEqual(sorted(history), [line["step"] for line in run.records])
        for at, line in zip(exports.wall_times(run), run.records):
            found = history[line["step"]]
            self.assertAlmostEqual(found["_timestamp"], at, places=3)
            for tag, value in exports.scalars(line).items():
                if tag != "step":
                    self.assertTrue(same(float(found[tag]), value), (line["step"], tag, found[tag], value))

    def test_no_place_to_write(self):
        self.write_run("a")
        self.write("file", "")
        self.refused("cannot write into file", "to_wandb.py", "a", "-o", "file")


if __name__ == "__main__":
    unittest.main()
