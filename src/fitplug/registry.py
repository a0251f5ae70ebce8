"""Loading plugins: keep out the broken ones, refuse name clashes, answer what is installed."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import pluggy

from fitplug import hookspecs
from fitplug.entrypoints import EntryPoint, entry_points
from fitplug.errors import NotFoundError, PluginError
from fitplug.extension import Architecture, Detector, Engine, Exporter, HeaderFormat, Remote, Runner, Source
from fitplug.record import record

T = TypeVar("T")

_KEYS: dict[str, Callable[[Any], Iterable[str]]] = {
    "detectors": lambda r: (r.name,),
    "remotes": lambda r: (r.name,),
    "sources": lambda r: (r.scheme,),
    "formats": lambda r: (r.name,),
    "architectures": lambda r: r.names,
    "runners": lambda r: (r.name,),
    "exporters": lambda r: (r.name,),
    "engines": lambda r: (r.name,),
}
"""Hook (without its prefix) → the names under which one of its records is known."""


class Registered(NamedTuple, Generic[T]):
    """A record, and the plugin it came from."""

    plugin: str
    record: T


@record
class PluginStatus:
    """One line of `fitplug plugins`."""

    name: str
    module: str
    distribution: str
    version: str
    adds: Sequence[str]
    """"exporter koboldcpp", "source hf", …"""
    problem: str | None = None


@record
class Registry:
    """Everything that is installed. Built once a run and handed on; there is no global one."""

    detectors: Sequence[Registered[Detector]] = ()
    remotes: Sequence[Registered[Remote]] = ()
    sources: Sequence[Registered[Source]] = ()
    formats: Sequence[Registered[HeaderFormat]] = ()
    architectures: Sequence[Registered[Architecture]] = ()
    runners: Sequence[Registered[Runner]] = ()
    exporters: Sequence[Registered[Exporter]] = ()
    engines: Sequence[Registered[Engine]] = ()
    plugins: Sequence[PluginStatus] = ()

    def runner(self, name: str) -> Runner:
        """The runner of that name.

        Raises:
            NotFoundError: nobody registered it; the message lists those that are there.
        """
        return _find("runner", self.runners, name)

    def exporter(self, name: str) -> Exporter:
        """The exporter of that name; `NotFoundError` lists the others."""
        return _find("exporter", self.exporters, name)

    def remote(self, name: str) -> Remote:
        """The remote of that name; `NotFoundError` lists the others."""
        return _find("remote", self.remotes, name)

    def source(self, scheme: str) -> Source:
        """The source for that scheme; `NotFoundError` lists the others."""
        return _find("source", self.sources, scheme)


def _find(what: str, registered: Sequence[Registered[T]], name: str) -> T:
    keys = _KEYS[f"{what}s"]
    for item in registered:
        if name in keys(item.record):
            return item.record
    known = ", ".join(sorted(key for item in registered for key in keys(item.record)))
    raise NotFoundError(f"no {what} '{name}'; there is: {known}")


def load(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load the plugins of the entry-point group, or of `points`.

    A plugin that does not import, implements an unknown hook or fails in one is left out and listed with its problem. One
    that `FITPLUG_DISABLE=a,b` names is left out too.

    Raises:
        PluginError: two plugins register the same name.
    """
    disabled = {name for name in os.environ.get("FITPLUG_DISABLE", "").split(",") if name}
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    found: dict[str, list[Registered[Any]]] = {kind: [] for kind in _KEYS}
    statuses = []
    for point in entry_points(hookspecs.GROUP) if points is None else points:
        adds: list[str] = []
        problem = "disabled by FITPLUG_DISABLE" if point.name in disabled else None
        if problem is None:
            try:
                records = _records(manager, point)
            except Exception as error:  # noqa: BLE001 - whatever a plugin does wrong is its line in the list, not the end
                problem = _describe(error)
            else:
                for kind, record in records:
                    found[kind].append(Registered(point.name, record))
                    adds += [f"{kind[:-1]} {key}" for key in _KEYS[kind](record)]
        statuses.append(
            PluginStatus(
                name=point.name,
                module=point.module,
                distribution=point.distribution,
                version=point.version,
                adds=tuple(adds),
                problem=problem,
            )
        )
    _refuse_clashes(found)
    return Registry(**{kind: tuple(items) for kind, items in found.items()}, plugins=tuple(statuses))


def _records(manager: pluggy.PluginManager, point: EntryPoint) -> list[tuple[str, Any]]:
    """All records of one plugin, taken in whole or not at all."""
    plugin = point.load()
    manager.register(plugin, name=point.name)
    try:
        manager.check_pending()
        return [
            (caller.name.removeprefix("fitplug_"), record)
            for caller in manager.get_hookcallers(plugin) or ()
            for implementation in caller.get_hookimpls()
            if implementation.plugin is plugin
            for record in cast("Iterable[Any]", implementation.function())
        ]
    finally:
        manager.unregister(plugin)


def _describe(error: Exception) -> str:
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    if isinstance(error, ImportError) or not frames:
        return f"{type(error).__name__}: {error}"
    where = frames[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"  # noqa: PTH119 - no pathlib on the start path


def _refuse_clashes(found: dict[str, list[Registered[Any]]]) -> None:
    for kind, items in found.items():
        owner: dict[str, str] = {}
        for item in items:
            for key in _KEYS[kind](item.record):
                if key in owner:
                    raise PluginError(
                        f"plugins '{owner[key]}' and '{item.plugin}' both register the {kind[:-1]} '{key}': "
                        f"leave one out with FITPLUG_DISABLE={item.plugin}"
                    )
                owner[key] = item.plugin
