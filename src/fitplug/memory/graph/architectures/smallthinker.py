"""smallthinker: experts are chosen by the layer's input, before attention (src/models/smallthinker.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, RELU, SOFTMAX

NO_ROPE_LAYER_STEP = 4


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    inp_pos = g.build_inp_pos()
    windowed = g.model.swa_type is not None
    inp_attn = g.build_attn_inp_kv_iswa() if windowed else g.build_attn_inp_kv()
    out_ids = g.build_inp_out_ids()
    step = NO_ROPE_LAYER_STEP if windowed else g.n_layer
    gating = GATING_FUNCS.get(g.model.get_int("expert_gating_func"), SOFTMAX)
    for il in g.layers(lambda il: step == g.n_layer or il % step != 0):
        inp_sa = cur
        probs = g.build_lora_mm(g.w("ffn_gate_inp", il).weight, cur)
        q, k, v = g.build_qkv(il, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il))
        if step == g.n_layer or il % step:
            q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, inp_sa, probs = (ggml.get_rows(t, out_ids) for t in (cur, inp_sa, probs))
        ffn_inp = ggml.add(cur, inp_sa)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        experts = g.experts(il)._replace(gate_inp=ABSENT)
        cur = g.build_moe_ffn(cur, experts, il, type_op=RELU, gating_op=gating, probs_in=probs)
        cur = ggml.add(cur, ffn_inp)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))
