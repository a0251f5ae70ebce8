"""What a scheduled graph asks of memory, step by step (ggml/src/ggml-alloc.c, ggml_gallocr).

Which tensors get memory of their own, which take a source's, and when it is free again follows from the graph; where it lies
follows from its size too. So the steps are worked out once (`GraphAllocator.program`) and run with any sizes (`Program.run`).
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

from fitplug.memory.graph.allocator import DynAllocator
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.layers import Run
from fitplug.memory.graph.marks import Start
from fitplug.memory.graph.scheduler import Schedule
from fitplug.memory.graph.tensor import Tensor

INPLACE = frozenset((
    "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT", "LOG",
    "UNARY", "ROPE", "ROPE_BACK", "SILU_BACK", "RMS_NORM", "RMS_NORM_BACK", "CLAMP", "SOFT_MAX", "SOFT_MAX_BACK",
))  # fmt: skip
"""Operations whose result may take a source's memory (ggml_op_can_inplace)."""
TAKE, FREE, SHRINK = range(3)
"""Kinds of steps."""
Step: TypeAlias = tuple[int, int, int]
"""(TAKE, block, demand), (FREE, block, 0) or (SHRINK, block, demand)."""


class Mark(NamedTuple):
    """The start of a repetition of layers."""

    run: Run
    lasting: int
    """Copies that were asked for before it."""
    ahead: Hashable
    """What of it is computed before it begins."""
    step: int
    block: int


class Loop(NamedTuple):
    """A run of layers: the last but one of the repetitions that are built, which those that are left out repeat."""

    start: int
    end: int
    """Its steps."""
    before: int
    own: int
    after: int
    """The first block of the repetition before it, its own, and of the next."""
    living: Sequence[int]
    """Blocks of its own that the next one finds."""
    leafs: range
    """Blocks of leafs that it alone uses; they are taken before all else."""


class Program:
    """The steps of one graph.

    What is left out of a run is run all the same, on what the repetition before has left, until the memory is as it was
    before: then it goes through the same states again, so those are skipped.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self.demands: list[int] = []
        """The backend in whose buffer it lies, of every tensor that needs memory, its own or a source's."""
        self.lasting: set[int] = set()
        """Demands of what crosses between devices of a pipeline, which is never freed."""
        self.blocks: list[int] = []
        """The backend of each block of memory."""
        self.steps: list[Step] = []
        self.n_leafs = 0
        """How many steps come before all nodes: each takes the next block."""
        self.marks: list[Mark] = []
        self.loops: list[Loop] = []

    def total(self, sizes: Sequence[int], n_layer: int) -> list[int]:
        """Bytes per backend if nothing were ever freed or shared, and all of so many layers handed on to other devices."""
        total = [0] * len(self.backends)
        for i, (backend, n) in enumerate(zip(self.demands, sizes, strict=True)):
            total[backend] += n * n_layer if i in self.lasting else n
        return total

    def run(self, sizes: Sequence[int], left_out: Sequence[int] = ()) -> list[int]:
        """Bytes of each backend's buffer (ggml_gallocr_reserve_n_size); `left_out` are the repetitions of each loop."""
        memory = Memory(self, sizes)
        at = 0
        leafs: list[list[int]] = []
        for loop, n in zip(self.loops, left_out, strict=True):
            if loop.leafs:
                memory.do(self.steps[at : loop.leafs.stop])
                at = loop.leafs.stop
            leafs.append(memory.more_leafs(loop, n))
        for loop, n, addresses in zip(self.loops, left_out, leafs, strict=True):
            memory.do(self.steps[at : loop.end])
            memory.repeat(loop, self.steps[loop.start : loop.end], n, addresses)
            at = loop.end
        memory.do(self.steps[at:])
        extra = [backend.buffer_extra for backend in self.backends]
        return [a.max_size + len(a.chunks) * n for a, n in zip(memory.allocators, extra, strict=True)]


