"""Safetensors: one file or all shards of a folder, with config.json and the index beside them: bytes → `Header`.

The rules are those of the official library (safetensors/src/tensor.rs, Metadata::validate): a header of at most 100 MB, tensors
that fill the rest of the file without gaps, sizes that are those of dtype and shape. What is beside the weights goes into the
metadata: `__metadata__` as "safetensors.KEY", config.json as "config.KEY", nested keys joined by dots; ModelOpt's
hf_quant_config.json likewise as "hf_quant_config.KEY".
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from fitplug.errors import UnreadableError
from fitplug.formats import sniff
from fitplug.formats.budget import PAIR, TENSOR, Budget
from fitplug.formats.header import Blob, Header, Skipped, Tensor, Value
from fitplug.formats.json_stream import JsonStream
from fitplug.formats.safetensors_config import read_config
from fitplug.formats.safetensors_files import sort_files, weight_map

MAX_HEADER = 100_000_000
"""MAX_HEADER_SIZE."""
BITS = {
    "bool": 8, "u8": 8, "i8": 8, "u16": 16, "i16": 16, "f16": 16, "bf16": 16, "u32": 32, "i32": 32, "f32": 32, "u64": 64,
    "i64": 64, "f64": 64, "c64": 64, "f8_e4m3": 8, "f8_e5m2": 8, "f8_e8m0": 8, "f8_e4m3fnuz": 8, "f8_e5m2fnuz": 8, "f4": 4,
    "f6_e2m3": 6, "f6_e3m2": 6,
}  # fmt: skip
"""dtype → bits of one element (Dtype::bitsize)."""
_MAX_DIMS, _MAX_SIZE = 64, 1 << 63


class _Shard(NamedTuple):
    """What one file says."""

    tensors: list[Tensor]
    metadata: dict[str, Value]
    data_offset: int


def recognises(blobs: Sequence[Blob]) -> bool:
    """Whether there is a file that is called so, or that begins as one does."""
    if any(blob.name.lower().endswith(".safetensors") for blob in blobs):
        return True
    start = blobs[0].read(0, 9) if blobs else b""
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER


def read(blobs: Sequence[Blob]) -> Header:
    """The header of one model.

    Raises:
        UnreadableError: a file that is no safetensors, is damaged or not complete; a shard that is missing.
    """
    files = sort_files(blobs)
    budget = Budget(sum(blob.n_bytes for blob in files.shards))
    metadata: dict[str, Value] = {}
    tensors: dict[str, Tensor] = {}
    offsets = []
    for index, blob in enumerate(files.shards):
        shard = _read_shard(blob, budget, index)
        for tensor in shard.tensors:
            if tensor.name in tensors:
                raise UnreadableError(f"{blob.name}: has the tensor {tensor.name[:80]!r} once more: the file is damaged")
            tensors[tensor.name] = tensor
        metadata |= {f"safetensors.{key}": value for key, value in shard.metadata.items()}
        offsets.append(shard.data_offset)
    notes = list(files.notes)
    if files.config is not None:
        metadata |= read_config(files.config, budget)
    else:
        notes.append("no config.json beside the weights: what the model is cannot be known from its tensors alone")
    if files.quant_config is not None:
        metadata |= read_config(files.quant_config, budget, "hf_quant_config")
    if files.index_file is not None:
        _check_index(files.index_file, files.shards, tensors)
    return Header(
        format="safetensors", metadata=metadata, tensors=tensors, n_bytes=sum(blob.n_bytes for blob in files.shards),
        shards=tuple(blob.name for blob in files.shards), header_bytes=sum(offsets), data_offsets=tuple(offsets),
        notes=tuple(notes), beside=files.beside, folder=str(getattr(files.shards[0], "folder", "")),
    )  # fmt: skip


def header_size(blob: Blob) -> int:
    """Bytes of one file before its tensors' data; the first eight bytes tell."""
    start = blob.read(0, sniff.N_BYTES)
    n_bytes = int.from_bytes(start[:8], "little")
    if len(start) < 9 or n_bytes > MAX_HEADER or start[8:9] != b"{":
        problem = sniff.describe(start) or "is no safetensors file: it does not begin with the length of a JSON header"
        raise UnreadableError(f"{blob.name}: {problem}")
    if 8 + n_bytes > blob.n_bytes:
        raise UnreadableError(f"{blob.name}: ends inside its header: the download is not complete; fetch it again")
    return 8 + n_bytes


