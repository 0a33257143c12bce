"""What the other files share: the one kind of error that is the user's to read, words for sizes, and work done ahead by threads."""
import collections
import concurrent.futures
import contextlib
import os
import signal
import sys


class Failure(Exception):
    """Ends the program with its one sentence."""


def say(text):
    print("prepare: " + text, flush=True)


def bytes_text(count):
    """1234567 as '1.2 MB'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def size_of(path):
    """Bytes in a file; 0 if there is none."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def remove(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def reason(error):
    """What an OSError says, without its number and file name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def map_ahead(function, items, workers, cancel=lambda: None):
    """Yields function(item) for each item, in their order, while `workers` threads work on the next ones; no more than that many
    results wait. When a call fails, or the caller stops early, cancel() is called and what was not begun is left undone."""
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            cancel()
            for future in waiting:
                future.cancel()
            raise


@contextlib.contextmanager
def signals_wait():
    """What comes meanwhile and would end the program does so at the end of the block."""
    came = []
    ends = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(n))]
    handlers = {n: signal.signal(n, lambda number, frame: came.append((number, frame))) for n in ends}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in came:
        handlers[number](number, frame)


def main_of(command, program="prepare"):
    """Runs command(); what the user must know is one line on standard error."""
    try:
        command()
    except Failure as failure:
        sys.exit(f"{program}: {failure}")
    except KeyboardInterrupt:
        sys.exit(f"{program}: interrupted")
