"""A whole graph in segments, one for each layer, of which equal ones share a template (see compose.py).

A segment is a stretch of the order in which a graph is computed: from the first node that a layer made to the first that a
later one made. What the layer before made and nobody has asked for until then belongs to it.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.params import Copied, GraphParams, Home
from fitplug.memory.graph.tensor import Buffer, Tensor


class UnprovenError(Exception):
    """This graph cannot be composed of what is kept: it must be drawn."""


class Cast(NamedTuple):
    """The tensors that a segment has to do with."""

    nodes: Sequence[Tensor]
    """Its own."""
    guests: Sequence[Tensor]
    """Those of other segments, and leafs that need memory."""
    placed: Sequence[Tensor]
    """Weights and caches."""


class Template:
    """What equal segments have in common; nodes name their sources by their places in the cast."""

    def __init__(self, cast: Cast, numbers: Sequence[int], uses: Sequence[int], pinned: Sequence[int]) -> None:
        """`numbers` are those in the sample, -1 for weights; `uses` says how often each node is a source."""
        self.cast: list[Tensor] = [*cast.nodes, *cast.guests, *cast.placed]
        self.n_nodes, self.n_own = len(cast.nodes), len(cast.nodes) + len(cast.guests)
        """How many are its own nodes, and how many are not placed."""
        self.numbers, self.uses, self.pinned = numbers, uses, pinned
        places = {id(t): i for i, t in enumerate(self.cast)}
        self.src = [[None if s is None else places[id(s)] for s in t.src] for t in cast.nodes]
        self.owners = [None if t.view_src is None else places[id(t.view_src)] for t in self.cast]

    @property
    def outline(self) -> Hashable:
        """Equal for templates of segments that are equal but for the types of their weights."""
        offsets = [t.view_offs if t.view_src is not None else 0 for t in self.cast]
        shapes = [t.ne for t in self.cast[self.n_own :]]
        flags = [(t.op, t.is_input, t.is_output) for t in self.cast]
        lists = (self.numbers, self.owners, offsets, shapes, flags, self.uses, self.pinned)
        return self.n_nodes, tuple(map(tuple, self.src)), tuple(map(tuple, lists))

    @property
    def content(self) -> Hashable:
        """Equal for templates of equal segments."""
        return self.outline, tuple([(t.type, t.nb) for t in self.cast[self.n_own :]])

    def retyped(self, types: Sequence[str], uses: Sequence[int]) -> "Template":
        """The same with other types of the placed, and nodes that are a source more often."""
        found = copy(self)
        found.cast, found.uses = [*self.cast], uses
        for i, type_ in enumerate(types, self.n_own):
            t = self.cast[i]
            if t.type != type_:
                found.cast[i] = Tensor("NONE", type_, t.ne, [])
        return found

    @cached_property
    def reads(self) -> Mapping[int, int]:
        """How often each of its nodes and guests is a source here."""
        return Counter(place for places in self.src for place in places if place is not None and place < self.n_own)

    @cached_property
    def views(self) -> Sequence[tuple[int, int]]:
        """(view, what it is a view of) of its nodes, if neither is placed."""
        owners = enumerate(self.owners[: self.n_nodes])
        return [(i, owner) for i, owner in owners if owner is not None and owner < self.n_own]


class Segment(NamedTuple):
    """One layer's part of the graph."""

    template: Template
    start: int
    """Number of its first node."""
    guests: tuple[int, ...]
    """Numbers of its guests: of nodes, and after those of all the leafs."""
    homes: tuple[tuple[Home, int], ...]
    """Of the placed, with the layer that uses them."""
    leafs: tuple[Hashable, ...]
    """Which leafs the placed are."""
    pins: tuple[int, ...]
    """Layers of its pinned nodes; -1 for the CPU."""

    def number(self, place: int) -> int:
        """Of one of its cast that is not placed."""
        n = self.template.n_nodes
        return self.start + place if place < n else self.guests[place - n]

    def buffers(self, params: GraphParams) -> tuple[Buffer, ...]:
        """Where the placed are."""
        return tuple([params.buffer_at(home, il) for home, il in self.homes])


