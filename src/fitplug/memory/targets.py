"""The target of a draft, as far as the draft's graph looks into it (llama_context_params::ctx_other)."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Literal, NamedTuple

from fitplug.errors import RefusedError
from fitplug.memory.cache import CacheTensor, cache_tensors, cells, cells_of
from fitplug.memory.draft_kinds import kind_of
from fitplug.memory.placement import Placement
from fitplug.memory.records import Resolved
from fitplug.memory.weights import OUTPUT_WEIGHT, TOKEN_EMBD, Placed
from fitplug.model.records import Model
from fitplug.record import record
from fitplug.settings import Settings

if TYPE_CHECKING:
    from fitplug.memory.graph.params import Lent
    from fitplug.memory.graph.tensor import Buffer


class Taps(NamedTuple):
    """What drafting asks of a context after it was made (common_speculative_init, common/speculative.cpp).

    At the first batch llama.cpp reserves anew, or its allocator does for a graph that does not fit.
    """

    nextn: Literal["none", "outputs", "all"] = "none"
    """Of which tokens the state before the output is kept (cparams.embeddings_nextn, _masked)."""
    inputs: frozenset[int] = frozenset()
    """Layers whose inputs are kept (cparams.embeddings_layer_inp); n_layer is the last one's output."""
    sampled: int = 0
    """At most so many tokens of each sequence are picked by the device (llama_set_sampler); 0: none."""
    rows: int = 1
    """Tokens of each sequence that have an output."""
    encodes: bool = False
    """Whole micro-batches go through an encoder, whose tokens all have an output."""
    fed: bool = False
    """It takes in its target's states by a graph of its own, a micro-batch at a time."""

    def redraw(self, architecture: str) -> bool:
        """Whether another graph is drawn."""
        return bool(self.inputs or self.sampled or self.fed or (self.nextn == "all" and architecture in KEEPS_LATE))


KEEPS_LATE = frozenset(("deepseek2", "mistral4", "deepseek32", "glm-dsa", "glm4moe", "mimo2", "deepseek4"))
"""Architectures whose last layer runs for every token only if all states before the output are asked for."""
NO_TAPS = Taps()
HANDED_OVER = "outputs and states handed over"
"""The source of the output buffer in host memory, as large as drafting makes it."""
GROWN = "compute buffer grown by drafting"
"""The source of what a context reserves more at the first batch than when it was made: no log of a start has it."""

SCRATCH = "kernels' own memory"
"""The source of what a device's kernels take besides the compute buffer while prompts are read."""


@record
class Target:
    """A model that is loaded, with the context that it runs in."""

    model: Model
    placement: Placement
    placed: Placed
    resolved: Resolved
    settings: Settings

    @property
    def cells(self) -> Hashable:
        """Where its cache lies, and of which types."""
        return tuple(self.placement.cache_devices), self.resolved.type_k, self.resolved.type_v


class Role(NamedTuple):
    """What a context is in speculative decoding."""

    target: Target | None = None
    """Whom a draft borrows tensors of."""
    taps: Taps = NO_TAPS


ALONE = Role()


def borrows(draft: Model) -> frozenset[str]:
    """What of its target's a draft's graph uses: "tok_embd", "output", "cells"."""
    if draft.row.target_context:
        return frozenset(("tok_embd", "cells"))
    kind = kind_of(draft.architecture)
    if not kind.borrows:
        return frozenset()
    has_embd, has_output = TOKEN_EMBD in draft.tensors, OUTPUT_WEIGHT in draft.tensors
    has_output |= kind.ties_output and has_embd
    return frozenset(name for name, own in (("tok_embd", has_embd), ("output", has_output)) if not own)


def lend(target: Target, draft: Model, placement: Placement, buffer: "Callable[[str], Buffer]") -> "Lent":
    """What a draft placed so uses of its target; `buffer` makes the draft's view of one buffer type.

    Raises:
        RefusedError: it lies on a device that the draft does not use; ggml aborts at that.
    """
    from fitplug.memory.graph.params import Lent, LentCells, LentTensor

    def lent(type_: str, shape: tuple[int, ...], kind: str, *, is_weights: bool = True) -> LentTensor:
        if kind in target.placement.names and kind not in placement.names:
            raise RefusedError(f"the draft needs a tensor of its target's on {kind}, which it does not use (-devd)")
        return LentTensor(type_, shape, buffer(kind)._replace(is_weights=is_weights))

    wanted, tensors, kind = borrows(draft), target.model.tensors, target.placed.output_buffer
    embd = tensors.get(TOKEN_EMBD) if "tok_embd" in wanted else None
    output = tensors.get(TOKEN_EMBD if target.model.tied_output else OUTPUT_WEIGHT) if "output" in wanted else None
    return Lent(
        lent(embd.type, embd.shape, target.placed.tensors()[TOKEN_EMBD]) if embd is not None else None,
        lent(output.type, output.shape, kind) if output is not None and kind is not None else None,
        {
            is_swa: LentCells(
                lent(k.type, k.shape, place, is_weights=False), lent(v.type, v.shape, place, is_weights=False),
                *_rotations(target, is_swa),
            )
            for is_swa, (k, v, place) in (_last_cells(target) if "cells" in wanted else {}).items()
        },
    )  # fmt: skip


def _rotations(target: Target, is_swa: bool) -> tuple[int, int]:
    """Of K and V in the cache of that kind of layer."""
    from fitplug.memory.graph.caches import k_rotation, v_rotation

    layers, first, resolved = target.model.layers, target.model.layers[0], target.resolved
    own = [layer for layer in layers if layer.has_kv and layer.is_swa == is_swa]
    return (
        k_rotation({layer.n_embd_head_k for layer in own}, first.n_embd_head_k, resolved.type_k),
        v_rotation({layer.n_embd_head_v for layer in own}, first.n_embd_head_v, resolved.type_v),
    )


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
