"""Headers of checkpoints, without writing their weights."""

import json
from functools import cache

import pytest

from conversion import checkpoints
from fitplug.formats import safetensors


class Sparse:
    """A file of which only the beginning is there."""

    def __init__(self, name, head, n_bytes):
        self.name, self._head, self.n_bytes = name, head, n_bytes

    def read(self, offset, n_bytes):
        return self._head[offset : offset + n_bytes]


def header_of(config, tensors, dtype="BF16"):
    """What fitplug reads of it."""
    head, length = checkpoints.header_bytes(tensors, dtype)
    text = json.dumps(config).encode()
    return safetensors.read([Sparse("model.safetensors", head, length), Sparse("config.json", text, len(text))])


@cache
def header(name):
    """A known model's."""
    make = checkpoints.MODELS.get(name) or checkpoints.SNAPSHOTS[name]
    return header_of(*make())


@pytest.fixture
def checkpoint():
    return header
