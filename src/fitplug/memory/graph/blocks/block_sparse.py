"""Attention to the best blocks of cells, scored by an indexer (src/models/qwen4exp.cpp, build_qsa_top_k and build_attn_qsa)."""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv, mul_mat_hadamard
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks.gated_attention import gated
from fitplug.memory.graph.blocks.mixing import Inputs, attention_of
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


class QsaInputs(NamedTuple):
    """llm_graph_input_qsa: how cells and blocks lie in each other; layers of one ratio share them."""

    k_idxs: Tensor
    cell_blk: Tensor
    blk_cells: Tensor
    blk_pos: Tensor
    bias: Tensor


class SparseAttention:
    """The attention layers of one graph."""

    def __init__(self, g: GraphContext, inputs: Inputs) -> None:
        """Nothing drawn yet."""
        attn = attention_of(inputs)
        if not isinstance(attn, InpAttnKv):
            raise TypeError("blocks lie over one cache with K and V")
        self.g, self.inputs, self.attn = g, inputs, attn
        width = self.width = g.hparam("indexer_head_size")
        self.n_head = g.hparam("indexer_n_head")
        self.idx = KvCache(g, g.params.n_ctx_seq, head_k=lambda _: (width, 1)) if width else None
        self.n_kv, self.n_stream = g.params.n_ctx_seq, g.params.n_stream
        self.n_tps = g.n_tokens // self.n_stream
        self._inputs: dict[int, QsaInputs] = {}

    def __call__(self, cur: Tensor, il: int) -> Tensor:
        """build_layer_attn."""
        g, ratio = self.g, self.g.hparams(il).compress_ratio
        top_k = self._top_k(self.idx, cur, il, ratio) if self.idx is not None and ratio else None
        qkv = (g.proj("attn_q", cur, il), g.proj("attn_k", cur, il), g.proj("attn_v", cur, il))

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if top_k is None:
                return g.build_attn(self.attn, ABSENT, q, k, v, il)
            return self._attend(q, k, v, top_k, il)

        return gated(g, self.inputs, qkv, il, attend)

    def _inputs_for(self, ratio: int, n_blocks: int, idx: KvCache) -> QsaInputs:
        inp = self._inputs.get(ratio)
        if inp is None:
            inp = self._inputs[ratio] = QsaInputs(
                idx.build_input_k_idxs(),
                ggml.new_input("i32", self.n_kv, self.n_stream),
                ggml.new_input("i32", ratio * n_blocks, self.n_stream),
                ggml.new_input("i32", 4 * n_blocks * self.n_stream),
                ggml.new_input("f32", n_blocks, self.n_tps, self.n_stream),
            )
        return inp

    def _top_k(self, idx: KvCache, cur: Tensor, il: int, ratio: int) -> Tensor:
        """The cells of the best blocks, and of the incomplete one at the end."""
        g, n_kv, n_tps, n_stream = self.g, self.n_kv, self.n_tps, self.n_stream
        n_blocks = -(-n_kv // ratio)
        inp = self._inputs_for(ratio, n_blocks, idx)
        k_raw = ggml.reshape(g.proj("indexer.k_proj", cur, il), self.width, 1, g.n_tokens)
        g.expand(idx.cpy_k(k_raw, inp.k_idxs, il))
        pooled = self._pooled(idx, inp, il, ratio, n_blocks)
        score = ggml.add(self._scores(pooled, cur, il, n_blocks), inp.bias)

        expanded = ggml.get_rows(ggml.cont(ggml.permute(score, 1, 0, 2, 3)), inp.cell_blk)
        expanded = ggml.cont(ggml.permute(expanded, 1, 0, 2, 3))
        mask = self.attn.kq_mask
        mask = mask if mask.type == "f32" else ggml.cast(mask, "f32")
        expanded = ggml.add(expanded, ggml.reshape(mask, n_kv, n_tps, n_stream))
        width = min(n_kv, g.hparam("indexer_top_k") + ratio - 1)
        return ggml.reshape(ggml.cont(ggml.top_k(expanded, width)), width, n_tps, 1, n_stream)

    def _pooled(self, idx: KvCache, inp: QsaInputs, il: int, ratio: int, n_blocks: int) -> Tensor:
        """The mean key of each block, normed and roped."""
        g, width, n_stream = self.g, self.width, self.n_stream
        k = idx.get_k(il)
        k = ggml.view_3d(k, width, self.n_kv, n_stream, k.nb[2], k.nb[3])
        members = ggml.reshape(ggml.get_rows(k, inp.blk_cells), width, ratio, n_blocks, n_stream)
        pooled: Tensor | None = None
        for i in range(ratio):
            one = ggml.view_3d(members, width, n_blocks, n_stream, members.nb[2], members.nb[3], i * members.nb[1])
            one = ggml.cont(one)
            pooled = one if pooled is None else ggml.add(pooled, one)
        pooled = ggml.reshape(ggml.scale(g.need(pooled)), width, n_blocks * n_stream, 1)
        pooled = g.build_norm(pooled, g.w("indexer.k_norm", il)._replace(bias=None), LLM_NORM_RMS, il)
        pooled = ggml.rope_multi(ggml.reshape(pooled, width, 1, n_blocks * n_stream), inp.blk_pos)
        return ggml.reshape(pooled, width, n_blocks, n_stream)

    def _scores(self, pooled: Tensor, cur: Tensor, il: int, n_blocks: int) -> Tensor:
        """What each query thinks of each block: its heads' rectified products, added up."""
        g, n_head, n_tps, n_stream = self.g, self.n_head, self.n_tps, self.n_stream
        q = ggml.reshape(g.proj("indexer.q_proj", cur, il), self.width, n_head, g.n_tokens)
        q = g.build_norm(q, g.w("indexer.q_norm", il)._replace(bias=None), LLM_NORM_RMS, il)
        q = ggml.rope_multi(q, g.need(self.inputs.pos))
        score = ggml.mul_mat(pooled, ggml.reshape(q, self.width, n_head * n_tps, n_stream))
        score = ggml.relu(ggml.reshape(score, n_blocks, n_head, n_tps, n_stream))
        summed: Tensor | None = None
        for h in range(n_head):
            one = ggml.view_3d(score, n_blocks, n_tps, n_stream, score.nb[2], score.nb[3], h * score.nb[1])
            summed = ggml.cont(one) if summed is None else ggml.add(summed, one)
        return g.need(summed)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, top_k: Tensor, il: int) -> Tensor:
        """build_attn_qsa: attention behind a mask that shows the chosen cells alone."""
        g, inp = self.g, self.attn
        if inp.k_rot is not None:
            q, k = mul_mat_hadamard(q, inp.k_rot), mul_mat_hadamard(k, inp.k_rot)
        if inp.v_rot is not None:
            v = mul_mat_hadamard(v, inp.v_rot)
        for t in (q, v, k, inp.cache.cpy_k(k, inp.k_idxs, il), inp.cache.cpy_v(v, inp.v_idxs, il)):
            g.expand(t)
        mask = self._mask(top_k)
        cur = g.build_attn_mha(q, inp.cache.get_k(il), inp.cache.get_v(il), mask, il, n_kv_max=top_k.ne[0])
        return mul_mat_hadamard(cur, inp.v_rot) if inp.v_rot is not None else cur

    def _mask(self, top_k: Tensor) -> Tensor:
        kq_mask = self.attn.kq_mask
        hidden = ggml.fill(kq_mask)
        (n_kv, n_batch, _, n_stream), nb = hidden.ne, hidden.nb
        hidden = ggml.view_4d(hidden, 1, n_kv, n_batch, n_stream, nb[0], nb[1], nb[2])
        n_top, n_tps, _, streams = top_k.ne
        chosen = ggml.view_4d(top_k, n_top, n_tps, streams, 1, top_k.nb[1], top_k.nb[2], streams * top_k.nb[3])
        zeros = ggml.fill(ggml.new_tensor("f32", 1, n_top, n_tps, streams))
        seen = ggml.set_rows(hidden, zeros, chosen)
        seen = ggml.view_4d(seen, n_kv, n_batch, 1, n_stream, seen.nb[2], seen.nb[3], seen.nb[3])
        return ggml.add(seen, kq_mask)
