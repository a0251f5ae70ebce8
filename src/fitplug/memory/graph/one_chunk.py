"""Steps on buffers in one chunk, as nearly all are: `take_steps` on a `DynAllocator` with less to ask.

A chunk that reaches to `ENDLESS` has room for everything, so its last free block is larger than each of the holes before
it: the best fit among all free blocks is a hole where one is large enough, and else the end. As long as free blocks are
apart, and none is empty, those that a block merges with when it is given back are the one before it and the one behind it in
order. An empty block takes nothing of the hole that it lies in, and gives nothing back while it touches a free one. Where that
does not hold, as when a result in place is larger than what it takes the place of, the steps are left to `DynAllocator`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeAlias

from fitplug.memory.graph.allocator import ENDLESS, State
from fitplug.memory.graph.program import FREE, TAKE, Step

LARGER = 2 * ENDLESS
"""Than all blocks."""
Move: TypeAlias = tuple[int, int, int]
"""(block, bytes that it takes, -1) or (block, bytes that it gives back, where in it those begin)."""


def is_one_chunk(state: State) -> bool:
    """Whether it is in one chunk that has room for everything, and its free blocks are not empty, in order and apart."""
    if len(state) != 1 or state[0][-2] + state[0][-1] != ENDLESS:
        return False
    starts, sizes = state[0][1::2], state[0][2::2]
    return 0 not in sizes and all(start + n < after for start, n, after in zip(starts, sizes, starts[1:], strict=False))


def moves_of(steps: Sequence[Step], sizes: Sequence[int], lengths: list[int]) -> list[Move] | None:
    """What steps move if demands have these sizes; None where a result is larger than what it takes the place of.

    `lengths` are those of the blocks before the steps, and then after them.
    """
    found: list[Move] = []
    for kind, block, n in steps:
        if kind == TAKE:
            lengths[block] = sizes[n]
            found.append((block, sizes[n], -1))
        elif kind == FREE:
            found.append((block, lengths[block], 0))
        else:
            at = sizes[n]
            size, lengths[block] = lengths[block] - at, at
            if size < 0:
                return None
            if size:
                found.append((block, size, at))
    return found


def move_in_one_chunk(  # noqa: PLR0912 - a call for each move would cost as much as the move
    moves: Sequence[Move], state: State, places: list[int]
) -> State | None:
    """How a buffer is then that `is_one_chunk`; None where there is no room, a part is free already, or nothing would be free.

    `places` are the addresses of the blocks; those of the blocks that are taken are noted there.
    """
    max_size = state[0][0]
    starts, sizes = list(state[0][1::2]), list(state[0][2::2])
    for block, size, at in moves:
        if at < 0:
            best, hole = LARGER, -1
            for i, n in enumerate(sizes):
                if size <= n <= best:
                    best, hole = n, i
            start = places[block] = starts[hole]
            end = start + size
            if end > max_size:
                if end >= ENDLESS:
                    return None
                max_size = end
            if best > size:
                starts[hole], sizes[hole] = end, best - size
            else:
                del starts[hole], sizes[hole]
            continue
        start = places[block] + at
        end = start + size
        i = bisect_left(starts, start)
        behind = starts[i - 1] + sizes[i - 1] if i else -1
        if behind > start or end > starts[i]:
            return None
        if behind == start:
            if starts[i] == end:
                size += sizes[i]  # noqa: PLW2901 - what becomes free with it
                del starts[i], sizes[i]
            sizes[i - 1] += size
        elif starts[i] == end:
            starts[i] = start
            sizes[i] += size
        elif size:
            starts.insert(i, start)
            sizes.insert(i, size)
        else:
            return None
    found = [max_size] * (2 * len(starts) + 1)
    found[1::2], found[2::2] = starts, sizes
    return (tuple(found),)
