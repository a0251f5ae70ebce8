"""People's words for a card, taken apart: "2x 4060ti-16g" is two cards named 4060 ti with 16 GiB."""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Query(NamedTuple):
    """A card's name as words, in no order."""

    tokens: tuple[str, ...]
    gib: int | None = None
    n_cards: int = 1
    bare: "Query | None" = None
    """The other reading of a text that ends in a bare number: the number is the memory ("4060 ti 16")."""
    certain: bool = True
    """No word was left out to make sense of it: else only a name in whole, or one with a long number, is meant."""
    vendor: str | None = None
    """Whose the card must be: only AMD has an RX, only NVIDIA a GTX."""


_VENDORS = {
    "nvidia": "nvidia", "geforce": "nvidia", "rtx": "nvidia", "gtx": "nvidia", "quadro": "nvidia", "jetson": "nvidia",
    "amd": "amd", "radeon": "amd", "rx": "amd", "instinct": "amd", "ryzen": "amd", "intel": "intel", "arc": "intel",
    "apple": "apple", "macbook": "apple", "imac": "apple", "mbp": "apple",
}  # fmt: skip
_SILENT = frozenset(
    ("nvidia", "geforce", "rtx", "gtx", "amd", "radeon", "rx", "intel", "r", "tm", "arc", "apple", "graphics", "gpu",
     "tesla", "instinct", "edition", "core", "generation", "with", "chip", "jetson",
     "mac", "macbook", "imac", "mbp", "mini", "rog",
     "studio", "air", "oc")
)  # fmt: skip
"""Words that tell no card from another."""
_UNLESS = {"strix": {"halo", "point"}}
"""Silent too, unless one of those is beside it: ASUS sells every card as a Strix."""
_TELLING = frozenset(("duo", "lite", "plus", "super", "ultra", "max", "pro", "server"))
"""Never noise: whoever says it means another card."""
_SAME = {"laptop": "mobile", "notebook": "mobile"}
_NUMBERS = {"single": 1, "one": 1, "dual": 2, "two": 2, "double": 2, "triple": 3, "three": 3, "quad": 4, "four": 4}
_BEFORE = re.compile(r"(\d{1,3})\s*[x*\u00d7]\s*(?=\w)")
_WORD_BEFORE = re.compile(rf"({'|'.join(_NUMBERS)})\s+(?=\w)")
_AFTER = re.compile(r"(?:\s[x*\u00d7]\s*|(?<=\d)[x*\u00d7])(\d{1,3})$")
_GIB = re.compile(r"(?:(?<![a-z0-9])(\d{1,4})\s*(?:gib|gb|g)|(?<=[a-z])(\d{1,3})\s*gi?b)(?![a-z])")
_BARE = re.compile(r"\s(\d{1,4})$")
_TOKEN = re.compile(r"\d+|[a-z]+")
_MACBOOK = re.compile(r"\bmac ?(?:book)? ?(?:pro|air)\b(?: 1[3-6]\b)?(?: ?inch\b)?")
_RUN_TOGETHER = re.compile(r"(?<=ti)(?=super)|(?<=\d)(?=super)")
_BOARDS = re.compile(r"\b(?:g?ddr\d?x?|(?:gaming|suprim|trio) [xz]|[23]x|[a-z]{3,}\d[a-z]+)\b")
"""Words of boards that have digits or stand for nothing alone: "GDDR6X", "GAMING X", "VENTUS 3X", "Inno3D"."""
_KINDS = ("ti", "super", "xt", "xtx", "gre")
"""What makes a card another one: a word that begins or ends so is never noise."""
_SUPER = re.compile(r"(?<![a-z0-9])(\d{4})\s?(ti)?\s?s\b")
_O_FOR_0 = re.compile(r"(?<=\d)o|o(?=\d)")
_MAX_TEXT = 200
_NOISE = 3
"""Letters from which on a word that no card has is a board maker's, or misspelt: "evga", "founders", "radon"."""


def parse_query(text: str) -> Query:
    """Take a text apart; anything is a query, most are of cards that do not exist."""
    text, n_cards = text.strip().lower()[:_MAX_TEXT], 1
    if match := _BEFORE.match(text):
        n_cards, text = int(match[1]), text[match.end() :]
    elif match := _WORD_BEFORE.match(text):
        n_cards, text = _NUMBERS[match[1]], text[match.end() :]
    elif match := _AFTER.search(text):
        n_cards, text = int(match[1]), text[: match.start()]
    text, gib = re.sub(r"[-_()/,]+", " ", text).strip(), None
    text = _MACBOOK.sub("macbook", text)
    vendor = _vendor(text)
    if match := _GIB.search(text):
        gib, text = int(match[1] or match[2]), f"{text[: match.start()]} {text[match.end() :]}"
    tokens, bare = _tokens(text), None
    if gib is None and len(tokens) > 1 and (match := _BARE.search(text)):
        bare = Query(_tokens(text[: match.start()]), int(match[1]), n_cards, vendor=vendor)
    return Query(tokens, gib, n_cards, bare, vendor=vendor)


def readings(text: str, known: AbstractSet[str]) -> Iterator[Query]:
    """What a text can mean, from the plainest on: as it stands; with people's short forms; without words that no card has.

    Args:
        text: What somebody wrote.
        known: The words of all cards' names.
    """
    tried = [text]
    yield parse_query(text)
    plain = _RUN_TOGETHER.sub(" ", _O_FOR_0.sub("0", text.lower()[:_MAX_TEXT]))
    short = _SUPER.sub(lambda m: f"{m[1]}{' ti' if m[2] else ''} super", plain)
    for form in (short, _without_noise(text, known), _without_noise(short, known)):
        if form not in tried:
            tried.append(form)
            yield parse_query(form)._replace(certain=form == short)


def _without_noise(text: str, known: AbstractSet[str]) -> str:
    """Without longer words that no card's name has, and digits that hang on them ("ftw3"); counts and units stay."""

    def keep(match: re.Match[str]) -> str:
        word = match[1]
        says = word in known or word == "gib" or any(word in words for words in (_SILENT, _VENDORS, _SAME, _NUMBERS, _TELLING))
        kind = word.startswith(_KINDS) or word.endswith(_KINDS)
        return match[0] if says or kind or len(word) < _NOISE else " "

    text = _BOARDS.sub(" ", text.lower()[:_MAX_TEXT])
    return re.sub(r"(?<![a-z])([a-z]+)(?![a-z])\d?(?!\d)", keep, text).strip()


def _vendor(text: str) -> str | None:
    """None where nothing says it, or two things say different ones."""
    found = {_VENDORS[word] for word in _TOKEN.findall(text) if word in _VENDORS}
    return found.pop() if len(found) == 1 else None


def _tokens(text: str) -> tuple[str, ...]:
    words = [_SAME.get(word, word) for word in _TOKEN.findall(text)]
    silent = _SILENT - {"rtx"} if "titan" in words else _SILENT  # of the Titans it tells one from the others
    silent = silent | {word for word, others in _UNLESS.items() if not others & set(words)}
    return tuple(sorted(word for word in words if word not in silent))