class Outline(NamedTuple):
    """A whole graph."""

    segments: Sequence[Segment]
    likes: Sequence[int]
    """Numbers in the sample, of nodes and then of leafs that need memory."""
    uses: Sequence[int]
    """How often each node is a source."""
    inputs: Sequence[bool]
    """Whether these leafs are inputs."""
    fused: Sequence[tuple[str, int | None, int]]
    """Fused operations, with their nodes' numbers and their layers; None is not in the graph."""


class Blueprint:
    """All segments of a graph, and what they have to do with each other.

    Args:
        outline: of all layers.
        drawn: what the segments were found in; it may have fewer layers.
    """

    def __init__(self, outline: Outline, drawn: "Drawing") -> None:
        self.segments, self.likes, self.uses, self.inputs, self.fused = outline
        self.drawn = drawn
        self.n_nodes = len(self.uses)
        self.places = [{segment.number(place): place for place in range(segment.template.n_own)} for segment in self.segments]
        """Of each segment, places by number."""
        self.of = [k for k, segment in enumerate(self.segments) for _ in range(segment.template.n_nodes)]
        """Segment of each node."""
        self.lent = {n for segment in self.segments for n in segment.guests}
        """Numbers of what other segments look at."""
        self.exports = [self._exported(segment) for segment in self.segments]
        """Of each segment, places of its nodes that others look at."""

    def owner(self, number: int) -> int | None:
        """The number of what it is a view of, if that needs memory."""
        if not self.is_view(number):
            return None
        segment = self.segments[self.of[number]]
        place = segment.template.owners[number - segment.start]
        return None if place is None or place >= segment.template.n_own else segment.number(place)

    def is_view(self, number: int) -> bool:
        """Whether it lies in another tensor's memory."""
        if number >= self.n_nodes:
            return False
        segment = self.segments[self.of[number]]
        return segment.template.owners[number - segment.start] is not None

    def _exported(self, segment: Segment) -> tuple[int, ...]:
        return tuple([i for i in range(segment.template.n_nodes) if segment.start + i in self.lent])

    @cached_property
    def views(self) -> Mapping[int, list[tuple[int, int]]]:
        """By the number of what they are views of: (segment, number) of all views that need memory to be there."""
        found: dict[int, list[tuple[int, int]]] = {}
        for k, segment in enumerate(self.segments):
            for view, owner in segment.template.views:
                found.setdefault(segment.number(owner), []).append((k, segment.start + view))
        return found

    @cached_property
    def lent_views(self) -> Mapping[int, list[int]]:
        """Of these, views that other segments look at."""
        found = {owner: [view for _, view in views if view in self.lent] for owner, views in self.views.items()}
        return {owner: views for owner, views in found.items() if views}

    @cached_property
    def last_view(self) -> Mapping[int, int]:
        """The last segment with views that nobody else looks at, by the same number."""
        return {owner: self.last_view_but(owner, self.lent) for owner in self.views}

    def last_view_but(self, owner: int, lent: Collection[int]) -> int:
        """The last segment with views of `owner` that are not `lent`; beyond all of them if one is never read; -1: none."""
        views = [(k, view) for k, view in self.views[owner] if view not in lent]
        return max((k if self.uses[view] else len(self.segments) for k, view in views), default=-1)


