"""SentencePiece's own file: a protocol buffer of the type ModelProto (sentencepiece_model.proto)."""

from collections.abc import Iterator
from typing import NamedTuple

from fitplug.conversion.vocabulary.beside import UnreadError

UNIGRAM, BPE = 1, 2
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _TYPE = 1, 3
_MODEL_TYPE = 3
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_SPACES = 2, 3, 4
UNUSED = 5
"""SentencePiece.Type, which is the converter's SentencePieceTokenTypes too."""
MAX_PIECES = 1 << 20


class Sentences(NamedTuple):
    """What of the file decides a length."""

    pieces: list[bytes]
    types: list[int]
    model_type: int
    charsmap: int
    """Bytes of the precompiled map of characters."""
    dummy_prefix: bool
    extra_spaces: bool


def read(data: bytes, name: str) -> Sentences:
    """The file.

    Raises:
        UnreadError: it is damaged.
    """
    pieces: list[bytes] = []
    types: list[int] = []
    trainer: dict[int, int] = {}
    normalizer: dict[int, int] = {}
    try:
        for field, value in _fields(data, 0, len(data)):
            if field == _PIECES and isinstance(value, slice):
                piece, kind = _piece(data, value)
                pieces.append(piece)
                types.append(kind)
            elif field in (_TRAINER, _NORMALIZER) and isinstance(value, slice):
                into = trainer if field == _TRAINER else normalizer
                into |= {key: _size(item) for key, item in _fields(data, value.start, value.stop)}
            if len(pieces) > MAX_PIECES:
                raise UnreadError(f"{name} has more pieces than any")
    except (IndexError, ValueError):
        raise UnreadError(f"{name} is no SentencePiece model") from None
    if not pieces:
        raise UnreadError(f"{name} is no SentencePiece model")
    return Sentences(
        pieces, types, trainer.get(_MODEL_TYPE, UNIGRAM), normalizer.get(_CHARSMAP, 0),
        bool(normalizer.get(_DUMMY_PREFIX, 1)), bool(normalizer.get(_EXTRA_SPACES, 1)),
    )  # fmt: skip


def _size(value: "int | slice") -> int:
    return value if isinstance(value, int) else value.stop - value.start


def _piece(data: bytes, where: slice) -> tuple[bytes, int]:
    text, kind = b"", 1
    for field, value in _fields(data, where.start, where.stop):
        if field == _PIECE and isinstance(value, slice):
            text = data[value]
        elif field == _TYPE and isinstance(value, int):
            kind = value
    return text, kind


def _fields(data: bytes, at: int, end: int) -> "Iterator[tuple[int, int | slice]]":
    """Field number and value of a message: a number, or where its bytes lie."""
    while at < end:
        tag, at = _number(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _number(data, at)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError(kind)
            size, at = _number(data, at)
        if at + size > end:
            raise IndexError(at)
        yield tag >> 3, slice(at, at + size)
        at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise ValueError(at)
