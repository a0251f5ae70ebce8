"""One added token through a tokenizer's decoder, as get_vocab_base sends those that are not normalised (conversion/base.py).

tokenizers/src/decoders: each turns a list of texts into another one; here the list begins with one token.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from fitplug.conversion.vocabulary.beside import UnreadError

_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_TIGHT = (".", "?", "!", ",", "'", "n't", "'m", "'s", "'ve", "'re")
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> list[str]:
    """Byte → character of the byte-level alphabet (bytes_to_unicode)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def decoded(token: str, decoder: Mapping[str, Any] | None, *, clean_up: bool) -> str:
    """The text that comes back for one token.

    Args:
        token: as it is in the vocabulary.
        decoder: of tokenizer.json.
        clean_up: clean_up_tokenization_spaces (PreTrainedTokenizerBase.clean_up_tokenization).

    Raises:
        UnreadError: the decoder is of a kind that is not known.
    """
    text = "".join(_decode([token], decoder)) if decoder else token
    if clean_up:
        for spaced, tight in zip(_SPACED, _TIGHT, strict=True):
            text = text.replace(spaced, tight)
    return text


def _decode(texts: list[str], decoder: Mapping[str, Any]) -> list[str]:
    kind = decoder.get("type")
    if kind == "Sequence":
        for part in decoder["decoders"]:
            texts = _decode(texts, part)
        return texts
    step = _STEPS.get(str(kind))
    if step is None:
        raise UnreadError(f"tokenizer.json has a decoder of the kind {str(kind)[:40]}")
    return step(texts, decoder)


@cache
def _bytes_of() -> Mapping[str, int]:
    return {character: byte for byte, character in enumerate(byte_alphabet())}


def _byte_level(texts: list[str], _: Mapping[str, Any]) -> list[str]:
    back = _bytes_of()
    data = b"".join(bytes(back[c] for c in text) if all(c in back for c in text) else text.encode("utf-8") for text in texts)
    return [data.decode("utf-8", "replace")]


def _replace(texts: list[str], decoder: Mapping[str, Any]) -> list[str]:
    pattern = decoder["pattern"].get("String")
    if not pattern:
        raise UnreadError("tokenizer.json has a decoder that replaces by a pattern")
    return [text.replace(pattern, decoder["content"]) for text in texts]


def _byte_fallback(texts: list[str], _: Mapping[str, Any]) -> list[str]:
    matches = ((text, _BYTE.fullmatch(text)) for text in texts)
    return [bytes([int(match[1], 16)]).decode("utf-8", "replace") if match else text for text, match in matches]


def _strip(texts: list[str], decoder: Mapping[str, Any]) -> list[str]:
    character, found = decoder["content"], []
    for text in texts:
        start = min(len(text) - len(text.lstrip(character)), decoder["start"])
        end = min(len(text) - len(text.rstrip(character)), decoder["stop"])
        found.append(text[start : max(start, len(text) - end)])
    return found


def _metaspace(texts: list[str], decoder: Mapping[str, Any]) -> list[str]:
    """In the first text the mark is nothing, unless none is put before a text; in all others it is a space."""
    mark = decoder.get("replacement", "▁")
    scheme = decoder.get("prepend_scheme") or "always"
    first = " " if scheme == "never" or not decoder.get("add_prefix_space", True) else ""
    return [texts[0].replace(mark, first), *(text.replace(mark, " ") for text in texts[1:])]


def _word_piece(texts: list[str], decoder: Mapping[str, Any]) -> list[str]:
    """The first piece keeps its prefix."""
    if not decoder.get("cleanup", True):
        return texts
    pairs = (*zip(_SPACED[:4], _TIGHT[:4], strict=True), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" do not", " don't"),
        (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip
    for spaced, tight in pairs:
        texts = [text.replace(spaced, tight) for text in texts]
    return texts


_STEPS: Mapping[str, Callable[[list[str], Mapping[str, Any]], list[str]]] = {
    "ByteLevel": _byte_level, "Replace": _replace, "ByteFallback": _byte_fallback, "Fuse": lambda texts, _: ["".join(texts)],
    "Strip": _strip, "Metaspace": _metaspace, "WordPiece": _word_piece,
    "BPEDecoder": lambda texts, decoder: [text.replace(decoder.get("suffix", "</w>"), "") for text in texts],
}  # fmt: skip
