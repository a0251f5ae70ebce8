"""The page of `fitplug plugins`."""

from collections.abc import Sequence

from fitplug.registry import PluginStatus
from fitplug.render.page import Block, Line, Points, Table, write
from fitplug.render.text import one_line


def show(plugins: Sequence[PluginStatus]) -> None:
    """Write it."""
    write(page(plugins))


def page(plugins: Sequence[PluginStatus]) -> Sequence[Block]:
    """Those that work in a table, those that do not with the reason."""
    working = [plugin for plugin in plugins if plugin.problem is None]
    broken = [f"{plugin.name} ({plugin.module}): {plugin.problem}" for plugin in plugins if plugin.problem is not None]
    blocks: list[Block] = [
        Line(
            f"{len(working)} plugins are installed" + (f", {len(broken)} left out" if broken else ""),
            "bad" if broken else "good",
        ),
        Table("", ("plugin", "from", "adds"), [_row(plugin) for plugin in working]),
    ]
    return [*blocks, Points("left out", list(map(one_line, broken)))] if broken else blocks


def _row(plugin: PluginStatus) -> tuple[str, str, str]:
    return plugin.name, one_line(f"{plugin.distribution} {plugin.version}"), one_line(_adds(plugin.adds))


def _adds(adds: Sequence[str]) -> str:
    """["exporter a", "exporter b", "source c"] → "exporters a, b; source c"."""
    by_kind: dict[str, list[str]] = {}
    for addition in adds:
        kind, _, name = addition.partition(" ")
        by_kind.setdefault(kind, []).append(name)
    return "; ".join(f"{kind}{'s' if len(names) > 1 else ''} {_some(names)}" for kind, names in by_kind.items()) or "nothing"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"
