"""Whether the repetitions of a run go on alike, and how: what the last but one and the one before it tell.

If the second asks the same of memory as the first, with the first's blocks where the first has those of its own predecessor,
then so does every further one: it is of the same layers and stands between the same. Nothing may stay that a repetition leaves
behind for longer than the next, since the ones that are not built would leave theirs too. Leafs of its own it may have, if
they lie in the order of the repetitions: those of the ones that are left out come right after.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby

from fitplug.memory.graph.layers import Run
from fitplug.memory.graph.program import FREE, TAKE, Loop, Mark, Program, Step


def find_loops(program: Program, labels: Sequence[Hashable]) -> list[Run]:
    """Set the program's loops; return the runs that do not go on alike.

    Args:
        program: of a shortened graph.
        labels: of each demand; equal ones have equal sizes.
    """
    program.loops = []
    unlike: list[Run] = []
    for run, marks in groupby(program.marks, key=lambda mark: mark.run):
        ends = list(marks)[-3:]
        loop = _loop(program, labels, *ends) if len(ends) == 3 else None
        if loop is None:
            unlike.append(run)
        else:
            program.loops.append(loop)
    return unlike


def _loop(program: Program, labels: Sequence[Hashable], first: Mark, second: Mark, last: Mark) -> Loop | None:
    if not first.lasting == second.lasting == last.lasting:  # copies of its own that are made before all of them
        return None
    if not first.ahead == second.ahead == last.ahead:  # a backend computes each of them in an order of its own
        return None
    before, steps = program.steps[first.step : second.step], program.steps[second.step : last.step]
    found = _counterparts(program, labels, before, steps, first.block, second.block)
    freed = {block for kind, block, _ in (*before, *steps) if kind == FREE}
    leafs = None if found is None else _own_leafs(program, labels, found)
    is_left = freed.issuperset((*range(first.block, second.block), *(leafs or ())))
    if leafs is None or not is_left or last.block - second.block != second.block - first.block:
        return None
    living = [block for block in range(second.block, last.block) if block not in freed]
    return Loop(second.step, last.step, first.block, second.block, last.block, living, leafs)


def _counterparts(
    program: Program, labels: Sequence[Hashable], before: Sequence[Step], steps: Sequence[Step], start: int, end: int
) -> Mapping[int, int] | None:
    """Block that the first repetition finds there → the one that the second has in its place; None where they are unlike.

    `start` and `end` bound the blocks of the first.
    """
    if len(before) != len(steps):
        return None
    found: dict[int, int] = {}
    for (kind, block, demand), (its_kind, its_block, its_demand) in zip(before, steps, strict=True):
        if kind != its_kind or (kind != FREE and labels[demand] != labels[its_demand]):
            return None
        if kind == TAKE and program.blocks[block] != program.blocks[its_block]:
            return None
        expected = block + end - start if block >= start else found.setdefault(block, its_block)
        if its_block != expected:
            return None
    known = all(its == block or its < program.n_leafs or start <= its < end for block, its in found.items())
    return found if known and len(set(found.values())) == len(found) else None


def _own_leafs(program: Program, labels: Sequence[Hashable], found: Mapping[int, int]) -> range | None:
    """The second's own leafs, which follow the first's; None where they do not."""
    firsts = sorted(block for block, its in found.items() if its < program.n_leafs and its != block)
    if not firsts:
        return range(0)
    start, end = firsts[0], firsts[0] + len(firsts)
    for block in range(start, end):
        its = block + len(firsts)
        if found.get(block) != its or program.blocks[block] != program.blocks[its]:
            return None
        if labels[program.steps[block][2]] != labels[program.steps[its][2]]:
            return None
    return range(end, end + len(firsts))
