"""Gemma 4: windowed and full layers of different heads, late layers without a cache, per-layer embeddings, dense and experts.

Source: src/models/gemma4.cpp.
"""

from fitplug.memory.cache import cells_of
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKvIswa
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks import per_layer
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GELU
from fitplug.memory.graph.tensor import Tensor

F32 = 4


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = ggml.scale(g.build_inp_embd())
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv_iswa(), g.build_inp_out_ids()
    width = g.model.get_int("embedding_length_per_layer_input")
    inputs = per_layer.build_inputs(g, cur, width) if g.tensor("per_layer_token_embd.weight") is not None else None
    for il in g.layers(lambda il: cells_of(g.model.layers, il) if not g.hparams(il).has_kv else -1):
        g.tap(il, cur)
        attn = _attention(g, inp_attn, inp_pos, g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il), il)
        attn = ggml.add(g.build_norm(attn, g.w("post_attention_norm", il), LLM_NORM_RMS, il), cur)
        cur = ggml.add(g.build_norm(_feed_forward(g, attn, il), g.w("post_ffw_norm", il), LLM_NORM_RMS), attn)
        if inputs is not None:
            cur = ggml.add(cur, per_layer.mix(g, inputs, cur, il))
        out_scale = g.w("layer_output_scale", il).weight
        cur = cur if out_scale is None else ggml.mul(cur, out_scale)
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS)
    cur.is_output = True  # t_h_nextn
    cur = ggml.get_rows(cur, out_ids)
    g.keep_embd(cur)
    logits = g.mm(g.output, cur)
    if g.get_float("final_logit_softcapping"):
        logits = ggml.scale(ggml.tanh(ggml.scale(logits)))
    logits.is_output = True
    g.expand(logits)


def _attention(g: GraphContext, inp_attn: InpAttnKvIswa, inp_pos: Tensor, cur: Tensor, il: int) -> Tensor:
    layer, n_tokens = g.hparams(il), g.n_tokens
    width, n_head, n_head_kv = layer.n_embd_head_k, layer.n_head, layer.n_head_kv
    ggml.require("n_embd_head == hparams.n_embd_head_v(il)", width == layer.n_embd_head_v)
    factors = None if layer.is_swa else g.rope_factors(il)
    fused = g.proj("attn_qkv", cur, il) if g.w("attn_qkv", il).weight is not None else None
    wo = g.w("attn_output", il)._replace(bias=None)

    def part(name: str, n: int, before: int) -> Tensor:
        if fused is None:
            return g.proj(name, cur, il)
        return ggml.cont(ggml.view_2d(fused, width * n, n_tokens, fused.nb[1], width * before * F32))

    q = ggml.reshape(part("attn_q", n_head, 0), width, n_head, n_tokens)
    q = ggml.rope_ext(g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il), inp_pos, factors)
    if not layer.has_kv:
        return g.build_attn(inp_attn, wo, q, None, None, il)
    k = part("attn_k", n_head_kv, n_head)
    shares = fused is None and g.w("attn_v", il).weight is None
    v = k if shares else part("attn_v", n_head_kv, n_head + n_head_kv)
    k, v = ggml.reshape(k, width, n_head_kv, n_tokens), ggml.reshape(v, width, n_head_kv, n_tokens)
    k = g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
    v = ggml.rms_norm(v)
    return g.build_attn(inp_attn, wo, q, ggml.rope_ext(k, inp_pos, factors), v, il)


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    gate_inp = g.w("ffn_gate_inp", il)
    mlp = g.ffn(g.build_norm(cur, g.w("ffn_norm", il), LLM_NORM_RMS, il), il, GELU)
    if gate_inp.weight is None:
        return mlp
    mlp = g.build_norm(mlp, g.w("post_ffw_norm_1", il), LLM_NORM_RMS, il)
    moe = g.build_norm(cur, g.w("pre_ffw_norm_2", il), LLM_NORM_RMS, il)
    routed = ggml.mul(ggml.scale(ggml.rms_norm(cur)), g.need(gate_inp.scale, f"blk.{il}.ffn_gate_inp.scale"))
    logits = g.build_lora_mm(gate_inp.weight, routed)
    experts = g.experts(il)._replace(gate_inp=ABSENT, exp_probs_b=None)
    moe = g.build_moe_ffn(moe, experts, il, type_op=GELU, w_scale=1.0, probs_in=logits)
    return ggml.add(mlp, g.build_norm(moe, g.w("post_ffw_norm_2", il), LLM_NORM_RMS, il))
