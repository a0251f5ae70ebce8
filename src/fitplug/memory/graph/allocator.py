"""Where each tensor of a graph lies, and so how large the buffers must be (ggml/src/ggml-alloc.c)."""

from collections.abc import Hashable, Sequence

from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.scheduler import Schedule
from fitplug.memory.graph.tensor import Tensor

INPLACE = frozenset((
    "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT", "LOG",
    "UNARY", "ROPE", "ROPE_BACK", "SILU_BACK", "RMS_NORM", "RMS_NORM_BACK", "CLAMP", "SOFT_MAX", "SOFT_MAX_BACK",
))  # fmt: skip
"""Operations whose result may take a source's memory (ggml_op_can_inplace)."""
MAX_CHUNKS = 16
"""GGML_VBUFFER_MAX_CHUNKS."""
ENDLESS = 1 << 62
CHUNK = 1 << 56
"""Addresses are chunk * CHUNK + offset."""


class Chunk:
    """`tallocr_chunk`: free blocks [offset, size] in order, the last one reaching to the end."""

    __slots__ = ("free", "max_size")

    def __init__(self, size: int) -> None:
        self.free = [[0, size]]
        self.max_size = 0


class DynAllocator:
    """`ggml_dyn_tallocr`: best fit among the holes, else the end."""

    __slots__ = ("alignment", "chunks", "max_chunk_size")

    def __init__(self, alignment: int, max_chunk_size: int = ENDLESS) -> None:
        self.alignment = alignment
        self.max_chunk_size = min(max_chunk_size, ENDLESS)
        self.chunks: list[Chunk] = []

    @property
    def max_size(self) -> int:
        """Bytes of all chunks."""
        return sum(chunk.max_size for chunk in self.chunks)

    def alloc(self, size: int) -> int:
        """An address for `size` bytes (ggml_dyn_tallocr_alloc); `size` is a multiple of the alignment."""
        best_chunk, best_block = -1, -1
        for c, chunk in enumerate(self.chunks):
            best_size = ENDLESS * 2
            free = chunk.free
            for i in range(len(free) - 1):
                n = free[i][1]
                if size <= n <= best_size:
                    best_chunk, best_block, best_size = c, i, n
        if best_block < 0:
            best_chunk, best_block = self._at_an_end(size)
        chunk = self.chunks[best_chunk]
        block = chunk.free[best_block]
        offset = block[0]
        end = block[0] = offset + size
        block[1] -= size
        if block[1] == 0:
            del chunk.free[best_block]
        chunk.max_size = max(chunk.max_size, end)
        return best_chunk * CHUNK + offset

    def _at_an_end(self, size: int) -> tuple[int, int]:
        """The last block of the chunk that grows least; else of a new chunk."""
        best, best_chunk, best_block = -ENDLESS * 2, -1, -1
        for c, chunk in enumerate(self.chunks):
            if chunk.free:
                offset, n = chunk.free[-1]
                reuse = chunk.max_size - offset - size
                if n >= size and (best < reuse if best < 0 else 0 <= reuse < best):
                    best, best_chunk, best_block = reuse, c, len(chunk.free) - 1
        if best_chunk < 0:
            last = len(self.chunks) == MAX_CHUNKS - 1
            self.chunks.append(Chunk(ENDLESS if last else max(size, self.max_chunk_size)))
            return len(self.chunks) - 1, 0
        return best_chunk, best_block

    def free(self, addr: int, size: int) -> None:
        """Give `size` bytes back and merge them with their neighbours (ggml_dyn_tallocr_free_bytes)."""
        chunk, start = divmod(addr, CHUNK)
        end = start + size
        free = self.chunks[chunk].free
        for i, block in enumerate(free):
            if block[0] + block[1] == start:
                block[1] += size
                if i + 1 < len(free) and end == free[i + 1][0]:
                    block[1] += free[i + 1][1]
                    del free[i + 1]
                return
            if end == block[0]:
                block[0] = start
                block[1] += size
                if i > 0 and free[i - 1][0] + free[i - 1][1] == start:
                    free[i - 1][1] += block[1]
                    del free[i]
                return
        at = 0
        while at < len(free) and free[at][0] < start:
            at += 1
        free.insert(at, [start, size])

    def state(self) -> tuple[tuple[int, ...], ...]:
        """All free blocks, to compare."""
        return tuple(tuple(n for block in chunk.free for n in block) for chunk in self.chunks)


class GraphAllocator:
    """`ggml_gallocr`: lays a scheduled graph out once."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self.allocators = [DynAllocator(b.alignment, b.max_size) for b in backends]
        self.states: list[tuple[int, Hashable]] = []
        """(run, copies that stay, what the repetition before left and where, free blocks of all buffers) at the marks."""

    def reserve(self, schedule: Schedule) -> list[int]:
        """Bytes of each backend's buffer (ggml_gallocr_reserve_n_size)."""
        nodes, ids = schedule.nodes, schedule.node_backends
        for leaf, backend in zip(schedule.leafs, schedule.leaf_backends, strict=True):
            self._allocate(leaf, backend)
        self._count(nodes, ids)
        self._run(nodes, ids, schedule.marks)
        return [allocator.max_size for allocator in self.allocators]

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

    def _run(self, nodes: list[Tensor], ids: list[int], marks: Sequence[tuple[int, int, int]]) -> None:
        """Allocate in order, free what nobody reads any more. Leafs are allocated already, so every source is."""
        marked = {i: (run, lasting) for i, run, lasting in marks}
        start = 0
        for i, (node, backend) in enumerate(zip(nodes, ids, strict=True)):
            if i in marked:
                run, lasting = marked[i]
                self.states.append((run, (lasting, _living(nodes, start, i), *(a.state() for a in self.allocators))))
                start = i
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
            self.allocators[owner.buffer_id].free(owner.addr, owner.alloc_bytes)

    def _allocate(self, t: Tensor, backend: int) -> None:
        """ggml_gallocr_allocate_node."""
        if t.allocated or t.buffer is not None or t.view_src is not None:
            return
        t.allocated = True
        if t.op in INPLACE and self._in_place(t):
            return
        allocator = self.allocators[backend]
        align = allocator.alignment
        size = -(-self.backends[backend].alloc_size(t) // align) * align
        t.buffer_id = backend
        t.alloc_bytes = size
        t.addr = allocator.alloc(size)

    def _in_place(self, t: Tensor) -> bool:
        """Take the memory of a source that nobody else reads. A view's memory is never taken."""
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
                t.buffer_id, t.addr = parent.buffer_id, parent.addr
                self._keep_only(t, parent)
                return True
        return False

    def _keep_only(self, t: Tensor, parent: Tensor) -> None:
        """Free what the source needed and the result does not (ggml_gallocr_free_extra_space)."""
        allocator = self.allocators[t.buffer_id]
        align = allocator.alignment
        size = -(-self.backends[t.buffer_id].alloc_size(t) // align) * align
        t.alloc_bytes = size
        if parent.alloc_bytes > size:
            allocator.free(t.addr + size, parent.alloc_bytes - size)


def _living(nodes: Sequence[Tensor], start: int, end: int) -> tuple[tuple[int, int, int], ...]:
    """Which of the nodes from `start` on are not free yet: (place after `start`, address, bytes).

    The free blocks alone do not tell which of two tensors lies where, and so which of them goes first.
    """
    return tuple((i - start, nodes[i].addr, nodes[i].alloc_bytes) for i in range(start, end) if nodes[i].allocated)
