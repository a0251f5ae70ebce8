"""Which layers of a model must be built: those after which nothing new can happen.

Layers that are equal in everything that sizes depend on lay out the same tensors in the same order. Once the allocator
stands, at the start of a repetition, exactly where it stood at the start of an earlier one, all further repetitions only
repeat: leaving some out changes no high-water mark. So a run of repetitions is cut to a few, and `unproven` says of
which runs the state did not repeat.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fitplug.formats.header import Tensor
from fitplug.model.records import Model

if TYPE_CHECKING:
    from fitplug.memory.graph.params import GraphParams

ATTEMPTS = (3, 4, 9, 0)
"""Repetitions kept of a run, at least, until the state repeats; 0 keeps them all.

The first ones mostly differ, since inputs are copied in and the residual finds its place; then it stays there, or two or
three places for it take turns.
"""
LEFT_OUT = {3: 1, 4: 2, 9: 6}
"""What the number of repetitions that are left out is a multiple of: every cycle of states that is accepted."""
LONGEST_NUMBER = 6
LONGEST = 12
"""Longest pattern of layers that is looked for."""


class Blocks:
    """The tensors of each block, grouped once for a model; equal blocks have the same number."""

    def __init__(self, model: Model) -> None:
        self.tensors: dict[int, list[Tensor]] = {}
        """Of each block."""
        self.linears: dict[tuple[str, int], dict[str, str]] = {}
        """(name, block), with -1 for none → "weight", "bias" or "scale" → the tensor's whole name."""
        names: dict[int, list[Hashable]] = {}
        for name, tensor in model.header.tensors.items():
            il, rest = _numbered_name(name)
            base, _, part = rest.rpartition(".")
            self.linears.setdefault((base, il), {})[part] = name
            if il >= 0:
                self.tensors.setdefault(il, []).append(tensor)
                names.setdefault(il, []).append((rest, tensor.shape))
        self.kinds = _numbered((layer[1:], tuple(names.get(layer.il, ()))) for layer in model.layers)
        """Numbers of blocks with equal numbers of the header, names and shapes."""


def _numbered_name(name: str) -> tuple[int, str]:
    """blk.7.attn_q.weight → (7, attn_q.weight)."""
    if name.startswith("blk."):
        il, _, rest = name[4:].partition(".")
        if il.isdecimal() and len(il) < LONGEST_NUMBER:
            return int(il), rest
    return -1, name


def _numbered(keys: Iterable[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def layer_classes(params: "GraphParams", n_layer: int, key: Callable[[int], Hashable] | None) -> list[Hashable]:
    """One value per layer; equal values mean equal graphs. The last layer is its own: it drops the rows nobody asked for."""
    backends, kinds = params.layer_backends, params.blocks.kinds
    classes: list[Hashable] = [
        (kinds[il], backends[il], _away(params, il), key(il) if key is not None else None) for il in range(n_layer)
    ]
    if classes:
        classes[-1] = ("last", classes[-1])
    return classes


def _away(params: "GraphParams", il: int) -> Hashable:
    """The block's tensors that do not lie on its own device: where they are, and their types if they are copied from there."""
    backend, cpu = params.layer_backends[il], len(params.backends) - 1
    if cpu == 0 or (backend != cpu and not params.moved):
        return None
    typed, weights = params.copies_weights, params.weights
    found: list[Hashable] = []
    for i, tensor in enumerate(params.blocks.tensors.get(il, ())):
        buffer = weights.get(tensor.name)
        if buffer is not None and (buffer.is_host or buffer.backends[0] != backend):
            found.append((i, buffer.name, tensor.type if typed else None))
    return tuple(found)


class Cut(NamedTuple):
    """How much of the repetitions to build."""

    kept: int = 0
    """Repetitions of each run: one of `ATTEMPTS`, or 1 for one layer of each kind, which only bounds."""
    more: Mapping[int, int] = MappingProxyType({})
    """The same for runs that need more, by their first layers."""

    def of(self, run: int) -> int:
        """What is kept of the run that starts with this layer."""
        return self.more.get(run, self.kept)

    def longer(self, runs: Iterable[int]) -> "Cut":
        """The next attempt: more of these runs."""
        return self._replace(more={**self.more, **{run: ATTEMPTS[ATTEMPTS.index(self.of(run)) + 1] for run in runs}})


WHOLE = Cut()
SHORT = Cut(ATTEMPTS[0])
ONE_OF_EACH = Cut(1)


def shortened(classes: Sequence[Hashable], cut: Cut) -> Iterator[tuple[int, int | None]]:
    """The layers to build: (number, run), where `run` is given for the first layer of each repetition that run was cut to."""
    kinds = _numbered(classes)
    if cut.kept == 1:
        yield from ((il, None) for il, kind in enumerate(kinds) if kind not in kinds[:il])
        return
    il, n = 0, len(kinds)
    while il < n:
        period, repetitions = _longest_run(kinds, il)
        keep = cut.of(il)
        kept = keep + (repetitions - keep) % LEFT_OUT[keep] if keep else repetitions
        if kept < repetitions:
            yield from ((il + i, None if i % period else il) for i in range(kept * period))
        else:
            yield from ((il + i, None) for i in range(repetitions * period))
        il += repetitions * period


def _longest_run(kinds: Sequence[int], start: int) -> tuple[int, int]:
    """The pattern starting here whose repetitions leave out most: (its length, how often it comes)."""
    n, best, keep = len(kinds), (1, 1), ATTEMPTS[0]
    for period in range(1, min(LONGEST, (n - start) // (keep + 1)) + 1):
        end = start + period
        while end < n and kinds[end] == kinds[end - period]:
            end += 1
        repetitions = (end - start) // period
        if repetitions > keep and (repetitions - keep) * period > (best[1] - keep) * best[0]:
            best = (period, repetitions)
    return best


def unproven(states: Sequence[tuple[int, Hashable]], cut: Cut) -> list[int]:
    """The runs whose last state was not there before, so many repetitions earlier as divide the number left out."""
    runs: dict[int, list[Hashable]] = {}
    for run, state in states:
        runs.setdefault(run, []).append(state)
    return [run for run, found in runs.items() if not _repeats(found, LEFT_OUT[cut.of(run)])]


def _repeats(found: Sequence[Hashable], multiple: int) -> bool:
    return any(found[-1] == found[-1 - n] for n in range(1, min(multiple, len(found) - 1) + 1) if multiple % n == 0)
