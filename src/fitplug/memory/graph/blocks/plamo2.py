"""PLaMo-2's Mamba-2 without groups, whose B, C and dt are projected from the convolved channels (src/models/plamo2.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.mamba import scan
from fitplug.memory.graph.blocks.states import conv_with_state
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def build_plamo2_mamba_layer(g: GraphContext, inp: InpRs, cur: Tensor, il: int) -> Tensor:
    """llama_model_plamo2::graph::build_plamo2_mamba_layer."""
    d_inner, d_state, n_heads = g.hparam("ssm_d_inner"), g.hparam("ssm_d_state"), g.hparam("ssm_dt_rank")
    ggml.require("d_inner % n_heads == 0", d_inner % n_heads == 0)
    ggml.require("n_group == 0", g.hparam("ssm_n_group") == 0)
    head_dim, by_seq = d_inner // n_heads, (g.n_seq_tokens, g.n_seqs)

    zx = g.proj("ssm_in", ggml.reshape(cur, cur.ne[0], *by_seq), il)
    zx = ggml.cont(ggml.permute(zx, 0, 2, 1, 3), head_dim * 2, n_heads, *by_seq)
    x = ggml.cont(ggml.view_4d(zx, head_dim, n_heads, *by_seq, *zx.nb[1:], head_dim * F32), d_inner, *by_seq)
    z = ggml.view_4d(zx, head_dim, n_heads, *by_seq, *zx.nb[1:])

    conv_x = conv_with_state(g, inp, g.rs.get_r_l(il), x, g.hparam("ssm_d_conv") - 1, n_slots=1)
    x = ggml.silu(ggml.ssm_conv(conv_x, g.needed("ssm_conv1d", il)))
    dt, B, C = _selected(g, x, il, d_state)  # noqa: N806 - the paper's names
    A = ggml.reshape(g.needed_tensor(f"blk.{il}.ssm_a"), 1, n_heads)  # noqa: N806 - as above
    D = ggml.reshape(g.needed_tensor(f"blk.{il}.ssm_d"), 1, n_heads)  # noqa: N806 - as above
    row = d_inner * F32
    heads = (head_dim, n_heads, *by_seq, head_dim * F32, row, row * g.n_seq_tokens)
    x = ggml.view_4d(x, *heads)
    y_ssm = scan(g, inp, il, x, dt, A, B, C)
    y = ggml.add(ggml.view_4d(y_ssm, *heads), ggml.mul(x, D))
    y = ggml.swiglu_split(ggml.cont(z), y)
    cur = g.proj("ssm_out", ggml.view_3d(y, d_inner, *by_seq, y.nb[2], y.nb[3]), il)
    return ggml.reshape(cur, cur.ne[0], g.n_tokens)


def _selected(g: GraphContext, x: Tensor, il: int, d_state: int) -> tuple[Tensor, Tensor, Tensor]:
    """What depends on the token: dt, B and C, each normed."""
    dt_dim, by_seq = max(64, g.n_embd // 16), (g.n_seq_tokens, g.n_seqs)
    x_bcdt = g.proj("ssm_x", x, il)
    _, nb1, nb2, _ = x_bcdt.nb
    B = ggml.view_3d(x_bcdt, d_state, *by_seq, nb1, nb2)  # noqa: N806 - the paper's names
    C = ggml.view_3d(x_bcdt, d_state, *by_seq, nb1, nb2, d_state * F32)  # noqa: N806 - as above
    dt = ggml.view_3d(x_bcdt, dt_dim, *by_seq, nb1, nb2, 2 * d_state * F32)
    B, C, dt = (  # noqa: N806 - as above
        g.build_norm(t, g.w(f"ssm_{name}_norm", il), LLM_NORM_RMS, il) for name, t in (("b", B), ("c", C), ("dt", dt))
    )
    dt = ggml.add(g.proj("ssm_dt", dt, il), g.needed("ssm_dt", il, "bias"))
    groups = (d_state, 1, *by_seq, d_state * F32)
    return dt, ggml.view_4d(B, *groups, B.nb[1], B.nb[2]), ggml.view_4d(C, *groups, C.nb[1], C.nb[2])
