"""GPUs that only Vulkan knows: asked where no other detector found one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Device


def collect() -> dict[str, Any] | None:
    """The physical devices of the Vulkan library; None where there is none."""
    from fitplug_vulkan.collecting import collect as collect_now

    return collect_now()


def parse(raw: Mapping[str, Any]) -> "list[Device]":
    """Dedicated and integrated GPUs, as llama.cpp's Vulkan backend sees them."""
    from fitplug_vulkan.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Drivers that do not tell what is free."""
    from fitplug_vulkan.parsing import notes as notes_now

    return notes_now(raw)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of last resort."""
    yield Detector(
        name="vulkan", help="GPUs that nothing else knows", collect=collect, parse=parse, notes=notes, order=90, fallback=True
    )
