"""Segments that have their places: which backend computes each of their nodes (`Scheduler.assign`), asked once for equal ones.

Undecided nodes follow decided ones before and after them. A segment is told which backend the nodes before it, or behind it,
hand on, and says what it hands on itself; so what becomes of it is remembered by that.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from fitplug.memory.graph.params import GraphParams
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.memory.graph.segments import Blueprint, Segment, Template
from fitplug.memory.graph.tensor import VIEW_OPS, Buffer, Tensor

Backends: TypeAlias = tuple[int, ...]


class Event(NamedTuple):
    """A node where a split may begin, or that reads what its backend cannot reach."""

    at: int
    backend: int
    crossing: Sequence[tuple[int, int]]
    """(which source, its place in the cast)."""
    copies_weights: bool


class Piece:
    """A template on backends: tensors of its own, linked as the graph's are."""

    def __init__(
        self,
        template: Template,
        shapes: Sequence[Tensor],
        buffers: Sequence[Buffer],
        pinned: Sequence[int],
        scheduler: Scheduler,
    ) -> None:
        """Make it, and look where its own weights put its nodes.

        Args:
            template: it, but for shapes.
            shapes: the sample's tensors.
            buffers: where the placed are.
            pinned: the backend of each pinned node, -1 where callers' assignments do not hold.
            scheduler: for these backends.
        """
        self.template, self.buffers = template, buffers
        drawn = [t if n < 0 else shapes[n] for t, n in zip(template.cast, template.numbers, strict=True)]
        self.cast = [without_sources(t) for t in drawn]
        for t, like in zip(self.cast, template.cast, strict=True):
            t.is_output = like.is_output  # a draft reads some layers' inputs, which the layer before made
        n = template.n_nodes
        self.nodes, self.guests = self.cast[:n], self.cast[n : template.n_own]
        for t, buffer in zip(self.cast[template.n_own :], buffers, strict=True):
            t.buffer, t.backend = buffer, buffer.backends[0]
        for t, places in zip(self.nodes, template.src, strict=True):
            t.src = [None if place is None else self.cast[place] for place in places]
        for t, owner, like in zip(self.cast, template.owners, drawn, strict=True):
            if owner is not None:
                t.view_src, t.view_offs = self.cast[owner], like.view_offs
        self.work = [t for t in self.nodes if t.op not in VIEW_OPS]
        for i, backend in zip(template.pinned, pinned, strict=True):
            if backend != -1 and scheduler.backends[backend].supports_op(self.nodes[i]):
                self.nodes[i].backend = backend
        for t in self.nodes:
            if t.backend == -1:
                t.backend = scheduler.from_current(t)
        self.states: dict[Backends, State] = {}
        self.first = self.state()

    def state(self) -> "State":
        """What its nodes' backends are now."""
        backends = tuple([t.backend for t in self.nodes])
        found = self.states.get(backends)
        if found is None:
            found = self.states[backends] = State(self, backends)
        return found

    def put(self, backends: Backends, guests: Backends = ()) -> None:
        """Give nodes and guests these backends."""
        for t, backend in zip(self.nodes, backends, strict=True):
            t.backend = backend
        for t, backend in zip(self.guests, guests, strict=False):
            t.backend = backend


class State:
    """Backends of a piece's nodes on the way to where they stay."""

    def __init__(self, piece: Piece, backends: Backends) -> None:
        self.piece, self.backends = piece, backends
        work = [t.backend for t in piece.work]
        self.is_settled = -1 not in work
        self.ends = (work[-1], work[0]) if work and self.is_settled else None
        """What it hands on, and backwards, if all is decided."""
        self.spreads: dict[tuple[int, bool, bool], tuple[State, int]] = {}
        self.most: dict[Backends, State] = {}
        self.placed: dict[Backends, Placed] = {}


class Placed:
    """A piece that has its places."""

    def __init__(self, state: State, before: Backends, scheduler: Scheduler) -> None:
        """`before` is where its guests are."""
        self.piece = piece = state.piece
        piece.put(state.backends, before)
        scheduler.finish(piece.nodes)
        self.backends = tuple([t.backend for t in piece.nodes])
        self.guests = tuple([t.backend for t in piece.guests])
        """Where they are then: leafs follow their first reader."""
        self.events = list(self._events(scheduler)) if scheduler.cpu else []

    def _events(self, scheduler: Scheduler) -> Iterator[Event]:
        previous = None
        for i, t in enumerate(self.piece.nodes):
            if t.op in VIEW_OPS:
                continue
            b, places = t.backend, self.piece.template.src[i]
            crossing = [
                (j, place)
                for j, (s, place) in enumerate(zip(t.src, places, strict=True))
                if s is not None and place is not None and s.backend != b and not scheduler.reads(s, b)
            ]
            if crossing or b != previous:
                sources = [self.piece.cast[place] for _, place in crossing]
                yield Event(i, b, crossing, any(s.buffer is not None and s.buffer.is_weights for s in sources))
            previous = b


