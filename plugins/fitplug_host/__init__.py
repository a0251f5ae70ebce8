"""The host: its memory, what a container leaves of it, and its threads."""

from collections.abc import Iterable

from fitplug.extension import Detector, Later
from fitplug.hookspecs import hookimpl

collect = Later("fitplug_host.collecting:collect")
"""Files of Linux, or psutil's figures elsewhere."""

parse = Later("fitplug_host.parsing:parse")
"""The host as a new process finds it."""

notes = Later("fitplug_host.parsing:notes")
"""A container's limit, and Windows's share of the memory."""

measure_bandwidth = Later("fitplug_host.bandwidth:measure_bandwidth")
"""Bytes per second that this host's memory is read with now, by all threads together; takes about `seconds`."""


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
