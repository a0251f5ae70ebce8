"""What the allocator and the scheduler must know of a ggml backend."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple, TypeAlias

from fitplug.memory.graph.tensor import Tensor, nbytes

OFFLOAD_MIN_BATCH = 32
"""GGML_OP_OFFLOAD_MIN_BATCH: from so many rows on a device computes with copies of host weights."""

KeepAlive = Callable[[Tensor, Tensor], None]
"""(tensor, until): the tensor's memory may not be reused before `until` is computed (add_alloc_dep)."""


def batch_size(t: Tensor) -> int:
    """How many rows are computed with one weight (the backends' get_op_batch_size); a look-up is never worth a copy."""
    if t.op == "GET_ROWS":
        return 0
    if t.op == "MUL_MAT":
        return t.ne[1]
    if t.op in {"MUL_MAT_ID", "ROPE", "ROPE_BACK"}:
        return t.ne[2]
    return t.ne[1] * t.ne[2] * t.ne[3]


class Step(NamedTuple):
    """Nodes that get their place at once."""

    nodes: Sequence[int]
    """Their numbers in the split."""
    sees: int
    """Number of the first node that had no say in it."""
    state: frozenset[int] = frozenset()
    """Numbers of the nodes that the next steps depend on besides which have their place."""


Order: TypeAlias = Sequence[Step]
"""The nodes of a split in the order in which a backend computes them."""


class Backend:
    """The defaults of ggml-backend.cpp: sizes as they are, every operation supported, nothing offloaded, nothing reordered."""

    name = "CPU"
    alignment = 32
    uses_host_memory = False
    """Can read and write the host's buffers in place: the CPU, and GPUs that share its memory."""
    optimizes_from = 0
    """Fewest nodes of which its graph_optimize makes anything; 0: it has none."""
    reorders = False
    """It may put the nodes of a split in another order."""
    remembers = False
    """Sizes of attention depend on what was asked before (see `begin`)."""
    max_size = 1 << 62
    """Longest single buffer (ggml_backend_buft_get_max_size)."""
    buffer_extra = 0
    """Bytes that each buffer has besides what was asked for."""

    @property
    def character(self) -> Hashable:
        """Equal for backends that give the same answers of the same tensors."""
        own = ((name, value) for name, value in vars(self).items() if name not in ("name", "index") and name[0] != "_")
        return type(self), tuple(sorted(own))

    def begin(self) -> None:
        """Graphs of another run follow: forget what was kept from the last one's."""

    def alloc_size(self, t: Tensor) -> int:
        """Bytes of the tensor in this backend's buffer (ggml_backend_buft_get_alloc_size)."""
        return nbytes(t)

    def supports_op(self, t: Tensor) -> bool:  # noqa: ARG002 - the CPU does everything
        """Whether it can compute this operation on these shapes (ggml_backend_supports_op)."""
        return True

    def takes(self, t: Tensor) -> bool:
        """The same by types and shapes alone, wherever the sources lie."""
        return self.supports_op(t)

    def offloads_op(self, t: Tensor) -> bool:  # noqa: ARG002 - the CPU takes nothing over
        """Whether it computes this operation although the weight lies in host memory (ggml_backend_offload_op)."""
        return False

    def scratch(self, nodes: Iterable[Tensor]) -> int:  # noqa: ARG002 - known of CUDA alone
        """Bytes that its kernels need besides their results, while they compute these nodes."""
        return 0

    def graph_optimize(self, nodes: Sequence[Tensor], after: Tensor | None, uses: "Uses", keep: KeepAlive) -> Order | None:
        """Ask for tensors to stay alive that a fused kernel still reads, and for another order (ggml_backend_graph_optimize).

        `nodes` are one split's, `after` is the node that follows it.
        """

    def fused_at(self, nodes: Sequence[Tensor], at: int, uses: "Uses") -> int:  # noqa: ARG002 - the CPU fuses nothing
        """How many nodes from number `at` on are one to `graph_optimize`; 0 where it takes no notice of them."""
        return 0


class Uses:
    """How often each tensor of a graph is a source (ggml_cgraph::use_counts); counted when somebody asks.

    `copied` are the tensors whose copies stand as sources in their place: the graph was counted before it was split.
    """

    def __init__(self, nodes: Sequence[Tensor], copied: Mapping[Tensor, Tensor]) -> None:
        self._nodes, self._copied = nodes, copied

    def of(self, t: Tensor) -> int:
        """Readers of `t`."""
        return self._counts.get(t, 0)

    @cached_property
    def _counts(self) -> Mapping[Tensor | None, int]:
        counts = Counter(chain.from_iterable([node.src for node in self._nodes]))
        for copy, t in self._copied.items():
            counts[t] += counts.pop(copy, 0)
        return counts
