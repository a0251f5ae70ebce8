"""afmoe and laguna: attention's output is gated before its projection (src/models/afmoe.cpp, laguna.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttn
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, SIGMOID
from fitplug.memory.graph.tensor import Tensor

NO_ROPE_LAYER_STEP = 4


def build(g: GraphContext) -> None:
    """Draw the graph of either."""
    afmoe = g.arch == "afmoe"
    cur = g.build_inp_embd()
    if afmoe:
        cur = ggml.scale(cur)
    inp_pos = g.build_inp_pos()
    inp_attn = g.build_attn_inp_kv() if g.model.swa_type is None else g.build_attn_inp_kv_iswa()
    out_ids = g.build_inp_out_ids()
    for il in g.layers(lambda il: not afmoe or (il + 1) % NO_ROPE_LAYER_STEP != 0):
        inp_sa = cur
        cur = _attention(g, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il), inp_attn, inp_pos, il)
        if afmoe:
            cur = g.build_norm(cur, g.w("post_attention_norm", il), LLM_NORM_RMS, il)
        if il == g.n_layer - 1:
            cur, inp_sa = ggml.get_rows(cur, out_ids), ggml.get_rows(inp_sa, out_ids)
        ffn_inp = ggml.add(cur, inp_sa)
        cur = _feed_forward(g, g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        if afmoe:
            cur = g.build_norm(cur, g.w("post_ffw_norm", il), LLM_NORM_RMS, il)
        cur = ggml.add(cur, ffn_inp)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


def _attention(g: GraphContext, normed: Tensor, inp_attn: InpAttn, inp_pos: Tensor, il: int) -> Tensor:
    q, k, v = g.build_qkv(il, normed)
    gate = g.build_lora_mm(g.w("attn_gate", il).weight, normed)
    q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
    k = g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
    if g.arch != "afmoe" or (il + 1) % NO_ROPE_LAYER_STEP:
        q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
    cur = g.build_attn(inp_attn, ABSENT, q, k, v, il)
    cur = ggml.mul(cur, ggml.sigmoid(gate)) if g.arch == "afmoe" else _softly_gated(g, cur, ggml.softplus(gate), il)
    wo = g.w("attn_output", il)
    return g.build_lora_mm(wo.weight, cur, wo.scale)


def _softly_gated(g: GraphContext, cur: Tensor, gate: Tensor, il: int) -> Tensor:
    """laguna: one gate a head, or one an element."""
    (n_head, _), n_tokens = g.heads(il), cur.ne[1]
    if gate.ne[0] != n_head:
        return ggml.mul(cur, gate)
    width = g.hparams(il).n_embd_head_v
    cur = ggml.mul(ggml.reshape(cur, width, n_head, n_tokens), ggml.reshape(gate, 1, n_head, n_tokens))
    return ggml.reshape(cur, width * n_head, n_tokens)


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    if g.w("ffn_gate_inp", il).weight is None:
        return g.ffn(cur, il)
    out = g.build_moe_ffn(
        cur, g.experts(il), il, norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"),
        gating_op=GATING_FUNCS.get(g.model.get_int("expert_gating_func"), SIGMOID),
    )  # fmt: skip
    if g.w("ffn_up_shexp", il).weight is None:
        return out
    return ggml.add(out, g.ffn(cur, il, suffix="_shexp"))
