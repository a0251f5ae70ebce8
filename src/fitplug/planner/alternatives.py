"""Other plans worth having: each is really searched and estimated, and says what it gains and what it costs."""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.memory.sizes import alloc_size
from fitplug.planner.choose import Speeding
from fitplug.planner.search import Search
from fitplug.planner.trials import Trial
from fitplug.planner.ways import WAYS, Other, Question
from fitplug.settings import Settings
from fitplug.units import GIB

MOST = 4
_SAME = 0.03
"""Nobody changes settings for less than this."""
_MUCH = GIB // 2
"""Memory that is worth being left to others."""


class Judged(NamedTuple):
    """A plan and what it is good for, by one measure each: more is better."""

    other: Other
    merits: Sequence[float]

    def outdoes(self, merits: Sequence[float]) -> bool:
        """Nowhere noticeably worse."""
        return all(mine >= theirs * (1 - _SAME) for mine, theirs in zip(self.merits, merits, strict=True))


def find_others(question: Question, speed: Speeding) -> tuple[Other, ...]:
    """At most four, the most useful first: no two alike, and none that is nowhere better than another or the plan itself."""
    choice = question.choice
    kept = [Judged(Other("", "", choice.trial), _merits(choice.trial, speed))]
    seen = {choice.trial.settings}
    for way in WAYS[choice.where]:
        for other in way(question) if len(kept) <= MOST else ():
            settings = other.trial.settings
            if len(kept) > MOST or settings in seen or not other.trial.fits or not _can_be_said(question.search, settings):
                continue
            seen.add(settings)
            merits = _merits(other.trial, speed)
            if not any(judged.outdoes(merits) for judged in kept):
                new = Judged(other, merits)
                kept = [kept[0], *(judged for judged in kept[1:] if not new.outdoes(judged.merits)), new]
    return tuple(judged.other for judged in kept[1:])


def _merits(trial: Trial, speed: Speeding) -> tuple[float, ...]:
    """Context, speed, quality, memory left to others: what people choose by."""
    estimate, settings = trial.estimate, trial.settings
    resolved, found = estimate.resolved, speed(trial)
    bits = sum(alloc_size(kind, (256,)) for kind in (resolved.type_k, resolved.type_v))
    return (
        resolved.n_ctx_seq,
        resolved.n_ctx_seq if settings.kv_unified else resolved.n_ctx,  # what all have together for certain
        found.generation.middle if found and found.generation else 1 / max(1, trial.on_host),
        (found.prompt.middle if found and found.prompt else 1.0) * resolved.n_ubatch,
        bits,
        sum(1 for n in trial.counted if not n),
        1 / (1 + sum(trial.counted) // _MUCH),
        settings.mmproj is None or settings.mmproj_offload,
        settings.model_draft is not None,
    )


def _can_be_said(search: Search, settings: Settings) -> bool:
    """The runner has a place for everything that was chosen."""
    names = search.trials.runner.cannot_express
    return all(getattr(settings, name) == getattr(search.settings, name) for name in names)
