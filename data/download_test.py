"""Tests of download.py against servers on this machine that answer well and badly: python3 -m unittest discover -s data -p '*_test.py'"""
import contextlib
import fcntl
import hashlib
import http.server
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import types
import unittest
import unittest.mock

import common
import download
from catalog import Remote

TEXT = bytes(range(251)) * 4000   # a megabyte
MONDAY = "Mon, 01 Jan 2024 00:00:00 GMT"


class Handler(http.server.BaseHTTPRequestHandler):
    """Does what its server's fields say."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked.append((self.path, self.headers.get("Range")))
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            self.answer(server)
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, server):
        text = server.files.get(self.path)
        if server.busy_answers > 0:
            server.busy_answers -= 1
            self.send(503, b"")
        elif self.path in server.redirects:
            target, sha256 = server.redirects[self.path]
            self.send(302, b"", {"Location": target, "X-Linked-Etag": f'"{sha256}"'})
        elif text is None:
            self.send(404, b"")
        else:
            self.send_file(server, text)

    def send_file(self, server, text):
        headers = {**({"ETag": server.etag} if server.etag else {}), **({"Last-Modified": server.date} if server.date else {})}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = server.any_range or self.headers.get("If-Range") in (None, server.etag, server.date)
        start = int(asked.group(1)) if asked and server.ranges and same else 0
        if start >= len(text) > 0:
            self.send(416, b"", {"Content-Range": f"bytes */{len(text)}"})
        elif start:
            self.send(206, text[start:], {**headers, "Content-Range": f"bytes {start}-{len(text) - 1}/{len(text)}"})
        else:
            self.send(200, text, headers)

    def send(self, code, body, headers=types.MappingProxyType({})):
        server = self.server
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with server.lock:
            cut = server.cuts.pop(0) if body and server.cuts else len(body)
            silence = server.silences.pop(0) if body and server.silences else 0
        with contextlib.suppress(OSError):
            self.wfile.write(body[:cut // 2])
            self.wfile.flush()
            time.sleep(silence)
            self.wfile.write(body[cut // 2:cut])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(files, **fields):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = files
    server.lock = threading.Lock()
    server.ranges, server.etag, server.date, server.busy_answers = True, "", "", 0
    server.any_range = False   # heeds no If-Range
    server.cuts, server.silences, server.redirects = [], [], {}   # one each answer; after them no more
    server.asked, server.busy, server.busiest = [], 0, 0
    for name, value in fields.items():
        assert hasattr(server, name), name
        setattr(server, name, value)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sha256(text):
    return hashlib.sha256(text).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(text)


class Directory(unittest.TestCase):
    """A test with a directory of its own, short waits and nothing on the screen."""

    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)   # a download that failed may remove it itself
        self.lines = []
        for target, name, value in ((download, "FIRST_WAIT", 0.01), (download, "TIMEOUT", 10), (download, "say", self.lines.append)):
            patch = unittest.mock.patch.object(target, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        environment = unittest.mock.patch.dict(os.environ, {"no_proxy": "*", "DATA_MIRROR": ""})
        environment.start()
        self.addCleanup(environment.stop)

    def fails(self, pattern, call):
        with self.assertRaisesRegex(common.Failure, pattern) as context:
            call()
        self.assertNotIn("\n", str(context.exception))


class DownloadTest(Directory):
    def setUp(self):
        super().setUp()
        self.place = os.path.join(self.directory, "downloads")
        self.path = os.path.join(self.place, "set", "a.txt")

    def fetch(self, server, sha256="", mirror=""):
        store = download.Store(self.place, mirror)
        file = Remote("set/a.txt", (server.url + "/a.txt",) if server else ("http://127.0.0.1:9/a.txt",), sha256)
        return list(store.fetch_all([file], 0))[0]

    def left(self):
        return sorted(name for _, _, names in os.walk(self.place) for name in names)

    def check_whole(self):
        self.assertEqual(read(self.path), TEXT)
        self.assertEqual(self.left(), ["a.txt", "a.txt.sha256"])
        self.assertEqual(read(self.path + ".sha256").decode(), f"{sha256(TEXT)}  a.txt\n")

    def test_whole_and_then_nothing_to_do(self):
        with serving({"/a.txt": TEXT}) as server:
            self.assertEqual(self.fetch(server, sha256(TEXT)), self.path)
            self.check_whole()
            self.fetch(server)
            self.assertEqual(server.asked, [("/a.txt", None)])

    def test_empty_file(self):
        with serving({"/a.txt": b""}) as server:
            self.assertEqual(read(self.fetch(server)), b"")

    def test_cut_connections_are_resumed(self):
        with serving({"/a.txt": TEXT}, cuts=[100_000, 300_000]) as server:
            self.fetch(server, sha256(TEXT))
            self.assertEqual(server.asked, [("/a.txt", None), ("/a.txt", "bytes=100000-"), ("/a.txt", "bytes=400000-")])
        self.check_whole()

    def test_cut_connections_of_a_server_without_ranges(self):
        with serving({"/a.txt": TEXT}, cuts=[100_000], ranges=False) as server:
            self.fetch(server, sha256(TEXT))
            self.assertEqual(len(server.asked), 2)
        self.check_whole()

    def test_tries_that_bring_something_do_not_count(self):
        with serving({"/a.txt": TEXT}, cuts=[50_000] * (3 * download.TRIES)) as server:
            self.fetch(server, sha256(TEXT))
        self.check_whole()

    def test_what_an_earlier_run_left_is_used(self):
        write(self.path + ".part", TEXT[:1000])
        with serving({"/a.txt": TEXT}) as server:
            self.fetch(server, sha256(TEXT))
            self.assertEqual(server.asked, [("/a.txt", "bytes=1000-")])
        self.check_whole()

    def test_what_was_kept_is_not_used_if_nothing_tells_its_version(self):
        for kept in (b"old" * 9000, b"o" * len(TEXT)):
            write(self.path + ".part", kept)
            with serving({"/a.txt": TEXT}) as server:
                self.fetch(server)
                self.assertEqual(server.asked, [("/a.txt", f"bytes={len(kept)}-"), ("/a.txt", None)])
            self.check_whole()
            os.remove(self.path)
            os.remove(self.path + ".sha256")

    def test_what_was_kept_of_another_version_is_not_used(self):
        """Known by its ETag or its date; by servers that compare these, and by what others answer."""
        for old, new in (({"etag": '"old"'}, {"etag": '"new"'}), ({"date": MONDAY}, {"date": MONDAY.replace("Mon, 01", "Tue, 02")})):
            for any_range in (False, True):
                with serving({"/a.txt": b"old" * 9000}, cuts=[9000] + [0] * download.TRIES, **old) as server:
                    self.fails("5 times", lambda: self.fetch(server))
                self.assertEqual(self.left(), ["a.txt.part", "a.txt.part.etag"])
                with serving({"/a.txt": TEXT}, any_range=any_range, **new) as server:
                    self.fetch(server)
                self.check_whole()
                os.remove(self.path)
                os.remove(self.path + ".sha256")

    def test_the_same_version_is_continued(self):
        for version in ({"etag": '"one"'}, {"date": MONDAY}, {"etag": 'W/"one"', "date": MONDAY}):
            with serving({"/a.txt": TEXT}, cuts=[9000], **version) as server:
                self.fetch(server)
                self.assertEqual(server.asked, [("/a.txt", None), ("/a.txt", "bytes=9000-")])
            self.check_whole()
            os.remove(self.path)
            os.remove(self.path + ".sha256")

    def test_all_was_kept(self):
        write(self.path + ".part", TEXT)
        with serving({"/a.txt": TEXT}) as server:
            self.fetch(server, sha256(TEXT))
            self.assertEqual(len(server.asked), 1)
        self.check_whole()

    def test_more_was_kept_than_there_is(self):
        write(self.path + ".part", TEXT + b"more")
        with serving({"/a.txt": TEXT}) as server:
            self.fetch(server)
        self.check_whole()

    def test_busy_server(self):
        with serving({"/a.txt": TEXT}, busy_answers=2) as server:
            self.fetch(server)
            self.assertEqual(len(server.asked), 3)
        self.check_whole()

    def test_server_that_stays_busy(self):
        with serving({"/a.txt": TEXT}, busy_answers=99) as server:
            self.fails(r"^set/a.txt could not be downloaded; tried http:\S*/a.txt \(the server answers 503 Service Unavailable, 5 times\); "
                       "without a network, set DATA_MIRROR to a directory or URL prefix that holds set/a.txt$", lambda: self.fetch(server))
            self.assertEqual(len(server.asked), download.TRIES)
        self.assertFalse(os.path.exists(self.place))

    def test_next_url_after_a_refusal(self):
        with serving({"/b.txt": TEXT}) as server:
            file = Remote("set/a.txt", (server.url + "/a.txt", server.url + "/b.txt"))
            list(download.Store(self.place).fetch_all([file], 0))
            self.assertEqual([path for path, _ in server.asked], ["/a.txt", "/b.txt"])
        self.check_whole()

    def test_wrong_checksum(self):
        with serving({"/a.txt": TEXT}) as server:
            self.fails(f"sha256 is {sha256(TEXT)}, not {sha256(b'')}", lambda: self.fetch(server, sha256(b"")))
            self.assertEqual(len(server.asked), 1)
        self.assertFalse(os.path.exists(self.place))

    def test_wrong_checksum_after_resuming(self):
        write(self.path + ".part", b"x" * 1000)
        with serving({"/a.txt": TEXT}) as server:
            self.fetch(server, sha256(TEXT))
            self.assertEqual([asked for _, asked in server.asked], ["bytes=1000-", None])
        self.check_whole()

    def test_another_file_than_the_first_time(self):
        with serving({"/a.txt": b"first"}) as server:
            os.remove(self.fetch(server))
            server.files["/a.txt"] = TEXT
            self.fails("which it had when it was first downloaded; delete '.*a.txt.sha256'", lambda: self.fetch(server))
            self.assertEqual(self.left(), ["a.txt.sha256"])
            os.remove(self.path + ".sha256")
            self.fetch(server)
        self.check_whole()

    def test_checksum_that_the_hub_names(self):
        with serving({"/there": TEXT}) as server:
            server.redirects["/a.txt"] = (server.url + "/there", sha256(b"another"))
            self.fails("not " + sha256(b"another"), lambda: self.fetch(server))
            server.redirects["/a.txt"] = (server.url + "/there", sha256(TEXT))
            server.cuts = [5000]
            self.fetch(server)
            self.assertIn(("/there", "bytes=5000-"), server.asked)
        self.check_whole()

    def test_silent_server(self):
        with serving({"/a.txt": TEXT}, silences=[1]) as server, unittest.mock.patch.object(download, "TIMEOUT", 0.3):
            self.fetch(server)
            self.assertGreaterEqual(len(server.asked), 2)
        self.check_whole()
        self.assertRegex(self.lines[0], "timed out; trying again")

    def test_no_network(self):
        self.fails(r"tried http://127.0.0.1:9/a.txt \(Connection refused, 5 times\); without a network, set DATA_MIRROR",
                   lambda: self.fetch(None))
        self.assertFalse(os.path.exists(self.place))

    def test_disk_without_room(self):
        with serving({"/a.txt": TEXT}) as server:
            with unittest.mock.patch.object(download.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=len(TEXT) - 1)):
                self.fails("needs 1.0 MB more, and the disk has 1.0 MB", lambda: self.fetch(server))
        self.assertFalse(os.path.exists(self.place))

    def test_another_process_at_it(self):
        write(self.path + ".part", b"")
        with serving({"/a.txt": TEXT}) as server, open(self.path + ".part", "ab") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            self.fails("another process is downloading", lambda: self.fetch(server))
            self.assertEqual(self.left(), ["a.txt.part"])   # empty so far, and not ours

    def test_another_process_that_is_faster(self):
        """It finishes, or gives up, between our opening its file and locking it."""
        def lock_late(_file, _how):
            finish()

        with serving({"/a.txt": TEXT}) as server, unittest.mock.patch.object(download.fcntl, "flock", lock_late):
            def finish():
                write(self.path + ".part", TEXT)
                os.rename(self.path + ".part", self.path)
                write(self.path + ".part", b"of a third one")

            self.fetch(server)
            self.assertEqual((server.asked, read(self.path), self.left()), ([], TEXT, ["a.txt", "a.txt.part"]))
            os.remove(self.path)

            def finish():
                os.remove(self.path + ".part")

            self.fails("has just given up downloading '.*a.txt'; try again", lambda: self.fetch(server))

    def test_unknown_server(self):
        unknown = unittest.mock.Mock(side_effect=socket.gaierror(-2, "Name or service not known"))
        with unittest.mock.patch.object(socket, "getaddrinfo", unknown):
            self.fails(r"\(Name or service not known, 2 times\)", lambda: self.fetch(None))

    def test_place_that_cannot_be(self):
        store = download.Store("/dev/null/x")
        self.fails("^cannot write '/dev/null/x/a.part': Not a directory$",
                   lambda: list(store.fetch_all([Remote("a", ("http://127.0.0.1:9/",))], 0)))

    def test_mirror_that_is_a_url(self):
        with serving({"/mine/set/a.txt": TEXT}) as server:
            self.fetch(None, mirror=server.url + "/mine/")
        self.check_whole()

    def test_mirror_that_is_a_directory(self):
        mirror = os.path.join(self.directory, "mirror")
        there = os.path.join(mirror, "set/a.txt")
        self.fails("DATA_MIRROR has no set/a.txt: there is no file", lambda: self.fetch(None, mirror=mirror))
        write(there, TEXT)
        self.assertEqual(self.fetch(None, mirror=mirror), there)
        self.assertEqual(self.fetch(None, mirror="file://" + mirror), there)
        self.fails("is refused: its sha256 is", lambda: self.fetch(None, sha256(b""), mirror))
        write(there + ".sha256", sha256(b"").encode())
        self.fails("is refused: its sha256 is", lambda: self.fetch(None, mirror=mirror))
        self.fails("DATA_MIRROR is 'ftp://x', where", lambda: self.fetch(None, mirror="ftp://x"))
        self.assertFalse(os.path.exists(self.place))


class ManyTest(Directory):
    def setUp(self):
        super().setUp()
        self.texts = {f"/{i}": bytes([i]) * 50_000 for i in range(12)}

    def files(self, server):
        return [Remote(f"set{path}", (server.url + path,)) for path in self.texts]

    def test_a_few_at_a_time_in_order(self):
        with serving(self.texts, silences=[0.1] * 6) as server:
            paths = list(download.Store(self.directory).fetch_all(self.files(server), 600_000))
            self.assertTrue(2 <= server.busiest <= download.WORKERS, server.busiest)
        self.assertEqual([read(path) for path in paths], list(self.texts.values()))
        self.assertRegex(self.lines[-1], r"50.0 kB \(12 of 12\)")

    def test_one_failure_ends_all(self):
        with serving(self.texts, silences=[0.2] * 12) as server:
            files = self.files(server)
            del server.files["/3"]
            self.fails("set/3 could not be downloaded; .*404 Not Found", lambda: list(download.Store(self.directory).fetch_all(files, 0)))
            self.assertLess(len(server.asked), 8)
        left = [name for _, _, names in os.walk(self.directory) for name in names]
        self.assertLessEqual(set(left), {"0.part", "1.part", "2.part"})

    def test_one_by_one(self):
        with serving(self.texts) as server:
            paths = download.Store(self.directory).fetch_one_by_one(self.files(server))
            next(paths)
            self.assertEqual(len(server.asked), 1)


if __name__ == "__main__":
    unittest.main()
