"""Composed steps, run with sizes: where the blocks of each stretch lie.

What a stretch does to the buffers depends on how they are before it, and where the blocks lie that it did not take itself. The
layers of a run come to the same again and again, and so do those of another plan before the first layer that lies elsewhere.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from fitplug.memory.graph.allocator import ENDLESS, DynAllocator, State
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.one_chunk import OneChunk, is_one_chunk, take_steps_in_one_chunk
from fitplug.memory.graph.program import take_steps
from fitplug.memory.graph.stretches import Demand, Stretch

MAX_SEEN = 4000


class Placing(NamedTuple):
    """A stretch among the others."""

    stretch: Stretch
    outer: Sequence[int]
    """Blocks of its guests, of foreign tensors and of others' copies."""
    exports: Sequence[int]
    """Which blocks what it hands on gets; 0: none, or one of the outer ones."""


class Laid(NamedTuple):
    """What a stretch has done."""

    states: Sequence[State]
    """Of the buffers that it asks."""
    exports: Sequence[tuple[int, int]]
    """Address and length of what it hands on, where that is there."""
    shrunk: Sequence[tuple[int, int]]
    """(which of the blocks that were there before, length)."""


class Laying:
    """All that was seen of stretches with the same sizes."""

    def __init__(self, backends: Sequence[Backend], sizes: Mapping[Demand, int]) -> None:
        self.backends, self.sizes = backends, sizes
        self._needed: dict[Stretch, list[int]] = {}
        self._seen: dict[Hashable, Laid] = {}

    def through(self, placings: Sequence[Placing], first: Sequence[Demand]) -> list[int]:
        """Bytes of each backend's buffer."""
        lengths = [0, *[self.sizes[demand] for demand in first]]
        allocators = [self._allocator(b) for b in range(len(self.backends))]
        addresses = [0, *[allocators[demand.backend].alloc(n) for demand, n in zip(first, lengths[1:], strict=True)]]
        states = [allocator.state() for allocator in allocators]
        for stretch, outer, exports in placings:
            before = tuple([(addresses[outer[i]], lengths[outer[i]]) for i in stretch.touched])
            key = stretch, before, tuple([states[b] for b in stretch.backends])
            laid = self._seen.get(key)
            if laid is None:
                laid = self._seen[key] = self._lay(stretch, before, key[2])
            for b, state in zip(stretch.backends, laid.states, strict=True):
                states[b] = state
            for i, n in laid.shrunk:
                lengths[outer[i]] = n
            for number, (address, length) in zip(exports, laid.exports, strict=True):
                if number:
                    addresses.append(address)
                    lengths.append(length)
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
            self._needed.clear()
        return [
            sum(chunk[0] for chunk in state) + len(state) * backend.buffer_extra
            for state, backend in zip(states, self.backends, strict=True)
        ]

    def _allocator(self, b: int) -> DynAllocator:
        return DynAllocator(self.backends[b].alignment, self.backends[b].max_size)

    def _lay(self, stretch: Stretch, before: Sequence[tuple[int, int]], states: Sequence[State]) -> Laid:
        sizes = self._needed.get(stretch)
        if sizes is None:
            sizes = self._needed[stretch] = [self.sizes[demand] for demand in stretch.demands]
        places, taken = _blocks(stretch, before)
        if all(map(is_one_chunk, states)):
            chunks = {b: OneChunk(state) for b, state in zip(stretch.backends, states, strict=True)}
            own = [chunks.get(b, _NOBODYS_CHUNK) for b in stretch.blocks]
            if take_steps_in_one_chunk(stretch.steps, sizes, own, places, taken):
                return _laid(stretch, before, [chunk.state() for chunk in chunks.values()], places, taken)
            places, taken = _blocks(stretch, before)
        allocators = {b: self._allocator(b) for b in stretch.backends}
        for allocator, state in zip(allocators.values(), states, strict=True):
            allocator.restore(state)
        take_steps(stretch.steps, sizes, [allocators.get(b, _NOBODYS) for b in stretch.blocks], places, taken)
        return _laid(stretch, before, [allocator.state() for allocator in allocators.values()], places, taken)


def _blocks(stretch: Stretch, before: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Addresses and lengths, as far as they are known before it."""
    places, taken = [0] * len(stretch.blocks), [0] * len(stretch.blocks)
    for i, (address, length) in zip(stretch.touched, before, strict=True):
        places[i], taken[i] = address, length
    return places, taken


def _laid(
    stretch: Stretch, before: Sequence[tuple[int, int]], states: Sequence[State], places: Sequence[int], taken: Sequence[int]
) -> Laid:
    return Laid(
        states,
        [(places[block], taken[block]) for _, block, _ in stretch.exports],
        [(i, taken[i]) for i, (_, length) in zip(stretch.touched, before, strict=True) if taken[i] != length],
    )


_NOBODYS = DynAllocator(1)
_NOBODYS_CHUNK = OneChunk(((0, 0, ENDLESS),))
