"""A text on its way to a tokenizer's model: normalizers, then pre-tokenizers (tokenizers/src/normalizers, pre_tokenizers)."""

import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fitplug.conversion.vocabulary.beside import UnreadError
from fitplug.conversion.vocabulary.decoding import byte_alphabet
from fitplug.conversion.vocabulary.patterns import pattern_for

Settings = Mapping[str, Any]
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""ByteLevel's own."""
_WORD = r"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u200c\u200d"
"""Rust's \\w, which has marks where Python's has none."""
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def normalized(text: str, settings: Settings | None) -> str:
    """The text as the normalizer leaves it.

    Raises:
        UnreadError: it is of a kind that is not known.
    """
    kind = settings.get("type") if settings else None
    if settings is None or kind is None:
        return text
    if kind == "Sequence":
        for part in settings["normalizers"]:
            text = normalized(text, part)
        return text
    if kind in _FORMS:
        return unicodedata.normalize(kind, text)
    step = _NORMALIZERS.get(kind)
    if step is None:
        raise UnreadError(f"the tokenizer has a normalizer of the kind {str(kind)[:40]}")
    return step(text, settings)


def _replaced(text: str, settings: Settings) -> str:
    pattern, content = settings["pattern"], settings["content"]
    if "String" in pattern:
        return text.replace(pattern["String"], content) if pattern["String"] else text
    return pattern_for(pattern["Regex"], "".join(sorted(set(text)))).sub(lambda _: content, text)


def _bert(text: str, settings: Settings) -> str:
    """BertNormalizer: control characters away, spaces around Han, accents and capitals away."""
    if settings.get("clean_text", True):
        text = "".join(
            " " if c in "\t\n\r" or c.isspace() else c for c in text if c in "\t\n\r" or unicodedata.category(c)[0] != "C"
        )
    if settings.get("handle_chinese_chars", True):
        text = "".join(f" {c} " if unicodedata.name(c, "").startswith("CJK ") else c for c in text)
    lower = settings.get("lowercase", True)
    if settings.get("strip_accents") or (settings.get("strip_accents") is None and lower):
        text = _without_accents(unicodedata.normalize("NFD", text), {})
    return text.lower() if lower else text


def _without_accents(text: str, _: Settings) -> str:
    return "".join(c for c in text if unicodedata.category(c) != "Mn")


def _stripped(text: str, settings: Settings) -> str:
    text = text.lstrip() if settings.get("strip_left", True) else text
    return text.rstrip() if settings.get("strip_right", True) else text


_NORMALIZERS: Mapping[str, Callable[[str, Settings], str]] = {
    "Replace": _replaced, "Prepend": lambda text, s: s["prepend"] + text if text else text,
    "Lowercase": lambda text, _: text.lower(), "StripAccents": _without_accents, "BertNormalizer": _bert, "Strip": _stripped,
    "ByteLevel": lambda text, _: _as_bytes(text),
}  # fmt: skip


def _as_bytes(text: str) -> str:
    alphabet = byte_alphabet()
    return "".join(alphabet[byte] for byte in text.encode())


def pieces(text: str, settings: Settings | None, *, first: bool) -> list[str]:
    """What the model is given one by one.

    Args:
        text: normalised, without added tokens.
        settings: the pre-tokenizer.
        first: whether it is the beginning of the whole text.

    Raises:
        UnreadError: the pre-tokenizer is of a kind that is not known.
    """
    parts = [text]
    for step in _flat(settings):
        kind = str(step.get("type"))
        if kind not in _SPLITTERS:
            raise UnreadError(f"the tokenizer has a pre-tokenizer of the kind {kind[:40]}")
        parts = [one for i, part in enumerate(parts) for one in _SPLITTERS[kind](part, step, first and i == 0) if one]
    return parts


def _flat(settings: Settings | None) -> Sequence[Settings]:
    if settings is None:
        return ()
    return (
        [one for part in settings["pretokenizers"] for one in _flat(part)] if settings.get("type") == "Sequence" else [settings]
    )


