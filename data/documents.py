"""The documents in a file, one after another, as text. A file may be larger than the memory; a document may not."""
import io
import json
import lzma
import re
import tarfile

from common import Failure, map_ahead

SEPARATOR = "<|endoftext|>"
PIECE = 1 << 20
WORKERS = 4          # archives unpacked at a time


def read_txt(path, _field):
    """Between separators, to which a line feed right behind belongs; a file without any is a document. What is not UTF-8 becomes
    U+FFFD."""
    rest = ""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        first = True
        while True:
            piece = file.read(max(PIECE, len(rest)))   # as much again, so that a long document is not copied over and over
            *documents, rest = (rest + piece).split(SEPARATOR)
            for document in documents if piece else [rest]:
                document = document if first else document[document.startswith("\n"):]
                first = False
                if document:
                    yield document
            if not piece:
                return


def read_jsonl(path, field):
    """A JSON object a line."""
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                text = json.loads(line)[field]
            except (ValueError, KeyError, TypeError, RecursionError):
                text = None
            if not isinstance(text, str):
                raise Failure(f"'{path}', line {number}: it is no JSON object with a text '{field}'; --field names another member")
            if text:
                yield text


def parquet_module():
    try:
        import pyarrow.parquet
    except ImportError:
        raise Failure("parquet files need pyarrow, which this Python lacks: python3 -m pip install pyarrow") from None
    return pyarrow.parquet


def read_parquet_column(path, field):
    import pyarrow
    try:
        with open(path, "rb") as file:
            parquet = parquet_module().ParquetFile(file)
            names = parquet.schema_arrow.names
            if field not in names:
                raise Failure(f"'{path}' has no column '{field}', but {', '.join(names)}; --field names another one")
            for batch in parquet.iter_batches(batch_size=1024, columns=[field]):
                yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise Failure(f"'{path}' cannot be read: {str(error).splitlines()[0]}") from None


def read_parquet(path, field):
    """A row a document."""
    for text in read_parquet_column(path, field):
        if not isinstance(text, (str, type(None))):
            raise Failure(f"'{path}': the column '{field}' holds no texts; --field names another one")
        if text:
            yield text


def read_wikitext(path, field):
    """A row a line, an article a document: it begins at a heading of the first level, " = Title = ", that follows an empty line.
    Rows are empty where the original has a blank, which is put back."""
    lines = []
    for row in read_parquet_column(path, field):
        line = row or " \n"
        if re.match(" = [^=]", line) and line.endswith(" = \n") and not line.endswith(" = = \n") and lines and not lines[-1].strip():
            if "".join(lines).strip():
                yield "".join(lines)
            lines = []
        lines.append(line)
    if "".join(lines).strip():
        yield "".join(lines)


def unpack(member):
    """The texts in one of OpenWebText's inner archives; three line feeds or more become two, as in every other release of this dataset."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(member))) as archive:
        entries = [entry for entry in archive if entry.isfile() and entry.name.endswith(".txt")]
        texts = [archive.extractfile(entry).read().decode("utf-8", "replace") for entry in entries]
    return list(filter(None, (re.sub("\n{3,}", "\n\n", text).strip() for text in texts)))


def read_openwebtext(path, _field):
    """A tar of tar.xz archives of texts."""
    try:
        with tarfile.open(path) as archive:
            members = (archive.extractfile(entry).read() for entry in archive if entry.isfile() and entry.name.endswith(".xz"))
            for texts in map_ahead(unpack, members, WORKERS):
                yield from texts
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise Failure(f"'{path}' cannot be read: {str(error).splitlines()[0].rstrip(':')}") from None


READERS = {"txt": read_txt, "jsonl": read_jsonl, "parquet": read_parquet, "wikitext": read_wikitext, "openwebtext": read_openwebtext}
NEED_PARQUET = ("parquet", "wikitext")


def reader_of(path):
    """The reader's name for a file of the user's."""
    ending = path.rsplit(".", 1)[-1].lower()
    if ending not in ("txt", "jsonl", "parquet"):
        raise Failure(f"'{path}' is no .txt, .jsonl or .parquet file")
    return ending


def limited(documents, limit):
    """The first documents, until they have `limit` bytes together; all without a limit."""
    total = 0
    for document in documents:
        yield document
        total += len(document.encode("utf-8", "replace")) if limit else 0
        if limit and total >= limit:
            return


def write_jsonl(documents, file):
    """As `tokenizer shards --input -` reads them."""
    quote = json.JSONEncoder(ensure_ascii=False).encode   # a third faster than json.dumps
    for document in documents:
        file.write(f'{{"text": {quote(document)}}}\n'.encode("utf-8", "replace"))


def write_separated(documents, file):
    """As `tokenizer train` reads them."""
    for document in documents:
        file.write(document.encode("utf-8", "replace") + SEPARATOR.encode())
