"""Which cards CUDA shows to a new process, and in which order.

Source: CUDA C++ Programming Guide, "CUDA Environment Variables" (CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER), and the MIG
user guide, "CUDA Device Enumeration".
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Card = Mapping[str, Any]


class Visible(NamedTuple):
    """What a CUDA process sees."""

    cards: tuple[Card, ...]
    """Whole cards and MIG slices (which have a `parent`), in CUDA's order."""
    notes: tuple[str, ...]


def visible_cards(cards: Sequence[Card], env: Mapping[str, str]) -> Visible:
    """Apply CUDA_DEVICE_ORDER, then CUDA_VISIBLE_DEVICES, then the rule that a process sees one MIG slice."""
    notes = []
    ordered = cuda_order(cards, env.get("CUDA_DEVICE_ORDER"))
    if env.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and len({card["name"] for card in cards}) > 1:
        notes.append("unlike cards are taken fastest first, as CUDA does; CUDA_DEVICE_ORDER=PCI_BUS_ID makes it certain")
    notes += [f"{card['name']} is in MIG mode without a slice: CUDA cannot use it" for card in ordered if _is_uncut(card)]
    ordered = [card for card in ordered if not _is_uncut(card)]
    chosen: Sequence[Card] = [_whole_or_slice(card) for card in ordered]
    if "CUDA_VISIBLE_DEVICES" in env:
        chosen, problem = _chosen(ordered, env["CUDA_VISIBLE_DEVICES"])
        notes += [problem] if problem else []
        if cards and not chosen:
            notes.append(f"CUDA_VISIBLE_DEVICES={env['CUDA_VISIBLE_DEVICES']} hides every card")
    asked = "CUDA_VISIBLE_DEVICES" in env
    return Visible(*_one_slice([card for card in chosen if card], notes, asked=asked))


def cuda_order(cards: Sequence[Card], order: str | None) -> list[Card]:
    """NVML's order is PCI_BUS_ID. CUDA's own default puts the fastest first.

    NVIDIA calls its measure "a simple heuristic"; cores times clock stands in for it. Equal cards keep their order.
    """
    if order == "PCI_BUS_ID":
        return list(cards)
    return sorted(cards, key=lambda card: -(card.get("n_cores") or 0) * (card.get("core_clock_mhz") or 0))


def _is_uncut(card: Card) -> bool:
    """In MIG mode, but nobody made instances: the MIG user guide has such a card unusable."""
    return "mig" in card and not card["mig"]


def _chosen(cards: Sequence[Card], text: str) -> tuple[list[Card], str | None]:
    """The cards that a list of indices, UUIDs and MIG names asks for; the first that names none ends the list."""
    chosen: list[Card] = []
    for word in [word.strip() for word in text.split(",")]:
        card = _named(cards, word)
        if card is None:
            problem = f"CUDA_VISIBLE_DEVICES: '{word}' is no card here; it and what follows it are not visible"
            return chosen, None if word in {"", "-1", "NoDevFiles"} else problem
        if any(card is other for other in chosen):
            return [], f"CUDA_VISIBLE_DEVICES names '{word}' twice; CUDA then shows no card"
        chosen.append(card)
    return chosen, None


def _named(cards: Sequence[Card], word: str) -> Card | None:
    if word.isascii() and word.isdigit() and len(word) < 6:
        return _whole_or_slice(cards[int(word)]) if int(word) < len(cards) else None
    slices = [_slice(card, part) for card in cards for part in card.get("mig") or ()]
    named = [card for card in (*slices, *cards) if word and _has_uuid(card, word)]
    return named[0] if len(named) == 1 else None


def _has_uuid(card: Card, word: str) -> bool:
    """A UUID may be cut as long as it stays unique. Drivers before 470 name a slice MIG-GPU-…/instance/compute instance."""
    if word.startswith("MIG-GPU-") and "parent" in card:
        return word == f"MIG-{card['parent'].get('uuid')}/{card.get('gpu_instance')}/{card.get('compute_instance')}"
    return word.startswith(("GPU-", "MIG-")) and len(word) > 4 and (card.get("uuid") or "").startswith(word)


def _whole_or_slice(card: Card) -> Card:
    """A card that is cut into slices is seen as its first one."""
    return _slice(card, card["mig"][0]) if card.get("mig") else card


def _slice(card: Card, part: Card) -> Card:
    return {**{key: value for key, value in card.items() if key != "mig"}, "processes": (), **part, "parent": card}


def _one_slice(cards: Sequence[Card], notes: list[str], *, asked: bool) -> tuple[tuple[Card, ...], tuple[str, ...]]:
    """A CUDA process sees one MIG slice; where whole cards are visible too, they are taken."""
    slices = [card for card in cards if "parent" in card]
    kept = [card for card in cards if "parent" not in card] or slices[:1]
    n_slices = sum(len(card["parent"]["mig"]) for card in slices)
    if n_slices > 1 and (len(slices) > 1 or not asked):
        notes.append(
            f"of {n_slices} MIG slices one process sees one; CUDA_VISIBLE_DEVICES=MIG-… chooses it"
        )  # fmt: skip
    return tuple(kept), tuple(notes)
