"""Latent attention to what a lightning indexer picks (src/models/deepseek32.cpp, glm-dsa.cpp, dots3note.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.architectures.deepseek2 import feed_forward
from fitplug.memory.graph.attention import InpAttnK
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks.absorbed import Heads, absorbed, compressed_query
from fitplug.memory.graph.blocks.lightning_indexer import InpAttnKDsa, build_attn_dsa, build_attn_inp_k_dsa, build_top_k
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import SIGMOID
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    inp_pos = g.build_inp_pos()
    attend = SparseAttention(g, inp_pos)
    out_ids = g.build_inp_out_ids()
    dense = g.hparam("n_layer_dense_lead")
    for il in g.layers(lambda il: il < dense):
        residual = inpL
        cur = attend(g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il), il)
        if il == g.n_layer - 1 and not g.keeps_states:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(cur, residual)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur = feed_forward(g, cur, il, dense=il < dense, gating=SIGMOID)
        inpL = ggml.add(cur, ffn_inp)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS)
    if g.keeps_states:
        cur.is_output = True
        cur = ggml.get_rows(cur, out_ids)
    g.build_output(cur)


class SparseAttention:
    """Layers without an indexer see what an earlier one chose (glm-dsa), or a window (dots3note)."""

    def __init__(self, g: GraphContext, inp_pos: Tensor) -> None:
        """Build the inputs."""
        self.g, self.inp_pos = g, inp_pos
        self.dsa: InpAttnKDsa = build_attn_inp_k_dsa(g)
        self.swa = self._window() if g.model.memory == "dsa_iswa" else None
        self.top_k: Tensor | None = None

    def _window(self) -> InpAttnK:
        cache = KvCache(self.g, self.g.n_kv_swa, layers=lambda layer: layer.is_swa)
        return InpAttnK(cache, cache.build_input_k_idxs(), self.g.attn_inp_kq_mask(cache.n_kv))

    def __call__(self, cur: Tensor, il: int) -> Tensor:
        """Attention and its output projection."""
        g, layer = self.g, self.g.hparams(il)
        qr = compressed_query(g, cur, il)
        windowed = self.swa is not None and layer.is_swa
        if layer.n_embd_indexer and not windowed:
            self.top_k = build_top_k(g, self.dsa, cur, qr, self.inp_pos, il)
        q, k, v = absorbed(g, self._heads(il), qr, cur, self.inp_pos, il)
        v_mla = g.needed("attn_v_b", il)
        if self.swa is not None and windowed:
            out = g.build_attn(self.swa, ABSENT, q, k, v, il, v_mla=v_mla)
        else:
            out = build_attn_dsa(
                g, self.dsa, q, k, v, g.need(self.top_k, "the choice of an indexer before it"), il, v_mla=v_mla
            )
        if self.swa is not None:
            out = self._gated(out, cur, v_mla.ne[1], il)
        return g.proj("attn_output", out, il)

    def _heads(self, il: int) -> Heads:
        g, layer, (n_head, _) = self.g, self.g.hparams(il), self.g.heads(il)
        if self.swa is not None and layer.is_swa:
            return Heads(n_head, g.hparams(0).n_rot, g.hparam("n_embd_head_k_mla_swa"), g.hparam("n_lora_kv_swa"))
        return Heads(n_head, layer.n_rot, g.model.n_embd_head_k_mla, g.hparam("n_lora_kv"))

    def _gated(self, out: Tensor, cur: Tensor, width: int, il: int) -> Tensor:
        """One gate per head (dots3note)."""
        (n_head, _), n_tokens = self.g.heads(il), self.g.n_tokens
        gate = ggml.sigmoid(self.g.proj("attn_gate", cur, il))
        out = ggml.mul(ggml.reshape(out, width, n_head, n_tokens), ggml.reshape(gate, 1, n_head, n_tokens))
        return ggml.reshape(out, width * n_head, n_tokens)
