"""GPUs that only Vulkan knows: asked where no other detector found one."""

from collections.abc import Iterable

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl

collect = Later("fitplug_vulkan.collecting:collect")
"""The physical devices of the Vulkan library; None where there is none."""

parse = Later("fitplug_vulkan.parsing:parse")
"""Dedicated and integrated GPUs, as llama.cpp's Vulkan backend sees them."""

notes = Later("fitplug_vulkan.parsing:notes")
"""Drivers that do not tell what is free."""


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of last resort."""
    yield Detector(
        name="vulkan", help="GPUs that nothing else knows", collect=collect, parse=parse, notes=notes, order=90, fallback=True
    )
