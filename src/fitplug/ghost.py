"""Ghost files: a model's header, and a hole where its weights would be.

llama.cpp measures a model (llama_model_params.no_alloc) from its header and its length alone: what stands in the tensors is
never read. So a real engine can answer for a model that is not on this disk.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.formats.header import Blob, Header


class Ghost(NamedTuple):
    """A file to write: `head`, then nothing up to `n_bytes`."""

    name: str
    head: bytes
    n_bytes: int


def ghosts(blobs: Sequence[Blob], header: Header) -> tuple[Ghost, ...]:
    """Every file of the model `header` was read from, without its weights.

    Raises:
        RefusedError: it is no GGUF: no llama.cpp could be asked.
    """
    if header.format != "gguf" or len(header.data_offsets) != len(blobs):
        raise RefusedError(f"llama.cpp can only be asked about GGUF files, not {header.format}")
    return tuple(
        Ghost(_file_name(blob.name), blob.read(0, offset), blob.n_bytes)
        for blob, offset in zip(blobs, header.data_offsets, strict=True)
    )


def _file_name(name: str) -> str:
    """The name alone: llama.cpp finds the other shards by it, beside the first."""
    return name.replace("\\", "/").rpartition("/")[2] or "model.gguf"
