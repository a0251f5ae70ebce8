"""A page in a terminal, with rich: the only module that imports it."""

import os
from collections.abc import Sequence
from typing import TypeVar

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from fitplug.quoting import quote_powershell, quote_sh
from fitplug.render.page import Bar, Bars, Block, Line, Pairs, Points, Shell, Table, Title, Tone, Verbatim

_TONES: dict[Tone, tuple[str, str]] = {
    "good": ("✓ ", "bold green"),
    "bad": ("✗ ", "bold red"),
    "plain": ("", ""),
    "quiet": ("", "bright_black"),
}
_LOOK = {
    "in use": ("/", "bright_black"),
    "weights": ("█", "blue"),
    "context": ("▓", "cyan"),
    "compute": ("▒", "magenta"),
    "overhead": ("░", "yellow"),
    "free": ("·", "bright_black"),
    "missing": ("!", "bold red"),
}
"""How each part of a bar looks; the characters differ, so that nobody needs the colours."""
_MAX_WIDTH = 100
_MAX_BAR = 72

T = TypeVar("T")


def write(blocks: Sequence[Block], console: Console | None = None) -> None:
    """Show the page."""
    console = console or Console(highlight=False)
    width = min(console.width, _MAX_WIDTH)
    first = True
    for block in blocks:
        if not first and not isinstance(block, (Title, Line)):
            console.print()
        first = False
        _show(console, block, width)


def _show(console: Console, block: Block, width: int) -> None:
    match block:
        case Title():
            console.print(_title(block), width=width)
        case Line():
            mark, style = _TONES[block.tone]
            console.print(Text(mark + block.text, style=style), width=width)
        case Bars():
            _bars(console, block, width)
        case Table():
            _heading(console, block.heading)
            console.print(_grid(block, width), width=width)
        case Pairs():
            _heading(console, block.heading)
            console.print(_pairs(block), width=width)
        case Points():
            _heading(console, block.heading)
            for sentence in block.sentences:
                console.print(_hanging(sentence), width=width)
        case Shell():
            _heading(console, block.heading)
            for words in block.commands:
                console.print(Text(broken(words, width), style="green"), soft_wrap=True)
        case Verbatim():
            _heading(console, block.heading)
            console.print(Text(block.text.rstrip("\n")), soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    if text:
        console.print(Text(text, style="bold"))


def _title(block: Title) -> Text:
    shown = Text(block.text, style="bold")
    for detail in block.details:
        shown.append("  ·  ", style="bright_black")
        shown.append(detail, style="not bold")
    return shown


def _hanging(sentence: str) -> RenderableType:
    grid = Grid.grid(padding=0)
    grid.add_column(width=2)
    grid.add_column(overflow="fold")
    grid.add_row(Text("•", style="bright_black"), Text(sentence))
    return grid


def _pairs(block: Pairs) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    for name, value in block.pairs:
        grid.add_row(Text(name), Text(value))
    return grid


def _grid(block: Table, width: int) -> RenderableType:
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bright_black", padding=(0, 1))
    for title in block.columns:
        right = title.startswith(">")
        grid.add_column(
            title.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=right and width >= 60,
            overflow="fold",
        )
    for row in block.rows:
        grid.add_row(*map(Text, row))
    return grid


def _bars(console: Console, block: Bars, width: int) -> None:
    cells = min(width, _MAX_BAR)
    for bar in block.bars:
        head = Text(bar.label, style="bold")
        if bar.name:
            head.append(f"  {bar.name}", style="not bold")
        console.print(head, width=width)
        console.print(_bar(bar, cells, colour=not console.no_color and console.color_system is not None))
        console.print(Text(bar.summary, style="bright_black"), width=width)
    names = [name for name in _LOOK if any(share.name == name and share.n_bytes for bar in block.bars for share in bar.shares)]
    legend = Text("  ").join(
        Text.assemble((_glyph(name, colour=not console.no_color) * 2, _LOOK[name][1]), " ", (name, "bright_black"))
        for name in names
    )
    console.print(Padding(legend, (1, 0, 0, 0)), width=width)


def _bar(bar: Bar, cells: int, *, colour: bool) -> Text:
    shown = Text(no_wrap=True)
    for share, count in zip(bar.shares, apportion([share.n_bytes for share in bar.shares], cells), strict=True):
        shown.append(_glyph(share.name, colour=colour) * count, style=_LOOK[share.name][1])
    return shown


def _glyph(name: str, *, colour: bool) -> str:
    return "█" if colour and name in ("weights", "context", "compute", "overhead", "missing") else _LOOK[name][0]


def apportion(sizes: Sequence[int], cells: int) -> list[int]:
    """Cells of a bar for each size: all cells are given, in proportion, and nothing that is there gets none."""
    total = sum(sizes)
    if total <= 0:
        return [0] * len(sizes)
    counts = [max(1, size * cells // total) if size > 0 else 0 for size in sizes]
    while sum(counts) < cells:
        neediest = max(range(len(sizes)), key=lambda i: sizes[i] * cells / total - counts[i])
        counts[neediest] += 1
    while sum(counts) > cells and max(counts) > 1:
        counts[counts.index(max(counts))] -= 1
    return counts


def broken(words: Sequence[str], width: int) -> str:
    """A command over several lines that a shell reads as one; where no line fits, the terminal wraps it."""
    quote, escape = (quote_powershell, "`") if os.name == "nt" else (quote_sh, "\\")
    lines: list[str] = []
    for piece in _pieces(list(map(quote, words)), words):
        if lines and len(lines[-1]) + 1 + len(piece) <= width - 2:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece if not lines else f"  {piece}")
    return f" {escape}\n".join(lines)


def _pieces(quoted: Sequence[str], words: Sequence[str]) -> list[str]:
    """Each option with its value."""
    pieces: list[str] = []
    for i, word in enumerate(quoted):
        is_value = i > 1 and words[i - 1].startswith("-") and not words[i].startswith("--") and not _is_option(words[i])
        if is_value:
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    return pieces


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit()