class Pieces:
    """The pieces of one blueprint on one set of backends."""

    def __init__(self, blueprint: Blueprint, shapes: Sequence[Tensor], scheduler: Scheduler) -> None:
        self.blueprint, self.shapes, self.scheduler = blueprint, shapes, scheduler
        self._made: dict[Hashable, Piece] = {}
        cpu = scheduler.cpu
        self._leafs = [cpu if is_input else -1 for is_input in blueprint.inputs]

    def forget(self) -> None:
        """All pieces."""
        self._made.clear()

    def assign(self, params: GraphParams) -> list[Placed]:
        """Passes 1 to 4 of the scheduler."""
        states = [self._piece(segment, params).first for segment in self.blueprint.segments]
        for skip_cpu in (True, False):
            for backwards in (False, True):
                self._spread(states, skip_cpu=skip_cpu, backwards=backwards)
        self._follow_inputs(states)
        return self._finish(states)

    def _piece(self, segment: Segment, params: GraphParams) -> Piece:
        buffers = segment.buffers(params)
        pinned = tuple([self._pinned(il, params) for il in segment.pins])
        key = segment.template, buffers, pinned
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Piece(segment.template, self.shapes, buffers, pinned, self.scheduler)
        return found

    def _pinned(self, il: int, params: GraphParams) -> int:
        if il == -1:
            return self.scheduler.cpu if params.pin else -1
        return params.layer_backends[il] if params.pins_layers else -1

    def _spread(self, states: list[State], *, skip_cpu: bool, backwards: bool) -> None:
        current, cpu = -1, self.scheduler.cpu
        for k in reversed(range(len(states))) if backwards else range(len(states)):
            state = states[k]
            if state.ends is not None:
                current = state.ends[backwards]
                if skip_cpu and current == cpu:
                    current = -1
                continue
            key = current, skip_cpu, backwards
            found = state.spreads.get(key)
            if found is None:
                piece = state.piece
                piece.put(state.backends)
                work = piece.work[::-1] if backwards else piece.work
                current = self.scheduler.spread(work, current, skip_cpu=skip_cpu)
                found = state.spreads[key] = piece.state(), current
            states[k], current = found

    def _follow_inputs(self, states: list[State]) -> None:
        """Pass 3 for nodes that nobody's neighbours have decided."""
        for k, state in enumerate(states):
            if state.is_settled:
                continue
            guests = self._guests(self.blueprint.segments[k], [each.backends for each in states], self._leafs)
            found = state.most.get(guests)
            if found is None:
                state.piece.put(state.backends, guests)
                for t in state.piece.work:
                    if t.backend == -1:
                        self.scheduler.to_most_inputs(t)
                found = state.most[guests] = state.piece.state()
            states[k] = found

    def _finish(self, states: Sequence[State]) -> list[Placed]:
        done: list[Backends] = []
        placed: list[Placed] = []
        leafs = self._leafs.copy()
        n_nodes = self.blueprint.n_nodes
        for state, segment in zip(states, self.blueprint.segments, strict=True):
            before = self._guests(segment, done, leafs)
            found = state.placed.get(before)
            if found is None:
                found = state.placed[before] = Placed(state, before, self.scheduler)
            if found.guests != before:
                for number, backend in zip(segment.guests, found.guests, strict=True):
                    if number >= n_nodes:
                        leafs[number - n_nodes] = backend
            done.append(found.backends)
            placed.append(found)
        self.leafs = leafs
        return placed

    def _guests(self, segment: Segment, done: Sequence[Backends], leafs: Sequence[int]) -> Backends:
        blueprint = self.blueprint
        n_nodes, of, segments = blueprint.n_nodes, blueprint.of, blueprint.segments
        return tuple([
            leafs[n - n_nodes] if n >= n_nodes else done[of[n]][n - segments[of[n]].start] for n in segment.guests
        ])  # fmt: skip


def without_sources(t: Tensor) -> Tensor:
    """The same without sources."""
    copy = Tensor(t.op, t.type, t.ne, [], t.nb)
    copy.n_bytes, copy.param, copy.is_input, copy.is_output = t.n_bytes, t.param, t.is_input, t.is_output
    return copy
