"""Samples of which the caches' lengths are left open: drawn once, they show every context between which nothing is decided.

A sketch is drawn with unknowns (unknowns.py) for `GraphParams.lengths`. All that backends answer of its operations, and all
that they fuse, is asked while they are unknown, so the trace holds whatever any of that depends on: for a context for which it
makes the same decisions, the sketch's tensors with today's shapes are what a drawing would have, and all answers are the same.
"""

from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar, cast

from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.layers import SAMPLE
from fitplug.memory.graph.params import LENGTHS, GraphParams
from fitplug.memory.graph.samples import Sample
from fitplug.memory.graph.tensor import Tensor
from fitplug.memory.graph.unknowns import Trace, Unknown

MAX_SAMPLES, MAX_SKETCHES, MAX_UNLIKE = 64, 32, 8
"""Kept: samples, kinds of sketches, and sketches of one kind; the oldest goes first."""

T = TypeVar("T")
Draw = Callable[[GraphParams], GraphContext]


class Sketch:
    """One drawing, for the lengths of `params` and others."""

    def __init__(self, params: GraphParams, draw: Draw) -> None:
        self.params = params
        self._trace = Trace(*params.lengths)
        self.graph = draw(replace(params, cut=SAMPLE, **_named(self._trace.unknowns))).gf
        self._asked: dict[Sequence[Backend], Sample] = {}

    def lies_as(self, params: GraphParams) -> bool:
        """Whether everything lies in the drawing where these settings say."""
        return replace(self.params, **_named(params.lengths)) == params

    def sample(self, params: GraphParams) -> Sample | None:
        """One for these settings, which differ in lengths alone and in what lies where; None where it must be drawn."""
        asked = self._asked.get(params.backends)
        if asked is None:
            asked = self._asked[params.backends] = self._ask(params)
        numbers = self._trace.at(*params.lengths)
        if numbers is None:
            return None
        needed = {character: _now(n, numbers) for character, n in asked.needed.items()}
        return asked.resized(params, self._resized(asked, numbers), needed)

    def _ask(self, params: GraphParams) -> Sample:
        """A sample with unknown sizes, after all that is ever asked of it and depends on them was asked."""
        found = Sample(params, self.graph)
        for t in found.tensors:
            if isinstance(t.param, tuple):
                t.param = tuple([int(n) if isinstance(n, Unknown) else n for n in t.param])
        found.sketched = self._touched
        found.ask()
        return found

    @cached_property
    def _touched(self) -> AbstractSet[int]:
        """Numbers of tensors with an unknown in them, of their views, and of what has either for a source."""
        tensors = Sample(self.params, self.graph).tensors
        unknown = {id(t) for t in tensors if Unknown in map(type, (*t.ne, *t.nb, t.view_offs if t.view_src is not None else 0))}
        unknown |= {id(t) for t in tensors if t.view_src is not None and id(t.view_src) in unknown}
        return frozenset(i for i, t in enumerate(tensors) if id(t) in unknown or not unknown.isdisjoint(map(id, t.src)))

    @staticmethod
    def _resized(asked: Sample, numbers: Sequence[int]) -> list[Tensor]:
        tensors = [*asked.tensors]
        made: dict[int, Tensor] = {}
        for i in asked.sketched or ():
            t = tensors[i]
            made[id(t)] = tensors[i] = _with_numbers(t, numbers)
        for t in made.values():
            t.src = [None if s is None else made.get(id(s), s) for s in t.src]
            if t.view_src is not None:
                t.view_src = made.get(id(t.view_src), t.view_src)
        return tensors


def _named(lengths: Sequence[object]) -> dict[str, Any]:
    return dict(zip(LENGTHS, lengths, strict=True))


def _with_numbers(t: Tensor, numbers: Sequence[int]) -> Tensor:
    """The same with known numbers; its sources are still the other's."""
    ne, nb = (tuple([_now(n, numbers) for n in shape]) for shape in (t.ne, t.nb))
    found = Tensor(t.op, t.type, cast("Any", ne), [*t.src], cast("Any", nb))
    if t.view_src is not None:
        found.view_src, found.view_offs = t.view_src, _now(t.view_offs, numbers)
    found.n_bytes, found.serial, found.param, found.buffer = _now(t.n_bytes, numbers), t.serial, t.param, t.buffer
    found.is_input, found.is_output = t.is_input, t.is_output
    return found


def _now(n: int, numbers: Sequence[int]) -> int:
    return numbers[n.number] if isinstance(n, Unknown) else n


class Samples:
    """Those of the last settings: what lies where makes no difference to them."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._sketches: dict[Hashable, list[Sketch]] = {}
        """By all that decides shapes but for lengths."""
        self._kept: dict[Hashable, Sample] = {}

    def __call__(self, params: GraphParams, *, placed: bool = False) -> Sample:
        """One for these settings; `placed`: its layers lie where these say."""
        shaping = params.shaping
        if shaping is None or placed:
            return self._known(shaping, params, placed=placed) or self._drawn(params)
        key = shaping, params.backends, *params.lengths
        found = self._kept.get(key)
        if found is None:
            found = self._new(shaping, params)
            _keep(self._kept, key, found, MAX_SAMPLES)
        return found

    def _drawn(self, params: GraphParams) -> Sample:
        return Sample(params, self._draw(params.keeping(SAMPLE)).gf)

    def _new(self, shaping: Hashable, params: GraphParams) -> Sample:
        if any(backend.remembers for backend in params.backends):
            return self._drawn(params)  # nothing may be asked of it before its time, nor of numbers that it cannot keep
        found = self._known(shaping, params)
        while found is None:
            sketches = [*self._sketches.get(shaping, ()), Sketch(params, self._draw)][-MAX_UNLIKE:]
            _keep(self._sketches, shaping, sketches, MAX_SKETCHES)
            found = self._known(shaping, params)
        return found

    def _known(self, shaping: Hashable, params: GraphParams, *, placed: bool = False) -> Sample | None:
        for sketch in self._sketches.get(shaping, ()):
            if not placed or sketch.lies_as(params):
                found = sketch.sample(params)
                if found is not None:
                    return found
        return None


def _keep(kept: dict[Hashable, T], key: Hashable, value: T, most: int) -> None:
    while key not in kept and len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value
