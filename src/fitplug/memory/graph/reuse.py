"""Graphs that differ in sizes alone: drawn, scheduled and worked out once, then only measured anew.

Another context makes some tensors larger; another plan gives the layers that are kept to others of their class. Neither
changes what a graph computes or in which order, so its `Program` is kept and run with other sizes.

Why this is exact. A `Sample` is a drawing of one layer of each shape for just the settings that are asked about, and every
tensor of the graph has its like in it: that is looked up, tensor by tensor, when a program is made (`likes`), and where one
has not, the graph is drawn again each time. If today's sample has the operations of the program's own sample, with the same
sources (`Sample.structure`), drawing goes the same way in both, so the graph is the same but for shapes. Scheduler and
allocator ask of shapes only whether a backend takes an operation, takes it over from the host, or fuses it, and whether a
source is laid out as the result is. If all answers are what they were (`Sample.answers`), schedule and steps are the same.
What lies where is part of the key (`_key`), as classes of layers. Only sizes are left, and those are measured on the sample.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from fitplug.memory.graph.backends import Backend, Uses
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.layers import ONE_OF_EACH, SAMPLE, SHORT, TRIED, Cut, LayerClass, Run, shortened
from fitplug.memory.graph.loops import find_loops
from fitplug.memory.graph.params import GraphParams, copy_name
from fitplug.memory.graph.program import INPLACE, GraphAllocator, Program, size_in
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.memory.graph.tensor import Tensor

MAX_KEPT = 96
"""Programs; the oldest goes first."""


class Schedules(NamedTuple):
    """How graphs are scheduled."""

    n_copies: int
    op_offload: bool


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
        self.parts: dict[Hashable, list[Tensor]] = {}
        for key, tensors in sections(graph):
            self.parts.setdefault(key, []).extend(tensors)
        self.tensors = list(chain.from_iterable(self.parts.values()))
        self.numbers = {t.serial: i for i, t in enumerate(self.tensors)}

    @cached_property
    def structure(self) -> list[Hashable]:
        """All that a tensor is but its shape."""
        number = self.numbers.get
        return [
            (
                t.op, t.type, t.param, t.is_input, t.is_output, None if t.view_src is None else number(t.view_src.serial),
                *[None if s is None else number(s.serial, -1) for s in t.src],
            )
            for t in self.tensors
        ]  # fmt: skip

    @cached_property
    def asked(self) -> Sequence[Backend]:
        """One of the backends that answer alike."""
        return list({_character(backend): backend for backend in self.params.backends}.values())

    def fits_anywhere(self, sizes: Sequence[int], n_copies: int) -> bool:
        """Whether each of these buffers has room for all that is computed here, or for the copies of it."""
        own = [t for t in self.tensors if t.view_src is None and t.buffer is None]
        needed = {_character(backend): n_copies * sum([size_in(backend, t) for t in own]) for backend in self.asked}
        return all(needed[_character(backend)] <= size for backend, size in zip(self.params.backends, sizes, strict=True))

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

    def answers(self, t: Tensor) -> Hashable:
        """What backends and the allocator make of an operation's shapes."""
        alike = [s is not None and s.nb == t.nb and s.ne == t.ne for s in t.src] if t.op in INPLACE else ()
        return [(backend.takes(t), backend.offloads_op(t)) for backend in self.asked], alike

    def changes(self, other: "Sample") -> set[int] | None:
        """Numbers of the tensors that have another shape there, or a source that has; None where more is different."""
        if self.structure != other.structure:
            return None
        changed = {i for i, (a, b) in enumerate(zip(self.tensors, other.tensors, strict=True)) if a.ne != b.ne or a.nb != b.nb}
        if changed and self.fused != other.fused:
            return None
        number = self.numbers.get
        touched = {
            i
            for i, t in enumerate(self.tensors)
            if i in changed or any(s is not None and number(s.serial) in changed for s in t.src)
        }
        if any(self.answers(self.tensors[i]) != other.answers(other.tensors[i]) for i in touched):
            return None
        return touched


