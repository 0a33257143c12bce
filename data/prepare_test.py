"""Tests of prepare.py from end to end, with the real tokenizer: $TOKENIZER, or ./tokenizer of this repository."""
import contextlib
import functools
import glob
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
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
            self.prepare("gpt2", "--out", self.place("another"))
            self.refused("is there and holds no vocabulary", "gpt2", "--out", mirror)
            self.refused("^/dev/null/x.*: Not a directory$", "gpt2", "--out", "/dev/null/x")
        self.assertEqual(sorted(os.listdir(self.here)), ["another", "vocab"])
        self.assertEqual(sorted(os.listdir(self.place("another"))), ["merges.txt", "vocab.json"])

    def test_without_gpt2s_vocabulary(self):
        text = self.mine("a.txt", b"One.\nTwo.\n")
        with unittest.mock.patch.dict(os.environ, {"DATA_MIRROR": self.directory}):
            self.refused("DATA_MIRROR has no gpt2/.*; or do without GPT-2's vocabulary: --vocab train:N", text, "--out", self.place("mine"))

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

    def test_a_few_documents(self):
        """Each split gets one at least; texts with a document each, and lines of JSON, which are otherwise drawn by chance."""
        texts = [f"Text {i}.\n" * 50 for i in range(3)]
        files = [self.mine(f"{i}.txt", text.encode()) for i, text in enumerate(texts)]
        lines = self.mine("a.jsonl", b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
        chosen = set()
        for seed in range(6):
            for name, arguments in (("texts", files), ("lines", [lines])):
                self.prepare(*arguments, "--vocab", "train:270", "--out", self.place(name), "--seed", str(seed), "--force")
                val = self.texts(name, "val")
                self.assertEqual((sorted(self.texts(name, "train") + val), len(val)), (texts, 1))
                chosen.add(val[0])
        self.assertGreater(len(chosen), 1)
        self.prepare(*files[:2], self.mine("empty.txt", b""), "--vocab", "train:270", "--out", self.place("two"))
        separated_file = self.mine("separated.txt", separated(texts))
        self.prepare(separated_file, files[0], "--vocab", "train:270", "--out", self.place("four"), "--val-fraction", "0.5")
        for name, count in (("two", 1), ("four", 2)):
            self.assertEqual([len(self.texts(name, split)) for split in ("train", "val")], [count, count])
        self.refused("the text has 1 document, .* give those to validate on with --val", self.mine("b.jsonl", b'{"text": "a"}\n'),
                     "--vocab", "train:270", "--out", self.place("new"))

    def test_files_to_validate_on(self):
        train, val = self.mine("train.txt", b"To train on.\n" * 50), self.mine("val.txt", b"To validate on.")
        lines = [self.mine(f"{name}.jsonl", json.dumps({"body": name * 99}).encode() + b"\n") for name in "ab"]
        for more in ((), ("--limit", "1T")):
            self.prepare(train, "--val", val, "--vocab", "train:270", "--out", self.place("mine"), "--force", *more)
            self.assertEqual((self.texts("mine", "train"), self.texts("mine", "val")), (["To train on.\n" * 50], ["To validate on."]))
            self.prepare(lines[0], "--val", lines[1], "--field", "body", "--vocab", "train:260", "--out", self.place("lines"), "--force",
                         *more)
            self.assertEqual((self.texts("lines", "train"), self.texts("lines", "val")), (["a" * 99], ["b" * 99]))
        self.refused("holds another dataset", train, "--val", train, "--vocab", "train:270", "--out", self.place("mine"), "--limit", "1T")
        out = ("--vocab", "train:270", "--out", self.place("new"))
        self.refused("--val and --val-fraction both say", train, "--val", val, "--val-fraction", "0.1", *out)
        self.refused("of several kinds, jsonl, txt", train, "--val", lines[0], *out)
        self.refused("there is neither a file nor a dataset 'none'", train, "--val", "none", *out)
        self.refused("goes with files of your own, not with tinystories", "tinystories", "--val", val, *out)
        with contextlib.redirect_stderr(io.StringIO()) as words, self.assertRaises(SystemExit):
            self.prepare(train, "--val-fraction", "0", *out)
        self.assertIn("0 would leave nothing to validate on", words.getvalue())

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
        with serving(files, etag='"one"') as server:
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
        files = {f"/tinystories/TinyStoriesV2-GPT4-{split}.txt": b"x" * 10 for split in ("train", "valid")}
        with serving(files, silences=[2, 2]) as server:
            with subprocess.Popen(command, env={**os.environ, "DATA_MIRROR": server.url}, stdout=subprocess.DEVNULL) as process:
                self.wait_for(lambda: server.asked)
                process.send_signal(signal.SIGTERM)
            self.assertEqual(process.returncode, 143)
        self.assertEqual(self.left_beside("out"), [])

    def wait_for(self, condition):
        """Returns what it says as soon as that is true."""
        end = time.monotonic() + 30
        while not (result := condition()):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        return result

    def left_beside(self, name):
        return [other for other in os.listdir(self.directory) if other.startswith(name)]

    def vocabulary(self):
        """One of 300 tokens."""
        text, directory = self.mine("v.txt", separated(STORIES)), os.path.join(self.directory, "vocabulary")
        subprocess.run([TOKENIZER, "train", "--input", text, "--vocab-size", "300", "--special", "<|endoftext|>", "--out", directory],
                       capture_output=True, check=True)
        return directory

    @contextlib.contextmanager
    def program_at_work(self, *arguments):
        quiet = subprocess.DEVNULL
        with subprocess.Popen([sys.executable, SCRIPT, *arguments], stdout=quiet, stderr=quiet) as process:
            try:
                yield process
            finally:
                process.kill()

    def test_killed_while_documents_go_to_the_tokenizer(self):
        """It sees the end of its input, and may finish; but no dataset appears, and the next run leaves nothing of it."""
        lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in STORIES)
        few, many, out = self.mine("few.jsonl", lines), self.mine("many.jsonl", lines * 400), os.path.join(self.directory, "out")
        vocab = self.vocabulary()
        with self.program_at_work(many, "--limit", "1T", "--vocab", vocab, "--out", out, "--threads", "1") as process:
            self.wait_for(lambda: glob.glob(os.path.join(self.directory, "out*/**/new.tmp"), recursive=True))
            process.kill()
        self.wait_for(lambda: not glob.glob(os.path.join(self.directory, "out*/**/new.tmp"), recursive=True))
        self.assertFalse(os.path.exists(out))
        self.assertEqual(len(self.left_beside("out")), 1)
        os.makedirs(out + ".0.tmp")   # of somebody else
        os.makedirs(out + ".1.tmp")   # of a process at work
        with shards.locked(out + ".1.tmp", "w"):
            self.prepare(few, "--vocab", vocab, "--out", out)
        self.assertEqual(sorted(self.left_beside("out")), ["out", "out.0.tmp", "out.1.tmp"])
        self.assertEqual(sorted(self.texts(out, "train") + self.texts(out, "val")), sorted(STORIES))

    def test_killed_while_the_dataset_is_moved(self):
        few = self.mine("few.jsonl", b"".join(json.dumps({"text": text}).encode() + b"\n" for text in STORIES))
        options = (few, "--vocab", self.vocabulary(), "--out", self.place("mine"))
        for renames in range(5):   # of new.tmp, 3 of 5 files done
            rename, left = os.rename, [renames]

            def rename_some(source, target):
                if "new.tmp" in source + target:
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                rename(source, target)

            with unittest.mock.patch.object(shards.os, "rename", rename_some), self.assertRaises(KeyboardInterrupt):
                self.prepare(*options, "--force")
            self.assertFalse(os.path.exists(self.place("mine/dataset.json")))
        self.prepare(*options)
        self.assertEqual(sorted(self.texts("mine", "train") + self.texts("mine", "val")), sorted(STORIES))
        self.assertEqual(len(os.listdir(self.place("mine"))), len({"train", "val", "vocab", "merges", "tokenizer", "dataset"}))

    def test_signals_end_the_tokenizer_too(self):
        """Whether it reads the files itself or is given documents."""
        pid = os.path.join(self.directory, "pid")
        stand_in = self.mine("tokenizer", f"#!/bin/sh\necho $$ >'{pid}.new' && mv '{pid}.new' '{pid}' && exec sleep 60\n".encode())
        os.chmod(stand_in, 0o755)
        lines = self.mine("a.jsonl", b"".join(json.dumps({"text": text}).encode() + b"\n" for text in STORIES) * 10)
        out = os.path.join(self.directory, "out")
        with unittest.mock.patch.dict(os.environ, {"TOKENIZER": stand_in}):
            for number in (signal.SIGTERM, signal.SIGHUP):
                self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_DFL))   # nohup has it ignored, by children too
                for more in ((), ("--limit", "1T")):
                    with self.program_at_work(lines, "--vocab", self.directory, "--out", out, *more) as process:
                        self.wait_for(lambda: os.path.exists(pid))
                        process.send_signal(number)
                        self.assertEqual(process.wait(30), 128 + number)
                    with open(pid, encoding="ascii") as file:
                        self.assertFalse(os.path.exists(f"/proc/{file.read().strip()}"), (number, more))
                    self.assertEqual(self.left_beside("out"), [])
                    os.remove(pid)


if __name__ == "__main__":
    unittest.main()
