"""Pieces of graphs that several architectures share and that are no part of llm_graph_context itself."""

F32 = 4
"""Bytes of one activation."""
