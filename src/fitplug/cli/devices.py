"""`fitplug devices`: the hardware that was found."""

import click

from fitplug.cli.command import Command, Option
from fitplug.cli.options import json_option
from fitplug.cli.steps import detect_machine, load_registry, read_machine_file


@click.command(
    cls=Command,
    examples=(
        ("what is here", "devices"),
        ("record this machine, to plan for it elsewhere", "devices --json > machine.json"),
    ),
)
@click.option("--machine", cls=Option, metavar="FILE", help="show a recorded machine instead")
@click.option("--raw", cls=Option, is_flag=True, help="what each detector collected, as JSON, for a report")
@json_option
def command(*, machine: str | None, raw: bool, as_json: bool) -> int:
    """Show the hardware that was found, as llama.cpp will see it."""
    registry = load_registry()
    if raw:
        import json

        from fitplug.machine.detect import collect

        found, notes = collect([item.record for item in registry.detectors])
        print(json.dumps({"schema": 1, "raw": found, "notes": notes}, indent=2, default=str))
        return 0
    here = detect_machine(registry) if machine is None else read_machine_file(machine, registry)
    if as_json:
        import json

        from fitplug.machine.load import machine_to_json

        print(json.dumps(machine_to_json(here), indent=2))
    else:
        from fitplug.render.devices import show

        show(here)
    return 0
