"""`fitplug devices`: the hardware that was found."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from fitplug.cli.command import Command, Option
from fitplug.cli.options import json_option, split_addresses
from fitplug.cli.progress import progressing
from fitplug.cli.steps import ask_installed, detect_machine, load_registry, read_machine_file, with_remote

if TYPE_CHECKING:
    from fitplug.machine.records import Machine
    from fitplug.registry import Registry


@click.command(
    cls=Command,
    examples=(
        ("what is here", "devices"),
        ("record this machine, to plan for it elsewhere", "devices --bandwidth --json > machine.json"),
        ("how fast the way to an rpc-server is", "devices --rpc 192.168.1.7:50052 --bandwidth"),
        ("which cards --gpu knows", "devices --catalogue 4060"),
    ),
)
@click.option("--machine", cls=Option, metavar="FILE", help="show a recorded machine instead")
@click.option("--raw", cls=Option, is_flag=True, help="what each detector collected, as JSON, for a report")
@click.option("--ask/--no-ask", cls=Option, default=True, help="ask the installed llama.cpp for its own list too (default)")
@click.option("--rpc", cls=Option, multiple=True, metavar="HOST:PORT[=CARD]", help="the devices of an rpc-server too")
@click.option(
    "--bandwidth",
    cls=Option,
    is_flag=True,
    help="measure how fast the host's memory is, and the way to rpc-servers, for some seconds",
)
@click.option("--catalogue", cls=Option, is_flag=True, help="list the cards that --gpu knows instead, those with WORDS")
@click.argument("words", nargs=-1, metavar="[WORDS]…")
@json_option
def command(
    *,
    words: tuple[str, ...],
    machine: str | None,
    raw: bool,
    ask: bool,
    rpc: tuple[str, ...],
    bandwidth: bool,
    catalogue: bool,
    as_json: bool,
) -> int:
    """Show the hardware that was found, as llama.cpp will see it."""
    if catalogue:
        return _catalogue(" ".join(words), as_json=as_json)
    if words:
        raise click.UsageError("words are for --catalogue")
    registry = load_registry()
    if raw:
        import json

        from fitplug.machine.detect import collect

        found, notes = collect([item.record for item in registry.detectors])
        print(json.dumps({"schema": 1, "raw": found, "notes": notes}, indent=2, default=str))
        return 0
    here = detect_machine(registry) if machine is None else read_machine_file(machine, registry)
    if ask and machine is None:
        here = ask_installed(here, registry)
    if rpc:
        here = with_remote(here, split_addresses(rpc), registry, measure=bandwidth)
    if bandwidth:
        here = _with_bandwidth(here, registry)
    if as_json:
        import json

        from fitplug.machine.load import machine_to_json

        print(json.dumps(machine_to_json(here), indent=2))
    else:
        from fitplug.render.devices import show

        show(here)
    return 0


def _with_bandwidth(machine: "Machine", registry: "Registry") -> "Machine":
    """The machine with its host's memory bandwidth as it is now."""
    for item in registry.detectors:
        if item.record.bandwidth is not None:
            with progressing("measuring the memory"):
                extra = {**machine.host.extra, "bandwidth_basis": "measured"}
                return replace(machine, host=replace(machine.host, memory_bandwidth=item.record.bandwidth(), extra=extra))
    return machine


def _catalogue(words: str, *, as_json: bool) -> int:
    """The cards that one can plan for without having them."""
    from fitplug.machine.catalogue import search
    from fitplug.render.catalogue import catalogue_json, show

    cards = search(words)
    if as_json:
        from fitplug.render.json import dump

        print(dump(catalogue_json(cards)))
    else:
        show(cards)
    return 0
