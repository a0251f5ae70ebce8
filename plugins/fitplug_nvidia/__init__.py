"""NVIDIA's cards, through NVML, as CUDA will number and show them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Device


def collect() -> dict[str, Any] | None:
    """What NVML says; None where no NVIDIA driver is."""
    from fitplug_nvidia.library import collect as collect_now

    return collect_now()


def parse(raw: Mapping[str, Any]) -> "list[Device]":
    """The cards that CUDA shows, in its order."""
    from fitplug_nvidia.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Hidden cards, cards that do not answer, and shared ones."""
    from fitplug_nvidia.parsing import notes as notes_now

    return notes_now(raw)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of NVIDIA's cards."""
    yield Detector(name="nvidia", help="GPUs with NVIDIA's driver", collect=collect, parse=parse, notes=notes, order=10)
