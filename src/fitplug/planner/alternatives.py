"""Other plans worth having: each is really searched and estimated, and says what it gains and what it costs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from fitplug.planner.choose import Choice, without_copies
from fitplug.planner.climb import Grid
from fitplug.planner.records import Request
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial
from fitplug.settings import Settings
from fitplug.units import format_bytes, format_tokens

MOST = 4
_LARGE_UBATCH = 2048
_SMALL_UBATCH = 128
_MODEST = 8192
"""A context with which most chats are content."""
_WORTH = 1.1
"""A context that is longer by less than this is no reason for an alternative."""


class Other(NamedTuple):
    """A plan that was not chosen."""

    title: str
    cost: str
    trial: Trial


class Question(NamedTuple):
    """What was chosen, and how to look for others."""

    choice: Choice
    search: Search
    grid: Grid
    request: Request

    @property
    def n_ctx(self) -> int:
        """Of the chosen plan."""
        return self.choice.trial.settings.n_ctx

    @property
    def usable(self) -> tuple[int, ...]:
        """GPUs with room."""
        return tuple(d for d in self.search.devices if self.search.trials.budgets[d] > 0)


def find_others(question: Question) -> tuple[Other, ...]:
    """At most four, the most useful first, no two alike."""
    found: list[Other] = []
    seen = {question.choice.trial.settings}
    for way in _WAYS[question.choice.where]:
        for other in way(question):
            settings = other.trial.settings
            if other.trial.fits and settings not in seen and len(found) < MOST and _can_be_said(question.search, settings):
                seen.add(settings)
                found.append(other)
    return tuple(found)


def _can_be_said(search: Search, settings: Settings) -> bool:
    """The runner has a place for everything that was chosen."""
    names = search.trials.runner.cannot_express
    return all(getattr(settings, name) == getattr(search.settings, name) for name in names)


def _small_cache(question: Question) -> Iterator[Other]:
    """K and V in 8 bits: twice the context, or more of the model on the GPU."""
    request, trial = question.request, question.choice.trial
    if question.search.given & {"type_k", "type_v"} or request.goal == "quality" or not trial.estimate.resolved.flash_attn:
        return
    search = question.search.variant(quick=True, type_k="q8_0", type_v="q8_0")
    cost = "a cache of 8 bits: hardly any loss of quality"
    if question.choice.where in ("one", "several"):
        if question.n_ctx < question.grid.high:
            longer = search.longest_on_gpus(question.grid._replace(low=question.n_ctx), _used(trial))
            yield from _if_longer(question, longer, "q8_0 cache", cost)
    else:
        less = search.least_on_cpu(question.grid.low, question.usable)
        away = trial.estimate.n_bytes("CPU") - (less.estimate.n_bytes("CPU") if less else 0)
        if less is not None and away > trial.estimate.n_bytes("CPU") // 50:
            yield Other(f"q8_0 cache: {format_bytes(away)} less on the CPU", cost, less)


def _single_copy(question: Question) -> Iterator[Other]:
    """Give up the pipeline of GPUs for a longer context."""
    if question.n_ctx < question.grid.high and question.choice.trial.settings.tensor_split:
        grid = question.grid._replace(low=question.n_ctx)
        longer = without_copies(question.search, grid, question.usable, quick=True)
        yield from _if_longer(question, longer, "no pipeline", "long prompts are read more slowly")


def _long_context(question: Question) -> Iterator[Other]:
    """A longer context for more on the CPU."""
    n_ctx = min(question.grid.high, 1 << max(15, (2 * question.n_ctx - 1).bit_length()))
    if question.n_ctx * _WORTH > n_ctx or question.request.goal == "context":
        return
    trial = question.search.variant(quick=True).least_on_cpu(n_ctx, question.usable)
    if trial is not None:
        more = trial.estimate.n_bytes("CPU") - question.choice.trial.estimate.n_bytes("CPU")
        yield from _if_longer(question, trial, "longer context", f"slower: {format_bytes(more)} more on the CPU")


def _short_context(question: Question) -> Iterator[Other]:
    """Nobody needs all of the memory who needs no long context."""
    n_ctx = max(question.grid.low, _MODEST)
    if n_ctx * 2 > question.n_ctx:
        return
    trial = question.search.trials(replace(question.choice.trial.settings, n_ctx=n_ctx))
    if trial is not None:
        freed = sum(question.choice.trial.counted) - sum(trial.counted)
        cost = f"a context of {format_tokens(n_ctx)} instead of {format_tokens(question.n_ctx)} tokens"
        if freed >= 1 << 29:
            yield Other(f"{format_bytes(freed)} left for other programs", cost, trial)


def _large_ubatch(question: Question) -> Iterator[Other]:
    """Weights that stay on the CPU are copied to the GPU once for each micro-batch of a long prompt."""
    settings = question.search.settings
    if "n_ubatch" in question.search.given or settings.n_ubatch >= _LARGE_UBATCH:
        return
    search = question.search.variant(quick=True, n_ubatch=_LARGE_UBATCH, n_batch=max(settings.n_batch, _LARGE_UBATCH))
    if question.choice.where in ("one", "several"):
        trial = search.trials(replace(question.choice.trial.settings, n_ubatch=_LARGE_UBATCH))
        cost = "more memory for the computation"
    else:
        trial = search.least_on_cpu(question.grid.low, question.usable)
        more = 0 if trial is None else trial.estimate.n_bytes("CPU") - question.choice.trial.estimate.n_bytes("CPU")
        cost = f"{format_bytes(max(0, more))} more on the CPU, so a little slower in writing"
    if trial is not None:
        yield Other("reads long prompts faster", cost, trial)


def _all_on_gpu(question: Question) -> Iterator[Other]:
    """Where a long context has pushed a part off the GPU: what fits with everything on it."""
    if question.request.goal == "context" and "n_ctx" not in question.request.given:
        trial = question.search.variant(quick=True).longest_on_gpus(question.grid, question.usable)
        if trial is not None:
            cost = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
            yield Other("faster: everything on the GPU", cost, trial)


def _small_ubatch(question: Question) -> Iterator[Other]:
    """Smaller buffers for the computation may be all that is missing to have everything on the GPUs."""
    settings = question.search.settings
    if "n_ubatch" in question.search.given or settings.n_ubatch <= _SMALL_UBATCH:
        return
    trial = question.search.variant(quick=True, n_ubatch=_SMALL_UBATCH).longest_on_gpus(question.grid, question.usable)
    if trial is not None:
        yield Other("everything on the GPU", f"long prompts are read more slowly (-ub {_SMALL_UBATCH})", trial)


def _one_gpu(question: Question) -> Iterator[Other]:
    """One card alone, where the shortest context fits there."""
    best = max(question.usable, key=lambda d: question.search.trials.budgets[d], default=None)
    if best is None or question.choice.where != "several":
        return
    trial = question.search.variant(quick=True).longest_on_gpus(question.grid, (best,))
    if trial is not None:
        name = question.search.machine.device_names()[best]
        cost = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
        yield Other(f"{name} alone, the others stay free", cost, trial)


def _if_longer(question: Question, trial: Trial | None, how: str, cost: str) -> Iterator[Other]:
    if trial is not None and trial.settings.n_ctx >= question.n_ctx * _WORTH:
        longer = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens"
        yield Other(f"{how}: {longer}", cost, trial)


def _used(trial: Trial) -> Sequence[int]:
    return [d for d, n in enumerate(trial.counted) if n]


_WAYS: dict[str, tuple[Callable[[Question], Iterator[Other]], ...]] = {
    "one": (_small_cache, _long_context, _short_context),
    "several": (_small_cache, _single_copy, _one_gpu, _long_context, _short_context),
    "experts": (_all_on_gpu, _small_ubatch, _small_cache, _long_context, _large_ubatch),
    "layers": (_all_on_gpu, _small_ubatch, _small_cache, _long_context, _large_ubatch),
    "cpu": (_short_context,),
    "given": (_short_context,),
}
"""What may be worth having besides each kind of plan."""
