"""The host's memory beside the model: what a server keeps there by default, and how it is held within what is left."""

from dataclasses import replace

from fitplug.extension import Runner
from fitplug.memory.cache import cache_tensors, cells
from fitplug.memory.records import Estimate
from fitplug.memory.sizes import alloc_size
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
    if not changes or not runner.prompt_cache_mib:
        return trial
    settings = replace(trial.settings, **changes)  # type: ignore[arg-type]  # mypy takes every field for each name
    return trial._replace(settings=settings, estimate=replace(trial.estimate, settings=settings))


def _wanted(asked: int | None, default: int) -> int:
    return default if asked is None else max(0, asked)


def checkpoint_bytes(model: Model, estimate: Estimate) -> int:
    """One slot's windowed caches and recurrent states: what a checkpoint copies (LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)."""
    settings = estimate.settings
    if settings.swa_full and not any(layer.is_recurrent for layer in model.layers):
        return 0
    one = replace(estimate.resolved, n_seq_max=1, n_stream=1)
    size = cells(model, one, kv_unified=False, swa_full=settings.swa_full)
    windowed = {layer.il for layer in model.layers if layer.is_swa}
    return sum(
        alloc_size(tensor.type, tensor.shape)
        for tensor in cache_tensors(model, one, size)
        if tensor.part in ("r", "s", "ple") or (tensor.il in windowed and tensor.shape[1] == size.swa < size.base)
    )
