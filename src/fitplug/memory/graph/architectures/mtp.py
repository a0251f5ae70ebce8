"""MTP blocks that draft (LLM_GRAPH_TYPE_DECODER_MTP): the next token's embedding beside the state before it, then one layer.

A row says what an architecture does its own way (graph_mtp of src/models/NAME.cpp); its layer is mostly the trunk's.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.architectures import cohere2moe, deepseek2, gated_heads, plain
from fitplug.memory.graph.architectures.decoder import DecoderGraph
from fitplug.memory.graph.architectures.deepseek4 import build_mtp as build_deepseek4
from fitplug.memory.graph.architectures.hybrid import QWEN_EXPERTS
from fitplug.memory.graph.attention import InpAttnK, InpAttnKv, InpAttnKvIswa
from fitplug.memory.graph.base import LLM_NORM, LLM_NORM_RMS
from fitplug.memory.graph.blocks.gated_attention import build_gated_attention
from fitplug.memory.graph.blocks.hybrid_mla import build_mla
from fitplug.memory.graph.blocks.mixing import (
    FeedForward,
    Inputs,
    Mixer,
    attention_of,
    deepseek_experts,
    dense,
    latent_experts,
    self_attention,
    with_shared_expert,
)
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import SIGMOID
from fitplug.memory.graph.tensor import Tensor

Block: TypeAlias = Callable[[GraphContext, Inputs, Tensor, int, Tensor], Tensor]
"""(g, inputs, residual, il, rows asked for) → the layer's output."""
Cut = Literal["", "mixed", "added"]


class Mtp(NamedTuple):
    """One architecture."""

    block: Block
    rows: Literal["normed", "layer", "inside"] = "normed"
    """Where only the tokens with an output are kept: after the head's norm, before it, or within the layer."""
    norm: Callable[[GraphContext], str] = lambda _: LLM_NORM_RMS
    head_norm: str = ""
    """The kind of the head's norm where not that of the others."""
    head_norms: tuple[str, ...] = ("nextn.shared_head_norm",)
    """What the block may have instead of the model's output norm."""
    scaled: bool = True
    """NAME.scale of the matrices that only MTP blocks have is used."""
    own_ends: bool = True
    """Uses embeddings and an output of its own where the file has them."""
    logit_scale: bool = False


def layer_of(attention: Mixer, ffn: FeedForward, *, ffn_norm: str = "ffn_norm", cut: Cut = "") -> Block:
    """A layer of the common plan."""

    def block(g: GraphContext, inputs: Inputs, residual: Tensor, il: int, out_ids: Tensor) -> Tensor:
        cur = attention(g, inputs, g.build_norm(residual, g.w("attn_norm", il), LLM_NORM_RMS, il), il)
        if cut == "mixed":
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        cur = ggml.add(cur, residual)
        if cut == "added":
            cur = ggml.get_rows(cur, out_ids)
        return ggml.add(ffn(g, g.build_norm(cur, g.w(ffn_norm, il), LLM_NORM_RMS, il), il), cur)

    return block


