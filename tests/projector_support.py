"""Headers of projectors and what llama.cpp's clip reserves for them (fixtures/projectors)."""

import json
from functools import cache
from pathlib import Path

import truth_support as truth
from fitplug.formats.ggml_types import TYPES, row_size
from fitplug.formats.header import Header, Tensor
from fitplug.settings import Settings

FIXTURE = Path(__file__).parent.parent / "fixtures" / "projectors" / "projectors.json"
GGML = {row.name.upper(): row.name for row in TYPES}
CARDS = {"8.9": (24564, 24000), "6.1": (8192, 8000)}


@cache
def rows():
    return json.loads(FIXTURE.read_text())


def header(row):
    """The projector's file without its weights."""
    metadata = {key: tuple(value) if isinstance(value, list) else value for key, value in row["metadata"].items()}
    prefix, section = ("v", "vision") if "clip.vision.block_count" in metadata else ("a", "audio")
    found = dict(row["tensors"])
    for il in range(metadata[f"clip.{section}.block_count"]):
        found |= {f"{prefix}.blk.{il}.{name}": tensor for name, tensor in row["layer"].items()}
    tensors = {name: _tensor(name, GGML[kind], tuple(shape)) for name, (kind, shape) in found.items()}
    return Header(format="gguf", n_bytes=0, metadata={"general.architecture": "clip"} | metadata, tensors=tensors)


def _tensor(name, kind, shape):
    n_rows = 1
    for n in shape[1:]:
        n_rows *= n
    return Tensor(name, kind, shape, row_size(kind, shape[0]) * n_rows, 0)


def machine(card):
    """A machine with that card, or with none."""
    if not card:
        return truth.machine([])
    total, free = CARDS[card]
    return truth.machine([{"name": "a", "total_mib": total, "free_mib": free, "compute_capability": card}])


def settings(answer):
    return Settings(mmproj="p.gguf", mmproj_offload=answer["offload"], flash_attn=answer["flash_attn"])
