"""Chameleon: norms before or after each block, image tokens struck from the logits (src/models/chameleon.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv
from fitplug.memory.graph.base import LLM_NORM, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

IMAGE_TOKENS = 8196 - 4
"""Entries of the vocabulary that stand for images."""


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    swin = g.get_bool("swin_norm")
    for il in g.layers():
        residual = inpL
        attn_norm, ffn_norm = g.w("attn_norm", il), g.w("ffn_norm", il)
        cur = inpL if swin else g.build_norm(inpL, attn_norm, LLM_NORM_RMS, il)
        cur = _attention(g, inp_attn, inp_pos, cur, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        if swin:
            cur = g.build_norm(cur, attn_norm, LLM_NORM_RMS, il)
        ffn_inp = ggml.add(cur, residual)
        if swin:
            cur = g.build_norm(g.ffn(cur, il), ffn_norm, LLM_NORM_RMS, il)
        else:
            cur = g.ffn(g.build_norm(ffn_inp, ffn_norm, LLM_NORM_RMS, il), il)
        inpL = ggml.add(cur, ffn_inp)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS)
    g.keep_embd(cur)
    logits = ggml.set_1d(g.mm(g.output, cur), ggml.clamp(ggml.new_tensor("f32", IMAGE_TOKENS)))
    logits.is_output = True
    g.expand(logits)


def _attention(g: GraphContext, inp: InpAttnKv, inp_pos: Tensor, cur: Tensor, il: int) -> Tensor:
    q, k, v = g.build_qkv(il, cur)
    q_norm, k_norm = g.w("attn_q_norm", il), g.w("attn_k_norm", il)
    q = q if q_norm.weight is None else g.build_norm(q, q_norm, LLM_NORM, il)
    k = k if k_norm.weight is None else g.build_norm(k, k_norm, LLM_NORM, il)
    q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
    return g.build_attn(inp, g.w("attn_output", il)._replace(bias=None), q, k, v, il)
