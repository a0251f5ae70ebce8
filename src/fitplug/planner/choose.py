"""What is best for a goal: which devices, which context, what stays on the CPU."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from fitplug.model.records import Model
from fitplug.planner.climb import Grid
from fitplug.planner.layout import SINGLE_COPY
from fitplug.planner.records import Goal, Request
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial
from fitplug.settings import Settings

Where: TypeAlias = Literal["one", "several", "experts", "layers", "cpu", "given"]
"""Everything on one GPU, on several, experts or layers on the CPU, all on the CPU, or as the user said."""

DEFAULT_MIN_CTX = 8192
LEFT_ON_HOST = 4
"""One part in so many of the host's memory stays free for everything else where the context is ours to choose."""
_PLACING = frozenset({"n_gpu_layers", "tensor_split", "split_mode"})
"""Flags that leave no freedom to move layers: with one of them only the context, and perhaps -ngl, is searched."""


class Choice(NamedTuple):
    """The best that was found; `trial` need not fit."""

    trial: Trial
    where: Where


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
    usable = tuple(d for d in search.devices if search.trials.budgets[d] > 0)
    if request.given & _PLACING == {"n_gpu_layers"} and is_all(search, search.settings.n_gpu_layers):
        found = _on_gpus(search, grid, request.goal, usable) or _partly(search, grid, request, usable)
        if found is not None and is_all(search, found.trial.settings.n_gpu_layers):
            return found
    if request.given & _PLACING:
        return _as_given(search, grid, request)
    if "tensor_split" in search.given and len(usable) > 1:
        return _unsplit(search, grid, usable) or _on_cpu(search, grid)
    found = _on_gpus(search, grid, request.goal, usable)
    if found is not None and request.goal == "context" and found.trial.settings.n_ctx < grid.high:
        longer = _partly(search, grid, request, usable)  # a longer context is worth more than speed
        found = longer if longer is not None and _is_longer(longer, found) else found
    return found or _partly(search, grid, request, usable) or _on_cpu(search, grid)


def _is_longer(one: Choice, other: Choice) -> bool:
    return one.trial.fits and one.trial.settings.n_ctx > other.trial.settings.n_ctx


def is_all(search: Search, n_gpu_layers: int) -> bool:
    """-ngl leaves no layer on the CPU."""
    return n_gpu_layers < 0 or n_gpu_layers >= search.n_layers


def _on_gpus(search: Search, grid: Grid, goal: Goal, usable: Sequence[int]) -> Choice | None:
    """Everything on one GPU if the whole context fits there (for speed: if the shortest does), else on all of them."""
    if not usable:
        return None
    if len(usable) > 1:
        for d in _fastest(search, usable):
            alone = search.on_gpus(grid.low if goal == "speed" else grid.high, (d,))
            if alone is not None:
                longest = search.longest_on_gpus(grid, (d,)) if goal == "speed" else alone
                return Choice(longest or alone, "one")
    trial = search.longest_on_gpus(grid, usable)
    if len(usable) > 1 and (trial is None or (goal == "context" and trial.settings.n_ctx < grid.high)):
        trial = without_copies(search, grid, usable) or trial
    if trial is None:
        return None
    n_used = sum(1 for n in trial.counted if n)
    return Choice(trial, "several" if n_used > 1 else "one")


def _unsplit(search: Search, grid: Grid, usable: Sequence[int]) -> Choice | None:
    """For a runner without -ts: one GPU where that is enough, else as many layers as fit as llama.cpp itself divides them."""
    for d in _fastest(search, usable):
        alone = search.on_gpus(grid.high, (d,))
        if alone is not None:
            return Choice(alone, "one")
    trial = search.stretch(search.settings, grid)
    if trial is not None:
        return Choice(trial, "several")
    trial = search.most_layers(grid.low)
    return None if trial is None else Choice(trial, "layers")


def without_copies(search: Search, grid: Grid, usable: Sequence[int], *, quick: bool = False) -> Trial | None:
    """Everything on several GPUs without the copies that a pipeline of them needs, if the user has no overrides."""
    if search.settings.overrides or "overrides" in search.given:
        return None
    return search.variant(quick=quick, overrides=(SINGLE_COPY,)).longest_on_gpus(grid, usable)


def _fastest(search: Search, usable: Sequence[int]) -> list[int]:
    """The GPUs of the highest bandwidth, the one with the most room first; all of them where none is known."""
    devices = search.machine.devices
    best = max(devices[d].memory_bandwidth or 0 for d in usable)
    alike = [d for d in usable if (devices[d].memory_bandwidth or 0) == best]
    return sorted(alike, key=lambda d: -search.trials.budgets[d])


def _partly(search: Search, grid: Grid, request: Request, usable: Sequence[int]) -> Choice | None:
    """The least on the CPU at the shortest context, then what context is left; for `context` the other way round."""
    if not usable:
        return None
    n_ctx = grid.high if request.goal == "context" else grid.low
    trial = search.least_on_cpu(n_ctx, usable)
    if trial is not None and not trial.fits and n_ctx > grid.low:
        trial = search.least_on_cpu(grid.low, usable)
    if trial is None:
        return None
    all_layers = is_all(search, trial.settings.n_gpu_layers)
    where: Where = "experts" if search.costs.experts and all_layers else "layers"
    if trial.fits and trial.settings.n_ctx < grid.high:
        longer = search.stretch(trial.settings, grid._replace(low=trial.settings.n_ctx))
        trial = longer or trial
    return Choice(trial, where)


def _on_cpu(search: Search, grid: Grid) -> Choice | None:
    """Without a GPU, or with one that holds not even a layer: it may still help with long prompts if there is room."""
    settings = replace(search.settings, n_gpu_layers=0)
    alone = replace(settings, devices=())
    may_leave_out = search.devices and "devices" not in search.trials.runner.cannot_express
    for candidate in (settings, alone) if may_leave_out else (settings,):
        trial = search.stretch(candidate, grid, host_bytes=search.machine.host.available_bytes // LEFT_ON_HOST)
        if trial is not None:
            return Choice(trial, "cpu")
    last = search.trials(replace(alone if may_leave_out else settings, n_ctx=grid.low))
    return None if last is None else Choice(last, "cpu")


def _as_given(search: Search, grid: Grid, request: Request) -> Choice | None:
    """The user has placed the layers: find the context, and -ngl where that is still open."""
    trial = search.stretch(search.settings, grid)
    if trial is None and "n_gpu_layers" not in request.given:
        trial = search.most_layers(grid.low)
    if trial is None:
        trial = search.trials(replace(search.settings, n_ctx=grid.low))
    return None if trial is None else Choice(trial, "given")
