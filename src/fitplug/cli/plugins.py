"""`fitplug plugins`: what is installed, what each adds, what failed and why."""

import click

from fitplug.cli.command import Command
from fitplug.cli.options import json_option
from fitplug.cli.steps import load_registry


@click.command(
    cls=Command,
    examples=(("what is installed", "plugins"), ("as JSON", "plugins --json")),
    epilog="FITPLUG_DISABLE=NAME,NAME leaves plugins out.",
)
@json_option
def command(*, as_json: bool) -> int:
    """Show what is installed, what each plugin adds, and what failed to load and why."""
    registry = load_registry()
    if as_json:
        from fitplug.render.json import dump

        print(dump({"plugins": [
            {"name": plugin.name, "module": plugin.module, "distribution": plugin.distribution,
             "version": plugin.version, "adds": list(plugin.adds), "problem": plugin.problem}
            for plugin in registry.plugins
        ]}))  # fmt: skip
    else:
        from fitplug.render.plugins import show

        show(registry.plugins)
    return 0
