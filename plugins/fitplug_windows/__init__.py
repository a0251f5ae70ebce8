"""GPUs of any vendor on Windows, through DXGI and the registry."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Device


def collect() -> dict[str, Any] | None:
    """DXGI's adapters and the display class of the registry; None elsewhere."""
    if sys.platform != "win32":
        return None  # before anything is imported for it
    from fitplug_windows.collecting import collect as collect_now

    return collect_now()


def parse(raw: Mapping[str, Any]) -> "list[Device]":
    """Every hardware adapter, as llama.cpp's Vulkan backend uses it."""
    from fitplug_windows.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """What DXGI cannot tell."""
    from fitplug_windows.parsing import notes as notes_now

    return notes_now(raw)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of Windows's display adapters."""
    yield Detector(name="windows", help="any GPU that Windows shows", collect=collect, parse=parse, notes=notes, order=60)
