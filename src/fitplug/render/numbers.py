"""The figures that every form of an answer shows: memory by device, what is left, how many layers are on a GPU."""

from collections.abc import Mapping
from typing import NamedTuple

from fitplug.machine.records import Machine
from fitplug.memory.records import HOST, Estimate, Kind
from fitplug.model.records import Model


class DeviceRow(NamedTuple):
    """One device's memory."""

    device: str
    kind: str
    """"gpu", "igpu", "accel" or "host"."""
    name: str
    total_bytes: int
    free_bytes: int
    used: Mapping[Kind, int]

    def n_bytes(self, kind: Kind | None = None) -> int:
        """Bytes of one kind, or of all."""
        return sum(self.used.values()) if kind is None else self.used[kind]

    @property
    def left_bytes(self) -> int:
        """Free when the model is loaded; negative: it does not fit."""
        return self.free_bytes - self.n_bytes()


def device_rows(estimate: Estimate, machine: Machine) -> list[DeviceRow]:
    """The devices in llama.cpp's order, the host last."""
    rows = [
        DeviceRow(name, device.kind, device.name, device.total_bytes, device.free_bytes, _used(estimate, name))
        for name, device in zip(machine.device_names(), machine.devices, strict=True)
    ]
    host = machine.host
    return [*rows, DeviceRow(HOST, "host", "", host.total_bytes, host.available_bytes, _used(estimate, HOST))]


def _used(estimate: Estimate, device: str) -> dict[Kind, int]:
    used = dict.fromkeys(Kind, 0)
    for part in estimate.parts:
        if part.device == device:
            used[part.kind] += part.n_bytes
    return used


def n_layers_on_gpu(estimate: Estimate, machine: Machine, model: Model) -> int:
    """As llama.cpp says it: "offloaded 33/33 layers to GPU" (src/llama-model.cpp, llama_model_base::load_tensors)."""
    return min(estimate.resolved.n_gpu_layers, model.n_layer_all + 1) if machine.devices else 0
