"""A plan as LM Studio's load fields. A value of the wrong shape is dropped there without a word, so shapes are exact.

Keys and shapes are those of the official SDK (@lmstudio/sdk 2.0.0, globalConfigSchematics); fixtures hold its schema.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fitplug.errors import RefusedError
from fitplug.pinned import pin
from fitplug.planner.records import Plan
from fitplug.settings import Settings

CACHE_TYPES = frozenset({"f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"})
MOST_SESSIONS = 1023


class Field(NamedTuple):
    """One setting."""

    key: str
    value: Any


def load_fields(plan: Plan, *, exact: bool = False) -> tuple[Field, ...]:
    """All fields that decide memory; `exact` adds the layer count as an argument of the engine, which only newer ones take.

    Raises:
        RefusedError: a setting that has no value there.
    """
    settings = pin(plan.estimate, plan.machine)
    if not plan.model.causal:
        return tuple(_embedding(plan, settings))
    found = [*_memory(plan, settings), *_cache(settings), *_gpus(plan, settings)]
    return (*found, _override(settings)) if exact else tuple(found)


def _memory(plan: Plan, settings: Settings) -> Iterator[Field]:
    # Left on, newer builds choose context and offload anew and ignore what is stored beside it.
    yield Field("llm.load.llama.autoFit", False)
    yield Field("llm.load.contextLength", context_length(plan))
    yield Field("llm.load.llama.acceleration.offloadRatio", offload_ratio(settings.n_gpu_layers, plan.model.n_layer_all))
    yield Field("llm.load.numCpuExpertLayersRatio", expert_ratio(settings.n_cpu_moe, plan.model.n_layer_all))
    if settings.n_seq_max > MOST_SESSIONS:
        raise RefusedError(f"LM Studio takes at most {MOST_SESSIONS} parallel sessions")
    yield Field("llm.load.numParallelSessions", settings.n_seq_max)
    yield Field("llm.load.useUnifiedKvCache", settings.kv_unified)
    yield Field("llm.load.llama.evalBatchSize", settings.n_batch)
    yield Field("llm.load.llama.physicalBatchSize", settings.n_ubatch)
    yield Field("llm.load.llama.tryMmap", settings.use_mmap)


def _cache(settings: Settings) -> Iterator[Field]:
    yield Field("llm.load.llama.flashAttention", settings.flash_attn == "on")
    for name, type_ in (("k", settings.type_k), ("v", settings.type_v)):
        if type_ not in CACHE_TYPES:
            raise RefusedError(f"LM Studio has no cache type {type_}; it has {', '.join(sorted(CACHE_TYPES))}")
        yield Field(f"llm.load.llama.{name}CacheQuantizationType", {"checked": type_ != "f16", "value": type_})
    yield Field("llm.load.offloadKVCacheToGpu", settings.offload_kqv)


def _gpus(plan: Plan, settings: Settings) -> Iterator[Field]:
    # The cap counts with another context than the plan's, and takes layers away from plans that fit.
    yield Field("load.gpuStrictVramCap", not plan.fits)
    n_devices = len(plan.machine.devices)
    if settings.split_mode == "row":
        raise RefusedError("LM Studio has no place for --split-mode row")
    if n_devices < 2:
        return
    split: dict[str, Any] = {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}
    if settings.split_mode == "none":
        others = [i for i in range(n_devices) if i != settings.main_gpu]
        split |= {"strategy": "priorityOrder", "disabledGpus": others, "priority": [settings.main_gpu]}
    elif settings.split_mode == "tensor":
        split |= {"strategy": "tensor"}
    elif settings.tensor_split:
        split |= {"strategy": "custom", "customRatio": list(settings.tensor_split)}
    yield Field("load.gpuSplitConfig", split)


def _override(settings: Settings) -> Field:
    """The engine's own argument in place of the ratio: no rounding at all."""
    pair = {"key": "--n-gpu-layers", "value": str(settings.n_gpu_layers)}
    value = {"enabled": True, "disabledParameters": [pair["key"]], "overrideParameters": [pair], "excludeAllConfig": False}
    return Field("llm.load.llama.argumentsOverride", value)


def _embedding(plan: Plan, settings: Settings) -> Iterator[Field]:
    """Embedding models have a scope of their own with fewer keys."""
    yield Field("embedding.load.contextLength", context_length(plan))
    yield Field("embedding.load.llama.acceleration.offloadRatio", offload_ratio(settings.n_gpu_layers, plan.model.n_layer_all))
    yield Field("embedding.load.llama.evalBatchSize", settings.n_batch)
    yield Field("embedding.load.llama.tryMmap", settings.use_mmap)
    yield Field("load.gpuStrictVramCap", not plan.fits)


def context_length(plan: Plan) -> int:
    """One pool of the whole length when it is shared by all sessions, else the length of each."""
    resolved = plan.estimate.resolved
    return resolved.n_ctx if plan.estimate.settings.kv_unified else resolved.n_ctx_seq


def offload_ratio(n_gpu_layers: int, n_layer: int) -> float:
    """The ratio that the engine turns back into exactly `n_gpu_layers`: it rounds ratio * (blocks + 1).

    An older engine multiplies by the blocks alone: there it gives the same count or one less, never more.
    """
    if n_gpu_layers > n_layer:
        return 1
    return n_gpu_layers / (n_layer + 1)


def expert_ratio(n_cpu_moe: int, n_layer: int) -> float:
    """Share of the blocks whose experts stay in the machine's memory: round(ratio * blocks) of the first ones."""
    if n_cpu_moe < 0 or n_cpu_moe >= n_layer > 0:
        return 1
    return n_cpu_moe / n_layer if n_layer else 0
