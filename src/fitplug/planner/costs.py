"""What each layer weighs, roughly: a ledger that proposes plans. Only an `Estimate` decides whether one fits."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fitplug.model.records import Layer, Model
from fitplug.settings import Settings
from fitplug.units import pad

EXPERTS = re.compile(r"^blk\.(\d+)\.ffn_(up|down|gate_up|gate)_(?:ch)?exps\b")
"""What -ncmoe moves (common/common.h, llm_ffn_exps_block_regex)."""
FFN = re.compile(r"^blk\.(\d+)\.ffn_(up|down|gate_up|gate)\.")
BLOCK = re.compile(r"^blk\.(\d+)\.")
INPUTS = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
"""Always with the CPU (src/llama-model.cpp, load_tensors: the input layer)."""
_BLOCK_BYTES = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20),
                "iq4_nl": (32, 18), "q5_0": (32, 22), "q5_1": (32, 24)}  # fmt: skip
"""ggml-common.h: elements and bytes of a block of each cache type."""


class LayerCost(NamedTuple):
    """One layer's weights: what goes with the layer, and what may stay on the CPU without it."""

    base: int
    parts: Mapping[str, int]
    """"up", "gate", "down", "gate_up" → bytes."""

    @property
    def whole(self) -> int:
        """All of it."""
        return self.base + sum(self.parts.values())


class Costs(NamedTuple):
    """The ledger of one model; the last of `layers` is the output layer."""

    layers: Sequence[LayerCost]
    experts: bool
    """The movable parts are experts: they leave the GPU before any layer does."""
    model: Model

    def cache(self, settings: Settings, n_ctx: int) -> list[int]:
        """Cache bytes of each layer at `n_ctx`, where the cache is on the GPU; the output layer has none."""
        if not settings.offload_kqv:
            return [0] * len(self.layers)
        return [layer_cache(self.model, layer, settings, n_ctx) for layer in self.model.layers] + [0]


def layer_cache(model: Model, layer: Layer, settings: Settings, n_ctx: int) -> int:
    """Bytes of one layer's cache and state, nearly as src/llama-kv-cache.cpp and its siblings allocate them."""
    n_bytes = 4 * (layer.n_embd_r + layer.n_embd_s) * settings.n_seq_max if layer.is_recurrent else 0
    if not layer.has_kv or layer.is_nextn or model.memory in ("none", "recurrent"):
        return n_bytes
    n_stream = 1 if settings.kv_unified else settings.n_seq_max
    cells = n_ctx // n_stream
    if layer.is_swa and not settings.swa_full:
        window = model.n_swa * (settings.n_seq_max if settings.kv_unified else 1) + settings.n_ubatch
        cells = min(cells, pad(window, 256))
    k = cache_row(settings.type_k, layer.n_embd_k_gqa + layer.n_embd_indexer)
    v = 0 if model.is_mla else cache_row(settings.type_v, layer.n_embd_v_gqa)
    return n_bytes + (k + v) * cells * n_stream


def cache_row(kind: str, width: int) -> int:
    """Bytes of one cell of that width."""
    elements, n_bytes = _BLOCK_BYTES[kind]
    return -(-width // elements) * n_bytes


def weigh(model: Model, settings: Settings, *, movable: bool = True) -> Costs:
    """Sort a model's tensors into layers; what the user's own overrides keep on the CPU weighs nothing.

    Args:
        model: The tensors.
        settings: For the user's overrides.
        movable: False: no part of a layer may be sent to the CPU without the layer.
    """
    experts = any(EXPERTS.match(name) for name in model.tensors)
    pattern = EXPERTS if experts else FFN
    base = [0] * (model.n_layer_all + 1)
    parts: list[dict[str, int]] = [{} for _ in base]
    for name, tensor in model.tensors.items():
        if name.startswith(INPUTS) or _stays_on_cpu(name, settings):
            continue
        block = BLOCK.match(name)
        index = min(int(block[1]), model.n_layer_all) if block else model.n_layer_all
        if index < model.n_layer_all and model.layers[index].is_nextn:
            continue
        part = pattern.match(name) if movable else None
        if part:
            parts[index][part[2]] = parts[index].get(part[2], 0) + tensor.n_bytes
        else:
            base[index] += tensor.n_bytes
    tied = model.tensors.get("token_embd.weight")
    if model.tied_output and model.has_output and tied:
        base[-1] += tied.n_bytes
    return Costs([LayerCost(b, p) for b, p in zip(base, parts, strict=True)], experts and movable, model)


def _stays_on_cpu(name: str, settings: Settings) -> bool:
    expert = EXPERTS.match(name)
    if expert and (settings.n_cpu_moe < 0 or int(expert[1]) < settings.n_cpu_moe):
        return True
    for pattern, buffer in settings.overrides:
        try:
            if re.search(pattern, name):
                return buffer == "CPU"
        except re.error:  # llama.cpp's regular expressions are another dialect; the estimate decides in the end
            continue
    return False
