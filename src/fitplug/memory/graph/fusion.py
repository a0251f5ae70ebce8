"""What the backends' fused kernels have in common: whose results nobody else reads, and the sum of experts."""

from collections.abc import Sequence

from fitplug.memory.graph.backends import Uses
from fitplug.memory.graph.tensor import Tensor


def fusible(nodes: Sequence[Tensor], outputs: set[int], uses: Uses) -> bool:
    """ggml_can_fuse_subgraph_ext: nobody outside reads anything but the outputs."""
    inside = {id(node) for node in nodes}
    for i, node in enumerate(nodes):
        if i in outputs:
            continue
        if node.is_output:
            return False
        if sum(src is node for other in nodes[i + 1 :] for src in other.src) != uses.of(node):
            return False
        owner = node.view_src
        if owner is not None and id(owner) not in inside and (owner.buffer is None or not owner.buffer.is_weights):
            return False
    return True


def sums_all(nodes: Sequence[Tensor], weighted: Tensor, n_used: int) -> bool:
    """One view of each expert, summed from the first to the last."""
    views: list[Tensor] = []
    total: Tensor | None = None
    n_adds = 0
    for node in nodes:
        if node.op == "VIEW":
            if len(views) >= n_used or node.src[0] is not weighted or node.view_offs != len(views) * weighted.nb[1]:
                return False
            views.append(node)
            continue
        if node.op != "ADD" or len(views) < 2 or n_adds + 1 >= len(views):
            return False
        if node.src[0] is not (total if total is not None else views[0]) or node.src[1] is not views[n_adds + 1]:
            return False
        total = node
        n_adds += 1
    return len(views) == n_used and n_adds == n_used - 1
