"""llama.cpp's RPC servers: the devices of other machines, asked for through its own protocol."""

from collections.abc import Iterable

from fitplug.extension import Later, Remote
from fitplug.hookspecs import hookimpl


@hookimpl
def fitplug_remotes() -> Iterable[Remote]:
    """`--rpc HOST:PORT`."""
    yield Remote(
        name="rpc",
        help="an rpc-server of llama.cpp, HOST:PORT",
        devices=Later("fitplug_rpc.client:devices"),
        measure=Later("fitplug_rpc.measure:measured"),
        notes=Later("fitplug_rpc.client:notes"),
    )
