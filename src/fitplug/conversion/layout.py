"""How long the header of a GGUF file is: gguf-py/gguf/gguf_writer.py, and gguf_write_to_buf in ggml/src/gguf.cpp.

Keys, tensor infos and padding are exact, and so is the vocabulary where the tokenizer's files lie beside the weights
(`vocabulary`). Where they do not, their texts are only known within bounds, and so is what the model's card says of itself.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fitplug.formats.header import Skipped, Tensor, Value

ALIGNMENT = 32
_START, _LENGTH, _TYPE, _NUMBER = 4 + 4 + 8 + 8, 8, 4, 4
_DIMENSION, _OFFSET = 8, 8
_TOKEN = (20, 75)
"""Bytes of a vocabulary for each token. A text with its length and type are some 20; with scores (SentencePiece) they are
23 to 25,
with merges (BPE), of which some have two for each token, 35 to 75."""
_CARD = (0, 20_000)
"""What a model's card, its sampling and its chat template take."""
UNREAD = ("tokenizer.ggml.model", "tokenizer.ggml.tokens")
"""Keys that stand for the vocabulary of a model that is not converted yet."""
NOT_CONVERTED = "not converted"
"""The value of the first one then."""


class Length(NamedTuple):
    """Bytes of a header, at least and at most."""

    low: int
    high: int

    @property
    def likely(self) -> int:
        """Half way."""
        return _padded((self.low + self.high) // 2)

    @property
    def doubt(self) -> str:
        """In words; empty where it is known to the byte."""
        if self.low == self.high:
            return ""
        if self.high - self.low < _CARD[1]:
            return f"its header is taken for {self.likely:,} bytes: it may be {self.low:,} to {self.high:,}"
        low, likely, high = (f"{n / 1e6:.1f}" for n in (self.low, self.likely, self.high))
        return f"its header, nearly all of it vocabulary, is taken for {likely} MB: it may be {low} to {high}"


def header_length(metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> Length:
    """Of a converted model, with the vocabulary that it will have."""
    if metadata.get(UNREAD[0]) != NOT_CONVERTED:
        n, doubt = known_bytes(metadata, tensors), sum(map(_doubt, metadata.values()))
        return Length(_padded(n), _padded(n + doubt))
    known = {key: value for key, value in metadata.items() if key not in UNREAD}
    n = known_bytes({"general.type": "model", "general.quantization_version": 2, **known}, tensors)
    tokens = metadata.get("tokenizer.ggml.tokens")
    n_tokens = tokens.length if isinstance(tokens, Skipped) else 0
    return Length(_padded(n + n_tokens * _TOKEN[0] + _CARD[0]), _padded(n + n_tokens * _TOKEN[1] + _CARD[1]))


def known_bytes(metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> int:
    """Of these keys and tensors alone, before padding."""
    pairs = sum(_LENGTH + len(key.encode()) + _TYPE + _value(value) for key, value in metadata.items())
    infos = sum(
        _LENGTH + len(tensor.name.encode()) + _NUMBER + _DIMENSION * len(tensor.shape) + _TYPE + _OFFSET for tensor in tensors
    )
    return _START + pairs + infos


def _value(value: Value) -> int:
    if isinstance(value, bool):
        return 1
    if isinstance(value, str):
        return _LENGTH + len(value.encode())
    if isinstance(value, Skipped):
        return _LENGTH + value.n_bytes + (0 if value.item_type == "char" else _TYPE)
    if isinstance(value, tuple):
        return _TYPE + _LENGTH + sum(map(_value, value))
    return _NUMBER


def _doubt(value: Value) -> int:
    return value.length - value.n_bytes if isinstance(value, Skipped) and value.item_type == "char" else 0


def _padded(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT
