"""Which layers of a model must be built: those after which nothing new can happen.

Layers that are equal in everything that sizes depend on lay out the same tensors in the same order. Once the allocator stands, at the
start of a repetition, exactly where it stood at the start of an earlier one, all further repetitions only repeat: leaving some
out changes no high-water mark. Here a run of repetitions is cut to a few; allocator.py checks at the marks that its state did repeat.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence

from fitplug.memory.graph.params import GraphParams

KEPT = 6
"""Repetitions kept of a run: the first differ (inputs are copied in, the residual finds its place), then the state repeats."""
LONGEST = 8
"""Longest pattern of layers that is looked for."""


def layer_classes(params: GraphParams, n_layer: int, key: Callable[[int], Hashable] | None) -> list[Hashable]:
    """One value per layer; equal values mean equal graphs."""
    raise NotImplementedError


def shortened(classes: Sequence[Hashable]) -> Iterator[tuple[int, bool]]:
    """The layers to build, each with whether a repetition starts with it."""
    raise NotImplementedError
