"""What `auto` and `export` share: a plan from the command line, and a plan in an exporter's words."""

from dataclasses import replace
from typing import TYPE_CHECKING

from fitplug.cli.options import Given, Target, Wish
from fitplug.cli.progress import progressing
from fitplug.cli.steps import find_machine, read_companions, read_model, with_runner_defaults
from fitplug.conversion import CONVERTED
from fitplug.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitplug.extension import Export, Exporter
    from fitplug.planner.records import Alternative, Plan, Request


def make_plan(reference: str, given: Given, target: Target, wish: Wish, registry: Registry) -> "Plan":
    """Open MODEL, find the machine, choose the settings."""
    from fitplug.planner.fit import fit

    runner = registry.runner(target.runner)
    model = read_model(reference, registry, given.settings)
    machine = find_machine(target, registry)
    if target.machine is None and not target.gpus:
        from fitplug.differences import with_differences

        machine = with_differences(model, machine)
    companions, settings = read_companions(with_runner_defaults(given, runner), registry)
    settings = companions.drafting(settings, runner)
    with progressing("searching"):
        return fit(model, machine, runner, settings, request_of(given, target, wish), companions=companions)


def request_of(given: Given, target: Target, wish: Wish) -> "Request":
    """The planner's question."""
    from fitplug.planner.records import Request

    return Request(
        goal=wish.goal,
        reserve_bytes=target.reserve_bytes,
        min_ctx=wish.min_ctx,
        users=wish.users or 1,
        given=given.names,
    )


def written(
    plan: "Plan",
    reference: str,
    exporter: "Exporter",
    instead: "Alternative | None" = None,
    options: "Mapping[str, str] | None" = None,
    *,
    path: str | None = None,
) -> "Export":
    """The plan, or one of its alternatives, as that exporter writes it.

    Args:
        plan: what to write.
        reference: MODEL as the user wrote it.
        exporter: who writes it.
        instead: the alternative that is written, if any.
        options: what only this exporter knows.
        path: where the model lies on this disk, if `reference` does not say so itself.
    """
    from fitplug.extension import ExportRequest

    if instead is not None:
        plan = replace(plan, estimate=instead.estimate, speed=instead.speed, alternatives=())
    if CONVERTED in plan.model.header.notes:
        reference = path = plan.model.header.shards[0]  # what it will be called
    path = path or reference.removeprefix("file:")
    return exporter.render(plan, ExportRequest(model_reference=reference, model_path=path, options=options or {}))
