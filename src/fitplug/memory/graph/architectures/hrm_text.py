"""HRM-Text: a low and a high stack of layers that take turns, each turn with cells of its own (src/models/hrm-text.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    high = g.build_inp_embd()
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    low = g.needed_tensor("hrm.z_l_init")
    n, l_cycles = g.hparam("n_hrm_layers_per_stack"), g.hparam("n_hrm_l_cycles")
    slot = 0
    for _ in range(g.hparam("n_hrm_h_cycles")):
        for _ in range(l_cycles):
            low = _stack(g, inp_attn, inp_pos, ggml.add(high, low), slot, 0)
            slot += n
        high = _stack(g, inp_attn, inp_pos, ggml.add(high, low), slot, n)
        slot += n
    g.build_output(ggml.get_rows(high, out_ids))


def _stack(g: GraphContext, inp: InpAttnKv, inp_pos: Tensor, cur: Tensor, slot: int, first: int) -> Tensor:
    """build_stack: the layers from `first` on, with the cache of the layers from `slot` on; norms have no weights."""
    for i in range(g.hparam("n_hrm_layers_per_stack")):
        il, residual = first + i, cur
        cur = g.build_norm(cur, ABSENT, LLM_NORM_RMS)
        gate = g.build_lora_mm(g.w("attn_gate", il).weight, cur)
        q, k, v = _qkv(g, cur, il, slot + i)
        q, k = ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos)
        cur = g.build_attn(inp, ABSENT, q, k, v, slot + i)
        cur = g.build_lora_mm(
            g.w("attn_output", il).weight, ggml.mul(cur, ggml.sigmoid(gate)), g.w("attn_output", slot + i).scale
        )
        residual = ggml.add(cur, residual)
        cur = g.ffn(g.build_norm(residual, ABSENT, LLM_NORM_RMS), il)
        cur = ggml.add(cur, residual)
    return g.build_norm(cur, ABSENT, LLM_NORM_RMS)


def _qkv(g: GraphContext, cur: Tensor, il: int, slot: int) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's matrices with the scales that the file has for the slot."""
    if g.w("attn_qkv", il).weight is not None:
        return g.build_qkv(il, cur)
    layer = g.hparams(slot)
    q, k, v = (g.mm(g.w(name, il)._replace(scale=g.w(name, slot).scale), cur) for name in ("attn_q", "attn_k", "attn_v"))
    return (
        ggml.reshape(q, layer.n_embd_head_k, g.n_head, g.n_tokens),
        ggml.reshape(k, layer.n_embd_head_k, g.n_head_kv, g.n_tokens),
        ggml.reshape(v, layer.n_embd_head_v, g.n_head_kv, g.n_tokens),
    )
