"""Intel's cards and integrated GPUs on Linux, through sysfs."""

import os
from collections.abc import Iterable
from typing import Any

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl


def collect(root: str = "/") -> dict[str, Any] | None:
    """Sysfs files of the xe and i915 drivers; None where no Intel GPU is."""
    if root == "/" and not os.path.isdir("/sys/class/drm"):  # noqa: PTH112 - no pathlib on the start path
        return None
    from fitplug_intel.collecting import collect as collect_now

    return collect_now(root)


parse = Later("fitplug_intel.parsing:parse")
"""Cards with their own memory, and the integrated GPU."""

notes = Later("fitplug_intel.parsing:notes")
"""What Intel's drivers do not tell."""


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of Intel's GPUs."""
    yield Detector(name="intel", help="GPUs with the xe or i915 driver", collect=collect, parse=parse, notes=notes, order=30)
