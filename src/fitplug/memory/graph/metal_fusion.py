"""Which operations one Metal kernel computes, as far as it decides the order and what stays alive.

ggml/src/ggml-metal/ggml-metal-fusion.cpp. While nothing is allocated, patterns are told apart by operations and shapes alone
(GGML_METAL_FUSION_STRUCTURAL). The vocoders' pattern (MUL, SIN, SQR, MUL, ADD) is left out: no graph here has it.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from fitplug.memory.graph.backends import KeepAlive, Uses
from fitplug.memory.graph.fusion import fusible, sums_all
from fitplug.memory.graph.supports import contiguous_rows, src
from fitplug.memory.graph.tensor import BLOCKS, VIEW_OPS, Tensor, is_contiguous, row_size

MOST = 16
"""GGML_METAL_FUSION_MAX: nodes that are packed together."""
MOST_EXPERTS = 1024
MOST_REDUCED = 8
LONGEST_SUM = 7

Ops = tuple[str, ...]


class Matched(NamedTuple):
    """A place in a split where the operations of a pattern follow each other."""

    nodes: Sequence[Tensor]
    """The split's."""
    numbers: Sequence[int]
    """Of the pattern's nodes, without views."""
    uses: Uses

    def node(self, i: int) -> Tensor:
        """Node `i` of the pattern."""
        return self.nodes[self.numbers[i]]


class Pattern(NamedTuple):
    """A row of ggml_metal_fusions."""

    raw: Ops
    """With views."""
    fits: Callable[["Pattern", Matched], bool]
    chained: bool = True
    """Each node reads the one before, all of one shape, and nobody outside reads between: asked before `fits`."""

    @property
    def ops(self) -> Ops:
        """Without views."""
        return tuple(op for op in self.raw if op not in VIEW_OPS)


def _norm(pattern: Pattern, at: Matched) -> bool:
    """Rows of weights and biases as wide as the norm's."""
    for i in range(1, len(pattern.raw)):
        t, by = at.node(i), src(at.node(i), 1)
        if t.src[0] is not at.node(i - 1) or by.ne[0] != at.node(0).ne[0] or not contiguous_rows(by) or t.type != "f32":
            return False
    return True


def _scaled_norm(_: Pattern, at: Matched) -> bool:
    return at.node(1).src[0] is at.node(0) and at.node(1).type == "f32"


def _sum(pattern: Pattern, at: Matched) -> bool:
    """Addends of one layout, added one after another."""
    for i in range(1, len(pattern.raw)):
        t, before = at.node(i), at.node(i - 1)
        a, b = src(t, 1), src(before, 1)
        if t.src[0] is not before or (a.type, a.ne, a.nb) != (b.type, b.ne, b.nb):
            return False
    return True


def _convolution(_: Pattern, at: Matched) -> bool:
    conv, unary = at.node(0), at.node(1)
    return unary.src[0] is conv and unary.param == "silu" and conv.type == unary.type == "f32" and contiguous_rows(unary)


def _states(_: Pattern, at: Matched) -> bool:
    """A gated delta net whose states are copied into the cache: `param` is how many of them are kept."""
    net, copy = at.node(0), at.node(1)
    n, heads, n_tokens, n_seqs = src(net, 2).ne
    tail, to = src(copy, 0), src(copy, 1)
    if net.type != "f32" or net.is_output or copy.is_output or tail.op != "VIEW" or tail.view_src is not net:
        return False
    if tail.view_offs != row_size("f32", n * heads * n_tokens * n_seqs) or not is_contiguous(tail):
        return False
    width = n * n * heads
    kept = (width, n_seqs, min(n_tokens, net.param), 1)
    return to.type == "f32" and to.ne == kept and to.nb[:2] == (BLOCKS["f32"][1], row_size("f32", width))


def _routing(pattern: Pattern, at: Matched) -> bool:
    """Experts chosen by a plain softmax; their numbers and weights are read by others."""
    first = at.numbers[0]
    if at.numbers[len(pattern.ops) - 1] + (pattern.raw[-1] == "RESHAPE") != first + len(pattern.raw) - 1:
        return False
    nodes = at.nodes[first : first + len(pattern.raw)]
    if tuple(t.op for t in nodes) != pattern.raw or not _is_routed(nodes):
        return False
    return fusible(nodes, {3, len(nodes) - 1}, at.uses)


def _is_routed(nodes: Sequence[Tensor]) -> bool:
    softmax, reshaped, order, ids, weights = nodes[:5]
    logits, out = src(softmax, 0), nodes[-1]
    if softmax.src[1] is not None or softmax.src[2] is not None or {t.type for t in (logits, softmax, out)} != {"f32"}:
        return False
    n_expert, n_tokens, n_used = logits.ne[0], logits.ne[1], ids.ne[0]
    if n_expert > MOST_EXPERTS or n_used > n_expert or logits.ne[2:] != (1, 1):
        return False
    if (
        ids.ne[1:] != (n_tokens, 1, 1)
        or out.ne != (1, n_used, n_tokens, 1)
        or not is_contiguous(logits)
        or not is_contiguous(out)
    ):
        return False
    if ids.nb[:2] != (BLOCKS["i32"][1], row_size("i32", n_expert)):
        return False
    edges = [(reshaped, softmax), (order, softmax), (ids, order), (weights, reshaped)]
    edges += [(b, a) for a, b in pairwise(nodes[4:]) if b.op != "DIV"]
    edges += [(t, nodes[5]) for t in nodes if t.op == "DIV"]
    divided = [t for t in nodes if t.op == "DIV"]
    return weights.src[1] is ids and all(t.src[0] is of for t, of in edges) and all(t.src[1] is nodes[7] for t in divided)


