"""Apple's chips, through Metal."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Device


def collect() -> dict[str, Any] | None:
    """What Metal and the system say; None where it is not a Mac with Apple's own chip."""
    if sys.platform != "darwin":
        return None  # before anything is imported for it
    from fitplug_apple.collecting import collect as collect_now

    return collect_now()


def parse(raw: Mapping[str, Any]) -> "list[Device]":
    """The one GPU that Metal shows."""
    from fitplug_apple.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """How the share of the memory was found, and how it can be raised."""
    from fitplug_apple.parsing import notes as notes_now

    return notes_now(raw)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of Apple's GPU."""
    yield Detector(name="apple", help="Apple silicon, through Metal", collect=collect, parse=parse, notes=notes, order=10)
