"""GGUF, versions 2 and 3, little and big endian: bytes → `Header` (ggml/src/gguf.cpp, gguf_init_from_reader).

What llama.cpp refuses is refused here too, with the reason; what only fitplug does not know (a type of tomorrow) is read as
far as it can be and noted. Weights are never touched, big arrays are stepped over.
"""

from collections.abc import Sequence

from fitplug.errors import UnreadableError
from fitplug.formats import sniff
from fitplug.formats.budget import Budget
from fitplug.formats.cursor import Cursor
from fitplug.formats.gguf_metadata import read_metadata
from fitplug.formats.gguf_split import check_shard, check_split
from fitplug.formats.gguf_tensors import read_tensors
from fitplug.formats.header import Blob, Header, Tensor, Value

MAGIC = b"GGUF"
_SMALLEST = 24
_MAX_KEYS = 1 << 16


def recognises(blobs: Sequence[Blob]) -> bool:
    """Whether the first file begins as GGUF does, or is at least called so."""
    return bool(blobs) and (blobs[0].read(0, 4) == MAGIC or blobs[0].name.lower().endswith(".gguf"))


def read(blobs: Sequence[Blob]) -> Header:
    """The header of one model: of a file, or of all shards of a split, in order.

    Raises:
        UnreadableError: a file that is no GGUF, is damaged or not complete; a shard that is missing.
    """
    budget = Budget(sum(blob.n_bytes for blob in blobs))
    first = _read_shard(blobs[0], budget, 0)
    check_split(blobs, first.metadata)
    shards = [first]
    for index, blob in enumerate(blobs[1:], start=1):
        shard = _read_shard(blob, budget, index)
        check_shard(blob.name, shard.metadata, index, len(blobs))
        shards.append(shard)
    return first if len(shards) == 1 else _join(shards)


def header_size(blob: Blob) -> int:
    """Bytes of one file before its tensors' data: so much must be fetched to read all that `read` tells."""
    return _read_shard(blob, Budget(blob.n_bytes), 0).header_bytes


def _read_shard(blob: Blob, budget: Budget, index: int) -> Header:
    cursor = Cursor(blob, budget)
    version = _begin(cursor)
    n_tensors, n_keys = cursor.u64("its counts"), cursor.u64("its counts")
    if n_keys > _MAX_KEYS:
        raise cursor.fail(f"claims {n_keys} metadata keys, more than {_MAX_KEYS}: the file is damaged")
    metadata: dict[str, Value] = read_metadata(cursor, n_keys)
    tensors, data_offset, notes = read_tensors(cursor, n_tensors, metadata.get("general.alignment", 32), index)
    if cursor.byte_order == "big":
        notes.append("big endian: llama.cpp loads it on big-endian machines only")
    return Header(
        format="gguf", metadata=metadata, tensors=tensors, n_bytes=blob.n_bytes, shards=(blob.name,), header_bytes=data_offset,
        version=version, byte_order=cursor.byte_order, notes=tuple(notes), data_offsets=(data_offset,),
    )  # fmt: skip


def _begin(cursor: Cursor) -> int:
    """Magic and version; sets the byte order, which only the version's bytes tell."""
    start = cursor.blob.read(0, sniff.N_BYTES)
    if start[:4] != MAGIC:
        raise cursor.fail(sniff.describe(start) or f"is no GGUF file: it begins with {start[:4]!r}")
    if len(start) < _SMALLEST:
        raise cursor.truncated("its first fields")
    cursor.skip(4, "its magic")
    version = cursor.u32("its version")
    if version & 0xFFFF == 0:  # as gguf_init_from_reader tells the other byte order
        cursor.set_byte_order("big")
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version == 1:
        raise cursor.fail("is GGUF version 1, which llama.cpp no longer loads: get a newer conversion")
    if version not in {2, 3}:
        raise cursor.fail(f"is GGUF version {version}; fitplug and llama.cpp read 2 and 3")
    return version


def _join(shards: Sequence[Header]) -> Header:
    """One header of all shards: the first one's metadata, as llama_model_loader takes it, and everybody's tensors."""
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in shard.tensors.items():
            if name in tensors:
                raise UnreadableError(f"{shard.shards[0]}: tensor {name!r} is in {shards[tensors[name].shard].shards[0]} too")
            tensors[name] = tensor
    first = shards[0]
    stated = first.metadata.get("split.tensors.count")
    if stated is not None and stated != len(tensors):
        raise UnreadableError(f"{first.shards[0]}: the split should have {stated} tensors, its files have {len(tensors)}")
    return Header(
        format="gguf", metadata=first.metadata, tensors=tensors, n_bytes=sum(shard.n_bytes for shard in shards),
        shards=tuple(shard.shards[0] for shard in shards), header_bytes=sum(shard.header_bytes for shard in shards),
        version=first.version, byte_order=first.byte_order, notes=tuple(note for shard in shards for note in shard.notes),
        data_offsets=tuple(shard.header_bytes for shard in shards),
    )  # fmt: skip
