"""The host's memory beside the model: what a server keeps there by default, and how it is held within what is left."""

from dataclasses import replace

from fitplug.extension import Runner
from fitplug.memory.kept import checkpoint_bytes
from fitplug.model.records import Model
from fitplug.planner.trials import Trial
from fitplug.units import MIB

_KEPT = 512 * MIB
"""Of what is left, not given to the server's caches: its own needs, the vocabulary, the requests."""
_STEP_MIB = 256


def hold_caches(trial: Trial, model: Model, runner: Runner, given: frozenset[str]) -> Trial:
    """The same plan with -cram and -ctxcp where their defaults might outgrow the host's memory.

    Both fill up only in use, after the model was loaded without trouble (tools/server/server-context.cpp): old prompts up
    to `Runner.prompt_cache_mib`, and up to `Runner.ctx_checkpoints` copies for each slot of what cannot be rolled back.
    """
    left = max(0, trial.spare.host - _KEPT)
    changes: dict[str, int] = {}
    each = checkpoint_bytes(model, trial.estimate) * trial.settings.n_seq_max
    wanted = _wanted(trial.settings.ctx_checkpoints, runner.ctx_checkpoints)
    if each and wanted * each > left // 2 and "ctx_checkpoints" not in given:
        wanted = min(wanted, left // 2 // each)
        changes["ctx_checkpoints"] = wanted
    left -= wanted * each
    if _wanted(trial.settings.cache_ram_mib, runner.prompt_cache_mib) * MIB > left and "cache_ram_mib" not in given:
        changes["cache_ram_mib"] = max(0, left) // MIB // _STEP_MIB * _STEP_MIB
    if not changes or not runner.prompt_cache_mib or trial.settings.embedding:  # prompts of completions alone are kept
        return trial
    settings = replace(trial.settings, **changes)  # type: ignore[arg-type]  # mypy takes every field for each name
    return trial._replace(settings=settings, estimate=replace(trial.estimate, settings=settings))


def _wanted(asked: int | None, default: int) -> int:
    return default if asked is None else max(0, asked)
