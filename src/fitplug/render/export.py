"""The page of `fitplug export`."""

from collections.abc import Sequence

from fitplug.extension import Export
from fitplug.planner.records import Plan
from fitplug.render.auto import command_blocks, verdict
from fitplug.render.page import Block, Pairs, Points, Verbatim, write
from fitplug.render.text import one_line


def show(plan: Plan, export: Export, done: Sequence[str]) -> None:
    """Write it."""
    write(page(plan, export, done))


def page(plan: Plan, export: Export, done: Sequence[str]) -> Sequence[Block]:
    """The verdict, then the files as they are, the environment and the commands."""
    blocks: list[Block] = [verdict(plan)]
    if not plan.fits:
        return [*blocks, Points("what would help", list(map(one_line, plan.fixes)))]
    if done:
        blocks.append(Points("done", list(map(one_line, done))))
    else:
        blocks += [Verbatim(one_line(file.path), _safe(file.text)) for file in export.files]
    if export.env:
        blocks.append(Pairs("environment", [(one_line(name), one_line(value)) for name, value in export.env.items()]))
    blocks += command_blocks(export)
    if export.notes:
        blocks.append(Points("notes", list(map(one_line, export.notes))))
    return blocks


def _safe(text: str) -> str:
    return "\n".join(map(one_line, text.expandtabs(4).split("\n")))
