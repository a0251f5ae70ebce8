"""Which backend computes what, where the graph is split, what is copied.

ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fitplug.memory.graph.backends import Backend, Order, Uses
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.marks import Start, begun, ends, trusted
from fitplug.memory.graph.tensor import VIEW_OPS, Tensor

MAX_COPIES = 4
"""GGML_SCHED_MAX_COPIES: of everything that crosses into a device, if several devices work as a pipeline."""
MAX_SRC = 10
"""GGML_MAX_SRC."""
NOT_LED_BY_WEIGHTS = frozenset(("ROPE", "FLASH_ATTN_EXT"))
"""Operations whose weights (frequencies, sinks) are too small to decide where they run."""


class Split(NamedTuple):
    """Consecutive nodes of one backend, and what must be copied there before."""

    backend: int
    start: int
    end: int
    inputs: list[Tensor]
    askers: list[int]
    """Number of the node that each input was first asked for by."""


class Schedule(NamedTuple):
    """The graph as the allocator gets it: split inputs and dependencies stand between the nodes."""

    nodes: list[Tensor]
    node_backends: list[int]
    leafs: list[Tensor]
    leaf_backends: list[int]
    marks: list[Start]
    """`Graph.marks`, in this order of nodes."""
    splits: list[Split]


class Scheduler:
    """`ggml_backend_sched` for one graph; a graph is scheduled once, since its sources are replaced by copies."""

    def __init__(self, backends: Sequence[Backend], *, n_copies: int = 1, op_offload: bool = True) -> None:
        self.backends = backends
        self.cpu = len(backends) - 1
        self.n_copies = n_copies
        self.op_offload = op_offload
        self.copied: dict[Tensor, Tensor] = {}
        """What each copy is a copy of."""
        self.shares = [
            {i for i in range(len(backends)) if i == b or (i == self.cpu and backend.uses_host_memory)}
            for b, backend in enumerate(backends)
        ]
        """Per backend: whose buffers it can read in place (ggml_backend_supports_buft)."""

    def schedule(self, graph: Graph) -> Schedule:
        """All passes."""
        self.assign(graph)
        splits = self._split(graph.nodes)
        orders, deps = self._optimize(graph.nodes, splits)
        nodes, backends, marks = self._ordered(graph, splits, orders, deps)
        leafs, leaf_backends = self._leafs(graph, splits)
        return Schedule(nodes, backends, leafs, leaf_backends, marks, splits)

    def assign(self, graph: Graph) -> None:
        """Passes 1 to 4: `backend` of every tensor."""
        cpu = self.cpu
        for leaf in graph.leafs:
            if leaf.backend == -1:
                leaf.backend = leaf.buffer.backends[0] if leaf.buffer is not None else cpu if leaf.is_input else -1
        for node in graph.nodes:
            if node.backend == -1:
                node.backend = self.from_current(node)
        work = [node for node in graph.nodes if node.op not in VIEW_OPS]
        for skip_cpu in (True, False):
            for order in (work, work[::-1]):
                self.spread(order, skip_cpu=skip_cpu)
                if all(node.backend != -1 for node in work):
                    break
        for node in work:
            if node.backend == -1:
                self.to_most_inputs(node)
        self.finish(graph.nodes)

    # Pass 1

    def _from_buffer(self, tensor: Tensor, op: Tensor) -> int:
        """ggml_backend_sched_backend_from_buffer: the first backend that can use the tensor's memory for `op`."""
        buffer = tensor.view_src.buffer if tensor.view_src is not None else tensor.buffer
        if buffer is not None:
            for b in buffer.backends:
                if self.backends[b].supports_op(op):
                    return b
        return -1

    def from_current(self, node: Tensor) -> int:
        """ggml_backend_sched_backend_id_from_cur."""
        buffer = node.view_src.buffer if node.view_src is not None else node.buffer
        if buffer is not None:
            found = self._from_buffer(node, node)
            return found if found != -1 else buffer.backends[0]
        if node.is_input:
            return self.cpu
        if node.op in NOT_LED_BY_WEIGHTS:
            return -1
        for src in node.src:
            if src is not None and src.buffer is not None and src.buffer.is_weights:
                found = self._from_buffer(src, node)
                if self.op_offload and found == self.cpu and src.buffer.is_host:
                    for b in range(self.cpu):
                        backend = self.backends[b]
                        if backend.offloads_op(node) and backend.supports_op(node):
                            return b
                return found
        return -1

    # Passes 2 to 4

    def spread(self, nodes: Iterable[Tensor], current: int = -1, *, skip_cpu: bool) -> int:
        """Give a decided node's backend to the undecided ones after it; the last one's is answered."""
        cpu, backends = self.cpu, self.backends
        for node in nodes:
            b = node.backend
            if b != -1:
                current = -1 if skip_cpu and b == cpu else b
            elif current != -1 and backends[current].supports_op(node):
                node.backend = current
        return current

    def to_most_inputs(self, node: Tensor) -> None:
        """The backend that supports it and already has most of its sources."""
        best = -1
        for b, backend in enumerate(self.backends):
            if backend.supports_op(node):
                n = sum(
                    src is not None and (src.backend != -1 or _view_backend(src) != -1) and self.reads(src, b)
                    for src in node.src
                )
                if n > best:
                    best, node.backend = n, b

    def finish(self, nodes: Iterable[Tensor]) -> None:
        """Views follow what they look at, undecided sources follow their reader."""
        for node in nodes:
            if node.backend == -1 and node.view_src is not None:
                node.backend = node.view_src.backend
            for src in node.src:
                if src is not None and src.backend == -1:
                    src.backend = src.view_src.backend if src.view_src is not None else node.backend
            if node.backend == -1:
                node.backend = next(b for b, backend in enumerate(self.backends) if backend.supports_op(node))

    def reads(self, t: Tensor, b: int) -> bool:
        """ggml_backend_sched_buffer_supported: whether backend `b` can read it where it is."""
        buffer = t.view_src.buffer if t.view_src is not None else t.buffer
        if buffer is not None:
            return b in buffer.backends
        owner = t.backend if t.backend != -1 else _view_backend(t)
        return owner in self.shares[b]

    # Pass 5

    def _split(self, nodes: list[Tensor]) -> list[Split]:
        current = next((node.backend for node in nodes if node.op not in VIEW_OPS), self.cpu)
        split = Split(current, 0, len(nodes), [], [])
        splits: list[Split] = []
        if self.cpu:
            for i, node in enumerate(nodes):
                if node.op in VIEW_OPS:
                    continue
                if node.backend != current or (split.inputs and self._needs_new_split(node, current)):
                    splits.append(split._replace(end=i))
                    current = node.backend
                    split = Split(current, i, len(nodes), [], [])
                src = node.src
                for j, s in enumerate(src):
                    if s is not None and s.backend != current and not self.reads(s, current):
                        src[j] = self._copy(s, current, split, i)
        splits.append(split)
        return splits

    def _needs_new_split(self, node: Tensor, current: int) -> bool:
        """A weight that must be copied starts a split, so that the memory of the last one's is free again."""
        for src in node.src:
            if src is None or src.buffer is None or not src.buffer.is_weights:
                continue
            if src.backend != current and not self.reads(src, current):
                return True
        return False

    def _copy(self, src: Tensor, backend: int, split: Split, i: int) -> Tensor:
        copies = src.copies
        if copies is None:
            copies = src.copies = {}
        of_src = copies.get(backend)
        if of_src is None:
            of_src = copies[backend] = [self.duplicate(src) for _ in range(self.n_copies)]
            self.copied[of_src[0]] = src
            split.inputs.append(src)
            split.askers.append(i)
        return of_src[0]

    def duplicate(self, t: Tensor) -> Tensor:
        """ggml_dup_tensor_layout; several copies stay as long as the graph does."""
        copy = Tensor("NONE", t.type, t.ne, [], t.nb)
        copy.serial = t.serial
        copy.is_input = copy.is_output = self.n_copies > 1
        return copy

    # Dependencies and the final order

    def _optimize(self, nodes: list[Tensor], splits: list[Split]) -> tuple[list[Order | None], dict[int, list[Tensor]]]:
        """What the backends make of their splits (ggml_backend_graph_optimize).

        The order of each split, None where it is as drawn, and what must be kept until a node is computed, by that node's id.
        """
        deps: dict[int, list[Tensor]] = {}

        def keep(tensor: Tensor, until: Tensor) -> None:
            kept = deps.setdefault(id(until), [])
            if not any(t is tensor for t in kept):
                kept.append(tensor)

        uses = Uses(nodes, self.copied)
        orders: list[Order | None] = []
        for split in splits:
            backend = self.backends[split.backend]
            order: Order | None = None
            if 0 < backend.optimizes_from <= split.end - split.start:
                after = nodes[split.end] if split.end < len(nodes) else None
                order = backend.graph_optimize(nodes[split.start : split.end], after, uses, keep)
            orders.append(order)
        return orders, deps

    def _ordered(
        self, graph: Graph, splits: list[Split], orders: list[Order | None], deps: dict[int, list[Tensor]]
    ) -> tuple[list[Tensor], list[int], list[Start]]:
        nodes: list[Tensor] = []
        backends: list[int] = []
        marks: list[tuple[Start, int]] = []
        lasting = 0
        for split, order in zip(splits, orders, strict=True):
            for src in split.inputs:
                dep = Tensor("NONE", src.type, src.ne, [src], src.nb, src)
                nodes += (dep, (src.copies or {})[split.backend][0])
                backends += (src.backend, split.backend)
            numbers = (
                range(split.start, split.end) if order is None else [split.start + i for step in order for i in step.nodes]
            )
            places = []
            for i in numbers:
                node = graph.nodes[i]
                places.append(len(nodes))
                nodes.append(node)
                backends.append(node.backend)
                if deps and id(node) in deps:
                    kept = deps[id(node)]
                    for k in range(0, len(kept), MAX_SRC):
                        nodes.append(Tensor("NONE", kept[k].type, kept[k].ne, [*kept[k : k + MAX_SRC]], kept[k].nb, kept[k]))
                        backends.append(split.backend)
            marks += self._marks(graph, split, order, [*places, len(nodes)], lasting)
            lasting += len(split.inputs) if self.n_copies > 1 else 0
        return nodes, backends, trusted(marks, ends(graph.marks))

    def _marks(
        self, graph: Graph, split: Split, order: Order | None, places: Sequence[int], lasting: int
    ) -> Iterator[tuple[Start, int]]:
        """The repetitions that begin in a split, and which node is the first that had no say in where."""
        for at, run in graph.marks:
            if not split.start <= at < split.end:
                continue
            asked = lasting + sum(asker < at for asker in split.askers)
            if order is None:
                yield Start(places[at - split.start], run, asked), at
            else:
                n_before, ahead, sees = begun(order, split.start, at)
                yield Start(places[n_before], run, asked, ahead), sees

    def _leafs(self, graph: Graph, splits: list[Split]) -> tuple[list[Tensor], list[int]]:
        """Pass 6: with several copies all of them are leafs, and so are those of the graph's inputs."""
        leafs: list[Tensor] = []
        backends: list[int] = []
        if self.n_copies > 1:
            for leaf in graph.leafs:
                if leaf.is_input:
                    leaf.is_output = True
                    leafs += (leaf, *(self.duplicate(leaf) for _ in range(self.n_copies - 1)))
                    backends += [leaf.backend] * self.n_copies
            for split in splits:
                for src in split.inputs:
                    leafs += (src.copies or {})[split.backend]
                    backends += [split.backend] * self.n_copies
        leafs += graph.leafs
        backends += [leaf.backend for leaf in graph.leafs]
        return leafs, backends


def _view_backend(t: Tensor) -> int:
    return t.view_src.backend if t.view_src is not None else -1
