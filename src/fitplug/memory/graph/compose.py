"""A graph's need of memory, composed of what each of its layers was seen to ask for.

Another plan puts layers elsewhere; most of them, and the layers beside them, were seen in such places before. So a graph is
drawn once, in segments (segments.py). A plan says where the weights and caches of each segment are. Then the scheduler's passes
go from segment to segment and remember what they made of it by all that it can depend on (pieces.py); the splits follow from a
few nodes of each (splits.py); so do the steps of the allocator (stretches.py), which are run with today's sizes.

Why this is exact. Nothing is concluded from neighbourhood: every pass of ggml's goes through all segments in order, and what is
kept of one is asked for by the whole state in which the pass comes to it. Where a backend may do more than that (put nodes in
another order, fuse over the end of a segment), `UnprovenError` says so, and the graph is drawn. Of shapes the same holds as for
programs (reuse.py): a sample for today's settings must answer as the one did that the graph was drawn with.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.laying import Placing
from fitplug.memory.graph.params import GraphParams
from fitplug.memory.graph.pieces import Pieces, Placed, without_sources
from fitplug.memory.graph.program import size_in
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.memory.graph.segments import Blueprint, Template, UnprovenError
from fitplug.memory.graph.splits import Copy, Cuts, Identity
from fitplug.memory.graph.stretches import (
    IN_A_BUFFER,
    Begin,
    Course,
    Demand,
    Facts,
    KnownUses,
    Question,
    Stranger,
    Stretch,
    Walk,
)  # fmt: skip
from fitplug.memory.graph.tensor import Tensor

MAX_STRETCHES = 4000
"""Kept; then all are forgotten."""
LONGEST_KERNEL = 48
"""More nodes than any fused kernel computes."""
NOWHERE = (False, 0, -1)
"""Of what has no block: it is not there; block 0 is nobody's."""


class Where(NamedTuple):
    """Of what several segments look at."""

    is_there: bool
    block: int
    backend: int


