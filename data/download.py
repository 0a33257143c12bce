"""Downloads files: several at a time, resumed, retried, checked, from a mirror if there is one (README.md, "Downloads").

A file appears under its name when it is whole and has been checked; until then it is NAME.part, which only that process touches that has
locked it. NAME.sha256 keeps what it was."""
import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from common import Failure, bytes_text, map_ahead, reason, remove, say, size_of

WORKERS = 4            # downloads at a time
TRIES = 5              # one after another that bring nothing, before a server is given up
TRIES_OF_NAME = 2      # where not even its name is known
FIRST_WAIT = 1.0       # seconds before the second try, doubled for each further one
TIMEOUT = 30.0         # seconds of silence
PIECE = 1 << 20
PASSING = (408, 425, 429, 500, 502, 503, 504)   # answers that may be better next time


class Interrupted(Exception):
    """Try again: what has come so far is kept."""
    tries = TRIES


class NameUnknown(Interrupted):
    """Most likely there is no network."""
    tries = TRIES_OF_NAME


class GivenUp(Exception):
    """This URL will not do."""


class Stopped(Exception):
    """Another file has failed."""


# ---- Checksums ----

def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(PIECE), b""):
            digest.update(piece)
    return digest.hexdigest()


def recorded_sha256(path):
    """What NAME.sha256 says, or "" if there is none."""
    try:
        with open(path + ".sha256", encoding="ascii", errors="replace") as file:
            return file.read(64)
    except FileNotFoundError:
        return ""


def record_sha256(path, digest):
    with open(path + ".sha256", "w", encoding="utf-8") as file:
        file.write(f"{digest}  {os.path.basename(path)}\n")


def is_at(file, path):
    """Whether the opened file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


# ---- One answer of a server ----

class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections. The Hugging Face hub names a file's sha256 where it redirects to the place that has the file."""
    sha256 = ""

    def redirect_request(self, request, answer, code, message, headers, url):
        named = (headers.get("X-Linked-Etag") or "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", named):
            self.sha256 = named
        return super().redirect_request(request, answer, code, message, headers, url)


def ask(url, start, version):
    """Opens url from byte `start` on, if the file is still the one that had this version_of(). Returns the answer, and the sha256 named
    on the way or ""."""
    headers = {"User-Agent": "train_gpt", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    redirects = Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT), redirects.sha256
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error, redirects.sha256
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        raise (Interrupted if error.code in PASSING else GivenUp)(answer) from None
    except (OSError, http.client.HTTPException) as error:   # URLError is an OSError
        cause = getattr(error, "reason", error)
        raise (NameUnknown if isinstance(cause, socket.gaierror) else Interrupted)(reason(cause)) from None
    except ValueError as error:
        raise GivenUp(str(error)) from None


def version_of(answer):
    """By which a server knows a file again: its ETag, else its date, or "". A weak ETag does not promise the same bytes."""
    etag = answer.headers.get("ETag") or ""
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified") or ""


def is_another(answer, version):
    """Whether what is resumed is of another version, which a server that does not know If-Range sends."""
    given = answer.headers.get("Last-Modified" if version.endswith("GMT") else "ETag")
    return bool(version and given and given != version)


def length_of(answer):
    """Of what this answer brings, or None if it does not say."""
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def start_of(answer):
    """The byte at which this answer begins."""
    if answer.status != 206:
        return 0
    given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
    return int(given.group(1)) if given else -1


def whole_length(answer):
    """Of the file, as a refused range tells it; -1 if it does not."""
    given = re.match(r"bytes \*/(\d+)", answer.headers.get("Content-Range") or "")
    return int(given.group(1)) if given else -1


# ---- Progress ----

class Progress:
    """One line about all downloads: drawn anew on a terminal, else once in a while."""

    def __init__(self, files, about):
        self.files, self.done, self.about = files, 0, about
        self.kept = self.received = 0
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.lock = threading.Lock()

    def keep(self, count):
        """So many bytes are there from an earlier run; fewer than none: they were given up."""
        with self.lock:
            self.kept += count

    def receive(self, count):
        with self.lock:
            self.received += count
            now = time.monotonic()
            if now - self.shown >= (0.2 if self.terminal else 30):
                self.shown = now
                self.show(now)

    def finish(self, name, count):
        with self.lock:
            self.done += 1
            if self.terminal:
                print(end="\r\033[K")
            say(f"{name}: {bytes_text(count)} ({self.done} of {self.files})")

    def show(self, now):
        there, rate = self.kept + self.received, self.received / (now - self.began)
        line = f"{self.done} of {self.files} files, {bytes_text(there)}"
        if self.about > there:
            left = (self.about - there) / max(rate, 1)
            line += f" of about {bytes_text(self.about)}, {left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f} left"
        line += f", {bytes_text(rate)}/s"
        if self.terminal:
            print(f"\r\033[K{line}", end="", flush=True)
        else:
            say(line)


