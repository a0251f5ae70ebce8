"""GGUF's table of tensors, and where their data lies (ggml/src/gguf.cpp, gguf_init_from_reader)."""

from struct import Struct, error
from typing import NamedTuple

from fitplug.formats.budget import TENSOR
from fitplug.formats.cursor import Cursor
from fitplug.formats.ggml_types import BY_NAME, TYPES, type_name
from fitplug.formats.header import Tensor, Value
from fitplug.units import pad

MAX_DIMS = 4
"""GGML_MAX_DIMS."""
MAX_NAME, _GGML_MAX_NAME = 1024, 64
_MAX_TYPE = 1 << 16
_MAX_ELEMENTS = 1 << 63
_SMALLEST = 8 + 4 + 4 + 8
_LARGEST = 8 + MAX_NAME + 4 + 8 * MAX_DIMS + 4 + 8
_TAILS = {
    order: tuple(Struct(f"{mark}{n_dims}QIQ") for n_dims in range(MAX_DIMS + 1))
    for order, mark in (("little", "<"), ("big", ">"))
}
"""By number of dimensions: the shape, the type, the offset."""


class _Info(NamedTuple):
    """One row of the table as it stands there."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


def read_tensors(cursor: Cursor, count: int, alignment: Value, shard: int) -> tuple[dict[str, Tensor], int, list[str]]:
    """The tensors in the file's order, where their data begins, and what is odd about them."""
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {str(alignment)[:40]}, not a power of two: the file is damaged")
    if count * _SMALLEST > cursor.remaining:
        raise cursor.truncated(f"its table of {count} tensors")
    cursor.budget.spend(count * TENSOR, cursor.blob.name)
    infos = [_info(cursor, number) for number in range(count)]
    data_offset = pad(cursor.position, alignment) if count else cursor.position
    if data_offset > cursor.blob.n_bytes:
        raise cursor.truncated("the padding before its tensors")
    tensors = _place(cursor, infos, data_offset, alignment, shard)
    return tensors, data_offset, _notes(tensors)


def _info(cursor: Cursor, number: int) -> _Info:
    """The next row, read from one window without a check at every field."""
    where = f"tensor {number} of its table"
    window, at = cursor.peek(_LARGEST)
    try:
        (length,) = cursor.u64_struct.unpack_from(window, at)
        if length > MAX_NAME and length <= cursor.remaining:
            raise cursor.fail(f"the name of {where} is {length} bytes long: the file is damaged")
        (n_dims,) = cursor.u32_struct.unpack_from(window, at + 8 + length)
        if n_dims > MAX_DIMS:
            raise cursor.fail(f"{where} has {n_dims} dimensions; ggml has at most {MAX_DIMS}: the file is damaged")
        tail = _TAILS[cursor.byte_order][n_dims]
        *shape, type_id, offset = tail.unpack_from(window, at + 12 + length)
    except (error, OverflowError):
        raise cursor.truncated(where) from None
    name = window[at + 8 : at + 8 + length].decode("utf-8", "backslashreplace")
    cursor.budget.spend(name.__sizeof__(), cursor.blob.name)
    cursor.advance(12 + length + tail.size)
    return _Info(name, tuple(shape), type_id, offset)


def _place(cursor: Cursor, infos: list[_Info], data_offset: int, alignment: int, shard: int) -> dict[str, Tensor]:
    """Size the tensors and check that they follow each other and lie inside the file, as gguf_init_from_reader does."""
    tensors: dict[str, Tensor] = {}
    data_bytes, expected, sized = cursor.blob.n_bytes - data_offset, 0, True
    for info, following in zip(infos, [*(info.offset for info in infos[1:]), data_bytes], strict=False):
        name, offset = info.name, info.offset
        if name in tensors:
            raise cursor.fail(f"has the tensor {name[:80]!r} twice: the file is damaged")
        if offset < expected or offset % alignment or (sized and offset != expected):
            raise cursor.fail(f"tensor {name[:80]!r} has offset {offset}, expected {expected}: the file is damaged")
        n_bytes = _n_bytes(cursor, info)
        sized = n_bytes is not None
        if n_bytes is None:  # as much as there is before the next tensor, padding and all
            n_bytes = max(following - offset, 0)
        if offset + n_bytes > data_bytes:
            raise cursor.truncated(f"tensor {name[:80]!r}")
        tensors[name] = Tensor(name, type_name(info.type_id), info.shape, n_bytes, offset, shard)
        expected = pad(offset + n_bytes, alignment) if sized else offset + n_bytes
    excess = cursor.blob.n_bytes - pad(data_offset + expected, alignment)
    if excess > 0:
        raise cursor.fail(f"is {excess} bytes longer than its header says: are several files joined, or the download damaged?")
    return tensors


def _n_bytes(cursor: Cursor, info: _Info) -> int | None:
    """Bytes of one tensor; None where only the offsets can tell."""
    n_elements = 1
    for size in info.shape:
        n_elements *= size
    if n_elements >= _MAX_ELEMENTS or max(info.shape, default=0) >= _MAX_ELEMENTS:
        raise cursor.fail(f"tensor {info.name[:80]!r} has the shape {info.shape}, more than any memory: the file is damaged")
    if info.type_id >= len(TYPES):
        if info.type_id > _MAX_TYPE:
            raise cursor.fail(f"tensor {info.name[:80]!r} has type {info.type_id}: the file is damaged")
        return None
    _, type_, block, block_bytes = TYPES[info.type_id]
    if not block:
        return None
    first = info.shape[0] if info.shape else 1
    if first % block:
        raise cursor.fail(
            f"tensor {info.name[:80]!r} has rows of {first} elements, no multiple of {type_}'s {block}: it is damaged"
        )
    return n_elements // block * block_bytes


def _notes(tensors: dict[str, Tensor]) -> list[str]:
    """What llama.cpp would not load although it can be read."""
    notes = []
    odd = {tensor.type for tensor in tensors.values() if tensor.type not in BY_NAME or BY_NAME[tensor.type].removed}
    if odd:
        notes.append(f"types that llama.cpp does not load, sized from the offsets: {', '.join(sorted(odd)[:5])}")
    long = [name for name in tensors if len(name.encode()) >= _GGML_MAX_NAME]
    if long:
        notes.append(f"llama.cpp refuses tensor names of {_GGML_MAX_NAME} bytes and more: {long[0][:80]!r}")
    return notes
