"""`fitplug check REPO`: which files of a repository fit, before downloading any."""

from typing import TYPE_CHECKING, Any

import click

from fitplug.cli.app import ANSWER_NO
from fitplug.cli.command import Command
from fitplug.cli.options import Given, Target, Wish, json_option, settings_options, target_options, wish_options
from fitplug.cli.plans import request_of
from fitplug.cli.steps import find_machine, load_registry, waiting, with_runner_defaults
from fitplug.errors import FitplugError, NotFoundError
from fitplug.registry import Registry
from fitplug.units import GIB

if TYPE_CHECKING:
    from fitplug.extension import Listing, Source
    from fitplug.formats.header import Header
    from fitplug.repository.grouping import Candidate


@click.command(
    cls=Command,
    examples=(
        ("which quant fits this machine", "check modelscope:Qwen/Qwen3-8B-GGUF"),
        ("which fits a card you might buy, with 32k tokens", "check hf:Qwen/Qwen3-8B-GGUF --gpu 'RTX 4060' -c 32768"),
    ),
)
@click.argument("repository", metavar="REPO")
@wish_options
@target_options(reserve=GIB)
@settings_options
@json_option
def command(*, repository: str, given: Given, target: Target, wish: Wish, as_json: bool) -> int:
    """Show which files of a repository fit, before downloading any.

    REPO is modelscope:OWNER/NAME or hf:OWNER/NAME, with @REVISION where another than the newest is meant.
    """
    from fitplug.model.describe import describe
    from fitplug.planner.fit import fit
    from fitplug.render.check import Checked, checked_json, show
    from fitplug.repository.grouping import Role, candidates

    registry = load_registry()
    source, name = _hub(repository, registry)
    runner = registry.runner(target.runner)
    machine = find_machine(target, registry)
    settings, request = with_runner_defaults(given, runner), request_of(given, target, wish)
    architectures = [item.record for item in registry.architectures]
    with waiting(f"looking into {repository}"):
        listing = source.list(name) if source.list else None
        assert listing is not None  # noqa: S101 - _hub saw to it
        rows: list[Any] = []
        for candidate in candidates(listing):
            if candidate.role != Role.MODEL:
                continue
            try:
                model = describe(_header(source, listing, candidate, registry), architectures)
                rows.append(
                    Checked(
                        candidate.label or candidate.name, candidate.n_bytes, fit(model, machine, runner, settings, request)
                    )
                )
            except FitplugError as error:
                rows.append(Checked(candidate.label or candidate.name, candidate.n_bytes, None, str(error)))
    if not rows:
        raise NotFoundError(f"{repository} holds no model that llama.cpp could run")
    fits = any(row.plan is not None and row.plan.fits for row in rows)
    if as_json:
        from fitplug.render.json import dump

        print(dump(checked_json(repository, listing.revision, rows, fits=fits)))
    else:
        show(repository, listing, rows, fits=fits)
    return 0 if fits else ANSWER_NO


def _hub(repository: str, registry: Registry) -> "tuple[Source, str]":
    scheme, colon, name = repository.partition(":")
    hubs = [item.record.scheme for item in registry.sources if item.record.list is not None]
    if not colon or scheme not in hubs:
        raise NotFoundError(
            f"'{repository}' is no repository of a hub: write {' or '.join(f'{hub}:OWNER/NAME' for hub in hubs)}"
        )
    return registry.source(scheme), name


def _header(source: "Source", listing: "Listing", candidate: "Candidate", registry: Registry) -> "Header":
    from fitplug.opening import read_header
    from fitplug.repository.reference import with_companions

    if source.open_file is None:
        raise NotFoundError(f"{source.scheme} cannot open single files")
    return read_header([source.open_file(listing, entry) for entry in with_companions(listing, candidate)], registry)
