"""-sm tensor: every layer on all devices at once (llama_meta_device_get_split_state, src/llama-model.cpp).

The large matrices, the cache's heads and the states are cut by the devices' shares; everything else lies on each device in
full. llama.cpp rounds the cuts to whole heads and blocks, which is left out here: these parts are modelled.
"""

import re
from dataclasses import replace

from fitplug.errors import RefusedError
from fitplug.memory.cache import CacheTensor
from fitplug.memory.placement import Placement
from fitplug.memory.records import HOST, Basis, Kind, Part
from fitplug.memory.sizes import alloc_size
from fitplug.memory.weights import Placed
from fitplug.model.records import Model
from fitplug.settings import Settings

_CUT = re.compile(
    r"blk\.\d+\.(attn_(q|k|v|qkv|gate)\.(weight|bias)|attn_output\.weight|attn_sinks\.weight|ssm_(dt\.bias|a)"
    r"|ssm_(alpha|beta|ba|conv1d|out)\.weight|ffn_(up|gate|gate_up)(_exps)?\.(weight|bias)|ffn_down(_exps)?\.weight)"
    r"|output\.(weight|bias)",
    re.ASCII,
)
"""Tensors that are cut; all others are mirrored."""
_CUT_CACHE = frozenset({"k", "v", "r", "s"})


def refuse_unsupported(model: Model) -> None:
    """llm_arch_supports_sm_tensor (src/llama-arch.cpp).

    Raises:
        RefusedError: the architecture cannot be cut.
    """
    if model.row.no_tensor_split:
        raise RefusedError(f"-sm tensor: llama.cpp cannot cut '{model.architecture}'; use -sm layer")


def whole(placement: Placement) -> Placement:
    """The placement as llama.cpp's one "Meta" device sees it: all that is on any device is on the first."""
    layers = tuple(HOST if device == HOST else placement.names[0] for device in placement.layer_devices)
    caches = tuple(HOST if device == HOST else placement.names[0] for device in placement.cache_devices)
    return replace(placement, layer_devices=layers, cache_devices=caches, pipeline=False)


def shares(settings: Settings, n: int) -> list[float]:
    """What each device gets of a tensor that is cut: the given split, or the same for all."""
    given = [*settings.tensor_split[:n], *[0.0] * max(0, n - len(settings.tensor_split))]
    total = sum(given)
    return [value / total for value in given] if total > 0 else [1 / n] * n


def weight_parts(placed: Placed, placement: Placement, settings: Settings) -> list[Part]:
    """Weights of each device and of the host."""
    split = shares(settings, len(placement.names))
    held = dict.fromkeys(placement.names, 0)
    host: dict[str, int] = {}
    sizes = [(w.tensor.name, placed.buffer(w), w.tensor.n_bytes) for w in placed.table.weights]
    sizes += [(name, buffer, placed.model.tensors[name].n_bytes) for name, buffer in placed.duplicates()]
    for name, buffer, n_bytes in sizes:
        if buffer not in held:
            host[buffer] = host.get(buffer, 0) + n_bytes
            continue
        cut = _CUT.fullmatch(name) is not None or (name == "token_embd.weight" and placed.model.tied_output)
        for device, share in zip(placement.names, split, strict=True):
            held[device] += round(n_bytes * share) if cut else n_bytes
    parts = [Part(device, Kind.MODEL, n, Basis.MODELLED, "weights, cut") for device, n in held.items() if n]
    return parts + [_host_part(buffer, n) for buffer, n in host.items()]


def _host_part(buffer: str, n_bytes: int) -> Part:
    return Part(HOST, Kind.MODEL, n_bytes, Basis.EXACT, "weights", buffer if buffer != HOST else "")


def cache_parts(tensors: list[CacheTensor], placement: Placement, settings: Settings, model: Model) -> list[Part]:
    """The cache of each device and of the host."""
    split = shares(settings, len(placement.names))
    held = dict.fromkeys((*placement.names, HOST), 0)
    for tensor in tensors:
        n_bytes = alloc_size(tensor.type, tensor.shape)
        if placement.cache_devices[tensor.il] == HOST:
            held[HOST] += n_bytes
            continue
        cut = tensor.part in _CUT_CACHE and model.memory != "dsv4" and model.row.state != "shortconv"
        for device, share in zip(placement.names, split, strict=True):
            held[device] += round(n_bytes * share) if cut else n_bytes
    return [Part(device, Kind.CONTEXT, n, Basis.MODELLED, "cache, cut") for device, n in held.items() if n]


def compute_parts(parts: list[Part], placement: Placement) -> list[Part]:
    """The one device's compute buffer, supposed on each: masks and residuals are mirrored, the widest rows are cut."""
    first = placement.names[0]
    found = [part for part in parts if part.device != first]
    for part in parts:
        if part.device == first:
            found += [part._replace(device=name, basis=Basis.MODELLED) for name in placement.names]
    return found
