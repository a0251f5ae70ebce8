"""What a scheduled graph asks of memory, step by step (ggml/src/ggml-alloc.c, ggml_gallocr).

Which tensors get memory of their own, which take a source's, and when it is free again follows from the graph; where it lies
follows from its size too. So the steps are worked out once (`GraphAllocator.program`) and run with any sizes (`Program.run`).
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from fitplug.memory.graph.allocator import DynAllocator
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.layers import Run
from fitplug.memory.graph.scheduler import Schedule
from fitplug.memory.graph.tensor import Tensor

INPLACE = frozenset((
    "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT", "LOG",
    "UNARY", "ROPE", "ROPE_BACK", "SILU_BACK", "RMS_NORM", "RMS_NORM_BACK", "CLAMP", "SOFT_MAX", "SOFT_MAX_BACK",
))  # fmt: skip
"""Operations whose result may take a source's memory (ggml_op_can_inplace)."""
TAKE, FREE, SHRINK, MARK = range(4)
"""Kinds of steps."""


class Mark(NamedTuple):
    """The start of a repetition of layers."""

    run: Run
    lasting: int
    """Copies that were asked for before it."""
    living: Sequence[tuple[int, int]]
    """(place after the last mark, block) of the nodes since then that are not free yet.

    The free blocks alone do not tell which of two tensors lies where, and so which of them goes first."""


class LaidOut(NamedTuple):
    """A program that was run."""

    sizes: list[int]
    """Bytes of each backend's buffer."""
    states: list[tuple[Run, Hashable]]
    """(run, copies that stay, what the repetition before left and where, free blocks of all buffers) at the marks."""


class Program:
    """The steps of one graph."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self.demands: list[int] = []
        """The backend in whose buffer it lies, of every tensor that needs memory, its own or a source's."""
        self.blocks: list[int] = []
        """The backend of each block of memory."""
        self.steps: list[tuple[int, int, int]] = []
        """(TAKE, block, demand), (FREE, block, 0), (SHRINK, block, demand) or (MARK, number, 0)."""
        self.marks: list[Mark] = []

    def total(self, sizes: Sequence[int]) -> list[int]:
        """Bytes per backend if nothing were ever freed or shared."""
        total = [0] * len(self.backends)
        for backend, n in zip(self.demands, sizes, strict=True):
            total[backend] += n
        return total

    def run(self, sizes: Sequence[int]) -> LaidOut:
        """Lay the tensors out (ggml_gallocr_reserve_n_size)."""
        allocators = [DynAllocator(backend.alignment, backend.max_size) for backend in self.backends]
        states: list[tuple[Run, Hashable]] = []
        own = [allocators[backend] for backend in self.blocks]
        addresses, lengths = [0] * len(own), [0] * len(own)
        for kind, block, n in self.steps:
            if kind == TAKE:
                size = lengths[block] = sizes[n]
                addresses[block] = own[block].alloc(size)
            elif kind == FREE:
                own[block].free(addresses[block], lengths[block])
            elif kind == SHRINK:
                rest = lengths[block] - sizes[n]
                lengths[block] = sizes[n]
                if rest > 0:
                    own[block].free(addresses[block] + sizes[n], rest)
            else:
                run, lasting, living = self.marks[block]
                left = tuple([(place, addresses[b], lengths[b]) for place, b in living])
                states.append((run, (lasting, left, *[allocator.state() for allocator in allocators])))
        return LaidOut([allocator.max_size for allocator in allocators], states)


