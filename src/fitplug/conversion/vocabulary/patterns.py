"""A tokenizer's regular expression for one known text: a property of Oniguruma's as the text's characters that have it."""

import re
import unicodedata
from functools import lru_cache

from fitplug.conversion.vocabulary.beside import UnreadError

MAX_LENGTH, MAX_REPEATS = 2000, 2
"""Of a pattern, and of what repeats in one alternative: what takes long on a text of 400 characters is not tried."""
_PROPERTY = re.compile(r"\\([pP])(?:\{(\^?)([A-Za-z_]+)\}|([A-Z]))")
_SCRIPTS = {
    "Han": "CJK UNIFIED",
    **{
        name: name.upper()
        for name in (
            "Arabic", "Cyrillic", "Devanagari", "Greek", "Hangul", "Hebrew", "Hiragana", "Katakana", "Khmer", "Lao", "Latin",
            "Myanmar", "Thai",
        )
    },
}  # fmt: skip
"""Script → how its characters' names begin."""


@lru_cache(maxsize=32)
def pattern_for(source: str, characters: str) -> re.Pattern[str]:
    """The pattern, which means the same for texts of these characters alone.

    Raises:
        UnreadError: it may take too long, or uses what Python's expressions do not have.
    """
    if len(source) > MAX_LENGTH or not _is_tame(source):
        raise UnreadError("the tokenizer splits by a pattern that is not followed")
    out, at, inside = [], 0, 0
    while at < len(source):
        match = _PROPERTY.match(source, at)
        if match:
            text = _members(match[3] or match[4], characters, negated=(match[1] == "P") != bool(match[2]))
            out.append(text if inside else f"[{text}]" if text else "(?!)")
            at = match.end()
            continue
        character = source[at]
        if character == "\\":
            out.append(source[at : at + 2])
            at += 2
            continue
        if inside and (character == "[" or source.startswith("&&", at)):
            raise UnreadError("the tokenizer splits by a set of sets")
        inside = 1 if character == "[" else 0 if character == "]" else inside
        out.append(character)
        at += 1
    try:
        return re.compile("".join(out))
    except (re.error, OverflowError):
        raise UnreadError("the tokenizer splits by a pattern that is not followed") from None


def _members(name: str, characters: str, *, negated: bool) -> str:
    """Those of the characters that have the property, as they stand in a set."""
    if name in _SCRIPTS:
        having = {c for c in characters if unicodedata.name(c, "").startswith(_SCRIPTS[name])}
    elif len(name) <= 2:
        having = {c for c in characters if unicodedata.category(c).startswith(name)}
    else:
        raise UnreadError(f"the tokenizer splits by the property {name[:30]}")
    return "".join(re.escape(c) for c in sorted(set(characters) - having if negated else having))


def _is_tame(source: str) -> bool:
    """Whether no group repeats, and little does in each alternative."""
    bare = re.sub(r"\[(?:\\.|[^\]\\])*\]", "x", re.sub(r"\\[pP]\{[^}]*\}", "x", source, flags=re.DOTALL), flags=re.DOTALL)
    bare = re.sub(r"\\.", "x", bare, flags=re.DOTALL)
    if re.search(r"\)(?:[*+]|\{)", bare):
        return False
    return all(len(re.findall(r"[*+]\??\+?|\{\d+,?\d*\}", part)) <= MAX_REPEATS for part in bare.split("|"))
