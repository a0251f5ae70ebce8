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


def header_of(config, tensors, dtype="BF16", **beside):
    """What fitplug reads of it; other JSON files by their names without the ending."""
    head, length = checkpoints.header_bytes(tensors, dtype)
    texts = {f"{name}.json": json.dumps(said).encode() for name, said in ({"config": config} | beside).items()}
    blobs = [Sparse(name, text, len(text)) for name, text in texts.items()]
    return safetensors.read([Sparse("model.safetensors", head, length), *blobs])


def recorded(entry):
    """The header of a checkpoint that the converter was asked about."""
    beside = {"hf_quant_config": entry["quant_config"]} if "quant_config" in entry else {}
    return header_of(entry["config"], {key: (dtype, tuple(shape)) for key, dtype, shape in entry["source"]}, **beside)


@cache
def header(name):
    """A known model's."""
    make = checkpoints.MODELS.get(name) or checkpoints.SNAPSHOTS[name]
    return header_of(*make())


@pytest.fixture
def checkpoint():
    return header