def _read_shard(blob: Blob, budget: Budget, index: int) -> _Shard:
    data_offset = header_size(blob)
    stream = JsonStream(blob, 8, data_offset, "its header")
    tensors: list[Tensor] = []
    metadata: dict[str, Value] = {}
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for name in stream.members():
        if name == "__metadata__":
            metadata |= _metadata(stream, budget, blob.name)
            continue
        budget.spend(TENSOR + name.__sizeof__(), blob.name)
        tensor = _tensor(stream, name, index)
        tensors.append(tensor._replace(shape=shapes.setdefault(tensor.shape, tensor.shape)))
    stream.finish()
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.n_bytes))
    _check_tiling(blob, tensors, data_offset)
    return _Shard(tensors, metadata, data_offset)


def _metadata(stream: JsonStream, budget: Budget, where: str) -> dict[str, Value]:
    """The map of strings; long ones are stepped over."""
    found: dict[str, Value] = {}
    for key in stream.members():
        if key in found:
            raise stream.fail(f"has {key[:80]!r} twice")
        text = stream.string_or_length()
        budget.spend(PAIR + key.__sizeof__() + text.__sizeof__(), where)
        found[key] = Skipped("char", text) if isinstance(text, int) else text
    return found


def _tensor(stream: JsonStream, name: str, shard: int) -> Tensor:
    """One entry, its size checked against its dtype and shape."""
    entry = stream.value()
    dtype, shape, (begin, end) = _fields(entry) or _refuse(stream, name)
    bits = BITS.get(dtype)
    n_elements = 1
    for size in shape:
        n_elements *= size
    if n_elements >= _MAX_SIZE:
        raise stream.fail(f"gives {name[:80]!r} {n_elements} elements, more than any memory")
    if bits is not None and n_elements * bits != (end - begin) * 8:
        raise stream.fail(f"gives {name[:80]!r} {end - begin} bytes, which are not {n_elements} elements of {dtype}")
    return Tensor(name, dtype, shape[::-1], end - begin, begin, shard)


def _fields(entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]] | None:
    """dtype, shape and offsets; None where they are not what they must be."""
    if not isinstance(entry, dict):
        return None
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or not 0 < len(dtype) <= 32 or not dtype.isascii() or not dtype.isprintable():
        return None
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS or not _are_sizes(offsets) or len(offsets) != 2:
        return None
    return (dtype.lower(), tuple(shape), (offsets[0], offsets[1])) if offsets[0] <= offsets[1] else None


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _MAX_SIZE for value in values)


def _refuse(stream: JsonStream, name: str) -> NoReturn:
    raise stream.fail(f"does not give {name[:80]!r} a dtype, a shape and two offsets")


def _check_tiling(blob: Blob, tensors: Sequence[Tensor], data_offset: int) -> None:
    """Tensors follow each other without gaps, and with the last one the file ends."""
    expected = 0
    for tensor in tensors:
        if tensor.offset != expected:
            problem = f"tensor {tensor.name[:80]!r} has offset {tensor.offset}, expected {expected}: the file is damaged"
            raise UnreadableError(f"{blob.name}: {problem}")
        expected += tensor.n_bytes
    missing = data_offset + expected - blob.n_bytes
    if missing > 0:
        raise UnreadableError(f"{blob.name}: ends {missing} bytes too early: the download is not complete; fetch it again")
    if missing < 0:
        raise UnreadableError(f"{blob.name}: is {-missing} bytes longer than its header says: is the download damaged?")


def _check_index(index: Blob, shards: Sequence[Blob], tensors: Mapping[str, Tensor]) -> None:
    """Every tensor of the index must be in the file that it names. The index is read again, since it may not be held."""
    names = {blob.name.rpartition("/")[2]: number for number, blob in enumerate(shards)}
    for name, file in weight_map(index):
        tensor = tensors.get(name)
        if tensor is None or tensor.shard != names.get(file):
            raise UnreadableError(f"{file[:80]}: lacks the tensor {name[:80]!r}, which {index.name} says is in it")
