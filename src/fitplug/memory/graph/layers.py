"""Which layers of a model must be built: those after which nothing new can happen.

Layers that are equal in everything that sizes depend on lay out the same tensors in the same order. Once the allocator stands, at the
start of a repetition, exactly where it stood at the start of an earlier one, all further repetitions only repeat: leaving some
out changes no high-water mark. So a run of repetitions is cut to a few, and `repeats` says whether the state did repeat.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fitplug.formats.header import Tensor
from fitplug.memory.graph.tensor import Buffer
from fitplug.model.records import Layer, Model

if TYPE_CHECKING:
    from fitplug.memory.graph.params import GraphParams

KEPT = 4
"""Repetitions kept of a run, or one more: the first differ, since inputs are copied in and the residual finds its place."""
LONGEST = 12
"""Longest pattern of layers that is looked for."""


class Blocks:
    """The tensors of each block, grouped once for a model; blocks of equal shapes have the same number."""

    def __init__(self, model: Model) -> None:
        self.names: dict[int, list[str]] = {}
        shapes: dict[int, list[Hashable]] = {}
        for name, tensor in model.header.tensors.items():
            if name.startswith("blk."):
                il, _, rest = name[4:].partition(".")
                if il.isdecimal() and len(il) < 6:
                    self.names.setdefault(int(il), []).append(name)
                    shapes.setdefault(int(il), []).append(_shape(rest, tensor))
        kinds: dict[Hashable, int] = {}
        self.kinds: list[int] = []
        for layer in model.layers:
            key = (_without_number(layer), tuple(shapes.get(layer.il, ())))
            self.kinds.append(kinds.setdefault(key, len(kinds)))


def _shape(name: str, tensor: Tensor) -> Hashable:
    return name, tensor.type, tensor.shape


def _without_number(layer: Layer) -> Hashable:
    return layer[1:]


def layer_classes(params: "GraphParams", n_layer: int, key: Callable[[int], Hashable] | None) -> list[Hashable]:
    """One value per layer; equal values mean equal graphs. The last layer is its own: it drops the rows nobody asked for."""
    blocks, weights, backends = params.blocks, params.weights, params.layer_backends
    classes: list[Hashable] = [
        (blocks.kinds[il], backends[il], _buffers(blocks.names.get(il, ()), weights, params.moved), key(il) if key else None)
        for il in range(n_layer)
    ]
    if classes:
        classes[-1] = ("last", classes[-1])
    return classes


def _buffers(names: Sequence[str], weights: Mapping[str, Buffer], moved: bool) -> Hashable:
    """Where the block's tensors lie, if not all on its device."""
    return tuple(weights[name].name if name in weights else None for name in names) if moved else None


def shortened(classes: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """The layers to build: (number, run), where `run` is above 0 for the first layer of each repetition that run was cut to."""
    numbers: dict[Hashable, int] = {}
    kinds = [numbers.setdefault(c, len(numbers)) for c in classes]
    il, run, n = 0, 0, len(kinds)
    while il < n:
        period, repetitions = _longest_run(kinds, il)
        kept = KEPT + (repetitions - KEPT) % 2
        if repetitions <= kept:
            yield il, 0
            il += 1
            continue
        run += 1
        for i in range(kept * period):
            yield il + i, 0 if i % period else run
        il += repetitions * period


def _longest_run(kinds: Sequence[int], start: int) -> tuple[int, int]:
    """The pattern starting here whose repetitions leave out most: (its length, how often it comes)."""
    n, best = len(kinds), (1, 1)
    for period in range(1, min(LONGEST, (n - start) // (KEPT + 1)) + 1):
        end = start + period
        while end < n and kinds[end] == kinds[end - period]:
            end += 1
        repetitions = (end - start) // period
        if repetitions > KEPT + 1 and (repetitions - KEPT) * period > (best[1] - KEPT) * best[0]:
            best = (period, repetitions)
    return best


def repeats(states: Sequence[tuple[int, Hashable]]) -> bool:
    """Whether in each run the last state came before: one repetition earlier, or two (an even number is left out)."""
    runs: dict[int, list[Hashable]] = {}
    for run, state in states:
        runs.setdefault(run, []).append(state)
    return all(found[-1] in found[-3:-1] for found in runs.values())
