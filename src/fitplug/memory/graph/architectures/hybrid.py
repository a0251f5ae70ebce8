"""Recurrent and hybrid decoders of the common plan, one row each.

The plan: norm, mixer, residual, and mostly norm, feed-forward, residual. A layer mixes with a state, with attention, or both;
a row names the mixers and says where it departs from the plan. Each follows src/models/NAME.cpp.
"""

from functools import partial
from typing import Literal, NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks.delta_net import build_linear_attention, from_separate, from_shared
from fitplug.memory.graph.blocks.gated_attention import build_gated_attention
from fitplug.memory.graph.blocks.hybrid_mla import build_mla
from fitplug.memory.graph.blocks.kda import BAILING_KDA, build_kda_layer
from fitplug.memory.graph.blocks.mamba import build_mamba2_layer, build_mamba_layer
from fitplug.memory.graph.blocks.mixing import (
    FeedForward,
    Inputs,
    Mixer,
    after_dense_lead,
    deepseek_experts,
    dense,
    experts,
    latent_experts,
    recurrent,
    relu_squared,
    self_attention,
    sparse_or_dense,
    swiglu_in_one,
    with_shared_expert,
)
from fitplug.memory.graph.blocks.plamo2 import build_plamo2_mamba_layer
from fitplug.memory.graph.blocks.short_conv import build_shortconv_block
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor
from fitplug.model.records import Layer


class Hybrid(NamedTuple):
    """One architecture."""

    recurrent: Mixer
    attention: Mixer | None = None
    neither: FeedForward | None = None
    """What stands in place of a mixer in layers that have neither state nor cache."""
    ffn: FeedForward | None = None
    """None: a layer is its mixer alone."""
    ffn_norm: str = "ffn_norm"
    post_norms: tuple[str, str] | None = None
    """Norms of what the mixer and the feed-forward block add."""
    pos: bool = True
    """There are positions."""
    expand_norm: bool = False
    """The layer's first norm is computed before anything else of it."""
    residual_first: bool = False
    """ggml_add(residual, cur) instead of ggml_add(cur, residual)."""
    logits_or_embeddings: bool = False
    """Without logits where embeddings are asked for."""
    rows: Literal["mixed", "added", "end"] = "mixed"
    """Where the last layer is cut to the tokens with an output: its mixer's result, the sum with the residual, or not before
    the output norm, whose result for all tokens is kept for MTP (t_h_nextn)."""
    residual_scale: bool = False
    logit_scale: bool = False
    output_norm: str = "output_norm"


def _rope_unless_switched_off(g: GraphContext) -> bool:
    """Granite uses rope.scaling.finetuned as the switch for rope."""
    return g.get_bool("rope.scaling.finetuned", default=True)


MAMBA, MAMBA2, PLAMO2 = recurrent(build_mamba_layer), recurrent(build_mamba2_layer), recurrent(build_plamo2_mamba_layer)
SHORT_CONV = recurrent(build_shortconv_block)
QWEN3NEXT = recurrent(partial(build_linear_attention, gates=from_shared, repeat=True))
QWEN35 = recurrent(partial(build_linear_attention, gates=from_separate))
KIMI, BAILING = recurrent(build_kda_layer), recurrent(partial(build_kda_layer, kind=BAILING_KDA))

QWEN_EXPERTS = with_shared_expert(experts(), gated=True)

# fmt: off
ROWS: dict[str, Hybrid] = {
    "mamba": Hybrid(MAMBA),
    "mamba2": Hybrid(MAMBA2),
    "jamba": Hybrid(MAMBA, self_attention(rope=False), pos=False, residual_first=True,
        ffn=sparse_or_dense(experts(norm_w=False), dense())),
    "falcon-h1": Hybrid(MAMBA2, self_attention(), rows="added", ffn=dense()),
    "plamo2": Hybrid(PLAMO2, self_attention(qk_norm=True), ffn=swiglu_in_one,
        post_norms=("post_attention_norm", "post_ffw_norm")),
    "granitehybrid": Hybrid(MAMBA2, self_attention(wo_bias=True, factors=True), residual_scale=True, logit_scale=True,
        ffn=sparse_or_dense(with_shared_expert(experts()), dense())),
    "nemotron_h": Hybrid(MAMBA2, self_attention(rope=False, wo_bias=True), pos=False, rows="end",
        neither=sparse_or_dense(latent_experts, relu_squared)),
    "lfm2": Hybrid(SHORT_CONV, self_attention(qk_norm=True), ffn=dense(), residual_first=True, output_norm="token_embd_norm",
                   logits_or_embeddings=True),
    "lfm2moe": Hybrid(SHORT_CONV, self_attention(qk_norm=True), residual_first=True, output_norm="token_embd_norm",
                      logits_or_embeddings=True,
        ffn=after_dense_lead(deepseek_experts(norm_w=True, scaled=False), dense())),
    "qwen3next": Hybrid(QWEN3NEXT, partial(build_gated_attention, folded=True), expand_norm=True, rows="end",
        ffn_norm="post_attention_norm", ffn=sparse_or_dense(QWEN_EXPERTS, dense())),
    "qwen35": Hybrid(QWEN35, build_gated_attention, expand_norm=True, rows="end", ffn_norm="post_attention_norm",
        ffn=dense()),
    "qwen35moe": Hybrid(QWEN35, build_gated_attention, expand_norm=True, rows="end", ffn_norm="post_attention_norm",
        ffn=QWEN_EXPERTS),
    "kimi-linear": Hybrid(KIMI, build_mla(), pos=False, expand_norm=True,
        ffn=after_dense_lead(with_shared_expert(deepseek_experts(norm_w=True)), dense())),
    "bailingmoe3": Hybrid(BAILING, build_mla(gate="heads"), rows="end",
        ffn=after_dense_lead(with_shared_expert(deepseek_experts()), dense())),
}
# fmt: on
ROWS["nemotron_h_moe"] = ROWS["nemotron_h"]


