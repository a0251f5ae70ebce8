"""WavTokenizer's decoder: convolutions that turn codes into a spectrum (src/models/wavtokenizer-dec.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM, LLM_NORM_GROUP, Linear
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GELU, SEQ
from fitplug.memory.graph.tensor import Tensor

ATTENTION, LAST = 2, 5
"""Blocks of the position net that are no residual convolutions."""


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = _turned(g.build_inp_embd())
    cur = _conv(g, g.w("conv1d"), cur)
    for il in range(g.hparam("posnet_n_layer")):
        cur = _position_block(g, cur, il)
    cur = _turned(g.build_norm(_turned(cur), g.w("token_embd_norm"), LLM_NORM, 0))
    for il in range(g.hparam("convnext_n_layer")):
        cur = _convnext_block(g, cur, il)
    cur = g.build_norm(_turned(cur), g.w("output_norm"), LLM_NORM)
    cur = g.mm(g.output, cur)
    g.keep_embd(cur)
    g.expand(cur)


def _turned(t: Tensor) -> Tensor:
    return ggml.cont(ggml.transpose(t))


def _conv(g: GraphContext, w: Linear, cur: Tensor) -> Tensor:
    return ggml.add(ggml.conv_1d_ph(g.need(w.weight), cur, 1, 1), g.need(w.bias))


def _position_block(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    def w(name: str) -> Linear:
        return g.w(f"posnet.{il}.{name}")

    if il == LAST:
        return g.build_norm(cur, w("attn_norm"), LLM_NORM_GROUP, 0)
    residual = cur
    if il == ATTENTION:
        cur = g.build_norm(cur, w("attn_norm"), LLM_NORM_GROUP, 0)
        q, k, v = (_conv(g, w(name), cur) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = _turned(q), _turned(k)
        cur = ggml.mul_mat(ggml.soft_max_ext(ggml.mul_mat(k, q), None), v)
        return ggml.add(_conv(g, w("attn_output"), cur), residual)
    for i in (1, 2):
        cur = g.build_norm(cur, w(f"norm{i}"), LLM_NORM_GROUP, 0)
        cur = _conv(g, w(f"conv{i}"), ggml.mul(ggml.sigmoid(cur), cur))
    return ggml.add(cur, residual)


def _convnext_block(g: GraphContext, residual: Tensor, il: int) -> Tensor:
    def w(name: str) -> Linear:
        return g.w(f"convnext.{il}.{name}")

    cur = ggml.add(ggml.conv_1d_dw_ph(g.need(w("dw").weight), residual, 1, 1), g.need(w("dw").bias))
    cur = g.build_norm(_turned(cur), w("norm"), LLM_NORM)
    cur = g.build_ffn(cur, w("pw1"), ABSENT, w("pw2"), GELU, SEQ, il)
    return ggml.add(_turned(ggml.mul(cur, g.need(w("gamma").weight))), residual)
