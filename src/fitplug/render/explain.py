"""The page of `fitplug explain`."""

from collections.abc import Sequence

from fitplug.machine.records import Machine
from fitplug.memory.records import Estimate, Kind
from fitplug.model.records import Model
from fitplug.render.numbers import device_rows
from fitplug.render.page import Block, Line, Points, Table, write
from fitplug.render.text import one_line
from fitplug.render.words import KIND_NAMES, bars, certainty, file_notes, settings_pairs, title
from fitplug.units import format_bytes


def show(estimate: Estimate, machine: Machine, model: Model, *, fits: bool) -> None:
    """Write it."""
    write(page(estimate, machine, model, fits=fits))


def page(estimate: Estimate, machine: Machine, model: Model, *, fits: bool) -> Sequence[Block]:
    """The verdict, each device, each part, and how sure the figures are."""
    notes = [one_line(note) for note in (*estimate.notes, *file_notes(model), *machine.notes)]
    blocks: list[Block] = [
        title(model),
        verdict(estimate, machine, fits=fits),
        bars(estimate, machine),
        parts_table(estimate, machine),
        settings_pairs(estimate, machine, model),
        Line(certainty(estimate), "quiet"),
    ]
    return [*blocks, Points("notes", notes)] if notes else blocks


def verdict(estimate: Estimate, machine: Machine, *, fits: bool) -> Line:
    """One line: what is left, or what is missing and where."""
    rows = [row for row in device_rows(estimate, machine) if row.n_bytes()]
    if fits:
        tightest = min(rows, key=lambda row: row.left_bytes, default=None)
        left = f": {format_bytes(tightest.left_bytes)} left on {tightest.device}" if tightest else ""
        return Line(f"fits{left}", "good")
    short = [f"{format_bytes(-row.left_bytes)} on {row.device}" for row in rows if row.left_bytes < 0]
    missing = f": {' and '.join(short)} missing" if short else " with that reserve"
    return Line(f"does not fit{missing}", "bad")


def parts_table(estimate: Estimate, machine: Machine) -> Table:
    """Every number with its rule and how it is known, device by device."""
    order = [row.device for row in device_rows(estimate, machine)]
    parts = sorted(estimate.parts, key=lambda part: (order.index(part.device), list(Kind).index(part.kind)))
    rows = [
        (
            part.device,
            KIND_NAMES[part.kind],
            part.buffer or part.device,
            f"{part.n_bytes:,}",
            str(part.basis),
            part.source,
        )
        for part in parts
        if part.n_bytes
    ]
    return Table("every byte", ("device", "part", "buffer", ">bytes", "basis", "by"), [tuple(map(one_line, r)) for r in rows])
