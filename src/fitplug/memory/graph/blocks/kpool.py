"""Latent attention to a few pools of cells (src/models/glm5-next.cpp).

An indexer scores pools of kpool consecutive tokens, and a query attends to the cells of the best ones.
"""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnK
from fitplug.memory.graph.base import LLM_NORM, LLM_NORM_RMS
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpMemHybrid
from fitplug.memory.graph.tensor import Tensor
from fitplug.units import pad

GATHER_UBATCH = 16
"""Up to so many tokens the chosen cells are gathered; more tokens mask what they do not see."""
POOL_PAD = 64


class KPoolInputs(NamedTuple):
    """llm_graph_input_kpool."""

    k_idxs: Tensor
    pool_cells: Tensor
    pool_idxs: Tensor
    pool_mask: Tensor
    tail_idxs: Tensor
    gather_mask: Tensor
    new_pool_idxs: Tensor
    new_pool_rep: Tensor


class KPoolAttention:
    """The attention layers of one graph; a layer without an indexer sees what the one before it chose."""

    def __init__(self, g: GraphContext, memory: InpMemHybrid) -> None:
        """Build the inputs (build_inp_kpool)."""
        self.g = g
        if not isinstance(memory.attn, InpAttnK):
            raise TypeError("pools lie over a cache of K only")
        self.attn = memory.attn
        self.n_embd, self.n_head = g.hparam("indexer_head_size"), g.hparam("indexer_n_head")
        self.kpool, self.n_kv = g.hparam("indexer_kpool"), g.params.n_ctx_seq
        width = 3 * self.n_embd
        self.idx = KvCache(g, self.n_kv, head_k=lambda _: (width, 1))
        n_pool_real = self.n_kv // self.kpool * g.params.n_seq_max
        self.n_new = max(1, n_pool_real)
        self.n_pool = max(POOL_PAD, pad(n_pool_real + 1, POOL_PAD))
        self.n_top_pool = min(self.n_pool, g.hparam("indexer_top_k") // self.kpool)
        self.has_tail = g.get_bool("attention.indexer.kpool_select_tail", default=True)
        self.n_sel = self.kpool * self.n_top_pool + (self.kpool - 1 if self.has_tail else 0)
        self.gathers = g.n_tokens <= GATHER_UBATCH and self.n_kv > self.n_sel
        self.inp = self._inputs()
        self.selected: Tensor | None = None

    def _inputs(self) -> KPoolInputs:
        n_tokens, kpool = self.g.n_tokens, self.kpool
        inp = KPoolInputs(
            self.idx.build_input_k_idxs(),
            ggml.new_input("i32", self.n_pool),
            ggml.new_input("i32", kpool, self.n_pool),
            ggml.new_input("f16", self.n_pool, n_tokens),
            ggml.new_input("i32", kpool - 1, n_tokens),
            ggml.new_input("f32", self.n_sel, 1, 1, n_tokens),
            ggml.new_input("i32", kpool, self.n_new),
            ggml.new_input("i64", self.n_new),
        )
        for t in (inp.pool_cells, inp.pool_idxs, inp.pool_mask, inp.tail_idxs, inp.gather_mask):
            self.g.expand(t)
        return inp

    def __call__(self, cur: Tensor, il: int) -> Tensor:
        """build_dsa_layer."""
        g = self.g
        n_tokens, n_head, lora = g.n_tokens, g.n_head, g.hparam("n_lora_kv")
        qr = g.build_norm(g.plain("attn_q_a", cur, il), g.w("attn_q_a_norm", il), LLM_NORM_RMS, il)
        q = ggml.reshape(g.plain("attn_q_b", qr, il), g.model.n_embd_head_k_mla - g.hparams(il).n_rot, n_head, n_tokens)
        kv = g.build_norm(g.plain("attn_kv_a_mqa", cur, il), g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il)
        kv = ggml.reshape(kv, lora, 1, n_tokens)
        q = ggml.permute(g.plain("attn_k_b", ggml.permute(q, 0, 2, 1, 3), il), 0, 2, 1, 3)
        if g.hparams(il).n_embd_indexer:
            self.selected = self._select(cur, qr, il)
        selected = g.need(self.selected)
        g.expand(q)
        g.expand(kv)
        g.expand(self.attn.cache.cpy_k(kv, self.attn.k_idxs, il))
        out = self._gathered(q, selected, il) if self.gathers else self._masked(q, selected, il)
        return g.plain("attn_output", out, il)

    def _gathered(self, q: Tensor, selected: Tensor, il: int) -> Tensor:
        """Attention over copies of the chosen latents, tokens on the last dimension."""
        g, lora, n_tokens = self.g, self.g.hparam("n_lora_kv"), self.g.n_tokens
        g.expand(self.attn.kq_mask)
        k, n_sel = self.attn.cache.k(il), selected.ne[0]
        rows = ggml.view_2d(k, k.ne[0], k.ne[1] * k.ne[2], k.nb[1])
        k = ggml.get_rows(rows, ggml.reshape(selected, n_sel * n_tokens))
        k = ggml.reshape(k, lora, n_sel, 1, n_tokens)
        kq = ggml.mul_mat(k, ggml.permute(q, 0, 2, 3, 1))
        kq = ggml.soft_max_ext(kq, self.inp.gather_mask)
        kqv = ggml.mul_mat(ggml.cont(ggml.transpose(k)), kq)
        kqv = g.plain("attn_v_b", kqv, il)
        return ggml.reshape(ggml.cont(ggml.permute(kqv, 0, 2, 1, 3)), kqv.ne[0] * g.n_head, n_tokens)

    def _masked(self, q: Tensor, selected: Tensor, il: int) -> Tensor:
        """Attention over the whole cache behind a mask that shows the chosen cells alone."""
        g, cache = self.g, self.attn.cache
        mask = ggml.reshape(selected, *self.attn.kq_mask.ne)
        k = cache.get_k(il)
        v = ggml.view_4d(k, g.hparam("n_lora_kv"), *k.ne[1:], *k.nb[1:])
        return g.build_attn_mha(q, k, v, mask, il, v_mla=g.needed("attn_v_b", il), n_kv_max=self.n_sel)

    # The indexer (build_kpool_select)

    def _select(self, cur: Tensor, qr: Tensor, il: int) -> Tensor:
        """Cells to attend to, or a mask over all."""
        g, n, n_tokens = self.g, self.n_embd, self.g.n_tokens
        iq = ggml.reshape(g.plain("indexer.attn_q_b", qr, il), n, self.n_head, n_tokens)
        pooled = self._pooled(cur, il)
        weights = ggml.scale(g.plain("indexer.proj", cur, il))
        score = ggml.lightning_indexer(iq, pooled, weights, self.inp.pool_mask)
        top_k = self._ordered_top_k(score)
        cells = ggml.get_rows(self.inp.pool_idxs, ggml.reshape(top_k, self.n_top_pool * n_tokens))
        cells = ggml.reshape(cells, self.kpool * self.n_top_pool, n_tokens)
        if self.has_tail:
            cells = ggml.concat(cells, self.inp.tail_idxs, 0)
        return cells if self.gathers else self._mask_of(cells)

    def _pooled(self, cur: Tensor, il: int) -> Tensor:
        """Write this batch's keys, pool those that complete a pool, read all pools."""
        g, n, n_tokens, kpool = self.g, self.n_embd, self.g.n_tokens, self.kpool
        key = g.build_norm(g.plain("indexer.attn_k", cur, il), g.w("indexer.k_norm", il), LLM_NORM, il)
        gate = g.plain("indexer_compressor_gate", cur, il)
        zero = ggml.fill(ggml.new_tensor("f32", n, n_tokens))
        packed = ggml.concat(ggml.concat(key, gate, 0), zero, 0)
        packed = ggml.reshape(packed, 3 * n, 1, n_tokens)
        g.expand(self.idx.cpy_k(packed, self.inp.k_idxs, il))

        k = self.idx.k(il)
        n_cells = k.ne[1] * k.ne[2]
        key_gate = ggml.view_2d(k, 2 * n, n_cells, k.nb[1])
        pools = ggml.view_2d(k, n, n_cells, k.nb[1], ggml.row_size(k.type, 2 * n))
        rows = ggml.get_rows(key_gate, ggml.reshape(self.inp.new_pool_idxs, kpool * self.n_new))
        rows = ggml.reshape(rows, 2 * n, kpool, self.n_new)
        pk = ggml.view_3d(rows, n, kpool, self.n_new, rows.nb[1], rows.nb[2])
        pg = ggml.view_3d(rows, n, kpool, self.n_new, rows.nb[1], rows.nb[2], n * 4)
        logits = ggml.add(pg, g.needed("indexer_compressor_ape", il))
        logits = ggml.cont(ggml.permute(logits, 1, 0, 2, 3))
        probs = ggml.soft_max(ggml.reshape(logits, kpool, n * self.n_new))
        probs = ggml.reshape(probs, kpool, n, self.n_new)
        pk = ggml.cont(ggml.permute(pk, 1, 0, 2, 3))
        new = ggml.reshape(ggml.sum_rows(ggml.mul(probs, pk)), n, self.n_new)
        g.expand(ggml.set_rows(pools, new, self.inp.new_pool_rep))
        return ggml.reshape(ggml.get_rows(pools, self.inp.pool_cells), n, 1, self.n_pool)

    def _ordered_top_k(self, score: Tensor) -> Tensor:
        """The best pools by descending score, where top_k alone leaves them unordered."""
        n_top, n_tokens = self.n_top_pool, self.g.n_tokens
        top_k = ggml.top_k(score, n_top)
        scores = ggml.get_rows(ggml.reshape(score, 1, self.n_pool, n_tokens), top_k)
        order = ggml.argsort(ggml.reshape(scores, n_top, n_tokens))
        top_k = ggml.get_rows(ggml.reshape(ggml.cast(top_k, "f32"), 1, n_top, n_tokens), order)
        return ggml.cast(ggml.cont(ggml.reshape(top_k, n_top, n_tokens)), "i32")

    def _mask_of(self, cells: Tensor) -> Tensor:
        """Minus infinity everywhere but at the chosen cells; dead slots write past the end."""
        n_sel, n_tokens, n_kv = cells.ne[0], self.g.n_tokens, self.n_kv
        kq_mask = self.attn.kq_mask
        seed = ggml.cast(ggml.view_1d(cells, 1), "f32")
        mask_seed = ggml.fill(seed if kq_mask.type == "f32" else ggml.cast(seed, kq_mask.type))
        mask = ggml.reshape(ggml.repeat_4d(mask_seed, 1, n_kv + n_sel, n_tokens, 1), 1, n_kv + n_sel, n_tokens)
        zeros = ggml.reshape(ggml.repeat_4d(ggml.fill(seed), 1, n_sel, n_tokens, 1), 1, n_sel, n_tokens)
        live = ggml.exp(ggml.reshape(self.inp.gather_mask, n_sel, n_tokens))
        dump = ggml.arange(n_sel)
        idx = ggml.cast(cells, "f32")
        idx = ggml.cast(ggml.add(ggml.mul(ggml.sub(idx, dump), live), dump), "i32")
        sel = ggml.set_rows(mask, zeros, ggml.reshape(idx, n_sel, n_tokens, 1))
        sel = ggml.view_2d(sel, n_kv, n_tokens, sel.nb[2])
        return ggml.add(sel, ggml.reshape(kq_mask, n_kv, n_tokens))
