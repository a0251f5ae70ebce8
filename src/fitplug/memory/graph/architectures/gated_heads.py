"""Decoders that weigh attention's output with a sigmoid of its input.

Source: src/models/spark2-5.cpp, step35.cpp, muse-glimmer.cpp.
"""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKvIswa
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, GELU, SILU, SOFTMAX
from fitplug.memory.graph.tensor import Tensor


class Row(NamedTuple):
    """What one of them does its own way."""

    embd_norm: bool = False
    qk_norm: bool = False
    rope_windowed_only: bool = False
    post_norms: bool = False
    act: str = SILU
    rows_late: bool = False
    """The last layer runs for all tokens, since its output is kept for MTP (t_h_nextn)."""
    logit_scale: bool = False


ROWS = {
    "spark2_5": Row(act=GELU),
    "step35": Row(qk_norm=True, rows_late=True),
    "muse-glimmer": Row(embd_norm=True, qk_norm=True, rope_windowed_only=True, post_norms=True, logit_scale=True),
}


def build(g: GraphContext) -> None:
    """Draw the graph."""
    row = ROWS[g.arch]
    cur = g.build_inp_embd()
    if row.embd_norm:
        cur = g.build_norm(cur, ABSENT, LLM_NORM_RMS)
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv_iswa(), g.build_inp_out_ids()
    for il in g.layers():
        g.tap(il, cur)
        residual = cur
        cur = attention(g, row, inp_attn, inp_pos, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il), il)
        if row.post_norms:
            cur = ggml.mul(ggml.rms_norm(cur), g.needed("post_attention_norm", il))
        if il == g.n_layer - 1 and not row.rows_late:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(cur, residual)
        cur = feed_forward(g, g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        if row.post_norms:
            cur = ggml.mul(ggml.rms_norm(cur), g.needed("post_ffw_norm", il))
        cur = ggml.add(cur, ffn_inp)
    if row.rows_late:
        cur.is_output = True
        cur = ggml.get_rows(cur, out_ids)
    _logits(g, row, g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


def attention(g: GraphContext, row: Row, inp: InpAttnKvIswa, inp_pos: Tensor, normed: Tensor, il: int) -> Tensor:
    """Attention of one layer, gated, with its output projection."""
    layer = g.hparams(il)
    q, k, v = g.build_qkv(il, normed)
    if row.qk_norm:
        q, k = _head_norm(g, q, "attn_q_norm", il), _head_norm(g, k, "attn_k_norm", il)
    if layer.is_swa or not row.rope_windowed_only:
        factors = g.rope_factors(il) if g.arch == "step35" and not layer.is_swa else None
        q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
    cur = g.build_attn(inp, ABSENT, q, k, v, il)
    if g.w("attn_gate", il).weight is not None:
        cur = _gated(g, cur, ggml.sigmoid(g.build_lora_mm(g.w("attn_gate", il).weight, normed)), il)
    wo = g.w("attn_output", il)
    return g.build_lora_mm(wo.weight, cur, wo.scale)


def _head_norm(g: GraphContext, cur: Tensor, name: str, il: int) -> Tensor:
    w = g.w(name, il)
    return cur if w.weight is None else g.build_norm(cur, w, LLM_NORM_RMS, il)


def _gated(g: GraphContext, cur: Tensor, gate: Tensor, il: int) -> Tensor:
    """One gate an element (muse-glimmer), or one a head."""
    if g.arch == "muse-glimmer":
        return ggml.mul(cur, gate)
    (n_head, _), n_tokens = g.heads(il), cur.ne[1]
    width = cur.ne[0]
    cur = ggml.reshape(cur, width // n_head, n_head, n_tokens)
    return ggml.reshape(ggml.mul(cur, ggml.reshape(gate, 1, n_head, n_tokens)), width, n_tokens)


def feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    """Dense, or routed experts and the shared one."""
    if g.w("ffn_gate_inp", il).weight is None:
        return g.ffn(cur, il, ROWS[g.arch].act)
    out = g.build_moe_ffn(
        cur, g.experts(il), il,
        gating_op=GATING_FUNCS.get(g.model.get_int("expert_gating_func"), SOFTMAX),
        norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"),
    )  # fmt: skip
    return ggml.add(out, g.ffn(cur, il, suffix="_shexp"))


def _logits(g: GraphContext, row: Row, cur: Tensor) -> None:
    g.keep_embd(cur)
    cur = g.mm(g.output, cur)
    if row.logit_scale:
        cur = ggml.scale(cur)
        if g.get_float("final_logit_softcapping"):
            cur = ggml.scale(ggml.tanh(ggml.scale(cur)))
    cur.is_output = True
    g.expand(cur)
