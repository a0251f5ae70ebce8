"""MiniMax-01: lightning attention, and softmax attention in every eighth layer (src/models/minimax-01.cpp)."""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.mixing import Inputs, experts, self_attention
from fitplug.memory.graph.blocks.states import store_state
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor

ATTENTION = self_attention()
FEED_FORWARD = experts()


class Decay(NamedTuple):
    """llm_graph_input_la: how much of a token is left for another, for each head."""

    slopes: Tensor
    q: Tensor
    k: Tensor
    diagonal: Tensor
    """From each token of the batch to each: it grows with the square of the tokens of one sequence."""


def build_inp_la(g: GraphContext) -> Decay:
    """The inputs of lightning attention."""
    n_head, n_seq_tokens, n_seqs = g.n_head, g.n_seq_tokens, g.n_seqs
    return Decay(
        ggml.new_input("f32", n_head),
        ggml.new_input("f32", 1, n_head, n_seq_tokens, n_seqs),
        ggml.new_input("f32", 1, n_head, n_seq_tokens, n_seqs),
        ggml.new_input("f32", n_seq_tokens, n_seq_tokens, n_head, n_seqs),
    )


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    memory = g.build_inp_mem_hybrid()
    inputs = Inputs(memory.attn, memory.rs, g.build_inp_pos())
    out_ids = g.build_inp_out_ids()
    decay = build_inp_la(g)
    for il in g.layers():
        g.tap(il, inpL)
        residual = cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        if g.hparams(il).is_recurrent:
            cur = build_lightning_attention(g, memory.rs, decay, cur, il)
        else:
            cur = ATTENTION(g, inputs, cur, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        cur = ggml.add(cur, ggml.scale(residual))
        residual = cur = g.build_norm(cur, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur = FEED_FORWARD(g, cur, il)
        inpL = ggml.add(cur, ggml.scale(residual))  # noqa: N806 - llama.cpp's name
    g.build_output(g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS))


def build_lightning_attention(g: GraphContext, inp: InpRs, decay: Decay, cur: Tensor, il: int) -> Tensor:
    """One layer: what the batch's tokens see of each other, and of everything before through the state."""
    head, n_head = g.n_embd_head_v, g.n_head
    n_seq_tokens, n_seqs = g.n_seq_tokens, g.n_seqs
    r, s = g.rs.get_r_l(il), g.rs.get_s_l(il)
    g.build_rs(inp, r, r.ne[0], n_seqs)
    cur = ggml.reshape(cur, cur.ne[0], n_seq_tokens, 1, n_seqs)
    qkv = ggml.silu(g.build_lora_mm(g.w("attn_qkv", il).weight, cur))
    qkv = ggml.reshape(qkv, head * 3, n_head, n_seq_tokens, n_seqs)
    q, k, v = (ggml.view_4d(qkv, head, n_head, n_seq_tokens, n_seqs, *qkv.nb[1:], i * head * F32) for i in range(3))
    kv_old = ggml.reshape(g.build_rs(inp, s, s.ne[0], n_seqs), head, head, n_head, n_seqs)
    out, kv_new = _lightning(g, decay, q, k, v, kv_old)
    store_state(g, kv_new, s)

    out = ggml.cont(ggml.permute(out, 0, 2, 1, 3))
    out = ggml.reshape(out, out.ne[0] * out.ne[1], out.ne[2], 1, out.ne[3])
    normed = g.build_norm(out, g.w("attn_norm_2", il), LLM_NORM_RMS, il)
    gate = ggml.sigmoid(g.proj("attn_gate", cur, il))
    cur = g.build_lora_mm(g.w("attn_output", il).weight, ggml.mul(gate, normed))
    return ggml.reshape(cur, cur.ne[0], g.n_tokens)


def _lightning(g: GraphContext, decay: Decay, q: Tensor, k: Tensor, v: Tensor, kv_old: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the state after the batch."""
    q_decay, k_decay, diagonal = (ggml.exp(ggml.scale(t)) for t in (decay.q, decay.k, decay.diagonal))
    past = ggml.mul_mat(kv_old, ggml.permute(ggml.mul(q, q_decay), 0, 2, 1, 3))
    qk = ggml.mul(ggml.mul_mat(ggml.permute(k, 0, 2, 1, 3), ggml.permute(q, 0, 2, 1, 3)), diagonal)
    v_trans = ggml.cont(ggml.permute(v, 1, 2, 0, 3))
    out = ggml.add(past, ggml.mul_mat(v_trans, qk))
    g.expand(out)
    block_decay = ggml.reshape(ggml.exp(ggml.scale(ggml.scale(decay.slopes))), 1, 1, g.n_head)
    kept = ggml.mul(kv_old, block_decay)
    k_after = ggml.cont(ggml.permute(ggml.mul(k, k_decay), 1, 2, 0, 3))
    return out, ggml.add(kept, ggml.mul_mat(k_after, v_trans))
