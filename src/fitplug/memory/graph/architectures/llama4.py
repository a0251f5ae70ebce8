"""llama4: chunked attention, layers without positions, a shared expert beside the routed ones (src/models/llama4.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import SIGMOID
from fitplug.memory.graph.tensor import Tensor

NO_ROPE_LAYER_STEP = 4
EXPERTS_WITHOUT_KQ_NORM = 128
"""The 17B with 128 experts does not norm Q and K."""


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    inp_pos, attn_scale = g.build_inp_pos(), g.build_inp_attn_scale()
    windowed = g.model.swa_type is not None
    inp_attn = g.build_attn_inp_kv_iswa() if windowed else g.build_attn_inp_kv()
    out_ids = g.build_inp_out_ids()
    step = NO_ROPE_LAYER_STEP if windowed else g.n_layer
    kq_norm = g.n_expert != EXPERTS_WITHOUT_KQ_NORM
    for il in g.layers(lambda il: (il + 1) % step != 0):
        inp_sa = cur
        cur = g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il)
        q, k, v = g.build_qkv(il, cur)
        if (il + 1) % step:
            factors = g.rope_factors(il)
            q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
            if kq_norm:
                q, k = ggml.rms_norm(q), ggml.rms_norm(k)
        else:
            q = ggml.mul(q, attn_scale)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, inp_sa = ggml.get_rows(cur, out_ids), ggml.get_rows(inp_sa, out_ids)
        ffn_inp = ggml.add(cur, inp_sa)
        cur = _feed_forward(g, g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        cur = ggml.add(cur, ffn_inp)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    if g.w("ffn_gate_inp", il).weight is None:
        return g.ffn(cur, il)
    out = g.build_moe_ffn(cur, g.experts(il), il, norm_w=False, gating_op=SIGMOID)
    return ggml.add(out, g.ffn(cur, il, suffix="_shexp"))
