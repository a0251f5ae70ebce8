"""Memory that llama.cpp does not count: the driver's context, its kernels and cuBLAS on each device it opens.

It depends on the card's generation, the driver and the kernels that get loaded, so it is a range. The figures are those
of real logs in fixtures/overhead/observations.json and of the runs in fixtures/cards (fixtures/overhead/make.py prints this
table from them); rows of machines where other processes or a desktop were seen to hold memory are left out. What kernels
take from their pool is a part of its own (memory.graph.scratch).
"""

from typing import NamedTuple

from fitplug.machine.records import Device
from fitplug.memory.records import Basis
from fitplug.units import MIB


class Overhead(NamedTuple):
    """A range, and the figure in it that plans count with."""

    low: int
    typical: int
    high: int
    basis: Basis

    @property
    def n_bytes(self) -> int:
        """What plans count with."""
        return self.typical


class _Row(NamedTuple):
    """MiB seen on one generation of cards: least, median, most."""

    low: int
    typical: int
    high: int
    cards: str


SEEN = {
    "6": _Row(295, 394, 399, "P100"),
    "7": _Row(349, 349, 349, "RTX 2060"),
    "8": _Row(104, 277, 450, "RTX 3060, RTX 4060"),
    "9": _Row(597, 695, 709, "H200"),
    "12": _Row(248, 704, 752, "RTX 5060 Ti, RTX 5070 Ti, RTX PRO 6000"),
}
"""Major compute capability → what was seen."""
_ANY_CUDA = _Row(104, 349, 752, "the cards of other generations")
_OTHERS = {
    "rocm": _Row(104, 512, 1100, "no card measured alone"),
    "vulkan": _Row(64, 256, 1024, "no card measured alone"),
    "sycl": _Row(64, 256, 1024, "no card measured"),
    "metal": _Row(0, 64, 256, "no card measured"),
    "cpu": _Row(0, 0, 64, "a processor behind an RPC server keeps the graph, and nothing else"),
}
"""Supposed ranges of backends without observations of a device that nothing else used."""


def device_overhead(device: Device) -> Overhead:
    """What opening this device takes besides what llama.cpp counts."""
    if device.backend == "cuda":
        major = (device.compute_capability or "").split(".")[0]
        row, basis = (SEEN[major], Basis.MEASURED) if major in SEEN else (_ANY_CUDA, Basis.ASSUMED)
    else:
        # an RPC server has opened its device before it says what is free; what is loaded later is as much as elsewhere
        row, basis = _OTHERS.get(str(device.extra.get("served_by", device.backend)), _ANY_CUDA), Basis.ASSUMED
    seen = device.extra.get("context_bytes")  # what an installed llama.cpp showed that opening it takes; kernels come on top
    low = seen if type(seen) is int and 0 < seen < 1 << 32 else row.low * MIB
    return Overhead(low, max(low, row.typical * MIB), max(low, row.high * MIB), basis)
