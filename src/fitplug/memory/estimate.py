"""The estimator: settings in, every byte out, with what does not change between calls kept.

Weights and caches follow from the header (`memory.weights`, `memory.cache`), compute buffers from drawing the graph
(`memory.compute`) or, where nobody has drawn it, from closed forms (`memory.compute_closed`); what llama.cpp does not count
is in `memory.overhead`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from fitplug.errors import RefusedError
from fitplug.extension import Runner
from fitplug.machine.backends import backend
from fitplug.machine.records import Machine
from fitplug.memory import tensor_split
from fitplug.memory.cache import NOTHING_HELD, CacheTensor, cache_bytes, cache_tensors, cells
from fitplug.memory.companions import NOTHING_BESIDE, Beside, Companions
from fitplug.memory.compute_closed import closed_parts
from fitplug.memory.context import flash_attn_wanted, resolve
from fitplug.memory.cpu_buffers import AMX, CPUS, cpu_of
from fitplug.memory.flash_attention import auto_stays_on
from fitplug.memory.graph import UnknownGraph
from fitplug.memory.outputs import output_bytes
from fitplug.memory.overhead import device_overhead
from fitplug.memory.overrides import rules
from fitplug.memory.placement import Placement, place
from fitplug.memory.records import HOST, Basis, Estimate, Kind, Part, Resolved
from fitplug.memory.setup import Setup
from fitplug.memory.targets import ALONE, HANDED_OVER, NO_TAPS, SCRATCH, Role, borrows
from fitplug.memory.weights import Placed, WeightTable
from fitplug.model.mtp import in_mtp_context
from fitplug.model.records import Model
from fitplug.settings import Settings
from fitplug.units import GIB, format_bytes

if TYPE_CHECKING:
    from fitplug.memory.compute import ComputeEstimator

MOST_SCRATCH = 32 * GIB
TOO_MUCH_SCRATCH = "{}: long prompts need {} besides for the kernels, and llama.cpp stops when that is more than 32 GiB"


class Estimator:
    """Estimates any settings of one model on one machine for one runner.

    Args:
        model: what runs.
        machine: where.
        runner: the program that runs it.
        companions: the projector and the draft that settings may name; their files are the caller's to open.
        mtp: the context is that of the model's MTP blocks (LLAMA_CONTEXT_TYPE_MTP).
        like: one of the same model and context, whose graphs need not be drawn again.
    """

    def __init__(
        self,
        model: Model,
        machine: Machine,
        runner: Runner,
        companions: Companions = NOTHING_BESIDE,
        *,
        mtp: bool = False,
        like: "Estimator | None" = None,
    ) -> None:
        self.model, self.machine, self.runner, self.companions, self.mtp = model, machine, runner, companions, mtp
        self.seen = in_mtp_context(model) if mtp else model
        """The model with the memory that the context makes."""
        self._like = like
        self._names = machine.device_names()
        self._tables: dict[object, WeightTable] = {}
        self._weights: dict[object, dict[str, int]] = {}

    def __call__(self, settings: Settings, role: Role = ALONE) -> Estimate:
        """Where every byte of these settings goes.

        Args:
            settings: llama.cpp's.
            role: what the model is to another one that it drafts for.

        Raises:
            RefusedError: llama.cpp, or the runner, refuses them.
        """
        try:
            return self._estimated(settings, role)
        except ZeroDivisionError:
            raise RefusedError("llama.cpp divides by a size that is 0 in the header: the file is damaged") from None

    def _estimated(self, settings: Settings, role: Role) -> Estimate:
        if role.target is None and borrows(self.model):
            raise RefusedError(
                f"{self.model.architecture} is a draft that uses its target's tensors: give it with -md beside that"
            )
        settings = self.companions.detecting(settings, self.runner)
        if settings.drafts_by_model and not self.mtp and role == ALONE:
            role = Role(taps=self._beside.taps(settings))
        placement, resolved, parts = self.static(settings, role)
        setup = Setup(placement, self.placed(placement, settings), resolved, settings, role)
        if flash_attn_wanted(self.model, settings) == "auto":
            resolved = replace(resolved, flash_attn=self._auto_stays_on(setup))
            setup = setup._replace(resolved=resolved)
        parts += self._compute(setup)
        if role.taps != NO_TAPS or resolved.pooling is not None:
            parts.append(self._handed_over(placement, resolved, role))
        estimate = Estimate(
            settings=settings, resolved=resolved, parts=tuple(parts), layer_devices=placement.layer_devices,
            notes=self._notes(settings, resolved, parts),
        )  # fmt: skip
        overhead = self._overhead(placement, estimate)
        beside: list[Part] = []
        if self.companions != NOTHING_BESIDE or settings.drafts_by_mtp:
            taken = replace(estimate, parts=(*estimate.parts, *overhead))
            beside = self._beside.parts(taken, placement, setup.placed)
        return replace(estimate, parts=(*estimate.parts, *beside, *overhead))

    @cached_property
    def _beside(self) -> Beside:
        return Beside(self.model, self.companions, self.machine, self.runner, Estimator)

    def _handed_over(self, placement: Placement, resolved: Resolved, role: Role) -> Part:
        """Pinned memory of the device that has the output matrix, if it has any (llama_context::output_reserve)."""
        device = placement.output_device
        pinned = placement.backends[placement.index(device)].host_buffer if device in placement.names else None
        n_bytes = output_bytes(self.model, resolved, role.taps)
        return self._part(Kind.OVERHEAD, pinned or HOST, n_bytes, self._basis, HANDED_OVER)

    def _auto_stays_on(self, setup: Setup) -> bool:
        """What llama.cpp makes of flash attention on "auto": by its own trial where the graph can be drawn."""
        try:
            return self.graphs.flash_attn_stays_on(setup)
        except UnknownGraph:
            return auto_stays_on(self.seen, setup.placement, setup.resolved)

    def _compute(self, setup: Setup) -> list[Part]:
        placement, placed, resolved, settings, _ = setup
        size = cells(self.seen, resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
        if settings.split_mode == "tensor":
            closed = closed_parts(self.seen, placement, resolved, settings, placed, size)
            return tensor_split.compute_parts(closed, placement)
        try:
            return self.graphs.parts(setup)
        except UnknownGraph:
            return closed_parts(self.seen, placement, resolved, settings, placed, size)

    @cached_property
    def graphs(self) -> "ComputeEstimator":
        """What knows the compute buffers."""
        from fitplug.memory.compute import ComputeEstimator

        adapters = () if self.mtp else self.companions.applied
        like = None if self._like is None else self._like.graphs
        return ComputeEstimator(self.seen, self.machine, self.runner, adapters=adapters, mtp=self.mtp, like=like)

    def _overhead(self, placement: Placement, estimate: Estimate) -> list[Part]:
        """The driver's part, and the runner's own, on every device that is opened."""
        parts = []
        for name, device in zip(placement.names, placement.devices, strict=True):
            driver = device_overhead(device)
            parts.append(Part(name, Kind.OVERHEAD, driver.n_bytes, driver.basis, "driver context"))
            if self.runner.overhead is not None:
                own = self.runner.overhead(estimate, device)
                if own:
                    parts.append(Part(name, Kind.OVERHEAD, own, Basis.ASSUMED, f"{self.runner.name}'s own needs"))
        return parts

    def static(self, settings: Settings, role: Role = ALONE) -> tuple[Placement, Resolved, list[Part]]:
        """What follows from the header alone: where layers go, the context, weights and caches.

        Raises:
            RefusedError: llama.cpp refuses these settings.
        """
        placement = place(self.model, self.machine, settings)
        if settings.split_mode == "tensor":
            tensor_split.refuse_unsupported(self.model)
            placement = tensor_split.whole(placement)
        resolved = resolve(self.model, settings, self.runner, placement.n_gpu_layers, has_target=role.target is not None)
        if flash_attn_wanted(self.model, settings) == "auto":
            resolved = replace(resolved, flash_attn=auto_stays_on(self.seen, placement, resolved))
        size = cells(self.seen, resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
        tensors = cache_tensors(self.seen, resolved, size)
        if settings.split_mode == "tensor":
            parts = tensor_split.weight_parts(self.placed(placement, settings), placement, settings)
            return placement, resolved, parts + tensor_split.cache_parts(tensors, placement, settings, self.model)
        return placement, resolved, self._weight_parts(placement, settings) + self._cache_parts(tensors, placement)

    def _weight_parts(self, placement: Placement, settings: Settings) -> list[Part]:
        held = self.weights(placement, settings)
        return [
            self._part(Kind.MODEL, buffer, n, Basis.MODELLED if buffer == AMX else self._basis, "weights")
            for buffer, n in held.items()
        ]

    def _cache_parts(self, tensors: list[CacheTensor], placement: Placement) -> list[Part]:
        parts = []
        for device, held in cache_bytes(tensors, placement).items():
            if held == NOTHING_HELD and not self.runner.measuring:  # llama_kv_cache's constructor gets no buffer for nothing
                raise RefusedError(f"no layer on {device} has KV heads, and llama.cpp stops where a cache would hold nothing")
            if held.kv:
                parts.append(self._part(Kind.CONTEXT, device, held.kv, self._basis, "cache"))
            if held.state:
                parts.append(self._part(Kind.CONTEXT, device, held.state, self._basis, "recurrent state"))
        return parts

    @property
    def _basis(self) -> Basis:
        """Of what follows from the header."""
        return Basis.EXACT if self.model.known else Basis.MODELLED

    def _part(self, kind: Kind, buffer: str, n_bytes: int, basis: Basis, source: str) -> Part:
        device = buffer if buffer in self._names else HOST
        return Part(device, kind, n_bytes, basis, source, buffer if device != buffer else "")

    def weights(self, placement: Placement, settings: Settings) -> dict[str, int]:
        """Bytes of weights per buffer type."""
        key = (placement.names, placement.layer_devices, settings.moving, settings.loading, settings.drafts_by_mtp)
        found = self._weights.get(key)
        if found is None:
            found = self._weights[key] = self.placed(placement, settings).n_bytes()
        return found

    def placed(self, placement: Placement, settings: Settings) -> Placed:
        """Where each weight lies."""
        load_mtp = self.mtp or settings.drafts_by_mtp
        key = placement.host_buffer, load_mtp, settings.loading
        table = self._tables.get(key)
        if table is None:
            backends = [backend(device) for device in self.machine.devices]
            host_buffer = HOST if settings.no_host else placement.host_buffer
            cpu = cpu_of(self.machine) if settings.repack else CPUS["none"]
            table = WeightTable(self.model, backends, host_buffer, cpu, load_mtp=load_mtp, lazy_mode=settings.lazy_mode)
            self._tables[key] = table
        return Placed(table, placement, rules(settings, self._names))

    def _notes(self, settings: Settings, resolved: Resolved, parts: Sequence[Part]) -> Sequence[str]:
        notes = list(self.model.assumptions)
        unknown = next((table.unknown for table in self._tables.values()), [])
        if unknown and self.model.known:
            notes.append(f"llama.cpp does not know {len(unknown)} of the tensors ({unknown[0]} is one): it may refuse the file")
        notes += [TOO_MUCH_SCRATCH.format(part.device, format_bytes(part.n_bytes)) for part in parts if self._stops_at(part)]
        if any(part.buffer == AMX for part in parts):
            notes.append(
                "the CPU's weights are counted as builds with AMX lay them out; in others they take what the file says"
            )
        if resolved.pooling is not None and resolved.n_ubatch < resolved.n_ctx_seq and not self._splits(resolved):
            notes.append(
                f"llama-server makes embeddings of at most {resolved.n_ubatch} tokens at once: -b and -ub say of how many"
            )
        notes += self._beside.notes(settings, parts)
        return tuple(notes)

    def _splits(self, resolved: Resolved) -> bool:
        """Whether an input may be worked on in several micro-batches (server_slot::can_split)."""
        last = resolved.pooling == "last" or (resolved.pooling == "rank" and self.model.causal)
        return last and self.model.memory != "none"

    def _stops_at(self, part: Part) -> bool:
        """Whether kernels may want more than CUDA_POOL_VMM_MAX_SIZE (ggml-cuda.cu), which holds for NVIDIA's cards."""
        if part.source != SCRATCH or part.n_bytes <= MOST_SCRATCH:
            return False
        return self.machine.devices[self._names.index(part.device)].backend == "cuda"


class Estimators:
    """Makes estimators; those of one model share what is drawn of it, on whatever backends it is asked about."""

    def __init__(self, companions: Companions = NOTHING_BESIDE) -> None:
        self._companions = companions
        self._last: Estimator | None = None

    def __call__(self, model: Model, machine: Machine, runner: Runner) -> Estimator:
        """One for this model on this machine."""
        like = self._last if self._last is not None and self._last.model is model else None
        self._last = Estimator(model, machine, runner, self._companions, like=like)
        return self._last
