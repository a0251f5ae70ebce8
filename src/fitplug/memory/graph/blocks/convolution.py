"""Causal convolutions over the last few tokens, with a state between batches."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import GraphBase
from fitplug.memory.graph.blocks.states import Recurrent, build_rs, n_snapshots, store_rs
from fitplug.memory.graph.tensor import Tensor


def conv_input(g: GraphBase, state: Tensor, x: Tensor) -> Tensor:
    """The columns of `state` before those of `x`, tokens on the first dimension."""
    return ggml.concat(state, ggml.transpose(x), 0)


def store_conv(g: GraphBase, conv_x: Tensor, s: Tensor, n_columns: int, n_slots: int, *, cont: bool = False) -> None:
    """Keep the last columns as the next batch's state, and those before them as snapshots."""
    ne, nb = conv_x.ne, conv_x.nb
    for slot in range(n_slots):
        first = max(0, ne[0] - n_columns - slot)
        last = ggml.view_3d(conv_x, n_columns, ne[1], ne[2], nb[1], nb[2], first * nb[0])
        store_rs(g, ggml.cont(last) if cont else last, s, slot)


def build_conv_state(
    g: GraphBase, inp: Recurrent, s: Tensor, x: Tensor, kernel: int, n_slots: int | None = None
) -> Tensor:
    """llm_build_delta_net_base::build_conv_state, and the same in src/models/mamba-base.cpp and lfm2.cpp."""
    n_channels = x.ne[0]
    state = ggml.reshape(build_rs(g, inp, s), kernel - 1, n_channels, g.n_seqs)
    conv_x = conv_input(g, state, x)
    store_conv(g, conv_x, s, kernel - 1, n_snapshots(g) if n_slots is None else n_slots)
    return conv_x
