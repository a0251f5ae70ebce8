"""One layer of each shape, drawn for today's settings: what shapes decide, and how large everything is."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from fitplug.memory.graph.backends import Backend, Uses
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.compose import Composer
from fitplug.memory.graph.laying import Laying
from fitplug.memory.graph.params import OUTPUT, Copied, GraphParams
from fitplug.memory.graph.program import INPLACE, size_in
from fitplug.memory.graph.stretches import Course, Demand
from fitplug.memory.graph.tensor import VIEW_OPS, Tensor

_KINDS = attrgetter("op", "type", "param", "is_input", "is_output")
_SHAPES = attrgetter("ne", "nb")


def _is_cached(t: Tensor | None) -> bool:
    """A cache, or a view of one."""
    buffer = None if t is None else (t.view_src or t).buffer
    return buffer is not None and not buffer.is_weights


def sections(graph: Graph) -> Iterator[tuple[Hashable, list[Tensor]]]:
    """The tensors that are no weights, in the order in which they were made, by layer and what lies between the layers.

    Inputs stand apart: many are made when the first layer asks for them.
    """
    tensors = [t for t in chain(graph.leafs, graph.nodes) if t.buffer is None or not t.buffer.is_weights]
    tensors.sort(key=attrgetter("serial"))
    yield "inputs", [t for t in tensors if t.is_input]
    tensors = [t for t in tensors if not t.is_input]
    key: Hashable = None
    start, n = 0, len(tensors)
    for section in graph.sections:
        end = start
        while end < n and tensors[end].serial < section.serial:
            end += 1
        yield key, tensors[start:end]
        key, start = (section.loop, section.shape), end
    yield key, tensors[start:]


class Sample:
    """One layer of each shape, and what stands before and after the layers."""

    def __init__(self, params: GraphParams, graph: Graph) -> None:
        """Of a graph that was drawn for `params`, cut to `SAMPLE`, and is not scheduled."""
        self.params, self.graph = params, graph
        parts: dict[Hashable, list[Tensor]] = {}
        for key, tensors in sections(graph):
            parts.setdefault(key, []).extend(tensors)
        self.tensors = list(chain.from_iterable(parts.values()))
        self.parts: dict[Hashable, range] = {}
        """Numbers of the tensors of each section."""
        n = 0
        for key, tensors in parts.items():
            self.parts[key] = range(n, n + len(tensors))
            n += len(tensors)
        self.numbers = {t.serial: i for i, t in enumerate(self.tensors)}
        self.sketched: AbstractSet[int] | None = None
        """Numbers of the tensors that others of one sketch (sketches.py) have with other shapes, or whose sources they have."""
        self._answers: dict[int, Hashable] = {}
        self.scratches: dict[Hashable, int] = {}
        """What kernels need besides, by what computes."""
        self.composed: dict[bool, Composed] = {}
        """What composes such graphs, with and without op_offload."""
        self.akin: dict[bool, Composed] = {}
        """The same of the sample of its sketch that was asked for first."""

    def resized(self, params: GraphParams, tensors: Sequence[Tensor], needed: Mapping[Hashable, int]) -> "Sample":
        """For settings that change nothing but shapes, and no answer: whatever this one says but of sizes is true of it too."""
        found = copy(self)
        found.params, found.tensors, found.composed, found.needed = params, list(tensors), {}, needed
        found.scratches = {}
        found.__dict__.pop("shapes", None)
        return found

    @cached_property
    def kinds(self) -> list[Hashable]:
        """What each tensor is by itself but for its shape."""
        return list(map(_KINDS, self.tensors))

    @cached_property
    def shapes(self) -> list[Hashable]:
        """Of each tensor."""
        return list(map(_SHAPES, self.tensors))

    @cached_property
    def structure(self) -> list[Hashable]:
        """All that a tensor is but its shape."""
        number = self.numbers.get
        pinned = {t.serial: il >= 0 for t, il in self.graph.pins}
        return [
            (
                t.op, t.type, t.param, t.is_input, t.is_output, pinned.get(t.serial),
                None if t.view_src is None else number(t.view_src.serial),
                *[None if s is None else number(s.serial, -1) for s in t.src],
            )
            for t in self.tensors
        ]  # fmt: skip

    @cached_property
    def made(self) -> Hashable:
        """In which order which sources were made, weights included: if this and `kinds` are equal, the structures are too."""
        first = self.tensors[0].serial if self.tensors else 0
        return (
            [t.serial - first for t in self.tensors],
            [len(t.src) for t in self.tensors],
            [s and s.serial - first for t in self.tensors for s in t.src],
            [t.view_src and t.view_src.serial - first for t in self.tensors],
            [(t.serial - first, il >= 0) for t, il in self.graph.pins],
        )

    def is_like(self, other: "Sample") -> bool:
        """Whether their structures are equal."""
        return self.kinds == other.kinds and (self.made == other.made or self.structure == other.structure)

    @cached_property
    def asked(self) -> Sequence[Backend]:
        """One of the backends that answer alike."""
        return list({backend.character: backend for backend in self.params.backends}.values())

    @cached_property
    def frame(self) -> Hashable:
        """What graphs have in common besides their structure and shapes: which layers follow each other."""
        shapes = [tuple([layer.shape for layer in classes]) for classes in self.graph.loops]
        shared = frozenset(t.param for t in self.graph.leafs if isinstance(t.param, Copied) or t.param == OUTPUT)
        return tuple(shapes), shared

    @cached_property
    def n_made(self) -> int:
        """How many tensors drawing every layer would make."""
        total = 0
        for key, numbers in self.parts.items():
            loop, shape = key if isinstance(key, tuple) else (0, None)
            repeated = 1 if shape is None else sum(layer.shape == shape for layer in self.graph.loops[loop])
            total += repeated * len(numbers)
        return total

    def fits_anywhere(self, sizes: Sequence[int], n_copies: int) -> bool:
        """Whether each of these buffers has room for all that is computed here, or for the copies of it."""
        needed = self.needed
        return all(
            n_copies * needed[backend.character] <= size for backend, size in zip(self.params.backends, sizes, strict=True)
        )

    @cached_property
    def needed(self) -> Mapping[Hashable, int]:
        """Bytes of all that is computed here, by what asks for them."""
        open_last = sorted(range(len(self.tensors)), key=(self.sketched or frozenset()).__contains__)  # so few sums are open
        own = [t for t in map(self.tensors.__getitem__, open_last) if t.view_src is None and t.buffer is None]
        return {backend.character: sum([size_in(backend, t) for t in own]) for backend in self.asked}

    @cached_property
    def reads_caches_at_home(self) -> bool:
        """Whether every backend takes what reads a cache: else it is copied for another that does."""
        readers = [i for i, t in enumerate(self.tensors) if t.op not in VIEW_OPS and any(map(_is_cached, t.src))]
        return all(backend.takes(self.tensors[i]) for i in readers for backend in self.asked)

    def scratch(self, backend: Backend) -> int:
        """What kernels need besides on a device that computes layers of every shape."""
        character = backend.character
        found = self.scratches.get(character)
        if found is None:
            found = self.scratches[character] = backend.scratch(self.tensors)
        return found

    @cached_property
    def fused(self) -> list[Hashable]:
        """What optimizing backends want to be kept, until when, and in which order they compute."""
        found: list[Hashable] = []
        nodes, number = self.graph.nodes, self.numbers.get

        def keep(t: Tensor, until: Tensor) -> None:
            found.append((number(t.serial), number(until.serial)))

        for backend in self.asked:
            if backend.optimizes_from:
                order = backend.graph_optimize(nodes, None, Uses(nodes, {}), keep)
                found += [tuple(step.nodes) for step in order or ()]
        return found

    def answers(self, i: int) -> Hashable:
        """What backends and the allocator make of an operation's shapes, by its number."""
        found = self._answers.get(i)
        if found is None:
            t = self.tensors[i]
            alike = [s is not None and s.nb == t.nb and s.ne == t.ne for s in t.src] if t.op in INPLACE else ()
            found = self._answers[i] = [(backend.takes(t), backend.offloads_op(t)) for backend in self.asked], alike
        return found

    def ask(self) -> Sequence[object]:
        """All that is decided by shapes that a sketch leaves open; it is remembered."""
        return self.fused, self.reads_caches_at_home, *self.needed.values(), *map(self.answers, self.sketched or ())

    def changes(self, other: "Sample") -> AbstractSet[int] | None:
        """Numbers of the tensors that have another shape there, or a source that has; None where more is different."""
        if self.sketched is not None and self.sketched is other.sketched:
            return self.sketched
        if not self.is_like(other):
            return None
        changed = {i for i, (a, b) in enumerate(zip(self.shapes, other.shapes, strict=True)) if a != b}
        if not changed:
            return changed
        if self.fused != other.fused:
            return None
        meant = {id(self.tensors[i]) for i in changed}
        touched = {i for i, t in enumerate(self.tensors) if i in changed or not meant.isdisjoint(map(id, t.src))}
        return touched if all(self.answers(i) == other.answers(i) for i in touched) else None


