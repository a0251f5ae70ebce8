"""If nothing fits: by how much, and the cheapest things that would help, each of them tried."""

from collections.abc import Iterator
from dataclasses import replace

from fitplug.conversion.quantize import Facts, Shape, tensor_types
from fitplug.errors import FitplugError
from fitplug.machine.records import Machine
from fitplug.memory.sizes import alloc_size
from fitplug.model.records import Model
from fitplug.planner.choose import Choice, choose, is_hopeless, make_grid
from fitplug.planner.climb import Grid
from fitplug.planner.concessions import Changes
from fitplug.planner.records import Request
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial, Trials
from fitplug.units import format_bytes, format_tokens

_LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ2_XXS")
"""Quants that are commonly offered, the best first."""
_LEAST_CTX = 2048
_MAX_FIXES = 4


def find_fixes(choice: Choice, search: Search, grid: Grid, request: Request) -> tuple[str, ...]:
    """What is missing, and what would help, the cheapest first."""
    here = () if is_hopeless(search) else _with_this_file(choice, search, grid, request)
    ways = (
        *here,
        *_smaller_quant(search, request),
        *_more_memory(choice),
    )
    return (*_missing(choice.trial, search.machine, request), *ways[:_MAX_FIXES])


def _with_this_file(choice: Choice, search: Search, grid: Grid, request: Request) -> Iterator[str]:
    """Other settings for the same weights."""
    yield from _given_flags(search, request)
    yield from _without_companions(search, request)
    yield from _shorter(choice, search, grid, request)
    yield from _small_cache(search, grid, request)


def _missing(trial: Trial, machine: Machine, request: Request) -> Iterator[str]:
    for name, n in zip(machine.device_names(), trial.spare.devices, strict=True):
        if n < 0:
            kept = f" to leave {format_bytes(request.reserve_bytes)} free there" if request.reserve_bytes else ""
            yield f"{format_bytes(-n)} are missing on {name}{kept}."
    if trial.spare.host < 0:
        yield (
            f"{format_bytes(-trial.spare.host)} of the host's memory are missing: "
            f"{format_bytes(machine.host.available_bytes)} are available. It would run from the disk, at a crawl."
        )


def _given_flags(search: Search, request: Request) -> Iterator[str]:
    """The user's own placement may be what does not fit."""
    placing = request.given & {
        "n_gpu_layers", "tensor_split", "split_mode", "n_cpu_moe", "n_cpu_ffn", "overrides", "offload_kqv", "devices",
    }  # fmt: skip
    if not placing:
        return
    defaults = type(search.settings)()
    changes = {name: getattr(defaults, name) for name in placing}
    free = Search(search.model, search.trials, replace(search.settings, **changes), request.given - placing)
    found = choose(free, make_grid(search.model, free.settings, request), replace(request, given=request.given - placing))
    if found is not None and found.trial.fits:
        n_ctx, kept = format_tokens(found.trial.settings.n_ctx), format_bytes(found.trial.on_host)
        yield f"Let fitplug place the layers: without your own placement {n_ctx} tokens fit, with {kept} in the host's memory."


def _without_companions(search: Search, request: Request) -> Iterator[str]:
    """What runs beside the model may be what does not fit."""
    settings = search.settings
    if settings.model_draft is not None:
        yield from _retried(search, request, {"model_draft": None, "spec_type": None}, "Leave out the draft model (-md)")
    if settings.mmproj is not None and settings.mmproj_offload:
        words = "Let the projector work on the CPU (--no-mmproj-offload)"
        yield from _retried(search, request, {"mmproj_offload": False}, words)


def _retried(search: Search, request: Request, changes: Changes, words: str) -> Iterator[str]:
    other = search.variant(quick=True, fresh=True, **changes)
    found = choose(other, make_grid(search.model, other.settings, request), request)
    if found is not None and found.trial.fits:
        yield f"{words}: then {format_tokens(found.trial.settings.n_ctx)} tokens fit."


