"""llama.cpp's RPC servers: the devices of other machines, asked for through its own protocol."""

from collections.abc import Iterable, Sequence

from fitplug.extension import Remote
from fitplug.hookspecs import hookimpl
from fitplug.machine.records import Device


@hookimpl
def fitplug_remotes() -> Iterable[Remote]:
    """`--rpc HOST:PORT`."""
    yield Remote(name="rpc", help="an rpc-server of llama.cpp, HOST:PORT", devices=_devices, measure=_measure, notes=_notes)


def _devices(endpoint: str) -> Sequence[Device]:
    from fitplug_rpc.client import devices

    return devices(endpoint)


def _measure(endpoint: str) -> Sequence[Device]:
    from fitplug_rpc.measure import measured

    return measured(endpoint)


def _notes(found: Sequence[Device]) -> Sequence[str]:
    from fitplug_rpc.client import notes

    return tuple(notes(found))