# ---- A place for files ----

class Store:
    """Files in `directory`, which come from `mirror` (a directory or a URL; "": from where the catalog says)."""

    def __init__(self, directory, mirror=""):
        self.directory = directory
        self.mirror = mirror[len("file://"):] if mirror.startswith("file://") else mirror
        self.mirror_is_url = re.match("https?://", self.mirror) is not None
        if not self.mirror_is_url and "://" in self.mirror:
            raise Failure(f"DATA_MIRROR is '{mirror}', where a directory or a URL that begins with http:// or https:// is needed")
        self.there = set()       # names of the files that were fetched, or checked
        self.progress = None
        self.stop = threading.Event()
        self.failure = None      # what stopped all downloads

    def path(self, file):
        """Where the file is, or will be. In a mirror that is a directory it is used where it lies."""
        return os.path.join(self.mirror if self.mirror and not self.mirror_is_url else self.directory, file.name)

    def missing(self, files):
        """Those that are still to be downloaded."""
        return [file for file in files if not os.path.exists(self.path(file))]

    def fetch_all(self, files, about):
        """Yields the path of each file, in order, as soon as it is there. They have about so many bytes (0: not known)."""
        self.progress = Progress(len(self.missing(files)), about)
        return map_ahead(self.fetch, files, WORKERS, self.stop.set)

    def fetch_one_by_one(self, files):
        """The same, without a download that is not asked for yet."""
        self.progress = Progress(len(self.missing(files)), 0)
        return map(self.fetch, files)

    def fetch(self, file):
        path = self.path(file)
        if file.name in self.there:
            return path
        if self.mirror and not self.mirror_is_url:
            self.check_mirrored(file, path)
        elif not os.path.exists(path):
            try:
                self.download(file, path)
            except Stopped:
                raise self.failure or Failure("interrupted") from None
            except BaseException as failure:
                self.failure = self.failure or failure
                self.stop.set()
                raise
        self.there.add(file.name)
        return path

    def check_mirrored(self, file, path):
        if not os.path.isfile(path):
            raise Failure(f"DATA_MIRROR has no {file.name}: there is no file '{path}'")
        expected = file.sha256 or recorded_sha256(path)
        found = sha256_of(path) if expected else ""
        if found != expected:
            raise Failure(f"'{path}' is refused: its sha256 is {found}, not {expected}")

    def tidy(self, path):
        """Leaves nothing of a download that brought nothing."""
        part = path + ".part"
        if size_of(part) == 0:
            remove(part)
            remove(part + ".etag")
        for directory in (os.path.dirname(path), self.directory):
            try:
                os.rmdir(directory)
            except OSError:
                return

    @contextlib.contextmanager
    def locked_part(self, path):
        """NAME.part, opened, locked and, afterwards, tidied. None if another process has made the file meanwhile."""
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            opened = open(path + ".part", "ab")
        except OSError as error:
            raise Failure(f"cannot write '{path}.part': {reason(error)}") from None
        with opened as part:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Failure(f"another process is downloading '{path}'; wait for it, or end it") from None
            if not is_at(part, path + ".part"):   # what was opened has got its name, or was removed, before it was locked
                if not os.path.exists(path):
                    raise Failure(f"another process has just given up downloading '{path}'; try again")
                yield None
                return
            try:
                yield None if os.path.exists(path) else part
            finally:
                if not os.path.exists(path + ".part") or is_at(part, path + ".part"):
                    self.tidy(path)

    def download(self, file, path):
        urls = (self.mirror.rstrip("/") + "/" + urllib.parse.quote(file.name),) if self.mirror else file.urls
        with self.locked_part(path) as part:
            if not part:
                return
            self.progress.keep(part.tell())
            tried = []
            for url in urls:
                try:
                    digest = self.receive_all(url, file, part)
                    break
                except GivenUp as problem:
                    tried.append(f"{url} ({problem})")
            else:
                raise Failure(f"{file.name} could not be downloaded; tried {' and '.join(tried)}; without a network, set DATA_MIRROR to a "
                              f"directory or URL prefix that holds {file.name}")
            record_sha256(path, digest)
            remove(path + ".part.etag")
            self.progress.finish(file.name, part.tell())
            os.replace(path + ".part", path)

    def receive_all(self, url, file, part):
        """The whole file, by as many tries as it takes while they bring something. Returns its sha256; what fails the check is thrown
        away."""
        tries, expected = 1, file.sha256 or recorded_sha256(part.name[:-len(".part")])
        while True:
            before = part.seek(0, os.SEEK_END)
            try:
                named = self.receive(url, part, expected)
                return self.check(file, part, named, resumed=before > 0)
            except Interrupted as problem:
                tries = 1 if part.seek(0, os.SEEK_END) > before else tries + 1
                if tries > problem.tries:
                    raise GivenUp(f"{problem}, {tries - 1} times") from None
                wait = FIRST_WAIT * 2 ** max(tries - 2, 0)
                say(f"{file.name}: {problem}; trying again in {wait:.0f} s")
                if self.stop.wait(wait):
                    raise Stopped() from None

    def receive(self, url, part, expected):
        """One try. Returns the sha256 that the server names, or ""."""
        answer, named, size = self.resume(url, part, expected)
        with answer:
            if answer.status == 416:
                if whole_length(answer) == size:
                    return named
                self.restart(part)
                raise Interrupted("what was kept is no part of the file, and is thrown away")
            start = start_of(answer)
            if start != size:
                self.restart(part)
                if start != 0:
                    raise Interrupted("the server sends another part than was asked for")
            if answer.status != 206:
                self.keep_version(part.name + ".etag", version_of(answer))
            length = length_of(answer)
            self.require_space(part.name, length)
            self.copy(answer, part)
            if length is not None and part.tell() != start + length:
                raise Interrupted(f"the connection ended after {bytes_text(part.tell())} of {bytes_text(start + length)}")
        return named

    def resume(self, url, part, expected):
        """Asks for the rest of the file, or for all of it where nothing would tell that the rest is of another version. Returns what
        ask() does, and the byte that was asked for."""
        version_path, version = part.name + ".etag", ""
        if os.path.exists(version_path):
            with open(version_path, encoding="latin-1") as file:
                version = file.read()
        size = part.seek(0, os.SEEK_END)
        answer, named = ask(url, size, version)
        if size and answer.status != 200 and (is_another(answer, version) or not (version or expected or named)):
            answer.close()
            self.restart(part)
            answer, named = ask(url, 0, "")
        return answer, named, part.tell()

    def restart(self, part):
        self.progress.keep(-part.tell())
        part.truncate(0)
        part.seek(0)

    @staticmethod
    def keep_version(path, version):
        remove(path)
        if version:
            with open(path, "w", encoding="latin-1") as file:
                file.write(version)

    @staticmethod
    def require_space(path, length):
        free = shutil.disk_usage(os.path.dirname(path)).free
        if length is not None and length > free:
            raise Failure(f"'{path}' needs {bytes_text(length)} more, and the disk has {bytes_text(free)}: free some space, or name another"
                          " place with --downloads")

    def copy(self, answer, part):
        while True:
            if self.stop.is_set():
                raise Stopped()
            try:
                piece = answer.read1(PIECE)   # what is there, so that little is lost when the connection breaks
            except (OSError, http.client.HTTPException) as error:
                raise Interrupted(f"the connection broke: {reason(error)}") from None
            if not piece:
                return
            try:
                part.write(piece)
                part.flush()
            except OSError as error:
                raise Failure(f"cannot write '{part.name}': {reason(error)}") from None
            self.progress.receive(len(piece))

    def check(self, file, part, named, resumed):
        """Against the catalog's sha256, else that of the first download, else the server's."""
        path = part.name[:-len(".part")]
        recorded = recorded_sha256(path)
        expected = file.sha256 or recorded or named
        found = sha256_of(part.name)
        if not expected or found == expected:
            return found
        self.restart(part)
        if resumed:
            raise Interrupted("its sha256 is wrong after being resumed, so it is downloaded anew")
        why = f"its sha256 is {found}, not {expected}"
        if not file.sha256 and recorded:
            why += f", which it had when it was first downloaded; delete '{path}.sha256' if it may be another now"
        raise GivenUp(why)
