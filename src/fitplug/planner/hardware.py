"""What is known of a device's speed: by its own report, or by the catalogue where no driver tells."""

from typing import TYPE_CHECKING, NamedTuple

from fitplug.machine.records import Device
from fitplug.planner.speed_kinds import backend_of, kind_of
from fitplug.planner.speed_links import MEASURED
from fitplug.planner.speed_model import Kind
from fitplug.planner.speed_table import BACKENDS, KINDS

if TYPE_CHECKING:
    from fitplug.machine.catalogue import CatalogueCard


class Hardware(NamedTuple):
    """Nominal figures of one device; None for what nobody knows."""

    kind: str | None
    """Its row in the speed table."""
    bandwidth: int | None
    """Bytes per second."""
    throughput: float | None
    """Operations per second on 16-bit matrices."""
    family: str = ""
    """The row of what kernels cost there: the kind's own, or the backend's; behind an RPC server the server's."""
    read_rate: int | None = None
    """Bytes per second of weights, where that was measured: it stands for a share of the nominal figure."""

    @property
    def row(self) -> Kind | None:
        """How hardware of this kind behaves."""
        if self.kind is None or not self.read_rate:
            return KINDS[self.kind] if self.kind else None
        return KINDS[self.kind]._replace(bandwidth=1.0, spread=MEASURED)

    @property
    def reading(self) -> float:
        """Bytes per second that reading weights reaches; 0: not known."""
        return (self.bandwidth or 0) * (self.row.bandwidth if self.row else 1.0)

    @property
    def computing(self) -> float:
        """Operations per second that a long prompt reaches; 0: not known."""
        share = KINDS[self.kind].throughput if self.kind else None
        return (self.throughput or 0.0) * (share or 0.0)


def hardware_of(device: Device) -> Hardware:
    """Kind, bandwidth and throughput of a device."""
    kind, backend = kind_of(device), backend_of(device)
    card = card_of(device)
    family = kind if kind in BACKENDS else backend
    known = kind in KINDS and family in BACKENDS
    told = device.extra.get("read_rate")
    rate = told if type(told) is int and told > 0 else None
    bandwidth = rate or device.memory_bandwidth or (card.bandwidth if card else None)
    return Hardware(kind if known else None, bandwidth, card.tflops * 1e12 if card and card.tflops else None, family, rate)


def card_of(device: Device) -> "CatalogueCard | None":
    """Its row of the catalogue."""
    from fitplug.machine.catalogue import card_for_device  # a machine without GPUs needs no catalogue

    return card_for_device(device)