def _character(backend: Backend) -> Hashable:
    own = ((name, value) for name, value in vars(backend).items() if name not in ("name", "index") and name[0] != "_")
    return type(backend), tuple(sorted(own))


def _ordered(params: GraphParams) -> bool:
    """Whether sizes depend on which tensor was measured first: attention over quantised caches behind an RPC server."""
    return (params.type_k, params.type_v) != ("f16", "f16") and any(backend.remembers for backend in params.backends)


def likes(sample: Sample, graph: Graph) -> Mapping[int, int] | None:
    """Serial number → number in the sample of a tensor that is made at the same place, of each that is no weight."""
    found: dict[int, int] = {}
    for key, tensors in sections(graph):
        like = sample.parts.get(key, [])
        if len(like) != len(tensors):
            return None
        for a, b in zip(tensors, like, strict=True):
            if a.op != b.op or a.ne != b.ne or a.nb != b.nb or a.type != b.type:
                return None
            found[a.serial] = sample.numbers[b.serial]
    return found


class Reusable:
    """A program, and where the sizes of its demands come from."""

    def __init__(
        self, program: Program, sample: Sample, tensors: Sequence[Tensor], sizes: Sequence[int], found: Mapping[int, int]
    ) -> None:
        self.program, self.sample = program, sample
        of_source: dict[tuple[int, bool, int], int] = {}
        self._known: list[int] = []
        self.numbers: list[int] = []
        """Of each demand's source; equal ones have equal sizes."""
        for t, backend, size in zip(tensors, program.demands, sizes, strict=True):
            i = found.get(t.serial, -1 - size)  # copies of weights keep their size
            n = of_source.setdefault((i, i >= 0 and t.op != sample.tensors[i].op, backend), len(self._known))
            if n == len(self._known):
                self._known.append(size)
            self.numbers.append(n)
        self._sources = list(of_source)

    def sizes(self, sample: Sample, changed: set[int]) -> list[int]:
        """Bytes of each demand where the sample is another."""
        sizes = self._known
        if changed:
            sizes = sizes.copy()
            for n, (i, is_copy, backend) in enumerate(self._sources):
                if i in changed:
                    t = sample.tensors[i]
                    measured = Tensor("NONE", t.type, t.ne, [], t.nb) if is_copy else t
                    sizes[n] = size_in(self.program.backends[backend], measured)
        return [sizes[n] for n in self.numbers]


class KeptLayer(NamedTuple):
    """A layer that is built."""

    loop: int
    kind: LayerClass
    run: tuple[int, Run] | None
    """Loop and run of the first layer of a repetition."""


