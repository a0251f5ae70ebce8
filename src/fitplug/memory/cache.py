"""The cache and the recurrent states, tensor by tensor, as llama.cpp's memory classes make them.

`cache_tensors` answers every tensor of a model's memory; its place is its layer's (`Placement.cache_devices`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fitplug.machine.backends import CPU_ALIGNMENT
from fitplug.memory.placement import Placement
from fitplug.memory.records import Resolved
from fitplug.memory.sizes import alloc_size
from fitplug.model.layers import CSA_RATIO, HCA_RATIO
from fitplug.model.records import Layer, Model
from fitplug.units import pad

CELLS = 256
"""Windowed and compressed caches are rounded up to this many cells."""


class CacheTensor(NamedTuple):
    """One tensor of the memory."""

    il: int
    part: str
    """"k", "v", an index cache's "idx_k" and "idx_v", the states "r", "s", "ple", or a compressor's."""
    type: str
    shape: tuple[int, int, int]


class Cells(NamedTuple):
    """How long the caches are."""

    base: int
    swa: int
    streams: int


def cells(model: Model, resolved: Resolved, *, kv_unified: bool, swa_full: bool) -> Cells:
    """llama_kv_cache_iswa's constructor (src/llama-kv-cache-iswa.cpp), and the like for other caches."""
    per_sequence = not kv_unified or model.memory == "dsv4"
    window = model.n_swa * (1 if per_sequence else resolved.n_seq_max) + resolved.n_ubatch
    swa = resolved.n_ctx_seq if swa_full else pad(min(resolved.n_ctx_seq, window), CELLS)
    return Cells(resolved.n_ctx_seq, swa, resolved.n_seq_max if per_sequence else 1)


def cells_of(layers: Sequence[Layer], il: int) -> int:
    """The layer whose cells layer `il` reads: its own, or of the last ones of its kind that have any.

    The `reuse` of llama_model::create_memory, for gemma3n and gemma4.
    """
    if layers[il].has_kv:
        return il
    n_layer_kv_from_start = next((layer.il for layer in layers if not layer.has_kv), il)
    return max(n_layer_kv_from_start - (2 if layers[il].is_swa else 1), 0)


def cache_tensors(model: Model, resolved: Resolved, size: Cells) -> list[CacheTensor]:
    """All tensors of the memory, layer by layer."""
    v_widest = max((layer.n_embd_v_gqa for layer in model.layers), default=0) if resolved.v_trans else None
    found: list[CacheTensor] = []
    for layer in model.layers:
        if layer.has_kv:
            found += _attention(model, layer, resolved, size, v_widest)
            if layer.n_embd_indexer:
                found += _indexer(model, layer, resolved, size)
        if layer.is_recurrent:
            found += _state(layer, resolved)
        if layer.compress_ratio and model.memory == "dsv4":
            found += _compressed(model, layer, resolved, size)
    return found


def _attention(model: Model, layer: Layer, resolved: Resolved, size: Cells, v_widest: int | None) -> Iterator[CacheTensor]:
    """llama_kv_cache's constructor: V lies transposed where flash attention is off, and then every layer's is as wide."""
    n = size.swa if _is_windowed(model, layer) else size.base
    yield CacheTensor(layer.il, "k", resolved.type_k, (layer.n_embd_k_gqa, n, size.streams))
    if not (model.is_mla or model.memory == "dsv4"):
        width = layer.n_embd_v_gqa if v_widest is None else v_widest
        yield CacheTensor(layer.il, "v", resolved.type_v, (width, n, size.streams))


def _is_windowed(model: Model, layer: Layer) -> bool:
    return layer.is_swa and model.memory in ("iswa", "hybrid_iswa", "dsa_iswa", "dsv4")


def _indexer(model: Model, layer: Layer, resolved: Resolved, size: Cells) -> Iterator[CacheTensor]:
    """The index cache: one key head. Where it does not pretend to be MLA it gets a V that nothing reads."""
    if model.memory == "dsv4":
        return
    yield CacheTensor(layer.il, "idx_k", resolved.type_k, (layer.n_embd_indexer, size.base, size.streams))
    if model.memory != "hybrid_idx" and not model.is_mla:
        widest = max(other.n_embd_head_v for other in model.layers) if resolved.v_trans else layer.n_embd_head_v
        yield CacheTensor(layer.il, "idx_v", resolved.type_v, (widest, size.base, size.streams))


def _state(layer: Layer, resolved: Resolved) -> Iterator[CacheTensor]:
    """llama_memory_recurrent's constructor: R, S and the history of per-layer embeddings, in full precision."""
    rows = max(1, resolved.n_seq_max) * (1 + resolved.n_rs_seq)
    yield CacheTensor(layer.il, "r", "f32", (layer.n_embd_r, rows, 1))
    yield CacheTensor(layer.il, "s", "f32", (layer.n_embd_s, rows, 1))
    if layer.n_embd_ple:
        yield CacheTensor(layer.il, "ple", "f32", (layer.n_embd_ple, rows, 1))


def _compressed(model: Model, layer: Layer, resolved: Resolved, size: Cells) -> Iterator[CacheTensor]:
    """llama_kv_cache_dsv4's compressed caches and their compressors' states (src/llama-kv-cache-dsv4.cpp)."""
    ratio, streams = layer.compress_ratio, size.streams
    if ratio not in (CSA_RATIO, HCA_RATIO):
        return
    n = pad(max(1, -(-size.base // ratio)), CELLS)
    yield CacheTensor(layer.il, "compressed_k", resolved.type_k, (layer.n_embd_k_gqa, n, streams))
    if ratio == CSA_RATIO:
        yield CacheTensor(layer.il, "idx_k", resolved.type_k, (layer.n_embd_indexer, n, streams))
    if layer.is_nextn:  # llama_dsv4_comp_state stops at n_layer()
        return
    head_k = model.layers[0].n_embd_head_k
    widths = [2 * head_k, 2 * layer.n_embd_indexer] if ratio == CSA_RATIO else [head_k]
    length = 2 * CSA_RATIO if ratio == CSA_RATIO else HCA_RATIO
    for width in widths:
        for part in ("state_kv", "state_score"):
            yield CacheTensor(layer.il, part, "f32", (width, length, streams * (1 + resolved.n_rs_seq)))


class CacheBytes(NamedTuple):
    """What a buffer type holds of the memory."""

    kv: int = 0
    state: int = 0


NOTHING_HELD = CacheBytes()

_STATES = frozenset({"r", "s", "ple", "state_kv", "state_score"})


def cache_bytes(tensors: Sequence[CacheTensor], placement: Placement) -> Mapping[str, CacheBytes]:
    """Bytes per device, each tensor padded to its buffer's alignment."""
    shapes = {n: (b.alignment, b.row_padding) for n, b in zip(placement.names, placement.backends, strict=True)}
    known: dict[tuple[str, tuple[int, int, int], tuple[int, int]], int] = {}
    total: dict[str, list[int]] = {}
    for tensor in tensors:
        device = placement.cache_devices[tensor.il]
        alignment, padding = shape = shapes.get(device, (CPU_ALIGNMENT, 0))
        key = (tensor.type, tensor.shape, shape)
        n_bytes = known.get(key)
        if n_bytes is None:
            n_bytes = known[key] = pad(alloc_size(tensor.type, tensor.shape, padding), alignment)
        total.setdefault(device, [0, 0])[tensor.part in _STATES] += n_bytes
    return {device: CacheBytes(*sums) for device, sums in total.items()}
