"""MiniMax M3: sparse attention to blocks of positions after a few dense layers (src/models/minimax-m3.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks.block_positions import BlockAttention
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, SIGMOID, SWIGLU_OAI_MOE
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    inp_pos = g.build_inp_pos()
    inp_attn = g.build_attn_inp_kv()
    # blocks are found by position, which needs flash attention's cache and a stream per sequence
    p = g.params
    sparse = BlockAttention(g, inp_attn) if g.flash_attn and (p.n_seq_max == 1 or p.n_stream > 1) else None
    out_ids = g.build_inp_out_ids()
    dense = g.hparam("n_layer_dense_lead")
    for il in g.layers(lambda il: il < dense):
        residual = inpL
        cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        cur = _attention(g, inp_attn, sparse if il >= dense else None, inp_pos, cur, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(cur, residual)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        inpL = ggml.add(_feed_forward(g, cur, il, dense=il < dense), ffn_inp)  # noqa: N806 - as above
    g.build_output(g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS))


def _attention(g: GraphContext, inp: InpAttnKv, sparse: BlockAttention | None, inp_pos: Tensor, cur: Tensor, il: int) -> Tensor:
    q, k, v = g.build_qkv(il, cur)
    q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
    k = g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
    q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
    if sparse is None:
        return g.build_attn(inp, g.w("attn_output", il)._replace(bias=None), q, k, v, il)
    return g.proj("attn_output", sparse(cur, inp_pos, q, k, v, il), il)


def _feed_forward(g: GraphContext, cur: Tensor, il: int, *, dense: bool) -> Tensor:
    if dense:
        return g.ffn(cur, il, SWIGLU_OAI_MOE)
    out = g.build_moe_ffn(
        cur, g.experts(il), il, type_op=SWIGLU_OAI_MOE,
        gating_op=GATING_FUNCS.get(g.model.get_int("expert_gating_func"), SIGMOID),
        norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"),
    )  # fmt: skip
    return ggml.add(out, g.ffn(cur, il, SWIGLU_OAI_MOE, suffix="_shexp"))
