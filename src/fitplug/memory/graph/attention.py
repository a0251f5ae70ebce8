"""Attention over each kind of memory (src/llama-graph.cpp, build_attn_inp_*, build_attn, build_attn_mha)."""

from functools import cached_property
from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import FusedNode, Linear
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.qkv import Projections
from fitplug.memory.graph.tensor import ACC_F32, Tensor, summed_in_f32
from fitplug.units import pad


class InpAttnNoCache(NamedTuple):
    """llm_graph_input_attn_no_cache: every token of the batch sees every other."""

    kq_mask: Tensor
    kq_mask_swa: Tensor | None = None


class InpAttnKv(NamedTuple):
    """llm_graph_input_attn_kv: one cache with K and V."""

    cache: KvCache
    k_idxs: Tensor
    v_idxs: Tensor
    kq_mask: Tensor
    k_rot: Tensor | None = None
    v_rot: Tensor | None = None


class InpAttnK(NamedTuple):
    """llm_graph_input_attn_k: one cache with K only, V is a part of K (MLA)."""

    cache: KvCache
    k_idxs: Tensor
    kq_mask: Tensor


class InpAttnKvIswa(NamedTuple):
    """llm_graph_input_attn_kv_iswa: full layers in one cache, windowed layers in another."""

    base: InpAttnKv
    swa: InpAttnKv


class InpAttnKIswa(NamedTuple):
    """llm_graph_input_attn_k_iswa: the same with K only."""

    base: InpAttnKv
    swa: InpAttnKv


class InpAttnCross(NamedTuple):
    """llm_graph_input_attn_cross: attention to an encoder's output."""

    kq_mask: Tensor


InpAttn = InpAttnNoCache | InpAttnKv | InpAttnK | InpAttnKvIswa | InpAttnKIswa | InpAttnCross


