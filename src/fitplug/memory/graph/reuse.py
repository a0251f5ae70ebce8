"""Graphs that differ in sizes alone: drawn, scheduled and worked out once, then only measured anew.

Another context makes some tensors larger; another plan gives the layers that are kept to others of their class. Neither
changes what a graph computes or in which order, so its `Program` is kept and run with other sizes.

Why this is exact. A `Sample` is a drawing of one layer of each shape for just the settings that are asked about, and every
tensor of the graph has its like in it: that is looked up, tensor by tensor, when a program is made (`likes`), and where one
has not, the graph is drawn again each time. If today's sample has the operations of the program's own sample, with the same
sources (`Sample.structure`), drawing goes the same way in both, so the graph is the same but for shapes. Scheduler and
allocator ask of shapes only whether a backend takes an operation, takes it over from the host, or fuses it, and whether a
source is laid out as the result is. If all answers are what they were (`Sample.answers`), schedule and steps are the same.
Samples of one sketch (sketches.py) have one structure and the same answers.
What lies where is part of the key (`_key`), as classes of layers. Only sizes are left, and those are measured on the sample.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from fitplug.memory.graph import node_table
from fitplug.memory.graph.compose import Composer
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.layers import ONE_OF_EACH, REPEATED, SHORT, WHOLE, Cut, LayerClass, Run, shortened
from fitplug.memory.graph.loops import find_loops
from fitplug.memory.graph.params import GraphParams, copy_name
from fitplug.memory.graph.program import GraphAllocator, Program
from fitplug.memory.graph.samples import Composed, Sample, Sizes, likes, ordered
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.memory.graph.segments import Blueprint, Drawing, UnprovenError
from fitplug.memory.graph.sketches import Samples
from fitplug.memory.graph.stretches import Demand
from fitplug.memory.graph.tensor import Tensor
from fitplug.memory.graph.unfold import unfold

T = TypeVar("T")
MAX_KEPT = 96
"""Programs; the oldest goes first."""
MAX_COMPOSED = 8
"""Blueprints, composers of graphs of one frame, and frames."""


class Schedules(NamedTuple):
    """How graphs are scheduled."""

    n_copies: int
    op_offload: bool


class Reusable(NamedTuple):
    """A program, and where the sizes of its demands come from."""

    program: Program
    demands: Sequence[Demand]
    sizes: Sizes


class KeptLayer(NamedTuple):
    """A layer that is built."""

    loop: int
    kind: LayerClass
    run: tuple[int, Run] | None
    """Loop and run of the first layer of a repetition."""


class Layouts:
    """What is kept of one model's graphs."""

    def __init__(self, draw: Callable[[GraphParams], GraphContext]) -> None:
        self._draw = draw
        self._samples = Samples(draw)
        self._kept: dict[Hashable, Reusable] = {}
        self._blueprints: dict[Hashable, Blueprint | None] = {}
        self._composed: dict[Hashable, list[Composed]] = {}
        self._cuts = {False: SHORT, True: SHORT}
        """What can be left out of graphs of short and of long batches, as far as is known."""

    def reserve(self, params: GraphParams, how: Schedules, at_least: Sequence[int] = ()) -> Sequence[int]:
        """Bytes per backend of a graph; `at_least` is answered where it surely takes no more."""
        sample = self._samples(params)
        node_table.check(params, sample.n_made)
        may_be_less = bool(at_least) and not params.copies_weights
        counted = may_be_less and not params.reads_caches_elsewhere and sample.reads_caches_at_home
        n_copies = 1 if how.n_copies == 1 else how.n_copies * sum(map(len, sample.graph.loops))
        if counted and not ordered(params) and sample.fits_anywhere(at_least, n_copies):
            return at_least
        composer, sizes = self._composer(sample, params, how.op_offload)
        if composer is not None:
            try:
                placings, first = composer.placings(params, how.n_copies)
                return sizes.laying.through(placings, first)
            except UnprovenError:
                pass
        sample = self._samples(params, placed=True)
        if may_be_less and self._takes_less(sample, at_least, how):
            return at_least
        return self._drawn_anew(sample, how)

    def scratch(self, params: GraphParams) -> Sequence[int]:
        """Bytes per backend that kernels need besides, while they compute such a graph."""
        sample = self._samples(params)
        return [sample.scratch(backend) for backend in params.backends]

    def at_home(self, params: GraphParams, *, op_offload: bool) -> Mapping[str, bool] | None:
        """Of each fused operation, whether it always runs where its layer lies; None where the graph must be drawn."""
        composer, _ = self._composer(self._samples(params), params, op_offload)
        return None if composer is None else composer.at_home(replace(params, pin=True))

    def _composer(self, sample: Sample, params: GraphParams, op_offload: bool) -> Composed:
        """What composes graphs like the sample's, and its sizes."""
        found = sample.composed.get(op_offload)
        if found is None:
            found = sample.composed[op_offload] = self._find_composer(sample, params, op_offload)
        return found

    def _find_composer(self, sample: Sample, params: GraphParams, op_offload: bool) -> Composed:
        if ordered(params):
            return Composed(None, Sizes(sample))
        if op_offload not in sample.akin:
            sample.akin[op_offload] = self._compared(sample, params, op_offload)
        composer, sizes = sample.akin[op_offload]
        changed = sizes.sample.changes(sample)
        return Composed(composer, Sizes(sample, changed, sizes) if changed else sizes)

    def _compared(self, sample: Sample, params: GraphParams, op_offload: bool) -> Composed:
        kept = self._composed.setdefault((sample.frame, params.backends, op_offload), [])
        for composer, sizes in kept:
            changed = sizes.sample.changes(sample)
            if changed is not None:
                return Composed(composer, Sizes(sample, changed, sizes) if changed else sizes)
        kept.append(Composed(self._composing(sample, params, op_offload), Sizes(sample)))
        del kept[:-MAX_COMPOSED]
        _keep_last(self._composed)
        return kept[-1]

    def _composing(self, sample: Sample, params: GraphParams, op_offload: bool) -> Composer | None:
        blueprint = self._blueprint(sample, params)
        if blueprint is None:
            return None
        try:
            return Composer(blueprint, sample.tensors, params.backends, op_offload=op_offload)
        except UnprovenError:
            return None

    def _blueprint(self, sample: Sample, params: GraphParams) -> Blueprint | None:
        """All layers of graphs of the sample's structure; None where they say too little."""
        key = sample.frame, tuple(sample.structure)
        if key not in self._blueprints:
            self._blueprints[key] = self._outlined(sample, params, REPEATED) or self._outlined(sample, params, WHOLE)
            _keep_last(self._blueprints)
        return self._blueprints[key]

    def _outlined(self, sample: Sample, params: GraphParams, cut: Cut) -> Blueprint | None:
        """Of a drawing with so much of the layers that repeat; None where it does not show how they go on."""
        g = self._draw(params.keeping(cut))
        found = likes(sample, g.gf)
        if found is None or (cut != WHOLE and len(g.gf.loops) != 1):
            return None
        try:
            drawing = Drawing(g, found)
            return Blueprint(unfold(drawing, [run for _, run in g.gf.marks]), drawing)
        except UnprovenError:
            return None

    def _drawn_anew(self, sample: Sample, how: Schedules) -> list[int]:
        while True:
            cut = self._cuts[sample.params.copies_weights]
            layers = kept_layers(sample, cut)
            program, sizes, unlike = self._measured(sample, cut, layers, how)
            if not unlike:
                runs = dict.fromkeys(layer.run for layer in layers if layer.run is not None)
                return program.run(sizes, [run.left_out for _, run in runs])
            self._cuts[sample.params.copies_weights] = cut.longer(unlike)

    def _takes_less(self, sample: Sample, sizes: Sequence[int], how: Schedules) -> bool:
        """Whether a graph of few tokens fits into `sizes` even if nothing were ever freed.

        What lives at one time is the inputs and one or two layers; all that one layer of each kind makes is more than that.
        With pipeline parallelism the copies of what crosses between devices are never freed (ggml_backend_sched_split_graph
        marks them as outputs), and every layer may have some.
        """
        n_layer = sum(map(len, sample.graph.loops))
        program, needed, _ = self._measured(sample, ONE_OF_EACH, kept_layers(sample, ONE_OF_EACH), how)
        return all(n <= size for n, size in zip(program.total(needed, n_layer), sizes, strict=True))

    def _measured(
        self, sample: Sample, cut: Cut, layers: Sequence[KeptLayer], how: Schedules
    ) -> tuple[Program, Sequence[int], Sequence[Run]]:
        """The program, what to run it with, and the runs that must not be cut."""
        key = _key(sample, layers), how
        kept = self._kept.get(key)
        if kept is not None and not ordered(sample.params):
            changed = kept.sizes.sample.changes(sample)
            if changed is not None:
                sizes = Sizes(sample, changed, kept.sizes)
                return kept.program, [sizes[demand] for demand in kept.demands], ()
        return self._made(key, sample, cut, how)

    def _made(self, key: Hashable, sample: Sample, cut: Cut, how: Schedules) -> tuple[Program, Sequence[int], Sequence[Run]]:
        params = sample.params
        graph = self._draw(params.keeping(cut)).gf
        scheduler = Scheduler(params.backends, n_copies=how.n_copies, op_offload=how.op_offload)
        scheduled = scheduler.schedule(graph)
        allocator = GraphAllocator(params.backends)
        program = allocator.program(scheduled)
        sizes = allocator.sizes()
        found = likes(sample, graph)
        if found is None:
            return program, sizes, find_loops(program, sizes)
        demands = [
            _demand(t, backend, size, sample, found, scheduler.copied)
            for t, backend, size in zip(allocator.tensors, program.demands, sizes, strict=True)
        ]
        unlike = find_loops(program, demands)
        if not unlike:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = Reusable(program, demands, Sizes(sample))
        return program, sizes, unlike


def _keep_last(kept: dict[Hashable, T]) -> None:
    while len(kept) > MAX_COMPOSED:
        del kept[next(iter(kept))]


def _demand(
    t: Tensor, backend: int, size: int, sample: Sample, found: Mapping[int, int], copied: Mapping[Tensor, Tensor]
) -> Demand:
    number = found.get(t.serial, -1 - size)  # copies of weights keep their size
    is_copy = number < 0 or t.op != sample.tensors[number].op
    return Demand(number, backend, is_copy, tuple([j for j, s in enumerate(t.src) if s in copied]))


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
