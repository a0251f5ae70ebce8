"""Gated delta nets: linear attention with a matrix per head as its state (src/models/delta-net-base.cpp).

llama.cpp's fused operation is always on (cparams.fused_gdn_ar and _ch in llama_context's constructor, src/llama-context.cpp).
"""

from collections.abc import Callable
from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.states import conv_with_state, n_snapshots, store_state
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def build_gdn_l2_norm(x: Tensor) -> Tensor:
    """build_gdn_l2_norm (src/models/models.h)."""
    return ggml.scale(ggml.rms_norm(x))


def load_state(g: GraphContext, inp: InpRs, il: int, head_dim: int, n_head: int) -> Tensor:
    """The heads' matrices of the batch's sequences."""
    s = g.rs.get_s_l(il)
    return ggml.reshape(g.build_rs(inp, s, s.ne[0], g.n_seqs), head_dim, head_dim, n_head, g.n_seqs)


class DeltaInputs(NamedTuple):
    """The operands of one delta rule, heads on the second dimension: [n, n_head, n_seq_tokens, n_seqs]."""

    q: Tensor
    k: Tensor
    v: Tensor
    gate: Tensor
    beta: Tensor


def build_recurrent_attn(g: GraphContext, d: DeltaInputs, state: Tensor, il: int) -> Tensor:
    """llm_build_delta_net_base::build_recurrent_attn: the op's result holds the output and then the new states."""
    n_kept = n_snapshots(g)
    result = ggml.gated_delta_net(d.q, d.k, d.v, d.gate, d.beta, state, n_kept)
    n, n_head, n_seq_tokens, n_seqs = d.v.ne
    row = n * n_head * F32
    output = ggml.view_4d(result, n, n_head, n_seq_tokens, n_seqs, n * F32, row, row * n_seq_tokens)
    s, first = g.rs.get_s_l(il), row * n_seq_tokens * n_seqs
    if n_kept == 1:
        store_state(g, ggml.view_4d(result, n, n, n_head, n_seqs, n * F32, n * n * F32, n * row, first), s)
        return output
    width, written = n * row, min(n_seq_tokens, n_kept)
    new = ggml.view_3d(result, n * n * n_head, n_seqs, written, width, width * n_seqs, first)
    g.expand(ggml.cpy(new, ggml.view_3d(s, *new.ne[:3], s.nb[1], g.rs.n_rs * s.nb[1])))
    return output


