"""Latent attention whose queries are taken into the latent space, for graphs with rules of their own about the rest."""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


class Heads(NamedTuple):
    """Sizes of one layer's latent attention."""

    n_head: int
    n_rot: int
    k_mla: int
    """Width of a head of Q before it is absorbed."""
    n_lora_kv: int


class Absorbed(NamedTuple):
    """All heads share one K, of which V is the first part."""

    q: Tensor
    k: Tensor
    v: Tensor


def compressed_query(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    """Q in its own low rank."""
    return g.build_norm(ggml.mul_mat(g.needed("attn_q_a", il), cur), g.w("attn_q_a_norm", il), LLM_NORM_RMS, il)


def absorbed(g: GraphContext, h: Heads, qr: Tensor, cur: Tensor, inp_pos: Tensor, il: int) -> Absorbed:
    """Q, K and V of compressed queries `qr` and the layer's input `cur`."""
    n_tokens, nope = g.n_tokens, h.k_mla - h.n_rot
    q = ggml.mul_mat(g.needed("attn_q_b", il), qr)
    head = h.k_mla * F32
    q_nope = ggml.view_3d(q, nope, h.n_head, n_tokens, head, head * h.n_head)
    q_pe = ggml.view_3d(q, h.n_rot, h.n_head, n_tokens, head, head * h.n_head, nope * F32)
    both, row = ggml.mul_mat(g.needed("attn_kv_a_mqa", il), cur), (h.n_lora_kv + h.n_rot) * F32
    kv = ggml.view_2d(both, h.n_lora_kv, n_tokens, row)
    k_pe = ggml.view_3d(both, h.n_rot, 1, n_tokens, row, row, h.n_lora_kv * F32)
    if g.arch == "dots3note":
        k_pe = g.build_norm(k_pe, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
    q_pe, k_pe = ggml.rope_ext(q_pe, inp_pos), ggml.rope_ext(k_pe, inp_pos)
    kv = g.build_norm(kv, g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il)
    q_nope = ggml.mul_mat(g.needed("attn_k_b", il), ggml.permute(q_nope, 0, 2, 1, 3))
    q = ggml.concat(ggml.permute(q_nope, 0, 2, 1, 3), q_pe, 0)
    kv = ggml.reshape(kv, h.n_lora_kv, 1, n_tokens)
    return Absorbed(q, ggml.concat(kv, k_pe, 0), kv)