class Composer:
    """One blueprint on one set of backends."""

    def __init__(
        self, blueprint: Blueprint, shapes: Sequence[Tensor], backends: Sequence[Backend], *, op_offload: bool
    ) -> None:
        """Raises `UnprovenError` where segments cannot be looked at one by one; `shapes` are the sample's tensors."""
        if any(backend.reorders for backend in backends):
            raise UnprovenError("a backend puts nodes in another order")
        self.blueprint, self.shapes, self.backends = blueprint, shapes, backends
        self.pieces = Pieces(blueprint, shapes, Scheduler(backends, op_offload=op_offload))
        self._stretches: dict[tuple[Placed, Question, bool], Stretch] = {}
        self._courses: dict[Hashable, Course] = {}
        first = {backend.character: b for b, backend in reversed([*enumerate(backends)])}
        self._alike = [first[backend.character] for backend in backends]
        self._copied: dict[tuple[Tensor, int], int] = {}
        self._assigned: tuple[object, object, list[Placed]] | None = None
        self._last: tuple[object, object, tuple[list[Placing], list[Demand]]] | None = None
        """Where all lay the last time, and what came of it: another context changes neither."""
        for backend in {type(backend): backend for backend in backends if backend.optimizes_from}.values():
            self._look_for_kernels_across(backend)

    def _look_for_kernels_across(self, backend: Backend) -> None:
        seen: set[tuple[Template, Template]] = set()
        for before, after in pairwise(self.blueprint.drawn.outline.segments):
            if (before.template, after.template) not in seen:
                seen.add((before.template, after.template))
                start = max(0, after.start - LONGEST_KERNEL)
                nodes = self._reshaped(start, min(after.start + LONGEST_KERNEL, self.blueprint.drawn.n_nodes))
                uses = KnownUses(nodes, self.blueprint.drawn.uses[start : start + len(nodes)])
                for at in range(after.start - start):
                    if start + at + backend.fused_at(nodes, at, uses) > after.start:
                        raise UnprovenError("a fused kernel reaches into the next segment")

    def _reshaped(self, start: int, end: int) -> list[Tensor]:
        """Some nodes in the order of the graph, with today's shapes."""
        drawing = self.blueprint.drawn
        drawn, likes = drawing.nodes[start:end], drawing.outline.likes[start:end]
        nodes = [without_sources(self.shapes[n]) for n in likes]
        known = {id(t): node for t, node in zip(drawn, nodes, strict=True)}
        for t, node in zip(drawn, nodes, strict=True):
            node.is_output = t.is_output
        for t, node, n in zip(drawn, nodes, likes, strict=True):
            sources = zip(t.src, self.shapes[n].src, strict=True)
            node.src = [None if s is None else known.get(id(s), like) for s, like in sources]
            owner = t.view_src
            if owner is not None:
                node.view_src, node.view_offs = known.get(id(owner), owner), self.shapes[n].view_offs
        return nodes

    def assign(self, params: GraphParams) -> list[Placed]:
        """Which backend computes what; the last answer is kept, since flash attention's trial asks what the graph does."""
        key = _places(params)
        if self._assigned is None or self._assigned[0] is not params.weights or self._assigned[1] != key:
            self._assigned = params.weights, key, self.pieces.assign(params)
        return self._assigned[2]

    def at_home(self, params: GraphParams) -> dict[str, bool]:
        """Of each fused operation, whether it always runs where its layer lies."""
        placed, blueprint = self.assign(params), self.blueprint
        found: dict[str, bool] = {}
        for op, number, il in blueprint.fused:
            k = 0 if number is None else blueprint.of[number]
            backend = -1 if number is None else placed[k].backends[number - blueprint.segments[k].start]
            found[op] = found.get(op, True) and backend == params.layer_backends[il]
        return found

    def placings(self, params: GraphParams, n_copies: int) -> tuple[list[Placing], list[Demand]]:
        """The stretches of a plan's graph, and what is taken before them all."""
        if len(self._stretches) > MAX_STRETCHES:
            self._stretches.clear()
            self._courses.clear()
            self._copied.clear()
            self.pieces.forget()
        key = n_copies, _places(params)
        if self._last is None or self._last[0] is not params.weights or self._last[1] != key:
            placed = self.assign(params)
            placings = _Composition(self, placed, Cuts(self.blueprint, placed), n_copies).placings()
            self._last = params.weights, key, placings
        return self._last[2]

    def n_bytes(self, copy: Copy) -> int:
        """What a weight's copy takes."""
        t, backend = copy.tensor, copy.backend
        found = self._copied.get((t, backend))
        if found is None:
            found = size_in(self.backends[backend], Tensor("NONE", t.type, t.ne, [], t.nb))
            self._copied[t, backend] = found
        return found

    def stretch(
        self, placed: Placed, asked: Question, sources: Sequence[Tensor], foreign: Sequence[Tensor], *, lasting: bool
    ) -> Stretch:
        """The kept one, or a new one."""
        found = self._stretches.get((placed, asked, lasting))
        if found is None:
            walk = Walk(placed, asked, sources, foreign, self.backends, self._alike, lasting=lasting)
            found = self._stretches[placed, asked, lasting] = walk.stretch()
            known = self._courses
            found.asks = [ask._replace(course=known.setdefault(ask.course.content, ask.course)) for ask in found.asks]
        return found


def _places(params: GraphParams) -> Hashable:
    """All that decides with `weights` what lies where, and what is pinned."""
    return tuple(params.layer_backends), params.output, params.pin, params.pins_layers, params.offload_kqv


