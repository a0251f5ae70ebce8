"""A page as plain text, aligned: for pipes, files and screen readers."""

from collections.abc import Sequence

from fitplug.quoting import join_sh
from fitplug.render.page import Bars, Block, Line, Pairs, Points, Shell, Table, Title, Verbatim, without_empty_columns


def text(blocks: Sequence[Block]) -> str:
    """The page, blocks with a heading set apart by an empty line."""
    shown = [(block, _block(block)) for block in blocks]
    parts: list[str] = []
    before: Block | None = None
    for block, lines in shown:
        if not lines:
            continue
        if before is not None and not isinstance(before if isinstance(block, Line) else block, (Title, Line)):
            parts.append("")
        parts += lines
        before = block
    return "\n".join(parts)


def _block(block: Block) -> list[str]:
    match block:
        case Title():
            return [", ".join((block.text, *block.details))]
        case Line():
            return [block.text]
        case Bars():
            return _block(block.table)
        case Table():
            block = without_empty_columns(block)
            return [*_heading(block.heading), *_table(block.columns, block.rows)]
        case Pairs():
            width = max((len(name) for name, _ in block.pairs), default=0)
            return [*_heading(block.heading), *(f"  {name.ljust(width)}  {value}" for name, value in block.pairs)]
        case Points():
            return [*_heading(block.heading), *(f"  {line}" for line in block.sentences)] if block.sentences else []
        case Shell():
            return [*_heading(block.heading), *map(join_sh, block.commands)] if block.commands else []
        case Verbatim():
            return [*_heading(block.heading), *block.text.splitlines()]


def _heading(text: str) -> list[str]:
    return [f"{text}:"] if text else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    titles = [column.removeprefix(">") for column in columns]
    lines = [titles, *rows] if any(titles) else list(rows)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)] if lines else []
    return [
        "  ".join(
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]