def size_in(backend: Backend, t: Tensor) -> int:
    """What a tensor takes of a backend's buffer."""
    return -(-backend.alloc_size(t) // backend.alignment) * backend.alignment


class GraphAllocator:
    """`ggml_gallocr`: decides for each tensor of a scheduled graph whose memory it takes, and until when."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.tensors: list[Tensor] = []
        """Of the program's demands."""
        self._made = Program(backends)

    def program(self, schedule: Schedule) -> Program:
        """The steps; a schedule is asked once, since its tensors keep notes."""
        nodes, ids = schedule.nodes, schedule.node_backends
        for leaf, backend in zip(schedule.leafs, schedule.leaf_backends, strict=True):
            self._allocate(leaf, backend)
        self._count(nodes, ids)
        self._walk(nodes, ids, schedule.marks)
        return self._made

    def reserve(self, schedule: Schedule) -> list[int]:
        """Bytes of each backend's buffer."""
        return self.program(schedule).run(self.sizes()).sizes

    def sizes(self) -> list[int]:
        """Bytes of each demand of the program."""
        return [size_in(self._made.backends[b], t) for t, b in zip(self.tensors, self._made.demands, strict=True)]

    def _count(self, nodes: list[Tensor], ids: list[int]) -> None:
        """Readers and views of every tensor; inputs are allocated before everything else."""
        for node, backend in zip(nodes, ids, strict=True):
            if node.view_src is not None and node.op != "NONE":
                node.view_src.n_views += 1
            if node.is_input:
                self._allocate(node, backend)
            for src in node.src:
                if src is not None:
                    src.n_children += 1
                    if src.is_input:
                        self._allocate(src, backend)

    def _walk(self, nodes: list[Tensor], ids: list[int], marks: Sequence[tuple[int, Run, int]]) -> None:
        """Allocate in order, free what nobody reads any more. Leafs are allocated already, so every source is."""
        marked = {i: (run, lasting) for i, run, lasting in marks}
        start = 0
        for i, (node, backend) in enumerate(zip(nodes, ids, strict=True)):
            if i in marked:
                self._mark(*marked[i], tuple(_living(nodes, start, i)))
                start = i
            if not node.allocated and node.view_src is None:
                self._allocate(node, backend)
            for src in node.src:
                if src is not None:
                    src.n_children -= 1
                    if src.n_children == 0 and src.n_views == 0 and src.buffer is None:
                        self._release(src)

    def _mark(self, run: Run, lasting: int, living: Sequence[tuple[int, int]]) -> None:
        made = self._made
        made.steps.append((MARK, len(made.marks), 0))
        made.marks.append(Mark(run, lasting, living))

    def _release(self, t: Tensor) -> None:
        """The last reader is done: the tensor, or what it is the last view of, is free."""
        owner = t.view_src
        if owner is None:
            owner = t
        else:
            owner.n_views -= 1
            if owner.n_views or owner.n_children:
                return
        if owner.allocated and not owner.is_output:
            owner.allocated = False
            self._made.steps.append((FREE, owner.block, 0))

    def _allocate(self, t: Tensor, backend: int) -> None:
        """ggml_gallocr_allocate_node."""
        if t.allocated or t.buffer is not None or t.view_src is not None:
            return
        t.allocated = True
        if t.op in INPLACE and self._in_place(t):
            return
        made = self._made
        t.block = len(made.blocks)
        made.blocks.append(backend)
        self._demand(TAKE, t, backend)

    def _in_place(self, t: Tensor) -> bool:
        """Take the memory of a source that nobody else reads, and free what the result does not need of it.

        A view's memory is never taken (ggml_gallocr_free_extra_space).
        """
        for parent in t.src:
            if (
                parent is not None
                and parent.n_children == 1
                and parent.n_views == 0
                and parent.allocated
                and not parent.is_output
                and parent.type == t.type
                and parent.ne == t.ne
                and parent.nb == t.nb
            ):
                parent.allocated = False
                t.block = parent.block
                self._demand(SHRINK, t, self._made.blocks[t.block])
                return True
        return False

    def _demand(self, kind: int, t: Tensor, backend: int) -> None:
        made = self._made
        made.steps.append((kind, t.block, len(made.demands)))
        made.demands.append(backend)
        self.tensors.append(t)


def _living(nodes: Sequence[Tensor], start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((i - start, nodes[i].block) for i in range(start, end) if nodes[i].allocated)
