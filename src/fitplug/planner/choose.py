"""What is best for a goal: which devices, which context, what stays on the CPU."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from fitplug.model.records import Model
from fitplug.planner.cards import fast_first, groups, usable
from fitplug.planner.climb import Grid
from fitplug.planner.concessions import concessions, small_cache
from fitplug.planner.layout import SINGLE_COPY
from fitplug.planner.records import Request, Speed
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial
from fitplug.settings import Settings

Speeding: TypeAlias = Callable[[Trial], Speed | None]
"""How fast a plan will be."""
Where: TypeAlias = Literal["one", "several", "experts", "layers", "cpu", "given"]
"""Everything on one GPU, on several, experts or layers on the CPU, all on the CPU, or as the user said."""

DEFAULT_MIN_CTX = 8192
LEFT_ON_HOST = 4
"""One part in so many of the host's memory stays free for everything else where the context is ours to choose."""
_LONGER = 1.05
"""For a context that is longer by this much the pipeline of several GPUs is given up."""
_PLACING = frozenset({"n_gpu_layers", "tensor_split", "split_mode"})
"""Flags that leave no freedom to move layers: with one of them only the context, and perhaps -ngl, is searched."""


class Choice(NamedTuple):
    """The best that was found; `trial` need not fit."""

    trial: Trial
    where: Where
    search: Search
    """With the fixed settings that were decided on the way."""
    conceded: tuple[str, ...] = ()
    """Names of the `Settings` fields that were changed so that it fits."""


def make_grid(model: Model, settings: Settings, request: Request) -> Grid:
    """The contexts from which to choose: a given one, or from the shortest that is allowed to the trained length."""
    n_stream = 1 if settings.kv_unified else settings.n_seq_max
    trained = max(model.n_ctx_train, 1)
    if "n_ctx" in request.given:
        n_ctx = settings.n_ctx or trained
        return Grid(256 * n_stream, n_ctx, n_ctx)
    shortest = min(request.min_ctx or DEFAULT_MIN_CTX, trained)
    return Grid(256 * n_stream, shortest * n_stream, trained * n_stream)


def choose(search: Search, grid: Grid, request: Request) -> Choice | None:
    """The best plan for the goal; None where llama.cpp refuses every one."""
    if is_hopeless(search):
        search = search.variant(quick=True)  # nobody needs a proof that the best of what does not fit is the best
    use = usable(search)
    if request.given & _PLACING == {"n_gpu_layers"} and is_all(search, search.settings.n_gpu_layers):
        found = _on_gpus(search, grid, request, use) or partly(search, grid, request, use)
        if found is not None and is_all(search, found.trial.settings.n_gpu_layers):
            return found
    if request.given & _PLACING:
        return _as_given(search, grid, request)
    if "tensor_split" in search.given and len(use) > 1:
        return _unsplit(search, grid, use) or _on_cpu(search, grid)
    if request.goal == "context":
        return _longest(search, grid, request, use) or _on_cpu(search, grid)
    return (
        _on_gpus(search, grid, request, use)
        or _conceding(search, grid, request, use)
        or partly(search, grid, request, use)
        or _on_cpu(search, grid)
    )


def is_hopeless(search: Search) -> bool:
    """All memory together is less than the weights."""
    host = search.machine.host.available_bytes
    return search.model.n_bytes > sum(search.trials.budgets[d] for d in search.devices) + host


def is_all(search: Search, n_gpu_layers: int) -> bool:
    """-ngl leaves no layer on the CPU."""
    return n_gpu_layers < 0 or n_gpu_layers >= search.n_layers


def _on_gpus(search: Search, grid: Grid, request: Request, use: Sequence[int]) -> Choice | None:
    """Everything on the fastest GPUs that hold the whole context (for speed: the shortest), else on all of them."""
    if not use:
        return None
    fast = request.goal == "speed"
    n_ctx = grid.low if fast else grid.high
    for group in groups(search, n_ctx, use) if len(use) > 1 else ():
        trial = search.on_gpus(n_ctx, group)
        if trial is not None:
            return _whole(search, _stretched(search, trial, grid, group) if fast else trial)
    trial = search.longest_on_gpus(grid, use)
    longer = _longer_without_copies(search, grid, request, use, trial) if len(use) > 1 else None
    return longer or (None if trial is None else _whole(search, trial))


