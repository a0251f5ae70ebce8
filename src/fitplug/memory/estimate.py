"""The estimator: settings in, every byte out, with what does not change between calls kept."""

from collections.abc import Sequence

from fitplug.extension import Runner
from fitplug.machine.backends import backend
from fitplug.machine.records import Machine
from fitplug.memory.cache import cache_bytes, cache_tensors, cells
from fitplug.memory.context import resolve
from fitplug.memory.overrides import rules
from fitplug.memory.placement import Placement, place
from fitplug.memory.records import HOST, Basis, Estimate, Kind, Part, Resolved
from fitplug.memory.weights import Placed, WeightTable
from fitplug.model.records import Model
from fitplug.settings import Settings


class Estimator:
    """Estimates any settings of one model on one machine for one runner."""

    def __init__(self, model: Model, machine: Machine, runner: Runner) -> None:
        self.model, self.machine, self.runner = model, machine, runner
        self._names = machine.device_names()
        self._tables: dict[str, WeightTable] = {}
        self._weights: dict[object, dict[str, int]] = {}

    def __call__(self, settings: Settings) -> Estimate:
        """Where every byte of these settings goes.

        Raises:
            RefusedError: llama.cpp, or the runner, refuses them.
        """
        placement = place(self.model, self.machine, settings)
        resolved = resolve(self.model, settings, self.runner, placement.n_gpu_layers)
        parts = self._static(placement, resolved, settings)
        return Estimate(
            settings=settings, resolved=resolved, parts=tuple(parts), layer_devices=placement.layer_devices,
            notes=self._notes(),
        )  # fmt: skip

    def _static(self, placement: Placement, resolved: Resolved, settings: Settings) -> list[Part]:
        basis = Basis.EXACT if self.model.known else Basis.MODELLED
        parts = [self._part(Kind.MODEL, buffer, n, basis, "weights") for buffer, n in self.weights(placement, settings).items()]
        size = cells(self.model, resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
        for device, held in cache_bytes(cache_tensors(self.model, resolved, size), placement).items():
            if held.kv:
                parts.append(self._part(Kind.CONTEXT, device, held.kv, basis, "cache"))
            if held.state:
                parts.append(self._part(Kind.CONTEXT, device, held.state, basis, "recurrent state"))
        return parts

    def _part(self, kind: Kind, buffer: str, n_bytes: int, basis: Basis, source: str) -> Part:
        device = buffer if buffer in self._names else HOST
        return Part(device, kind, n_bytes, basis, source, buffer if device != buffer else "")

    def weights(self, placement: Placement, settings: Settings) -> dict[str, int]:
        """Bytes of weights per buffer type."""
        key = (placement.names, placement.layer_devices, settings.n_cpu_moe, settings.overrides)
        found = self._weights.get(key)
        if found is None:
            found = self._weights[key] = self.placed(placement, settings).n_bytes()
        return found

    def placed(self, placement: Placement, settings: Settings) -> Placed:
        """Where each weight lies."""
        table = self._tables.get(placement.host_buffer)
        if table is None:
            backends = [backend(device) for device in self.machine.devices]
            table = self._tables[placement.host_buffer] = WeightTable(self.model, backends, placement.host_buffer, self._cpu())
        return Placed(table, placement, rules(settings, self._names))

    def _cpu(self) -> str:
        """Which repacked types the host's CPU takes; x86 with AVX2 where the machine does not say."""
        cpu = self.machine.host.extra.get("cpu")
        return cpu if isinstance(cpu, str) else "x86"

    def _notes(self) -> Sequence[str]:
        return tuple(self.model.assumptions)
