"""Which of a repository's files are opened for a model."""

from fitplug.extension import Entry, Listing
from fitplug.repository.reference import open_reference

NAMES = ("config.json", "model.safetensors", "tokenizer.json", "README.md", "other/tokenizer.json", "pytorch_model.bin")


class File:
    n_bytes = 1

    def __init__(self, name, *, local):
        self.name = name
        if local:
            self.path = f"/kept/{name}"


def opened(local):
    """The names of what is opened where some files are on this disk."""
    listing = Listing(
        repository="o/n", revision="main", entries=tuple(Entry(path=name, n_bytes=1, sha256=None) for name in NAMES)
    )
    blobs = open_reference("o/n", lambda _: listing, lambda _, entry: File(entry.path, local=entry.path in local))
    return [blob.name for blob in blobs]


def test_the_tokenizer_is_read_where_it_was_downloaded_with_the_weights():
    assert opened(NAMES) == ["model.safetensors", "config.json", "tokenizer.json", "README.md"]


def test_nothing_is_fetched_for_the_sake_of_the_vocabulary():
    assert opened(()) == ["model.safetensors", "config.json"]
    assert opened(("config.json", "tokenizer.json")) == ["model.safetensors", "config.json"]
    assert opened(("model.safetensors", "README.md")) == ["model.safetensors", "config.json", "README.md"]
