"""Reading long prompts: how many tokens at a time, where speed comes first."""

from dataclasses import replace

from fitplug.planner.choose import Choice, Speeding, partly
from fitplug.planner.climb import Grid
from fitplug.planner.concessions import Changes
from fitplug.planner.records import Request, Speed
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial

LARGE_UBATCH = 2048
_READ, _WRITTEN = 2048, 512
"""Tokens of the exchange for which speeds are weighed."""
_FASTER = 0.97


def large_batch(search: Search) -> Changes:
    """More tokens at a time, where the user has not fixed how many.

    Weights on the CPU are copied to the GPU once for each micro-batch, and few tokens of a small one meet in one expert.
    """
    settings = search.settings
    if "n_ubatch" in search.given or settings.n_ubatch >= LARGE_UBATCH:
        return {}
    if settings.n_batch < LARGE_UBATCH:
        return {} if "n_batch" in search.given else {"n_ubatch": LARGE_UBATCH, "n_batch": LARGE_UBATCH}
    return {"n_ubatch": LARGE_UBATCH}


def read_faster(choice: Choice, grid: Grid, request: Request, speed: Speeding) -> Choice:
    """The plan with larger micro-batches, where all in all that is faster; for the goal speed alone."""
    changes = large_batch(choice.search)
    if request.goal != "speed" or not changes or choice.conceded or choice.where not in ("one", "several", "experts", "layers"):
        return choice
    search, settings = choice.search.variant(quick=True, **changes), choice.trial.settings
    other: Choice | None
    if choice.where in ("one", "several"):
        trial = search.stretch(replace(settings, **changes), grid._replace(high=settings.n_ctx))
        other = None if trial is None else choice._replace(trial=trial, search=search)
    else:
        other = partly(search, grid, request, search.devices)
    if other is None or not other.trial.fits:
        return choice
    mine, theirs = _seconds(choice.trial, speed), _seconds(other.trial, speed)
    if mine is None or theirs is None or theirs > mine * _FASTER:
        return choice
    return other._replace(search=choice.search.variant(**changes), conceded=tuple(changes))


def _seconds(trial: Trial, speed: Speeding) -> float | None:
    """Time for one exchange."""
    found: Speed | None = speed(trial)
    if found is None or found.prompt is None or found.generation is None:
        return None
    return _READ / found.prompt.middle + _WRITTEN / found.generation.middle
