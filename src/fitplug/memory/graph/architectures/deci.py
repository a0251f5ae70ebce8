"""deci: layers with, without and with linear attention, some without a feed-forward block (src/models/deci.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    inpL = cur  # noqa: N806 - llama.cpp's name for it
    for il in g.layers():
        inp_sa = inpL
        layer = g.hparams(il)
        cur = _attention(g, inpL, inp_attn, inp_pos, il)
        if il == g.n_layer - 1:
            cur, inp_sa = ggml.get_rows(cur, out_ids), ggml.get_rows(inp_sa, out_ids)
        if layer.n_ff == 0:
            continue
        ffn_inp = ggml.add(cur, inp_sa) if layer.n_head > 0 else cur
        cur = g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        inpL = ggml.add(cur, ffn_inp)  # noqa: N806 - as above
    g.build_output(g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS))


def _attention(g: GraphContext, cur: Tensor, inp_attn: InpAttnKv, inp_pos: Tensor, il: int) -> Tensor:
    layer = g.hparams(il)
    if layer.n_head == 0:
        return cur
    cur = g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il)
    if layer.n_head_kv == 0:
        return g.build_lora_mm(g.w("attn_output", il).weight, cur)
    factors = g.rope_factors(il)
    q, k, v = g.build_qkv(il, cur)
    q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
    return g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
