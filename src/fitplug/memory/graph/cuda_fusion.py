"""What CUDA's fused kernels for experts keep alive (ggml/src/ggml-cuda/ggml-cuda.cu, ggml_backend_cuda_graph_optimize)."""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.memory.graph.backends import KeepAlive, Uses
from fitplug.memory.graph.fusion import fusible, sums_all
from fitplug.memory.graph.tensor import Tensor, is_contiguous

MAX_REDUCED = 15
"""MOE_WEIGHTED_REDUCTION_MAX_EXPERTS."""
ODD_EXPERT_COUNTS = frozenset((288, 576))
NORM = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")


class Reduction(NamedTuple):
    """A weighted sum of experts that one kernel computes."""

    kept: tuple[Tensor, ...]
    until: Tensor
    n_nodes: int


def keep_alive(nodes: Sequence[Tensor], after: Tensor | None, uses: Uses, keep: KeepAlive) -> None:
    """Tell which tensors must outlive their last reader."""
    i, n = 0, len(nodes)
    while i < n:
        op = nodes[i].op
        if op == "MUL":
            found = weighted_reduction(nodes, i, uses)
            if found is not None:
                for tensor in found.kept:
                    keep(tensor, found.until)
                i += found.n_nodes - 1
                op = nodes[i].op
        if op in {"UNARY", "SOFT_MAX"}:
            count = top_k_routing(nodes, i, uses)
            until = nodes[i + count] if i + count < n else after
            if count and until is not None:
                for node in nodes[i : i + count]:
                    keep(node, until)
                    for src in node.src:
                        if src is not None:
                            keep(src, until)
                i += count - 1
        i += 1


def length(nodes: Sequence[Tensor], at: int, uses: Uses) -> int:
    """How many nodes one kernel computes from here on; 0 if it is none of these."""
    op = nodes[at].op
    if op == "MUL":
        found = weighted_reduction(nodes, at, uses)
        return found.n_nodes if found is not None else 0
    return top_k_routing(nodes, at, uses) if op in {"UNARY", "SOFT_MAX"} else 0


def weighted_reduction(nodes: Sequence[Tensor], at: int, uses: Uses) -> Reduction | None:
    """ggml_cuda_match_moe_weighted_reduction: (experts [* scale]) * weights, then views and sums of all experts."""
    first = nodes[at]
    if first.ne[1] < 2 or first.type != "f32" or not is_contiguous(first):
        return None
    weighted, n_mul, kept = first, 1, _factors(first)
    second = nodes[at + 1] if at + 1 < len(nodes) else None
    if second is not None and second.op == "MUL" and second.type == "f32" and kept is not None:
        outer = _factors(second)
        if outer is not None and outer[0] is first:
            weighted, n_mul, kept = second, 2, (kept[0], outer[1], kept[1])
    if kept is None:
        return None
    n_used = weighted.ne[1]
    if not 2 <= n_used <= MAX_REDUCED or weighted.ne[2] * weighted.ne[3] <= 0:
        return None
    count = 2 * n_used + n_mul - 1
    if at + count > len(nodes) or not sums_all(nodes[at + n_mul : at + count], weighted, n_used):
        return None
    return Reduction(kept, nodes[at + count - 1], count) if fusible(nodes[at : at + count], {count - 1}, uses) else None


def _factors(mul: Tensor) -> tuple[Tensor, ...] | None:
    """(experts, weights) of a product, whichever way round."""
    for full, broadcast in ((mul.src[0], mul.src[1]), (mul.src[1], mul.src[0])):
        if full is None or broadcast is None or full.type != "f32" or broadcast.type != "f32":
            continue
        same = full.ne == mul.ne and broadcast.ne[0] == 1 and broadcast.ne[1:] == mul.ne[1:]
        if same and is_contiguous(full) and is_contiguous(broadcast):
            return full, broadcast
    return None


def top_k_routing(nodes: Sequence[Tensor], at: int, uses: Uses) -> int:
    """ggml_cuda_topk_moe_fusion: how many nodes from gating to the experts' weights one kernel computes; 0 if none."""
    i = at
    gate = nodes[i]
    if gate.op == "UNARY" and gate.param == "softplus":
        if not _follows(nodes, i + 1, "SQRT", gate):
            return 0
        i += 1
    elif not _gates(gate):
        return 0
    probs = nodes[i]
    if not _follows(nodes, i + 1, "RESHAPE", probs):
        return 0
    reshaped, sorted_by = nodes[i + 1], probs
    i += 2
    if _follows(nodes, i, "ADD", probs):
        sorted_by = nodes[i]
        i += 1
    if not _follows(nodes, i, "ARGSORT", sorted_by) or not _follows(nodes, i + 1, "VIEW", nodes[i]):
        return 0
    ids = i + 1
    i += 2
    if not _follows(nodes, i, "GET_ROWS", reshaped) or nodes[i].src[1] is not nodes[ids]:
        return 0
    i += 1
    i += _norm_length(nodes, i)
    if _follows(nodes, i, "SCALE", nodes[i - 1]):
        i += 1
    if not _instantiated(nodes[ids]) or not fusible(nodes[at:i], {ids - at, i - 1 - at}, uses):
        return 0
    return i - at


def _gates(node: Tensor) -> bool:
    """A sigmoid, or a softmax without mask and sinks."""
    return node.param == "sigmoid" if node.op == "UNARY" else node.src[1] is None and node.src[2] is None


def _norm_length(nodes: Sequence[Tensor], i: int) -> int:
    """How many nodes make the weights' sum one."""
    if tuple(node.op for node in nodes[i : i + len(NORM)]) != NORM:
        return 0
    reshaped, total, clamped, quotient, out = nodes[i : i + len(NORM)]
    chained = total.src[0] is reshaped and clamped.src[0] is total and out.src[0] is quotient
    return len(NORM) if chained and quotient.src[0] is reshaped and quotient.src[1] is clamped else 0


def _follows(nodes: Sequence[Tensor], i: int, op: str, src: Tensor) -> bool:
    return i < len(nodes) and nodes[i].op == op and nodes[i].src[0] is src


def _instantiated(ids: Tensor) -> bool:
    """ggml_cuda_should_use_topk_moe: there is a kernel for so many experts."""
    n = ids.nb[1] // ids.nb[0]
    return (n & (n - 1) == 0 and n <= 512) or n in ODD_EXPERT_COUNTS
