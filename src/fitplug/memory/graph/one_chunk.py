"""Steps on buffers in one chunk, as nearly all are: `take_steps` on a `DynAllocator` with less to ask.

A chunk that reaches to `ENDLESS` has room for everything, so its last free block is larger than each of the holes before
it: the best fit among all free blocks is a hole where one is large enough, and else the end. As long as free blocks are
apart, and none is empty, those that a block merges with when it is given back are the one before it and the one behind it in
order. Where that does not hold, as when a result in place is larger than what it takes the place of, the steps are left to
`DynAllocator`.
"""

from bisect import bisect_left
from collections.abc import Sequence

from fitplug.memory.graph.allocator import ENDLESS, State
from fitplug.memory.graph.program import FREE, TAKE, Step

LARGER = 2 * ENDLESS
"""Than all blocks."""


class OneChunk:
    """A buffer in one chunk."""

    __slots__ = ("max_size", "sizes", "starts")

    def __init__(self, state: State) -> None:
        """As a `DynAllocator` in this state is; `is_one_chunk` holds."""
        self.max_size = state[0][0]
        self.starts, self.sizes = list(state[0][1::2]), list(state[0][2::2])
        """Of the free blocks, in order."""

    def state(self) -> State:
        """That of a `DynAllocator`."""
        found = [self.max_size] * (2 * len(self.starts) + 1)
        found[1::2], found[2::2] = self.starts, self.sizes
        return (tuple(found),)

    def alloc(self, size: int) -> int:
        """An address; -1 if there is no room."""
        best, at = LARGER, -1
        for i, n in enumerate(self.sizes):
            if size <= n <= best:
                best, at = n, i
        start = self.starts[at]
        end = start + size
        if end > self.max_size:
            if end >= ENDLESS:
                return -1
            self.max_size = end
        if best > size:
            self.starts[at], self.sizes[at] = end, best - size
        else:
            del self.starts[at], self.sizes[at]
        return start

    def free(self, start: int, size: int) -> bool:
        """Give a block back; False if it is empty and would remain, or if a part of it is free already."""
        starts, sizes = self.starts, self.sizes
        i, end = bisect_left(starts, start), start + size
        behind = starts[i - 1] + sizes[i - 1] if i else -1
        if behind > start or end > starts[i]:
            return False
        if behind == start:
            if starts[i] == end:
                size += sizes[i]
                del starts[i], sizes[i]
            sizes[i - 1] += size
        elif starts[i] == end:
            starts[i] = start
            sizes[i] += size
        elif size:
            starts.insert(i, start)
            sizes.insert(i, size)
        else:
            return False
        return True


def is_one_chunk(state: State) -> bool:
    """Whether it is in one chunk that has room for everything, and its free blocks are not empty, in order and apart."""
    if len(state) != 1 or state[0][-2] + state[0][-1] != ENDLESS:
        return False
    starts, sizes = state[0][1::2], state[0][2::2]
    return 0 not in sizes and all(start + n < after for start, n, after in zip(starts, sizes, starts[1:], strict=False))


def take_steps_in_one_chunk(
    steps: Sequence[Step], sizes: Sequence[int], own: Sequence[OneChunk], addresses: list[int], lengths: list[int]
) -> bool:
    """`take_steps`; False, in the middle of it, where `OneChunk` cannot say what comes of it."""
    for kind, block, n in steps:
        if kind == TAKE:
            size = lengths[block] = sizes[n]
            start = addresses[block] = own[block].alloc(size)
            if start < 0:
                return False
        elif kind == FREE:
            if not own[block].free(addresses[block], lengths[block]):
                return False
        else:
            size, rest = sizes[n], lengths[block] - sizes[n]
            lengths[block] = size
            if rest < 0 or (rest and not own[block].free(addresses[block] + size, rest)):
                return False
    return True
