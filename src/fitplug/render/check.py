"""The page of `fitplug check`, and the same as JSON."""

from collections.abc import Sequence
from typing import Any

from fitplug.planner.records import Goal
from fitplug.render.auto import place_words, range_words
from fitplug.render.page import Block, Line, Points, Shell, Table, Title, write
from fitplug.render.text import one_line, shortened
from fitplug.repository.advice import AS_IT_IS, Advice, Row, best_of
from fitplug.repository.grouping import Role
from fitplug.repository.summary import Checked
from fitplug.units import format_bytes, format_tokens

_PLACES = {"gpu": "fully", "experts": "experts on the CPU", "layers": "layers on the CPU", "host": "on the CPU", "none": "no"}
_ROLES = {Role.PROJECTOR: "projector", Role.DRAFT: "draft model", Role.IMATRIX: "importance matrix", Role.ADAPTER: "adapter",
          Role.PIECES: "in pieces: join them with cat"}  # fmt: skip
_MARK = "→ "
_SLIGHT = 4096
"""Bytes that nobody misses: the names that an importance matrix leaves in a file."""


def show(checked: Sequence[Checked], goal: Goal, notes: Sequence[str], words: Sequence[str]) -> None:
    """Write it."""
    write(page(checked, goal, notes, words))


def page(checked: Sequence[Checked], goal: Goal, notes: Sequence[str], words: Sequence[str]) -> Sequence[Block]:
    """Each repository's models, the one to take, and what to type next.

    Args:
        checked: the repositories.
        goal: what the recommendation is made for.
        notes: what else went wrong.
        words: options to repeat in the command that is shown.
    """
    blocks: list[Block] = []
    for one in checked:
        blocks += _repository(one, one.advice(goal))
    best = _best(checked, goal)
    if len(checked) > 1 and best is not None:
        blocks.append(Line(f"of all: {one_line(best.row.reference)}, {best.row.label}", "good"))
    if best is not None:
        blocks.append(Shell("next", _commands(best.row, words)))
        blocks += _with_projector(next(one for one in checked if best.row in one.rows), best.row, words)
    if notes:
        blocks.append(Points("notes", [one_line(note) for note in notes]))
    return blocks


def _best(checked: Sequence[Checked], goal: Goal) -> Advice | None:
    return best_of([advice for one in checked for advice in [one.advice(goal)] if advice is not None])


def _repository(one: Checked, advice: Advice | None) -> list[Block]:
    considered = [row for row in one.rows if row.plan is not None]
    n = sum(row.fits for row in considered)
    revision = shortened(one.listing.revision, 12)
    blocks: list[Block] = [
        Title(one_line(one.repository), [f"revision {revision}"] if revision else []),
        Line(
            f"{n} of {len(considered)} fit" if n else "none fits" if considered else "no plan for any", "good" if n else "bad"
        ),
    ]
    if any(row.quant for row in one.rows):
        kinds = ", ".join(dict.fromkeys(one_line(row.label) for row in one.rows if _is_stored(row)))
        blocks.append(Line(f"{kinds}; in the other rows what llama.cpp's own tools would make of them{_give(one)}", "quiet"))
    blocks.append(_table(one.rows, advice))
    if advice is not None:
        blocks.append(Line(f"take {_shown(advice.row, one.rows)}: {one_line(advice.reason)}", "good"))
    if one.others:
        rows = [(shortened(c.name, 60), _ROLES[c.role], c.label, format_bytes(c.n_bytes)) for c in one.others]
        blocks.append(Table("beside the models", ("file", "what", "quant", ">size"), rows))
    notes = _notes(one, advice)
    return [*blocks, Points("notes", notes)] if notes else blocks


def _give(one: Checked) -> str:
    """How far the sizes may be off, where the vocabulary is not read for them."""
    from fitplug.conversion.sizes import size_of

    found = [size_of(row.header) for row in one.rows if row.quant and row.header is not None]
    most = max((size.high - size.low for size in found), default=0) // 2
    return f", give or take {format_bytes(most)} of vocabulary" if most > _SLIGHT else ""


def _table(rows: Sequence[Row], advice: Advice | None) -> Table:
    columns = ("quant", ">size", ">bits", "quality", "fits", ">context", ">tokens/s")
    chosen = next((i for i, row in enumerate(rows) if advice is not None and row is advice.row), None)
    cells = [_row(row, (_MARK if i == chosen else "") + _shown(row, rows)) for i, row in enumerate(rows)]
    return Table("", columns, cells, chosen)


def _shown(row: Row, rows: Sequence[Row]) -> str:
    """What a row is called: its quant, and where others have the same one the file."""
    same = sum(other.label == row.label for other in rows) > 1
    return shortened(row.candidate.name if same else _short_label(row), 44)


def _is_stored(row: Row) -> bool:
    """Whether it is what lies there, for other programs."""
    return row.problem == AS_IT_IS


def _short_label(row: Row) -> str:
    """That a row is safetensors, and how they are stored, the line above the table says."""
    return row.label.partition(" safetensors")[0] if _is_stored(row) else row.label


