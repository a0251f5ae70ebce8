"""What Vulkan's drivers state as their limits, where a machine does not say it: by the maker in a device's name.

A detector that asks the driver, or a machine file, knows better: `alignment`, `host_alignment`, `max_buffer_bytes` and
`max_tensor_bytes` of a device.
"""

from typing import NamedTuple

from fitplug.machine.records import Device
from fitplug.units import GIB

PAGE = 4096


class Limits(NamedTuple):
    """Of one maker's usual driver."""

    words: tuple[str, ...]
    """What its devices are called, in lower case."""
    alignment: int
    """minStorageBufferOffsetAlignment."""
    host_alignment: int
    """minMemoryMapAlignment."""
    max_tensor_bytes: int
    """The smaller one of maxStorageBufferRange and maxBufferSize."""
    source: str


OTHER = Limits((), 64, PAGE, 4 * GIB - 1, "supposed: the largest alignment that was seen")
LIMITS = (
    Limits(("amd", "radeon", "radv"), 4, PAGE, 4 * GIB - 4, "Mesa's RADV, asked without a card (RADV_FORCE_FAMILY)"),
    Limits(("intel", "arc(tm)"), 4, PAGE, 4 * GIB - 1, "Mesa's ANV: anv_private.h, isl.c; 1 GiB with Windows' driver"),
    Limits(("nvidia", "geforce", "quadro", "tesla"), 16, 64, 4 * GIB - 1, "supposed; host alignment as real logs show it"),
    Limits(("adreno", "qualcomm"), 64, PAGE, 4 * GIB - 1, "an Adreno X1's driver on Windows; the rest supposed"),
)


def limits(device: Device) -> Limits:
    """The limits of the driver that a device of this name usually has."""
    name = device.name.lower()
    return next((row for row in LIMITS if any(word in name for word in row.words)), OTHER)
