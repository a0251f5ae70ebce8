"""Writing recurrent states back, and causal convolutions whose last columns are such a state.

Speculative decoding keeps, beside the newest state, one for each token that it may take back (cparams.n_rs_seq): the memory
has that many more groups of rows, and a batch fills each of them.
"""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def n_snapshots(g: GraphContext) -> int:
    """States that a batch leaves behind for each sequence."""
    return g.params.n_rs_seq + 1


def store_state(g: GraphContext, new: Tensor, s: Tensor, slot: int = 0) -> None:
    """Write the batch's rows of the memory `s`; group `slot` holds the states `slot` tokens earlier."""
    row = s.nb[1]
    g.expand(ggml.cpy(new, ggml.view_2d(s, s.ne[0], g.n_seqs, row, slot * g.rs.n_rs * row)))


def store_conv(g: GraphContext, conv_x: Tensor, s: Tensor, n_columns: int, n_slots: int, *, cont: bool = False) -> None:
    """Keep the last columns of a convolution's input, and for each further slot those one token earlier."""
    (n_all, n_channels, n_seqs, _), (nb0, nb1, nb2, _) = conv_x.ne, conv_x.nb
    for slot in range(n_slots):
        first = max(0, n_all - n_columns - slot)
        last = ggml.view_3d(conv_x, n_columns, n_channels, n_seqs, nb1, nb2, first * nb0)
        store_state(g, ggml.cont(last) if cont else last, s, slot)


def conv_with_state(
    g: GraphContext, inp: InpRs, s: Tensor, x: Tensor, n_columns: int, *, n_slots: int | None = None, cont: bool = False
) -> Tensor:
    """The input of a convolution: the columns that the last batch left in `s`, then those of `x`.

    `x` is [n_channels, n_seq_tokens, n_seqs]. This is llm_build_delta_net_base::build_conv_state; src/models/mamba-base.cpp,
    lfm2.cpp and qwen4exp.cpp write the same.
    """
    state = g.build_rs(inp, s, s.ne[0], g.n_seqs)
    state = ggml.reshape(state, n_columns, x.ne[0], g.n_seqs)
    conv_x = ggml.concat(state, ggml.transpose(x), 0)
    store_conv(g, conv_x, s, n_columns, n_snapshots(g) if n_slots is None else n_slots, cont=cont)
    return conv_x
