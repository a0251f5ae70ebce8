"""The host's memory and the way from it to a GPU: what weights on the CPU cost.

A token reads them at the CPU's share of its memory's nominal bandwidth (`speed_table.KINDS["cpu"]`). A micro-batch of a
prompt copies them to the GPU instead: ggml_backend_cuda_device_offload_op in ggml/src/ggml-cuda/ggml-cuda.cpp takes products
of 32 and more tokens, and ggml_backend_sched_compute_splits in ggml/src/ggml-backend.cpp copies their weights before each.
"""

import re

from fitplug.machine.records import Device, Host, Machine
from fitplug.planner.hardware import card_of

DESKTOP, LAPTOP = 60_000_000_000, 40_000_000_000
"""Where nobody says: between two channels of DDR4-3200 (51 GB/s) and of DDR5-5600 (90 GB/s); a laptop has one channel (26, 38)
as often as two, and less power to read them with."""
READ_SHARE = 0.75
"""Of the nominal bandwidth, what a program that only reads gets: 63 of 90 GB/s (DDR5-5600), 360 of 461 (12 x DDR5-4800)."""
_LANE = {"1": 0.25e9, "2": 0.5e9, "3": 0.985e9, "4": 1.969e9, "5": 3.938e9}
"""Bytes per second of a lane, by PCIe's generation."""
_BUS = re.compile(r"PCIe ([1-5])\.0 x(\d+)")
_BUS_SHARE = 0.81
"""What copies reach of that: 12.8 of 15.75 GB/s with 16 lanes of generation 3."""
_USUAL_BUS = 15.75e9
"""Where the catalogue does not know it: generation 3 with 16 lanes, 4 with 8."""


def host_bandwidth(machine: Machine) -> tuple[int, bool]:
    """The host's nominal bandwidth in bytes per second, and whether somebody said or measured it."""
    told = machine.host.memory_bandwidth
    if told is None:
        return (LAPTOP if any(map(_in_laptop, machine.devices)) else DESKTOP), False
    return round(told / READ_SHARE) if was_measured(machine.host) else told, True


def was_measured(host: Host) -> bool:
    """Whether its bandwidth is what this machine was seen to read, not what its modules promise."""
    return host.extra.get("bandwidth_basis") == "measured"


def copy_seconds(device: Device, bandwidth: float) -> float:
    """Seconds to copy a byte of weights from a host of this bandwidth to a GPU: read there, then sent over the bus.

    Pages of a mapped file are not pinned, so that the driver reads them into a buffer of its own first.
    """
    card = card_of(device)
    found = _BUS.search(card.bus or "") if card else None
    bus = _LANE[found[1]] * int(found[2]) if found else _USUAL_BUS
    return 1 / (_BUS_SHARE * bus) + 1 / (READ_SHARE * bandwidth)


def _in_laptop(device: Device) -> bool:
    card = card_of(device)
    return card is not None and card.category == "laptop"
