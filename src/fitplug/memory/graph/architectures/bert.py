"""BERT and its kin: encoders with norms after each block (src/models/bert.cpp)."""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GEGLU, GELU, PAR, SEQ, SILU
from fitplug.memory.graph.tensor import Tensor


class Row(NamedTuple):
    """What one of them does its own way."""

    inp_pos: bool = True
    position_embd: bool = False
    rope: bool = False
    act: str = SILU
    gate: str = PAR


ROWS = {
    "bert": Row(position_embd=True, act=GELU, gate=SEQ),
    "nomic-bert": Row(rope=True),
    "nomic-bert-moe": Row(rope=True, act=GELU, gate=SEQ),
    "jina-bert-v2": Row(inp_pos=False, act=GELU),
    "jina-bert-v3": Row(rope=True, act=GELU, gate=SEQ),
}


def build(g: GraphContext) -> None:
    """Draw the graph."""
    row = ROWS[g.arch]
    inp_pos = g.build_inp_pos() if row.inp_pos else None
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    type_embd = g.w("token_types").weight
    if type_embd is not None:
        inpL = ggml.add(inpL, ggml.view_1d(type_embd, g.n_embd))  # noqa: N806 - as above
    if row.position_embd and inp_pos is not None:
        inpL = ggml.add(ggml.get_rows(g.needed("position_embd"), inp_pos), inpL)  # noqa: N806 - as above
    inpL = g.build_norm(inpL, g.w("token_embd_norm"), LLM_NORM, 0)  # noqa: N806 - as above
    inp_attn = g.build_attn_inp_no_cache()
    out_ids = g.build_inp_out_ids()
    every = g.hparam("moe_every_n_layers")
    for il in g.layers(lambda il: every > 0 and il % every == 1):
        q, k, v = g.build_qkv(il, inpL)
        q, k = _row_norm(g, q, "attn_q_norm", il), _row_norm(g, k, "attn_k_norm", il)
        if row.rope and inp_pos is not None:
            q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
        if il == g.n_layer - 1:
            cur, inpL = ggml.get_rows(cur, out_ids), ggml.get_rows(inpL, out_ids)  # noqa: N806 - as above
        cur = g.build_norm(ggml.add(cur, inpL), g.w("attn_output_norm", il), LLM_NORM, il)
        if g.w("attn_norm_2", il).weight is not None:
            cur = g.build_norm(ggml.add(cur, inpL), g.w("attn_norm_2", il), LLM_NORM, il)
        ffn_inp = cur
        cur = ggml.add(_feed_forward(g, row, cur, il, is_moe=every > 0 and il % every == 1), ffn_inp)
        inpL = g.build_norm(cur, g.w("layer_output_norm", il), LLM_NORM, il)  # noqa: N806 - as above
    g.keep_embd(inpL)
    g.expand(inpL)


def _row_norm(g: GraphContext, cur: Tensor, name: str, il: int) -> Tensor:
    """A norm over all heads at once, where the file has one."""
    w = g.w(name, il)
    if w.weight is None:
        return cur
    width, n_head, n_tokens, _ = cur.ne
    cur = g.build_norm(ggml.reshape(cur, width * n_head, n_tokens), w, LLM_NORM, il)
    return ggml.reshape(cur, width, n_head, n_tokens)


def _feed_forward(g: GraphContext, row: Row, cur: Tensor, il: int, *, is_moe: bool) -> Tensor:
    if is_moe:
        experts = g.experts(il)._replace(gate=ABSENT)
        return g.build_moe_ffn(cur, experts, il, type_op=GELU, norm_w=False, w_scale=g.get_float("expert_weights_scale"))
    up, act = g.needed("ffn_up", il), row.act
    if g.arch == "jina-bert-v2" and g.w("ffn_gate", il).weight is None and up.ne[1] != g.hparams(il).n_ff:
        act = GEGLU
    return g.ffn(cur, il, act, row.gate)