def _shorter(choice: Choice, search: Search, grid: Grid, request: Request) -> Iterator[str]:
    """Less context than was wanted."""
    n_slots = search.settings.n_seq_max
    least = min(_LEAST_CTX * n_slots, grid.low)
    if least == grid.low and "n_ctx" not in request.given:
        return
    below = Grid(grid.step, least, max(least, grid.low - 1))
    if request.given & {"n_gpu_layers", "tensor_split", "split_mode"}:
        trial = search.variant(quick=True).stretch(choice.trial.settings, below)
    else:
        free = replace(request, given=request.given - {"n_ctx"})
        found = choose(search.variant(quick=True), below, free)
        trial = found.trial if found is not None else None
    if trial is not None and trial.fits:
        yield f"A shorter context: {format_tokens(trial.settings.n_ctx)} tokens fit (-c {trial.settings.n_ctx})."


def _small_cache(search: Search, grid: Grid, request: Request) -> Iterator[str]:
    """The same context in fewer bits."""
    if request.given & {"type_k", "type_v"} or search.settings.flash_attn == "off":
        return
    for kind, loss in (("q8_0", "hardly any loss"), ("q4_0", "some loss of quality")):
        found = choose(search.variant(quick=True, type_k=kind, type_v=kind), grid, request)
        if found is not None and found.trial.fits:
            n_ctx = format_tokens(found.trial.settings.n_ctx)
            yield f"A {kind} cache (-ctk {kind} -ctv {kind}, {loss}): then {n_ctx} tokens fit."
            return


def _smaller_quant(search: Search, request: Request) -> Iterator[str]:
    """The best quant of the same model that fits as asked; if none does, with a short context and nothing beside it."""
    alone = search.variant(quick=True, fresh=True, model_draft=None, spec_type=None, mmproj_offload=False)
    least = replace(request, given=request.given - {"n_ctx", "n_gpu_layers"}, min_ctx=_LEAST_CTX)
    for wanted, start in ((request, search), (least, alone)):
        for ftype in _LADDER:
            found = _as_quant(ftype, start, wanted)
            if found is not None:
                size, settings = format_bytes(found.search.model.n_bytes), found.trial.settings
                less = " without what runs beside it" if settings.model_draft != search.settings.model_draft else ""
                n_ctx = format_tokens(settings.n_ctx)
                yield f"A smaller quant: {ftype} of this model has about {size} and fits with {n_ctx} tokens{less}."
                return


def _as_quant(ftype: str, search: Search, request: Request) -> Choice | None:
    """The plan for another quant; None where it does not fit, or is not smaller."""
    smaller = requantised(search.model, ftype)
    room = sum(search.trials.budgets) + search.machine.host.available_bytes
    if smaller is None or smaller.n_bytes >= min(search.model.n_bytes, room):
        return None
    trials = Trials(smaller, search.machine, search.trials.runner, request.reserve_bytes, search.trials.factory)
    other = Search(smaller, trials, search.settings, request.given)
    other.quick = True
    try:
        found = choose(other, make_grid(smaller, search.settings, request), request)
    except FitplugError:
        return None
    return found if found is not None and found.trial.fits else None


def requantised(model: Model, ftype: str) -> Model | None:
    """The same model as llama-quantize would write it; None where it cannot be told."""
    first = model.layers[0] if model.layers else None
    if first is None or model.header.format != "gguf":
        return None
    facts = Facts(model.architecture, model.n_layer_all, model.n_expert, first.n_head, first.n_head_kv)
    shapes = [Shape(t.name, "f32" if t.type == "f32" else "f16", t.shape) for t in model.tensors.values()]
    try:
        types = tensor_types(shapes, facts, ftype)
    except FitplugError:
        return None
    tensors = {
        name: tensor._replace(type=types.get(name, tensor.type), n_bytes=alloc_size(types.get(name, tensor.type), tensor.shape))
        for name, tensor in model.tensors.items()
    }
    n_bytes = sum(tensor.n_bytes for tensor in tensors.values())
    return replace(model, header=replace(model.header, tensors=tensors), n_bytes=n_bytes, file_type=ftype)


def _more_memory(choice: Choice) -> Iterator[str]:
    if choice.trial.spare.host < 0:
        yield f"Free {format_bytes(-choice.trial.spare.host)} of the host's memory by closing other programs, or add some."
