"""Multi-head latent attention as hybrids with KDA have it (src/models/kimi-linear.cpp, kimi-k3.cpp and bailingmoe3.cpp)."""

from typing import Literal

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.mixing import Inputs, Mixer, attention_of
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

Gate = Literal["none", "heads", "all"]
"""What is multiplied with the output before attn_output: nothing, one number per head, one per element."""


def build_mla(gate: Gate = "none") -> Mixer:
    """A mixer; with positions the rotated parts of Q and K are roped, else they are as they come."""

    def mix(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> Tensor:
        out = _absorbed(g, inputs, cur, il)
        if gate == "none":  # build_attn's own, the others' a bare product
            return g.proj("attn_output", out, il)
        return g.plain("attn_output", _gated(g, cur, out, il, gate), il)

    return mix


def _queries(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    if g.w("attn_q_a", il).weight is None:
        return g.plain("attn_q", cur, il)
    q_a = g.build_norm(g.plain("attn_q_a", cur, il), g.w("attn_q_a_norm", il), LLM_NORM_RMS, il)
    return g.plain("attn_q_b", q_a, il)


def _latents(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> tuple[Tensor, Tensor]:
    """The compressed K and V, normed, and the part of K that all heads share."""
    lora, n_rot = g.hparam("n_lora_kv"), g.hparams(il).n_rot
    both, row = g.plain("attn_kv_a_mqa", cur, il), (lora + n_rot) * F32
    kv = ggml.view_2d(both, lora, g.n_tokens, row)
    k_pe = ggml.view_3d(both, n_rot, 1, g.n_tokens, row, row, lora * F32)
    if inputs.pos is not None:
        k_pe = ggml.rope_ext(k_pe, inputs.pos)
    return g.build_norm(kv, g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il), k_pe


def _absorbed(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> Tensor:
    """Q is taken into the latent space, where all heads share one K, of which V is the first part."""
    n_head, n_tokens, n_rot = g.n_head, g.n_tokens, g.hparams(il).n_rot
    head, lora = g.model.n_embd_head_k_mla, g.hparam("n_lora_kv")
    q_all = _queries(g, cur, il)
    q_nope = ggml.view_3d(q_all, head - n_rot, n_head, n_tokens, head * F32, head * n_head * F32)
    q_pe = ggml.view_3d(q_all, n_rot, n_head, n_tokens, head * F32, head * n_head * F32, (head - n_rot) * F32)
    if inputs.pos is not None:
        q_pe = ggml.rope_ext(q_pe, inputs.pos)
    kv, k_pe = _latents(g, inputs, cur, il)
    q_nope = ggml.permute(g.plain("attn_k_b", ggml.permute(q_nope, 0, 2, 1, 3), il), 0, 2, 1, 3)
    q = ggml.concat(q_nope, q_pe, 0)
    kv = ggml.reshape(kv, lora, 1, n_tokens)
    k = ggml.concat(kv, k_pe, 0)
    return g.build_attn(attention_of(inputs), ABSENT, q, k, kv, il, v_mla=g.needed("attn_v_b", il))


def _gated(g: GraphContext, attn_input: Tensor, cur: Tensor, il: int, gate: Gate) -> Tensor:
    if g.w("attn_gate", il).weight is None:
        return cur
    opened = g.plain("attn_gate", attn_input, il)
    if gate == "all":
        return ggml.mul(cur, ggml.sigmoid(opened))
    width, n_tokens = cur.ne[0], g.n_tokens
    opened = ggml.sigmoid(ggml.reshape(opened, 1, g.n_head, n_tokens))
    cur = ggml.mul(ggml.reshape(cur, width // g.n_head, g.n_head, n_tokens), opened)
    return ggml.cont(cur, width, n_tokens)
