"""What a server keeps in the host's memory as requests come, and llama.cpp counts nowhere (tools/server/server-context.cpp).

Nothing of it is there at the start: old prompts up to --cache-ram (server_prompt_cache), and, of models whose memory cannot be
rolled back, up to --ctx-checkpoints copies for each slot of what cannot (create_checkpoint).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fitplug.extension import Runner
from fitplug.memory.cache import cache_tensors, cells
from fitplug.memory.records import Estimate, Kind
from fitplug.memory.sizes import alloc_size
from fitplug.model.records import Model
from fitplug.units import MIB, format_bytes


class Kept(NamedTuple):
    """The most that may come; drafts' own copies are not in it."""

    prompts: int | None
    """Bytes of old prompts; None: as many as fill the context, whatever they take."""
    checkpoints: int
    """Bytes of all slots' checkpoints."""
    n_checkpoints: int
    """Of one slot."""


def kept(model: Model, estimate: Estimate, runner: Runner) -> Kept:
    """What this runner may keep with these settings; embeddings leave nothing behind."""
    settings = estimate.settings
    if settings.embedding:
        return Kept(0, 0, 0)
    mib = runner.prompt_cache_mib if settings.cache_ram_mib is None else settings.cache_ram_mib
    n = runner.ctx_checkpoints if settings.ctx_checkpoints is None else max(0, settings.ctx_checkpoints)
    each = checkpoint_bytes(model, estimate) if n else 0
    prompts = mib * MIB if mib >= 0 else None
    return Kept(prompts if runner.prompt_cache_mib else 0, n * each * estimate.resolved.n_seq_max, n)


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


def kept_notes(found: Kept, estimate: Estimate, left: int) -> Iterator[str]:
    """The same in sentences, and whether so many bytes that the host has left are enough."""
    asked = estimate.settings
    if found.prompts is None:
        held = format_bytes(sum(part.n_bytes for part in estimate.parts if part.kind == Kind.CONTEXT))
        yield f"As requests come, the server keeps as many old prompts in the host's memory as the context holds ({held})."
    elif found.prompts:
        given = "" if asked.cache_ram_mib is None else f" (-cram {asked.cache_ram_mib})"
        yield (
            f"As requests come, the server fills up to {format_bytes(found.prompts)} of the host's memory with old prompts"
            f"{given}: not counted, -cram sets how much."
        )
    if found.checkpoints:
        yield (
            f"It also keeps up to {found.n_checkpoints} copies of each slot's windowed cache or state there, "
            f"{format_bytes(found.checkpoints)} at most: not counted, -ctxcp sets how many."
        )
    if 0 <= left < (found.prompts or 0) + found.checkpoints:
        yield f"That is more than the {format_bytes(left)} of the host's memory that are left: lower -cram or -ctxcp."
