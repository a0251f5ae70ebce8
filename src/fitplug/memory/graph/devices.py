"""A machine's devices as the scheduler's backends."""

from collections.abc import Sequence

from fitplug.machine.backends import Backend as Traits
from fitplug.machine.backends import backend as traits_of
from fitplug.machine.records import Device
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.cuda import CudaBackend
from fitplug.memory.graph.rpc import RpcBackend

CUDA_LIKE = frozenset(("cuda", "rocm", "musa"))
UNKNOWN_CAPABILITY = 80


class CpuBackend(Backend):
    """The CPU: everything, in plain or pinned memory."""

    uses_host_memory = True


class DeviceBackend(Backend):
    """A device of which only the table of traits is known."""

    def __init__(self, name: str, traits: Traits) -> None:
        self.name = name
        self.alignment = traits.alignment
        if traits.max_buffer_bytes:
            self.max_size = traits.max_buffer_bytes


def device_backends(devices: Sequence[Device], names: Sequence[str]) -> list[Backend]:
    """One scheduler backend a device."""
    alone = sum(device.backend in CUDA_LIKE for device in devices) < 2
    return [_backend(device, i, name, alone) for i, (device, name) in enumerate(zip(devices, names, strict=True))]


def _backend(device: Device, index: int, name: str, alone: bool) -> Backend:
    traits = traits_of(device)
    if device.backend == "rpc":
        like_cuda = traits.row_padding or device.extra.get("served_by") in CUDA_LIKE
        served = CudaBackend(name, index, cc=_capability(device)) if like_cuda else DeviceBackend(name, traits)
        return RpcBackend(name, traits.alignment, traits.max_buffer_bytes, served)
    if device.backend not in CUDA_LIKE:
        return DeviceBackend(name, traits)
    integrated = device.backend == "cuda" and device.kind == "igpu"
    return CudaBackend(name, index, cc=_capability(device), integrated=integrated, alone=alone)


def _capability(device: Device) -> int:
    """8.9 → 89; of AMD cards nothing that sizes depend on is known, so they count as modern."""
    major, _, minor = (device.compute_capability or "").partition(".")
    if device.extra.get("served_by", device.backend) != "cuda" or not major.isdecimal() or not minor.isdecimal():
        return UNKNOWN_CAPABILITY
    return int(major) * 10 + int(minor[:1])


def cpu_backend(devices: Sequence[Traits]) -> Backend:
    """The CPU; its compute buffer lies in the first device's pinned memory, if that has any."""
    found = CpuBackend()
    if devices and devices[0].host_buffer:
        found.alignment = devices[0].host_alignment
    return found
