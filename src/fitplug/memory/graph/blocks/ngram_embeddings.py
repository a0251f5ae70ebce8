"""Hashed n-gram embeddings, added to the residual streams in one layer (src/models/qwen4exp.cpp, build_ple)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.states import conv_with_state
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def build_inp_ple(g: GraphContext) -> Tensor:
    """The rows of all hash heads, for each token in one row."""
    n_heads = (g.hparam("ple_ngram_size") - 1) * g.hparam("ple_heads_per_ngram")
    table = g.needed_tensor("per_layer_token_embd.weight")
    rows = ggml.new_input("i32", n_heads * g.n_tokens)
    embd = ggml.reshape(ggml.get_rows(table, rows), g.hparam("n_embd_per_layer") * n_heads, g.n_tokens)
    g.expand(embd)
    return embd


def build_ple(g: GraphContext, inp: InpRs, embd: Tensor, hidden: Tensor, il: int) -> Tensor:
    """Gated by how the streams and the n-grams agree; beside the plain value a convolved one."""
    n_embd, hc, n_tokens, _ = hidden.ne
    key = _grouped_norm(g, g.proj("ple_key", embd, il), hc, "ple_norm_key", il)
    query = _grouped_norm(g, hidden, hc, "ple_norm_query", il)
    agreement = ggml.scale(ggml.sum_rows(ggml.mul(key, query)))
    size = ggml.sqrt(ggml.clamp(ggml.unary(agreement, "abs")))
    gate = ggml.sigmoid(ggml.mul(ggml.sgn(agreement), size))
    value = ggml.reshape(g.proj("ple_value", embd, il), n_embd, 1, n_tokens)
    gated = ggml.mul(ggml.repeat_4d(value, n_embd, hc, n_tokens, 1), gate)
    normed = _grouped_norm(g, ggml.reshape(gated, hc * n_embd, n_tokens), hc, "ple_norm_conv", il)
    conv_out = _dilated_conv(g, inp, ggml.reshape(normed, hc * n_embd, n_tokens), il)
    conv_out = ggml.reshape(ggml.cont(ggml.silu(conv_out)), n_embd, hc, n_tokens)
    return ggml.add(hidden, ggml.add(gated, conv_out))


def _grouped_norm(g: GraphContext, x: Tensor, hc: int, name: str, il: int) -> Tensor:
    normed = ggml.rms_norm(ggml.reshape(x, g.n_embd, hc, g.n_tokens))
    return ggml.mul(normed, g.needed(name, il))


def _dilated_conv(g: GraphContext, inp: InpRs, x: Tensor, il: int) -> Tensor:
    """A sum of shifted copies, one for each column of the kernel."""
    kernel, n_channels = g.needed("ple_conv1d", il), x.ne[0]
    n_taps, dilation = g.hparam("ple_conv_kernel"), g.hparam("ple_ngram_size")
    x = ggml.reshape(x, n_channels, g.n_seq_tokens, g.n_seqs)
    padded = conv_with_state(g, inp, g.rs.get_p_l(il), x, (n_taps - 1) * dilation, cont=True)
    shape, strides = (g.n_seq_tokens, n_channels, g.n_seqs), (padded.nb[1], padded.nb[2])
    out: Tensor | None = None
    for tap in range(n_taps):
        shifted = ggml.cont(ggml.transpose(ggml.view_3d(padded, *shape, *strides, tap * dilation * F32)))
        column = ggml.cont(ggml.view_2d(kernel, 1, n_channels, kernel.nb[1], tap * kernel.nb[0]))
        column = ggml.reshape(column, n_channels)
        term = ggml.mul(shifted, column if column.type == "f32" else ggml.cast(column, "f32"))
        out = term if out is None else ggml.add(out, term)
    return g.need(out)
