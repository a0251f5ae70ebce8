"""Kimi Delta Attention: a gated delta net whose decay differs by channel (src/models/kimi-linear.cpp and its successors)."""

import math
from typing import Literal, NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.delta_net import DeltaInputs, build_gdn_l2_norm, build_recurrent_attn, load_state
from fitplug.memory.graph.blocks.states import n_snapshots
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


class Kda(NamedTuple):
    """How an architecture's layer departs from Kimi Linear's."""

    decay: Literal["softplus", "bounded", "bounded_or_softplus"] = "softplus"
    """The decay's activation: as in Kimi Linear; BailingMoe3's; by whether the file has kda.gate_lower_bound."""
    decay_rank: Literal["low", "full"] = "low"
    """The decay comes from ssm_f_a and ssm_f_b, or from ssm_f_a alone."""
    out_gate: tuple[str, ...] = ("ssm_g_a", "ssm_g_b")
    """The matrices of the output's gate."""
    gate_from_seqs: bool = True
    """The gate's input was folded by sequence, and is unfolded."""


KIMI_KDA = Kda()
KIMI_K3_KDA = Kda(decay="bounded_or_softplus", out_gate=("ssm_g",))
BAILING_KDA = Kda(decay="bounded", decay_rank="full", out_gate=("ssm_g_a",), gate_from_seqs=False)
GLM5_KDA = Kda(decay="bounded_or_softplus", gate_from_seqs=False)


def build_kda_layer(g: GraphContext, inp: InpRs, cur: Tensor, il: int, kind: Kda = KIMI_KDA) -> Tensor:
    """Q, K and V behind convolutions, the delta rule, a gated norm."""
    n_head, head_dim = g.n_head, g.hparam("n_embd_head_kda")
    n_tokens, by_seq = g.n_tokens, (g.n_seq_tokens, g.n_seqs)
    q, k, v = _convolved(g, inp, cur, il, n_head, head_dim)
    decay = ggml.reshape(_decay(g, cur, il, kind, n_head, head_dim), head_dim, n_head, *by_seq)
    beta = ggml.sigmoid(ggml.reshape(g.plain("ssm_beta", cur, il), 1, n_head, *by_seq))
    state = load_state(g, inp, il, head_dim, n_head)
    delta = DeltaInputs(build_gdn_l2_norm(q), build_gdn_l2_norm(k), v, decay, beta)
    output = ggml.cont(build_recurrent_attn(g, delta, state, il))

    gate = cur
    if kind.gate_from_seqs:
        gate = ggml.reshape(ggml.reshape(cur, cur.ne[0], *by_seq), cur.ne[0], n_tokens)
    for name in kind.out_gate:
        gate = g.plain(name, gate, il)
    gate = ggml.reshape(gate, head_dim, n_head, n_tokens)
    normed = ggml.reshape(output, head_dim, n_head, n_tokens)
    normed = g.build_norm(normed, g.w("ssm_norm", il), LLM_NORM_RMS, il)
    gated = ggml.mul(normed, ggml.sigmoid(gate))
    return g.plain("attn_output", ggml.cont(gated, head_dim * n_head, n_tokens), il)


def _convolved(g: GraphContext, inp: InpRs, cur: Tensor, il: int, n_head: int, head_dim: int) -> tuple[Tensor, ...]:
    """Three projections, each behind a convolution of its own; their states lie one after another in one row."""
    d_conv, d_inner = g.hparam("ssm_d_conv"), n_head * head_dim
    s = g.rs.get_r_l(il)
    states = g.build_rs(inp, s, s.ne[0], g.n_seqs)
    out = []
    for i, (name, x) in enumerate(_projections(g, cur, il, d_inner)):
        columns = ((d_conv - 1) * F32, s.ne[0] * F32)
        mine = i * (d_conv - 1) * d_inner * F32
        state = ggml.view_3d(states, d_conv - 1, d_inner, g.n_seqs, *columns, mine)
        x = ggml.reshape(x, d_inner, g.n_seq_tokens, g.n_seqs)  # noqa: PLW2901 - the same values
        conv_x = ggml.concat(state, ggml.transpose(x), 0)
        for slot in range(min(g.n_seq_tokens, n_snapshots(g))):
            first = (conv_x.ne[0] - (d_conv - 1) - slot) * F32
            last = ggml.view_3d(conv_x, d_conv - 1, d_inner, g.n_seqs, conv_x.nb[1], conv_x.nb[2], first)
            group = slot * g.rs.n_rs * s.nb[1]
            g.expand(ggml.cpy(last, ggml.view_3d(s, d_conv - 1, d_inner, g.n_seqs, *columns, group + mine)))
        kernel = ggml.reshape(g.needed(f"ssm_conv1d_{name}", il), d_conv, d_inner)
        x = ggml.silu(ggml.reshape(ggml.ssm_conv(conv_x, kernel), d_inner, g.n_tokens))  # noqa: PLW2901 - convolved
        out.append(ggml.reshape(x, head_dim, n_head, g.n_seq_tokens, g.n_seqs))
    return tuple(out)


def _projections(g: GraphContext, cur: Tensor, il: int, d_inner: int) -> list[tuple[str, Tensor]]:
    if g.w("attn_qkv", il).weight is None:
        return [(name, g.plain(f"attn_{name}", cur, il)) for name in "qkv"]
    qkv = g.plain("attn_qkv", cur, il)
    parts = (ggml.view_2d(qkv, d_inner, g.n_tokens, qkv.nb[1], i * d_inner * F32) for i in range(3))
    return [(name, ggml.cont(part)) for name, part in zip("qkv", parts, strict=True)]


def _decay(g: GraphContext, cur: Tensor, il: int, kind: Kda, n_head: int, head_dim: int) -> Tensor:
    gate = g.plain("ssm_f_a", cur, il)
    if kind.decay_rank == "low":
        gate = g.plain("ssm_f_b", gate, il)
    gate = ggml.add(gate, g.needed("ssm_dt", il, "bias"))
    A = ggml.reshape(g.needed_tensor(f"blk.{il}.ssm_a"), 1, n_head, 1)  # noqa: N806 - the paper's name
    if kind.decay == "bounded":
        gate = ggml.reshape(gate, head_dim, n_head, g.n_tokens)
        return ggml.scale(ggml.sigmoid(ggml.mul(gate, A)))
    if kind.decay == "bounded_or_softplus" and g.get_float("kda.gate_lower_bound", -math.inf) > -math.inf:
        gate = ggml.mul(ggml.reshape(gate, head_dim, n_head, g.n_tokens), A)
        return ggml.scale(ggml.sigmoid(ggml.scale(gate)))
    gate = ggml.reshape(ggml.softplus(gate), head_dim, n_head, g.n_tokens)
    return ggml.mul(gate, A)
