"""AMD's cards and APUs on Linux, through sysfs and the compute driver's topology."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Device


def collect(root: str = "/") -> dict[str, Any] | None:
    """Sysfs and KFD files; None where no AMD GPU is."""
    if root == "/" and not os.path.isdir("/sys/class/drm"):  # noqa: PTH112 - no pathlib on the start path
        return None
    from fitplug_amd.collecting import collect as collect_now

    return collect_now(root)


def parse(raw: Mapping[str, Any]) -> "list[Device]":
    """The GPUs that HIP shows, or all of them where only Vulkan can use them."""
    from fitplug_amd.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Hidden cards, and how an APU's memory can be raised."""
    from fitplug_amd.parsing import notes as notes_now

    return notes_now(raw)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of AMD's GPUs."""
    yield Detector(name="amd", help="GPUs and APUs with the amdgpu driver", collect=collect, parse=parse, notes=notes, order=20)
