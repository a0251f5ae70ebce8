"""Latent attention to the cells that a lightning indexer picks.

build_attn for llm_graph_input_attn_k_dsa (src/llama-graph.cpp); the indexer is drawn by each model (src/models/deepseek32.cpp,
glm-dsa.cpp, dots3note.cpp, hy-v4.cpp), in all of them alike.
"""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnK
from fitplug.memory.graph.base import LLM_NORM, FusedNode
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

ROTATED = frozenset(("deepseek32", "deepseek4", "glm-dsa", "dots3note"))
"""Architectures whose indexer keys are always turned by a Hadamard matrix (llama_kv_cache's constructor)."""


class InpAttnKDsa(NamedTuple):
    """llm_graph_input_attn_k_dsa: the latents' cache, and the indexer's with a mask that its fused operation reads."""

    mla: InpAttnK
    lid: InpAttnK
    k_rot: Tensor | None


def build_attn_inp_k_dsa(g: GraphContext) -> InpAttnKDsa:
    """llm_graph_context::build_attn_inp_k_dsa."""
    mla = KvCache(g, g.params.n_ctx_seq)
    head = g.hparam("indexer_head_size")
    lid = KvCache(
        g, g.params.n_ctx_seq, layers=lambda layer: layer.n_embd_indexer > 0, head_k=lambda _: (head, 1),
        rotates_always=g.arch in ROTATED,
    )  # fmt: skip
    return InpAttnKDsa(
        InpAttnK(mla, mla.build_input_k_idxs(), g.attn_inp_kq_mask(mla.n_kv)),
        InpAttnK(lid, lid.build_input_k_idxs(), g.attn_inp_kq_mask(lid.n_kv, flash_attn=True)),
        lid.build_input_k_rot() if g.arch in ROTATED else None,
    )


def build_top_k(g: GraphContext, inp: InpAttnKDsa, cur: Tensor, qr: Tensor, inp_pos: Tensor, il: int) -> Tensor:
    """The cells that score best for each token; `qr` is the compressed query."""
    head, n_head, cache = g.hparam("indexer_head_size"), g.hparam("indexer_n_head"), inp.lid.cache
    q = ggml.mul_mat(g.needed("indexer.attn_q_b", il), qr)
    q = ggml.rope_ext(ggml.reshape(q, head, n_head, g.n_tokens), inp_pos)
    k = ggml.mul_mat(g.needed("indexer.attn_k", il), cur)
    k = g.build_norm(k, g.w("indexer.k_norm", il), LLM_NORM, il)
    k = ggml.rope_ext(ggml.reshape(k, head, 1, g.n_tokens), inp_pos)
    if inp.k_rot is not None:
        q, k = ggml.mul_mat(inp.k_rot, q), ggml.mul_mat(inp.k_rot, k)
    g.expand(cache.cpy_k(k, inp.lid.k_idxs, il))

    weights = ggml.mul_mat(g.needed("indexer.proj", il), cur)
    return best_cells(g, q, cache.get_k(il), ggml.scale(per_stream(weights, 1, cache.n_stream)), inp.lid.kq_mask, il)


def best_cells(g: GraphContext, q: Tensor, k: Tensor, weights: Tensor, mask: Tensor, il: int) -> Tensor:
    """Scores and the best of them; `q` is split into the streams of `k`, `weights` are already."""
    score = ggml.lightning_indexer(per_stream(q, 2, k.ne[3]), k, weights, mask)
    g.fused_nodes.append(FusedNode("lightning_indexer", score, il))
    return ggml.cont(ggml.top_k(score, min(score.ne[0], g.hparam("indexer_top_k"))))


def per_stream(t: Tensor, dim: int, n_stream: int) -> Tensor:
    """Dimension `dim`, which counts tokens, split into streams that lie in the last dimension."""
    ne, nb = list(t.ne), list(t.nb)
    ne[dim], ne[3] = ne[dim] // n_stream, n_stream
    nb[3] //= n_stream
    if dim == 1:
        nb[2] //= n_stream
    return ggml.view_4d(t, ne[0], ne[1], ne[2], ne[3], nb[1], nb[2], nb[3])


def build_top_k_mask(mask: Tensor, top_k: Tensor, zeros_type: str = "f32") -> Tensor:
    """`mask` with nothing visible but the cells of `top_k`."""
    hidden = ggml.fill(mask)
    hidden = ggml.view_4d(hidden, 1, hidden.ne[0], hidden.ne[1], hidden.ne[3], hidden.nb[0], hidden.nb[1], hidden.nb[2])
    n, n_tokens, _, n_stream = top_k.ne
    cells = ggml.view_4d(top_k, n, n_tokens, n_stream, 1, top_k.nb[1], top_k.nb[2], n_stream * top_k.nb[3])
    zeros = ggml.fill(ggml.new_tensor(zeros_type, 1, n, n_tokens, n_stream))
    shown = ggml.set_rows(hidden, zeros, cells)
    shown = ggml.view_4d(shown, shown.ne[1], shown.ne[2], 1, shown.ne[3], shown.nb[2], shown.nb[3], shown.nb[3])
    return ggml.add(shown, mask)


def build_attn_dsa(
    g: GraphContext,
    inp: InpAttnKDsa,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    top_k: Tensor,
    il: int,
    *,
    v_mla: Tensor,
    sinks: Tensor | None = None,
) -> Tensor:
    """llm_graph_context::build_attn for llm_graph_input_attn_k_dsa, the output projection left to the caller."""
    for t in (q, v, k):
        g.expand(t)
    cache = inp.mla.cache
    g.expand(cache.cpy_k(k, inp.mla.k_idxs, il))
    mask = build_top_k_mask(inp.mla.kq_mask, top_k)
    k = cache.get_k(il)
    v = ggml.view_4d(k, v.ne[0], *k.ne[1:], *k.nb[1:])
    return g.build_attn_mha(q, k, v, mask, il, sinks=sinks, v_mla=v_mla, n_kv_max=top_k.ne[0])
