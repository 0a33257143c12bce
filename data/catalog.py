"""The datasets that prepare.py can download, a row each. Another one is another row, and one in the table of README.md."""
from typing import NamedTuple, Tuple


class Remote(NamedTuple):
    """A file to download."""
    name: str                 # where it lies among the downloads, and in a mirror
    urls: Tuple[str, ...]     # tried in this order
    sha256: str = ""          # if known


class Dataset(NamedTuple):
    title: str
    license: str
    reader: str                   # of documents.READERS
    vocab: str                    # the default of --vocab
    train: Tuple[Remote, ...]
    val: Tuple[Remote, ...]       # () where a share of the training documents is taken
    val_fraction: float           # that share; without effect otherwise
    download_bytes: int           # all files, about
    text_bytes: int               # all documents, about
    field: str = "text"           # the column or member that holds the text


def hub(folder, repository, revision, path, sha256=""):
    """A file of a dataset on the Hugging Face hub."""
    url = f"https://huggingface.co/datasets/{repository}/resolve/{revision}/{path}"
    return Remote(f"{folder}/{path.rsplit('/', 1)[-1]}", (url,), sha256)


def tinystories(name, sha256):
    path = f"TinyStoriesV2-GPT4-{name}.txt"
    return hub("tinystories", "roneneldan/TinyStories", "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64", path, sha256)


def wikitext(name):
    return hub("wikitext103", "Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", f"wikitext-103-raw-v1/{name}.parquet")


def openwebtext(number):
    return hub("openwebtext", "Skylion007/openwebtext", "f3808c30e817981b845ec549c43e82bb467d8144", f"subsets/urlsf_subset{number:02}.tar")


def fineweb(name, number):
    return hub(name, f"HuggingFaceFW/{name}", "main", f"sample/10BT/{number:03}_00000.parquet")


DATASETS = {
    "tinyshakespeare": Dataset(
        title="TinyShakespeare", license="public domain", reader="txt", vocab="gpt2",
        train=(Remote("tinyshakespeare.txt", ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
                      "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),),
        val=(), val_fraction=0.1, download_bytes=1_115_394, text_bytes=1_115_394),
    "tinystories": Dataset(
        title="TinyStories V2 (GPT-4)", license="CDLA-Sharing-1.0", reader="txt", vocab="train:10000",
        train=(tinystories("train", "6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443"),),
        val=(tinystories("valid", "6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d"),),
        val_fraction=0, download_bytes=2_250_255_763, text_bytes=2_250_255_763),
    "wikitext103": Dataset(
        title="WikiText-103, raw", license="CC BY-SA 3.0 and GFDL", reader="wikitext", vocab="gpt2",
        train=(wikitext("train-00000-of-00002"), wikitext("train-00001-of-00002")), val=(wikitext("validation-00000-of-00001"),),
        val_fraction=0, download_bytes=315_000_000, text_bytes=546_000_000),
    "openwebtext": Dataset(
        title="OpenWebText", license="CC0 for the collection; the texts are their authors'", reader="openwebtext", vocab="train:32000",
        train=tuple(openwebtext(number) for number in range(21)), val=(),
        val_fraction=0.0005, download_bytes=13_500_000_000, text_bytes=39_800_000_000),
    "fineweb": Dataset(
        title="FineWeb, sample of 10 billion tokens", license="ODC-By 1.0; Common Crawl's terms of use", reader="parquet", vocab="gpt2",
        train=tuple(fineweb("fineweb", number) for number in range(15)), val=(),
        val_fraction=0.01, download_bytes=30_600_000_000, text_bytes=46_000_000_000),
    "fineweb-edu": Dataset(
        title="FineWeb-Edu, sample of 10 billion tokens", license="ODC-By 1.0; Common Crawl's terms of use", reader="parquet", vocab="gpt2",
        train=tuple(fineweb("fineweb-edu", number) for number in range(14)), val=(),
        val_fraction=0.01, download_bytes=28_500_000_000, text_bytes=47_000_000_000),
}

# GPT-2's vocabulary: OpenAI's own copy stands second.
GPT2 = (
    Remote("gpt2/vocab.json", ("https://huggingface.co/openai-community/gpt2/resolve/main/vocab.json",
                               "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json"),
           "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    Remote("gpt2/merges.txt", ("https://huggingface.co/openai-community/gpt2/resolve/main/merges.txt",
                               "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"),
           "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
)