def build(g: GraphContext) -> None:
    """Draw the graph of a row."""
    row = ROWS[g.arch]
    residual = g.build_inp_embd()
    inputs = _inputs(g, row)
    out_ids = g.build_inp_out_ids()
    for il in g.layers():
        g.tap(il, residual)
        picked = out_ids if il == g.n_layer - 1 else None
        residual = _mixed(g, row, inputs, residual, il, picked)
        if row.ffn is not None:
            residual = _fed_forward(g, row, row.ffn, residual, il)
    g.tap(g.n_layer, residual)
    _output(g, row, residual, out_ids)


def _inputs(g: GraphContext, row: Hybrid) -> Inputs:
    pos = g.build_inp_pos() if row.pos and (g.arch != "granitehybrid" or _rope_unless_switched_off(g)) else None
    if g.model.memory == "recurrent":
        return Inputs(None, g.build_rs_inp(), pos)
    if g.model.memory == "hybrid_iswa":
        memory = g.build_inp_mem_hybrid_iswa()
    elif g.model.is_mla:
        memory = g.build_inp_mem_hybrid_k()
    else:
        memory = g.build_inp_mem_hybrid()
    return Inputs(memory.attn, memory.rs, pos)


def _mixed(g: GraphContext, row: Hybrid, inputs: Inputs, residual: Tensor, il: int, out_ids: Tensor | None) -> Tensor:
    """The residual after a layer's mixer."""
    cur = g.build_norm(residual, g.w("attn_norm", il), LLM_NORM_RMS, il)
    if row.expand_norm:
        g.expand(cur)
    layer = g.hparams(il)
    if layer.is_recurrent and layer.has_kv and row.attention is not None:
        attended = row.attention(g, inputs, cur, il)
        cur = g.build_norm(residual, g.w("attn_norm", il), LLM_NORM_RMS, il)
        cur = ggml.add(attended, row.recurrent(g, inputs, cur, il))
    else:
        cur = _mixer(row, layer)(g, inputs, cur, il)
    if row.rows == "mixed" and out_ids is not None:
        cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
    cur = _post_normed(g, row, cur, il, 0)
    cur = _added(g, row, cur, residual)
    return ggml.get_rows(cur, out_ids) if row.rows == "added" and out_ids is not None else cur


def _mixer(row: Hybrid, layer: Layer) -> Mixer:
    if layer.is_recurrent or row.attention is None:
        return row.recurrent
    if row.neither is not None and layer.n_ff > 0:
        ffn = row.neither
        return lambda g, _, cur, il: ffn(g, cur, il)
    return row.attention


def _fed_forward(g: GraphContext, row: Hybrid, ffn: FeedForward, residual: Tensor, il: int) -> Tensor:
    """The residual after a layer's feed-forward block."""
    cur = ffn(g, g.build_norm(residual, g.w(row.ffn_norm, il), LLM_NORM_RMS, il), il)
    return _added(g, row, _post_normed(g, row, cur, il, 1), residual)


def _post_normed(g: GraphContext, row: Hybrid, cur: Tensor, il: int, which: int) -> Tensor:
    return cur if row.post_norms is None else g.build_norm(cur, g.w(row.post_norms[which], il), LLM_NORM_RMS, il)


def _added(g: GraphContext, row: Hybrid, cur: Tensor, residual: Tensor) -> Tensor:
    if row.residual_scale and g.get_float("residual_scale"):
        cur = ggml.scale(cur)
    return ggml.add(residual, cur) if row.residual_first else ggml.add(cur, residual)


def _output(g: GraphContext, row: Hybrid, residual: Tensor, out_ids: Tensor) -> None:
    cur = g.build_norm(residual, g.w(row.output_norm), LLM_NORM_RMS)
    if row.rows == "end":
        cur.is_output = True
        cur = ggml.get_rows(cur, out_ids)
    g.keep_embd(cur)
    if row.logits_or_embeddings and g.params.pooling is not None:
        g.expand(cur)
        return
    logits = g.logits(cur)
    if row.logit_scale and g.get_float("logit_scale"):
        logits = ggml.scale(logits)
    logits.is_output = True
    g.expand(logits)
