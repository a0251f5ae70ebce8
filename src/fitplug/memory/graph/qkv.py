"""Q, K and V of a layer, from one matrix or from three (src/llama-graph.cpp, build_qkv)."""

from functools import cached_property
from typing import TypeAlias

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import GraphBase, Linear
from fitplug.memory.graph.tensor import Tensor

Qkv: TypeAlias = tuple[Tensor, Tensor, Tensor]


class Projections(GraphBase):
    """build_qkv."""

    @cached_property
    def clamp_kqv(self) -> float:
        """hparams.f_clamp_kqv."""
        return self.get_float("attention.clamp_kqv") if self.quirks.clamp_kqv else 0.0

    def build_qkv(self, il: int, cur: Tensor, *, reshape: bool = True, heads: tuple[int, ...] = ()) -> Qkv:
        """llm_graph_context::build_qkv with this layer's attn_qkv, or attn_q, attn_k and attn_v.

        `heads` is (n_embd_head_q, n_head_q, n_embd_head_k, n_head_k, n_embd_head_v, n_head_v) where they are not the
        layer's own.
        """
        layer = self.hparams(il)
        n_head, n_head_kv = self.heads(il)
        head_k, head_v = layer.n_embd_head_k, layer.n_embd_head_v
        q, n_q, k, n_k, v, n_v = heads or (head_k, n_head, head_k, n_head_kv, head_v, n_head_kv)
        shapes = ((q, n_q), (k, n_k), (v, n_v))
        fused = self.w("attn_qkv", il)
        if fused.weight is not None:
            return self._fused_qkv(il, cur, fused, shapes, reshape)
        out = []
        for name, (width, n) in zip(("attn_q", "attn_k", "attn_v"), shapes, strict=True):
            t = self.mm(self.w(name, il), cur)
            if reshape:
                if self.clamp_kqv > 0:
                    t = ggml.clamp(t)
                t = ggml.reshape(t, width, n, self.n_tokens)
            out.append(t)
        return out[0], out[1], out[2]

    def _fused_qkv(self, il: int, cur: Tensor, fused: Linear, shapes: tuple[tuple[int, int], ...], reshape: bool) -> Qkv:
        qkv = self.mm(fused, cur)
        if fused.bias is None:
            q_b, k_b, v_b = (self.w(name, il).bias for name in ("attn_q", "attn_k", "attn_v"))
            if q_b is not None and k_b is not None and v_b is not None:
                qkv = ggml.add(qkv, ggml.concat(ggml.concat(q_b, k_b, 0), v_b, 0))
        if reshape and self.clamp_kqv > 0:
            qkv = ggml.clamp(qkv)
        out, offset, nb1 = [], 0, qkv.nb[1]
        for width, n in shapes:
            if reshape:
                out.append(ggml.view_3d(qkv, width, n, self.n_tokens, width * 4, nb1, offset))
            else:
                out.append(ggml.view_2d(qkv, width * n, self.n_tokens, nb1, offset))
            offset += width * n * 4
        if not reshape:
            out = [ggml.cont(t) for t in out]
        return out[0], out[1], out[2]
