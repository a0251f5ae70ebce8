"""openelm: heads differ from layer to layer, and Q, K and V are heads of one projection (src/models/openelm.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        residual, layer = cur, g.hparams(il)
        n_head, n_head_kv, width = layer.n_head, layer.n_head_kv, layer.n_embd_head_v
        cur = g.build_lora_mm(g.w("attn_qkv", il).weight, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il))
        qkv = ggml.reshape(cur, g.n_embd_head_k, n_head + 2 * n_head_kv, g.n_tokens)
        _, nb1, nb2, _ = qkv.nb
        q = ggml.view_3d(qkv, width, n_head, g.n_tokens, nb1, nb2)
        k = ggml.view_3d(qkv, width, n_head_kv, g.n_tokens, nb1, nb2, nb1 * n_head)
        v = ggml.view_3d(qkv, width, n_head_kv, g.n_tokens, nb1, nb2, nb1 * (n_head + n_head_kv))
        q = ggml.rope_ext(g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il), inp_pos)
        k = ggml.rope_ext(g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il), inp_pos)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(residual, cur)
        cur = g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        cur = ggml.add(cur, ffn_inp)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))
