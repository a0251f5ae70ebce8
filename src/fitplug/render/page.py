"""A page: what a command has to say, before it is known whether a terminal or a pipe will show it.

All text in a page is already safe for a terminal (`render.text`); writers only lay it out.
"""

import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

Tone: TypeAlias = Literal["good", "bad", "plain", "quiet"]


class Title(NamedTuple):
    """What the page is about, and what is worth knowing of it at once."""

    text: str
    details: Sequence[str] = ()


class Line(NamedTuple):
    """One sentence."""

    text: str
    tone: Tone = "plain"


class Share(NamedTuple):
    """A part of a bar: "weights", "context", "compute", "overhead", "in use", "free", "missing"."""

    name: str
    n_bytes: int


class Bar(NamedTuple):
    """One device's memory."""

    label: str
    name: str
    shares: Sequence[Share]
    result: str
    """What it comes to: "14.4 GiB left"."""
    facts: Sequence[str] = ()
    """Besides what each share says of itself."""


class Table(NamedTuple):
    """Columns; those whose heading starts with ">" are aligned to the right, and the last may wrap."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen: int | None = None
    """The row that stands out."""


class Bars(NamedTuple):
    """Devices below each other; `table` says the same where there are no bars."""

    bars: Sequence[Bar]
    table: Table


class Pairs(NamedTuple):
    """Names and values."""

    heading: str
    pairs: Sequence[tuple[str, str]]


class Points(NamedTuple):
    """Sentences, each with a point before it."""

    heading: str
    sentences: Sequence[str]


class Shell(NamedTuple):
    """Commands to copy: each is broken only where a shell lets it be, and nothing stands before it."""

    heading: str
    commands: Sequence[Sequence[str]]


class Verbatim(NamedTuple):
    """A file's text as it is."""

    heading: str
    text: str


Block: TypeAlias = Title | Line | Bars | Table | Pairs | Points | Shell | Verbatim


def without_empty_columns(block: Table) -> Table:
    """The table without columns that say nothing in any row."""
    keep = [i for i in range(len(block.columns)) if any(row[i] for row in block.rows)]
    return block._replace(columns=[block.columns[i] for i in keep], rows=[[row[i] for i in keep] for row in block.rows])


def write(blocks: Sequence[Block]) -> None:
    """Show a page on standard output: in a terminal with rich, else as plain text."""
    if in_terminal():
        from fitplug.render import terminal

        terminal.write(blocks)
    else:
        from fitplug.render import plain

        print(plain.text(blocks))


def in_terminal() -> bool:
    """Whether somebody is looking."""
    import os

    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
