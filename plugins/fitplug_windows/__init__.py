"""GPUs of any vendor on Windows, through DXGI and the registry."""

import sys
from collections.abc import Iterable
from typing import Any

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl


def collect() -> dict[str, Any] | None:
    """DXGI's adapters and the display class of the registry; None elsewhere."""
    if sys.platform != "win32":
        return None  # before anything is imported for it
    from fitplug_windows.collecting import collect as collect_now

    return collect_now()


parse = Later("fitplug_windows.parsing:parse")
"""Every hardware adapter, as llama.cpp's Vulkan backend uses it."""

notes = Later("fitplug_windows.parsing:notes")
"""What DXGI cannot tell."""


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of Windows's display adapters."""
    yield Detector(name="windows", help="any GPU that Windows shows", collect=collect, parse=parse, notes=notes, order=60)