def _reduction(pattern: Pattern, at: Matched) -> bool:
    """Experts' results, weighted and summed."""
    first, n = at.numbers[0], len(pattern.raw)
    nodes = at.nodes[first : first + n]
    if tuple(t.op for t in nodes) != pattern.raw or at.numbers[len(pattern.ops) - 1] != first + n - 1:
        return False
    product, out = nodes[0], nodes[-1]
    experts, weights = src(product, 0), src(product, 1)
    if {t.type for t in (product, experts, weights, out)} != {"f32"}:
        return False
    width, n_tokens = experts.ne[0], experts.ne[2]
    shapes = (experts.ne, weights.ne, out.ne)
    if shapes != ((width, n // 2, n_tokens, 1), (1, n // 2, n_tokens, 1), (width, n_tokens, 1, 1)):
        return False
    views = nodes[1 : 1 + n // 2]
    if any(t.ne[:2] != (width, n_tokens) or t.nb[1] != product.nb[2] for t in views):
        return False
    whole = is_contiguous(experts) and is_contiguous(weights) and is_contiguous(out)
    return whole and sums_all(nodes[1:], product, n // 2) and fusible(nodes, {n - 1}, at.uses)


_CHOSEN = ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS")
_NORMED = (*_CHOSEN, "RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
PATTERNS = (
    *(
        Pattern((norm, *more), fits)
        for norm in ("NORM", "RMS_NORM")
        for more, fits in ((("MUL",), _norm), (("MUL", "ADD"), _norm), (("SCALE",), _scaled_norm))
    ),
    *(Pattern(("ADD",) * n, _sum) for n in range(2, LONGEST_SUM + 1)),
    Pattern(("GATED_DELTA_NET", "CPY"), _states, chained=False),
    *(Pattern(raw, _routing, chained=False) for raw in (_CHOSEN, (*_CHOSEN, "SCALE"), _NORMED, (*_NORMED, "SCALE"))),
    *(Pattern(("MUL", *["VIEW"] * n, *["ADD"] * (n - 1)), _reduction, chained=False) for n in range(2, MOST_REDUCED + 1)),
    Pattern(("SSM_CONV", "UNARY"), _convolution),
)
BY_FIRST = {first: [(p, p.ops) for p in PATTERNS if p.raw[0] == first] for first in {p.raw[0] for p in PATTERNS}}


def keep_alive(nodes: Sequence[Tensor], keep: KeepAlive) -> None:
    """ggml_metal_fusion_add_alloc_deps: what is read lives until a pattern's end, wherever its operations follow each other."""
    ops = [t.op for t in nodes]
    i = 0
    while i < len(nodes):
        n = max((len(p.raw) for p, _ in BY_FIRST.get(ops[i], ()) if tuple(ops[i : i + len(p.raw)]) == p.raw), default=0)
        if n:
            seen: set[int] = set()
            for node in nodes[i : i + n]:
                for source in node.src:
                    if source is not None and id(source) not in seen:
                        seen.add(id(source))
                        keep(source, nodes[i + n - 1])
                seen.add(id(node))
        i += max(n, 1)


def packed(nodes: Sequence[Tensor], uses: Uses) -> list[tuple[int, int]]:
    """The nodes in packs that stay together, as (first, behind the last) (ggml_metal_fusion_max)."""
    real = [i for i, t in enumerate(nodes) if t.op not in VIEW_OPS]
    packs: list[tuple[int, int]] = []
    i = r = 0
    while i < len(nodes):
        while r < len(real) and real[r] < i:
            r += 1
        n = 1 if nodes[i].op in VIEW_OPS else _pack(nodes, real[r : r + MOST], uses)
        packs.append((i, i + n))
        i += n
    return packs


def _pack(nodes: Sequence[Tensor], real: Sequence[int], uses: Uses) -> int:
    """How many nodes from the first of `real` on are fused, by patterns one behind the other."""
    done = 0
    while done < len(real):
        n = _longest(nodes, real[done:], uses)
        if n < 2:
            break
        done += n
    return min(MOST, real[done - 1] - real[0] + 1) if done else 1


def _longest(nodes: Sequence[Tensor], real: Sequence[int], uses: Uses) -> int:
    """ggml_metal_fusion_next: the nodes without views of the longest pattern that fits here; 1 if there is none."""
    best = 1
    for pattern, ops in BY_FIRST.get(nodes[real[0]].op, ()):
        n = len(ops)
        if n <= best or n > len(real) or any(nodes[i].op != op for i, op in zip(real, ops, strict=False)):
            continue
        found = [nodes[i] for i in real[:n]]
        if pattern.chained and not (_is_chain(found) and fusible(found, {n - 1}, uses)):
            continue
        if pattern.fits(pattern, Matched(nodes, real, uses)):
            best = n
    return best


def _is_chain(found: Sequence[Tensor]) -> bool:
    return all(b.ne == a.ne and any(s is a for s in b.src[:2]) for a, b in pairwise(found))
