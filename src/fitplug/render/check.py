"""The page of `fitplug check`, and the same as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fitplug.extension import Listing
from fitplug.planner.records import Plan
from fitplug.render.auto import place_words, range_words
from fitplug.render.page import Block, Line, Points, Table, Title, write
from fitplug.render.text import one_line, shortened
from fitplug.units import format_bytes, format_tokens


class Checked(NamedTuple):
    """One model of a repository, and its plan or why there is none."""

    label: str
    n_bytes: int
    plan: Plan | None
    problem: str = ""


def show(repository: str, listing: Listing, rows: Sequence[Checked], *, fits: bool) -> None:
    """Write it."""
    write(page(repository, listing, rows, fits=fits))


def page(repository: str, listing: Listing, rows: Sequence[Checked], *, fits: bool) -> Sequence[Block]:
    """How many fit, then each with where it would run, and what could not be read."""
    n = sum(row.plan is not None and row.plan.fits for row in rows)
    problems = [one_line(f"{row.label}: {row.problem}") for row in rows if row.plan is None]
    blocks: list[Block] = [
        Title(one_line(repository), [f"revision {shortened(listing.revision, 12)}"] if listing.revision else []),
        Line(f"{n} of {len(rows)} fit" if fits else "none fits", "good" if fits else "bad"),
        Table("", ("file", ">size", "fits", ">context", ">tokens/s"), [_row(row, row.plan) for row in rows if row.plan]),
    ]
    notes = [*problems, *map(one_line, listing.notes)]
    return [*blocks, Points("notes", notes)] if notes else blocks


def _row(row: Checked, plan: Plan) -> tuple[str, ...]:
    size = shortened(row.label, 48), format_bytes(row.n_bytes)
    if not plan.fits:
        return *size, "no", "", ""
    speed = plan.speed.generation if plan.speed else None
    words = range_words(speed).replace(" to ", "-") if speed else ""
    return *size, place_words(plan), format_tokens(plan.estimate.resolved.n_ctx), words


def checked_json(repository: str, revision: str, rows: Sequence[Checked], *, fits: bool) -> dict[str, Any]:
    """The same for scripts."""
    from fitplug.render.json import memory_json, settings_json, speed_json

    return {
        "fits": fits,
        "repository": repository,
        "revision": revision,
        "files": [
            {"label": row.label, "n_bytes": row.n_bytes, "fits": bool(row.plan and row.plan.fits),
             "problem": row.problem or None}
            | ({} if row.plan is None else {
                "settings": settings_json(row.plan.estimate, row.plan.machine, row.plan.model),
                "memory": memory_json(row.plan.estimate, row.plan.machine),
                "speed": speed_json(row.plan.speed),
            })
            for row in rows
        ],
    }  # fmt: skip
