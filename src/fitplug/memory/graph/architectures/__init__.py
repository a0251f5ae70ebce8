"""Which module draws which architecture's graph. A module has `build(g)`; it is imported when its architecture is asked for."""

from collections.abc import Callable
from importlib import import_module

from fitplug.memory.graph.architectures import hybrids, latent, plain
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.errors import UnknownGraphError

MODULES: dict[str, str] = {**plain.MODULES, **hybrids.MODULES, **latent.MODULES}
"""Architecture → module of this package. Three tables, kept where their families live."""


def builder(architecture: str, *, mtp: bool = False, feeding: bool = False) -> Callable[[GraphContext], None]:
    """The function that draws this architecture's graph, that of its MTP blocks, or the one that takes in a target's states.

    Raises:
        UnknownGraphError: nobody has drawn it.
    """
    if mtp:
        from fitplug.memory.graph.architectures.mtp import build as build_mtp

        return build_mtp
    if architecture in plain.ROWS:
        return plain.build
    module = MODULES.get(architecture)
    if module is None:
        raise UnknownGraphError(architecture)
    drawing = import_module(f"{__name__}.{module}")
    build: Callable[[GraphContext], None] = drawing.build_feed if feeding else drawing.build
    return build
