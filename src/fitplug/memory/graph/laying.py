"""Composed steps, run with sizes: where the blocks of each stretch lie.

What a stretch does to a buffer depends on how that is before it, and where the blocks lie that it did not take itself. The
layers of a run come to the same again and again, so do those of equal devices, and those of another plan before the first
layer that lies elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from fitplug.memory.graph.allocator import DynAllocator, State
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.one_chunk import Move, is_one_chunk, move_in_one_chunk, moves_of
from fitplug.memory.graph.program import take_steps
from fitplug.memory.graph.stretches import Course, Demand, Stretch

MAX_SEEN = 4000
Before: TypeAlias = tuple[tuple[int, int], ...]
"""Address and length of each outer block that a course frees, or a part of it."""


class Placing(NamedTuple):
    """A stretch among the others."""

    stretch: Stretch
    outer: Sequence[int]
    """Blocks of its guests, of foreign tensors and of others' copies."""
    exports: Sequence[int]
    """Which blocks what it hands on gets; 0: none, or one of the outer ones."""


class Laid(NamedTuple):
    """What a course has done."""

    state: State
    """Of the buffer."""
    exports: Sequence[tuple[int, int]]
    """Address and length of what it hands on."""
    shrunk: Sequence[tuple[int, int]]
    """(which of the blocks that were there before, length)."""


class Laying:
    """All that was seen of courses with the same sizes."""

    def __init__(self, backends: Sequence[Backend], sizes: Mapping[Demand, int], of: Callable[[Course], Sequence[int]]) -> None:
        """`sizes` are those of today's demands, `of` answers all of a course."""
        self.backends, self.sizes, self._sizes_of = backends, sizes, of
        self._moves: dict[tuple[Course, tuple[int, ...]], tuple[list[Move] | None, list[int]]] = {}
        """Moves and the lengths after them, of a course and the lengths of its outer blocks before it."""
        self._seen: dict[tuple[Course, Before, State], Laid] = {}

    def through(self, placings: Sequence[Placing], first: Sequence[Demand]) -> list[int]:
        """Bytes of each backend's buffer."""
        lengths = dict(enumerate([0, *[self.sizes[demand] for demand in first]]))
        allocators = [self._allocator(b) for b in range(len(self.backends))]
        addresses = {0: 0}
        for block, demand in enumerate(first, 1):
            addresses[block] = allocators[demand.backend].alloc(lengths[block])
        states = [allocator.state() for allocator in allocators]
        for stretch, outer, exports in placings:
            for backend, course, touched, shown in stretch.asks:
                blocks = [outer[i] for i in touched]
                key = course, tuple([(addresses[block], lengths[block]) for block in blocks]), states[backend]
                laid = self._seen.get(key)
                if laid is None:
                    laid = self._seen[key] = self._lay(*key)
                states[backend] = laid.state
                for i, n in laid.shrunk:
                    lengths[blocks[i]] = n
                for i, (address, length) in zip(shown, laid.exports, strict=True):
                    addresses[exports[i]], lengths[exports[i]] = address, length
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
            self._moves.clear()
        return [
            sum(chunk[0] for chunk in state) + len(state) * backend.buffer_extra
            for state, backend in zip(states, self.backends, strict=True)
        ]

    def _allocator(self, b: int) -> DynAllocator:
        return DynAllocator(self.backends[b].alignment, self.backends[b].max_size)

    def _lay(self, course: Course, before: Before, state: State) -> Laid:
        moves, lengths = self._moved(course, before)
        if moves is not None and is_one_chunk(state):
            places = self._places(course, before)
            after = move_in_one_chunk(moves, state, places)
            if after is not None:
                return _laid(course, before, after, places, lengths)
        allocator, places, lengths = self._allocator(course.backend), self._places(course, before), _lengths(course, before)
        allocator.restore(state)
        take_steps(course.steps, self._sizes_of(course), [allocator] * course.n_blocks, places, lengths)
        return _laid(course, before, allocator.state(), places, lengths)

    def _moved(self, course: Course, before: Before) -> tuple[list[Move] | None, list[int]]:
        key = course, tuple([length for _, length in before])
        found = self._moves.get(key)
        if found is None:
            lengths = _lengths(course, before)
            found = self._moves[key] = moves_of(course.steps, self._sizes_of(course), lengths), lengths
        return found

    @staticmethod
    def _places(course: Course, before: Before) -> list[int]:
        return [*[address for address, _ in before], *[0] * (course.n_blocks - len(before))]


def _lengths(course: Course, before: Before) -> list[int]:
    return [*[length for _, length in before], *[0] * (course.n_blocks - len(before))]


def _laid(course: Course, before: Before, state: State, places: Sequence[int], lengths: Sequence[int]) -> Laid:
    return Laid(
        state,
        [(places[block], lengths[block]) for block in course.exports],
        [(i, lengths[i]) for i, (_, length) in enumerate(before) if lengths[i] != length],
    )
