"""Apple's chips, through Metal."""

import sys
from collections.abc import Iterable
from typing import Any

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl


def collect() -> dict[str, Any] | None:
    """What Metal and the system say; None where it is not a Mac with Apple's own chip."""
    if sys.platform != "darwin":
        return None  # before anything is imported for it
    from fitplug_apple.collecting import collect as collect_now

    return collect_now()


parse = Later("fitplug_apple.parsing:parse")
"""The one GPU that Metal shows."""

notes = Later("fitplug_apple.parsing:notes")
"""How the share of the memory was found, and how it can be raised."""


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of Apple's GPU."""
    yield Detector(name="apple", help="Apple silicon, through Metal", collect=collect, parse=parse, notes=notes, order=10)
