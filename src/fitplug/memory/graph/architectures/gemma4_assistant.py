"""Gemma 4's assistant: layers without keys or values of their own read its target's (src/models/gemma4-assistant.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKvIswa
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.caches import LentCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.ffn import GELU
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    lent = g.params.lent
    if lent is None or len(lent.caches) < 2:
        raise UnknownGraphError(f"{g.arch}: the target's cells are not here")
    n_tokens, pre = g.n_tokens, g.needed("nextn.pre_projection")
    tokens, state = ggml.new_input("i32", n_tokens), ggml.new_input("f32", pre.ne[0] // 2, n_tokens)
    embd = ggml.scale(ggml.get_rows(g.tok_embd_of_target, tokens))
    cur = ggml.mul_mat(pre, ggml.concat(embd, state, 0))
    base, swa = (g.kv_inputs(LentCache(g, lent.caches[is_swa])) for is_swa in (False, True))
    inp_attn, inp_pos, out_ids = InpAttnKvIswa(base, swa), g.build_inp_pos(), g.build_inp_out_ids()
    n_layer = g.n_layer_nextn
    for il in g.layers(n_layer=n_layer):
        cur = _layer(g, inp_attn, inp_pos, cur, il, out_ids if il == n_layer - 1 else None)
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS)
    g.t_logits = logits = g.build_lora_mm(g.output.weight, cur)
    states = ggml.mul_mat(g.needed("nextn.post_projection"), cur)
    for t in (logits, states):
        t.is_output = True
        g.expand(t)


def _layer(
    g: GraphContext, inp_attn: InpAttnKvIswa, inp_pos: Tensor, residual: Tensor, il: int, out_ids: Tensor | None
) -> Tensor:
    layer = g.hparams(il)
    q = g.build_lora_mm(g.w("attn_q", il).weight, g.build_norm(residual, g.w("attn_norm", il), LLM_NORM_RMS, il))
    q = ggml.reshape(q, layer.n_embd_head_k, layer.n_head, g.n_tokens)
    q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
    q = ggml.rope_ext(q, inp_pos, None if layer.is_swa else g.rope_factors(il))
    cur = g.build_attn(inp_attn, g.w("attn_output", il)._replace(bias=None, scale=None), q, None, None, il)
    if out_ids is not None:
        cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
    attn_out = ggml.add(g.build_norm(cur, g.w("post_attention_norm", il), LLM_NORM_RMS, il), residual)
    cur = g.ffn(g.build_norm(attn_out, g.w("ffn_norm", il), LLM_NORM_RMS, il), il, GELU)
    cur = ggml.add(g.build_norm(cur, g.w("post_ffw_norm", il), LLM_NORM_RMS), attn_out)
    return ggml.mul(cur, g.needed("layer_output_scale", il))
