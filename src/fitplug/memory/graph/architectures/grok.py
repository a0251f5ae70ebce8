"""grok: norms after each block, experts beside a dense feed-forward block where the file has one (src/models/grok.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GELU
from fitplug.memory.graph.tensor import Tensor


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
        cur = g.build_norm(cur, g.w("attn_output_norm", il), LLM_NORM_RMS, il)
        ffn_inp = ggml.add(cur, inp_sa)
        cur = _feed_forward(g, g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        cur = ggml.add(cur, ffn_inp)
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS)
    g.keep_embd(cur)
    logits = ggml.scale(g.mm(g.output, cur))
    if g.get_float("final_logit_softcapping"):
        logits = ggml.scale(ggml.tanh(ggml.scale(logits)))
    logits.is_output = True
    g.expand(logits)


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    out = g.build_moe_ffn(cur, g.experts(il), il, type_op=GELU)
    if g.w("ffn_up", il).weight is not None:
        out = ggml.scale(ggml.add(g.ffn(cur, il, GELU), out))
    post = g.w("layer_output_norm", il)
    return g.build_norm(out, post if post.weight is not None else g.w("post_ffw_norm", il), LLM_NORM_RMS, il)
