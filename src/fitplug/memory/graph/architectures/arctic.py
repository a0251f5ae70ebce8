"""arctic: a dense feed-forward block, and experts that see the layer's input (src/models/arctic.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        inp_sa = cur
        cur = g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il)
        q, k, v = g.build_qkv(il, cur)
        q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, inp_sa = ggml.get_rows(cur, out_ids), ggml.get_rows(inp_sa, out_ids)
        ffn_inp = ggml.add(cur, inp_sa)
        cur = g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        ffn_out = ggml.add(cur, ffn_inp)
        cur = g.build_norm(inp_sa, g.w("ffn_norm_exps", il), LLM_NORM_RMS, il)
        cur = ggml.add(g.build_moe_ffn(cur, g.experts(il), il), ffn_out)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))
