"""AMD's cards and APUs on Linux, through sysfs and the compute driver's topology."""

import os
from collections.abc import Iterable
from typing import Any

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl


def collect(root: str = "/") -> dict[str, Any] | None:
    """Sysfs and KFD files; None where no AMD GPU is."""
    if root == "/" and not os.path.isdir("/sys/class/drm"):  # noqa: PTH112 - no pathlib on the start path
        return None
    from fitplug_amd.collecting import collect as collect_now

    return collect_now(root)


parse = Later("fitplug_amd.parsing:parse")
"""The GPUs that HIP shows, or all of them where only Vulkan can use them."""

notes = Later("fitplug_amd.parsing:notes")
"""Hidden cards, and how an APU's memory can be raised."""


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of AMD's GPUs."""
    yield Detector(name="amd", help="GPUs and APUs with the amdgpu driver", collect=collect, parse=parse, notes=notes, order=20)
