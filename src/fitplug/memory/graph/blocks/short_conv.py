"""LFM2's gated short convolution (src/models/lfm2.cpp, build_shortconv_block)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.states import conv_with_state, n_snapshots, store_conv
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def build_shortconv_block(g: GraphContext, inp: InpRs, cur: Tensor, il: int) -> Tensor:
    """Three projections in one: b gates before the convolution, c after it."""
    kernel, n_seq_tokens, n_seqs = g.hparam("n_shortconv_l_cache"), g.n_seq_tokens, g.n_seqs
    ggml.require("hparams.n_shortconv_l_cache > 1", kernel > 1)
    cur = ggml.reshape(cur, cur.ne[0], n_seq_tokens, n_seqs)
    bcx = g.proj("shortconv.in_proj", cur, il)
    ggml.require("bcx->ne[0] % n_chunks == 0", bcx.ne[0] % 3 == 0)
    n = bcx.ne[0] // 3
    b, c, x = (ggml.view_3d(bcx, n, n_seq_tokens, n_seqs, bcx.nb[1], bcx.nb[2], i * n * F32) for i in range(3))
    bx = ggml.mul(b, x)
    conv_x = (
        conv_with_state(g, inp, g.rs.get_r_l(il), bx, kernel - 1, n_slots=min(n_seq_tokens, n_snapshots(g)))
        if g.model.causal
        else _centred(g, inp, il, bx, kernel)
    )
    conv_out = ggml.ssm_conv(conv_x, g.needed("shortconv.conv", il))
    y = g.proj("shortconv.out_proj", ggml.mul(c, conv_out), il)
    return ggml.reshape(y, y.ne[0], g.n_tokens)


def _centred(g: GraphContext, inp: InpRs, il: int, bx: Tensor, kernel: int) -> Tensor:
    """Without causality the window is padded on both sides, half of it from the state."""
    s = g.rs.get_r_l(il)
    half = (kernel - 1) // 2
    conv = ggml.reshape(g.build_rs(inp, s, s.ne[0], g.n_seqs), kernel - 1, bx.ne[0], g.n_seqs)
    left = ggml.view_3d(conv, half, bx.ne[0], g.n_seqs, conv.nb[1], conv.nb[2], (kernel - 1 - half) * F32)
    conv_x = ggml.pad_ext(ggml.concat(ggml.cont(left), ggml.transpose(bx), 0), half)
    store_conv(g, conv_x, s, kernel - 1, 1)
    return conv_x
