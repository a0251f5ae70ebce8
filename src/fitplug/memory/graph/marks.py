"""Where repetitions of layers begin in the order in which a split is computed (see layers.py).

A backend that puts nodes in another order mixes the end of a layer with the beginning of the next. A repetition then begins
where everything before it has its place; what of it has its place already, and what the backend keeps in mind, must be the
same for all. And a mark counts only if nothing behind the last repetition was looked at on the way to it.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from fitplug.memory.graph.backends import Order
from fitplug.memory.graph.layers import Run


class Start(NamedTuple):
    """The start of a repetition in a schedule."""

    at: int
    """How many nodes of the schedule come before it."""
    run: Run
    lasting: int
    """How many copies were asked for before: in their split, and all that stay.

    All copies of a split are made at its start: a repetition that asks for one of its own adds to what the others begin with.
    """
    ahead: Hashable = ()
    """What of the repetition is computed before it begins."""


class Begun(NamedTuple):
    """Where a repetition begins in a split that is put in another order."""

    n_before: int
    ahead: Hashable
    sees: int
    """Number of the first node of the graph that had no say in the order until here."""


def begun(order: Order, start: int, at: int) -> Begun:
    """The first moment at which every node of the split from `start` to `at` has its place."""
    placed: set[int] = set()
    state: frozenset[int] = frozenset()
    first = sees = start
    for step in order:
        if first >= at:
            break
        placed.update(start + i for i in step.nodes)
        state, sees = step.state, max(sees, start + step.sees)
        while first in placed:
            first += 1
    ahead = (tuple(sorted(i - at for i in placed if i >= at)), tuple(sorted(start + i - at for i in state)))
    return Begun(len(placed), ahead, sees)


def ends(marks: Sequence[tuple[int, Run]]) -> Mapping[Run, int]:
    """Number of the node behind the last repetition of each run; all of a run are equally long."""
    found: dict[Run, int] = {}
    last: dict[Run, int] = {}
    for at, run in marks:
        found[run] = at + (at - last.get(run, at))
        last[run] = at
    return found


def trusted(marks: Sequence[tuple[Start, int]], run_ends: Mapping[Run, int]) -> list[Start]:
    """The marks whose order does not depend on what follows their run; of each run at least one, which proves nothing alone."""
    kept: list[Start] = []
    seen: set[Run] = set()
    for mark, sees in marks:
        if mark.run not in seen or sees <= run_ends[mark.run]:
            kept.append(mark)
            seen.add(mark.run)
    return kept
