"""Encoders with norms before each block (src/models/eurobert.cpp, neo-bert.cpp, modern-bert.cpp, gemma-embedding.cpp)."""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GEGLU, GELU, PAR, SEQ, SILU, SWIGLU
from fitplug.memory.graph.tensor import Tensor


class Row(NamedTuple):
    """What one of them does its own way."""

    norm: str = LLM_NORM_RMS
    embd_scale: bool = False
    embd_norm: bool = False
    late_attn: bool = False
    """The attention's input is made after the output rows'."""
    qk_norm: bool = False
    q_scale: bool = False
    post_norms: bool = False
    output_norm: str = "output_norm"
    act: str = SILU
    gate: str = PAR


ROWS = {
    "eurobert": Row(),
    "neo-bert": Row(act=SWIGLU, gate=SEQ, output_norm="enc.output_norm"),
    "modern-bert": Row(norm=LLM_NORM, embd_norm=True, late_attn=True, act=GEGLU, gate=SEQ),
    "gemma-embedding": Row(embd_scale=True, qk_norm=True, q_scale=True, post_norms=True, act=GELU),
}


def build(g: GraphContext) -> None:
    """Draw the graph."""
    row = ROWS[g.arch]
    cur = g.build_inp_embd() if not row.embd_scale else ggml.scale(g.build_inp_embd())
    inp_pos = g.build_inp_pos()
    if row.embd_norm:
        cur = g.build_norm(cur, g.w("token_embd_norm"), row.norm, 0)
    if row.late_attn:
        out_ids, inp_attn = g.build_inp_out_ids(), g.build_attn_inp_no_cache()
    else:
        inp_attn, out_ids = g.build_attn_inp_no_cache(), g.build_inp_out_ids()
    for il in g.layers():
        residual = cur
        if g.w("attn_norm", il).weight is not None:
            cur = g.build_norm(cur, g.w("attn_norm", il), row.norm, il)
        q, k, v = g.build_qkv(il, cur)
        q, k = _turned(g, row, q, "attn_q_norm", inp_pos, il), _turned(g, row, k, "attn_k_norm", inp_pos, il)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), ggml.scale(q) if row.q_scale else q, k, v, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        if row.post_norms:
            cur = g.build_norm(cur, g.w("post_attention_norm", il), row.norm, il)
        ffn_inp = ggml.add(cur, residual)
        cur = g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", il), row.norm, il), il, row.act, row.gate)
        if row.post_norms:
            cur = g.build_norm(cur, g.w("post_ffw_norm", il), row.norm)
        cur = ggml.add(cur, ffn_inp)
    cur = g.build_norm(cur, g.w(row.output_norm), row.norm)
    g.keep_embd(cur)
    g.expand(cur)


def _turned(g: GraphContext, row: Row, cur: Tensor, norm: str, inp_pos: Tensor, il: int) -> Tensor:
    """Normed where the architecture does that, and turned by position."""
    if row.qk_norm:
        cur = g.build_norm(cur, g.w(norm, il), row.norm, il)
    return ggml.rope_ext(cur, inp_pos)
