"""Talkie: norms without weights, and the embeddings added again after each layer (src/models/talkie.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = skip = g.build_norm(g.build_inp_embd(), ABSENT, LLM_NORM_RMS)
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        residual, again = cur, skip
        q, k, v = g.build_qkv(il, g.build_norm(cur, ABSENT, LLM_NORM_RMS, il))
        q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
        q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
        k = g.build_norm(k, ABSENT, LLM_NORM_RMS, il)
        cur = g.build_attn(inp_attn, g.w("attn_output", il)._replace(bias=None), q, k, v, il)
        if il == g.n_layer - 1:
            cur, residual, again = (ggml.get_rows(t, out_ids) for t in (cur, residual, again))
        ffn_inp = ggml.add(cur, residual)
        cur = ggml.add(g.ffn(g.build_norm(ffn_inp, ABSENT, LLM_NORM_RMS, il), il), ffn_inp)
        cur = ggml.add(cur, ggml.mul(again, g.needed("layer_output_scale", il)))
    cur = g.build_norm(cur, ABSENT, LLM_NORM_RMS)
    g.keep_embd(cur)
    logits = ggml.scale(g.build_lora_mm(g.output.weight, cur))
    logits.is_output = True
    g.expand(logits)