class Drawing:
    """A graph as it was drawn, in segments.

    Args:
        g: the graph, not scheduled.
        likes: number in the sample by serial number, of all that is no weight.

    Raises:
        UnprovenError: it has leafs of which nobody says where they lie.
    """

    def __init__(self, g: GraphContext, likes: Mapping[int, int]) -> None:
        graph = g.gf
        if graph.mixes_copies:
            raise UnprovenError("a layer uses another one's copy of rope factors")
        self.nodes = graph.nodes
        self.n_nodes = len(self.nodes)
        leafs = [t for t in graph.leafs if t.buffer is None]
        self._by_serial = likes
        self._numbers = {id(t): i for i, t in enumerate(chain(self.nodes, leafs))}
        counts = Counter(id(s) for t in self.nodes for s in t.src if s is not None)
        self.uses = [counts[id(t)] for t in self.nodes]
        self._starts = [section.serial for section in graph.sections]
        self._layers = [-1, *[section.il for section in graph.sections]]
        self._pins = {id(t): il for t, il in graph.pins}
        self._known: dict[Hashable, Template] = {}
        self._types = {name: t.type for name, t in g.model.header.tensors.items()}
        bounds = list(self._bounds())
        self.layers = [self._layers[self._section(self.nodes[start])] for start, _ in bounds]
        """The layer that each segment begins with; -1 for none."""
        self.outline = Outline(
            [self._segment(start, end) for start, end in bounds],
            [likes[t.serial] for t in chain(self.nodes, leafs)],
            self.uses,
            [t.is_input for t in leafs],
            [(node.op, self._numbers.get(id(node.tensor)), node.il) for node in g.fused_nodes],
        )

    def retyped(self, segment: Segment, uses: Sequence[int]) -> Segment:
        """With the types that the weights of these names have, and nodes that are so often a source."""
        template = segment.template
        placed = template.cast[template.n_own :]
        types = [
            self._types.get(home, t.type) if isinstance(home, str) else t.type
            for (home, _), t in zip(segment.homes, placed, strict=True)
        ]
        if all(t.type == type_ for t, type_ in zip(placed, types, strict=True)) and list(template.uses) == list(uses):
            return segment
        retyped = template.retyped(types, uses)
        return segment._replace(template=self._known.setdefault(retyped.content, retyped))

    def _section(self, t: Tensor) -> int:
        return bisect_right(self._starts, t.serial)

    def _bounds(self) -> Iterator[tuple[int, int]]:
        start, current = 0, 0
        for i, t in enumerate(self.nodes):
            section = self._section(t)
            if section > current:
                if i > start:
                    yield start, i
                start, current = i, section
        yield start, self.n_nodes

    def _segment(self, start: int, end: int) -> Segment:
        cast, layers = self._cast(self.nodes[start:end])
        numbers = [self._by_serial.get(t.serial, -1) for t in chain(*cast)]
        pinned = [i for i, t in enumerate(cast.nodes) if id(t) in self._pins]
        template = Template(cast, numbers, self.uses[start:end], pinned)
        return Segment(
            self._known.setdefault(template.content, template), start,
            guests=tuple(self._numbers[id(t)] for t in cast.guests),
            homes=tuple((t.param, il) for t, il in zip(cast.placed, layers, strict=True)),
            leafs=tuple(t.param if isinstance(t.param, Copied) else id(t) for t in cast.placed),
            pins=tuple(self._pins[id(cast.nodes[i])] for i in pinned),
        )  # fmt: skip

    def _cast(self, nodes: Sequence[Tensor]) -> tuple[Cast, Sequence[int]]:
        """All that these nodes have to do with, and the layer that uses each of the placed."""
        met = {id(t) for t in nodes}
        guests: list[Tensor] = []
        placed: dict[int, tuple[Tensor, int]] = {}
        for t in nodes:
            il = self._layers[self._section(t)]
            waiting = [s for s in (*t.src, t.view_src) if s is not None]
            while waiting:
                s = waiting.pop(0)
                if s.buffer is None and id(s) not in met:
                    met.add(id(s))
                    guests.append(s)
                    waiting += [s.view_src] if s.view_src is not None else []
                elif s.buffer is not None and self._place(s, il, placed):
                    placed[id(s)] = s, il
        return Cast(nodes, guests, [t for t, _ in placed.values()]), [il for _, il in placed.values()]

    @staticmethod
    def _place(t: Tensor, il: int, placed: Mapping[int, tuple[Tensor, int]]) -> bool:
        """Whether a weight or a cache is new."""
        if t.param is None:
            raise UnprovenError("a leaf whose home is not known")
        if id(t) not in placed:
            return True
        if isinstance(t.param, Copied) and placed[id(t)][1] != il:
            raise UnprovenError("two layers of one segment, which need not have the same copy")
        return False
