"""The ordinary decoder: embeddings, then norm, attention, add, norm, feed-forward, add, then logits; and what may be different.

A `Decoder` row says what is different about one architecture (src/models/NAME.cpp). Biases, scales, shared experts and tied
outputs need no field: they are there when the file has their tensors.
"""

from collections.abc import Callable, Hashable
from typing import Literal, NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttn
from fitplug.memory.graph.base import ABSENT, LLM_NORM, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, PAR, SILU, SOFTMAX
from fitplug.memory.graph.tensor import Tensor


class Moe(NamedTuple):
    """How an architecture routes to its experts."""

    gating: str = SOFTMAX
    """The gating function, or the default where the header decides (`gating_key`)."""
    gating_key: bool = False
    norm: bool | Literal["key"] = True
    """Whether the weights are made to sum to one; "key": expert_weights_norm says so."""
    scale_key: bool = False
    """Reads expert_weights_scale."""
    act: str = SILU
    shared_act: str = SILU
    shared_gate: Literal["", "silu", "sigmoid"] = ""
    """The shared expert is weighed: by silu(x) / x, or by sigmoid(x)."""
    interleaved: bool = False
    """Only in every interleave_moe_layer_step-th layer, and none before leading_dense_block_count."""


class Decoder(NamedTuple):
    """What is not ordinary about a decoder."""

    norm: str = LLM_NORM_RMS
    norm_eps_key: str = ""
    """Norms are RMS only if this key is there (cohere2moe)."""
    norm_weights: bool = True
    pre_norm: bool = True
    """Attention and feed-forward see a normed input."""
    attn_norm: str = "attn_norm"
    attn_norm_2: bool = False
    """Attention has a second norm of its own where the file has one, and the feed-forward the first (falcon)."""
    ffn_norm: str = "ffn_norm"
    post_attn_norm: str = ""
    post_ffn_norm: str = ""
    post_ffn_norm_pinned: bool = True
    """build_norm is told the layer."""
    embd_scale: bool = False
    embd_norm: bool = False
    position_embd: bool = False
    """Learnt positions, where the file has them."""
    needs_positions: bool = True
    """Has positions as an input; else only position_embd and rope ask for them."""
    qkv_reshape: bool = True
    """False: norms see whole rows of Q and K, heads are split afterwards."""
    qk_norm: Literal["", "heads", "rows", "after_rope"] = ""
    """Norms of Q and K where the file has them; "rows" folds heads into rows and back."""
    qk_norm_kind: str = LLM_NORM_RMS
    rope: Literal["all", "none", "windowed", "windowed_or_none", "pattern", "step"] = "all"
    rope_step: int = 4
    """With "step": every so many-th layer has none (n_no_rope_layer_step)."""
    rope_factors: bool = False
    q_scale: bool = False
    attn_temp: bool = False
    """Q is multiplied with a temperature by position where the header has one (mistral3)."""
    sinks: bool = False
    attn_value_scale: bool = False
    """Attention's output is scaled where the header says so (mimo2)."""
    parallel: Literal["", "attn_first", "ffn_first", "residual_first"] = ""
    """Attention and feed-forward side by side; in which order they are added."""
    parallel_norm: bool = False
    """The feed-forward beside attention norms the layer's input itself (gptneox)."""
    residual_first: bool = False
    """The residual is the first summand."""
    act: str = SILU
    gate: str = PAR
    moe: Moe | None = None
    """None: the graph has no experts, whatever the file has."""
    residual_scale: bool = False
    deepstack: Literal["", "after", "mapping"] = ""
    rows_late: bool = False
    """The last layer runs for all tokens, since its output is kept for MTP (t_h_nextn)."""
    rows_late_if_asked: bool = False
    """The same, but only where a draft asks for that output (cparams.embeddings_nextn)."""
    rows_after_norm: bool = False
    only_embeds: bool = False
    """Reads no cache, though there is one, and computes no logits (llama-embed)."""
    logit_scale: Literal["", "key", "always"] = ""
    logit_softcap: Literal["", "key", "always"] = ""


def build_decoder(g: GraphContext, row: Decoder) -> None:
    """Draw the graph that `row` describes."""
    DecoderGraph(g, row).build()


