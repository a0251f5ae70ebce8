"""In which order Vulkan computes, and what its fused kernels keep alive (ggml/src/ggml-vulkan/ggml-vulkan.cpp).

ggml_vk_graph_optimize puts nodes that do not depend on each other side by side: again and again it takes the next node, and of
those after it whatever does not wait for one that is still to come, unless that would tear a pattern apart that is fused. It
compares operations and sources, no addresses, and runs before the graph is laid out: the order decides what lives at one time.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.memory.graph.backends import KeepAlive, Step, Uses
from fitplug.memory.graph.fusion import fusible
from fitplug.memory.graph.tensor import VIEW_OPS, Tensor, is_contiguous

NUM_TO_CHECK = 20
CHAIN = 15
"""How far behind a node the ends of a chain are looked for that start with it."""
LOOKAHEAD = NUM_TO_CHECK + 2 * CHAIN
"""No node further behind the first one that is still to come changes what is done: RMS_NORM + MUL, ROPE, SET_ROWS."""

_ROUTED = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
TOP_K_ROUTING = (
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS", *_ROUTED),
    ("UNARY", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", *_ROUTED),
    ("UNARY", "SQRT", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", *_ROUTED),
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS"),
    ("ARGSORT", "VIEW", "GET_ROWS", "RESHAPE", "SOFT_MAX", "RESHAPE"),
)
"""What they read stays alive until the last of them, or a SCALE behind it."""
TOP_K_SPARSE = ("GET_ROWS", "PERMUTE", "CONT", "CPY", "RESHAPE", "ADD", "TOP_K")
KEPT = (
    ("MUL", "SIN", "SQR", "MUL", "ADD"),
    TOP_K_SPARSE,
    ("RMS_NORM", "MUL", "ADD", "MUL"),
    ("RMS_NORM", "MUL", "ADD"),
    ("RMS_NORM", "MUL", "ROPE", "VIEW", "SET_ROWS"),
    ("RMS_NORM", "VIEW", "SET_ROWS"),
    ("ROPE", "VIEW", "SET_ROWS"),
)
"""Computed one after another as they stand."""
GATED = ("SCALE", "UNARY", "SCALE", "DSV4_HC_POST")
PATTERNS = (*TOP_K_ROUTING, *KEPT, GATED)
PATTERNS_BY_FIRST = {first: [p for p in PATTERNS if p[0] == first] for first in {p[0] for p in PATTERNS}}
PAIRS = frozenset((
    ("MUL_MAT", "ADD"), ("MUL_MAT_ID", "ADD_ID"), ("MUL_MAT_ID", "MUL"), ("ADD", "ADD"), ("SSM_CONV", "ADD"),
    ("SSM_CONV", "UNARY"),
))  # fmt: skip
"""A node may stand right behind the one it needs if one kernel computes both."""
LOOSE_PAIRS = frozenset((("RMS_NORM", "MUL"), ("UNARY", "MUL")))
"""The same, with nodes between them that are computed already or compute nothing."""
CHAINS = {
    ("MUL_MAT_ID", "ADD_ID"): "MUL", ("MUL_MAT", "ADD"): "ADD", ("SSM_CONV", "ADD"): "UNARY",
}  # fmt: skip
"""Behind a pair, the operation that is drawn to it where it reads the pair's result first."""
FUSED_UNARY = frozenset(("gelu", "sigmoid", "silu", "softplus"))
"""ggml_vk_unary_mul_op_index: what is computed together with a product."""


class Node(NamedTuple):
    """What is compared of a node: identities of itself, of its sources, and of what these are views of."""

    me: int
    base: int
    src: frozenset[int]
    src_bases: frozenset[int]
    is_view: bool


def node_of(t: Tensor) -> Node:
    """The tensor's identities."""
    src = [s for s in t.src if s is not None]
    return Node(id(t), _base(t), frozenset(map(id, src)), frozenset(map(_base, src)), t.op in VIEW_OPS)


def _base(t: Tensor) -> int:
    return id(t.view_src if t.view_src is not None else t)


def depends(dst: Node, src: Node) -> bool:
    """Whether `dst` must stay behind `src`: it reads it, or both touch the same memory through views."""
    if src.me in dst.src or dst.base == src.base:
        return True
    if dst.is_view or src.is_view:
        return False
    return src.base in dst.src_bases or dst.base in src.src_bases


