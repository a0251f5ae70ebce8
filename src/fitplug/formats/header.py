"""What every model format is read into: metadata and the table of tensors, no weights."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from fitplug.record import record


class Blob(Protocol):
    """Bytes that can be read at any place: a file, a range-requested URL, a part of a test."""

    @property
    def name(self) -> str:
        """The file's own name, for messages and for finding its sibling shards."""
        ...

    @property
    def n_bytes(self) -> int:
        """The whole length."""
        ...

    def read(self, offset: int, n_bytes: int) -> bytes:
        """`n_bytes` from `offset`, fewer only at the end of the blob."""
        ...


class Skipped(NamedTuple):
    """An array that was stepped over and not built (a vocabulary, say): its type and length are known."""

    item_type: str
    length: int
    end: int = 0
    """Where it ends in its file."""
    n_bytes: int = 0
    """Of all items, where the array is not read but worked out; of a text ("char") the least, `length` being the most."""


Scalar: TypeAlias = int | float | bool | str
Value: TypeAlias = Scalar | tuple[Scalar, ...] | Skipped


class Tensor(NamedTuple):
    """One tensor as it lies in the file."""

    name: str
    type: str
    """ggml's own name of the type ("q4_K", "f16"), or the safetensors dtype in lower case ("bf16", "f8_e4m3")."""
    shape: tuple[int, ...]
    """In ggml's order, the contiguous dimension first; safetensors shapes are reversed on reading."""
    n_bytes: int
    offset: int
    """From the start of the shard's data section."""
    shard: int = 0

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        n = 1
        for size in self.shape:
            n *= size
        return n


@record
class Header:
    """All that can be known of a model without reading its weights."""

    format: str
    """"gguf" or "safetensors"."""
    metadata: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    """By name, in the order of the file (of the files, for a split)."""
    n_bytes: int
    """Of all files together."""
    shards: Sequence[str] = ()
    """File names, first to last."""
    header_bytes: int = 0
    """How much of the files is header."""
    version: int = 0
    byte_order: str = "little"
    data_offsets: Sequence[int] = ()
    """Where each shard's data section begins: `Tensor.offset` counts from there."""
    notes: Sequence[str] = ()
    """Anything odd that was met and did not stop the reading."""
    beside: Sequence[Blob] = ()
    """Small files beside the weights (tokenizer, model card), not read until a conversion wants them."""
    folder: str = ""
    """What the folder is called that all of them lie in."""

    def length(self, key: str) -> int | None:
        """Number of entries of an array, built or stepped over; None if the key is absent or a scalar."""
        value = self.metadata.get(key)
        if isinstance(value, Skipped):
            return value.length
        return len(value) if isinstance(value, tuple) else None
