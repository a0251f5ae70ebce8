"""The catalogue: cards that one may not have, found by the names that people write.

`find` answers one card, or says which ones the words could mean. `device_from_card` makes a device of it, as its driver
would report it; `card_for_device` finds the card behind a device, for the speeds that no driver tells.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from fitplug.errors import NotFoundError
from fitplug.machine.query import Query, parse_query, readings
from fitplug.machine.records import Device


class CatalogueCard(NamedTuple):
    """A row of `machine.cards`."""

    name: str
    vendor: str
    category: str
    """"desktop", "laptop", "workstation", "datacenter", "embedded", "apu", "igpu", "soc", …"""
    driver_names: tuple[str, ...]
    aliases: tuple[str, ...]
    gib: int | None
    """The size it is sold with; None where it is the machine's and `options_gib` lists what can be bought."""
    options_gib: tuple[int, ...]
    driver_mib: int | None
    """The total that the driver reports, where somebody's log shows it."""
    cuda_mib: int | None
    bandwidth: int | None
    """Bytes per second."""
    tflops_vector: float | None
    tflops_matrix: float | None
    capability: str | None
    unified: bool
    bus: str | None
    n_gpus: int
    """How many GPUs the operating system sees in one package."""
    confidence: str
    source: str
    note: str | None

    @property
    def tflops(self) -> float | None:
        """Dense FP16 of the matrix units, else of the shaders; FP32 where FP16 runs at 1/64 of it (Pascal but P100)."""
        if self.tflops_matrix or not self.tflops_vector:
            return self.tflops_matrix
        return self.tflops_vector * 64 if self.capability == "6.1" else self.tflops_vector


_ANY_SIZE = {"apu", "igpu"}
_MAX_CARDS = 16
_MAX_CHOICES = 12
_MAX_NEAR = 6
_MAX_NAME = 200


@lru_cache(maxsize=1)
def cards() -> tuple[CatalogueCard, ...]:
    """The whole catalogue."""
    from fitplug.machine.cards import ROWS

    return tuple(map(CatalogueCard._make, ROWS))


def find(text: str) -> CatalogueCard:
    """The card that `text` names, with `gib` filled in where it can be.

    Raises:
        NotFoundError: no card, or several: the message lists what it could be.
    """
    query = parse_query(text)
    found = _found(text)
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"'{text}' can be {_listed(found)}: say which")
    sizes = sorted({size for card in cards() if _exactly(card, query) for size in _sizes(card)})
    if query.gib is not None and sizes:
        raise NotFoundError(f"'{text}': it comes with {', '.join(map(str, sizes))} GiB, not with {query.gib}")
    raise NotFoundError(f"the catalogue has no '{text}'{_nearest(text, query)}")


def _found(text: str) -> list[CatalogueCard]:
    """The cards that the first reading with any means."""
    for query in readings(text, _words()):
        bare = _matching(query.bare) if query.bare else []
        found = bare if len(bare) == 1 else _matching(query)
        if found:
            return found
    run_together = _plain(text)
    return [card for card in cards() if run_together and run_together in map(_plain_cached, _names(card))]


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    """All words of all names."""
    return frozenset(word for card in cards() for name in _names(card) for word in _parsed(name).tokens)


def search(text: str) -> list[CatalogueCard]:
    """All cards whose name, driver's name or alias has the words of `text`; all cards for no words."""
    query = parse_query(text)
    return [card for card in cards() if _has_size(card, query) and _contained(card, query)]


def _matching(query: Query) -> list[CatalogueCard]:
    """Cards by the strictest test that finds any."""
    if not query.tokens:
        return []
    theirs = [card for card in cards() if query.vendor in {None, card.vendor}]
    exact = any(_exactly(card, query) for card in theirs)  # a name that is a card's is not a part of another's
    if not exact and not _tells(query):
        return []
    for test in (_aliased, _named_plainly, _named, _named_by_driver, _sized) if exact else (_contained,):
        found = [_with_size(card, query.gib) for card in theirs if _has_size(card, query) and test(card, query)]
        if found:
            return found
    return []


