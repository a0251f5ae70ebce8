"""grovemoe: chunks of experts beside the experts, chosen by the same probabilities (src/models/grovemoe.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        inp_sa = cur
        q, k, v = g.build_qkv(il, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il))
        q = ggml.rope_ext(g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il), inp_pos)
        k = ggml.rope_ext(g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il), inp_pos)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, inp_sa = ggml.get_rows(cur, out_ids), ggml.get_rows(inp_sa, out_ids)
        ffn_inp = ggml.add(cur, inp_sa)
        cur = _feed_forward(g, g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        cur = ggml.add(cur, ffn_inp)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    probs = g.build_lora_mm(g.w("ffn_gate_inp", il).weight, cur)
    cur = g.build_moe_ffn(cur, g.experts(il)._replace(gate_inp=ABSENT), il, probs_in=probs)
    n_chunk = g.n_expert // max(1, g.hparam("n_group_experts", 1))
    chunks = g.experts(il, "chexps")._replace(gate_inp=ABSENT)
    n_used = min(g.n_expert_used, n_chunk)
    out = g.build_moe_ffn(cur, chunks, il, n_expert=n_chunk, n_expert_used=n_used, probs_in=probs)
    return ggml.add(cur, ggml.scale(out))
