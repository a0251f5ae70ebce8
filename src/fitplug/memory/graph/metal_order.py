"""In which order Metal computes (ggml/src/ggml-metal/ggml-metal-common.cpp, ggml_graph_optimize).

Nodes that touch different memory run at the same time. Where the next node must wait, the nodes behind it are searched for some
that need not, and those are computed first. Before anything is laid out, memory is a tensor, or what a view looks at.
"""

from collections.abc import Sequence

from fitplug.memory.graph.backends import Step, Uses
from fitplug.memory.graph.metal_fusion import MOST, packed
from fitplug.memory.graph.tensor import VIEW_OPS, Tensor

N_FORWARD = 64
"""How many packs are searched."""
MOVABLE = VIEW_OPS | frozenset((
    "MUL_MAT", "MUL_MAT_ID", "ROPE", "NORM", "RMS_NORM", "GROUP_NORM", "L2_NORM", "SUM_ROWS", "SSM_CONV", "SSM_SCAN", "CLAMP",
    "TRI", "DIAG", "MUL", "ADD", "SUB", "DIV", "GLU", "SCALE", "UNARY", "GET_ROWS", "SET_ROWS", "SET", "CPY", "CONT", "REPEAT",
))  # fmt: skip
"""Nothing is searched for behind another operation (h_safe)."""


class Pack:
    """Nodes that stay together, and the memory that they touch."""

    __slots__ = ("first", "is_view", "movable", "numbers", "reads", "writes")

    def __init__(self, nodes: Sequence[Tensor], first: int, end: int) -> None:
        inside = nodes[first:end]
        ids = {id(t) for t in inside}
        self.first = first
        self.numbers = range(first, end)
        self.reads = {_memory(s) for t in inside for s in t.src if s is not None and id(s) not in ids}
        self.writes = {_memory(t) for t in inside}
        self.is_view = inside[0].op in VIEW_OPS
        self.movable = inside[0].op in MOVABLE


def _memory(t: Tensor) -> int:
    return id(t.view_src if t.view_src is not None else t)


class Touched:
    """The memory that a set of packs reads and writes (ggml_mem_ranges)."""

    def __init__(self) -> None:
        self.reads: set[int] = set()
        self.writes: set[int] = set()

    def add(self, pack: Pack) -> None:
        """One more."""
        self.reads |= pack.reads
        self.writes |= pack.writes

    def allows(self, pack: Pack) -> bool:
        """Whether a pack reads nothing that is written here, and writes nothing that is touched."""
        return self.writes.isdisjoint(pack.reads) and self.writes.isdisjoint(pack.writes) and self.reads.isdisjoint(pack.writes)


def ordered(nodes: Sequence[Tensor], uses: Uses) -> list[Step]:
    """The nodes of a split in their new order (ggml_metal_graph_optimize_reorder)."""
    packs = [Pack(nodes, first, end) for first, end in packed(nodes, uses)]
    reach = _reach(nodes)
    used = [False] * len(packs)
    steps: list[Step] = []
    together, numbers = Touched(), set[int]()
    for i, pack in enumerate(packs):
        if used[i]:
            continue
        moved: list[int] = []
        seen = i
        if not pack.is_view and not together.allows(pack):
            seen = _search(packs, used, i, together, moved)
            together, numbers = Touched(), set()
        together.add(pack)
        numbers.update(pack.numbers)
        placed = [n for k in moved for n in packs[k].numbers] + list(pack.numbers)
        steps.append(Step(placed, reach[packs[seen].first], frozenset(numbers)))
    return steps


def _search(packs: Sequence[Pack], used: list[bool], i: int, together: Touched, moved: list[int]) -> int:
    """Pick packs behind `i` that run with `together` and wait for nothing passed over; the last one looked at."""
    passed = Touched()
    passed.add(packs[i])
    for k in range(i + 1, min(i + N_FORWARD, len(packs))):
        pack = packs[k]
        if used[k]:
            continue
        if not pack.movable:
            return k
        if (pack.is_view or together.allows(pack)) and passed.allows(pack):
            together.add(pack)
            moved.append(k)
            used[k] = True
        else:
            passed.add(pack)
    return min(i + N_FORWARD, len(packs)) - 1


def _reach(nodes: Sequence[Tensor]) -> list[int]:
    """Of each node: the number behind the last one that is looked at to pack it."""
    found = [len(nodes)] * len(nodes)
    behind: list[int] = []
    for i in range(len(nodes) - 1, -1, -1):
        if nodes[i].op not in VIEW_OPS:
            behind.append(i)
        if len(behind) > MOST:
            found[i] = behind[-MOST - 1] + 1
    return found