def ordered(params: GraphParams) -> bool:
    """Whether sizes depend on which tensor was measured first: attention over quantised caches behind an RPC server."""
    return (params.type_k, params.type_v) != ("f16", "f16") and any(backend.remembers for backend in params.backends)


def likes(sample: Sample, graph: Graph) -> Mapping[int, int] | None:
    """Serial number → number in the sample of a tensor that is made at the same place, of each that is no weight."""
    found: dict[int, int] = {}
    for key, tensors in sections(graph):
        like = sample.parts.get(key, range(0))
        if len(like) != len(tensors):
            return None
        for a, n in zip(tensors, like, strict=True):
            b = sample.tensors[n]
            if a.op != b.op or a.ne != b.ne or a.nb != b.nb or a.type != b.type:
                return None
            found[a.serial] = n
    return found


class Sizes(dict[Demand, int]):
    """Bytes of what composed graphs demand, measured when it is asked for."""

    def __init__(self, sample: Sample, changed: AbstractSet[int] = frozenset(), known: "Sizes | None" = None) -> None:
        """`known` has the sizes of another sample, of which the `changed` ones are not today's."""
        super().__init__()
        self.sample, self._changed, self._known = sample, changed, known
        self._of: dict[Course, Sequence[int]] = {}
        self.laying = Laying(sample.params.backends, self, self.of)

    def of(self, course: Course) -> Sequence[int]:
        """Of all demands of a course."""
        found = self._of.get(course)
        if found is None:
            found = self._of[course] = self._measured(course)
        return found

    def _measured(self, course: Course) -> Sequence[int]:
        if self._known is None:
            return [self[demand] for demand in course.demands]
        known, changed = self._known.of(course), self._changed
        return [self[demand] if demand.number in changed else n for demand, n in zip(course.demands, known, strict=True)]

    def __missing__(self, demand: Demand) -> int:
        number, backend, is_copy, copied = demand
        if number < 0:
            found = -1 - number
        elif self._known is not None and number not in self._changed:
            found = self._known[demand]
        else:
            t = self.sample.tensors[number]
            measured = _copy(t) if is_copy else _with_copies(t, copied) if copied else t
            found = size_in(self.sample.params.backends[backend], measured)
        self[demand] = found
        return found


def _copy(t: Tensor) -> Tensor:
    return Tensor("NONE", t.type, t.ne, [], t.nb)


def _with_copies(t: Tensor, copied: Collection[int]) -> Tensor:
    """The operation with copies as these of its sources; of one that stands there twice there is one copy."""
    found = Tensor(t.op, t.type, t.ne, [*t.src], t.nb)
    found.n_bytes, found.param = t.n_bytes, t.param
    made = {id(s): _copy(s) for j, s in enumerate(t.src) if j in copied and s is not None}
    found.src = [made[id(s)] if j in copied and s is not None else s for j, s in enumerate(t.src)]
    return found


class Composed(NamedTuple):
    """A composer, and sizes by a sample of the graph that it was made of."""

    composer: Composer | None
    """None where the graph must be drawn."""
    sizes: Sizes
