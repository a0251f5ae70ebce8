"""Recurrent states in a graph (src/llama-graph.cpp, build_rs and its inputs)."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import Attention, InpAttnK, InpAttnKv, InpAttnKvIswa
from fitplug.memory.graph.caches import KvCache, RecurrentState
from fitplug.memory.graph.tensor import Tensor


class InpRs(NamedTuple):
    """llm_graph_input_rs: which state each sequence starts from."""

    s_copy: Tensor
    s_copy_main: Tensor
    s_copy_extra: Tensor


class InpMemHybrid(NamedTuple):
    """llm_graph_input_mem_hybrid, _k and _iswa."""

    attn: InpAttnKv | InpAttnK | InpAttnKvIswa
    rs: InpRs


class Recurrent(Attention):
    """build_rs and what hybrids need."""

    @cached_property
    def rs(self) -> RecurrentState:
        """The recurrent memory: rs.get_r_l(il), rs.get_s_l(il)."""
        return RecurrentState(self.params)

    def build_rs_inp(self) -> InpRs:
        """llm_graph_context::build_rs_inp."""
        n_rs, n_seqs = self.rs.n_rs, self.n_seqs
        s_copy = ggml.new_input("i32", n_rs)
        return InpRs(s_copy, ggml.view_1d(s_copy, n_seqs), ggml.view_1d(s_copy, n_rs - n_seqs, n_seqs * s_copy.nb[0]))

    def build_rs(
        self,
        inp: InpRs,
        s: Tensor,
        state_size: int,
        n_seqs: int,
        get_state_rows: Callable[[Tensor, Tensor], Tensor] = ggml.get_rows,
    ) -> Tensor:
        """llm_graph_context::build_rs: the states of this batch's sequences; the others are moved out of the way."""
        states = ggml.reshape(s, state_size, s.ne[1])
        self.expand(ggml.scale_inplace(ggml.view_1d(states, state_size)))
        output = get_state_rows(states, inp.s_copy_main)
        self.expand(output)
        extra = ggml.get_rows(states, inp.s_copy_extra)
        self.expand(ggml.cpy(extra, ggml.view_2d(s, state_size, self.rs.n_rs - n_seqs, s.nb[1], n_seqs * s.nb[1])))
        return output

    def build_inp_mem_hybrid(self) -> InpMemHybrid:
        """llm_graph_context::build_inp_mem_hybrid."""
        return InpMemHybrid(self.kv_inputs(KvCache(self, self.params.n_ctx_seq)), self.build_rs_inp())

    def build_inp_mem_hybrid_k(self) -> InpMemHybrid:
        """llm_graph_context::build_inp_mem_hybrid_k."""
        return InpMemHybrid(self.build_attn_inp_k(), self.build_rs_inp())

    def build_inp_mem_hybrid_iswa(self) -> InpMemHybrid:
        """llm_graph_context::build_inp_mem_hybrid_iswa, which rotates no quantised cache."""
        base, swa = (cache._replace(k_rot=None, v_rot=None) for cache in self.build_attn_inp_kv_iswa())
        return InpMemHybrid(InpAttnKvIswa(base, swa), self.build_rs_inp())

    def build_rwkv_token_shift_load(self, inp: InpRs, il: int) -> Tensor:
        """llm_graph_context::build_rwkv_token_shift_load."""
        shifts = self.build_rs(inp, self.rs.get_r_l(il), self.hparams(il).n_embd_r, self.n_seqs)
        return ggml.reshape(shifts, self.n_embd, self.model.get_int("token_shift_count", 2), self.n_seqs)

    def build_rwkv_token_shift_store(self, token_shift: Tensor, il: int) -> Tensor:
        """llm_graph_context::build_rwkv_token_shift_store."""
        n = self.n_embd * self.n_seqs * self.model.get_int("token_shift_count", 2)
        width = self.hparams(il).n_embd_r
        return ggml.cpy(ggml.view_1d(token_shift, n), ggml.view_1d(self.rs.get_r_l(il), width * self.n_seqs))
