"""Tests of documents.py."""
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import unittest
import unittest.mock

import common
import documents

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None

needs_pyarrow = unittest.skipUnless(pyarrow, "this Python has no pyarrow")


def tar_of(entries):
    """The bytes of a tar archive of (name, bytes)."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return memory.getvalue()


def openwebtext_archive(groups):
    """As OpenWebText comes: groups of texts, each group a tar.xz in a tar."""
    return tar_of((f"openwebtext/{i}_data.xz", lzma.compress(tar_of((f"{i}-{j}.txt", text) for j, text in enumerate(texts))))
                  for i, texts in enumerate(groups))


class DocumentsTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def file(self, content, name="file"):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def read(self, reader, path, field="text"):
        return list(documents.READERS[reader](path, field))

    def fails(self, pattern, reader, path, field="text"):
        with self.assertRaisesRegex(common.Failure, pattern) as context:
            self.read(reader, path, field)
        self.assertNotIn("\n", str(context.exception))

    def parquet(self, rows, name="text"):
        path = os.path.join(self.directory, "file.parquet")
        pyarrow.parquet.write_table(pyarrow.table({name: rows, "other": list(range(len(rows)))}), path, row_group_size=2)
        return path

    def test_txt(self):
        path = self.file("one\n<|endoftext|>\ntwo\n\n<|endoftext|>\n\nthree ü\r\n<|endoftext|><|endoftext|>\n".encode())
        expected = ["one\n", "two\n\n", "\nthree ü\r\n"]
        self.assertEqual(self.read("txt", path), expected)
        for piece in range(1, 30):   # cuts separators everywhere
            with unittest.mock.patch.object(documents, "PIECE", piece):
                self.assertEqual(self.read("txt", path), expected, piece)
        self.assertEqual(self.read("txt", self.file(b"\nno separator")), ["\nno separator"])
        self.assertEqual(self.read("txt", self.file(b"")), [])
        self.assertEqual(self.read("txt", self.file(b"a\xffb")), ["a\ufffdb"])

    def test_jsonl(self):
        path = self.file(b'{"text": "a\\nb", "n": 1}\n\n{"n": 2, "text": ""}\r\n{"text": "\xc3\xbc"}')
        self.assertEqual(self.read("jsonl", path), ["a\nb", "ü"])
        for bad in (b"{", b"[]", b'{"txt": "a"}', b'{"text": 1}', b'"text"', b"[" * 100_000):
            path = self.file(b'{"text": "a"}\n' + bad + b"\n")
            self.fails("file', line 2: it is no JSON object with a text 'text'; --field", "jsonl", path)
        self.assertEqual(self.read("jsonl", self.file(b'{"body": "a"}'), "body"), ["a"])

    @needs_pyarrow
    def test_parquet(self):
        path = self.parquet(["one", None, "", "ü\n", "five"])
        self.assertEqual(self.read("parquet", path), ["one", "ü\n", "five"])
        self.fails("has no column 'body', but text, other; --field", "parquet", path, "body")
        self.fails("the column 'other' holds no texts", "parquet", path, "other")
        self.fails("file.parquet' cannot be read: ", "parquet", self.file(b"PAR1 and no more", "file.parquet"))

    @needs_pyarrow
    def test_wikitext(self):
        rows = ["", " = First = \n", "", " Text . \n", " = not a heading = \n", "", " = = Section = = \n", "", " More . \n", "", "",
                " = Second : a = b = \n", "", " Text . \n"]
        first, second = self.read("wikitext", self.parquet(rows))
        self.assertEqual(first, " = First = \n \n Text . \n = not a heading = \n \n = = Section = = \n \n More . \n \n \n")
        self.assertEqual(second, " = Second : a = b = \n \n Text . \n")

    def test_no_pyarrow(self):
        with unittest.mock.patch.dict("sys.modules", {"pyarrow": None, "pyarrow.parquet": None}):
            with self.assertRaisesRegex(common.Failure, "parquet files need pyarrow, .*: python3 -m pip install pyarrow"):
                documents.parquet_module()

    def test_openwebtext(self):
        texts = [[f"text {i} {j}".encode() for j in range(3)] for i in range(20)]
        texts[4][1] = b"\n\nmany\n\n\n\nline feeds\n\n"
        texts[5][0] = b" \n"
        found = self.read("openwebtext", self.file(openwebtext_archive(texts)))
        expected = [text.decode() for group in texts for text in group if text.strip()]
        expected[13] = "many\n\nline feeds"
        self.assertEqual(found, expected)
        self.fails("file' cannot be read: ", "openwebtext", self.file(b"no archive"))
        self.fails("file' cannot be read: ", "openwebtext", self.file(tar_of([("a.xz", b"no xz")])))
        self.fails("file' cannot be read: ", "openwebtext", self.file(openwebtext_archive(texts)[:700]))

    def test_limit(self):
        texts = ["üü", "bb", "cc"]
        self.assertEqual([len(list(documents.limited(texts, limit))) for limit in (None, 1, 4, 5, 6, 7, 99)], [3, 1, 1, 2, 2, 3, 3])

    def test_writing(self):
        texts = ['"ü"\n\0', "\ud800", "<|endoftext|>"]
        memory = io.BytesIO()
        documents.write_jsonl(texts, memory)
        self.assertEqual([json.loads(line)["text"] for line in memory.getvalue().decode().splitlines()], ['"ü"\n\0', "?", "<|endoftext|>"])
        memory = io.BytesIO()
        documents.write_separated(["one", "ü"], memory)
        self.assertEqual(memory.getvalue(), "one<|endoftext|>ü<|endoftext|>".encode())

    def test_kinds_of_files(self):
        self.assertEqual([documents.reader_of(name) for name in ("a.txt", "b.c/a.JSONL", "a.parquet")], ["txt", "jsonl", "parquet"])
        with self.assertRaisesRegex(common.Failure, "'a.csv' is no .txt, .jsonl or .parquet file"):
            documents.reader_of("a.csv")


if __name__ == "__main__":
    unittest.main()
