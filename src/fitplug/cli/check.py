"""`fitplug check REPO`: which files of a repository fit, before downloading any."""

from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import click

from fitplug.cli.app import ANSWER_NO
from fitplug.cli.command import Command, Option
from fitplug.cli.options import Given, Target, Wish, from_page, json_option, settings_options, target_options, wish_options
from fitplug.cli.plans import request_of
from fitplug.cli.progress import Say, progressing
from fitplug.cli.steps import find_machine, load_registry, with_runner_defaults
from fitplug.errors import AccessError, FitplugError, NetworkError, NotFoundError
from fitplug.registry import Registry
from fitplug.units import GIB, MIB

if TYPE_CHECKING:
    from fitplug.extension import Architecture, Listing, Runner, Source
    from fitplug.formats.header import Header
    from fitplug.machine.records import Machine
    from fitplug.planner.records import Plan, Request
    from fitplug.repository.advice import Row
    from fitplug.repository.grouping import Candidate
    from fitplug.repository.summary import Checked
    from fitplug.settings import Settings

_MOST_REPOSITORIES = 50
_MOST_FOR_ONE = MIB
"""Of each file of a tokenizer that is fetched for the sizes of one repository's safetensors as GGUF: SentencePiece's have half
of it or five times as much, tokenizer.json two to thirty times. Else what is here already is looked at."""


@click.command(
    cls=Command,
    examples=(
        ("which quant fits this machine", "check modelscope:Qwen/Qwen3-8B-GGUF"),
        ("which fits a card you might buy, with 32k tokens", "check hf:Qwen/Qwen3-8B-GGUF --gpu 'RTX 4060' -c 32768"),
        ("what there is, and which of it suits this machine", "check --search 'qwen3 gguf'"),
    ),
)
@click.argument("repositories", metavar="REPO…", nargs=-1, callback=from_page)
@click.option(
    "--search", metavar="WORDS", cls=Option, section="Repositories", help="ask the hubs' own search instead of naming REPO"
)
@click.option("--hub", metavar="NAME", cls=Option, section="Repositories", help="search only there: modelscope or hf")
@click.option("--limit", type=click.IntRange(1, _MOST_REPOSITORIES), default=5, metavar="N", cls=Option, section="Repositories",
              help="results of a search to look into (5)")  # fmt: skip
@click.option("--to", "folder", metavar="FOLDER", cls=Option, section="Repositories",
              help="where it would be downloaded to, for the disk's free space (the hub's own cache)")  # fmt: skip
@wish_options
@target_options(reserve=GIB)
@settings_options
@json_option
def command(
    *, repositories: tuple[str, ...], search: str | None, hub: str | None, limit: int, folder: str | None,
    given: Given, target: Target, wish: Wish, as_json: bool,
) -> int:  # fmt: skip
    """Show which files of a repository fit, before downloading any.

    REPO is modelscope:OWNER/NAME or hf:OWNER/NAME, with @REVISION where another than the newest is meant.
    """
    from fitplug.render.check import checked_json, show

    registry = load_registry()
    notes: list[str] = []
    if bool(repositories) == bool(search):
        raise click.UsageError("name one or more repositories, or give --search WORDS")
    if search:
        repositories = tuple(_found(search, hub, limit, registry, notes))
    named = [(repository, *hub_of(repository, registry)) for repository in dict.fromkeys(repositories)]
    runner = registry.runner(target.runner)
    question = _Question(
        find_machine(target, registry), runner, with_runner_defaults(given, runner), request_of(given, target, wish),
        [item.record for item in registry.architectures],
    )  # fmt: skip
    checked = []
    most_bytes = _MOST_FOR_ONE if len(named) == 1 else 0
    for repository, source, name in named:
        try:
            checked.append(_check(repository, source, name, question, registry, folder, most_bytes))
        except FitplugError as error:
            if len(named) == 1:
                raise
            notes.append(f"{repository}: {error}")
    if not checked:
        raise NotFoundError(notes[0] if notes else "none of the repositories can be read")
    words = [word for gpu in target.gpus for word in ("--gpu", gpu)] + (["--machine", target.machine] if target.machine else [])
    if as_json:
        from fitplug.render.json import dump

        print(dump(checked_json(checked, wish.goal, notes)))
    else:
        show(checked, wish.goal, notes, words)
    return 0 if any(row.fits for one in checked for row in one.rows) else ANSWER_NO