def _longer_without_copies(
    search: Search, grid: Grid, request: Request, use: Sequence[int], trial: Trial | None
) -> Choice | None:
    """Several GPUs without a pipeline, where that makes it fit, or the context noticeably longer (not for speed)."""
    single = without_copies(search)
    if single is None or (trial is not None and (request.goal == "speed" or trial.settings.n_ctx == grid.high)):
        return None
    low = grid.low
    if trial is not None:
        low = min(grid.high, round(trial.settings.n_ctx * _LONGER) // grid.step * grid.step)
    longer = single.longest_on_gpus(grid._replace(low=low), use)
    return None if longer is None else _whole(single, longer)


def _whole(search: Search, trial: Trial) -> Choice:
    n_used = sum(1 for n in trial.counted if n)
    return Choice(trial, "several" if n_used > 1 else "one", search)


def _stretched(search: Search, trial: Trial, grid: Grid, group: Sequence[int]) -> Trial:
    """The longest context that moves no layer to a slower card."""
    rest = grid._replace(low=trial.settings.n_ctx)
    longer = search.longest_on_gpus(rest, group) if len(group) == 1 else search.stretch(trial.settings, rest)
    return longer or trial


def _unsplit(search: Search, grid: Grid, use: Sequence[int]) -> Choice | None:
    """For a runner without -ts: one GPU where that is enough, else as many layers as fit as llama.cpp itself divides them."""
    for group in groups(search, grid.high, use):
        alone = search.on_gpus(grid.high, group) if len(group) == 1 else None
        if alone is not None:
            return Choice(alone, "one", search)
    trial = search.stretch(search.settings, grid)
    if trial is not None:
        return Choice(trial, "several", search)
    trial = search.most_layers(grid.low)
    return None if trial is None else Choice(trial, "layers", search)


def without_copies(search: Search) -> Search | None:
    """Without the copies that a pipeline of GPUs needs; None where the user has overrides, or the runner has none."""
    if search.settings.moves or "overrides" in search.given:
        return None
    return search.variant(overrides=(SINGLE_COPY,))


def _conceding(search: Search, grid: Grid, request: Request, use: Sequence[int]) -> Choice | None:
    """Everything on the GPUs after all, for the least of the sacrifices that make it fit."""
    for changes in concessions(search, grid, request, use):
        found = _on_gpus(search.variant(fresh=True, **changes), grid, request, use)
        if found is not None:
            return found._replace(conceded=tuple(changes))
    return None


def _longest(search: Search, grid: Grid, request: Request, use: Sequence[int]) -> Choice | None:
    """The longest context: in a smaller cache before more of the model goes to the CPU, and there for what is missing."""
    found = _on_gpus(search, grid, request, use)
    changes = small_cache(search, request)
    if found is None or found.trial.settings.n_ctx < grid.high:
        start = search.variant(**changes) if changes else search
        ways = (_on_gpus, partly) if changes else (partly,)
        for way in ways:
            other = way(start, grid, request, use)
            if other is not None and other.trial.fits and _is_longer(other, found):
                found = other._replace(conceded=tuple(changes))
    return found if found is not None else partly(search, grid, request, use)


def _is_longer(one: Choice, other: Choice | None) -> bool:
    return other is None or one.trial.settings.n_ctx > other.trial.settings.n_ctx


def partly(search: Search, grid: Grid, request: Request, use: Sequence[int]) -> Choice | None:
    """The least on the CPU at the shortest context, then what context is left; for `context` the other way round."""
    if not use:
        return None
    use = fast_first(search, use)
    search = search.only(use)
    n_ctx = grid.high if request.goal == "context" else grid.low
    trial = search.least_on_cpu(n_ctx, use)
    if trial is not None and not trial.fits and n_ctx > grid.low:
        trial = search.least_on_cpu(grid.low, use)
    if trial is None:
        return None
    all_layers = is_all(search, trial.settings.n_gpu_layers)
    where: Where = "experts" if search.costs.experts and all_layers else "layers"
    if trial.fits and trial.settings.n_ctx < grid.high:
        longer = search.stretch(trial.settings, grid._replace(low=trial.settings.n_ctx))
        trial = longer or trial
    return Choice(trial, where, search)


def _on_cpu(search: Search, grid: Grid) -> Choice | None:
    """Without a GPU, or with one that holds not even a layer: it may still help with long prompts if there is room."""
    settings = replace(search.settings, n_gpu_layers=0)
    alone = replace(settings, devices=())
    may_leave_out = search.devices and "devices" not in search.trials.runner.cannot_express
    for candidate in (settings, alone) if may_leave_out else (settings,):
        trial = search.stretch(candidate, grid, host_bytes=search.machine.host.available_bytes // LEFT_ON_HOST)
        if trial is not None:
            return Choice(trial, "cpu", search)
    last = search.trials(replace(alone if may_leave_out else settings, n_ctx=grid.low))
    return None if last is None else Choice(last, "cpu", search)


def _as_given(search: Search, grid: Grid, request: Request) -> Choice | None:
    """The user has placed the layers: find the context, and -ngl where that is still open."""
    trial = search.stretch(search.settings, grid)
    if trial is None and "n_gpu_layers" not in request.given:
        trial = search.most_layers(grid.low)
    if trial is None:
        trial = search.trials(replace(search.settings, n_ctx=grid.low))
    return None if trial is None else Choice(trial, "given", search)
