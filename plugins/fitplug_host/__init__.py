"""The host: its memory, what a container leaves of it, and its threads."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl

if TYPE_CHECKING:
    from fitplug.machine.records import Host


def collect(root: str = "/") -> dict[str, Any]:
    """Files of Linux, or psutil's figures elsewhere."""
    from fitplug_host.collecting import collect as collect_now

    return collect_now(root)


def parse(raw: Mapping[str, Any]) -> "Host":
    """The host as a new process finds it."""
    from fitplug_host.parsing import parse as parse_now

    return parse_now(raw)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """A container's limit, and Windows's share of the memory."""
    from fitplug_host.parsing import notes as notes_now

    return notes_now(raw)


def measure_bandwidth(seconds: float = 0.5) -> int:
    """Bytes per second that this host's memory is read with now, by all threads together; takes about `seconds`."""
    from fitplug_host.bandwidth import measure_bandwidth as measure_now

    return measure_now(seconds)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of the host."""
    yield Detector(
        name="host",
        help="memory, container limits, threads",
        collect=collect,
        parse=parse,
        notes=notes,
        bandwidth=measure_bandwidth,
    )
