"""Composed steps, run with sizes: where the blocks of each stretch lie.

What a stretch does to the buffers depends on how they are before it, and where the blocks lie that it did not take itself. The
layers of a run come to the same again and again, and so do those of another plan before the first layer that lies elsewhere.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from fitplug.memory.graph.allocator import ENDLESS, DynAllocator, State
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.one_chunk import OneChunk, is_one_chunk, take_steps_in_one_chunk
from fitplug.memory.graph.program import take_steps
from fitplug.memory.graph.stretches import Course, Demand, Stretch

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

    def __init__(self, backends: Sequence[Backend], sizes: Mapping[Demand, int], of: Callable[[Course], Sequence[int]]) -> None:
        """`sizes` are those of today's demands, `of` answers all of a course."""
        self.backends, self.sizes, self._sizes_of = backends, sizes, of
        self._seen: dict[Hashable, Laid] = {}

    def through(self, placings: Sequence[Placing], first: Sequence[Demand]) -> list[int]:
        """Bytes of each backend's buffer."""
        lengths = [0, *[self.sizes[demand] for demand in first]]
        allocators = [self._allocator(b) for b in range(len(self.backends))]
        addresses = [0, *[allocators[demand.backend].alloc(n) for demand, n in zip(first, lengths[1:], strict=True)]]
        states = [allocator.state() for allocator in allocators]
        for stretch, outer, exports in placings:
            before = tuple([(addresses[outer[i]], lengths[outer[i]]) for i in stretch.course.touched])
            key = stretch.course, before, tuple([states[b] for b in stretch.backends])
            laid = self._seen.get(key)
            if laid is None:
                laid = self._seen[key] = self._lay(*key)
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
        return [
            sum(chunk[0] for chunk in state) + len(state) * backend.buffer_extra
            for state, backend in zip(states, self.backends, strict=True)
        ]

    def _allocator(self, b: int) -> DynAllocator:
        return DynAllocator(self.backends[b].alignment, self.backends[b].max_size)

    def _lay(self, course: Course, before: Sequence[tuple[int, int]], states: Sequence[State]) -> Laid:
        sizes = self._sizes_of(course)
        places, taken = _blocks(course, before)
        if all(map(is_one_chunk, states)):
            chunks = [*map(OneChunk, states), _NOBODYS_CHUNK]
            if take_steps_in_one_chunk(course.steps, sizes, [chunks[i] for i in course.blocks], places, taken):
                return _laid(course, before, [chunk.state() for chunk in chunks[:-1]], places, taken)
            places, taken = _blocks(course, before)
        allocators = [*map(self._allocator, course.backends), _NOBODYS]
        for allocator, state in zip(allocators, states, strict=False):
            allocator.restore(state)
        take_steps(course.steps, sizes, [allocators[i] for i in course.blocks], places, taken)
        return _laid(course, before, [allocator.state() for allocator in allocators[:-1]], places, taken)


def _blocks(course: Course, before: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Addresses and lengths, as far as they are known before it."""
    places, taken = [0] * len(course.blocks), [0] * len(course.blocks)
    for i, (address, length) in zip(course.touched, before, strict=True):
        places[i], taken[i] = address, length
    return places, taken


def _laid(
    course: Course, before: Sequence[tuple[int, int]], states: Sequence[State], places: Sequence[int], taken: Sequence[int]
) -> Laid:
    return Laid(
        states,
        [(places[block], taken[block]) for block in course.exports],
        [(i, taken[i]) for i, (_, length) in zip(course.touched, before, strict=True) if taken[i] != length],
    )


_NOBODYS = DynAllocator(1)
_NOBODYS_CHUNK = OneChunk(((0, 0, ENDLESS),))