class Layouts:
    """The programs of one model's graphs."""

    def __init__(self, draw: Callable[[GraphParams], GraphContext]) -> None:
        self._draw = draw
        self._drawn: dict[bool, Sample] = {}
        """The last samples of short and of long batches."""
        self._kept: dict[Hashable, Reusable] = {}
        self._cuts = {False: SHORT, True: SHORT}
        """What can be left out of graphs of short and of long batches, as far as is known."""

    def sample(self, params: GraphParams) -> Sample:
        """One layer of each shape, drawn; the trial's sample is the token's as well."""
        found = self._drawn.get(params.copies_weights)
        if found is None or found.params != params:
            found = self._drawn[params.copies_weights] = Sample(params, self._draw(params.keeping(SAMPLE)).gf)
        return found

    def like(self, params: GraphParams) -> Hashable:
        """What graphs have in common in which layers stand between the same others."""
        sample = self.sample(params)
        return _key(sample, kept_layers(sample, TRIED))

    def reserve(self, sample: Sample, how: Schedules) -> list[int]:
        """Bytes per backend of the graph that the sample is for."""
        while True:
            cut = self._cuts[sample.params.copies_weights]
            layers = kept_layers(sample, cut)
            program, sizes, unlike = self._measured(sample, cut, layers, how)
            if not unlike:
                runs = dict.fromkeys(layer.run for layer in layers if layer.run is not None)
                return program.run(sizes, [run.left_out for _, run in runs])
            self._cuts[sample.params.copies_weights] = cut.longer(unlike)

    def takes_less(self, sample: Sample, sizes: Sequence[int], how: Schedules) -> bool:
        """Whether a graph of few tokens fits into `sizes` even if nothing were ever freed.

        What lives at one time is the inputs and one or two layers; all that one layer of each kind makes is more than that.
        Mostly it all fits into each buffer; only if not is it scheduled to see what of it lies where. With pipeline
        parallelism the copies of what crosses between devices are never freed (ggml_backend_sched_split_graph marks them as
        outputs), and every layer may have some.
        """
        n_layer = sum(map(len, sample.graph.loops))
        if not _ordered(sample.params) and sample.fits_anywhere(sizes, 1 if how.n_copies == 1 else how.n_copies * n_layer):
            return True
        program, needed, _ = self._measured(sample, ONE_OF_EACH, kept_layers(sample, ONE_OF_EACH), how)
        return all(n <= size for n, size in zip(program.total(needed, n_layer), sizes, strict=True))

    def _measured(
        self, sample: Sample, cut: Cut, layers: Sequence[KeptLayer], how: Schedules
    ) -> tuple[Program, Sequence[int], Sequence[Run]]:
        """The program, what to run it with, and the runs that must not be cut."""
        key = _key(sample, layers), how
        kept = self._kept.get(key)
        if kept is not None and not _ordered(sample.params):
            changed = kept.sample.changes(sample)
            if changed is not None:
                return kept.program, kept.sizes(sample, changed), ()
        return self._made(key, sample, cut, how)

    def _made(self, key: Hashable, sample: Sample, cut: Cut, how: Schedules) -> tuple[Program, Sequence[int], Sequence[Run]]:
        params = sample.params
        graph = self._draw(params.keeping(cut)).gf
        scheduled = Scheduler(params.backends, n_copies=how.n_copies, op_offload=how.op_offload).schedule(graph)
        allocator = GraphAllocator(params.backends)
        program = allocator.program(scheduled)
        sizes = allocator.sizes()
        found = likes(sample, graph)
        if found is None:
            return program, sizes, find_loops(program, sizes)
        reusable = Reusable(program, sample, allocator.tensors, sizes, found)
        unlike = find_loops(program, reusable.numbers)
        if not unlike:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = reusable
        return program, sizes, unlike


def kept_layers(sample: Sample, cut: Cut) -> list[KeptLayer]:
    """What is built of the graph that the sample is for."""
    return [
        KeptLayer(n, classes[il], run and (n, run))
        for n, classes in enumerate(sample.graph.loops)
        for il, run in shortened(classes, cut)
    ]


def _key(sample: Sample, layers: Sequence[KeptLayer]) -> Hashable:
    """What a graph and its schedule depend on besides shapes: the classes of the kept layers, and what is not theirs."""
    params, loops = sample.params, sample.graph.loops
    numbers: dict[Hashable, int] = {}
    drawn = tuple([(layer.loop, layer.kind, layer.run and numbers.setdefault(layer.run, len(numbers))) for layer in layers])
    weights, backends = params.weights, params.layer_backends
    outside = [weights.get(name) for name in params.blocks.outside]
    outside += [weights.get(copy_name(name, b)) for name in params.blocks.outside for b in range(len(params.backends))]
    if not any(len(classes) == params.model.n_layer for classes in loops):  # a graph with loops of its own
        outside += weights.values()
        outside_layers = tuple(backends)
    else:
        outside_layers = (backends[-1], *[backends[il] for il in params.blocks.lending])
    return drawn, tuple(outside), outside_layers, params.fixed
