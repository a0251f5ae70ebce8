"""Where a graph of placed segments is split, and what is copied (`Scheduler._split`), from the few nodes that matter for it."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

from fitplug.memory.graph.pieces import Placed
from fitplug.memory.graph.segments import Blueprint
from fitplug.memory.graph.tensor import Tensor

Identity: TypeAlias = Hashable
"""A tensor's number in the graph; of a weight or a cache which leaf it is, and where it lies."""


class Copy(NamedTuple):
    """What one backend gets of another's tensor."""

    source: Identity
    backend: int
    tensor: Tensor
    """The source, as the segment that asks first sees it."""
    like: int
    """The source's number in the sample, -1 for weights."""


class Split(NamedTuple):
    """Consecutive nodes of one backend."""

    backend: int
    segment: int
    at: int
    inputs: list[int]
    """Numbers of the copies that are made before."""


class Cuts:
    """Splits, and which sources are replaced by copies."""

    def __init__(self, blueprint: Blueprint, placed: Sequence[Placed]) -> None:
        self.blueprint = blueprint
        first = next((piece.events[0].backend for piece in placed if piece.events), 0)
        self.splits = [Split(first, 0, 0, [])]
        self.copies: list[Copy] = []
        self.begun: list[list[int]] = []
        """Of each segment, the splits that begin in it."""
        self.replaced: list[list[tuple[int, int, int]]] = []
        """Of each segment, (node, which source, copy)."""
        self._known: dict[Hashable, int] = {}
        for k, piece in enumerate(placed):
            self._segment(k, piece)

    def _segment(self, k: int, placed: Placed) -> None:
        begun = [0] if k == 0 else []
        replaced: list[tuple[int, int, int]] = []
        split = self.splits[-1]
        for at, backend, crossing, copies_weights in placed.events:
            if backend != split.backend or (copies_weights and split.inputs):
                split = Split(backend, k, at, [])
                begun.append(len(self.splits))
                self.splits.append(split)
            for j, place in crossing:
                replaced.append((at, j, self._copy(k, place, placed, split)))
        self.begun.append(begun)
        self.replaced.append(replaced)

    def _copy(self, k: int, place: int, placed: Placed, split: Split) -> int:
        segment, template = self.blueprint.segments[k], placed.piece.template
        source: Identity
        if place < template.n_own:
            source = segment.number(place)
        else:
            i = place - template.n_own
            source = segment.leafs[i], placed.piece.buffers[i]
        found = self._known.get((source, split.backend))
        if found is None:
            found = self._known[source, split.backend] = len(self.copies)
            self.copies.append(Copy(source, split.backend, placed.piece.cast[place], template.numbers[place]))
            split.inputs.append(found)
        return found

    def starts(self) -> list[int]:
        """Number of the first node of each split, and behind the last."""
        segments = self.blueprint.segments
        return [*[segments[split.segment].start + split.at for split in self.splits], self.blueprint.n_nodes]
