"""Which layers of a model must be built: those that show how runs of equal layers go on.

Layers that are equal in everything that sizes depend on make the same tensors in the same order. Of the repetitions of a
pattern of layers the first may differ, since inputs are copied in, and the last, since something else follows; in between
each asks the same of memory. So four or five are built, the two before the last are compared (loops.py), and the program of
the graph runs the second of these as often as were left out (program.py).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fitplug.formats.header import Tensor
from fitplug.memory.cache import cells_of
from fitplug.model.records import Model

if TYPE_CHECKING:
    from fitplug.memory.graph.params import GraphParams
    from fitplug.memory.graph.tensor import Buffer

ATTEMPTS = (4, 5, 9, 0)
"""Repetitions that are built of a run: one or two at the start, two in the middle, and the last; 0: all.

What a repetition computes last is part of the next one's graph, so the second may be as special as the first. A backend
that looks far ahead for nodes to compute first needs more of them at the end.
"""
PARTS = frozenset(("weight", "bias", "scale", "input_scale"))
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
            if part not in PARTS:  # made by tn(id, il): some architectures' norms have no suffix
                base, part = rest, "weight"
            self.linears.setdefault((base, il), {})[part] = name
            if il >= 0:
                self.tensors.setdefault(il, []).append(tensor)
                names.setdefault(il, []).append((rest, tensor.shape))
        self.kinds = _numbered((layer[1:], tuple(names.get(layer.il, ()))) for layer in model.layers)
        """Numbers of blocks with equal numbers of the header, names and shapes."""
        self.outside = [name for name in model.header.tensors if _numbered_name(name)[0] < 0]
        """Tensors of no block."""
        self.lending = sorted({cells_of(model.layers, layer.il) for layer in model.layers if not layer.has_kv})
        """Blocks whose cells are read by others."""
        self._away: dict[Hashable, tuple[Hashable, Mapping[str, Buffer]]] = {}

    def away(self, params: "GraphParams", il: int) -> Hashable:
        """Which of the block's tensors lie elsewhere than its own device, where, and their types if they are copied."""
        backend, cpu = params.layer_backends[il], len(params.backends) - 1
        if cpu == 0 or (backend != cpu and not params.moved):
            return None
        key, weights = (il, backend, params.copies_weights), params.weights
        found = self._away.get(key)
        if found is None or found[1] is not weights:
            found = self._away[key] = tuple(self._find_away(params, il)), weights
        return found[0]

    def _find_away(self, params: "GraphParams", il: int) -> Iterator[Hashable]:
        backend, typed, weights = params.layer_backends[il], params.copies_weights, params.weights
        for i, tensor in enumerate(self.tensors.get(il, ())):
            buffer = weights.get(tensor.name)
            if buffer is not None and (buffer.is_host or buffer.backends[0] != backend):
                yield i, buffer.name, tensor.type if typed else None


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


class Shape(NamedTuple):
    """What decides which tensors a layer makes; equal shapes mean equal tensors."""

    kind: int
    key: Hashable
    """What the architecture's graph depends on besides numbers and tensors."""
    adapted: Hashable
    """Which tensors adapters change, and what those have beside them."""
    is_last: bool
    """It drops the rows nobody asked for."""


class LayerClass(NamedTuple):
    """Equal values mean equal graphs: the same tensors with their sources in the same places."""

    shape: Shape
    backend: int
    away: Hashable
    """Which tensors lie elsewhere."""


def layer_classes(params: "GraphParams", n_layer: int, key: Callable[[int], Hashable] | None) -> list[LayerClass]:
    """The class of each layer."""
    backends, kinds = params.layer_backends, params.blocks.kinds
    return [
        LayerClass(
            Shape(kinds[il], None if key is None else key(il), _adapted(params, il), il == n_layer - 1),
            backends[il],
            params.blocks.away(params, il),
        )
        for il in range(n_layer)
    ]


class Run(NamedTuple):
    """Repetitions of a pattern of layers, of which only some are built."""

    start: int
    """Its first layer."""
    pattern: tuple[Hashable, ...]
    """The classes of its layers."""
    left_out: int
    """How many repetitions are not built, after the last but one."""


def _adapted(params: "GraphParams", il: int) -> Hashable:
    """The block's tensors that adapters change; their halves' buffers follow from the tensors'."""
    if not params.adapters:
        return None
    found: list[Hashable] = []
    for i, tensor in enumerate(params.blocks.tensors.get(il, ())):
        pairs = params.adapters.get(tensor.name, ())
        found += [(i, pair.a.type, pair.a.shape, pair.b.type, pair.b.shape) for pair in pairs]
    return tuple(found)


class Cut(NamedTuple):
    """How much of the repetitions to build."""

    kept: int = 0
    """Repetitions of each run: one of `ATTEMPTS`; or 1 for one layer of each class, which is no graph of the model's."""
    more: Mapping[Hashable, int] = MappingProxyType({})
    """The same for runs that need more, by their patterns."""
    by_shape: bool = False
    """With one of each: layers of one shape count as equal, whatever lies where."""

    def of(self, pattern: tuple[Hashable, ...]) -> int:
        """What is kept of a run."""
        return self.more.get(pattern, self.kept) if self.more else self.kept

    def longer(self, runs: Iterable[Run]) -> "Cut":
        """The next attempt: more of these runs."""
        attempts: dict[Hashable, int] = {run.pattern: ATTEMPTS[ATTEMPTS.index(self.of(run.pattern)) + 1] for run in runs}
        return self._replace(more={**self.more, **attempts})


WHOLE = Cut()
SHORT = Cut(ATTEMPTS[0])
TRIED = Cut(3)
"""Where nodes are put depends on the layers beside theirs: these show each of them between all that it stands between."""
ONE_OF_EACH = Cut(1)
SAMPLE = Cut(1, by_shape=True)
REPEATED = Cut(ATTEMPTS[0], by_shape=True)


def shortened(classes: Sequence[Hashable], cut: Cut) -> Iterator[tuple[int, Run | None]]:
    """The layers to build: (number, run), where `run` is given for the first layer of each repetition of a run that is cut."""
    if cut == WHOLE:
        yield from ((il, None) for il in range(len(classes)))
        return
    kinds = _numbered(classes)
    if cut.kept == 1:
        yield from ((il, None) for il, kind in enumerate(kinds) if kind not in kinds[:il])
        return
    il, n = 0, len(kinds)
    while il < n:
        period, repetitions = _longest_run(kinds, il)
        pattern = tuple(classes[il : il + period])
        kept = cut.of(pattern)
        if 0 < kept < repetitions:
            run = Run(il, pattern, repetitions - kept)
            yield from ((il + i, None if i % period else run) for i in range(kept * period))
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
        if (repetitions - keep) * period > max(0, best[1] - keep) * best[0]:
            best = (period, repetitions)
    return best
