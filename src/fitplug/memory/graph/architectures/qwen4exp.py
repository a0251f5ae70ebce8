"""Qwen4 (experimental): delta nets and sparse attention between hyper-connections (src/models/qwen4exp.cpp)."""

from functools import partial

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.blocks.block_sparse import SparseAttention
from fitplug.memory.graph.blocks.delta_net import build_linear_attention, from_separate
from fitplug.memory.graph.blocks.hyper_connections import HC_POST, HC_PRE, fused, is_fused
from fitplug.memory.graph.blocks.mixing import Inputs, experts, with_shared_expert
from fitplug.memory.graph.blocks.ngram_embeddings import build_inp_ple, build_ple
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

DELTA_NET = partial(build_linear_attention, gates=from_separate, act="sigmoid", cont=True)
FEED_FORWARD = with_shared_expert(experts(), gated=True)


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    memory = g.build_inp_mem_hybrid()
    inputs = Inputs(memory.attn, memory.rs, g.build_inp_pos())
    attention = SparseAttention(g, inputs)
    out_ids = g.build_inp_out_ids()
    has_ple = any(layer.n_embd_ple for layer in g.model.layers)
    ple = build_inp_ple(g) if has_ple else None
    n_embd, hc, n_tokens = g.n_embd, g.hparam("dsv4_hc_mult"), g.n_tokens
    streams = ggml.repeat_4d(ggml.reshape(inpL, n_embd, 1, n_tokens), n_embd, hc, n_tokens, 1)
    for il in g.layers():
        g.tap(il, streams)
        if ple is not None and g.hparams(il).n_embd_ple:
            streams = build_ple(g, memory.rs, ple, streams, il)
        cur, inject = _mix(g, streams, "hc_attn", il)
        g.expand(cur)
        cur = DELTA_NET(g, memory.rs, cur, il) if g.hparams(il).is_recurrent else attention(cur, il)
        if il == g.n_layer - 1:
            cur, inject, streams = _picked(cur, inject, streams, out_ids)
        streams = _combine(g, streams, cur, inject, il)
        cur, inject = _mix(g, streams, "hc_ffn", il)
        streams = _combine(g, streams, FEED_FORWARD(g, cur, il), inject, il)
        g.pin_to_layer(streams, il)
    g.build_output(_collapsed(g, streams, "output_hc", -1)[0])


def _mix(g: GraphContext, x: Tensor, name: str, il: int) -> tuple[Tensor, Tensor]:
    """build_hc_mix: one stream out of several, and how strongly each takes in what comes of it."""
    mixed, normed = _collapsed(g, x, name, il)
    return mixed, g.proj(f"{name}_inject", normed, il)


def _collapsed(g: GraphContext, x: Tensor, name: str, il: int) -> tuple[Tensor, Tensor]:
    n_embd, hc, nt, _ = x.ne
    normed = ggml.mul(ggml.rms_norm(x), g.needed(f"{name}_norm", il))
    normed = ggml.reshape(normed, hc * n_embd, nt)
    low = ggml.silu(ggml.scale(g.proj(f"{name}_down", normed, il)))
    gate = g.proj(f"{name}_up", low, il)
    if is_fused(g, HC_PRE) and il >= 0:
        streams, gates = (ggml.reshape(t, n_embd, hc, nt) for t in (normed, gate))
        return fused(g, HC_PRE, ggml.dsv4_hc_pre_gated(streams, gates), il), normed
    gated = ggml.reshape(ggml.mul(normed, ggml.sigmoid(gate)), n_embd, hc, nt)
    row = n_embd * gated.nb[0]
    mixed = ggml.cont(ggml.view_2d(gated, n_embd, nt, row * hc))
    for i in range(1, hc):
        mixed = ggml.add(mixed, ggml.view_2d(gated, n_embd, nt, row * hc, row * i))
    return ggml.scale(mixed), normed


def _combine(g: GraphContext, residual: Tensor, block_out: Tensor, inject: Tensor, il: int) -> Tensor:
    """build_hc_combine: every stream adds the block's output with a weight of its own."""
    n_embd, hc, nt, _ = residual.ne
    w = ggml.scale(ggml.sigmoid(ggml.scale(inject)))
    if is_fused(g, HC_POST) and il >= 0:
        return fused(g, HC_POST, ggml.dsv4_hc_post(block_out, residual, w, None), il)
    w = ggml.reshape(w, 1, hc, nt)
    block = ggml.repeat_4d(ggml.reshape(block_out, n_embd, 1, nt), n_embd, hc, nt, 1)
    return ggml.add(residual, ggml.mul(block, w))


def _picked(cur: Tensor, inject: Tensor, streams: Tensor, out_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens with an output."""
    n_embd, hc, nt, _ = streams.ne
    streams = ggml.get_rows(ggml.reshape(streams, n_embd * hc, nt), out_ids)
    return ggml.get_rows(cur, out_ids), ggml.get_rows(inject, out_ids), ggml.reshape(streams, n_embd, hc, streams.ne[1])
