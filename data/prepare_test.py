"""Tests of prepare.py from end to end, with the real tokenizer: $TOKENIZER, or ./tokenizer of this repository."""
import functools
import glob
import io
import json
import os
import signal
import struct
import subprocess
import sys
import types
import unittest
import unittest.mock

import catalog
import common
import documents
import download
import download_test
import prepare
import shards
from documents_test import needs_pyarrow, openwebtext_archive, pyarrow
from download_test import serving, write

TOKENIZER = os.path.abspath(os.environ.get("TOKENIZER") or os.path.join(prepare.HERE, "..", "tokenizer"))
SCRIPT = os.path.join(prepare.HERE, "prepare.py")
STORIES = [f"Story {i}.\n{'She went on and on, to the sea. ' * (i % 7)}Ünd the end" for i in range(300)]


def separated(texts):
    return "".join(text + "\n<|endoftext|>\n" for text in texts).encode()


def parquet_of(rows):
    memory = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(len(rows))), "text": rows}), memory)
    return memory.getvalue()


def tokens_of(path):
    with open(path, "rb") as file:
        magic, version, count = struct.unpack("<3i", file.read(1024)[:12])
        assert (magic, version) == (20240520, 1)
        return struct.unpack(f"<{count}H", file.read())


@unittest.skipUnless(os.access(TOKENIZER, os.X_OK), f"there is no program {TOKENIZER}")
class PrepareTest(download_test.Directory):
    def setUp(self):
        super().setUp()
        here = os.path.join(self.directory, "data")
        os.mkdir(here)
        self.here = here
        for target, name, value in ((prepare, "HERE", here), (shards, "HERE", here), (prepare, "say", self.lines.append),
                                    (shards, "say", self.lines.append)):
            patch = unittest.mock.patch.object(target, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        environment = unittest.mock.patch.dict(os.environ, {"TOKENIZER": TOKENIZER})
        environment.start()
        self.addCleanup(environment.stop)

    def catalog(self, name, server, train, val=(), **fields):
        """The row of that name, with these files of the server."""
        rows = [tuple(catalog.Remote(f"{name}/{file}", (f"{server.url}/{file}",)) for file in files) for files in (train, val)]
        row = catalog.DATASETS[name]._replace(train=rows[0], val=rows[1], download_bytes=1000, text_bytes=1000, **fields)
        patch = unittest.mock.patch.dict(catalog.DATASETS, {name: row})
        patch.start()
        self.addCleanup(patch.stop)

    def prepare(self, *arguments):
        """Runs the program; what the tokenizer says is thrown away."""
        quiet = functools.partial(subprocess.Popen, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with unittest.mock.patch.object(sys, "argv", ["prepare.py", *arguments]), \
                unittest.mock.patch.object(shards.subprocess, "Popen", quiet):
            prepare.command()
        self.assertEqual([name for name in os.listdir(self.here) if name.endswith(".tmp")], [])

    def refused(self, pattern, *arguments):
        before = sorted(self.all_files())
        self.fails(pattern, lambda: self.prepare(*arguments))
        self.assertEqual(sorted(self.all_files()), before)

    def all_files(self):
        return [os.path.join(place, name) for place, _, names in os.walk(self.here) for name in names]

    def place(self, name):
        return os.path.join(self.here, name)

    def description(self, name):
        with open(os.path.join(self.place(name), "dataset.json"), encoding="utf-8") as file:
            return json.load(file)

    def texts(self, name, split):
        """The documents of a split, by decoding its shards; checks dataset.json by the way."""
        description = self.description(name)
        tokens = [token for path in sorted(glob.glob(os.path.join(self.place(name), split + "_*.bin"))) for token in tokens_of(path)]
        self.assertEqual(len(tokens), description["tokens"][split])
        decoded = subprocess.run([TOKENIZER, "decode", "--vocab", self.place(name)], input=" ".join(map(str, tokens)).encode(),
                                 capture_output=True, check=True).stdout
        first, *texts = decoded.decode().split("<|endoftext|>")
        self.assertEqual(first, "")
        self.assertEqual(len(texts), description["documents"][split])
        self.assertEqual(sum(len(text.encode()) for text in texts), description["bytes"][split])
        return texts

    def gpt2(self, mirror):
        """A small vocabulary in the mirror, in the place of GPT-2's."""
        text = os.path.join(self.directory, "text.txt")
        write(text, "\n".join(STORIES).encode())
        subprocess.run([TOKENIZER, "train", "--input", text, "--vocab-size", "400", "--special", "<|endoftext|>", "--out",
                        os.path.join(mirror, "gpt2")], capture_output=True, check=True)
        patch = unittest.mock.patch.object(catalog, "GPT2", tuple(file._replace(sha256="") for file in catalog.GPT2))
        patch.start()
        self.addCleanup(patch.stop)

    # ---- Each kind of dataset ----

    def test_stories_with_a_vocabulary_and_a_split_of_their_own(self):
        files = {"/train.txt": separated(STORIES), "/valid.txt": separated(["One.", "Two."])}
        with serving(files, cuts=[3000]) as server:
            self.catalog("tinystories", server, ["train.txt"], ["valid.txt"], vocab="train:300")
            self.prepare("tinystories")
            self.assertEqual(self.texts("tinystories", "train"), [story + "\n" for story in STORIES])
            self.assertEqual(self.texts("tinystories", "val"), ["One.\n", "Two.\n"])
            description = self.description("tinystories")
            self.assertEqual((description["vocab_size"], description["end_of_text"]), (300, 299))
            self.assertRegex(description["source"], r"^TinyStories V2 \(GPT-4\), http://.* \(CDLA-Sharing-1.0\)$")

            asked, before = len(server.asked), {path: os.stat(path).st_mtime_ns for path in self.all_files()}
            self.prepare("tinystories")
            self.assertRegex(self.lines[-1], "is there already")
            self.assertEqual((len(server.asked), {path: os.stat(path).st_mtime_ns for path in self.all_files()}), (asked, before))
            self.refused("holds another dataset, or one made with other options; --force", "tinystories", "--vocab", "train:310")
            self.prepare("tinystories", "--vocab", "train:310", "--force")
            self.assertEqual(self.description("tinystories")["vocab_size"], 310)
            self.assertEqual(len(server.asked), asked)
            self.refused("has a validation split of its own", "tinystories", "--val-fraction", "0.1", "--out", self.place("new"))

    def test_one_text_from_a_mirror_with_gpt2s_vocabulary(self):
        mirror = os.path.join(self.directory, "mirror")
        text = "".join(f"Line {i}, ü.\n" for i in range(1000))
        with unittest.mock.patch.dict(os.environ, {"DATA_MIRROR": mirror}):
            self.catalog("tinyshakespeare", types.SimpleNamespace(url=""), ["input.txt"])
            self.gpt2(mirror)
            self.fails("DATA_MIRROR has no tinyshakespeare/input.txt", lambda: self.prepare("tinyshakespeare"))
            self.assertEqual(os.listdir(self.here), ["vocab"])
            write(os.path.join(mirror, "tinyshakespeare", "input.txt"), text.encode())
            self.prepare("tinyshakespeare")
        train, val = self.texts("tinyshakespeare", "train"), self.texts("tinyshakespeare", "val")
        self.assertEqual(train + val, [train[0], val[0]])
        self.assertEqual(train[0] + val[0], text)
        self.assertTrue(train[0].endswith("\n"))
        self.assertAlmostEqual(len(val[0]) / len(text), 0.1, 2)
        self.assertEqual(sorted(os.listdir(self.place("vocab/gpt2"))), ["merges.txt", "vocab.json"])
        self.assertFalse(os.path.exists(self.place("downloads")))

    def test_only_gpt2s_vocabulary(self):
        mirror = os.path.join(self.directory, "mirror")
        with unittest.mock.patch.dict(os.environ, {"DATA_MIRROR": mirror}):
            self.gpt2(mirror)
            self.prepare("gpt2")
        self.assertEqual(os.listdir(self.here), ["vocab"])

    @needs_pyarrow
    def test_parquet_files_by_several_downloads(self):
        parts = [STORIES[i::3] for i in range(3)]
        files = {f"/{i}.parquet": parquet_of(part) for i, part in enumerate(parts)}
        with serving(files, cuts=[500, 500, 500]) as server:
            self.catalog("fineweb", server, ["0.parquet", "1.parquet", "2.parquet"], vocab="train:300", val_fraction=0.2)
            self.prepare("fineweb", "--shard-tokens", "1000")
        train, val = self.texts("fineweb", "train"), self.texts("fineweb", "val")
        self.assertEqual(sorted(train + val), sorted(STORIES))
        self.assertEqual([text for text in sum(parts, []) if text in train], train)
        self.assertTrue(30 <= len(val) <= 90, len(val))
        self.assertGreater(len(glob.glob(self.place("fineweb/train_*.bin"))), 3)

    @needs_pyarrow
    def test_wikitext(self):
        rows = ["", " = A = \n", "", " Text of a . \n", "", " = B = \n", "", " Text of b . \n"]
        with serving({"/train.parquet": parquet_of(rows), "/val.parquet": parquet_of(rows[:4])}) as server:
            self.catalog("wikitext103", server, ["train.parquet"], ["val.parquet"], vocab="train:270")
            self.prepare("wikitext103")
        self.assertEqual(self.texts("wikitext103", "train"), [" = A = \n \n Text of a . \n \n", " = B = \n \n Text of b . \n"])
        self.assertEqual(self.texts("wikitext103", "val"), [" = A = \n \n Text of a . \n"])

    def test_openwebtext(self):
        with serving({"/0.tar": openwebtext_archive([[text.encode() for text in STORIES]])}) as server:
            self.catalog("openwebtext", server, ["0.tar"], vocab="train:300", val_fraction=0.2)
            self.prepare("openwebtext")
        self.assertEqual(sorted(self.texts("openwebtext", "train") + self.texts("openwebtext", "val")), sorted(STORIES))

    def test_limit_downloads_only_what_it_needs(self):
        with serving({f"/{i}.tar": openwebtext_archive([[f"{i} {text}".encode() for text in STORIES]]) for i in range(3)}) as server:
            self.catalog("openwebtext", server, ["0.tar", "1.tar", "2.tar"], vocab="train:300", val_fraction=0.2)
            self.prepare("openwebtext", "--limit", "2K")
            self.assertEqual([path for path, _ in server.asked], ["/0.tar"])
        counts = self.description("openwebtext")["bytes"]
        self.assertTrue(2000 <= counts["train"] + counts["val"] < 2300, counts)

    # ---- Files of the user's ----

    def mine(self, name, content):
        path = os.path.join(self.directory, name)
        write(path, content)
        return path

    def test_json_lines(self):
        lines = [json.dumps({"body": text}).encode() + b"\n" for text in STORIES]
        one, two = self.mine("one.jsonl", b"".join(lines[:100])), self.mine("two.jsonl", b"".join(lines[100:]))
        for name, more in (("mine", ()), ("limited", ("--limit", "1T"))):   # read by the tokenizer, and by documents.py
            self.prepare(one, two, "--field", "body", "--vocab", "train:300", "--out", self.place(name), *more)
            self.assertEqual(self.description(name)["source"], "one.jsonl and 1 more")
            self.assertEqual(sorted(self.texts(name, "train") + self.texts(name, "val")), sorted(STORIES))
        self.assertEqual(self.texts("mine", "val"), self.texts("limited", "val"))
        self.prepare(two, "--field", "body", "--vocab", self.place("mine"), "--out", self.place("another"))
        self.assertEqual(self.description("another")["vocab_size"], 300)

    @needs_pyarrow
    def test_parquet(self):
        path = self.mine("a.parquet", parquet_of(STORIES))
        self.prepare(path, "--vocab", "train:300", "--out", self.place("mine"), "--val-fraction", "0.5", "--seed", "3")
        self.assertEqual(sorted(self.texts("mine", "train") + self.texts("mine", "val")), sorted(STORIES))

    def test_bad_requests(self):
        text, lines, empty = self.mine("a.txt", b"text"), self.mine("b.jsonl", b'{"text": 1}\n'), self.mine("c.txt", b"")
        out = ("--out", self.place("mine"))
        own = (*out, "--vocab", "train:300")
        self.refused("there is neither a file nor a dataset 'tinystoreis'; datasets: tinyshakespeare, ", "tinystoreis", *out)
        self.refused("one dataset at a time", "tinystories", "fineweb")
        self.refused("of several kinds, jsonl, txt", text, lines, *out)
        self.refused("need --out DIR", text)
        self.refused("--vocab is 'gpt3', where gpt2, train:N or a directory", text, *out, "--vocab", "gpt3")
        self.refused("c.txt' is empty", empty, *own)
        self.refused("b.jsonl', line 1: it is no JSON object with a text 'text'", lines, *own)
        self.refused("no .txt, .jsonl or .parquet file", self.mine("a.csv", b"1,2"), *out)
        write(os.path.join(self.place("full"), "notes"), b"")
        self.refused("full' is not empty and holds no dataset", text, "--out", self.place("full"))
        with unittest.mock.patch.dict(os.environ, {"TOKENIZER": "nowhere"}):
            self.refused("there is no program 'nowhere', which .TOKENIZER names", text, *own)

    # ---- When something breaks ----

    def test_interrupted_downloads_are_continued(self):
        files = {f"/{i}.tar": openwebtext_archive([[text.encode() for text in STORIES[i::2]]]) for i in range(2)}
        with serving(files) as server:
            self.catalog("openwebtext", server, ["0.tar", "1.tar"], vocab="train:300", val_fraction=0.2)
            self.prepare("openwebtext", "--out", self.place("whole"), "--downloads", os.path.join(self.directory, "elsewhere"))
            server.cuts, server.silences, server.asked = [300] * 2 + [0] * 99, [0.1] * 2, []
            self.fails(r"openwebtext/\d.tar could not be downloaded; tried http", lambda: self.prepare("openwebtext"))
            self.assertFalse(os.path.exists(self.place("openwebtext")))
            server.cuts, server.asked = [], []
            self.prepare("openwebtext")
            self.assertEqual(sorted(server.asked), [("/0.tar", "bytes=300-"), ("/1.tar", "bytes=300-")])
        for path in glob.glob(self.place("whole/*.bin")):
            self.assertEqual(tokens_of(path), tokens_of(path.replace("/whole/", "/openwebtext/")))

    def test_text_that_breaks_off(self):
        """After 6 MB of it, when the tokenizer is at work."""
        lines = [json.dumps({"text": text}).encode() + b"\n" for text in STORIES]
        good, bad = self.mine("good.jsonl", b"".join(lines)), self.mine("bad.jsonl", b"".join(lines) * 200 + b"{\n")
        self.prepare(good, "--vocab", "train:300", "--out", self.place("mine"))
        line = "bad.jsonl', line 60001: it is no JSON object"
        self.refused(line, bad, "--limit", "1T", "--vocab", self.place("mine"), "--out", self.place("new"))
        self.refused(line, bad, "--limit", "1T", "--vocab", self.place("mine"), "--out", self.place("mine"), "--force")
        self.assertEqual(sorted(os.listdir(self.here)), ["mine"])
        self.assertEqual(sorted(self.texts("mine", "train") + self.texts("mine", "val")), sorted(STORIES))

    def test_tokenizer_that_fails(self):
        with serving({"/0.tar": openwebtext_archive([[b"text" * 1000] * 300])}) as server:
            self.catalog("openwebtext", server, ["0.tar"], vocab="train:300")
            with unittest.mock.patch.dict(os.environ, {"TOKENIZER": "/bin/false"}):
                self.fails("^tokenizer train ended with exit status 1; its own words stand above$", lambda: self.prepare("openwebtext"))
        self.assertEqual(os.listdir(self.here), ["downloads"])

    def test_disk_without_room(self):
        usage = unittest.mock.patch.object(prepare.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=5_000_000_000))
        with usage, unittest.mock.patch.object(documents, "NEED_PARQUET", ()):
            self.refused("about 53.6 GB are needed in '.*', and the disk has 5.0 GB: free some space, take less with --limit", "fineweb")

    def test_program(self):
        """Exit status 1 and one line, and nothing left when it is ended."""
        out = os.path.join(self.directory, "out")
        command = [sys.executable, SCRIPT, "tinystories", "--vocab", self.directory, "--out", out, "--downloads", self.place("downloads")]
        process = subprocess.run(command, env={**os.environ, "DATA_MIRROR": self.directory}, capture_output=True, check=False)
        self.assertEqual((process.returncode, process.stderr.count(b"\n")), (1, 1), process.stderr)
        self.assertRegex(process.stderr.decode(), "^prepare: DATA_MIRROR has no tinystories/TinyStoriesV2-GPT4-train.txt: there is no file")
        with serving({"/tinystories/TinyStoriesV2-GPT4-train.txt": b"x" * 10}, silences=[5]) as server:
            with subprocess.Popen(command, env={**os.environ, "DATA_MIRROR": server.url}, stdout=subprocess.DEVNULL) as process:
                while not server.asked:
                    pass
                process.send_signal(signal.SIGTERM)
            self.assertEqual(process.returncode, 143)
        self.assertEqual([name for name in os.listdir(self.directory) if name.startswith("out")], [])


if __name__ == "__main__":
    unittest.main()
