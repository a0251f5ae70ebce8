"""Machine: the devices that a plan may use, real, recorded or imagined."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, TypeAlias

from fitplug.record import record

DeviceKind: TypeAlias = Literal["gpu", "igpu", "accel"]


@record
class Device:
    """One accelerator as llama.cpp will see it."""

    kind: DeviceKind = "gpu"
    backend: str
    """"cuda", "rocm", "metal", "vulkan", "sycl", "rpc": a row of `machine.backends`."""
    name: str = ""
    total_bytes: int
    free_bytes: int
    """What a runner that starts now can use, as the backend itself would report it."""
    compute_capability: str | None = None
    """"8.9" for NVIDIA, "gfx1100" for AMD."""
    memory_bandwidth: int | None = None
    """Bytes per second."""
    unified: bool = False
    """Shares the host's memory: what it takes is gone for the host too."""
    pci_id: str | None = None
    basis: str = "measured"
    """"measured" by a detector, "catalogue" for a card one does not have, "stated" in a machine file."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """All other keys of the machine file and what detectors found besides; kept, written back, and never needed."""


@record
class Host:
    """The machine's own memory."""

    total_bytes: int
    available_bytes: int
    """Free for a new process: MemAvailable, cut by a container's limit."""
    memory_bandwidth: int | None = None
    n_threads: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@record
class Machine:
    """Devices in llama.cpp's order, and the host."""

    devices: Sequence[Device] = ()
    host: Host
    notes: Sequence[str] = ()
    """What a detector could not find out; shown, never fatal."""
    unused: Sequence[Device] = ()
    """Devices that are there but that llama.cpp leaves out: an integrated GPU beside a dedicated one."""

    def device_names(self) -> tuple[str, ...]:
        """Ggml's own names: CUDA0, CUDA1, Vulkan0, …; numbered per backend."""
        from fitplug.machine.backends import ggml_device_names

        return ggml_device_names(self.devices)
