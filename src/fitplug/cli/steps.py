"""The steps that commands share: from words on the command line to a model, a machine, a runner and settings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fitplug.cli.options import Given, Target
from fitplug.cli.progress import progressing
from fitplug.errors import FitplugError, NotFoundError
from fitplug.registry import Registry
from fitplug.settings import Settings

if TYPE_CHECKING:
    from fitplug.extension import Runner
    from fitplug.machine.records import Device, Machine
    from fitplug.memory.companions import Companions
    from fitplug.model.records import Model

_MAX_MACHINE_FILE = 4 << 20


def load_registry() -> Registry:
    """Everything that is installed."""
    from fitplug.registry import load

    return load()


def read_model(reference: str, registry: Registry, settings: Settings | None = None) -> "Model":
    """Open MODEL, read its header and understand it, with the metadata that settings replace."""
    from fitplug.model.describe import describe
    from fitplug.opening import as_gguf, open_model

    with progressing(f"reading {reference}"):
        header = as_gguf(reference, open_model(reference, registry))
        overrides = () if settings is None else settings.kv_overrides
        return describe(header, [item.record for item in registry.architectures], overrides)


def read_companions(settings: Settings, registry: Registry) -> "tuple[Companions, Settings]":
    """Open the projector, the draft and the adapters that the settings name; the settings then name places."""
    from fitplug.opening import open_companions

    with progressing("reading what runs beside the model"):
        return open_companions(settings, registry)


def find_machine(target: Target, registry: Registry) -> "Machine":
    """The recorded machine, or this one; with the cards of --gpu in place of its own, and those of --rpc."""
    machine = read_machine_file(target.machine, registry) if target.machine is not None else detect_machine(registry)
    if target.ask and target.machine is None and not target.gpus:
        machine = ask_installed(machine, registry, target.runner)
    if target.gpus:
        from fitplug.machine.imagined import imagined_machine

        machine = imagined_machine(target.gpus, machine.host)
    return with_remote(machine, target.rpc, registry) if target.rpc else machine


def ask_installed(machine: "Machine", registry: Registry, runner: str = "") -> "Machine":
    """The machine as the installed llama.cpp lists it: that runner's, else the first that answers; it takes a second."""
    from fitplug.machine.installed import agree

    engines = sorted((item.record for item in registry.engines), key=lambda engine: engine.name != runner)
    for engine in engines:
        with progressing(f"asking {engine.name}"):
            listed = engine.devices() if engine.devices is not None else None
        if listed is not None:
            only = engine.name == runner
            return agree(machine, listed, engine.name, precision=engine.devices_precision, only=only)
    return machine


def with_remote(machine: "Machine", addresses: Sequence[str], registry: Registry, *, measure: bool = False) -> "Machine":
    """The machine and the devices of those servers: HOST:PORT, or HOST:PORT=CARD, since a server does not say which it is."""
    from fitplug.machine.remote import join, known_as

    remote = registry.remote("rpc")
    ask = remote.measure if measure and remote.measure is not None else remote.devices
    theirs: list[Device] = []
    with progressing(f"{'measuring' if measure else 'asking'} {', '.join(addresses)}"):
        for text in dict.fromkeys(addresses):
            address, _, card = text.partition("=")
            theirs += known_as(card, ask(address)) if card else ask(address)
    return join(machine, theirs, notes=remote.notes(theirs) if remote.notes is not None else ())


def detect_machine(registry: Registry) -> "Machine":
    """This machine."""
    from fitplug.machine.detect import detect

    return detect([item.record for item in registry.detectors])


def read_machine_file(path: str, registry: Registry) -> "Machine":
    """The machine that a file describes; what `devices --raw` printed elsewhere is one too."""
    from fitplug.machine.detect import machine_from_file

    try:
        with open(path, "rb") as file:  # noqa: PTH123 - no pathlib on the start path
            text = file.read(_MAX_MACHINE_FILE + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no machine file '{path}': make one with `fitplug devices --json`") from None
    except OSError as error:
        raise NotFoundError(f"the machine file '{path}' cannot be read: {error.strerror}") from error
    try:
        return machine_from_file(text, [item.record for item in registry.detectors])
    except FitplugError as error:
        raise type(error)(f"{path}: {error}") from error


def with_runner_defaults(given: Given, runner: "Runner") -> Settings:
    """The settings given, and the runner's own defaults for the others."""
    left_out = {name: value for name, value in runner.defaults.items() if name not in given.names}
    return replace(given.settings, **left_out) if left_out else given.settings
