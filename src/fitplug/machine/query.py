"""People's words for a card, taken apart: "2x 4060ti-16g" is two cards named 4060 ti with 16 GiB."""

import re
from typing import NamedTuple


class Query(NamedTuple):
    """A card's name as words, in no order."""

    tokens: tuple[str, ...]
    gib: int | None = None
    n_cards: int = 1
    bare: "Query | None" = None
    """The other reading of a text that ends in a bare number: the number is the memory ("4060 ti 16")."""


_SILENT = frozenset(
    ("nvidia", "geforce", "rtx", "gtx", "amd", "radeon", "rx", "intel", "r", "tm", "arc", "apple", "graphics", "gpu",
     "tesla", "instinct", "edition", "core", "generation", "with", "chip", "jetson")
)  # fmt: skip
"""Words that tell no card from another."""
_SAME = {"laptop": "mobile", "notebook": "mobile"}
_BEFORE = re.compile(r"(\d{1,3})\s*[x*\u00d7]\s*(?=\w)")
_AFTER = re.compile(r"\s[x*\u00d7]\s*(\d{1,3})$")
_GIB = re.compile(r"(?<![a-z0-9])(\d{1,4})\s*(?:gib|gb|g)(?![a-z])")
_BARE = re.compile(r"\s(\d{1,4})$")
_TOKEN = re.compile(r"\d+|[a-z]+")
_MAX_TEXT = 200


def parse_query(text: str) -> Query:
    """Take a text apart; anything is a query, most are of cards that do not exist."""
    text, n_cards = text.strip().lower()[:_MAX_TEXT], 1
    if match := _BEFORE.match(text):
        n_cards, text = int(match[1]), text[match.end() :]
    elif match := _AFTER.search(text):
        n_cards, text = int(match[1]), text[: match.start()]
    text, gib = re.sub(r"[-_()/,]+", " ", text).strip(), None
    if match := _GIB.search(text):
        gib, text = int(match[1]), f"{text[: match.start()]} {text[match.end() :]}"
    tokens, bare = _tokens(text), None
    if gib is None and len(tokens) > 1 and (match := _BARE.search(text)):
        bare = Query(_tokens(text[: match.start()]), int(match[1]), n_cards)
    return Query(tokens, gib, n_cards, bare)


def _tokens(text: str) -> tuple[str, ...]:
    words = (_SAME.get(word, word) for word in _TOKEN.findall(text))
    return tuple(sorted(word for word in words if word not in _SILENT))
