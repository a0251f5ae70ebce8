"""The page of `fitplug auto`."""

from collections.abc import Sequence

from fitplug.extension import Export
from fitplug.planner.layout import SINGLE_COPY
from fitplug.planner.records import Alternative, Plan, Range, Speed
from fitplug.render.numbers import device_rows, n_layers_on_gpu
from fitplug.render.page import Block, Line, Pairs, Points, Shell, Table, write
from fitplug.render.text import one_line
from fitplug.render.words import bars, certainty, file_notes, settings_pairs, title
from fitplug.units import format_bytes, format_tokens


def show(plan: Plan, export: Export) -> None:
    """Write it."""
    write(page(plan, export))


def page(plan: Plan, export: Export) -> Sequence[Block]:
    """The verdict, each device, the settings, the command, why, and what else there is."""
    estimate, machine, model = plan.estimate, plan.machine, plan.model
    pairs = settings_pairs(estimate, machine, model)
    speed = speed_words(plan.speed)
    basis = [f"speed: {plan.speed.basis}"] if plan.speed and speed and plan.speed.basis else []
    notes = [one_line(note) for note in (*estimate.notes, *file_notes(model), *export.notes, *machine.notes, *basis)]
    blocks: list[Block] = [title(model), verdict(plan), bars(estimate, machine)]
    blocks.append(Pairs(pairs.heading, [*pairs.pairs, ("speed", speed)] if speed else pairs.pairs))
    blocks += command_blocks(export) if plan.fits else ()
    blocks.append(
        Points("why" if plan.fits else "what would help", list(map(one_line, plan.reasons if plan.fits else plan.fixes)))
    )
    blocks.append(_alternatives(plan))
    blocks.append(Points("notes", notes))
    blocks.append(Line(certainty(estimate), "quiet"))
    return [block for block in blocks if not _empty(block)]


def verdict(plan: Plan) -> Line:
    """One line: where the model runs and with how much context, or that it does not."""
    rows = [row for row in device_rows(plan.estimate, plan.machine) if row.n_bytes()]
    if not plan.fits:
        short = [f"{format_bytes(-row.left_bytes)} on {row.device}" for row in rows if row.left_bytes < 0]
        reserve = f" with {format_bytes(plan.request.reserve_bytes)} left free on every GPU"
        return Line(f"nothing fits: {' and '.join(short)} missing" if short else f"nothing fits{reserve}", "bad")
    n_ctx = format_tokens(plan.estimate.resolved.n_ctx)
    return Line(f"fits with {n_ctx} tokens of context, {place_words(plan)}", "good")


def place_words(plan: Plan) -> str:
    """Where the model runs."""
    n_layer_all = plan.model.n_layer_all + 1
    on_gpu = n_layers_on_gpu(plan.estimate, plan.machine, plan.model)
    used = [name for name in plan.machine.device_names() if plan.estimate.n_bytes(name)]
    if not used or not on_gpu:
        return "in the host's memory"
    where = used[0] if len(used) == 1 else f"{len(used)} GPUs"
    if on_gpu < n_layer_all:
        return f"{on_gpu} of {n_layer_all} layers on {where}"
    settings = plan.estimate.settings
    if settings.n_cpu_moe or any(each.buffer not in used for each in settings.overrides if each != SINGLE_COPY):
        return f"on {where}, some experts in the host's memory" if plan.model.n_expert else f"mostly on {where}"
    return f"all on {where}"


def speed_words(speed: Speed | None) -> str:
    """Tokens per second, as a range."""
    if speed is None:
        return ""
    parts = [
        f"{range_words(value)} tokens/s {what}"
        for value, what in ((speed.generation, "written"), (speed.prompt, "read"))
        if value is not None
    ]
    return ", ".join(parts)


def range_words(value: Range) -> str:
    """Two figures, or one where they are the same."""
    low, high = (f"{figure:.1f}" if figure < 9.95 else f"{figure:.0f}" for figure in value)
    return low if low == high else f"{low} to {high}"


def command_blocks(export: Export) -> list[Block]:
    """What to run; files are only counted here."""
    commands = [tuple(export.argv)] if export.argv else [tuple(words) for words in export.commands]
    blocks: list[Block] = [Shell("run", commands)] if commands else []
    if export.cannot_express:
        blocks.append(Points("no place there for", [one_line(name) for name in export.cannot_express]))
    return blocks


def _alternatives(plan: Plan) -> Table:
    return Table("or", ("", ">context", "cache", ">tokens/s", "costs"), [_alternative(other) for other in plan.alternatives])


def _alternative(other: Alternative) -> tuple[str, ...]:
    resolved = other.estimate.resolved
    cache = resolved.type_k if resolved.type_k == resolved.type_v else f"{resolved.type_k}/{resolved.type_v}"
    generation = other.speed.generation if other.speed else None
    speed = range_words(generation).replace(" to ", "-") if generation else ""
    return one_line(other.title), format_tokens(resolved.n_ctx), cache, speed, one_line(other.cost)


def _empty(block: Block) -> bool:
    return (isinstance(block, Points) and not block.sentences) or (isinstance(block, Table) and not block.rows)