class Memory:
    """All buffers while a program runs."""

    def __init__(self, program: Program, sizes: Sequence[int]) -> None:
        self.allocators = [DynAllocator(backend.alignment, backend.max_size) for backend in program.backends]
        self._sizes = sizes
        self._own = [self.allocators[backend] for backend in program.blocks]
        self._addresses, self._lengths = [0] * len(self._own), [0] * len(self._own)
        self._taken = [sizes[n] for _, _, n in program.steps[: program.n_leafs]]
        """Bytes of the leafs before any were given back."""

    def do(self, steps: Sequence[Step]) -> None:
        """Some steps."""
        take_steps(steps, self._sizes, self._own, self._addresses, self._lengths)

    def more_leafs(self, loop: Loop, n: int) -> list[int]:
        """Where the leafs of the `n` repetitions that are left out lie."""
        return [self._own[block].alloc(self._lengths[block]) for _ in range(n) for block in loop.leafs]

    def repeat(self, loop: Loop, steps: Sequence[Step], n: int, leafs: Sequence[int]) -> None:
        """The steps of a loop `n` times more: each time its own blocks are those of the repetition before."""
        if loop.leafs:
            self._repeat_with(loop, steps, leafs)
            return
        addresses, lengths = self._addresses, self._lengths
        seen: dict[Hashable, int] = {}
        done = 0
        while done < n:
            state = (
                tuple([(addresses[block], lengths[block]) for block in loop.living]),
                *[allocator.state() for allocator in self.allocators],
            )
            if state in seen:
                done += (n - done) // (done - seen[state]) * (done - seen[state])
                seen.clear()
            else:
                seen[state] = done
            if done < n:
                self._again(loop, steps)
                done += 1

    def _repeat_with(self, loop: Loop, steps: Sequence[Step], leafs: Sequence[int]) -> None:
        """No two of the states are equal, since the later ones have fewer leafs to come."""
        start, stop, width = loop.leafs.start, loop.leafs.stop, len(loop.leafs)
        for i in range(0, len(leafs), width):
            self._addresses[start:stop] = leafs[i : i + width]
            self._lengths[start:stop] = self._taken[start:stop]
            self._again(loop, steps)

    def _again(self, loop: Loop, steps: Sequence[Step]) -> None:
        for values in (self._addresses, self._lengths):
            values[loop.before : loop.own] = values[loop.own : loop.after]
        self.do(steps)


def take_steps(
    steps: Sequence[Step], sizes: Sequence[int], own: Sequence[DynAllocator], addresses: list[int], lengths: list[int]
) -> None:
    """Some steps: `own` is the allocator of each block, `addresses` and `lengths` say where it lies."""
    for kind, block, n in steps:
        if kind == TAKE:
            size = lengths[block] = sizes[n]
            addresses[block] = own[block].alloc(size)
        elif kind == FREE:
            own[block].free(addresses[block], lengths[block])
        else:
            rest = lengths[block] - sizes[n]
            lengths[block] = sizes[n]
            if rest > 0:
                own[block].free(addresses[block] + sizes[n], rest)


def size_in(backend: Backend, t: Tensor) -> int:
    """What a tensor takes of a backend's buffer."""
    return -(-backend.alloc_size(t) // backend.alignment) * backend.alignment


class GraphAllocator:
    """`ggml_gallocr`: decides for each tensor of a scheduled graph whose memory it takes, and until when."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.tensors: list[Tensor] = []
        """Of the program's demands."""
        self.made = Program(backends)

    def program(self, schedule: Schedule) -> Program:
        """The steps; a schedule is asked once, since its tensors keep notes."""
        nodes, ids = schedule.nodes, schedule.node_backends
        for leaf, backend in zip(schedule.leafs, schedule.leaf_backends, strict=True):
            self._allocate(leaf, backend)
        self.made.n_leafs = len(self.made.steps)
        self.count(nodes, ids)
        self.walk(nodes, ids, schedule.marks)
        return self.made

    def reserve(self, schedule: Schedule) -> list[int]:
        """Bytes of each backend's buffer."""
        return self.program(schedule).run(self.sizes())

    def sizes(self) -> list[int]:
        """Bytes of each demand of the program."""
        return [size_in(self.made.backends[b], t) for t, b in zip(self.tensors, self.made.demands, strict=True)]

    def count(self, nodes: list[Tensor], ids: list[int]) -> None:
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

    def walk(self, nodes: list[Tensor], ids: list[int], marks: Sequence[Start]) -> None:
        """Allocate in order, free what nobody reads any more. Leafs are allocated already, so every source is."""
        marked = {mark.at: mark for mark in marks}
        made = self.made
        for i, (node, backend) in enumerate(zip(nodes, ids, strict=True)):
            mark = marked.get(i)
            if mark is not None:
                made.marks.append(Mark(mark.run, mark.lasting, mark.ahead, len(made.steps), len(made.blocks)))
            if not node.allocated and node.view_src is None:
                self._allocate(node, backend)
            for src in node.src:
                if src is not None:
                    src.n_children -= 1
                    if src.n_children == 0 and src.n_views == 0 and src.buffer is None:
                        self._release(src)

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
            self.made.steps.append((FREE, owner.block, 0))

    def _allocate(self, t: Tensor, backend: int) -> None:
        """ggml_gallocr_allocate_node."""
        if t.allocated or t.buffer is not None or t.view_src is not None:
            return
        t.allocated = True
        if t.op in INPLACE and self._in_place(t):
            return
        made = self.made
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
                self._demand(SHRINK, t, self.made.blocks[t.block])
                return True
        return False

    def _demand(self, kind: int, t: Tensor, backend: int) -> None:
        made = self.made
        made.steps.append((kind, t.block, len(made.demands)))
        if t.is_input and t.is_output:
            made.lasting.add(len(made.demands))
        made.demands.append(backend)
        self.tensors.append(t)
