"""Intel's cards and integrated GPUs on Linux, through sysfs."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Device


def collect(root: str = "/") -> dict[str, Any] | None:
    """Sysfs files of the xe and i915 drivers; None where no Intel GPU is."""
    if root == "/" and not os.path.isdir("/sys/class/drm"):  # noqa: PTH112 - no pathlib on the start path
        return None
    from fitplug_intel.collecting import collect as collect_now

    return collect_now(root)


def parse(raw: Mapping[str, Any]) -> "list[Device]":
    """Cards with their own memory, and the integrated GPU."""
    from fitplug_intel.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """What Intel's drivers do not tell."""
    from fitplug_intel.parsing import notes as notes_now

    return notes_now(raw)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of Intel's GPUs."""
    yield Detector(name="intel", help="GPUs with the xe or i915 driver", collect=collect, parse=parse, notes=notes, order=30)