def _latent(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> Tensor:
    inp = attention_of(inputs)
    if not isinstance(inp, InpAttnK):
        raise TypeError("drafts by latent attention need MLA")
    return deepseek2.latent_attention(g, inp, g.need(inputs.pos), None, cur, il)


def _gated_heads(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> Tensor:
    inp = attention_of(inputs)
    if not isinstance(inp, InpAttnKvIswa):
        raise TypeError("windows need two caches")
    return gated_heads.attention(g, gated_heads.ROWS[g.arch], inp, g.need(inputs.pos), cur, il)


def _decoder_layer(g: GraphContext, inputs: Inputs, residual: Tensor, il: int, _: Tensor) -> Tensor:
    """A layer of the trunk's own row."""
    graph = DecoderGraph(g, plain.ROWS[g.arch])
    graph.inp_attn, graph.inp_pos = attention_of(inputs), inputs.pos
    return graph.layer(residual, il)


def _side_by_side(g: GraphContext, inputs: Inputs, residual: Tensor, il: int, _: Tensor) -> Tensor:
    """Cohere's, whose MTP block always turns by position."""
    return cohere2moe.layer(g, attention_of(inputs), g.need(inputs.pos), residual, il)


LATENT_EXPERTS: FeedForward = lambda g, cur, il: deepseek2.feed_forward(  # noqa: E731 - a value like the others of the rows
    g, cur, il, dense=False, gating=deepseek2.default_gating(g) if g.arch == "deepseek2" else SIGMOID
)
QWEN = "post_attention_norm"
ROWS: dict[str, Mtp] = {
    "qwen3next": Mtp(layer_of(build_gated_attention, QWEN_EXPERTS, ffn_norm=QWEN, cut="mixed"), rows="inside"),
    "qwen35": Mtp(layer_of(build_gated_attention, dense(), ffn_norm=QWEN)),
    "qwen35moe": Mtp(layer_of(build_gated_attention, QWEN_EXPERTS, ffn_norm=QWEN)),
    **dict.fromkeys(("deepseek2", "mistral4", "deepseek32", "glm-dsa"), Mtp(layer_of(_latent, LATENT_EXPERTS))),
    "bailingmoe3": Mtp(
        layer_of(build_mla(gate="heads"), with_shared_expert(deepseek_experts())), scaled=False, own_ends=False,
    ),
    "nemotron_h_moe": Mtp(
        layer_of(self_attention(rope=False, wo_bias=True), latent_experts, ffn_norm=QWEN, cut="added"), rows="inside",
        head_norm=LLM_NORM,
    ),
    "glm4moe": Mtp(_decoder_layer),
    "hy_v3": Mtp(_decoder_layer, scaled=False),
    "mimo2": Mtp(_decoder_layer, rows="layer", head_norms=("nextn.shared_head_norm", "layer_output_norm")),
    "step35": Mtp(layer_of(_gated_heads, gated_heads.feed_forward), rows="layer", scaled=False),
    "cohere2moe": Mtp(_side_by_side, norm=cohere2moe.norm_kind, logit_scale=True),
}  # fmt: skip

OWN: dict[str, Callable[[GraphContext], None]] = {"deepseek4": build_deepseek4}
"""Those with a graph of their own."""


def build(g: GraphContext) -> None:
    """Draw the graph of the first MTP block."""
    draw = OWN.get(g.arch)
    if draw is not None:
        draw(g)
        return
    row, il = ROWS[g.arch], g.n_layer
    norm = row.norm(g)
    cur = _fused_input(g, il, norm, scaled=row.scaled, own_ends=row.own_ends)
    inputs = Inputs(_memory(g), None, g.build_inp_pos())
    out_ids = g.build_inp_out_ids()
    cur = row.block(g, inputs, cur, il, out_ids)
    if row.rows == "layer":
        cur = ggml.get_rows(cur, out_ids)
        cur.is_output = True
    own = next((g.w(name, il) for name in row.head_norms if g.w(name, il).weight is not None), g.w("output_norm"))
    cur = g.build_norm(cur, own._replace(bias=None), row.head_norm or norm)
    if row.rows != "layer":
        cur.is_output = True
    if row.rows == "normed":
        cur = ggml.get_rows(cur, out_ids)
    logits = _head(g, row, cur, il)
    if row.logit_scale and g.get_float("logit_scale"):
        logits = ggml.scale(logits)
    logits.is_output = True
    g.t_logits = logits
    g.expand(logits)


def _fused_input(g: GraphContext, il: int, norm: str, *, scaled: bool = True, own_ends: bool = True) -> Tensor:
    """The token's embedding and the state before it, each normed, side by side through one matrix (llm_graph_input_embd_h)."""
    tokens, state = ggml.new_input("i32", g.n_tokens), ggml.new_input("f32", g.n_embd, g.n_tokens)
    own = g.w("nextn.embed_tokens", il).weight if own_ends else None
    embd = ggml.get_rows(own if own is not None else g.need(g.tok_embd, "token_embd.weight"), tokens)
    states_norm = g.build_norm(state, g.w("nextn.hnorm", il), norm, il)
    embd_norm = g.build_norm(embd, g.w("nextn.enorm", il), norm, il)
    scale = g.tensor(f"blk.{il}.nextn.eh_proj.scale") if scaled else None
    return g.build_lora_mm(g.w("nextn.eh_proj", il).weight, ggml.concat(embd_norm, states_norm, 0), scale)


def _head(g: GraphContext, row: Mtp, cur: Tensor, il: int) -> Tensor:
    own = g.w("nextn.shared_head_head", il).weight if row.own_ends else None
    if own is not None:
        return g.build_lora_mm(own, cur, g.tensor(f"blk.{il}.nextn.shared_head_head.scale") if row.scaled else None)
    return g.build_lora_mm(g.output.weight, cur, g.output.scale if row.scaled else None)


def _memory(g: GraphContext) -> InpAttnKv | InpAttnK | InpAttnKvIswa:
    if g.model.memory == "iswa":
        return g.build_attn_inp_kv_iswa()
    return g.build_attn_inp_k() if g.model.is_mla else g.build_attn_inp_kv()
