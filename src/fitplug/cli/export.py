"""`fitplug export RUNNER MODEL`: the plan as that runner's own configuration."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fitplug.cli.app import ANSWER_NO
from fitplug.cli.command import Command, Option
from fitplug.cli.options import (
    Given,
    Target,
    Wish,
    complete_exporters,
    complete_models,
    json_option,
    settings_options,
    target_options,
    wish_options,
)
from fitplug.cli.plans import make_plan, written
from fitplug.cli.steps import load_registry
from fitplug.errors import RefusedError
from fitplug.units import GIB

if TYPE_CHECKING:
    from fitplug.extension import Export, Exporter


@click.command(
    cls=Command,
    examples=(
        ("which forms there are", "plugins"),
        ("an Ollama Modelfile", "export ollama model.gguf"),
        ("the files into a folder", "export ollama model.gguf --output here/"),
        ("a llama-server command line", "export llama-server model.gguf -c 32768"),
        ("LM Studio's settings as they were", "export lmstudio --undo"),
    ),
)
@click.argument("exporter", metavar="RUNNER", shell_complete=complete_exporters)
@click.argument("reference", metavar="MODEL", required=False, shell_complete=complete_models)
@click.option("--output", "-o", cls=Option, section="Output", metavar="FOLDER", help="write the files there")
@click.option("--install", cls=Option, section="Output", is_flag=True, help="put it where the runner reads it")
@click.option("--undo", cls=Option, section="Output", is_flag=True, help="take the last --install back; needs no MODEL")
@click.option("options", "--option", cls=Option, section="Output", multiple=True, metavar="KEY=VALUE",
              help="something that only this runner knows; may be repeated")  # fmt: skip
@json_option
@wish_options
@target_options(reserve=GIB, runner=None)
@settings_options
def command(
    *, exporter: str, reference: str | None, output: str | None, install: bool, undo: bool,
    options: tuple[str, ...], as_json: bool, given: Given, target: Target, wish: Wish,
) -> int:  # fmt: skip
    """Write the plan as RUNNER's own configuration.

    The plan is made as `fitplug auto` makes it, with the arithmetic of that runner; what RUNNER has no place for is said.
    """
    from fitplug.opening import local_path

    registry = load_registry()
    writer = registry.exporter(exporter)
    if undo:
        return _take_back(writer, as_json=as_json)
    if reference is None:
        raise click.MissingParameter(param_hint="MODEL", param_type="argument")
    target = target._replace(runner=target.runner or writer.runner)
    plan = make_plan(reference, given, target, wish, registry)
    export = written(plan, reference, writer, options=_pairs(options), path=local_path(reference, registry))
    done = _put(export, writer, output, install=install) if plan.fits else []
    if as_json:
        from fitplug.render.json import dump

        print(dump(_json(export, runner=target.runner, fits=plan.fits, done=done)))
    else:
        from fitplug.render.export import show

        show(plan, export, done)
    return 0 if plan.fits else ANSWER_NO


def _pairs(options: tuple[str, ...]) -> Mapping[str, str]:
    pairs = [option.partition("=") for option in options]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.BadParameter("an option is written KEY=VALUE", param_hint="--option")
    return {name: value for name, _, value in pairs}


def _json(export: "Export", *, runner: str, fits: bool, done: list[str]) -> dict[str, Any]:
    return {
        "fits": fits,
        "runner": runner,
        "argv": list(export.argv),
        "files": [{"path": file.path, "text": file.text} for file in export.files],
        "env": dict(export.env),
        "commands": [list(words) for words in export.commands],
        "cannot_express": list(export.cannot_express),
        "notes": list(export.notes),
        "done": done,
    }


def _put(export: "Export", exporter: "Exporter", output: str | None, *, install: bool) -> list[str]:
    """Write the files, or have the plugin put them in their place; what was done, a line each."""
    done = []
    if output is not None:
        from fitplug.writing import write_files

        done += write_files(export.files, output)
    if install:
        if exporter.install is None:
            raise RefusedError(f"'{exporter.name}' has no place of its own to install to: write the files with --output")
        done += exporter.install(export)
    return done


def _take_back(exporter: "Exporter", *, as_json: bool) -> int:
    if exporter.undo is None:
        raise RefusedError(f"'{exporter.name}' installs nothing that could be taken back")
    done = list(exporter.undo())
    if as_json:
        from fitplug.render.json import dump

        print(dump({"done": done}))
    else:
        from fitplug.render.page import Points, write

        write([Points("done", done)])
    return 0
