"""Layers that repeat are not drawn again and again: their segments are counted on from four repetitions.

If the last three of four ask for the same, each with what the one before has in the place of its predecessor's, so does every
further one: it is of layers of the same shape and stands between the same. Where the three are unlike, all layers are drawn.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fitplug.memory.graph.layers import ATTEMPTS, Run
from fitplug.memory.graph.params import Home
from fitplug.memory.graph.segments import Drawing, Outline, Segment, UnprovenError

N_DRAWN = ATTEMPTS[0]
UNLIKE = "repetitions are not alike"


def unfold(drawing: Drawing, runs: Iterable[Run]) -> Outline:
    """The whole graph of a drawing in which these runs are cut.

    Raises:
        UnprovenError: it does not show how they go on.
    """
    repeats = [_find_repeat(drawing, run) for run in dict.fromkeys(runs)]
    return _Unfolding(drawing, repeats).outline() if repeats else drawing.outline


class _Repeat(NamedTuple):
    """A run of layers as it was drawn."""

    first: int
    """Its first segment."""
    period: int
    """Layers, and so segments, of one repetition."""
    n_more: int
    """Repetitions that were not drawn."""
    layer: int
    """Its first layer."""
    start: int
    """Number of its first node."""
    last: int
    """Number of the first node of the last repetition."""
    length: int
    """Nodes of a repetition."""
    leafs: range
    """Those that the last but one has for itself, by number; the last has those that follow."""
    fixed: frozenset[int]
    """Numbers of what all of them look at."""


def _find_repeat(drawing: Drawing, run: Run) -> _Repeat:
    period = len(run.pattern)
    first = drawing.layers.index(run.start) if run.start in drawing.layers else -1
    segments = drawing.outline.segments[first : first + N_DRAWN * period]
    if drawing.layers[first : first + N_DRAWN * period] != list(range(run.start, run.start + N_DRAWN * period)):
        raise UnprovenError("a layer without a segment of its own")
    starts = [segments[k * period].start for k in range(N_DRAWN)]
    length = starts[3] - starts[2]
    fixed: set[int] = set()
    own: tuple[set[int], set[int]] = set(), set()
    for one, two, three in zip(*[segments[k * period : (k + 1) * period] for k in (1, 2, 3)], strict=True):
        if not one.template.outline == two.template.outline == three.template.outline or two.start - one.start != length:
            raise UnprovenError(UNLIKE)
        for a, b, c in zip(one.guests, two.guests, three.guests, strict=True):
            if not a == b == c and (b - a != c - b or (b < drawing.n_nodes and b - a != length)):
                raise UnprovenError(UNLIKE)
            if a == b:
                fixed.add(a)
            elif b >= drawing.n_nodes:
                own[0].add(b)
                own[1].add(c)
        _compare_homes(one, two, three, period)
    return _Repeat(first, period, run.left_out, run.start, starts[0], starts[3], length, _own_leafs(*own), frozenset(fixed))


def _own_leafs(before: set[int], last: set[int]) -> range:
    if not before:
        return range(0)
    found = range(min(before), max(before) + 1)
    if len(found) != len(before) or last != {n + len(found) for n in found}:
        raise UnprovenError(UNLIKE)
    return found


def _compare_homes(one: Segment, two: Segment, three: Segment, period: int) -> None:
    for (a, i), (b, j), (c, k) in zip(one.homes, two.homes, three.homes, strict=True):
        same = a == b == c or (_moved(a, period) == b and _moved(b, period) == c)
        if not same or j - i != period or k - j != period:
            raise UnprovenError(UNLIKE)
    if any((a == b) != (b == c) for a, b, c in zip(one.leafs, two.leafs, three.leafs, strict=True)):
        raise UnprovenError(UNLIKE)
    for i, j, k in zip(one.pins, two.pins, three.pins, strict=True):
        if not (i == j == k == -1 or (j - i == period and k - j == period)):
            raise UnprovenError(UNLIKE)


def _moved(home: Home, n: int) -> Home:
    """The same thing `n` layers on."""
    if isinstance(home, int):
        return home + n
    if isinstance(home, str) and home.startswith("blk."):
        il, _, rest = home[4:].partition(".")
        return f"blk.{int(il) + n}.{rest}" if il.isdecimal() else home
    return home


class _Unfolding:
    """The numbers of a whole graph."""

    def __init__(self, drawing: Drawing, repeats: Sequence[_Repeat]) -> None:
        self.drawing, self.repeats = drawing, repeats
        self.n_nodes = drawing.n_nodes + sum(repeat.n_more * repeat.length for repeat in repeats)

    def outline(self) -> Outline:
        """With all layers."""
        drawn = self.drawing.outline
        n = self.drawing.n_nodes
        nodes = list(self._nodes())
        leafs = list(self._leafs(len(drawn.likes) - n))
        segments = list(self._segments())
        uses = [0] * (len(nodes) + len(leafs))
        for segment in segments:
            for place, times in segment.template.reads.items():
                uses[segment.number(place)] += times
        return Outline(
            [
                self.drawing.retyped(segment, uses[segment.start : segment.start + segment.template.n_nodes])
                for segment in segments
            ],
            [drawn.likes[i] for i in nodes] + [drawn.likes[n + i] for i in leafs],
            uses[: len(nodes)],
            [drawn.inputs[i] for i in leafs],
            list(self._fused()),
        )

    def _nodes(self) -> Iterator[int]:
        """The drawn ones' numbers, as often as they come."""
        done = 0
        for repeat in self.repeats:
            yield from range(done, repeat.last)
            for _ in range(repeat.n_more):
                yield from range(repeat.last - repeat.length, repeat.last)
            done = repeat.last
        yield from range(done, self.drawing.n_nodes)

    def _leafs(self, n_leafs: int) -> Iterator[int]:
        done, n = 0, self.drawing.n_nodes
        for repeat in sorted(self.repeats, key=lambda repeat: repeat.leafs.stop):
            if repeat.leafs:
                yield from range(done, repeat.leafs.stop - n)
                for _ in range(repeat.n_more):
                    yield from range(repeat.leafs.start - n, repeat.leafs.stop - n)
                done = repeat.leafs.stop - n
        yield from range(done, n_leafs)

    def _number(self, drawn: int) -> int:
        """Of a drawn tensor in the whole graph."""
        n = self.drawing.n_nodes
        if drawn < n:
            return drawn + sum(r.n_more * r.length for r in self.repeats if r.last <= drawn)
        more = sum(r.n_more * len(r.leafs) for r in self.repeats if r.leafs and r.leafs.stop <= drawn)
        return drawn - n + self.n_nodes + more

    def _layer(self, drawn: int) -> int:
        """Of a drawn one in the whole graph: the last repetitions are of the last layers of their runs."""
        for r in self.repeats:
            if r.layer + (N_DRAWN - 1) * r.period <= drawn < r.layer + N_DRAWN * r.period:
                return drawn + r.n_more * r.period
        return drawn

    def _segments(self) -> Iterator[Segment]:
        drawn = self.drawing.outline.segments
        done = 0
        for repeat in self.repeats:
            last = repeat.first + (N_DRAWN - 1) * repeat.period
            yield from (self._moved(segment) for segment in drawn[done:last])
            for i in range(1, repeat.n_more + 2):
                for k in range(last - repeat.period, last):
                    yield self._again(drawn[k - repeat.period], drawn[k], repeat, i)
            done = last + repeat.period
        yield from (self._moved(segment) for segment in drawn[done:])

    def _moved(self, segment: Segment) -> Segment:
        """A drawn one that comes once."""
        for n in segment.guests:
            for r in self.repeats:
                inside = r.start <= n < r.last or (r.leafs and r.leafs.start - len(r.leafs) <= n < r.leafs.stop)
                if inside and r.last <= segment.start and n not in r.fixed:
                    raise UnprovenError("what follows a run looks into the middle of it")
        return segment._replace(
            start=self._number(segment.start),
            guests=tuple(self._number(n) for n in segment.guests),
            homes=tuple((self._home(home), self._layer(il)) for home, il in segment.homes),
            pins=tuple(self._layer(il) for il in segment.pins),
        )

    def _home(self, home: Home) -> Home:
        if isinstance(home, int):
            return self._layer(home)
        if isinstance(home, str) and home.startswith("blk."):
            number = home[4:].partition(".")[0]
            return _moved(home, self._layer(int(number)) - int(number)) if number.isdecimal() else home
        return home

    def _again(self, before: Segment, segment: Segment, repeat: _Repeat, i: int) -> Segment:
        """One of the last but one repetition, `i` repetitions later; `before` is the one a repetition earlier."""
        n, layers = self.drawing.n_nodes, i * repeat.period
        return segment._replace(
            start=self._number(segment.start) + i * repeat.length,
            guests=tuple(
                self._number(b) + (0 if a == b else i * (repeat.length if b < n else len(repeat.leafs)))
                for a, b in zip(before.guests, segment.guests, strict=True)
            ),
            homes=tuple(
                (self._home(b) if a == b else _moved(b, layers), il + layers)
                for (a, _), (b, il) in zip(before.homes, segment.homes, strict=True)
            ),
            leafs=tuple(b if a == b else (b, i) for a, b in zip(before.leafs, segment.leafs, strict=True)),
            pins=tuple(il if il < 0 else il + layers for il in segment.pins),
        )

    def _fused(self) -> Iterator[tuple[str, int | None, int]]:
        for op, number, il in self.drawing.outline.fused:
            repeat = next((r for r in self.repeats if number is not None and r.last <= number < r.last + r.length), None)
            if number is None or repeat is None:
                yield op, None if number is None else self._number(number), self._layer(il)
        for repeat in self.repeats:
            for op, number, il in self.drawing.outline.fused:
                if number is not None and repeat.last - repeat.length <= number < repeat.last:
                    for i in range(1, repeat.n_more + 2):
                        yield op, self._number(number) + i * repeat.length, il + i * repeat.period
