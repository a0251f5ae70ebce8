"""Whether flash attention that is on "auto" stays on.

llama.cpp schedules a trial graph and turns it off if any flash attention node lands on another device than its layer
(llama_context::sched_reserve, src/llama-context.cpp). What is said here is the part of it that follows from head sizes
and types alone; where a graph can be drawn, `memory.compute` has the last word.
"""

from fitplug.memory.placement import Placement
from fitplug.memory.records import HOST, Resolved
from fitplug.model.records import Layer, Model

CUDA_TYPES = frozenset({"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"})
"""ggml_cuda_fattn_kv_type_supported (ggml/src/ggml-cuda/fattn.cu)."""
_SAME = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
_GROUPED = {(192, 128): 8, (320, 256): 32, (512, 512): 1, (576, 512): 1}
"""(K, V) head sizes that need grouped queries → what their number must be a multiple of."""


def auto_stays_on(model: Model, placement: Placement, resolved: Resolved) -> bool:
    """Whether every layer's device can do flash attention with its heads and types."""
    rules = {name: row.flash_attn for name, row in zip(placement.names, placement.backends, strict=True)}
    for layer in model.layers[: model.n_layer]:
        device = placement.layer_devices[layer.il]
        if device == HOST or rules[device] != "cuda" or not _attends(model, layer):
            continue
        if not _cuda_can(model, layer, resolved):
            return False
    return True


def _attends(model: Model, layer: Layer) -> bool:
    if layer.n_head == 0 or model.memory == "recurrent":
        return False
    return layer.has_kv or not layer.is_recurrent


def _cuda_can(model: Model, layer: Layer, resolved: Resolved) -> bool:
    """ggml_cuda_get_best_fattn_kernel, in the shapes of the trial graph."""
    if model.memory != "none" and not {resolved.type_k, resolved.type_v} <= CUDA_TYPES:
        return False
    k, v = head_sizes(model, layer)
    if k == v and k in _SAME:
        return True
    n_kv = max(layer.n_head_kv, 1)
    groups = layer.n_head // n_kv
    multiple = _GROUPED.get((k, v))
    return multiple is not None and groups >= 2 and groups % multiple == 0 and model.memory != "none"


def head_sizes(model: Model, layer: Layer) -> tuple[int, int]:
    """Length of K and V of one head as attention sees them; with MLA, V is the front of K."""
    if model.memory == "dsv4":
        return layer.n_embd_head_k, layer.n_embd_head_k
    if model.is_mla:
        swa = layer.is_swa and model.hparam("n_lora_kv_swa")
        return layer.n_embd_head_k, model.hparam("n_lora_kv_swa" if swa else "n_lora_kv")
    return layer.n_embd_head_k, layer.n_embd_head_v