class _Question(NamedTuple):
    """What is asked of every model."""

    machine: "Machine"
    runner: "Runner"
    settings: "Settings"
    request: "Request"
    architectures: "Sequence[Architecture]"

    def plan(self, header: "Header") -> "Plan":
        from fitplug.model.describe import describe
        from fitplug.planner.fit import fit

        return fit(describe(header, self.architectures), self.machine, self.runner, self.settings, self.request)


def hub_of(repository: str, registry: Registry) -> "tuple[Source, str]":
    """The hub of a REPO, and the name there.

    Raises:
        NotFoundError: it does not begin with a hub's name.
    """
    scheme, colon, name = repository.partition(":")
    hubs = [item.record.scheme for item in registry.sources if item.record.list is not None]
    if not colon or scheme not in hubs:
        raise NotFoundError(
            f"'{repository[:100]}' is no repository of a hub: write {' or '.join(f'{hub}:OWNER/NAME' for hub in hubs)}"
        )
    return registry.source(scheme), name


def _found(words: str, hub: str | None, limit: int, registry: Registry, notes: list[str]) -> list[str]:
    """What the hubs' own searches answer; the same name on two hubs counts once."""
    hubs = [item.record for item in registry.sources if item.record.search is not None and hub in (None, item.record.scheme)]
    if not hubs:
        raise NotFoundError(f"no hub '{hub}' that can be searched: {', '.join(s.scheme for s in _searchable(registry))}")
    answers: list[list[str]] = []
    for source in hubs:
        try:
            assert source.search is not None  # noqa: S101 - chosen for it
            with progressing(f"searching {source.scheme}"):
                answers.append([f"{source.scheme}:{name}" for name in source.search(words, limit)])
        except FitplugError as error:
            if len(hubs) == 1:
                raise
            notes.append(str(error))
    found: dict[str, str] = {}
    for name in (name for places in zip_longest(*answers) for name in places if name is not None):  # the first of each, …
        found.setdefault(name.partition(":")[2].lower(), name)
    if not found:
        raise NotFoundError(notes[0] if len(notes) == len(hubs) else f"no hub knows a model for '{words[:60]}'")
    return list(found.values())[:limit]


def _searchable(registry: Registry) -> "list[Source]":
    return [item.record for item in registry.sources if item.record.search is not None]


def _check(
    repository: str, source: "Source", name: str, question: _Question, registry: Registry, folder: str | None, most_bytes: int
) -> "Checked":
    """Every model of one repository; `most_bytes` may be fetched for each file of a tokenizer."""
    from fitplug.opening import read_header
    from fitplug.repository.grouping import Role, candidates
    from fitplug.repository.summary import Checked
    from fitplug.sources.fetched import with_beside
    from fitplug.sources.headers import default_cache, read_headers

    if source.list is None or source.open_file is None:
        raise NotFoundError(f"{source.scheme} cannot be looked into")
    rows: list[Row] = []
    closed: list[FitplugError] = []
    with progressing(f"looking into {repository}") as say:
        listing = source.list(name)
        found = candidates(listing)
        models = [candidate for candidate in found if candidate.role == Role.MODEL]
        if not models:
            raise NotFoundError(_no_model(repository, listing, found))
        headers = read_headers(listing, models, source.open_file, partial(read_header, registry=registry), default_cache())
        for n, (candidate, header) in enumerate(headers, 1):
            say(f"looking into {repository}: {n} of {len(models)} models")
            if isinstance(header, (AccessError, NetworkError)):
                closed.append(header)
            if not isinstance(header, FitplugError):
                header = with_beside(header, listing, candidate, source.open_file, most_bytes)  # noqa: PLW2901 - the same one, with more
            rows += _rows(repository, candidate, header, models, question, say)
    if len(closed) == len(models):  # then nothing is known of any
        raise closed[0]
    order = {id(candidate): n for n, candidate in enumerate(models)}
    rows.sort(key=lambda row: (order[id(row.candidate)], bool(row.quant), -row.n_bytes if row.quant else 0))
    others = [candidate for candidate in found if candidate.role != Role.MODEL]
    where, free = _disk(source, folder)
    return Checked(repository, listing, rows, others, where, free, 2 if question.runner.name == "ollama" else 1)


