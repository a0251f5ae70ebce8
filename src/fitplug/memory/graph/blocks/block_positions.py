"""Attention to a few blocks of positions that an indexer picks for each group of heads (src/models/minimax-m3.cpp, MSA)."""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv, mul_mat_hadamard
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor, is_quantized
from fitplug.units import pad

POSITIONS = 256
"""Positions that a graph is reserved for: those of an empty cache (llama_kv_cache_msa_context::get_n_pos)."""


class InpMsa(NamedTuple):
    """llm_graph_input_msa."""

    bias: Tensor
    pos_mask: Tensor
    pos_slot_i: Tensor
    pos_slot_f: Tensor | None
    cell_blk: Tensor | None


class Cached(NamedTuple):
    """What a layer wrote and now reads."""

    q: Tensor
    k: Tensor
    v: Tensor
    index_q: Tensor
    index_k: Tensor


class BlockAttention:
    """The sparse layers of one graph."""

    def __init__(self, g: GraphContext, inp: InpAttnKv) -> None:
        """Build the inputs."""
        self.g, self.inp = g, inp
        self.n_dim, self.n_groups, self.blk = (g.hparam(f"indexer_{name}") for name in ("head_size", "n_head", "block_size"))
        self.idx = KvCache(
            g, g.params.n_ctx_seq, layers=lambda layer: layer.n_embd_indexer > 0, head_k=lambda _: (self.n_dim, 1)
        )
        self.k_idxs_idx = self.idx.build_input_k_idxs()
        self.n_kv, self.n_tps, _, self.ns = inp.kq_mask.ne
        self.n_ps = pad(POSITIONS, self.blk)
        self.n_blk = self.n_ps // self.blk
        self.top = min(g.hparam("indexer_top_k"), self.n_blk)
        self.msa = self._inputs()
        self.mask = ggml.cast(inp.kq_mask, "f32")

    def _inputs(self) -> InpMsa:
        n_tokens, n_ps, decode = self.g.n_tokens, self.n_ps, self.n_tps == 1
        return InpMsa(
            ggml.new_input("f32", self.n_blk, n_tokens),
            ggml.new_input("f32", n_ps, n_tokens),
            ggml.new_input("i32", n_ps, self.ns),
            ggml.new_input("f32", n_ps, self.ns) if decode else None,
            None if decode else ggml.new_input("i32", self.n_kv, self.ns),
        )

    def __call__(self, cur: Tensor, inp_pos: Tensor, q: Tensor, k: Tensor, v: Tensor, il: int) -> Tensor:
        """The attention of a sparse layer without its output projection."""
        cached = self._write(cur, inp_pos, q, k, v, il)
        if self.msa.pos_slot_f is not None:
            out = self._gathered(cached, self.msa.pos_slot_f)
        else:
            outs = [self._masked(cached, stream) for stream in range(self.ns)]
            out = outs[0]
            for more in outs[1:]:
                out = ggml.concat(out, more, 1)
        return out if self.inp.v_rot is None else mul_mat_hadamard(out, self.inp.v_rot)

    def _write(self, cur: Tensor, inp_pos: Tensor, q: Tensor, k: Tensor, v: Tensor, il: int) -> Cached:
        g, inp = self.g, self.inp
        iq = g.build_lora_mm(g.w("indexer.q_proj", il).weight, cur)
        ik = g.build_lora_mm(g.w("indexer.k_proj", il).weight, cur)
        iq, ik = ggml.reshape(iq, self.n_dim, self.n_groups, g.n_tokens), ggml.reshape(ik, self.n_dim, 1, g.n_tokens)
        iq = g.build_norm(iq, g.w("indexer.q_norm", il), LLM_NORM_RMS, il)
        ik = g.build_norm(ik, g.w("indexer.k_norm", il), LLM_NORM_RMS, il)
        iq, ik = ggml.rope_ext(iq, inp_pos), ggml.rope_ext(ik, inp_pos)
        g.expand(self.idx.cpy_k(ik, self.k_idxs_idx, il))
        if inp.k_rot is not None:
            q, k = mul_mat_hadamard(q, inp.k_rot), mul_mat_hadamard(k, inp.k_rot)
        if inp.v_rot is not None:
            v = mul_mat_hadamard(v, inp.v_rot)
        for t in (q, k, v):
            g.expand(t)
        g.expand(inp.cache.cpy_k(k, inp.k_idxs, il))
        g.expand(inp.cache.cpy_v(v, inp.v_idxs, il))
        k = inp.cache.get_k(il)
        ggml.require("HKV == Hd", k.ne[1] == self.n_groups)
        return Cached(q, k, inp.cache.get_v(il), iq, self.idx.get_k(il))

    # One token per stream: the chosen blocks are gathered

    def _gathered(self, c: Cached, pos_slot_f: Tensor) -> Tensor:
        ns, n_ps, blk, top, groups = self.ns, self.n_ps, self.blk, self.top, self.n_groups
        chosen = self._best_blocks_of_each_stream(c)
        first = ggml.reshape(ggml.scale(ggml.cast(chosen, "f32")), 1, top, groups, ns)
        positions = ggml.add(ggml.repeat_4d(first, blk, top, groups, ns), ggml.reshape(ggml.arange(blk), blk, 1, 1))
        positions = ggml.cast(ggml.reshape(positions, blk * top * groups, ns), "i32")
        cells = ggml.get_rows(ggml.reshape(pos_slot_f, 1, n_ps, ns), positions)
        cells = ggml.scale(ggml.reshape(cells, blk, top, groups, ns))
        rows = ggml.add(cells, ggml.reshape(ggml.arange(c.k.ne[1]), 1, 1, groups))
        rows = ggml.cast(ggml.reshape(rows, blk * top * groups, ns), "i32")
        k, v = (self._rows_of(t, rows) for t in (c.k, c.v))
        mask = ggml.get_rows(ggml.reshape(self.msa.pos_mask, 1, n_ps, ns), positions)
        k, v = (self._folded(t, of.type) for t, of in ((k, c.k), (v, c.v)))
        mask = ggml.cast(ggml.reshape(mask, blk * top, 1, 1, groups * ns), "f16")
        return self._flash(c.q, k, v, mask, c.k.ne[1])

    def _best_blocks_of_each_stream(self, c: Cached) -> Tensor:
        ns, n_ps, ik = self.ns, self.n_ps, c.index_k
        keys = ggml.view_3d(ik, self.n_dim, self.n_kv, ns, ik.nb[2], ik.nb[3])
        keys = ggml.reshape(ggml.get_rows(keys, self.msa.pos_slot_i), self.n_dim, n_ps, 1, ns)
        score = ggml.mul_mat(keys, ggml.reshape(c.index_q, self.n_dim, self.n_groups, 1, ns))
        score = ggml.add_inplace(score, ggml.reshape(self.msa.pos_mask, n_ps, 1, 1, ns))
        score = ggml.pool_2d(score, self.blk, 1, self.blk, 1)
        return ggml.top_k(ggml.add(score, ggml.reshape(self.msa.bias, self.n_blk, 1, 1, ns)), self.top)

    def _rows_of(self, t: Tensor, rows: Tensor) -> Tensor:
        return ggml.get_rows(ggml.view_3d(t, t.ne[0], t.ne[1] * self.n_kv, self.ns, t.nb[1], t.nb[3]), rows)

    def _folded(self, t: Tensor, cached_type: str) -> Tensor:
        """Groups and streams on the last dimension, in the cache's type."""
        t = ggml.reshape(t, t.ne[0], self.blk * self.top, 1, self.n_groups * self.ns)
        wanted = "f16" if is_quantized(cached_type) else cached_type
        return t if t.type == wanted else ggml.cast(t, wanted)

    # Many tokens: stream by stream behind a mask

    def _masked(self, c: Cached, stream: int) -> Tensor:
        n_tps = self.n_tps
        q = ggml.view_3d(c.q, c.q.ne[0], c.q.ne[1], n_tps, c.q.nb[1], c.q.nb[2], stream * n_tps * c.q.nb[2])
        k, v = (ggml.permute(ggml.view_4d(t, *t.ne[:3], 1, *t.nb[1:], stream * t.nb[3]), 0, 3, 1, 2) for t in (c.k, c.v))
        return self._flash(q, k, v, self._cells_mask(self._block_mask(c, stream), stream), c.k.ne[1])

    def _block_mask(self, c: Cached, stream: int) -> Tensor:
        """Which blocks each token of each group sees."""
        g, n_tps, groups, n_blk, msa = self.n_dim, self.n_tps, self.n_groups, self.n_blk, self.msa
        first = stream * n_tps
        iq, ik = c.index_q, c.index_k
        iq = ggml.view_3d(iq, g, groups, n_tps, iq.nb[1], iq.nb[2], first * iq.nb[2])
        ik = ggml.view_2d(ik, g, self.n_kv, ik.nb[2], stream * ik.nb[3])
        slots = ggml.view_1d(msa.pos_slot_i, self.n_ps, stream * msa.pos_slot_i.nb[1])
        pos_mask, bias = (
            ggml.view_3d(t, t.ne[0], 1, n_tps, t.nb[1], t.nb[1], first * t.nb[1]) for t in (msa.pos_mask, msa.bias)
        )
        score = ggml.mul_mat(ggml.get_rows(ik, slots), ggml.reshape(iq, g, groups * n_tps))
        score = ggml.add_inplace(ggml.reshape(score, self.n_ps, groups, n_tps), pos_mask)
        score = ggml.pool_2d(score, self.blk, 1, self.blk, 1)
        chosen = ggml.top_k(ggml.add(score, bias), self.top)
        hidden = ggml.repeat_4d(ggml.cast(ggml.scale_bias(bias), "f16"), n_blk, groups, n_tps, 1)
        zero = ggml.scale(ggml.cast(chosen, "f32"))
        n = groups * n_tps
        shown = ggml.set_rows(
            ggml.reshape(hidden, 1, n_blk, n), ggml.reshape(zero, 1, self.top, n), ggml.reshape(chosen, self.top, n)
        )
        return ggml.cont(ggml.permute(ggml.reshape(shown, n_blk, groups, n_tps), 0, 2, 1, 3))

    def _cells_mask(self, blocks: Tensor, stream: int) -> Tensor:
        """The same for cells."""
        n_tps, groups, cell_blk = self.n_tps, self.n_groups, self.g.need(self.msa.cell_blk)
        cells = ggml.view_1d(cell_blk, self.n_kv, stream * cell_blk.nb[1])
        causal = self.mask
        causal = ggml.view_3d(causal, self.n_kv, n_tps, 1, causal.nb[1], causal.nb[3], stream * causal.nb[3])
        turned = ggml.cont(ggml.transpose(ggml.reshape(blocks, self.n_blk, n_tps * groups)))
        turned = ggml.cont(ggml.transpose(ggml.get_rows(turned, cells)))
        mask = ggml.add_inplace(ggml.reshape(turned, self.n_kv, n_tps, groups), causal)
        return ggml.cast(ggml.reshape(mask, self.n_kv, n_tps, 1, groups), "f16")

    @staticmethod
    def _flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, n_head_kv: int) -> Tensor:
        """build_attn_msa_fa: one call for all groups, which lie on the last dimension."""
        width, n_head, n_tokens, _ = q.ne
        per_group, channels = n_head // n_head_kv, k.ne[3]
        q = ggml.reshape(q, width, per_group, channels, n_head * n_tokens // (per_group * channels))
        out = ggml.flash_attn_ext(ggml.permute(q, 0, 2, 3, 1), k, v, mask)
        out = ggml.permute(out, 0, 1, 3, 2)
        if not ggml.is_contiguous(out):
            out = ggml.cont(out)
        return ggml.reshape(out, width * n_head, n_tokens)
