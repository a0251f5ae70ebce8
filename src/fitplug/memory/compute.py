"""Compute buffers: the graphs that llama.cpp reserves for, laid out (src/llama-context.cpp, llama_context::sched_reserve).

`ComputeEstimator` is made once for a model, a machine and a runner; each call draws the prompt's graph and the token's
for one set of settings and answers the larger of what they take, per device.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from fitplug.extension import Runner
from fitplug.formats.header import Header
from fitplug.machine.records import Machine
from fitplug.memory.compute_closed import MARGIN_OF_ANOTHER, rounded_up
from fitplug.memory.context import SINGLE_SEQUENCE
from fitplug.memory.cpu_buffers import PACKED, cpu_of
from fitplug.memory.graph import UnknownGraphError, fused
from fitplug.memory.graph.architectures import builder
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.devices import cpu_backend, device_backends
from fitplug.memory.graph.layers import Blocks
from fitplug.memory.graph.params import GraphParams, Halves, copy_name
from fitplug.memory.graph.program import GraphAllocator
from fitplug.memory.graph.reuse import Layouts, Schedules
from fitplug.memory.graph.scheduler import MAX_COPIES, Scheduler
from fitplug.memory.graph.tensor import Buffer
from fitplug.memory.placement import Placement
from fitplug.memory.records import HOST, Basis, Kind, Part
from fitplug.memory.setup import Setup
from fitplug.memory.targets import GROWN, SCRATCH, lend
from fitplug.memory.weights import Placed
from fitplug.model.records import Model
from fitplug.settings import Settings

UNADAPTED = "compute buffer before adapters are applied"
"""The source of what the context takes more when it is made than after its first batch, which reserves anew."""


class ComputeEstimator:
    """The compute buffers of one model on one machine.

    Args:
        model: what runs.
        machine: where.
        runner: the program that runs it.
        adapters: those that settings with adapters apply.
        shorten: False builds every layer, to prove that leaving some out changes nothing.
        mtp: of the MTP blocks.
        like: one of the same model, whose graphs need not be drawn again.
    """

    def __init__(
        self, model: Model, machine: Machine, runner: Runner, *,
        adapters: Sequence[Header] = (), shorten: bool = True, mtp: bool = False, like: "ComputeEstimator | None" = None,
    ) -> None:  # fmt: skip
        self.model, self.machine, self.runner, self.shorten, self.mtp = model, machine, runner, shorten, mtp
        self.adapters = adapters
        self._blocks: Blocks | None = None
        self._backends: dict[object, tuple[Backend, ...]] = {}
        self._weights: tuple[object, Mapping[str, Buffer]] | None = None
        self._tried: dict[object, Mapping[str, bool]] = {}
        self.layouts: Layouts = Layouts(self.draw) if like is None else like.layouts
        """What is kept of the graphs that were drawn."""

    @property
    def blocks(self) -> Blocks:
        """The tensors of each block."""
        if self._blocks is None:
            self._blocks = Blocks(self.model)
        return self._blocks

    def parts(self, setup: Setup) -> list[Part]:
        """The compute buffer of each device and of the host, and how much drafting makes it grow.

        Raises:
            UnknownGraphError: nobody has drawn this architecture's graph.
        """
        placement, untapped = setup.placement, setup.untapped
        sizes = self.sizes(untapped)
        later = self.sizes(setup) if setup.role.taps.redraw(self.model.drawn_as) else sizes
        first = sizes
        if self._adapts(setup.settings):
            first = self.sizes(untapped._replace(settings=replace(setup.settings, lora=(), lora_scaled=())))
        names = [*placement.names, HOST]
        buffers = [*placement.names, placement.host_buffer]
        # where one device's part of the graph is only modelled, the splits between all of them are
        proven = all(traits.compute_proven for traits in placement.backends)
        basis, source = Basis.EXACT if proven else Basis.MODELLED, "graph allocator"
        if not self.model.known:
            basis, source = Basis.MODELLED, f"graph of {self.model.drawn_as}"
            sizes, later = ([rounded_up(n, MARGIN_OF_ANOTHER) for n in found] for found in (sizes, later))
        found = []
        scratch = self._scratch(setup)
        for name, buffer, n, grown, before, besides in zip(names, buffers, sizes, later, first, scratch, strict=True):
            buffer = buffer if buffer != name else ""  # noqa: PLW2901 - a part names it only where it differs
            if n:
                found.append(Part(name, Kind.COMPUTE, n, basis, source, buffer))
            if grown > n:
                # with a draft's own vocabulary the picked tokens may take 256 bytes a sequence more, which is not explained
                known = Basis.MODELLED if "d2t" in self.model.tensors else basis
                found.append(Part(name, Kind.OVERHEAD, grown - n, known, GROWN, buffer))
            if before > max(n, grown):
                found.append(Part(name, Kind.OVERHEAD, before - max(n, grown), basis, UNADAPTED, buffer))
            if n and besides:
                found.append(Part(name, Kind.OVERHEAD, besides, Basis.MODELLED, SCRATCH))
        return found

    def _scratch(self, setup: Setup) -> Sequence[int]:
        """What kernels take besides while they compute a whole micro-batch."""
        with uncollected():
            return self.layouts.scratch(self._prompt(setup, self._ready(setup)))

    def _ready(self, setup: Setup) -> "ParamsFor":
        """What all graphs share, once llama.cpp knows which operations are fused and which adapters are applied."""
        params, n_seqs = self.params(setup), setup.resolved.n_seq_max
        params.fused = fused.resolve(lambda trial: self._at_home(setup, trial), params(n_seqs, n_seqs, n_seqs))
        if self._adapts(setup.settings):
            params.apply(self.adapters)
        return params

    @staticmethod
    def _prompt(setup: Setup, params: "ParamsFor") -> GraphParams:
        """A whole micro-batch, the same number of tokens for each sequence."""
        n_tokens, n_seqs = min(setup.resolved.n_ctx, setup.resolved.n_ubatch), setup.resolved.n_seq_max
        return params(-(-n_tokens // n_seqs) * n_seqs, n_seqs, min(n_tokens, setup.resolved.n_outputs_max))

    def _adapts(self, settings: Settings) -> bool:
        """Whether adapters are applied; llama-fit-params loads none."""
        return bool(settings.adapters and self.adapters) and not self.runner.measuring

    def sizes(self, setup: Setup) -> list[int]:
        """Bytes per device, the host's last."""
        with uncollected():
            return self._sizes(setup)

    def _sizes(self, setup: Setup) -> list[int]:
        resolved = setup.resolved
        n_seqs = resolved.n_seq_max
        n_tokens = min(resolved.n_ctx, resolved.n_ubatch)
        n_outputs = min(n_tokens, resolved.n_outputs_max)
        for backend in self.backends(setup.placement):
            backend.begin()
        params, how = self._ready(setup), _schedules(setup)
        found = [self.reserve(self._prompt(setup, params), how)]
        if not self.runner.measuring:
            found.append(self.reserve(params(n_seqs, n_seqs, n_seqs), how, at_least=found[0]))
            if self.model.drawn_as in SINGLE_SEQUENCE and n_seqs > 1:
                found.append(self.reserve(params(n_tokens, 1, n_outputs), how))
            if params.taps.fed:
                found.append(self.reserve(replace(params(n_tokens, 1, n_tokens), feeding=True), how))
        return [max(sizes) for sizes in zip(*found, strict=True)]

    def flash_attn_stays_on(self, setup: Setup) -> bool:
        """What becomes of flash attention on "auto": the trial of llama_context::resolve_fused_ops.

        Raises:
            UnknownGraphError: nobody has drawn this architecture's graph.
        """
        n_seqs = setup.resolved.n_seq_max
        hoped = setup._replace(resolved=replace(setup.resolved, flash_attn=True))
        return self._at_home(hoped, self.params(hoped)(n_seqs, n_seqs, n_seqs)).get("flash_attn", True)

    def _at_home(self, setup: Setup, params: GraphParams) -> Mapping[str, bool]:
        """Which fused operations run where their layers lie."""
        op_offload = setup.settings.op_offload
        key = setup.tried, tuple(sorted(params.fused.items()))
        found = self._tried.get(key)
        if found is None:
            found = self.layouts.at_home(params, op_offload=op_offload) if self.shorten else None
            if found is None:
                found = fused.run_where_their_layers_lie(self.draw, params, op_offload=op_offload)
            self._tried[key] = found
        return found

    def params(self, setup: Setup) -> "ParamsFor":
        """What all graphs of one set of settings share."""
        return ParamsFor(self, setup)

    def buffers_of(self, setup: Setup, make: Callable[[Placed], Mapping[str, Buffer]]) -> Mapping[str, Buffer]:
        """Where each weight lies; the last answer is kept, since searches change other things more often."""
        key = setup.loaded
        if self._weights is None or self._weights[0] != key:
            self._weights = (key, make(setup.placed))
        return self._weights[1]

    def backends(self, placement: Placement) -> tuple[Backend, ...]:
        """The scheduler's backends: the devices, then the CPU."""
        key = (tuple(placement.names), placement.host_buffer)
        found = self._backends.get(key)
        if found is None:
            devices = device_backends(placement.devices, placement.names)
            amx = cpu_of(self.machine).amx
            cpu = cpu_backend(placement.backends, measuring=self.runner.measuring, amx=amx)
            found = self._backends[key] = (*devices, cpu)
        return found

    def reserve(self, params: GraphParams, how: Schedules, *, at_least: Sequence[int] = ()) -> Sequence[int]:
        """One graph, laid out; `at_least` is answered where the graph surely takes no more."""
        if not self.shorten:
            scheduled = Scheduler(params.backends, **how._asdict()).schedule(self.draw(params).gf)
            return GraphAllocator(params.backends).reserve(scheduled)
        return self.layouts.reserve(params, how, at_least)

    def draw(self, params: GraphParams) -> GraphContext:
        """The architecture's graph.

        Raises:
            UnknownGraphError: nobody has drawn it.
        """
        build = builder(self.model.drawn_as, mtp=self.mtp, feeding=params.feeding)
        g = GraphContext(params)
        build(g)
        if params.taps.sampled and g.t_logits is not None:
            from fitplug.memory.graph.blocks.sampling import build_sampling

            build_sampling(g, g.t_logits, params.taps.sampled)
        if params.pooling is not None:
            from fitplug.memory.graph.blocks.pooling import build_embeddings

            build_embeddings(g, params.pooling)
        return g


