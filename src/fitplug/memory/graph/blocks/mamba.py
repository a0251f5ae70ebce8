"""Selective state spaces: Mamba and Mamba-2 (src/models/mamba-base.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.states import conv_with_state, n_snapshots, store_state
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def build_mamba_layer(g: GraphContext, inp: InpRs, cur: Tensor, il: int) -> Tensor:
    """llm_build_mamba_base::build_mamba_layer: every channel is a head of one."""
    d_inner, d_state, dt_rank = g.hparam("ssm_d_inner"), g.hparam("ssm_d_state"), g.hparam("ssm_dt_rank")
    n_seq_tokens, n_seqs = g.n_seq_tokens, g.n_seqs

    cur = ggml.reshape(cur, cur.ne[0], n_seq_tokens, n_seqs)
    xz = g.proj("ssm_in", cur, il)
    x = ggml.view_3d(xz, d_inner, n_seq_tokens, n_seqs, xz.nb[1], xz.nb[2])
    z = ggml.view_3d(xz, d_inner, n_seq_tokens, n_seqs, xz.nb[1], xz.nb[2], d_inner * F32)

    x = ggml.ssm_conv(
        conv_with_state(g, inp, g.rs.get_r_l(il), x, g.hparam("ssm_d_conv") - 1, n_slots=1), g.needed("ssm_conv1d", il)
    )
    x = ggml.silu(ggml.add(x, g.needed("ssm_conv1d", il, "bias")))

    x_db = g.proj("ssm_x", x, il)
    _, nb1, nb2, _ = x_db.nb
    dt = ggml.view_3d(x_db, dt_rank, n_seq_tokens, n_seqs, nb1, nb2)
    B = ggml.view_4d(x_db, d_state, 1, n_seq_tokens, n_seqs, d_state * F32, nb1, nb2, dt_rank * F32)  # noqa: N806 - the paper's names
    C = ggml.view_4d(x_db, d_state, 1, n_seq_tokens, n_seqs, d_state * F32, nb1, nb2, (dt_rank + d_state) * F32)  # noqa: N806 - as above
    norms = [g.w(name, il) for name in ("ssm_dt_norm", "ssm_b_norm", "ssm_c_norm")]
    if g.get_bool("ssm.dt_b_c_rms") or all(norm.weight is not None for norm in norms):
        dt, B, C = (g.build_norm(t, norm, LLM_NORM_RMS, il) for t, norm in zip((dt, B, C), norms, strict=True))  # noqa: N806 - as above
    else:
        dt = ggml.cont(dt)
    dt = ggml.add(g.proj("ssm_dt", dt, il), g.needed("ssm_dt", il, "bias"))

    heads = ggml.reshape(x, 1, d_inner, n_seq_tokens, n_seqs)
    A, D = g.needed_tensor(f"blk.{il}.ssm_a"), g.needed_tensor(f"blk.{il}.ssm_d")  # noqa: N806 - as above
    y_ssm = scan(g, inp, il, heads, dt, A, B, C)
    y = ggml.view_3d(y_ssm, d_inner, n_seq_tokens, n_seqs, heads.nb[2], heads.nb[3])
    y = ggml.add(y, ggml.mul(x, D))
    y = ggml.swiglu_split(ggml.cont(z), y)
    cur = g.proj("ssm_out", y, il)
    return ggml.reshape(cur, cur.ne[0], g.n_tokens)


def build_mamba2_layer(g: GraphContext, inp: InpRs, cur: Tensor, il: int) -> Tensor:
    """llm_build_mamba_base::build_mamba2_layer."""
    d_inner, d_state = g.hparam("ssm_d_inner"), g.hparam("ssm_d_state")
    n_head, n_group = g.hparam("ssm_dt_rank"), g.hparam("ssm_n_group")
    ggml.require("d_inner % n_head == 0", d_inner % n_head == 0)
    ggml.require("d_inner % n_group == 0", d_inner % n_group == 0)
    head_dim, n_conv = d_inner // n_head, d_inner + 2 * n_group * d_state
    n_seq_tokens, n_seqs = g.n_seq_tokens, g.n_seqs

    zxBCdt = g.proj("ssm_in", cur, il)  # noqa: N806 - llama.cpp's name
    zxBCdt = ggml.reshape(zxBCdt, zxBCdt.ne[0], n_seq_tokens, n_seqs)  # noqa: N806 - llama.cpp's name
    _, nb1, nb2, _ = zxBCdt.nb
    z = ggml.view_4d(zxBCdt, head_dim, n_head, n_seq_tokens, n_seqs, head_dim * F32, nb1, nb2)
    xBC = ggml.view_3d(zxBCdt, n_conv, n_seq_tokens, n_seqs, nb1, nb2, d_inner * F32)  # noqa: N806 - llama.cpp's name
    dt = ggml.view_3d(zxBCdt, n_head, n_seq_tokens, n_seqs, nb1, nb2, (d_inner + n_conv) * F32)

    n_slots = min(n_seq_tokens, n_snapshots(g))
    conv_x = conv_with_state(g, inp, g.rs.get_r_l(il), xBC, g.hparam("ssm_d_conv") - 1, n_slots=n_slots)
    xBC = ggml.ssm_conv(conv_x, g.needed("ssm_conv1d", il))  # noqa: N806 - llama.cpp's name
    xBC = ggml.silu(ggml.add(xBC, g.needed("ssm_conv1d", il, "bias")))  # noqa: N806 - llama.cpp's name

    _, nb1, nb2, _ = xBC.nb
    x = ggml.view_4d(xBC, head_dim, n_head, n_seq_tokens, n_seqs, head_dim * F32, nb1, nb2)
    groups = (d_state, n_group, n_seq_tokens, n_seqs, d_state * F32, nb1, nb2)
    B = ggml.view_4d(xBC, *groups, d_inner * F32)  # noqa: N806 - the paper's names
    C = ggml.view_4d(xBC, *groups, (d_inner + n_group * d_state) * F32)  # noqa: N806 - as above
    dt = ggml.add(ggml.cont(dt), g.needed("ssm_dt", il, "bias"))
    A, D = g.needed_tensor(f"blk.{il}.ssm_a"), g.needed_tensor(f"blk.{il}.ssm_d")  # noqa: N806 - as above
    y_ssm = scan(g, inp, il, x, dt, A, B, C, K=n_snapshots(g))
    row = n_head * x.nb[1]
    y = ggml.view_4d(y_ssm, head_dim, n_head, n_seq_tokens, n_seqs, x.nb[1], row, n_seq_tokens * row)
    y = ggml.add(y, ggml.mul(x, D))
    y = ggml.swiglu_split(ggml.cont(z), y)

    ssm_norm = g.w("ssm_norm", il)
    if ssm_norm.weight is not None:
        y = ggml.reshape(y, d_inner // n_group, n_group, n_seq_tokens, n_seqs)
        y = g.build_norm(y, ssm_norm, LLM_NORM_RMS, il)
    y = ggml.reshape(y, d_inner, g.n_tokens)
    return g.proj("ssm_out", y, il)


def scan(
    g: GraphContext, inp: InpRs, il: int, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, K: int = 1  # noqa: N803 - the paper's names
) -> Tensor:  # fmt: skip
    """ssm_scan over the states where they lie; its result holds the output and then the new states, which are kept."""
    s = g.rs.get_s_l(il)
    head_dim, n_head, n_seq_tokens, n_seqs = x.ne

    def get_ssm_rows(states: Tensor, ids: Tensor) -> Tensor:
        ssm = ggml.reshape(states, g.hparam("ssm_d_state"), head_dim, n_head, s.ne[1])
        return ggml.ssm_scan(ssm, x, dt, A, B, C, ids, K)

    y_ssm = g.build_rs(inp, s, s.ne[0], n_seqs, get_ssm_rows)
    row, first = s.ne[0] * F32, ggml.nelements(x) * F32
    for slot in range(min(n_seq_tokens, K)):
        store_state(g, ggml.view_2d(y_ssm, s.ne[0], n_seqs, row, first + slot * n_seqs * row), s, slot)
    return y_ssm
