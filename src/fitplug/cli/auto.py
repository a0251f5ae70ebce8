"""`fitplug auto MODEL`: the best settings for this machine, why, and the command to run."""

from functools import partial
from typing import TYPE_CHECKING

import click

from fitplug.cli.app import ANSWER_NO
from fitplug.cli.command import Command, Option
from fitplug.cli.options import (
    Given,
    Target,
    Wish,
    json_option,
    model_argument,
    settings_options,
    target_options,
    wish_options,
)
from fitplug.cli.plans import make_plan, written
from fitplug.cli.steps import detect_machine, load_registry
from fitplug.units import GIB

if TYPE_CHECKING:
    from fitplug.planner.records import Plan
    from fitplug.registry import Registry


@click.command(
    cls=Command,
    examples=(
        ("everything chosen for this machine", "auto model.gguf"),
        ("32k tokens of context, whatever it takes", "auto model.gguf -c 32768"),
        ("a model that is not downloaded yet, on a card you might buy",
         "auto modelscope:Qwen/Qwen3-8B-GGUF:Q4_K_M --gpu 'RTX 4090'"),
        ("the same, and start llama-server with it", "auto model.gguf --run"),
        ("four people at once, 16k tokens for each", "auto model.gguf --users 4 --min-ctx 16384"),
    ),
)  # fmt: skip
@model_argument
@wish_options
@target_options(reserve=GIB)
@settings_options
@click.option("--run", cls=Option, section="Output", is_flag=True,
              help="start it, after looking once more at what is free")  # fmt: skip
@json_option
def command(*, reference: str, given: Given, target: Target, wish: Wish, run: bool, as_json: bool) -> int:
    """Choose the best settings for this machine, and say why.

    Settings that are given are kept; the others are chosen. Every plan is checked with the same arithmetic that `explain`
    shows, and leaves --reserve free on every GPU.
    """
    from fitplug.opening import local_path

    registry = load_registry()
    plan = make_plan(reference, given, target, wish, registry)
    if run:
        return _run(reference, given, target, wish, registry, plan)
    write = partial(written, plan, reference, path=local_path(reference, registry))
    server = write(registry.exporter("llama-server"))
    if as_json:
        from fitplug.render.json import dump, plan_json

        alternatives = [(other, write(registry.exporter("llama-server"), other)) for other in plan.alternatives]
        print(dump(plan_json(plan, list(server.argv), [(other, list(export.argv)) for other, export in alternatives])))
    else:
        from fitplug.render.auto import show

        runner = registry.runner(target.runner)
        own = server if runner.exporter == "llama-server" else write(registry.exporter(runner.exporter))
        show(plan, own)
    return 0 if plan.fits else ANSWER_NO


def _run(reference: str, given: Given, target: Target, wish: Wish, registry: "Registry", plan: "Plan") -> int:
    from fitplug.cli.running import checked, start
    from fitplug.opening import local_path
    from fitplug.render.auto import show

    if target.machine is not None or target.gpus:
        raise click.UsageError("--run starts the model here: it goes with neither --machine nor --gpu")
    plan = checked(plan, partial(detect_machine, registry), partial(make_plan, reference, given, target, wish, registry))
    exporter = registry.exporter(registry.runner(target.runner).exporter)
    export = written(plan, reference, exporter, path=local_path(reference, registry))
    if not plan.fits:
        show(plan, export)
        return ANSWER_NO
    return start(export)