def _tells(query: Query) -> bool:
    """Whether a part of a name is enough: not a letter and a digit; where words were left out only a long number."""
    if query.certain:
        return any(len(token) > 1 for token in query.tokens)
    return any(len(token) > 2 and token.isdigit() for token in query.tokens)


def _exactly(card: CatalogueCard, query: Query) -> bool:
    """Whether the words are one of its names in whole, whatever the size."""
    if _named(card, query) or _named_by_driver(card, query):
        return True
    plain = [alias for alias in card.aliases if _parsed(alias).gib in {None, query.gib}]  # "A100 80GB" is not "A100"
    return any(_parsed(alias).tokens == query.tokens for alias in plain)


def _aliased(card: CatalogueCard, query: Query) -> bool:
    parsed = [_parsed(alias) for alias in card.aliases]
    return any(alias.tokens == query.tokens and alias.gib in {None, query.gib} for alias in parsed)


def _named_plainly(card: CatalogueCard, query: Query) -> bool:
    """A plain "RTX 2060" is the one that does not need its size in its name, not the RTX 2060 12 GB."""
    return query.gib is None and _parsed(card.name).gib is None and _named(card, query)


def _named(card: CatalogueCard, query: Query) -> bool:
    return _parsed(card.name).tokens == query.tokens


def _sized(card: CatalogueCard, query: Query) -> bool:
    """A size that is a part of the name is no variant of another card: "RTX PRO 5000 72 GB Blackwell"."""
    return query.gib is not None and _parsed(card.name).gib == query.gib and _contained(card, query)


def _named_by_driver(card: CatalogueCard, query: Query) -> bool:
    return any(_parsed(name).tokens == query.tokens for name in card.driver_names)


def _contained(card: CatalogueCard, query: Query) -> bool:
    return any(not Counter(query.tokens) - Counter(_parsed(name).tokens) for name in _names(card))


@lru_cache(maxsize=4096)
def _parsed(name: str) -> Query:
    return parse_query(name)


def _sizes(card: CatalogueCard) -> tuple[int, ...]:
    return card.options_gib or ((card.gib,) if card.gib else ())


def _has_size(card: CatalogueCard, query: Query) -> bool:
    """An integrated GPU's memory is the machine's, of any size."""
    return query.gib is None or query.gib in _sizes(card) or (card.category in _ANY_SIZE and 4 <= query.gib <= 512)


def _with_size(card: CatalogueCard, gib: int | None) -> CatalogueCard:
    """With the size that was asked for, the usual one, or the only one; a driver's total belongs to the usual one."""
    size = gib or card.gib or (card.options_gib[0] if len(card.options_gib) == 1 else None)
    return card if size == card.gib else card._replace(gib=size, driver_mib=None, cuda_mib=None)


def _listed(found: Sequence[CatalogueCard]) -> str:
    names = [card.name for card in found[:_MAX_CHOICES]]
    more = f" or {len(found) - len(names)} more" if len(found) > len(names) else ""
    return ", ".join(names) + more


def _nearest(text: str, query: Query) -> str:
    """Cards that share the number, which people rarely get wrong; else those whose names look alike."""
    from difflib import SequenceMatcher, get_close_matches

    written = _plain(text)
    numbers = {token for token in query.tokens if token.isdigit() and len(token) > 1}
    near = [card for card in cards() if numbers & set(_parsed(card.name).tokens)]
    if not near:
        swapped = {"".join(sorted(number)) for number in numbers if len(number) > 2}
        near = [card for card in cards() if swapped & {"".join(sorted(token)) for token in _parsed(card.name).tokens}]
    if not near and written:
        known = {_plain_cached(name): card for card in reversed(cards()) for name in (*_names(card), _short(card.name))}
        near = list(dict.fromkeys(known[name] for name in get_close_matches(written, known, n=_MAX_NEAR, cutoff=0.7)))
    near.sort(key=lambda card: -SequenceMatcher(None, written, _plain_cached(card.name)).ratio())
    return f"; there is {_listed(near[:_MAX_NEAR])}" if near else "; `fitplug devices --catalogue` lists them all"


