"""The order in which ggml computes a graph (ggml/src/ggml.c, ggml_build_forward_expand)."""

from fitplug.memory.graph.tensor import Tensor


class Graph:
    """`ggml_cgraph`: what is computed, in order, and the leaves that it starts from."""

    __slots__ = ("leafs", "marks", "nodes")

    def __init__(self) -> None:
        """Start empty."""
        self.nodes: list[Tensor] = []
        self.leafs: list[Tensor] = []
        self.marks: list[tuple[int, int]] = []
        """(number of nodes, run) at the start of each repetition of a run of equal layers (see layers.py)."""

    def expand(self, tensor: Tensor) -> None:
        """Add `tensor` and what it needs: depth first, sources from left to right (ggml_visit_parents_graph)."""
        if tensor.seen:
            return
        tensor.seen = True
        nodes, leafs = self.nodes, self.leafs
        stack = [tensor]
        while stack:
            t = stack[-1]
            for s in t.src:
                if s is not None and not s.seen:
                    s.seen = True
                    if s.src or s.op != "NONE":
                        stack.append(s)
                        break
                    leafs.append(s)
            else:
                stack.pop()
                (leafs if t.op == "NONE" else nodes).append(t)
