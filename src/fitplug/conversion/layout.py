"""How long the header of a GGUF file is: gguf-py/gguf/gguf_writer.py, and gguf_write_to_buf in ggml/src/gguf.cpp.

Keys, tensor infos and padding are exact. The vocabulary is another matter: its texts are in files beside the weights that
are not
read, so that it is only known within bounds, and so is what the model's card says of itself.
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


class Length(NamedTuple):
    """Bytes of a header, at least and at most."""

    low: int
    high: int

    @property
    def likely(self) -> int:
        """Half way."""
        return _padded((self.low + self.high) // 2)


def header_length(metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> Length:
    """Of a converted model, with the vocabulary that it will have."""
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
        return 0
    if isinstance(value, tuple):
        return _TYPE + _LENGTH + sum(map(_value, value))
    return _NUMBER


def _padded(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT
