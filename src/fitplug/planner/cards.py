"""Which GPUs a model gets: the fewest and fastest that are enough, and which of them comes first."""

from collections.abc import Sequence
from itertools import combinations

from fitplug.planner.search import Search

_MOST_GROUPS = 3
"""So many of the groups that the ledger promises are tried."""
_MANY = 6
"""Of more cards than this not all pairs and triples are weighed, only those of the fastest first."""
_FASTER = 2.0
"""A card that computes so many times faster than the first one takes its place."""
_CRAWLING = 0.8
"""A card that reads its memory slower than so much of the host's speed is no help."""


def usable(search: Search) -> tuple[int, ...]:
    """The GPUs that have room, and are not slower than the host's own memory."""
    return tuple(d for d in search.devices if search.trials.budgets[d] > 0 and d not in crawling(search))


def crawling(search: Search) -> tuple[int, ...]:
    """GPUs that would read weights slower than the CPU does: a GeForce GT 1030 beside fast memory."""
    devices = search.machine.devices
    if len(devices) < 2 or "devices" in search.given or search.host_reading is None:
        return ()
    least = _CRAWLING * search.host_reading
    return tuple(d for d in search.devices if search.readings[d] < least and not devices[d].unified)


def groups(search: Search, n_ctx: int, use: Sequence[int]) -> list[tuple[int, ...]]:
    """Groups of GPUs that hold everything at this context by the ledger, but not all of them; the fastest group first.

    A token passes through the cards one after the other, so a group is as slow as the sum of its parts: a card alone is
    best where it is enough, then the fastest cards that are.
    """
    found = []
    for group in _candidates(search, use):
        layout = search.propose_whole(n_ctx, group)
        if layout is not None:
            held = tuple(d for d, n in zip(search.devices, layout.counts, strict=True) if n)
            found.append((search.seconds(layout), len(held), held))
    ranked = [held for _, _, held in sorted(found)]
    distinct = list(dict.fromkeys(ranked))
    return [group for group in distinct if len(group) < len(use) or len(use) == 1][:_MOST_GROUPS]


def _candidates(search: Search, use: Sequence[int]) -> list[tuple[int, ...]]:
    """Every group of few cards, of many the fastest so many; in llama.cpp's order within each."""
    order = {d: i for i, d in enumerate(search.devices)}
    ranked = sorted(use, key=lambda d: (-search.readings[d], -search.trials.budgets[d]))
    if len(use) <= _MANY:
        sets = [c for n in range(1, len(use)) for c in combinations(ranked, n)]
    else:
        sets = [(d,) for d in ranked] + [tuple(ranked[:n]) for n in range(2, len(ranked))]
    return [tuple(sorted(c, key=order.__getitem__)) for c in sets] or [tuple(use)]


def fast_first(search: Search, use: Sequence[int]) -> tuple[int, ...]:
    """`use` with the card first that computes much faster than the first one.

    Products with weights that stay in the host's memory are computed on the first device of the list
    (ggml/src/ggml-backend.cpp, ggml_backend_sched_backend_id_from_cur: the first backend that wants to offload them).
    """
    if len(use) < 2 or not search.settings.op_offload or search.given & {"devices", "main_gpu"}:
        return tuple(use)
    speeds = {d: search.computing(d) for d in use}
    best = max(use, key=lambda d: speeds[d])
    if not all(speeds.values()) or speeds[best] < _FASTER * speeds[use[0]]:
        return tuple(use)
    return (best, *(d for d in use if d != best))
