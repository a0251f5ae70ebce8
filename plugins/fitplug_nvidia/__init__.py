"""NVIDIA's cards, through NVML, as CUDA will number and show them."""

from collections.abc import Iterable

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl

collect = Later("fitplug_nvidia.library:collect")
"""What NVML says; None where no NVIDIA driver is."""

parse = Later("fitplug_nvidia.parsing:parse")
"""The cards that CUDA shows, in its order."""

notes = Later("fitplug_nvidia.parsing:notes")
"""Hidden cards, cards that do not answer, and shared ones."""


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of NVIDIA's cards."""
    yield Detector(name="nvidia", help="GPUs with NVIDIA's driver", collect=collect, parse=parse, notes=notes, order=10)
