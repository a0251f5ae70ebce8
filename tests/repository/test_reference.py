"""Which of a repository's files are opened for a model, and which lie beside it."""

import pytest

from fitplug.extension import Entry, Listing
from fitplug.repository.grouping import select
from fitplug.repository.reference import files_beside, open_reference

NAMES = ("config.json", "model.safetensors", "tokenizer.json", "README.md", "1_Pooling/config.json", "other/tokenizer.json",
         "pytorch_model.bin", "other.gguf")  # fmt: skip


def listed(below=""):
    """A repository, or a folder of one."""
    entries = tuple(Entry(path=f"{below}{name}", n_bytes=1, sha256=None) for name in NAMES)
    return Listing(repository="o/n", revision="main", entries=entries)


class File:
    n_bytes = 1

    def __init__(self, name):
        self.name = name


def test_a_model_is_opened_with_what_describes_it_and_nothing_else():
    blobs = open_reference("o/n:model.safetensors", lambda _: listed(), lambda _, entry: File(entry.path))
    assert [blob.name for blob in blobs] == ["model.safetensors", "config.json"]


@pytest.mark.parametrize("below", ["", "a/", "a/b/"])
def test_tokenizer_and_card_lie_in_the_folder_of_the_weights_or_in_certain_ones_below(below):
    listing = listed(below)
    beside = files_beside(listing, select(listing, f"{below}model.safetensors"))
    assert {name: entry.path for name, entry in beside.items()} == {
        name: f"{below}{name}" for name in ("config.json", "tokenizer.json", "README.md", "1_Pooling/config.json")
    }


def test_beside_a_gguf_there_is_nothing_that_it_lacks():
    assert not files_beside(listed(), select(listed(), "other.gguf"))
