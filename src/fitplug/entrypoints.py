"""Which modules the installed distributions name in an entry-point group.

importlib.metadata answers the same and takes 26 ms of a start that has 120: it is the fallback for whatever is not a plain
folder on sys.path (a zip file, a custom finder).
"""

# pathlib costs more than all of this, and every start comes through here:
# ruff: noqa: PTH110, PTH112, PTH118, PTH123, PTH208

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple


class EntryPoint(NamedTuple):
    """One line of a distribution's entry_points.txt."""

    name: str
    module: str
    distribution: str = ""
    version: str = ""

    def load(self) -> Any:
        """The module (or the attribute after a colon) itself."""
        module, _, attribute = self.module.partition(":")
        loaded = import_module(module)
        return getattr(loaded, attribute) if attribute else loaded


def entry_points(group: str) -> list[EntryPoint]:
    """Entry points of the group; of a distribution that is on the path twice only the first counts."""
    seen: set[str] = set()
    found: list[EntryPoint] = []
    strange = False
    for folder in sys.path:
        if os.path.isdir(folder or "."):
            found += _in_folder(folder or ".", group, seen)
        elif os.path.exists(folder):
            strange = True
    return found if found and not strange else [*found, *_by_metadata(group, seen)]


def _in_folder(folder: str, group: str, seen: set[str]) -> Iterator[EntryPoint]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    except OSError:
        return
    for name in names:
        project, _, version = name.rpartition(".")[0].partition("-")
        if project.lower() in seen:
            continue
        try:
            with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                text = file.read()
        except OSError:
            continue
        if f"[{group}]" in text:
            seen.add(project.lower())
            yield from _parse(text, group, project, version)


def _parse(text: str, group: str, project: str, version: str) -> Iterator[EntryPoint]:
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, module = line.partition("=")
            yield EntryPoint(name.strip(), module.partition("[")[0].strip(), project, version)


def _by_metadata(group: str, seen: set[str]) -> Iterator[EntryPoint]:
    from importlib import metadata

    for point in metadata.entry_points(group=group):
        distribution = point.dist
        project = distribution.name.replace("-", "_") if distribution else ""
        if project.lower() not in seen:
            yield EntryPoint(point.name, point.value, project, distribution.version if distribution else "")
