"""What the allocator and the scheduler must know of a ggml backend."""

from collections.abc import Callable, Sequence
from functools import cached_property

from fitplug.memory.graph.tensor import Tensor, nbytes

OFFLOAD_MIN_BATCH = 32
"""GGML_OP_OFFLOAD_MIN_BATCH: from so many rows on a device computes with copies of host weights."""

KeepAlive = Callable[[Tensor, Tensor], None]
"""(tensor, until): the tensor's memory may not be reused before `until` is computed (add_alloc_dep)."""


class Backend:
    """The defaults of ggml-backend.cpp: sizes as they are, every operation supported, nothing offloaded, nothing reordered."""

    name = "CPU"
    alignment = 32
    uses_host_memory = False
    """Can read and write the host's buffers in place: the CPU, and GPUs that share its memory."""
    fuses = False
    """Has a graph_optimize of its own."""
    max_size = 1 << 62
    """Longest single buffer (ggml_backend_buft_get_max_size)."""

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

    def graph_optimize(self, nodes: Sequence[Tensor], after: Tensor | None, uses: "Uses", keep: KeepAlive) -> None:
        """Ask for tensors to stay alive that a fused kernel still reads (ggml_backend_graph_optimize).

        `nodes` are one split's, `after` is the node that follows it.
        """


class Uses:
    """How often each tensor of a graph is a source (ggml_cgraph::use_counts); counted when somebody asks."""

    def __init__(self, nodes: Sequence[Tensor]) -> None:
        self._nodes = nodes

    def of(self, t: Tensor) -> int:
        """Readers of `t`."""
        return self._counts.get(id(t), 0)

    @cached_property
    def _counts(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for node in self._nodes:
            for src in node.src:
                if src is not None:
                    counts[id(src)] = counts.get(id(src), 0) + 1
        return counts