class Attention(Projections):
    """The attention inputs and build_attn."""

    @cached_property
    def attn_soft_cap(self) -> float:
        """hparams.f_attn_logit_softcapping where hparams.attn_soft_cap is set, else 0."""
        default = self.quirks.attn_soft_cap
        return self.get_float("attn_logit_softcapping", default) if default else 0.0

    @cached_property
    def max_alibi_bias(self) -> float:
        """hparams.f_max_alibi_bias."""
        alibi, n_layer = self.quirks.alibi, self.quirks.alibi_layers
        if alibi == "key":
            return self.get_float("attention.max_alibi_bias")
        return alibi if n_layer in (0, self.model.n_layer_all) else 0.0

    # Inputs

    def attn_inp_kq_mask(self, n_kv: int, flash_attn: bool | None = None) -> Tensor:
        """build_attn_inp_kq_mask: f16 for flash attention."""
        n_stream = 1 if self.params.n_stream == 1 else self.n_seqs
        half = self.flash_attn if flash_attn is None else flash_attn
        return ggml.new_input("f16" if half else "f32", n_kv, self.n_tokens // n_stream, 1, n_stream)

    def kv_inputs(self, cache: KvCache) -> InpAttnKv:
        """The inputs that belong to one cache with K and V."""
        return InpAttnKv(
            cache, cache.build_input_k_idxs(), cache.build_input_v_idxs(), self.attn_inp_kq_mask(cache.n_kv),
            cache.build_input_k_rot(), cache.build_input_v_rot(),
        )  # fmt: skip

    @cached_property
    def n_kv_swa(self) -> int:
        """Cells of the windowed cache (src/llama-kv-cache-iswa.cpp)."""
        p = self.params
        if p.swa_full:
            return p.n_ctx_seq
        window = self.model.n_swa * (p.n_seq_max if p.n_stream == 1 else 1) + p.n_ubatch
        return pad(min(p.n_ctx_seq, window), 256)

    def build_attn_inp_no_cache(self) -> InpAttnNoCache:
        """llm_graph_context::build_attn_inp_no_cache."""
        type_, n = "f16" if self.flash_attn else "f32", self.n_tokens
        swa = ggml.new_input(type_, n, n) if self.model.swa_type is not None else None
        return InpAttnNoCache(ggml.new_input(type_, n, n), swa)

    def build_attn_inp_kv(self) -> InpAttnKv:
        """llm_graph_context::build_attn_inp_kv."""
        return self.kv_inputs(KvCache(self, self.params.n_ctx_seq))

    def build_attn_inp_k(self) -> InpAttnK:
        """llm_graph_context::build_attn_inp_k."""
        cache = KvCache(self, self.params.n_ctx_seq)
        return InpAttnK(cache, cache.build_input_k_idxs(), self.attn_inp_kq_mask(cache.n_kv))

    def build_attn_inp_kv_iswa(self) -> InpAttnKvIswa:
        """llm_graph_context::build_attn_inp_kv_iswa."""
        base = KvCache(self, self.params.n_ctx_seq, layers=lambda layer: not layer.is_swa)
        swa = KvCache(self, self.n_kv_swa, layers=lambda layer: layer.is_swa)
        return InpAttnKvIswa(self.kv_inputs(base), self.kv_inputs(swa))

    def build_attn_inp_k_iswa(self) -> InpAttnKIswa:
        """llm_graph_context::build_attn_inp_k_iswa."""
        both = self.build_attn_inp_kv_iswa()
        return InpAttnKIswa(both.base, both.swa)

    def build_attn_inp_cross(self) -> InpAttnCross:
        """llm_graph_context::build_attn_inp_cross: as many as the trained context, since nothing is encoded yet."""
        return InpAttnCross(ggml.new_input("f16" if self.flash_attn else "f32", self.model.n_ctx_train, self.n_tokens))

    # Attention

    def build_attn(
        self,
        inp: InpAttn,
        wo: Linear,
        q: Tensor,
        k: Tensor | None,
        v: Tensor | None,
        il: int,
        *,
        kq_b: Tensor | None = None,
        sinks: Tensor | None = None,
        v_mla: Tensor | None = None,
    ) -> Tensor:
        """llm_graph_context::build_attn for the memory that `inp` belongs to; `wo` ABSENT leaves the output projection out."""
        match inp:
            case InpAttnKv():
                cur = self._attn_kv(inp, q, _given(k), _given(v), il, kq_b, sinks)
            case InpAttnKvIswa():
                cur = self._attn_kv_iswa(inp.swa if self.hparams(il).is_swa else inp.base, q, k, v, il, kq_b, sinks)
            case InpAttnK():
                cur = self._attn_k(inp, q, _given(k), _given(v), il, sinks, v_mla)
            case InpAttnKIswa():
                cur = self._attn_k_iswa(inp.swa if self.hparams(il).is_swa else inp.base, q, k, _given(v), il, sinks, v_mla)
            case InpAttnNoCache():
                mask = inp.kq_mask_swa if self.hparams(il).is_swa and inp.kq_mask_swa is not None else inp.kq_mask
                cur = self._attn_direct(mask, q, _given(k), _given(v), il, kq_b, sinks, v_mla)
            case InpAttnCross():
                cur = self._attn_direct(inp.kq_mask, q, _given(k), _given(v), il, kq_b, sinks, v_mla)
        if wo.weight is None:
            return cur
        if self.quirks.scaled_last and wo.scale is not None:
            cur = ggml.mul(self.build_lora_mm(wo.weight, cur), wo.scale)
            cur = cur if wo.bias is None else ggml.add(cur, wo.bias)
        else:
            cur = self.mm(wo, cur)
        return summed_in_f32(cur) if self.quirks.summed_in_f32 else cur

    def _attn_direct(
        self,
        mask: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        il: int,
        kq_b: Tensor | None,
        sinks: Tensor | None,
        v_mla: Tensor | None,
    ) -> Tensor:
        """Without a cache."""
        self.expand(q)
        self.expand(k)
        self.expand(v)
        return self.build_attn_mha(q, k, v, mask, il, kq_b=kq_b, sinks=sinks, v_mla=v_mla)

    def _attn_kv(
        self, inp: InpAttnKv, q: Tensor, k: Tensor, v: Tensor, il: int, kq_b: Tensor | None, sinks: Tensor | None
    ) -> Tensor:
        """One cache; K is expanded last so that its rope can write into the cache."""
        if inp.k_rot is not None:
            q, k = mul_mat_hadamard(q, inp.k_rot), mul_mat_hadamard(k, inp.k_rot)
        if inp.v_rot is not None:
            v = mul_mat_hadamard(v, inp.v_rot)
        self.expand(q)
        self.expand(v)
        self.expand(k)
        return self._attn_cached(inp, q, k, v, il, kq_b, sinks)

    def _attn_kv_iswa(
        self,
        inp: InpAttnKv,
        q: Tensor,
        k: Tensor | None,
        v: Tensor | None,
        il: int,
        kq_b: Tensor | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """The layer's own of two caches; without `k` and `v` it reads what another layer wrote."""
        if inp.k_rot is not None:
            q, k = mul_mat_hadamard(q, inp.k_rot), k and mul_mat_hadamard(k, inp.k_rot)
        if inp.v_rot is not None:
            v = v and mul_mat_hadamard(v, inp.v_rot)
        for t in (q, k, v):
            if t is not None:
                self.expand(t)
        return self._attn_cached(inp, q, k, v, il, kq_b, sinks)

    def _attn_cached(
        self,
        inp: InpAttnKv,
        q: Tensor,
        k: Tensor | None,
        v: Tensor | None,
        il: int,
        kq_b: Tensor | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Write the new rows, read the whole cache."""
        cache = inp.cache
        if k is not None:
            self.expand(cache.cpy_k(k, inp.k_idxs, il))
        if v is not None:
            self.expand(cache.cpy_v(v, inp.v_idxs, il))
        cur = self.build_attn_mha(q, cache.get_k(il), cache.get_v(il), inp.kq_mask, il, kq_b=kq_b, sinks=sinks)
        return mul_mat_hadamard(cur, inp.v_rot) if inp.v_rot is not None else cur

    def _attn_k(
        self, inp: InpAttnK, q: Tensor, k: Tensor, v: Tensor, il: int, sinks: Tensor | None, v_mla: Tensor | None
    ) -> Tensor:
        self.expand(q)
        self.expand(v)
        self.expand(k)
        self.expand(inp.cache.cpy_k(k, inp.k_idxs, il))
        return self._attn_k_cached(inp.cache, q, v, inp.kq_mask, il, sinks, v_mla)

    def _attn_k_iswa(
        self, inp: InpAttnKv, q: Tensor, k: Tensor | None, v: Tensor, il: int, sinks: Tensor | None, v_mla: Tensor | None
    ) -> Tensor:
        if inp.k_rot is not None:
            q, k = mul_mat_hadamard(q, inp.k_rot), k and mul_mat_hadamard(k, inp.k_rot)
        self.expand(q)
        if k is not None:
            self.expand(k)
            self.expand(inp.cache.cpy_k(k, inp.k_idxs, il))
        cur = self._attn_k_cached(inp.cache, q, v, inp.kq_mask, il, sinks, v_mla)
        return mul_mat_hadamard(cur, inp.k_rot) if inp.k_rot is not None else cur

    def _attn_k_cached(
        self, cache: KvCache, q: Tensor, v: Tensor, mask: Tensor, il: int, sinks: Tensor | None, v_mla: Tensor | None
    ) -> Tensor:
        """V is the first part of each cached K."""
        k = cache.get_k(il)
        v = ggml.view_4d(k, v.ne[0], *k.ne[1:], *k.nb[1:])
        return self.build_attn_mha(q, k, v, mask, il, sinks=sinks, v_mla=v_mla)

    def build_attn_mha(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kq_mask: Tensor | None,
        il: int,
        *,
        kq_b: Tensor | None = None,
        sinks: Tensor | None = None,
        v_mla: Tensor | None = None,
        n_kv_max: int = 0,
    ) -> Tensor:
        """llm_graph_context::build_attn_mha; `n_kv_max` is how many cells a row of the mask shows at most, 0 if any."""
        v_trans = v.nb[1] > v.nb[2]
        n_stream = k.ne[3]
        n_q = q.ne[2] // n_stream
        q = ggml.view_4d(q, q.ne[0], q.ne[1], n_q, n_stream, q.nb[1], q.nb[2], q.nb[2] * n_q)
        q, k, v = (ggml.permute(t, 0, 2, 1, 3) for t in (q, k, v))
        if self.flash_attn and kq_b is None:
            cur = self._flash(q, k, ggml.transpose(v) if v_trans else v, kq_mask, il, sinks, v_mla, n_kv_max)
        else:
            cur = self._softmax(q, k, v, kq_mask, kq_b, sinks, v_mla, v_trans)
        self.expand(cur)
        return cur

    def _flash(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        il: int,
        sinks: Tensor | None,
        v_mla: Tensor | None,
        n_kv_max: int,
    ) -> Tensor:
        if k.type == "f32":  # without a cache
            k = ggml.cast(k, "f16")
        if v.type == "f32":
            v = ggml.cast(v, "f16")
        cur = ggml.flash_attn_ext(q, k, v, mask, self.max_alibi_bias, self.attn_soft_cap, sinks, n_kv_max)
        self.fused_nodes.append(FusedNode("flash_attn", cur, il))
        if v_mla is not None:
            cur = ggml.mul_mat(v_mla, ggml.permute(cur, 0, 2, 1, 3))
            cur = ggml.cont(ggml.permute(cur, 0, 2, 1, 3))
        return ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])

    def _softmax(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        kq_b: Tensor | None,
        sinks: Tensor | None,
        v_mla: Tensor | None,
        v_trans: bool,
    ) -> Tensor:
        kq = ggml.mul_mat(k, q)
        kq.param = ACC_F32
        if self.quirks.tanh_kq:
            kq = ggml.scale(ggml.tanh(ggml.scale(kq)))
        if self.attn_soft_cap:
            kq = ggml.scale(ggml.tanh(ggml.scale(kq)))
        if kq_b is not None:
            kq = ggml.add(kq, kq_b)
        kq = ggml.soft_max_ext(kq, mask, sinks)
        if not v_trans:
            v = ggml.cont(ggml.transpose(v))
        kqv = ggml.mul_mat(v, kq)
        if v_mla is not None:
            kqv = ggml.mul_mat(v_mla, kqv)
        cur = ggml.permute(kqv, 0, 2, 1, 3)
        cur = ggml.cont(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])
        if not self.params.offload_kqv:
            self.pin_to_cpu(cur)
        return cur


def mul_mat_hadamard(cur: Tensor, rot: Tensor) -> Tensor:
    """llama_mul_mat_hadamard (src/llama-impl.h)."""
    n = rot.ne[0]
    rows = ggml.nelements(cur) // n
    res = ggml.mul_mat(rot, ggml.reshape(cur, n, rows) if ggml.is_contiguous(cur) else ggml.cont(cur, n, rows))
    return ggml.reshape(res, *cur.ne)


def _given(t: Tensor | None) -> Tensor:
    if t is None:
        raise ValueError("this memory needs the layer's own K and V")  # a slip in an architecture file
    return t
