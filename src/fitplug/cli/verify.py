"""`fitplug verify MODEL`: the prediction beside what the installed llama.cpp itself says, buffer by buffer."""

import sys
from typing import TYPE_CHECKING

import click

from fitplug.cli.app import ANSWER_NO
from fitplug.cli.command import Command, Option
from fitplug.cli.options import (
    Given,
    Target,
    complete_engines,
    json_option,
    model_argument,
    settings_options,
    target_options,
)
from fitplug.cli.progress import progressing
from fitplug.cli.steps import find_machine, load_registry, read_model, with_runner_defaults
from fitplug.errors import NotFoundError, RefusedError
from fitplug.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitplug.extension import Engine
    from fitplug.settings import Settings


@click.command(
    cls=Command,
    examples=(
        ("with the engine that is installed", "verify model.gguf -c 8192"),
        ("with a certain one", "verify model.gguf --engine llama-cpp-python -c 8192"),
        ("so that later plans know of a difference", "verify model.gguf -c 8192 --record"),
    ),
)
@model_argument
@click.option("engine_name", "--engine", cls=Option, metavar="NAME", shell_complete=complete_engines,
              help="which llama.cpp to ask (the first that is installed)")  # fmt: skip
@click.option("--record", cls=Option, is_flag=True, help="let later plans for this model here leave the difference free")
@settings_options
@target_options(reserve=0, runner=None)
@json_option
def command(*, reference: str, engine_name: str | None, record: bool, given: Given, target: Target, as_json: bool) -> int:
    """Show the prediction beside what the installed llama.cpp itself says, buffer by buffer."""
    from fitplug.memory.estimate import Estimator
    from fitplug.render.verify import compare, comparison_json, show

    registry = load_registry()
    engine, version = _installed(registry, engine_name)
    runner = registry.runner(target.runner or engine.runner)
    settings = with_runner_defaults(given, runner).without_drafts()
    model = read_model(reference, registry, settings)
    machine = find_machine(target, registry)
    estimate = Estimator(model, machine, runner)(settings)
    with progressing(f"asking {engine.name}"):
        measured = _measure(engine, reference, settings, registry)
    rows = compare(estimate, measured, precision=engine.precision)
    agrees = all(row.agrees for row in rows)
    if record:
        from fitplug import differences

        wrong = [(row.buffer, row.predicted, row.measured) for row in rows if not row.agrees]
        more = differences.by_device(wrong, machine)
        print(differences.record(model, machine, more, f"{engine.name} {version}"), file=sys.stderr)
    if as_json:
        from fitplug.render.json import dump

        print(dump(comparison_json(rows, engine.name, version, agrees=agrees)))
    else:
        show(model, rows, f"{engine.name} {version}", agrees=agrees)
    return 0 if agrees else ANSWER_NO


def _measure(engine: "Engine", reference: str, settings: "Settings", registry: Registry) -> "Mapping[str, Mapping[str, int]]":
    """What the engine says; of a model that is not on this disk it is shown the header and a hole."""
    from fitplug.opening import open_blobs, read_header, split_reference

    scheme, path = split_reference(reference)
    if scheme == "file":
        return engine.measure(path, settings)
    if not engine.ghosts:
        raise RefusedError(f"{engine.name} really loads the model: download it first, or take another --engine")
    from tempfile import TemporaryDirectory

    from fitplug.ghost import ghosts
    from fitplug.sources.ghost_files import write_ghosts

    blobs = open_blobs(reference, registry)
    with TemporaryDirectory(prefix="fitplug-") as folder:
        return engine.measure(write_ghosts(ghosts(blobs, read_header(blobs, registry)), folder), settings)


def _installed(registry: Registry, name: str | None) -> "tuple[Engine, str]":
    engines = [item.record for item in registry.engines if name in (None, item.record.name)]
    if not engines and name is not None:
        known = ", ".join(sorted(item.record.name for item in registry.engines))
        raise NotFoundError(f"no engine '{name}'; there is: {known}")
    for engine in engines:
        version = engine.available()
        if version is not None:
            return engine, version
    wanted = name or " or ".join(engine.name for engine in engines)
    raise NotFoundError(f"{wanted or 'llama.cpp'} is not installed: verify asks an installed llama.cpp")
