"""Picking the best tokens on the device: build_sampling (src/llama-graph.cpp) with a sampler of top-k alone."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

TOP_K = 10
"""Of every kind of draft (common/speculative.cpp)."""


def build_sampling(g: GraphContext, logits: Tensor, per_sequence: int) -> None:
    """The candidates of every row that a sequence may ask for; sequences without one work on the first row."""
    padded = ggml.pad(logits, 0, 1)
    for rows in _rows(g, per_sequence):
        for row in rows or [0]:
            one = ggml.reshape(ggml.view_1d(padded, padded.ne[0], row * padded.nb[1]), padded.ne[0])
            candidates = ggml.top_k(one, TOP_K)
            values = ggml.get_rows(ggml.reshape(one, 1, one.ne[0]), candidates)
            for t in (values, candidates):
                t.is_output = bool(rows)
                g.expand(t)


def _rows(g: GraphContext, per_sequence: int) -> list[list[int]]:
    """The rows of each sequence: ubatch_prepare_reserve (src/llama-context.cpp)."""
    found: list[list[int]] = []
    n = 0
    for _ in range(g.params.n_seq_max):
        more = min(g.n_seq_tokens, per_sequence, g.n_outputs - n)
        found.append(list(range(n, n + more)))
        n += more
    return found