def _short(name: str) -> str:
    """A name as people say it: "4070 Ti"."""
    return " ".join(word for word in name.split() if _parsed(word).tokens)


def card_for_device(device: Device) -> CatalogueCard | None:
    """The card behind a device, by the driver's name and, of several, by size and bandwidth; None where nothing fits."""
    if "catalogue" in device.extra:
        return next((card for card in cards() if card.name == device.extra["catalogue"]), None)
    name = str(device.extra.get("slice_of") or device.name)[:_MAX_NAME]
    wanted = _plain(name)
    found = [card for card in cards() if wanted and wanted in map(_plain_cached, _names(card))] or _within(name)
    return min(found, key=lambda card: _distance(card, device), default=None)


def _within(name: str) -> list[CatalogueCard]:
    """Cards whose whole name is a part of the driver's: "AMD Instinct MI300X OAM", "GRID T4-8Q"."""
    words = Counter(parse_query(name).tokens)
    sizes = {card: _n_words(_parsed(card.name).tokens, words) for card in cards()}
    longest = max(sizes.values(), default=0)
    return [card for card, size in sizes.items() if size == longest and longest]


def _n_words(tokens: tuple[str, ...], words: Counter[str]) -> int:
    """How many words of a name are found in another; 0 where one is missing or the name says too little."""
    telling = len(tokens) > 1 or any(len(token) > 2 and token.isdigit() for token in tokens)
    return len(tokens) if telling and not Counter(tokens) - words else 0


def _names(card: CatalogueCard) -> tuple[str, ...]:
    return (card.name, *card.driver_names, *card.aliases)


@lru_cache(maxsize=4096)
def _plain_cached(name: str) -> str:
    return _plain(name)


def _plain(name: str) -> str:
    name = re.sub(r"\((r|tm)\)", "", name.lower())
    name = re.sub(r"\(.*?\)|\bnvidia\b|\bamd\b|\bgraphics\b", " ", name)  # "(RADV NAVI31)"
    return "".join(c for c in name if c.isalnum())


def _distance(card: CatalogueCard, device: Device) -> tuple[float, float]:
    gib = device.total_bytes / 2**30
    size = min((abs(gib - size) / size for size in _sizes(card)), default=1.0)
    speed = abs(1 - device.memory_bandwidth / card.bandwidth) if device.memory_bandwidth and card.bandwidth else 0.0
    shown = card.unified and card.vendor != "nvidia"  # what these show of the machine's memory depends on its system
    return (0.0 if shown else round(size, 1), speed)


def parse_gpu_option(text: str) -> list[Device]:
    """Devices of one `--gpu NAME[=FREE_GIB]`; "2x3090" is two.

    Raises:
        NotFoundError: no such card, several, or a size that is no number.
    """
    from fitplug.machine.imagined import device_from_card

    name, equals, free = text.partition("=")
    n_cards = parse_query(name).n_cards
    if not 0 < n_cards <= _MAX_CARDS:
        raise NotFoundError(f"'{text}' asks for {n_cards} cards; 1 to {_MAX_CARDS} can be planned for")
    card = find(name)
    free_bytes = _free(free, text) if equals else None
    return [device_from_card(card, free_bytes) for _ in range(n_cards * card.n_gpus)]


def _free(text: str, option: str) -> int:
    match = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*(?:gib|gb|g)?\s*", text.lower())
    if not match:
        raise NotFoundError(f"'{option}': after = stands how many GiB are free, as in 'RTX 3060=10.5'")
    return round(float(match[1]) * 2**30)
