"""Ordinary decoders, one row each: what is not ordinary about them."""

from fitplug.memory.graph.context import GraphContext

ROWS: dict[str, object] = {}
MODULES: dict[str, str] = {}
"""Decoders of this family with a graph of their own: architecture → module."""


def build(g: GraphContext) -> None:
    """Draw the graph of a row."""
    raise NotImplementedError
