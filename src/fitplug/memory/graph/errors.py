"""What can go wrong in drawing a graph; the caller falls back to a formula."""

from fitplug.errors import RefusedError


class UnknownGraphError(LookupError):
    """Nobody has drawn this architecture's graph, or the file lacks what it draws with."""


class NullTensorError(RefusedError):
    """A tensor that llama.cpp loads as optional is one that its graph reads: llama.cpp crashes."""


class ShapesAbortError(RefusedError):
    """ggml's own check of an operation's shapes fails: llama.cpp aborts."""
