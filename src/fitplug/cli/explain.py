"""`fitplug explain MODEL`: where every byte of exactly these settings goes."""

from dataclasses import replace

import click

from fitplug.cli.app import ANSWER_NO
from fitplug.cli.command import Command
from fitplug.cli.options import Given, Target, json_option, model_argument, settings_options, target_options
from fitplug.cli.steps import find_machine, load_registry, read_companions, read_model


@click.command(
    cls=Command,
    examples=(
        ("all layers on the GPU, the whole trained context", "explain model.gguf"),
        ("32k tokens, a q8_0 cache, ten layers on the CPU", "explain model.gguf -c 32768 -ctk q8_0 -ctv q8_0 -ngl 23"),
        ("the same on a card you might buy", "explain model.gguf -c 32768 --gpu 'RTX 4090'"),
    ),
)
@model_argument
@settings_options
@target_options(reserve=0)
@json_option
def command(*, reference: str, given: Given, target: Target, as_json: bool) -> int:
    """Show where every byte goes with exactly these settings.

    What is left out takes llama.cpp's default, whatever the runner; all layers go to the GPU unless -ngl says otherwise.
    """
    from fitplug.memory.estimate import Estimator
    from fitplug.memory.kept import kept, kept_notes
    from fitplug.planner.budget import spare

    registry = load_registry()
    runner = registry.runner(target.runner)
    model = read_model(reference, registry, given.settings)
    machine = find_machine(target, registry)
    companions, settings = read_companions(given.settings, registry)
    estimate = Estimator(model, machine, runner, companions)(settings)
    left = spare(estimate, machine, target.reserve_bytes)
    fit, later = left.fits, kept(model, estimate, runner)
    estimate = replace(estimate, notes=(*estimate.notes, *kept_notes(later, estimate, left.host)))
    if as_json:
        from fitplug.render.json import dump, estimate_json, kept_json

        print(dump(estimate_json(estimate, machine, model, fits=fit) | {"host_later": kept_json(later)}))
    else:
        from fitplug.render.explain import show

        show(estimate, machine, model, fits=fit)
    return 0 if fit else ANSWER_NO
