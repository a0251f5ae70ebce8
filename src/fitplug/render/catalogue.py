"""The page of `fitplug devices --catalogue`."""

from collections.abc import Sequence
from typing import Any

from fitplug.machine.catalogue import CatalogueCard
from fitplug.render.page import Line, Table, write


def show(cards: Sequence[CatalogueCard]) -> None:
    """Write it."""
    rows = [
        (
            card.name,
            _memory(card),
            f"{card.bandwidth / 1e9:.0f} GB/s" if card.bandwidth else "",
            card.capability or "",
            card.source,
        )
        for card in cards
    ]
    found = "no card has these words" if not cards else "1 card" if len(cards) == 1 else f"{len(cards)} cards"
    write([Line(found), *([Table("", ("name", ">memory", ">bandwidth", "capability", "source"), rows)] if rows else [])])


def catalogue_json(cards: Sequence[CatalogueCard]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "schema": 1,
        "cards": [
            {
                "name": card.name,
                "vendor": card.vendor,
                "memory_gib": [card.gib] if card.gib else list(card.options_gib),
                "memory_bandwidth": card.bandwidth,
                "compute_capability": card.capability,
                "unified": card.unified,
                "confidence": card.confidence,
                "source": card.source,
            }
            for card in cards
        ],
    }


def _memory(card: CatalogueCard) -> str:
    sizes = [card.gib] if card.gib else list(card.options_gib)
    return f"{'/'.join(map(str, sizes))} GiB" if sizes else ""
