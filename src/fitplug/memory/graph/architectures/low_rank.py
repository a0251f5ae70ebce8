"""minicpm3 and plm: K and V from a compressed row, and cached in full (src/models/minicpm3.cpp, plm.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import PAR, RELU_SQR, SEQ, SILU
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph of either."""
    minicpm3 = g.arch == "minicpm3"
    cur = g.build_inp_embd()
    if minicpm3:
        cur = ggml.scale(cur)
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        inp_sa = cur
        q, k, v = _qkv(g, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il), inp_pos, il)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, inp_sa = ggml.get_rows(cur, out_ids), ggml.get_rows(inp_sa, out_ids)
        if minicpm3:
            cur = ggml.scale(cur)
        ffn_inp = ggml.add(cur, inp_sa)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur = ggml.scale(g.ffn(cur, il, SILU, PAR)) if minicpm3 else g.ffn(cur, il, RELU_SQR, SEQ)
        cur = ggml.add(cur, ffn_inp)
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS)
    g.build_output(ggml.scale(cur) if minicpm3 else cur, cur)


def _qkv(g: GraphContext, cur: Tensor, inp_pos: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    layer, n_tokens, n_head = g.hparams(il), g.n_tokens, g.n_head
    rank, n_rot, head_v = g.hparam("n_lora_kv"), layer.n_rot, layer.n_embd_head_v
    nope = layer.n_embd_head_k - n_rot
    factors = g.rope_factors(il) if g.arch == "minicpm3" else None
    q = _query(g, cur, il)
    compressed = ggml.mul_mat(g.needed("attn_kv_a_mqa", il), cur)
    row = compressed.nb[1]
    kv = ggml.view_2d(compressed, rank, n_tokens, row)
    k_pe = ggml.view_3d(compressed, n_rot, 1, n_tokens, row, row, rank * 4)
    kv = g.build_norm(kv, g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il)
    kv = ggml.mul_mat(g.needed("attn_kv_b", il), kv)
    head = (nope + head_v) * 4
    k_nope = ggml.view_3d(kv, nope, n_head, n_tokens, head, head * n_head)
    v = ggml.cont(ggml.view_3d(kv, head_v, n_head, n_tokens, head, head * n_head, nope * 4))
    if g.arch == "plm":
        v = ggml.view_2d(v, head_v * n_head, n_tokens, head_v * n_head * 4)
    q = ggml.rope_ext(q, inp_pos, factors)
    k_pe = ggml.rope_ext(k_pe, inp_pos, factors)
    k = ggml.concat(k_nope, ggml.repeat_4d(k_pe, n_rot, n_head, n_tokens, 1), 0)
    return q, k, v


def _query(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    if g.arch == "plm":
        q = ggml.mul_mat(g.needed("attn_q", il), cur)
    else:
        q = ggml.mul_mat(g.needed("attn_q_a", il), cur)
        q = g.build_norm(q, g.w("attn_q_a_norm", il), LLM_NORM_RMS, il)
        q = ggml.mul_mat(g.needed("attn_q_b", il), q)
    return ggml.reshape(q, g.hparams(il).n_embd_head_k, g.n_head, g.n_tokens)
