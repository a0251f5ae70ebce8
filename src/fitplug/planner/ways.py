"""The ways in which another plan may be worth having beside the one that was chosen."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from fitplug.planner.cards import groups, usable
from fitplug.planner.choose import Choice, partly, without_copies
from fitplug.planner.climb import Grid
from fitplug.planner.concessions import small_cache
from fitplug.planner.prompts import large_batch
from fitplug.planner.records import Request
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial
from fitplug.units import format_bytes, format_tokens

_MODEST = 8192
"""A context with which most chats are content."""
_WORTH = 1.1
"""A context that is longer by less than this is no reason for an alternative."""
_LEAST_OFF_CPU = 50
"""Of what is on the CPU, one part in so many must leave it."""


class Other(NamedTuple):
    """A plan that was not chosen."""

    title: str
    cost: str
    trial: Trial


class Question(NamedTuple):
    """What was chosen, and how to look for others."""

    choice: Choice
    start: Search
    """Before anything was decided."""
    grid: Grid
    request: Request

    @property
    def search(self) -> Search:
        """With all that was decided on the way; content with good plans."""
        return self.choice.search.variant(quick=True)

    @property
    def n_ctx(self) -> int:
        """Of the chosen plan."""
        return self.choice.trial.settings.n_ctx

    @property
    def use(self) -> tuple[int, ...]:
        """GPUs that may be used."""
        return usable(self.choice.search)

    @property
    def is_whole(self) -> bool:
        """Nothing of the model is on the CPU that need not be."""
        return self.choice.where in ("one", "several")


def _small_cache(question: Question) -> Iterator[Other]:
    """K and V in 8 bits: twice the context, or more of the model on the GPU."""
    changes = small_cache(question.choice.search, question.request)
    if not changes or not question.choice.trial.estimate.resolved.flash_attn:
        return
    yield from _roomier(
        question, question.search.variant(**changes), "q8_0 cache", "a cache of 8 bits: hardly any loss of quality"
    )


def _no_projector(question: Question) -> Iterator[Other]:
    """Pictures wait for the CPU."""
    settings = question.search.settings
    if settings.mmproj is not None and settings.mmproj_offload and "mmproj_offload" not in question.search.given:
        search = question.search.variant(fresh=True, mmproj_offload=False)
        yield from _roomier(question, search, "projector on the CPU", "a picture takes many seconds instead of one")


def _no_draft(question: Question) -> Iterator[Other]:
    """What the draft model takes."""
    if question.search.settings.model_draft is not None:
        search = question.search.variant(fresh=True, model_draft=None, spec_type=None)
        yield from _roomier(question, search, "without the draft model", "nothing is guessed ahead")


def _roomier(question: Question, search: Search, how: str, cost: str) -> Iterator[Other]:
    """Settings that take less: a longer context, or less on the CPU."""
    trial = question.choice.trial
    if question.is_whole:
        if question.n_ctx < question.grid.high:
            use = [d for d, n in enumerate(trial.counted) if n]
            yield from _if_longer(question, search.longest_on_gpus(question.grid._replace(low=question.n_ctx), use), how, cost)
        return
    whole = search.longest_on_gpus(question.grid, question.use) if question.request.goal != "context" else None
    less = whole or search.least_on_cpu(question.n_ctx, question.use)
    if less is not None and less.fits_devices:
        away = trial.on_host - less.on_host
        gain = "everything on the GPU" if whole is not None else f"{format_bytes(away)} less on the CPU"
        if away > trial.on_host // _LEAST_OFF_CPU:
            shorter = question.n_ctx - less.settings.n_ctx
            cost += f", {format_tokens(less.settings.n_ctx)} tokens of context" if shorter > 0 else ""
            yield Other(f"{how}: {gain}", cost, less)


def _pipeline(question: Question) -> Iterator[Other]:
    """Several GPUs at work at once on a long prompt, or a longer context; whichever was not chosen."""
    search, start = question.search, question.start
    if not question.choice.trial.settings.tensor_split:
        return
    if search.settings.overrides == start.settings.overrides:
        single = without_copies(search)
        if single is not None and question.n_ctx < question.grid.high:
            longer = single.longest_on_gpus(question.grid._replace(low=question.n_ctx), question.use)
            yield from _if_longer(question, longer, "no pipeline", "long prompts are read more slowly")
        return
    trial = search.variant(overrides=start.settings.overrides).longest_on_gpus(question.grid, question.use)
    if trial is not None:
        less = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
        yield Other("a pipeline of GPUs: reads long prompts faster", less, trial)


def _long_context(question: Question) -> Iterator[Other]:
    """A longer context for more on the CPU."""
    n_ctx = min(question.grid.high, 1 << max(15, (2 * question.n_ctx - 1).bit_length()))
    if question.n_ctx * _WORTH > n_ctx or question.request.goal == "context":
        return
    trial = question.search.least_on_cpu(n_ctx, question.use)
    if trial is not None:
        more = trial.on_host - question.choice.trial.on_host
        yield from _if_longer(question, trial, "longer context", f"slower: {format_bytes(max(0, more))} more on the CPU")


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
    """More tokens of a prompt at a time."""
    search, trial = question.search, question.choice.trial
    changes = large_batch(search)
    if not changes or (question.is_whole and not search.model.n_expert):
        return
    if question.is_whole:
        large = search.stretch(replace(trial.settings, **changes), question.grid._replace(high=question.n_ctx))
        if large is not None:
            less = f"{format_tokens(large.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
            cost = less if large.settings.n_ctx < question.n_ctx else "more memory for the computation"
            yield Other("reads long prompts faster", cost, large)
        return
    large = search.variant(**changes).least_on_cpu(question.n_ctx, question.use)
    if large is not None:
        more = max(0, large.on_host - trial.on_host)
        yield Other("reads long prompts faster", f"{format_bytes(more)} more on the CPU, so a little slower in writing", large)


def _all_on_gpu(question: Question) -> Iterator[Other]:
    """Where a long context has pushed a part off the GPU: what fits with everything on it."""
    if question.request.goal == "context" and "n_ctx" not in question.request.given:
        trial = question.search.longest_on_gpus(question.grid, question.use)
        if trial is not None:
            cost = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
            yield Other("faster: everything on the GPU", cost, trial)


def _unconceded(question: Question) -> Iterator[Other]:
    """Without what was given up for the plan."""
    conceded = question.choice.conceded
    if not conceded:
        return
    changes = {name: getattr(question.start.settings, name) for name in conceded}
    search = question.search.variant(fresh=True, **changes)
    grid = question.grid._replace(high=question.n_ctx)
    other = partly(search, grid, question.request, question.use)
    if other is None:
        return
    gain = next(words for name, words in _UNDONE.items() if name in conceded)
    more = other.trial.on_host - question.choice.trial.on_host
    cost = f"slower: {format_bytes(more)} more on the CPU" if more > 0 else ""
    shorter = f"{format_tokens(other.trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
    words = [cost, shorter if other.trial.settings.n_ctx < question.n_ctx else ""]
    yield Other(gain, ", ".join(filter(None, words)), other.trial)


_UNDONE = {
    "type_k": "a cache of 16 bits",
    "mmproj_offload": "pictures are read on the GPU",
    "n_ubatch": "long prompts 512 tokens at a time",
}


def _fewer_gpus(question: Question) -> Iterator[Other]:
    """The fastest cards that are enough for the shortest context."""
    if question.choice.where != "several":
        return
    used = [d for d, n in enumerate(question.choice.trial.counted) if n]
    for group in groups(question.search, question.grid.low, used)[:1]:
        trial = question.search.longest_on_gpus(question.grid, group)
        if trial is not None:
            names = question.search.machine.device_names()
            kept = " and ".join(names[d] for d in group)
            less = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens of context"
            yield Other(f"faster: {kept} alone, the others stay free", less, trial)


def _shared_cache(question: Question) -> Iterator[Other]:
    """One cache for all users: whoever is alone has all of it."""
    search, settings = question.search, question.choice.trial.settings
    if search.settings.n_seq_max < 2 or search.settings.kv_unified or "kv_unified" in search.given:
        return
    trial = search.trials(replace(settings, kv_unified=True))
    if trial is not None and trial.estimate.resolved.n_ctx_seq > question.choice.trial.estimate.resolved.n_ctx_seq:
        most = format_tokens(trial.estimate.resolved.n_ctx_seq)
        yield Other(f"one user may have {most} tokens", "all users share them, none is sure of a part (-kvu)", trial)


def _if_longer(question: Question, trial: Trial | None, how: str, cost: str) -> Iterator[Other]:
    if trial is not None and trial.settings.n_ctx >= question.n_ctx * _WORTH:
        longer = f"{format_tokens(trial.settings.n_ctx)} instead of {format_tokens(question.n_ctx)} tokens"
        yield Other(f"{how}: {longer}", cost, trial)


Way = Callable[[Question], Iterator[Other]]
_SPLIT: tuple[Way, ...] = (_all_on_gpu, _no_draft, _no_projector, _small_cache, _long_context, _large_ubatch)
WAYS: dict[str, tuple[Way, ...]] = {
    "one": (_unconceded, _small_cache, _no_projector, _no_draft, _shared_cache, _long_context, _large_ubatch, _short_context),
    "several": (_unconceded, _fewer_gpus, _small_cache, _pipeline, _no_projector, _no_draft, _shared_cache, _long_context,
                _large_ubatch, _short_context),
    "experts": (_unconceded, *_SPLIT, _shared_cache),
    "layers": (_unconceded, *_SPLIT, _shared_cache),
    "cpu": (_no_draft, _shared_cache, _short_context),
    "given": (_no_draft, _shared_cache, _short_context),
}  # fmt: skip
"""What may be worth having besides each kind of plan, the most useful first."""