def _schedules(setup: Setup) -> Schedules:
    return Schedules(MAX_COPIES if setup.placement.pipeline else 1, setup.settings.op_offload)


class ParamsFor:
    """`GraphParams` of one set of settings, for any number of tokens."""

    def __init__(self, estimator: ComputeEstimator, setup: Setup) -> None:
        placement, placed, role = setup.placement, setup.placed, setup.role
        self._estimator, self._setup = estimator, setup
        self.backends = estimator.backends(placement)
        self.weights = estimator.buffers_of(setup, self._buffers)
        self.layer_backends = [placement.index(name) for name in placement.layer_devices]
        self.output = self._buffer(placed.output_buffer or HOST)
        self.fused: Mapping[str, bool] = {}
        self.adapters: Mapping[str, Sequence[Halves]] = {}
        self.moved = bool(placed.moved) or not all(weight.on_gpu for weight in placed.table.weights)
        self.lent = None if role.target is None else lend(role.target, estimator.model, placement, self._buffer)
        self.taps = role.taps

    def __call__(self, n_tokens: int, n_seqs: int, n_outputs: int) -> GraphParams:
        """For one micro-batch."""
        resolved, settings, estimator = self._setup.resolved, self._setup.settings, self._estimator
        return GraphParams(
            model=estimator.model, backends=self.backends, layer_backends=self.layer_backends, weights=self.weights,
            output=self.output, moved=self.moved, blocks=estimator.blocks, n_tokens=n_tokens, n_seqs=n_seqs,
            n_outputs=n_outputs, n_ctx=resolved.n_ctx, n_ctx_seq=resolved.n_ctx_seq, n_ubatch=resolved.n_ubatch,
            n_seq_max=resolved.n_seq_max, n_stream=resolved.n_stream, type_k=resolved.type_k, type_v=resolved.type_v,
            flash_attn=resolved.flash_attn, v_trans=resolved.v_trans, offload_kqv=settings.offload_kqv,
            swa_full=settings.swa_full, pin=not estimator.runner.measuring, n_gpu_layers=self._setup.placement.n_gpu_layers,
            fused=self.fused, n_rs_seq=resolved.n_rs_seq, mtp=estimator.mtp,
            lent=self.lent, taps=self.taps, adapters=self.adapters, pooling=resolved.pooling,
        )  # fmt: skip

    def apply(self, adapters: Sequence[Header]) -> None:
        """llama_set_adapters_lora."""
        from fitplug.memory.lora import by_weight

        self.adapters = {
            name: [Halves(pair.a, pair.b, self._buffer(kind)._replace(is_weights=False)) for pair, kind in found]
            for name, found in by_weight(adapters, self._setup.placed).items()
        }

    def _buffers(self, placed: Placed) -> Mapping[str, Buffer]:
        """Of every weight by its name, and of the copies that each backend's layers have of rope factors."""
        known: dict[str, Buffer] = {}
        found: dict[str, Buffer] = {}
        kinds = placed.tensors()
        for tensor in placed.table.rope:
            for b, device in enumerate((*self._setup.placement.names, HOST)):
                kinds[copy_name(tensor.name, b)] = placed.rope_buffer(tensor, device)
        for name, kind in kinds.items():
            buffer = known.get(kind)
            if buffer is None:
                buffer = known[kind] = self._buffer(kind)
            found[name] = buffer
        return found

    def _buffer(self, kind: str) -> Buffer:
        """The buffer of weights with ggml's buffer type name `kind`."""
        placement = self._setup.placement
        names, cpu = placement.names, len(placement.names)
        if kind in names:
            return Buffer(kind, (placement.index(kind),), is_host=False, is_weights=True)
        readers: tuple[int, ...] = (cpu,)
        if kind == placement.host_buffer:
            readers = (*(b for b, backend in enumerate(self.backends[:-1]) if backend.uses_host_memory), cpu)
        return Buffer(kind, readers, is_host=kind not in PACKED, is_weights=True)


@contextmanager
def uncollected() -> Iterator[None]:
    """Draw without looking for cycles: graphs have none, but thousands of small objects make Python search the whole heap."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


__all__: Sequence[str] = ("ComputeEstimator", "UnknownGraphError")