def _split_at(text: str, pattern: re.Pattern[str], behavior: str, *, invert: bool = False) -> list[str]:
    """NormalizedString::split (tokenizers/src/tokenizer/normalizer.rs)."""
    marks: list[tuple[str, bool]] = []
    at = 0
    for match in pattern.finditer(text):
        if match.start() == match.end():
            continue
        if match.start() > at:
            marks.append((text[at : match.start()], invert))
        marks.append((match[0], not invert))
        at = match.end()
    if at < len(text):
        marks.append((text[at:], invert))
    return list(_joined(marks, behavior.lower().replace("_", "")))


def _joined(marks: Sequence[tuple[str, bool]], behavior: str) -> Iterator[str]:
    if behavior in ("isolated", "removed"):
        yield from (part for part, is_match in marks if behavior == "isolated" or not is_match)
        return
    if behavior not in ("mergedwithprevious", "mergedwithnext", "contiguous"):
        raise UnreadError(f"the tokenizer splits in the way {behavior[:40]}")
    out: list[str] = []
    before: bool | None = None
    for part, is_match in reversed(marks) if behavior == "mergedwithnext" else marks:
        joins = is_match == before if behavior == "contiguous" else is_match and before is False
        if joins and out:
            out[-1] = part + out[-1] if behavior == "mergedwithnext" else out[-1] + part
        else:
            out.append(part)
        before = is_match
    yield from reversed(out) if behavior == "mergedwithnext" else out


def _split(text: str, settings: Settings, _: bool) -> list[str]:
    pattern = settings["pattern"]
    if "String" in pattern:
        found = re.compile(re.escape(pattern["String"]))
    else:
        found = pattern_for(pattern["Regex"], "".join(sorted(set(text))))
    return _split_at(text, found, settings["behavior"], invert=bool(settings.get("invert")))


def _byte_level(text: str, settings: Settings, _: bool) -> list[str]:
    if settings.get("add_prefix_space", True) and not text.startswith(" "):
        text = f" {text}"
    parts = [text]
    if settings.get("use_regex", True):
        parts = _split_at(text, pattern_for(_GPT2, "".join(sorted(set(text)))), "isolated")
    return [_as_bytes(part) for part in parts]


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" or character in string.punctuation


def _punctuation(text: str, settings: Settings, _: bool) -> list[str]:
    marks = _runs([(character, _is_punctuation(character)) for character in text], alone=True)
    return list(_joined(marks, settings.get("behavior", "isolated").lower()))


def _digits(text: str, settings: Settings, _: bool) -> list[str]:
    marks = [(character, character.isnumeric()) for character in text]
    return [part for part, _ in _runs(marks, alone=bool(settings.get("individual_digits")))]


def _runs(marks: Sequence[tuple[str, bool]], *, alone: bool) -> list[tuple[str, bool]]:
    """Neighbours of one kind together; matches stay alone where they are wanted so."""
    out: list[tuple[str, bool]] = []
    for character, is_match in marks:
        if out and out[-1][1] == is_match and not (alone and is_match):
            out[-1] = (out[-1][0] + character, is_match)
        else:
            out.append((character, is_match))
    return out


def _bert_pieces(text: str, _: Settings, first: bool) -> list[str]:
    return [part for word in text.split() for part in _punctuation(word, {}, first)]


def _whitespace(text: str, _: Settings, __: bool) -> list[str]:
    found = pattern_for(rf"[{_WORD}]+|[^{_WORD}\s]+", "".join(sorted(set(text))))
    return [match[0] for match in found.finditer(text)]


def _metaspace(text: str, settings: Settings, first: bool) -> list[str]:
    mark = settings.get("replacement", "▁")
    scheme = settings.get("prepend_scheme") or ("always" if settings.get("add_prefix_space", True) else "never")
    text = text.replace(" ", mark)
    if not text.startswith(mark) and (scheme == "always" or (scheme == "first" and first)):
        text = mark + text
    return _split_at(text, re.compile(re.escape(mark)), "mergedwithnext") if settings.get("split", True) else [text]


_SPLITTERS: Mapping[str, Callable[[str, Settings, bool], list[str]]] = {
    "Split": _split, "ByteLevel": _byte_level, "Metaspace": _metaspace, "Whitespace": _whitespace,
    "BertPreTokenizer": _bert_pieces, "WhitespaceSplit": lambda text, _, __: text.split(), "Digits": _digits,
    "Punctuation": _punctuation,
}  # fmt: skip
