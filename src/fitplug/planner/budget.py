"""What a set of settings leaves free, device by device and in the host's memory."""

from typing import NamedTuple

from fitplug.machine.records import Machine
from fitplug.memory.overhead import device_overhead
from fitplug.memory.records import HOST, Estimate, Kind


class Spare(NamedTuple):
    """Bytes left above what must stay free; negative: short by so much."""

    devices: tuple[int, ...]
    """In the machine's order; devices that are not used are never short."""
    host: int

    @property
    def fits(self) -> bool:
        """Nothing is short anywhere."""
        return self.host >= 0 and all(n >= 0 for n in self.devices)

    @property
    def fits_devices(self) -> bool:
        """No GPU is short; the host may be."""
        return all(n >= 0 for n in self.devices)


def counted_bytes(estimate: Estimate, device: str) -> int:
    """What llama.cpp itself counts on a device: model, context and compute."""
    return estimate.n_bytes(device) - estimate.n_bytes(device, Kind.OVERHEAD)


def spare(estimate: Estimate, machine: Machine, reserve_bytes: int) -> Spare:
    """Compare an estimate with a machine.

    A GPU must keep `reserve_bytes` free beyond llama.cpp's own count, as llama.cpp's fit does (common/fit.cpp,
    common_params_fit_impl: margins of 1024 MiB). What llama.cpp does not count, the CUDA context above all, is what
    this reserve is for: it is taken out of the reserve, and only what exceeds the reserve is asked for besides; then the
    context is taken for as large as was ever seen on such cards, unless the reserve is smaller.
    What stays on the CPU must fit in the memory that the host has available, together with all that devices take
    that share this memory.
    """
    left, shared = [], 0
    for name, device in zip(machine.device_names(), machine.devices, strict=True):
        counted, overhead = counted_bytes(estimate, name), estimate.n_bytes(name, Kind.OVERHEAD)
        driver = device_overhead(device)
        doubt = max(0, min(driver.high, reserve_bytes) - driver.typical)
        left.append(device.free_bytes - counted - max(reserve_bytes, overhead + doubt) if counted else 0)
        shared += counted + overhead if device.unified else 0
    return Spare(tuple(left), machine.host.available_bytes - estimate.n_bytes(HOST) - shared)
