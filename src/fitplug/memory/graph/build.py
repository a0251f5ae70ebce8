"""The order in which ggml computes a graph (ggml/src/ggml.c, ggml_build_forward_expand)."""

from typing import NamedTuple

from fitplug.memory.graph.layers import LayerClass, Run, Shape
from fitplug.memory.graph.tensor import Tensor


class Section(NamedTuple):
    """Where the drawing of a layer starts, or goes on after the last."""

    serial: int
    """Of the first tensor."""
    loop: int
    """Which loop over layers it belongs to."""
    il: int
    """The layer; -1 after the loop."""
    shape: Shape | None
    """The layer's; None after the loop."""


class Graph:
    """`ggml_cgraph`: what is computed, in order, and the leaves that it starts from."""

    __slots__ = ("leafs", "loops", "marks", "mixes_copies", "nodes", "pins", "sections")

    def __init__(self) -> None:
        """Start empty."""
        self.nodes: list[Tensor] = []
        self.leafs: list[Tensor] = []
        self.marks: list[tuple[int, Run]] = []
        """(number of nodes, run) at the start of each repetition of a run of equal layers (see layers.py)."""
        self.loops: list[list[LayerClass]] = []
        """The layers of each loop over them, those included that are left out."""
        self.sections: list[Section] = []
        self.pins: list[tuple[Tensor, int]] = []
        """Nodes that are given to their layer's device or, with -1, to the CPU, and the layer."""
        self.mixes_copies = False
        """A layer uses the copy of rope factors that another one has (`params.Copied`)."""

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
