"""Metadata that --override-kv replaces before a model is understood (GGUFMeta::GKV::set, src/llama-model-loader.cpp)."""

from collections.abc import Sequence
from dataclasses import replace

from fitplug.formats.header import Header, Value
from fitplug.settings import KvOverride

ONLY_IF_THERE = (
    ".attention.compress_ratios", ".attention.head_count", ".attention.head_count_kv", ".attention.indexer.types",
    ".attention.recurrent_layers", ".expert_feed_forward_length", ".expert_used_count", ".feed_forward_length",
    ".rope.dimension_sections", ".swiglu_clamp_exp", ".swiglu_clamp_shexp", ".xielu.alpha_n", ".xielu.alpha_p", ".xielu.beta",
    ".xielu.eps",
)  # fmt: skip
"""Ends of keys that are looked for in the file first, since they may be arrays (llama_model_loader::get_key_or_arr)."""
FRACTIONS = ("epsilon", "scale", "factor", "freq_base", "softcapping", "multiplier", "clamp", "max_alibi_bias", "temperature")
"""Words in keys whose values are fractions (src/llama-arch.cpp, LLM_KV_NAMES)."""


def overridden(header: Header, overrides: Sequence[KvOverride]) -> Header:
    """The header as llama.cpp's loader then reads it: values of the right type are replaced, arrays never are."""
    first = {each.key: each for each in reversed(overrides)}  # which of several for a key is kept, whatever its type
    changed = {key: each.value for key, each in first.items() if _counts(header.metadata.get(key), each)}
    return replace(header, metadata={**header.metadata, **changed}) if changed else header


def _counts(found: Value | None, override: KvOverride) -> bool:
    """Of a key that the file has not, its name says whether llama.cpp reads a fraction there."""
    if found is not None:
        return type(found) is type(override.value)
    fraction = any(word in override.key for word in FRACTIONS)
    return not f".{override.key}".endswith(ONLY_IF_THERE) and fraction == isinstance(override.value, float)
