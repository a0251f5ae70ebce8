"""A piece of text to a model's numbers: byte-pair encoding and WordPiece (tokenizers/src/models)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from fitplug.conversion.vocabulary.beside import UnreadError

Words = Mapping[str, int]


def model_of(model: Mapping[str, Any], words: Words) -> Callable[[str], list[int]]:
    """From a piece to its numbers.

    Raises:
        UnreadError: the model is of a kind that is not followed.
    """
    kind = model.get("type", "BPE")
    if kind == "BPE":
        return _bpe(model, words)
    if kind == "WordPiece":
        return _word_piece(model, words)
    if kind == "WordLevel":
        unknown = words.get(model.get("unk_token", "<unk>"))
        return lambda piece: [number for number in [words.get(piece, unknown)] if number is not None]
    raise UnreadError(f"how a model of the kind {str(kind)[:40]} splits a text is not followed")


def _bpe(model: Mapping[str, Any], words: Words) -> Callable[[str], list[int]]:
    if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UnreadError("the tokenizer's model marks the parts of words")
    merges: Sequence[Any] = model["merges"]
    as_text = bool(merges) and isinstance(merges[0], str)
    ranks: Mapping[Any, int] = dict(zip(merges if as_text else map(tuple, merges), range(len(merges)), strict=True))

    def rank(left: str, right: str) -> int | None:
        return ranks.get(f"{left} {right}" if as_text else (left, right))

    unknown, fallback, fuse = (
        words.get(model.get("unk_token") or ""),
        bool(model.get("byte_fallback")),
        bool(model.get("fuse_unk")),
    )

    def numbers(piece: str) -> list[int]:
        if model.get("ignore_merges") and piece in words:
            return [words[piece]]
        found: list[int] = []
        last_unknown = False
        for part in _merged(_symbols(piece, words, fallback=fallback), rank):
            number = words.get(part)
            is_unknown = number is None
            if number is None:
                number = unknown
            if number is not None and not (is_unknown and fuse and last_unknown):
                found.append(number)
            last_unknown = is_unknown
        return found

    return numbers


def _symbols(piece: str, words: Words, *, fallback: bool) -> list[str]:
    """Characters, and bytes for those that are no words."""
    found: list[str] = []
    for character in piece:
        parts = [f"<0x{byte:02X}>" for byte in character.encode()]
        found += parts if fallback and character not in words and all(part in words for part in parts) else [character]
    return found


def _merged(symbols: list[str], rank: Callable[[str, str], int | None]) -> list[str]:
    """The pair of the lowest rank first, as often as there is one."""
    while len(symbols) > 1:
        ranked = ((rank(left, right), i) for i, (left, right) in enumerate(pairwise(symbols)))
        best = min(((one, i) for one, i in ranked if one is not None), default=None)
        if best is None:
            break
        at = best[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return symbols


def _word_piece(model: Mapping[str, Any], words: Words) -> Callable[[str], list[int]]:
    prefix = model.get("continuing_subword_prefix", "##")
    unknown, longest = words[model["unk_token"]], model.get("max_input_chars_per_word", 100)

    def numbers(piece: str) -> list[int]:
        if len(piece) > longest:
            return [unknown]
        found, at = [], 0
        while at < len(piece):
            for end in range(len(piece), at, -1):
                number = words.get((prefix if at else "") + piece[at:end])
                if number is not None:
                    break
            else:
                return [unknown]
            found.append(number)
            at = end
        return found

    return numbers
