"""What can go wrong in drawing a graph; the caller falls back to a formula."""


class UnknownGraphError(LookupError):
    """Nobody has drawn this architecture's graph, or the file lacks what it draws with."""
