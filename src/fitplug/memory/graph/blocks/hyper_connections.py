"""Manifold-constrained hyper-connections: several residual streams (src/models/glm5-next.cpp; deepseek4.cpp's are the same).

llama.cpp tries its fused operations once and, where they would not run on a layer's own device, draws them out
(llama_context::resolve_fused_ops, src/llama-context.cpp): `GraphParams.fused` holds what became of that.
"""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import FusedNode
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

HC_PRE, HC_COMB, HC_POST = "dsv4_hc_pre", "dsv4_hc_comb", "dsv4_hc_post"
"""llm_fused_op names."""


def is_fused(g: GraphContext, op: str) -> bool:
    """Whether the fused operation is on."""
    return g.params.fused.get(op, True)


def fused(g: GraphContext, op: str, t: Tensor, il: int) -> Tensor:
    """Remember a fused operation, to be resolved."""
    g.fused_nodes.append(FusedNode(op, t, il))
    return t


DSV4_STREAMS = 4
"""The only number of streams that GGML_OP_DSV4_HC_COMB and its like are made for."""


class Mix(NamedTuple):
    """What a block reads, and how its output goes back into the streams."""

    cur: Tensor
    post: Tensor
    """[hc, n_tokens]: how much of it each stream gets."""
    comb: Tensor
    """[hc, hc, n_tokens]: how the streams are mixed meanwhile."""


def build_hc_pre(g: GraphContext, x: Tensor, name: str, il: int) -> Mix:
    """build_hc_pre with this layer's NAME_fn, NAME_scale and NAME_base; `x` is [n_embd, hc, n_tokens]."""
    n_embd, hc, nt, _ = x.ne
    ggml.require("hc == 4", hc == DSV4_STREAMS)
    fn, scale, base = (g.needed(f"{name}_{part}", il) for part in ("fn", "scale", "base"))
    mixes = ggml.mul_mat(fn, ggml.rms_norm(ggml.reshape(x, hc * n_embd, nt)))
    pre = _affine(mixes, scale, base, hc, 0, 0)
    pre = ggml.scale_bias(ggml.sigmoid(pre))
    post = ggml.scale(ggml.sigmoid(_affine(mixes, scale, base, hc, 1, hc)))
    if is_fused(g, HC_COMB):
        comb = fused(g, HC_COMB, ggml.dsv4_hc_comb(mixes, scale, base), il)
    else:
        comb = _sinkhorn(g, ggml.reshape(_affine(mixes, scale, base, hc * hc, 2, 2 * hc), hc, hc, nt))
    return Mix(collapse(g, x, pre, il), post, comb)


def _affine(mixes: Tensor, scale: Tensor, base: Tensor, n: int, which: int, first: int) -> Tensor:
    """`n` rows of the mixes, scaled by one number and shifted."""
    rows = ggml.view_2d(mixes, n, mixes.ne[1], mixes.nb[1], first * mixes.nb[0])
    rows = ggml.mul(rows, ggml.view_1d(scale, 1, which * scale.nb[0]))
    return ggml.add(rows, ggml.view_1d(base, n, first * base.nb[0]))


def _sinkhorn(g: GraphContext, comb: Tensor) -> Tensor:
    """build_hc_sinkhorn: rows and columns are normed in turn until both add up to one."""
    comb = ggml.soft_max(comb)
    eps = ggml.fill(ggml.new_tensor("f32", 1))
    comb = ggml.add(comb, eps)
    for i in range(max(1, g.hparam("dsv4_hc_sinkhorn_iters"))):
        if i:
            comb = ggml.div(comb, ggml.add(ggml.sum_rows(comb), eps))
        sums = ggml.sum_rows(ggml.cont(ggml.permute(comb, 1, 0, 2, 3)))
        comb = ggml.div(comb, ggml.permute(ggml.add(sums, eps), 1, 0, 2, 3))
    return comb


def collapse(g: GraphContext, x: Tensor, weights: Tensor, il: int) -> Tensor:
    """The streams' weighted sum."""
    if is_fused(g, HC_PRE) and il >= 0:
        return fused(g, HC_PRE, ggml.dsv4_hc_pre(x, weights), il)
    n_embd, hc, nt, _ = x.ne
    result: Tensor | None = None
    for i in range(hc):
        xh = ggml.view_2d(x, n_embd, nt, x.nb[2], i * x.nb[1])
        cur = ggml.mul(xh, ggml.view_2d(weights, 1, nt, weights.nb[1], i * weights.nb[0]))
        result = cur if result is None else ggml.add(result, cur)
    return g.need(result)


def build_hc_post(g: GraphContext, cur: Tensor, residual: Tensor, mix: Mix, il: int) -> Tensor:
    """build_hc_post: the streams after a block."""
    if is_fused(g, HC_POST):
        return fused(g, HC_POST, ggml.dsv4_hc_post(cur, residual, mix.post, mix.comb), il)
    out: Tensor | None = None
    for dst in range(residual.ne[1]):
        stream = _drawn_out(cur, residual, mix, dst)
        out = stream if out is None else ggml.concat(out, stream, 1)
    return g.need(out)


def _drawn_out(cur: Tensor, residual: Tensor, mix: Mix, dst: int) -> Tensor:
    """One stream after a block, without the fused operation."""
    n_embd, hc, nt, _ = residual.ne
    post, comb = mix.post, mix.comb
    stream = ggml.mul(cur, ggml.view_2d(post, 1, nt, post.nb[1], dst * post.nb[0]))
    for src in range(hc):
        xs = ggml.view_2d(residual, n_embd, nt, residual.nb[2], src * residual.nb[1])
        weight = ggml.view_2d(comb, 1, nt, comb.nb[2], dst * comb.nb[0] + src * comb.nb[1])
        stream = ggml.add(stream, ggml.mul(xs, weight))
    return ggml.reshape(stream, n_embd, 1, nt)


def build_hc_mean(x: Tensor) -> Tensor:
    """build_hc_mean: what is left of the streams at the end."""
    n_embd, hc, nt, _ = x.ne
    acc = ggml.view_2d(x, n_embd, nt, x.nb[2])
    for i in range(1, hc):
        acc = ggml.add(acc, ggml.view_2d(x, n_embd, nt, x.nb[2], i * x.nb[1]))
    return ggml.scale(acc)
