"""A page in a terminal, with rich: the only module that imports it."""

import os
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from fitplug.quoting import quote_powershell, quote_sh
from fitplug.render.page import (
    Bar,
    Bars,
    Block,
    Line,
    Pairs,
    Points,
    Shell,
    Table,
    Title,
    Tone,
    Verbatim,
    without_empty_columns,
)
from fitplug.units import format_bytes

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
_SAID = ("free", "missing")
"""Shares that a bar's result already tells."""
_MAX_WIDTH = 100
_MAX_BAR = 72
_MIN_COLUMN = 24
"""A table's first and last column may be wrapped down to so many characters."""


def write(blocks: Sequence[Block], console: Console | None = None) -> None:
    """Show the page."""
    console = console or Console(highlight=False)
    width = min(console.width, _MAX_WIDTH)
    before: Block | None = None
    for block in blocks:
        if before is not None and not isinstance(before if isinstance(block, Line) else block, (Title, Line)):
            console.print()
        _show(console, block, width)
        before = block


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
            block = without_empty_columns(block)
            _heading(console, block.heading)
            console.print(_grid(block) if _has_room(block, width) else _stack(block, width), width=width)
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


def _has_room(block: Table, width: int) -> bool:
    """Whether all columns but the first and the last can stand unbroken."""
    widths = [max(map(len, cells)) for cells in zip(*_cells(block), strict=True)]
    return sum(widths[1:-1]) + 3 * len(widths) + min(widths[0], _MIN_COLUMN) + min(widths[-1], _MIN_COLUMN) <= width


def _cells(block: Table) -> list[Sequence[str]]:
    return [[column.removeprefix(">") for column in block.columns], *block.rows]


def _grid(block: Table) -> RenderableType:
    titled = any(column.strip(">") for column in block.columns)
    grid = Grid(box=box.SIMPLE_HEAD if titled else None, show_header=titled, show_edge=False, pad_edge=False,
                header_style="bright_black", border_style="bright_black", padding=(0, 1))  # fmt: skip
    for i, title in enumerate(block.columns):
        justify: Literal["left", "right"] = "right" if title.startswith(">") else "left"
        grid.add_column(title.removeprefix(">"), justify=justify, no_wrap=0 < i < len(block.columns) - 1, overflow="fold")
    for i, row in enumerate(block.rows):
        grid.add_row(*map(Text, row), style="bold green" if i == block.chosen else None)
    return grid


def _stack(block: Table, width: int) -> RenderableType:
    """The same for a narrow terminal: under each row's first cell the others, each after its heading."""
    lines: list[Text] = []
    for i, row in enumerate(block.rows):
        lines.append(Text(row[0], style="bold green" if i == block.chosen else "bold"))
        cells = [
            Text.assemble((f"{title.removeprefix('>')} ", "bright_black"), cell)
            for title, cell in zip(block.columns[1:], row[1:], strict=True)
            if cell
        ]
        lines += [Text.assemble("  ", line) for line in _packed(cells, width - 2)]
    return Text("\n").join(lines)


def _packed(pieces: Sequence[Text], width: int) -> list[Text]:
    """Pieces beside each other, as many on a line as there is room for."""
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + 2 + piece.cell_len <= width:
            lines[-1] = Text("  ").join((lines[-1], piece))
        else:
            lines.append(piece)
    return lines


def _bars(console: Console, block: Bars, width: int) -> None:
    cells = min(width, _MAX_BAR)
    colour = not console.no_color and console.color_system is not None
    for i, bar in enumerate(block.bars):
        if i:
            console.print()
        console.print(_bar_head(bar, cells), width=width)
        console.print(_bar(bar, cells, colour=colour), width=width)
        console.print(_bar_legend(bar, width, colour=colour))


def _bar_head(bar: Bar, cells: int) -> Text:
    """The device on the left, what it comes to on the right."""
    head = Text(bar.label, style="bold")
    if bar.name:
        head.append(f"  {bar.name}", style="not bold")
    missing = any(share.name == "missing" for share in bar.shares)
    result = Text(bar.result, style="bold red" if missing else "")
    gap = cells - head.cell_len - result.cell_len
    return Text.assemble(head, " " * gap if gap > 1 else "\n", result)


def _bar_legend(bar: Bar, width: int, *, colour: bool) -> Text:
    """Each share with its own sign."""
    words = [
        Text.assemble(
            (_glyph(share.name, colour=colour), _LOOK[share.name][1]),
            (f" {share.name} {format_bytes(share.n_bytes)}", "bright_black"),
        )
        for share in bar.shares
        if share.n_bytes and share.name not in _SAID
    ]
    words += [Text(fact, style="bright_black") for fact in bar.facts]
    return Text("\n").join(_packed(words, width))


def _bar(bar: Bar, cells: int, *, colour: bool) -> Text:
    """All shares in proportion; what is missing covers the end of what is needed."""
    shares = [share for share in bar.shares if share.name != "missing"]
    counts = apportion([share.n_bytes for share in shares], cells)
    drawn = [(share.name, i) for share, count in zip(shares, counts, strict=True) for i in range(count)]
    missing = sum(share.n_bytes for share in bar.shares if share.name == "missing")
    if missing:
        n = max(1, apportion([sum(share.n_bytes for share in shares) - missing, missing], len(drawn))[1])
        drawn[-n:] = [("missing", i) for i in range(n)]
    shown = Text(no_wrap=True)
    for name, _ in drawn:
        shown.append(_glyph(name, colour=colour), style=_LOOK[name][1])
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
