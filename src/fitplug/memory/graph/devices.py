"""A machine's devices as the scheduler's backends."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fitplug.machine.backends import BACKENDS, GraphRules
from fitplug.machine.backends import Backend as Traits
from fitplug.machine.backends import backend as traits_of
from fitplug.machine.records import Device
from fitplug.memory.cpu_buffers import AMX
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.cuda import AmdCores, CudaBackend
from fitplug.memory.graph.tensor import Tensor, is_contiguous

UNKNOWN_CAPABILITY = 80
CORES_EACH = {60: 64, 70: 64, 71: 64, 72: 64, 75: 64, 80: 64}
"""Compute capability → CUDA cores of one multiprocessor where these are not 128 (CUDA's programming guide, appendix F)."""
MOST_CORES = 1 << 20
CDNA1, RDNA1, RDNA3 = 0x908, 0x1010, 0x1100
GCN_APUS = frozenset((0x909, 0x90C))


class CpuBackend(Backend):
    """The CPU: everything, in plain or pinned memory."""

    uses_host_memory = True


class AmxBackend(CpuBackend):
    """The CPU where weights lie as its matrix extensions want them: of those no product with what has gaps (amx/amx.cpp)."""

    def supports_op(self, t: Tensor) -> bool:
        """ggml_backend_cpu_device_supports_op: what lies in an extra buffer type is that one's to answer for."""
        if t.op != "MUL_MAT":
            return True
        weight, other = t.src[0], t.src[1]
        packed = weight is not None and weight.buffer is not None and weight.buffer.name == AMX
        return not packed or other is None or is_contiguous(other)


class DeviceBackend(Backend):
    """A device of which only the table of traits is known."""

    def __init__(self, name: str, traits: Traits) -> None:
        self.name = name
        self.alignment = traits.alignment
        if traits.max_buffer_bytes:
            self.max_size = traits.max_buffer_bytes


class Neighbours(NamedTuple):
    """A device among the others."""

    name: str
    number: int
    """Its number among the scheduler's backends."""
    alone: bool
    """No other device is of the same source."""


def device_backends(devices: Sequence[Device], names: Sequence[str]) -> list[Backend]:
    """One scheduler backend a device."""
    rows = [traits_of(device) for device in devices]
    kinds = [row.graph for row in rows]
    return [
        MAKE[row.graph](device, row, Neighbours(name, i, alone=kinds.count(row.graph) < 2))
        for i, (device, row, name) in enumerate(zip(devices, rows, names, strict=True))
    ]


def _cuda(device: Device, traits: Traits, beside: Neighbours) -> Backend:
    integrated = traits.reads_host and device.kind == "igpu"
    cores = CORES[traits.cores](device.compute_capability)
    return CudaBackend(
        beside.name, beside.number, cc=_capability(device), amd=cores, integrated=integrated, alone=beside.alone,
        multiprocessors=_multiprocessors(device),
    )  # fmt: skip


def _multiprocessors(device: Device) -> int:
    """How many an NVIDIA card has that says how many cores it has; 0 where it does not."""
    n_cores = device.extra.get("n_cores")
    if type(n_cores) is not int or not 0 < n_cores < MOST_CORES:
        return 0
    capability = _capability(device)
    return n_cores // CORES_EACH.get(capability, 128)


def amd_cores(target: str | None) -> AmdCores:
    """Of a card like "gfx1100"; unknown ones are supposed to be as new as that (GGML_CUDA_CC_IS_CDNA, _RDNA3, _RDNA4)."""
    found = re.fullmatch(r"gfx([0-9a-f]{3,4})", (target or "").partition(":")[0].lower())
    number = int(found[1], 16) if found else RDNA3
    if number >= RDNA3:
        return "wmma"
    return "mfma" if CDNA1 <= number < RDNA1 and number not in GCN_APUS else "none"


# What only some machines have is imported for them: the start path is measured.


def _metal(_: Device, traits: Traits, beside: Neighbours) -> Backend:
    from fitplug.memory.graph.metal import MetalBackend

    return MetalBackend(beside.name, traits)


def _vulkan(_: Device, traits: Traits, beside: Neighbours) -> Backend:
    from fitplug.memory.graph.vulkan import VulkanBackend

    return VulkanBackend(beside.name, traits)


def _rpc(device: Device, traits: Traits, beside: Neighbours) -> Backend:
    """What serves it answers with its own backend's sizes; one that pads rows is supposed to be CUDA."""
    from fitplug.memory.graph.rpc import RpcBackend

    behind = BACKENDS.get("cuda" if traits.row_padding else str(device.extra.get("served_by")))
    rules = behind.graph if behind is not None and behind.graph != "rpc" else "plain"
    served = MAKE[rules](device, traits, beside._replace(alone=True))
    return RpcBackend(beside.name, traits.alignment, traits.max_buffer_bytes, served)


CORES: Mapping[str, Callable[[str | None], AmdCores | None]] = {
    "nvidia": lambda _: None,
    "amd": amd_cores,
    "none": lambda _: "none",
}

MAKE: Mapping[GraphRules, Callable[[Device, Traits, Neighbours], Backend]] = {
    "plain": lambda _, traits, beside: DeviceBackend(beside.name, traits),
    "cuda": _cuda,
    "metal": _metal,
    "rpc": _rpc,
    "vulkan": _vulkan,
}


def _capability(device: Device) -> int:
    """8.9 → 89; of AMD cards nothing that sizes depend on is known, so they count as modern."""
    major, _, minor = (device.compute_capability or "").partition(".")
    if device.extra.get("served_by", device.backend) != "cuda" or not major.isdecimal() or not minor.isdecimal():
        return UNKNOWN_CAPABILITY
    return int(major) * 10 + int(minor[:1])


def cpu_backend(devices: Sequence[Traits], *, measuring: bool = False, amx: bool = False) -> Backend:
    """The CPU; its compute buffer lies in the first device's pinned memory, if that has any.

    `measuring` asks what buffers would take without making them.
    """
    found = AmxBackend() if amx else CpuBackend()
    if devices and devices[0].host_buffer:
        first = devices[0]
        found.alignment = first.host_alignment
        found.max_size = first.max_buffer_bytes or found.max_size
        found.buffer_extra = 0 if measuring else first.host_extra
    return found
