"""The target of a draft, as far as the draft's graph looks into it (llama_context_params::ctx_other)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fitplug.memory.cache import CacheTensor, cache_tensors, cells, cells_of
from fitplug.memory.placement import Placement
from fitplug.memory.records import Resolved
from fitplug.memory.weights import OUTPUT_WEIGHT, TOKEN_EMBD, Placed
from fitplug.model.records import Model
from fitplug.record import record
from fitplug.settings import Settings

if TYPE_CHECKING:
    from fitplug.memory.graph.params import Lent
    from fitplug.memory.graph.tensor import Buffer


@record
class Target:
    """A model that is loaded, with the context that it runs in."""

    model: Model
    placement: Placement
    placed: Placed
    resolved: Resolved
    settings: Settings


def lend(target: Target, placement: Placement, buffer: "Callable[[str], Buffer]") -> "Lent":
    """What a draft placed so may use of its target; `buffer` makes the draft's view of one buffer type.

    Raises:
        UnknownGraphError: it lies on a device that the draft does not use.
    """
    from fitplug.memory.graph.errors import UnknownGraphError
    from fitplug.memory.graph.params import Lent, LentTensor

    def lent(type_: str, shape: tuple[int, ...], kind: str, *, is_weights: bool = True) -> LentTensor:
        if kind in target.placement.names and kind not in placement.names:
            raise UnknownGraphError(f"the draft does not use {kind}, where its target has a tensor that it needs")
        return LentTensor(type_, shape, buffer(kind)._replace(is_weights=is_weights))

    tensors, kind = target.model.tensors, target.placed.output_buffer
    embd, output = tensors.get(TOKEN_EMBD), tensors.get(TOKEN_EMBD if target.model.tied_output else OUTPUT_WEIGHT)
    return Lent(
        lent(embd.type, embd.shape, target.placed.tensors()[TOKEN_EMBD]) if embd is not None else None,
        lent(output.type, output.shape, kind) if output is not None and kind is not None else None,
        {il: (lent(k.type, k.shape, place, is_weights=False), lent(v.type, v.shape, place, is_weights=False))
         for il, (k, v, place) in _last_cells(target).items()},
    )  # fmt: skip


def _last_cells(target: Target) -> dict[bool, tuple[CacheTensor, CacheTensor, str]]:
    """K and V, and where they lie, that the last windowed layer reads, and the last full one, in models of two such layers.

    `share` of llama_model::create_memory (src/llama-model.cpp): the last layer, and the windowed one before it.
    """
    model, settings = target.model, target.settings
    if model.memory != "iswa" or model.n_layer < 2:
        return {}
    size = cells(model, target.resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
    made = {(t.il, t.part): t for t in cache_tensors(model, target.resolved, size)}
    found = {}
    for is_swa, il in ((False, model.n_layer - 1), (True, model.n_layer - 2)):
        source = cells_of(model.layers, il)
        if model.layers[il].is_swa == is_swa and (source, "v") in made:
            found[is_swa] = made[source, "k"], made[source, "v"], target.placement.cache_devices[source]
    return found