class DecoderGraph:
    """One drawing."""

    def __init__(self, g: GraphContext, row: Decoder) -> None:
        self.g, self.row = g, row
        self.norm = row.norm
        if row.norm_eps_key and not g.get_float(row.norm_eps_key):
            self.norm = LLM_NORM
        self.ropes = self._rope_rule()
        self.residual_scale = row.residual_scale and (g.arch == "minicpm" or g.get_float("residual_scale") != 0.0)
        self.temp: Tensor | None = None
        self.inp_pos: Tensor | None = None
        self.embd: Tensor | None = None
        self.inp_attn: InpAttn

    def build(self) -> None:
        """From tokens to logits."""
        g, row = self.g, self.row
        cur = self._embeddings()
        self.inp_attn = self._memory()
        out_ids = g.build_inp_out_ids()
        late = row.rows_late or (g.keeps_states and row.rows_late_if_asked) or g.n_layer in g.taps.inputs
        for il in g.layers(self._key):
            g.tap(il, cur)
            cur = self._layer(cur, il, out_ids if il == g.n_layer - 1 and not late else None)
        g.tap(g.n_layer, cur)
        if late and not row.rows_after_norm:
            cur.is_output = cur.is_output or row.rows_late or g.keeps_states
            cur = ggml.get_rows(cur, out_ids)
        cur = self._norm(cur, "output_norm", -1)
        cur.is_output = True
        if late and row.rows_after_norm:
            cur = ggml.get_rows(cur, out_ids)
        g.keep_embd(cur)
        if row.only_embeds:
            g.expand(cur)
        else:
            self._logits(cur)

    def _memory(self) -> InpAttn:
        """Nothing (diffusion, embeddings), one cache, or one more for windowed layers."""
        if self.row.only_embeds or self.g.model.memory == "none":
            return self.g.build_attn_inp_no_cache()
        return self.g.build_attn_inp_kv() if self.g.model.swa_type is None else self.g.build_attn_inp_kv_iswa()

    def _key(self, il: int) -> Hashable:
        """What a layer depends on besides its tensors and numbers."""
        moe = self.row.moe
        return self.ropes(il), self._deepstack_index(il), moe is not None and moe.interleaved and self._routes(il)

    # Before and after the layers

    def _embeddings(self) -> Tensor:
        g, row = self.g, self.row
        cur = self.embd = g.build_inp_embd()
        if row.embd_scale:
            cur = ggml.scale(cur)
        pos_embd = g.w("position_embd").weight if row.position_embd else None
        if row.needs_positions or pos_embd is not None:
            self.inp_pos = g.build_inp_pos()
        if pos_embd is not None and self.inp_pos is not None:
            cur = ggml.add(cur, ggml.get_rows(pos_embd, self.inp_pos))
        if row.embd_norm:
            cur = g.build_norm(cur, g.w("token_embd_norm"), row.norm, 0)
        if row.attn_temp and g.get_float("attention.temperature_scale"):
            self.temp = g.build_inp_attn_scale()
        return cur

    def _logits(self, cur: Tensor) -> None:
        g, row = self.g, self.row
        cur = g.mm(g.output, cur)
        if row.logit_scale == "always" or (row.logit_scale and g.get_float("logit_scale")):
            cur = ggml.scale(cur)
        if row.logit_softcap == "always" or (row.logit_softcap and g.get_float("final_logit_softcapping")):
            cur = ggml.scale(ggml.tanh(ggml.scale(cur)))
        if g.arch in ("qwen3vl", "qwen3tts"):
            cur = self._padded_vocabulary(cur)
        cur.is_output = True
        g.expand(cur)

    def _padded_vocabulary(self, cur: Tensor) -> Tensor:
        """Logits of tokens that are only inputs."""
        g = self.g
        norm, embd = g.w("output_norm").weight, g.tok_embd
        if norm is None or embd is None or embd.ne[1] == cur.ne[0]:
            return cur
        if embd.ne[1] < cur.ne[0]:
            ggml.abort("n_vocab_in >= n_vocab_out", embd, cur)
        neg_inf = ggml.scale_bias(ggml.view_1d(norm, 1))
        return ggml.concat(ggml.repeat_4d(neg_inf, embd.ne[1] - cur.ne[0], cur.ne[1], 1, 1), cur, 0)

    # A layer

    def layer(self, residual: Tensor, il: int) -> Tensor:
        """One layer for all tokens, on the inputs that were set."""
        return self._layer(residual, il, None)

    def _layer(self, inpL: Tensor, il: int, out_ids: Tensor | None) -> Tensor:  # noqa: N803 - llama.cpp's name for it
        row = self.row
        if row.deepstack == "mapping":
            inpL = self._deepstack(inpL, il)  # noqa: N806 - as above
        normed = self._norm(inpL, row.attn_norm, il) if row.pre_norm else inpL
        cur = self._attention(normed, inpL, il)
        if out_ids is not None:
            cur, inpL = ggml.get_rows(cur, out_ids), ggml.get_rows(inpL, out_ids)  # noqa: N806 - as above
            normed = ggml.get_rows(normed, out_ids)
        if row.parallel:
            return self._beside(cur, normed, inpL, il)
        cur = self._scaled(self._post(cur, row.post_attn_norm, il))
        ffn_inp = ggml.add(inpL, cur) if row.residual_first and row.deepstack else ggml.add(cur, inpL)
        if not row.pre_norm:
            cur = ffn_inp
        elif row.ffn_norm == "ffn_norm" and row.norm_weights and self.g.w("ffn_norm", il).weight is None:
            cur = normed
        else:
            cur = self._norm(ffn_inp, row.ffn_norm, il)
        cur = self._feed_forward(cur, il)
        cur = self._scaled(self._post(cur, row.post_ffn_norm, il if row.post_ffn_norm_pinned else -1))
        cur = ggml.add(ffn_inp, cur) if row.residual_first else ggml.add(cur, ffn_inp)
        return self._deepstack(cur, il) if row.deepstack == "after" else cur

    def _beside(self, attn: Tensor, normed: Tensor, inpL: Tensor, il: int) -> Tensor:  # noqa: N803 - llama.cpp's name for it
        """Attention and feed-forward of the same input."""
        if self.row.parallel_norm:
            normed = self._norm(inpL, self.row.ffn_norm, il)
        ffn = self._feed_forward(normed, il)
        match self.row.parallel:
            case "attn_first":
                return ggml.add(ggml.add(attn, ffn), inpL)
            case "ffn_first":
                return ggml.add(ggml.add(ffn, attn), inpL)
            case _:
                return ggml.add(ggml.add(ffn, inpL), attn)

    def _norm(self, cur: Tensor, name: str, il: int) -> Tensor:
        return self.g.build_norm(cur, self.g.w(name, il) if self.row.norm_weights else ABSENT, self.norm, il)

    def _post(self, cur: Tensor, name: str, il: int) -> Tensor:
        """A norm after a block; its weights are the layer's even where it is not pinned there."""
        if not name:
            return cur
        layer = self._current if il < 0 else il
        return self.g.build_norm(cur, self.g.w(name, layer), self.norm, il)

    def _scaled(self, cur: Tensor) -> Tensor:
        return ggml.scale(cur) if self.residual_scale else cur

    # Attention

    def _attention(self, normed: Tensor, inpL: Tensor, il: int) -> Tensor:  # noqa: N803 - llama.cpp's name for it
        g, row = self.g, self.row
        self._current = il
        if row.attn_norm_2 and g.w("attn_norm_2", il).weight is not None:
            normed = self._norm(inpL, "attn_norm_2", il)
        q, k, v = g.build_qkv(il, normed, reshape=row.qkv_reshape)
        q, k, v = self._normed_heads(q, k, v, il)
        if self.ropes(il) and self.inp_pos is not None:
            factors = g.rope_factors(il) if row.rope_factors else None
            q, k = ggml.rope_ext(q, self.inp_pos, factors), ggml.rope_ext(k, self.inp_pos, factors)
        if row.qk_norm == "after_rope":
            q, k = self._head_norm(q, "attn_q_norm", il), self._head_norm(k, "attn_k_norm", il)
        if row.q_scale:
            q = ggml.scale(q)
        if self.temp is not None:
            q = ggml.mul(q, self.temp)
        sinks = g.w("attn_sinks", il).weight if row.sinks else None
        cur = g.build_attn(self.inp_attn, g.w("attn_output", il), q, k, v, il, sinks=sinks)
        return ggml.scale(cur) if row.attn_value_scale and g.get_float("attention.value_scale") else cur

    def _normed_heads(self, q: Tensor, k: Tensor, v: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        row, layer, n_tokens = self.row, self.g.hparams(il), self.g.n_tokens
        width_k, width_v = layer.n_embd_head_k, layer.n_embd_head_v
        n_head, n_head_kv = self.g.heads(il)
        if row.qk_norm == "rows" and row.qkv_reshape:
            if self.g.w("attn_q_norm", il).weight is None:
                return q, k, v
            q, k = ggml.reshape(q, width_k * n_head, n_tokens), ggml.reshape(k, width_k * n_head_kv, n_tokens)
        if row.qk_norm in ("heads", "rows"):
            q, k = self._head_norm(q, "attn_q_norm", il), self._head_norm(k, "attn_k_norm", il)
        if row.qk_norm == "rows":
            q, k = ggml.reshape(q, width_k, n_head, n_tokens), ggml.reshape(k, width_k, n_head_kv, n_tokens)
        if not row.qkv_reshape:
            v = ggml.reshape(v, width_v, n_head_kv, n_tokens)
        return q, k, v

    def _head_norm(self, cur: Tensor, name: str, il: int) -> Tensor:
        w = self.g.w(name, il)
        return cur if w.weight is None else self.g.build_norm(cur, w, self.row.qk_norm_kind, il)

    def _rope_rule(self) -> Callable[[int], bool]:
        """Which layers turn Q and K by position."""
        g, row = self.g, self.row
        match row.rope:
            case "none":
                return lambda _: False
            case "windowed":
                return lambda il: g.hparams(il).is_swa
            case "windowed_or_none":
                return lambda il: g.hparams(il).is_swa or g.model.swa_type is None
            case "pattern":
                return self._rope_pattern()
            case "step":
                return lambda il: (il + 1) % row.rope_step != 0
            case _:
                return lambda _: True

    def _rope_pattern(self) -> Callable[[int], bool]:
        """granite: one switch for all layers; granite_swa: one each."""
        pattern = self.g.model.get("attention.rope_pattern")
        if isinstance(pattern, tuple) and not hasattr(pattern, "item_type"):
            return lambda il: il >= len(pattern) or bool(pattern[il])
        finetuned = self.g.arch == "granite_swa" or self.g.get_bool("rope.scaling.finetuned", default=True)
        return lambda _: finetuned

    # Feed-forward

    def _feed_forward(self, cur: Tensor, il: int) -> Tensor:
        g, row, moe = self.g, self.row, self.row.moe
        if moe is None or g.w("ffn_gate_inp", il).weight is None or (moe.interleaved and not self._routes(il)):
            return g.ffn(cur, il, row.act, row.gate)
        gating = GATING_FUNCS.get(g.model.get_int("expert_gating_func"), moe.gating) if moe.gating_key else moe.gating
        out = g.build_moe_ffn(
            cur, g.experts(il), il, type_op=moe.act, gating_op=gating,
            norm_w=g.get_bool("expert_weights_norm") if moe.norm == "key" else moe.norm,
            w_scale=g.get_float("expert_weights_scale") if moe.scale_key else 0.0,
        )  # fmt: skip
        if g.w("ffn_up_shexp", il).weight is None:
            return out
        shared = g.ffn(cur, il, moe.shared_act, PAR, "_shexp")
        if moe.shared_gate:
            gate_inp = g.build_lora_mm(g.w("ffn_gate_inp_shexp", il).weight, cur)
            gate = ggml.div(ggml.silu(gate_inp), gate_inp) if moe.shared_gate == "silu" else ggml.sigmoid(gate_inp)
            shared = ggml.mul(shared, gate)
        return ggml.add(out, shared)

    def _routes(self, il: int) -> bool:
        """Whether this layer's turn for experts has come (src/models/ernie4-5-moe.cpp)."""
        step = self.g.model.get_int("interleave_moe_layer_step") or 1
        return il >= self.g.hparam("n_layer_dense_lead") and (il + 1) % step == 0

    # Deepstack: further embeddings of an image, added layer by layer

    def _deepstack_index(self, il: int) -> int:
        """Which part of the wide input embeddings this layer adds; 0: none."""
        if self.row.deepstack == "after":
            return il + 1 if il < self.g.hparam("n_deepstack_layers") else 0
        mapping = self.g.model.get("deepstack_mapping") if self.row.deepstack else None
        if il == 0 or not isinstance(mapping, tuple) or hasattr(mapping, "item_type") or il >= len(mapping):
            return 0
        index = mapping[il]
        return int(index) if isinstance(index, int) and index >= 0 else 0

    def _deepstack(self, cur: Tensor, il: int) -> Tensor:
        index = self._deepstack_index(il)
        if not index or self.embd is None:
            return cur
        wide = self.embd.view_src or self.embd
        n_embd = self.g.n_embd
        return ggml.add(cur, ggml.view_2d(wide, n_embd, self.g.n_tokens, wide.nb[1], index * n_embd * 4))