class Waiting:
    """The nodes that are passed over, to ask quickly whether one behind them depends on any."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.bases: set[int] = set()
        self.real_bases: set[int] = set()
        self.real_src_bases: set[int] = set()

    def add(self, node: Node) -> None:
        """One more."""
        self.ids.add(node.me)
        self.bases.add(node.base)
        if not node.is_view:
            self.real_bases.add(node.base)
            self.real_src_bases |= node.src_bases

    def block(self, node: Node) -> bool:
        """Whether `node` depends on one of them."""
        if node.base in self.bases or not self.ids.isdisjoint(node.src):
            return True
        if node.is_view:
            return False
        return node.base in self.real_src_bases or not self.real_bases.isdisjoint(node.src_bases)


class Ordering:
    """One run over the nodes of one split."""

    def __init__(self, nodes: Sequence[Tensor], uses: Uses, keep: KeepAlive) -> None:
        self.nodes, self.uses, self.keep = nodes, uses, keep
        self.found = [node_of(t) for t in nodes]
        self.ops = [t.op for t in nodes]
        self.used = [False] * len(nodes)
        self.done: set[int] = set()
        """Identities of the nodes that have their place."""
        self.first = 0
        """The first node that is still to come."""
        self.steps: list[Step] = []
        self.starts: dict[int, list[tuple[str, ...]]] = {}
        """Patterns by their place, where the operations follow each other like that."""
        for i, op in enumerate(self.ops):
            for pattern in PATTERNS_BY_FIRST.get(op, ()):
                if tuple(self.ops[i : i + len(pattern)]) == pattern:
                    self.starts.setdefault(i, []).append(pattern)

    def run(self) -> list[Step]:
        """The nodes in their new order, in the groups that are decided at once."""
        while self.first < len(self.nodes):
            if not self._keep_pattern():
                self._group()
            while self.first < len(self.nodes) and self.used[self.first]:
                self.first += 1
        return self.steps

    def _matches(self, at: int) -> list[tuple[str, ...]]:
        """The patterns that start here and of which no node is placed yet, in the order in which they are tried."""
        return [p for p in self.starts.get(at, ()) if not any(self.used[at : at + len(p)])]

    def _keep_pattern(self) -> bool:
        at = self.first
        for pattern in self._matches(at):
            if pattern in TOP_K_ROUTING or pattern == GATED:
                last = at + len(pattern) - 1
                scaled = pattern != GATED and last + 1 < len(self.nodes) and self.ops[last + 1] == "SCALE"
                self._keep_inputs(at, len(pattern), self.nodes[last + 1 if scaled else last])
            self._place(list(range(at, at + len(pattern))))
            return True
        return False

    def _keep_inputs(self, at: int, n: int, until: Tensor) -> None:
        """The pattern's inputs live through it."""
        seen: set[int] = set()
        for node in self.nodes[at : at + n]:
            for src in node.src:
                if src is not None and id(src) not in seen:
                    seen.add(id(src))
                    self.keep(src, until)
            seen.add(id(node))

    def _place(self, group: list[int]) -> None:
        self.steps.append(Step(group, min(self.first + LOOKAHEAD, len(self.nodes))))
        for i in group:
            self.used[i] = True
            self.done.add(self.found[i].me)

    def _group(self) -> None:
        """The next node and what may be computed beside it: first what computes something, then views."""
        group = [self.first]
        end = min(self.first + NUM_TO_CHECK, len(self.nodes))
        waiting = Waiting()
        waiting.add(self.found[self.first])
        for j in range(self.first + 1, end):
            if self.used[j]:
                continue
            node = self.found[j]
            if not node.is_view and not self._in_pattern(j) and self._may_follow(j, group[-1], waiting):
                group.append(j)
                self._draw(j, group)
            waiting.add(node)
        if self.ops[group[-1]] != "ADD":
            self._add_views(group, end)
        self._place(group)

    def _in_pattern(self, j: int) -> bool:
        if self._matches(j):
            return True
        return any(TOP_K_SPARSE in self._matches(j - o) for o in range(1, min(len(TOP_K_SPARSE), j + 1)))

    def _may_follow(self, j: int, last: int, waiting: Waiting) -> bool:
        """Whether node `j` depends on none that is passed over, but for the last one taken where both are fused."""
        node = self.found[j]
        if not waiting.block(node):
            return True
        pair = (self.ops[last], self.ops[j])
        if not ((pair in LOOSE_PAIRS and last < j and self._nothing_between(last + 1, j)) or (pair in PAIRS and j == last + 1)):
            return False
        return not any(not self.used[c] and c != last and depends(node, self.found[c]) for c in range(self.first, j))

    def _nothing_between(self, low: int, high: int) -> bool:
        return all(self.used[i] or self.found[i].is_view for i in range(low, high))

    # Chains: nodes that are drawn to the one just taken

    def _draw(self, j: int, group: list[int]) -> None:
        rope = self._draw_rope(j, group)
        if self.ops[rope] in {"ROPE", "RMS_NORM"}:
            self._draw_set_rows(rope, group)
        before = self.ops[j - 1]
        drawn = CHAINS.get((before, self.ops[j]))
        if drawn is not None:
            self._draw_reader(j, drawn, group)
        if self.ops[j] == "UNARY":
            self._draw_product(j, group)

    def _take(self, k: int, group: list[int]) -> None:
        group.append(k)
        self.used[k] = True

    def _behind(self, j: int) -> range:
        return range(j + 1, min(j + CHAIN, len(self.nodes)))

    def _draw_rope(self, j: int, group: list[int]) -> int:
        """Behind RMS_NORM and MUL a rotation of their result."""
        if self.ops[j] == "MUL" and self.ops[j - 1] == "RMS_NORM":
            for k in self._behind(j):
                t = self.nodes[k]
                if t.op == "ROPE" and t.src[0] is self.nodes[j] and all(s is None or s.op == "NONE" for s in t.src[1:3]):
                    self._take(k, group)
                    return k
        return j

    def _draw_set_rows(self, at: int, group: list[int]) -> None:
        """Behind a rotation or a norm, that it is written into a cache."""
        view = rows = -1
        for k in self._behind(at):
            if self.used[k]:
                continue
            t = self.nodes[k]
            if view < 0 and t.op == "VIEW" and t.src[0] is self.nodes[at]:
                view = k
            elif view >= 0 and t.op == "SET_ROWS" and t.src[0] is self.nodes[view]:
                rows = k
                break
        if rows < 0 or not fusible([self.nodes[i] for i in (at, view, rows)], {2}, self.uses):
            return
        for c in range(at + 1, rows):
            if not self.used[c] and c != view and not self.found[c].is_view and depends(self.found[rows], self.found[c]):
                return
        self._take(view, group)
        self._take(rows, group)

    def _draw_reader(self, j: int, op: str, group: list[int]) -> None:
        for k in self._behind(j):
            t = self.nodes[k]
            if t.op == op and t.src[0] is self.nodes[j] and (op == "UNARY" or self._ready(t.src[1])):
                self._take(k, group)
                return

    def _draw_product(self, j: int, group: list[int]) -> None:
        """Behind a unary operation the product of its result with something that is there."""
        one = self.nodes[j]
        for k in self._behind(j):
            t = self.nodes[k]
            if t.op != "MUL" or (t.src[0] is not one and t.src[1] is not one):
                continue
            if self._ready(t.src[1] if t.src[0] is one else t.src[0]) and fused_with_product(one, t):
                self._take(k, group)
                return

    def _ready(self, t: Tensor | None) -> bool:
        return t is not None and (t.op == "NONE" or id(t) in self.done)

    def _add_views(self, group: list[int], end: int) -> None:
        """Views of what is placed or in the group."""
        waiting = Waiting()
        inside = set(group)
        for j in range(self.first, end):
            if self.used[j] or j in inside:
                continue
            node = self.found[j]
            if node.is_view and not waiting.block(node):
                group.append(j)
            else:
                waiting.add(node)


def fused_with_product(one: Tensor, product: Tensor) -> bool:
    """ggml_vk_can_fuse_unary_mul."""
    first, other = one.src[0], product.src[1] if product.src[0] is one else product.src[0]
    if one.param not in FUSED_UNARY or one.type not in {"f32", "f16"} or product.type != one.type:
        return False
    if first is None or other is None or other.type != one.type or not is_contiguous(other, 1) or not is_contiguous(first, 1):
        return False
    small, large = (other, one) if product.src[0] is one else (one, other)
    return all(b % a == 0 for a, b in zip(small.ne, large.ne, strict=True))
