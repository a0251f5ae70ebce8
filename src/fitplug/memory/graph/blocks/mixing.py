"""Mixers and feed-forward blocks as values, so that a row of a table can name them."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnK, InpAttnKv, InpAttnKvIswa
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, PAR, RELU_SQR, SEQ, SIGMOID, SILU, SWIGLU
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


class Inputs(NamedTuple):
    """What the layers of a hybrid read besides the residual; an MTP block has attention alone."""

    attn: InpAttnKv | InpAttnK | InpAttnKvIswa | None
    rs: InpRs | None
    pos: Tensor | None


Mixer: TypeAlias = Callable[[GraphContext, Inputs, Tensor, int], Tensor]
"""(g, inputs, normed residual, il) → what is added to the residual."""
FeedForward: TypeAlias = Callable[[GraphContext, Tensor, int], Tensor]


def recurrent(layer: Callable[[GraphContext, InpRs, Tensor, int], Tensor]) -> Mixer:
    """A mixer with a state."""

    def mix(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> Tensor:
        if inputs.rs is None:
            raise TypeError("a context without states has no recurrent layers")
        return layer(g, inputs.rs, cur, il)

    return mix


def attention_of(inputs: Inputs) -> InpAttnKv | InpAttnK | InpAttnKvIswa:
    """The cache's inputs."""
    if inputs.attn is None:
        raise TypeError("a model without a cache cannot attend")
    return inputs.attn


def self_attention(*, rope: bool = True, qk_norm: bool = False, wo_bias: bool = False, factors: bool = False) -> Mixer:
    """build_qkv, norms of Q and K, rope, build_attn; `factors` where the file's rope frequencies are used."""

    def mix(g: GraphContext, inputs: Inputs, cur: Tensor, il: int) -> Tensor:
        q, k, v = g.build_qkv(il, cur)
        if qk_norm:
            q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
            k = g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
        if rope and inputs.pos is not None:
            frequencies = g.rope_factors(il) if factors else None
            q, k = ggml.rope_ext(q, inputs.pos, frequencies), ggml.rope_ext(k, inputs.pos, frequencies)
        wo = g.w("attn_output", il)
        return g.build_attn(attention_of(inputs), wo if wo_bias else wo._replace(bias=None), q, k, v, il)

    return mix


def dense(act: str = SILU, gate: str = PAR) -> FeedForward:
    """build_ffn."""
    return lambda g, cur, il: g.ffn(cur, il, act, gate)


swiglu_in_one = dense(SWIGLU, SEQ)
"""Gate and up in one matrix."""
relu_squared = dense(RELU_SQR)


def experts(*, norm_w: bool = True, scaled: bool = False) -> FeedForward:
    """build_moe_ffn with softmax; `scaled` where the architecture reads expert_weights_scale."""

    def ffn(g: GraphContext, cur: Tensor, il: int) -> Tensor:
        scale = g.get_float("expert_weights_scale") if scaled else 0.0
        return g.build_moe_ffn(cur, g.experts(il), il, norm_w=norm_w, w_scale=scale)

    return ffn


def deepseek_experts(*, norm_w: bool | None = None, scaled: bool = True) -> FeedForward:
    """build_moe_ffn with the file's own gating function; `norm_w` None: as expert_weights_norm says."""

    def ffn(g: GraphContext, cur: Tensor, il: int) -> Tensor:
        scale = g.get_float("expert_weights_scale") if scaled else 0.0
        normed = g.get_bool("expert_weights_norm") if norm_w is None else norm_w
        return g.build_moe_ffn(cur, g.experts(il), il, norm_w=normed, w_scale=scale, gating_op=gating_op(g))

    return ffn


def latent_experts(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    """Nemotron-H's: squared ReLU without gates, possibly in a narrower space, beside a shared expert at full width."""
    latent = g.plain("ffn_latent_down", cur, il) if g.w("ffn_latent_down", il).weight is not None else cur
    logits = g.proj("ffn_gate_inp", cur, il)
    out = g.build_moe_ffn(
        latent, g.experts(il), il, n_expert_used=g.hparams(il).n_expert_used, type_op=RELU_SQR, gating_op=SIGMOID,
        norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"), probs_in=logits,
    )  # fmt: skip
    if g.w("ffn_latent_up", il).weight is not None:
        out = g.plain("ffn_latent_up", out, il)
    return ggml.add(out, g.ffn(cur, il, RELU_SQR, suffix="_shexp"))


def gating_op(g: GraphContext) -> str:
    """hparams.expert_gating_func; sigmoid where a DeepSeek-like file leaves it out."""
    return GATING_FUNCS.get(g.hparam("expert_gating_func"), SIGMOID)


def sparse_or_dense(sparse: FeedForward, plain: FeedForward) -> FeedForward:
    """Experts in those layers whose file has a router."""
    return lambda g, cur, il: (sparse if g.w("ffn_gate_inp", il).weight is not None else plain)(g, cur, il)


def after_dense_lead(sparse: FeedForward, plain: FeedForward) -> FeedForward:
    """Experts in all layers but the first few: hparams.n_layer_dense_lead."""
    return lambda g, cur, il: (plain if il < g.hparam("n_layer_dense_lead") else sparse)(g, cur, il)


def with_shared_expert(routed: FeedForward, act: str = SILU, *, gated: bool = False) -> FeedForward:
    """Routed experts and, where the file has it, one that sees every token, possibly behind a gate of its own."""

    def ffn(g: GraphContext, cur: Tensor, il: int) -> Tensor:
        out = routed(g, cur, il)
        if g.w("ffn_up_shexp", il).weight is None:
            return out
        shared = g.ffn(cur, il, act, suffix="_shexp")
        if gated:
            shared = ggml.mul(shared, ggml.sigmoid(g.proj("ffn_gate_inp_shexp", cur, il)))
        return ggml.add(out, shared)

    return ffn
