"""The page of `fitplug verify`, and the comparison that it shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fitplug.memory.records import HOST, Estimate, Kind
from fitplug.model.records import Model
from fitplug.render.page import Block, Line, Table, write
from fitplug.render.text import one_line
from fitplug.render.words import KIND_NAMES, title

ALL_HOST = "Host"
"""What llama-fit-params calls all of the host's memory."""
_NOT_HOST = ("CPU_REPACK", "AMX", "CPU_KLEIDIAI")


class Compared(NamedTuple):
    """One buffer of one kind: what was predicted, and what the engine says."""

    buffer: str
    kind: Kind
    predicted: int
    measured: int
    agrees: bool


def compare(estimate: Estimate, measured: Mapping[str, Mapping[str, int]], *, precision: int = 1) -> list[Compared]:
    """Every buffer that either side names; overhead, which no engine counts, is left out.

    Args:
        estimate: the prediction.
        measured: the engine's answer, buffer type → kind → bytes.
        precision: how far apart, in bytes, the engine's way of printing lets equal figures look.
    """
    predicted: Counter[tuple[str, Kind]] = Counter()
    for part in estimate.parts:
        if part.kind != Kind.OVERHEAD:
            predicted[part.buffer or part.device, part.kind] += part.n_bytes
    said = {
        (buffer, Kind(kind)): n_bytes
        for buffer, kinds in measured.items()
        for kind, n_bytes in kinds.items()
        if kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE)
    }
    if any(buffer == ALL_HOST for buffer, _ in said):
        predicted = _host_together(predicted)
    kinds = list(Kind)
    keys = sorted({*predicted, *said}, key=lambda key: (key[0].startswith(HOST), key[0], kinds.index(key[1])))
    rows = [(buffer, kind, predicted[buffer, kind], said.get((buffer, kind), 0)) for buffer, kind in keys]
    return [Compared(*row, abs(row[2] - row[3]) < max(1, precision)) for row in rows if row[2] or row[3]]


def _host_together(predicted: Counter[tuple[str, Kind]]) -> Counter[tuple[str, Kind]]:
    """As common_fit_print (common/fit.cpp) has it: host buffers in one row, repacked weights in none: they are "not host"."""
    found: Counter[tuple[str, Kind]] = Counter()
    for (buffer, kind), n_bytes in predicted.items():
        if not buffer.startswith(_NOT_HOST):
            found[ALL_HOST if buffer == HOST or buffer.endswith("_Host") else buffer, kind] += n_bytes
    return found


def show(model: Model, rows: Sequence[Compared], engine: str, *, agrees: bool) -> None:
    """Write it."""
    write(page(model, rows, engine, agrees=agrees))


def page(model: Model, rows: Sequence[Compared], engine: str, *, agrees: bool) -> Sequence[Block]:
    """The verdict, then buffer by buffer."""
    wrong = sum(not row.agrees for row in rows)
    said = f"{one_line(engine)} says the same" if agrees else f"{one_line(engine)} differs in {wrong} of {len(rows)} buffers"
    table = Table("buffers", ("buffer", "part", ">predicted", ">measured", ">difference"), [
        (one_line(row.buffer), KIND_NAMES[row.kind], f"{row.predicted:,}", f"{row.measured:,}",
         f"{row.predicted - row.measured:+,}" if row.predicted != row.measured else "")
        for row in rows
    ])  # fmt: skip
    return [title(model), Line(said, "good" if agrees else "bad"), table]


def comparison_json(rows: Sequence[Compared], engine: str, version: str, *, agrees: bool) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "agrees": agrees,
        "engine": {"name": engine, "version": version},
        "buffers": [
            {"buffer": row.buffer, "kind": str(row.kind), "predicted_bytes": row.predicted, "measured_bytes": row.measured,
             "agrees": row.agrees}
            for row in rows
        ],
    }  # fmt: skip