def _no_model(repository: str, listing: "Listing", found: "Sequence[Candidate]") -> str:
    if not listing.entries:
        return f"{repository} is empty" if not listing.notes else f"{repository} holds no model: {listing.notes[0]}"
    if found:
        roles = ", ".join(sorted({str(candidate.role) for candidate in found}))
        return f"{repository} holds no model, only: {roles}"
    others = sorted({entry.path.rpartition(".")[2] for entry in listing.entries if "." in entry.path.rpartition("/")[2]})
    there = f" (there is: {', '.join(others[:6])})" if others else ""
    return f"{repository} holds no GGUF and no safetensors file that llama.cpp could run{there}"


def _rows(
    repository: str, candidate: "Candidate", header: "Header | FitplugError", models: "Sequence[Candidate]",
    question: _Question, say: Say,
) -> "list[Row]":  # fmt: skip
    """One row a GGUF; of safetensors one as they are, and one for each quant that could be made of them."""
    from fitplug.repository.advice import Row

    reference = _reference(repository, candidate, models)
    label = candidate.label or ("safetensors" if candidate.name == "." else candidate.name)
    if isinstance(header, FitplugError):
        return [Row(reference, label, candidate, candidate.n_bytes, None, None, str(header))]
    if header.format == "gguf":
        return [_planned(Row(reference, label, candidate, candidate.n_bytes, header, None), question)]
    return _converted(reference, candidate, header, question, say)


def _planned(row: "Row", question: _Question) -> "Row":
    try:
        assert row.header is not None  # noqa: S101 - made with one
        return row._replace(plan=question.plan(row.header))
    except FitplugError as error:
        return row._replace(problem=str(error))


def _converted(reference: str, candidate: "Candidate", header: "Header", question: _Question, say: Say) -> "list[Row]":
    from fitplug.conversion.convert import convert, customary, quantised
    from fitplug.conversion.stored import stored_as
    from fitplug.repository.advice import AS_IT_IS, Row

    as_it_is = Row(reference, stored_as(header), candidate, header.n_bytes, header, None, AS_IT_IS)
    try:
        converted = convert(header)
    except FitplugError as error:
        return [as_it_is._replace(problem=str(error))]
    rows = [as_it_is]
    for quant in customary(converted):
        say(f"planning {quant}")
        made = quantised(converted, quant)
        way = header.n_bytes + converted.n_bytes
        row = Row(f"{reference}:{quant}", quant, candidate, made.n_bytes, made, None, quant=quant, on_the_way=way)
        rows.append(_planned(row, question))
    return rows


def _reference(repository: str, candidate: "Candidate", models: "Sequence[Candidate]") -> str:
    """The shortest way to name one candidate."""
    if len(models) == 1:
        return repository
    same = sum(other.label.lower() == candidate.label.lower() for other in models)
    return f"{repository}:{candidate.label if candidate.label and same == 1 else candidate.entries[0].path}"


def _disk(source: "Source", folder: str | None) -> tuple[str, int | None]:
    """Where a download would go, and what is free there; nothing is made for the sake of looking."""
    import shutil
    from pathlib import Path

    where = folder or (source.download_folder() if source.download_folder is not None else "")
    if not where:
        return "", None
    path = Path(where).expanduser().absolute()
    for place in (path, *path.parents):
        try:
            return str(path), shutil.disk_usage(place).free
        except OSError:
            continue
    return str(path), None
