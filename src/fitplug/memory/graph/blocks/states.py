"""Recurrent states in a graph: picked by sequence, cleared, copied and written back (src/llama-graph.cpp, build_rs)."""

from collections.abc import Callable
from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import GraphBase
from fitplug.memory.graph.caches import RecurrentState
from fitplug.memory.graph.tensor import Tensor

GetRows = Callable[[Tensor, Tensor], Tensor]
"""(states, row numbers) → what the mixer reads: llm_graph_get_rows_fn."""


class Recurrent(NamedTuple):
    """llm_graph_input_rs: the states, and which of their rows the sequences of the batch read."""

    states: RecurrentState
    s_copy_main: Tensor
    s_copy_extra: Tensor


def build_rs_inp(g: GraphBase) -> Recurrent:
    """llm_graph_context::build_rs_inp."""
    states = RecurrentState(g)
    s_copy = ggml.new_input("i32", states.n_rs)
    return Recurrent(
        states,
        ggml.view_1d(s_copy, g.n_seqs),
        ggml.view_1d(s_copy, states.n_rs - g.n_seqs, g.n_seqs * s_copy.nb[0]),
    )


def build_rs(g: GraphBase, inp: Recurrent, s: Tensor, get_state_rows: GetRows = ggml.get_rows) -> Tensor:
    """llm_graph_context::build_rs: clear a row, read those of the batch, carry the others over."""
    width, n_rows, _, _ = s.ne
    states = ggml.reshape(s, width, n_rows)
    g.expand(ggml.scale_inplace(ggml.view_1d(states, width)))
    output = get_state_rows(states, inp.s_copy_main)
    g.expand(output)
    others = ggml.get_rows(states, inp.s_copy_extra)
    g.expand(ggml.cpy(others, ggml.view_2d(s, width, inp.states.n_rs - g.n_seqs, s.nb[1], g.n_seqs * s.nb[1])))
    return output


def store_rs(g: GraphBase, new: Tensor, s: Tensor, slot: int = 0) -> None:
    """Write the rows of the batch back; `slot` s is the state s tokens earlier, kept for rollbacks."""
    row = s.nb[1]
    first = slot * max(1, g.params.n_seq_max) * row
    g.expand(ggml.cpy(new, ggml.view_2d(s, s.ne[0], g.n_seqs, row, first)))


def n_snapshots(g: GraphBase) -> int:
    """States that a batch leaves behind: its last, and one for each token that speculation may take back."""
    return g.params.n_rs_seq + 1
