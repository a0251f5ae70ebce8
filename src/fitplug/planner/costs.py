"""What each layer weighs, roughly: a ledger that proposes plans. Only an `Estimate` decides whether one fits."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fitplug.extension import Runner
from fitplug.memory.cache import cache_tensors, cells
from fitplug.memory.context import resolve
from fitplug.memory.overrides import Rule, rules
from fitplug.memory.records import HOST
from fitplug.memory.sizes import alloc_size
from fitplug.model.records import Model
from fitplug.settings import Settings

EXPERTS = re.compile(r"^blk\.(\d+)\.ffn_(up|down|gate_up|gate)_(?:ch)?exps\b")
"""What -ncmoe moves (common/common.h, llm_ffn_exps_block_regex)."""
FFN = re.compile(r"^blk\.(\d+)\.ffn_(up|down|gate_up|gate)\.")
BLOCK = re.compile(r"^blk\.(\d+)\.")
INPUTS = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
"""Always with the CPU (src/llama-model.cpp, load_tensors: the input layer)."""


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


def share_of_experts(model: Model) -> float:
    """Which part of the experts' weights a token uses."""
    used = model.get_int("expert_used_count")
    return min(1.0, used / model.n_expert) if used and model.n_expert else 1.0


def layer_caches(model: Model, settings: Settings, runner: Runner) -> list[int]:
    """Cache and state bytes of each layer, where they are on the GPU; the output layer, the last one, has none."""
    sizes = [0] * (model.n_layer_all + 1)
    if not settings.offload_kqv:
        return sizes
    resolved = resolve(model, settings, runner, settings.n_gpu_layers)
    size = cells(model, resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
    for tensor in cache_tensors(model, resolved, size):
        sizes[tensor.il] += alloc_size(tensor.type, tensor.shape)
    return sizes


def weigh(model: Model, settings: Settings, devices: Sequence[str], *, movable: bool = True) -> Costs:
    """Sort a model's tensors into layers; what the user's own overrides keep on the CPU weighs nothing.

    Args:
        model: The tensors.
        settings: For the user's overrides.
        devices: Names that overrides may use.
        movable: False: no part of a layer may be sent to the CPU without the layer.
    """
    experts = any(EXPERTS.match(name) for name in model.tensors)
    pattern = EXPERTS if experts else FFN
    base = [0] * (model.n_layer_all + 1)
    parts: list[dict[str, int]] = [{} for _ in base]
    overrides = rules(settings, devices)
    for name, tensor in model.tensors.items():
        if name.startswith(INPUTS) or _stays_on_cpu(name, overrides):
            continue
        block = BLOCK.match(name)
        index = min(int(block[1]), model.n_layer_all) if block else model.n_layer_all
        if index < model.n_layer_all and model.layers[index].is_nextn and not settings.drafts_by_mtp:
            continue
        part = pattern.match(name) if movable else None
        if part:
            parts[index][part[2]] = parts[index].get(part[2], 0) + tensor.n_bytes
        else:
            base[index] += tensor.n_bytes
    tied = model.tensors.get("token_embd.weight")
    if model.tied_output and model.has_output and tied:
        base[-1] += tied.n_bytes
    return Costs([LayerCost(b, p) for b, p in zip(base, parts, strict=True)], experts and movable)


def _stays_on_cpu(name: str, overrides: Sequence[Rule]) -> bool:
    first = next((rule for rule in overrides if rule.find.search(name)), None)
    return first is not None and first.target == HOST