def _row(row: Row, name: str) -> tuple[str, ...]:
    cells = name, format_bytes(row.n_bytes), f"{row.bits:.2f}" if row.bits else "", row.quality
    if row.plan is None:
        return *cells, "" if _is_stored(row) else "unknown", "", ""
    if not row.fits:
        return *cells, "no", "", ""
    speed = row.plan.speed.generation if row.plan.speed else None
    written = range_words(speed).replace(" to ", "-") if speed else ""
    return *cells, _place(row), format_tokens(row.n_ctx), written


def _place(row: Row) -> str:
    assert row.plan is not None  # noqa: S101 - only rows that fit come here
    if row.place != "layers":
        return _PLACES[row.place]
    return place_words(row.plan).split(" on ")[0].replace(" layers", "") + " layers on the GPU"


def _notes(one: Checked, advice: Advice | None) -> list[str]:
    notes = [f"{row.label}: {row.problem}" for row in one.rows if row.problem and not _is_stored(row)]
    notes += [f"{c.name}: {c.missing[0]} is missing" for c in one.others if c.missing]
    if advice is not None and one.disk_words(advice.row):
        notes.append(one.disk_words(advice.row))
    elif any(one.disk_words(row) for row in one.rows):
        few = [row.label for row in one.rows if one.disk_words(row)]
        notes.append(f"too large for the disk of {one.folder}: {', '.join(few[:6])}")
    if any(c.role == Role.PIECES for c in one.others):
        notes.append("files in pieces (.part1of2) are one file once they are joined; only then they can be read")
    notes += one.listing.notes
    return [one_line(note) for note in notes]


def _commands(row: Row, words: Sequence[str]) -> list[tuple[str, ...]]:
    if not row.quant:
        return [("fitplug", "download", row.reference), ("fitplug", "auto", row.reference, *words)]
    folder = row.reference.split(":")[1].partition("@")[0].rpartition("/")[2]  # the file will hold its name
    weights = folder if row.candidate.name == "." else f"{folder}/{row.candidate.name}"
    return [
        ("fitplug", "auto", row.reference, *words),
        ("fitplug", "download", row.reference, "--to", folder),
        ("python", "convert_hf_to_gguf.py", weights, "--outfile", "model-f16.gguf"),
        ("llama-quantize", "model-f16.gguf", f"model-{row.quant}.gguf", row.quant),
    ]


def _with_projector(one: Checked, row: Row, words: Sequence[str]) -> list[Block]:
    projector = one.projector(row)
    if projector is None:
        return []
    beside = f"{one.repository}:{projector.entries[0].path}"
    return [Shell("or, to give it pictures or sound", [("fitplug", "auto", row.reference, "--mmproj", beside, *words)])]


def checked_json(checked: Sequence[Checked], goal: Goal, notes: Sequence[str]) -> dict[str, Any]:
    """The same for scripts: every file of every repository in one list, the first repository's name on top."""
    best = _best(checked, goal)
    return {
        "fits": any(row.fits for one in checked for row in one.rows),
        "repository": checked[0].repository,
        "revision": checked[0].listing.revision,
        "recommended": _advice_json(best),
        "files": [_row_json(row, one) for one in checked for row in one.rows],
        "repositories": [
            {
                "repository": one.repository,
                "revision": one.listing.revision,
                "recommended": _advice_json(one.advice(goal)),
                "others": [{"path": c.name, "role": str(c.role), "label": c.label, "n_bytes": c.n_bytes} for c in one.others],
                "disk": {"folder": one.folder, "free_bytes": one.free_bytes, "copies": one.copies},
                "notes": list(one.listing.notes),
            }
            for one in checked
        ],
        "notes": list(notes),
    }


def _advice_json(advice: Advice | None) -> dict[str, Any] | None:
    if advice is None:
        return None
    row = advice.row
    commands = [list(words) for words in _commands(row, ())]
    return {"reference": row.reference, "label": row.label, "reason": advice.reason, "commands": commands}


def _range_json(row: Row) -> dict[str, int]:
    """The least and the most that a file will have which is not there yet."""
    if not row.quant or row.header is None:
        return {}
    from fitplug.conversion.sizes import size_of

    size = size_of(row.header)
    return {"low_bytes": size.low, "high_bytes": size.high}


def _row_json(row: Row, one: Checked) -> dict[str, Any]:
    from fitplug.render.json import memory_json, settings_json, speed_json

    shown: dict[str, Any] = {
        "repository": one.repository,
        "label": row.label,
        "reference": row.reference,
        "paths": [entry.path for entry in row.candidate.entries],
        "format": row.candidate.format,
        "quant": row.quant or None,
        "n_bytes": row.n_bytes,
        **_range_json(row),
        "bits_per_weight": round(row.bits, 4) or None,
        "quality": row.quality or None,
        "fits": row.fits,
        "place": row.place,
        "n_ctx": row.n_ctx or None,
        "fits_disk": not one.disk_words(row),
        "problem": row.problem or None,
    }
    if row.plan is not None:
        plan = row.plan
        shown |= {
            "settings": settings_json(plan.estimate, plan.machine, plan.model),
            "memory": memory_json(plan.estimate, plan.machine),
            "speed": speed_json(plan.speed),
        }
    return shown