def split_conv(g: GraphContext, conv: Tensor, head_k: int, n_k: int, head_v: int, n_v: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V out of one convolution's channels."""
    n_seq_tokens, n_seqs = g.n_seq_tokens, g.n_seqs
    nb1 = (2 * head_k * n_k + head_v * n_v) * F32
    rest = (n_seq_tokens, n_seqs)
    q = ggml.view_4d(conv, head_k, n_k, *rest, head_k * F32, nb1, nb1 * n_seq_tokens)
    k = ggml.view_4d(conv, head_k, n_k, *rest, head_k * F32, nb1, nb1 * n_seq_tokens, head_k * n_k * F32)
    v = ggml.view_4d(conv, head_v, n_v, *rest, head_v * F32, nb1, nb1 * n_seq_tokens, 2 * head_k * n_k * F32)
    return q, k, v


def gated_norm(g: GraphContext, cur: Tensor, gate: Tensor, il: int, act: str) -> Tensor:
    """build_norm_gated."""
    return ggml.mul(g.build_norm(cur, g.w("ssm_norm", il), LLM_NORM_RMS, il), ggml.unary(gate, act))


class Gates(NamedTuple):
    """How strongly the delta rule writes (before its sigmoid's shape is settled), and what its decay is made from."""

    beta: Tensor
    alpha: Tensor


GatesOf = Callable[[GraphContext, Tensor, int], Gates]


def from_separate(g: GraphContext, cur: Tensor, il: int) -> Gates:
    """Qwen3.5: a matrix for each."""
    n_v, by_seq = g.hparam("ssm_dt_rank"), (g.n_seq_tokens, g.n_seqs)
    beta = ggml.sigmoid(ggml.reshape(g.proj("ssm_beta", cur, il), 1, n_v, *by_seq))
    return Gates(beta, ggml.reshape(g.proj("ssm_alpha", cur, il), n_v, *by_seq))


def from_shared(g: GraphContext, cur: Tensor, il: int) -> Gates:
    """Qwen3-Next: one matrix, both interleaved by K's heads."""
    n_k, n_v, by_seq = g.hparam("ssm_n_group"), g.hparam("ssm_dt_rank"), (g.n_seq_tokens, g.n_seqs)
    ratio = n_v // n_k
    ba = ggml.reshape(g.proj("ssm_ba", cur, il), 2 * ratio, n_k, *by_seq)
    b = ggml.view_4d(ba, ratio, n_k, *by_seq, *ba.nb[1:])
    a = ggml.view_4d(ba, ratio, n_k, *by_seq, *ba.nb[1:], ratio * F32)
    beta = ggml.sigmoid(ggml.cont(b))
    alpha = ggml.cont(a, n_v, *by_seq)
    return Gates(ggml.reshape(beta, 1, n_v, *by_seq), alpha)


def build_linear_attention(
    g: GraphContext,
    inp: InpRs,
    cur: Tensor,
    il: int,
    *,
    gates: GatesOf,
    repeat: bool = False,
    act: str = "silu",
    cont: bool = False,
) -> Tensor:
    """build_layer_attn_linear (src/models/qwen3next.cpp, qwen35.cpp, qwen4exp.cpp).

    `repeat` brings K's heads to the number of V's, `act` gates the output, `cont` copies the convolution's state before it is
    kept.
    """
    d_inner, head_k = g.hparam("ssm_d_inner"), g.hparam("ssm_d_state")
    n_k, n_v = g.hparam("ssm_n_group"), g.hparam("ssm_dt_rank")
    head_v = d_inner // n_v
    ggml.require("num_v_heads % num_k_heads == 0", n_v % n_k == 0)
    by_seq = (g.n_seq_tokens, g.n_seqs)
    qkv, z = _qkvz(g, cur, il, head_k, n_k, head_v, n_v)
    beta, alpha = gates(g, cur, il)
    decay = ggml.softplus(ggml.add(alpha, g.needed("ssm_dt", il, "bias")))
    decay = ggml.reshape(ggml.mul(decay, g.needed_tensor(f"blk.{il}.ssm_a")), 1, n_v, *by_seq)

    kernel = g.needed("ssm_conv1d", il)
    conv_x = conv_with_state(g, inp, g.rs.get_r_l(il), qkv, kernel.ne[0] - 1, cont=cont)
    state = load_state(g, inp, il, head_v, n_v)
    q, k, v = split_conv(g, ggml.silu(ggml.ssm_conv(conv_x, kernel)), head_k, n_k, head_v, n_v)
    q, k = build_gdn_l2_norm(q), build_gdn_l2_norm(k)
    if repeat and n_k != n_v:
        q, k = _interleaved(g, q, n_v // n_k), _interleaved(g, k, n_v // n_k)
    output = build_recurrent_attn(g, DeltaInputs(q, k, v, decay, beta), state, il)
    output = gated_norm(g, output, ggml.reshape(z, head_v, n_v, *by_seq), il, act)
    output = g.proj("ssm_out", ggml.reshape(output, d_inner, *by_seq), il)
    return ggml.reshape(output, g.n_embd, g.n_tokens)


def _interleaved(g: GraphContext, t: Tensor, times: int) -> Tensor:
    """Each head as often as it serves heads of V."""
    n, n_head, _, _ = t.ne
    t = ggml.repeat_4d(ggml.reshape(t, n, 1, n_head, g.n_tokens), n, times, n_head, g.n_tokens)
    return ggml.reshape(t, n, n_head * times, g.n_seq_tokens, g.n_seqs)


def _qkvz(g: GraphContext, cur: Tensor, il: int, head_k: int, n_k: int, head_v: int, n_v: int) -> tuple[Tensor, Tensor]:
    """build_qkvz: the convolution's input, and the output's gate."""
    by_seq = (g.n_seq_tokens, g.n_seqs)
    if g.w("attn_qkv", il).weight is not None:
        qkv = g.proj("attn_qkv", cur, il)
        return ggml.reshape(qkv, qkv.ne[0], *by_seq), g.proj("attn_gate", cur, il)
    served = head_v * n_v // n_k
    mixed = ggml.reshape(g.proj("ssm_in", cur, il), 2 * head_k + 2 * served, n_k, *by_seq)
    starts = (0, head_k, 2 * head_k, 2 * head_k + served)
    q, k, v, z = (
        ggml.view_4d(mixed, width, n_k, *by_seq, *mixed.nb[1:], start * F32)
        for width, start in zip((head_k, head_k, served, served), starts, strict=True)
    )
    z = ggml.cont(z)
    q, k = ggml.cont(q, head_k * n_k, *by_seq), ggml.cont(k, head_k * n_k, *by_seq)
    return ggml.concat(ggml.concat(q, k, 0), ggml.cont(v, head_v * n_v, *by_seq), 0), z