class _Composition:
    """One plan's graph."""

    def __init__(self, composer: Composer, placed: Sequence[Placed], cuts: Cuts, n_copies: int) -> None:
        self.composer, self.blueprint, self.placed, self.cuts = composer, composer.blueprint, placed, cuts
        self.n_copies, self.lasting = n_copies, n_copies > 1
        self.n_tensors = len(self.blueprint.likes)
        self.exports = self.blueprint.exports
        self.lent_views, self.last_view = self.blueprint.lent_views, self.blueprint.last_view
        early = self._early()
        if early:
            self._lend(early)
        self.last_read: dict[int, int] = {}
        """The last segment that reads a tensor, by its number; after all those the copies."""
        for k in range(len(placed)):
            self._note_reads(k)
        self.where: dict[int, Where] = {}
        self.n_blocks = 1

    def _early(self) -> set[int]:
        """Views that nobody else looks at but for a copy that is made in a segment before theirs."""
        cuts, blueprint = self.cuts, self.blueprint
        return {
            source
            for split in cuts.splits
            for source in [cuts.copies[copy].source for copy in split.inputs]
            if isinstance(source, int) and source not in blueprint.lent and source not in blueprint.places[split.segment]
        }

    def _lend(self, early: set[int]) -> None:
        """Look at these views as at those that several segments have to do with."""
        blueprint = self.blueprint
        exports, last_view = list(self.exports), dict(self.last_view)
        lent_views = {owner: list(views) for owner, views in self.lent_views.items()}
        for view in early:
            k = blueprint.of[view]
            exports[k] = (*exports[k], view - blueprint.segments[k].start)
            owner = self.blueprint.owner(view)
            if owner is not None:
                if owner in range(blueprint.segments[k].start, view):
                    raise UnprovenError("a copy is made of a view before what it looks at")
                lent_views.setdefault(owner, []).append(view)
                last_view[owner] = blueprint.last_view_but(owner, blueprint.lent | early)
        self.exports, self.lent_views, self.last_view = exports, lent_views, last_view

    def _note_reads(self, k: int) -> None:
        segment, cuts = self.blueprint.segments[k], self.cuts
        template, replaced, last = segment.template, cuts.replaced[k], self.last_read
        reads = template.reads
        if replaced:
            left = dict(reads)
            for at, j, copy in replaced:
                last[self.n_tensors + copy] = k
                place = template.src[at][j]
                if place is not None and place in left:
                    left[place] -= 1
            reads = left
        n = template.n_nodes
        for place in (*self.exports[k], *range(n, template.n_own)):
            if reads.get(place):
                last[segment.number(place)] = k
        for split in cuts.begun[k]:
            for copy in cuts.splits[split].inputs:
                source = cuts.copies[copy].source
                if isinstance(source, int):
                    last[source] = k

    def placings(self) -> tuple[list[Placing], list[Demand]]:
        first = self._leafs()
        optimizes = self._optimized()
        return [self._placing(k, optimizes) for k in range(len(self.placed))], first

    def _leafs(self) -> list[Demand]:
        """What is taken before all nodes (`Scheduler._leafs`): of inputs and copies in a pipeline as many as it has stages."""
        blueprint, n_copies = self.blueprint, self.n_copies
        taken: list[Demand] = []
        leafs = list(zip(range(blueprint.n_nodes, self.n_tensors), blueprint.inputs, self.composer.pieces.leafs, strict=True))
        inputs = [leaf for leaf in leafs if leaf[1]] if self.lasting else []
        for number, _, backend in inputs:
            self._take(number, backend, taken)
            taken += [Demand(blueprint.likes[number], backend, is_copy=True)] * (n_copies - 1)
            self.n_blocks += n_copies - 1
        for n, copy in enumerate(self.cuts.copies if self.lasting else ()):
            self.where[self.n_tensors + n] = Where(is_there=True, block=self.n_blocks, backend=copy.backend)
            taken += [self._demand(copy)] * n_copies
            self.n_blocks += n_copies
        for number, is_input, backend in leafs:
            if not (self.lasting and is_input):
                self._take(number, backend, taken)
        return taken

    def _take(self, number: int, backend: int, taken: list[Demand]) -> None:
        self.where[number] = Where(is_there=True, block=self.n_blocks, backend=backend)
        self.n_blocks += 1
        taken.append(Demand(self.blueprint.likes[number], backend))

    def _demand(self, copy: Copy) -> Demand:
        number = copy.like
        if number < 0:
            number = -1 - self.composer.n_bytes(copy)
        return Demand(number, copy.backend, is_copy=True)

    def _optimized(self) -> list[bool]:
        starts, backends = self.cuts.starts(), self.composer.backends
        return [
            0 < backends[split.backend].optimizes_from <= end - start
            for split, (start, end) in zip(self.cuts.splits, pairwise(starts), strict=True)
        ]

    def _facts(self, number: int, k: int) -> Facts:
        there, _, backend = self.where.get(number, NOWHERE)
        return Facts(there, backend, self.last_read.get(number, -1) > k, *self._views(number, k))

    def _views(self, number: int, k: int) -> tuple[int, bool]:
        later = self.last_view.get(number, -1) > k
        views = self.lent_views.get(number)
        if views is None:
            return 0, later
        last = [self.last_read.get(view, len(self.placed)) for view in views]
        return last.count(k), later or max(last) > k

    def _placing(self, k: int, optimizes: Sequence[bool]) -> Placing:
        segment, cuts, placed = self.blueprint.segments[k], self.cuts, self.placed[k]
        own = [copy for split in cuts.begun[k] for copy in cuts.splits[split].inputs]
        foreign = self._foreign(k, own)
        begins = self._begins(k, optimizes, {number: i for i, number in enumerate(foreign)})
        at_own = {copy: i for i, copy in enumerate(own)}
        others = list(dict.fromkeys(copy for _, _, copy in cuts.replaced[k] if copy not in at_own))
        at_others = {copy: -1 - i for i, copy in enumerate(others)}
        copies = [cuts.copies[copy] for copy in own]
        asked = Question(
            tuple(begins),
            tuple([(at, j, at_own[copy] if copy in at_own else at_others[copy]) for at, j, copy in cuts.replaced[k]]),
            guests=tuple([self._facts(number, k) for number in segment.guests]),
            foreign=tuple([(self._stranger(number, k, foreign), self._facts(number, k)) for number in foreign]),
            copies=tuple([self._facts(self.n_tensors + copy, k) for copy in others]),
            own=tuple([
                (self._demand(copy), self.last_read.get(self.n_tensors + n, -1) > k)
                for n, copy in zip(own, copies, strict=True)
            ]),
            exports=tuple([
                (i, Facts(True, -1, self.last_read.get(segment.start + i, -1) > k, *self._views(segment.start + i, k)))
                for i in self.exports[k]
            ]),
        )  # fmt: skip
        sources = [*[copy.tensor for copy in copies], *[cuts.copies[copy].tensor for copy in others]]
        strangers = [self.composer.shapes[self.blueprint.likes[number]] for number in foreign]
        stretch = self.composer.stretch(placed, asked, sources, strangers, lasting=self.lasting)
        outer = [*segment.guests, *foreign, *[self.n_tensors + copy for copy in others]]
        shown = [*[segment.start + i for i in self.exports[k]], *[self.n_tensors + copy for copy in own]]
        return self._laid(stretch, outer, shown)

    def _foreign(self, k: int, own: Sequence[int]) -> list[int]:
        """What is copied here that only other segments look at; with a view, what it is a view of."""
        places = self.blueprint.places[k]
        found: dict[int, None] = {}
        for copy in own:
            source = self.cuts.copies[copy].source
            while isinstance(source, int) and source not in places:
                self._refuse_future(source, k)
                found[source] = None
                source = self.blueprint.owner(source)
        return list(found)

    def _refuse_future(self, number: int, k: int) -> None:
        is_node = number < self.blueprint.n_nodes
        if is_node and self.blueprint.of[number] > k and not self.blueprint.is_view(number):
            raise UnprovenError("a copy is made before what it is a copy of")

    def _stranger(self, number: int, k: int, foreign: Sequence[int]) -> Stranger:
        places, owner = self.blueprint.places[k], self.blueprint.owner(number)
        place = None if owner is None else places[owner] if owner in places else -2 - foreign.index(owner)
        return Stranger(self.blueprint.likes[number], place)

    def _begins(self, k: int, optimizes: Sequence[bool], foreign: Mapping[int, int]) -> list[Begin]:
        cuts = self.cuts
        begun = cuts.begun[k]
        found: list[Begin] = []
        if not begun or cuts.splits[begun[0]].at > 0:
            running = (begun[0] if begun else self._next_split(k)) - 1
            found.append(Begin(0, cuts.splits[running].backend, optimizes[running]))
        for number in begun:
            split = cuts.splits[number]
            places = [self._place(cuts.copies[copy].source, self.blueprint.places[k], foreign) for copy in split.inputs]
            found.append(Begin(split.at, split.backend, optimizes[number], tuple(places)))
        return found

    def _next_split(self, k: int) -> int:
        return sum(map(len, self.cuts.begun[: k + 1]))

    @staticmethod
    def _place(source: Identity, places: Mapping[int, int], foreign: Mapping[int, int]) -> int:
        if not isinstance(source, int):
            return IN_A_BUFFER
        if source in places:
            return places[source]
        return -2 - foreign[source] if source in foreign else IN_A_BUFFER

    def _laid(self, stretch: Stretch, outer: Sequence[int], shown: Sequence[int]) -> Placing:
        where = [self.where.get(number, NOWHERE) for number in outer]
        for number, (_, block, backend), remains in zip(outer, where, stretch.remains, strict=True):
            self.where[number] = Where(remains, block, backend)
        exports: list[int] = []
        for number, (there, block, backend) in zip(shown, stretch.exports, strict=False):
            own = there and block >= len(outer)
            exports.append(self.n_blocks if own else 0)
            self.where[number] = Where(there, self.n_blocks if own else where[block][1] if there else 0, backend)
            self.n_blocks += own
        return Placing(stretch, [block for _, block, _ in where], exports)
