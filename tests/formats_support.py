"""Model files made by hand, byte by byte, and blobs that watch how they are read."""

import json
import struct
from collections.abc import Mapping, Sequence

CODES = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
    "bool": (7, "?"), "str": (8, ""), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d"),
}  # fmt: skip


class MemoryBlob:
    """Bytes with a name; reading past their end is an error, and how much was read is counted."""

    def __init__(self, data: bytes, name: str = "model.gguf", n_bytes: int | None = None) -> None:
        self.data, self.name = data, name
        self.n_bytes = len(data) if n_bytes is None else n_bytes
        self.n_read = 0

    def read(self, offset: int, n_bytes: int) -> bytes:
        assert 0 <= offset <= self.n_bytes
        assert n_bytes >= 0
        wanted = min(n_bytes, self.n_bytes - offset)
        self.n_read += wanted
        piece = self.data[offset : offset + wanted]
        return piece + bytes(wanted - len(piece))  # a hole after the data, as in a sparse file


def string(raw: bytes, mark: str = "<") -> bytes:
    return struct.pack(f"{mark}Q", len(raw)) + raw


def value(kind: str, what: object, mark: str = "<") -> bytes:
    """One value without its type's code."""
    if kind == "str":
        return string(what.encode() if isinstance(what, str) else what, mark)
    return struct.pack(f"{mark}{CODES[kind][1]}", what)


def pair(key: str, kind: str, what: object, mark: str = "<") -> bytes:
    """One metadata pair; `kind` "[u32]" is an array."""
    out = string(key.encode(), mark)
    if kind.startswith("["):
        item = kind[1:-1]
        out += struct.pack(f"{mark}IIQ", 9, CODES[item][0], len(what))
        return out + b"".join(value(item, each, mark) for each in what)
    return out + struct.pack(f"{mark}I", CODES[kind][0]) + value(kind, what, mark)


def info(name: bytes | str, shape: Sequence[int], type_id: int, offset: int, mark: str = "<") -> bytes:
    """One row of the table of tensors."""
    raw = name.encode() if isinstance(name, str) else name
    return string(raw, mark) + struct.pack(f"{mark}I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def gguf(
    pairs: Sequence[bytes] = (),
    infos: Sequence[bytes] = (),
    data: int = 0,
    *,
    mark: str = "<",
    version: int = 3,
    alignment: int = 32,
    magic: bytes = b"GGUF",
) -> bytes:
    """A whole file; `data` bytes of zeros follow the aligned header."""
    out = magic + struct.pack(f"{mark}IQQ", version, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return out + bytes(-len(out) % alignment) + bytes(data) if infos else out


def shard(number: int, count: int, names: Sequence[str], total: int | None = None) -> bytes:
    """One file of a split, each tensor 32 bytes of f32."""
    pairs = [pair("split.no", "u16", number), pair("split.count", "u16", count)]
    if total is not None:
        pairs.append(pair("split.tensors.count", "i32", total))
    infos = [info(name, [8], 0, 32 * place) for place, name in enumerate(names)]
    return gguf(pairs, infos, 32 * len(names))


def safetensors(entries: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole file: name → dtype, shape, bytes."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, (dtype, shape, n_bytes) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + n_bytes]}
        offset += n_bytes
    return raw_safetensors(json.dumps(header).encode(), offset)


def raw_safetensors(header: bytes, data: int = 0) -> bytes:
    """A whole file with this header, whatever it is."""
    return struct.pack("<Q", len(header)) + header + bytes(data)
