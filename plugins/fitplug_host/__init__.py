"""The host: its memory, what a container leaves of it, and its threads."""

from collections.abc import Iterable

from fitplug.extension import Detector
from fitplug.hookspecs import hookimpl
from fitplug_host.collect import collect
from fitplug_host.parse import notes, parse

__all__ = ["collect", "measure_bandwidth", "notes", "parse"]


def measure_bandwidth(seconds: float = 0.5) -> int:
    """Bytes per second that this host's memory is read with now, by all threads together; takes about `seconds`."""
    from fitplug_host.bandwidth import measure_bandwidth as measure

    return measure(seconds)


@hookimpl
def fitplug_detectors() -> Iterable[Detector]:
    """The detector of the host."""
    yield Detector(name="host", help="memory, container limits, threads", collect=collect, parse=parse, notes=notes)
