"""What a graph is built for: llm_graph_params (src/llama-graph.h) with what it reads from elsewhere."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import field, fields, replace
from typing import NamedTuple, TypeAlias

from fitplug.formats.header import Tensor
from fitplug.memory.graph.backends import OFFLOAD_MIN_BATCH, Backend
from fitplug.memory.graph.layers import WHOLE, Blocks, Cut
from fitplug.memory.graph.tensor import Buffer
from fitplug.memory.targets import NO_TAPS, Taps
from fitplug.model.records import Model
from fitplug.record import record
from fitplug.settings import Pooling


class Halves(NamedTuple):
    """What an adapter has beside one weight (llama_adapter_lora_weight)."""

    a: Tensor
    b: Tensor
    buffer: Buffer
    """Adapters are no weights to the scheduler: their buffers' usage is never set."""


class Copied(NamedTuple):
    """Rope factors: each backend's layers have a copy (TENSOR_DUPLICATED)."""

    name: str


Home: TypeAlias = str | int | Copied
"""What decides where a leaf lies that is there before the graph: a weight's name, a cache's layer, `OUTPUT`, rope factors."""
OUTPUT = ""
"""The token embeddings as the output matrix, if they are a tensor of their own there."""


class LentTensor(NamedTuple):
    """A tensor of the target's that a draft's graph uses."""

    type: str
    shape: tuple[int, ...]
    buffer: Buffer


class LentCells(NamedTuple):
    """K and V of one layer of the target, and the Hadamard matrices of its cache; 0: none."""

    k: LentTensor
    v: LentTensor
    k_rot: int
    v_rot: int

    @property
    def fixed(self) -> Hashable:
        """All but how long it is."""
        return self.k.type, self.k.buffer, self.v.type, self.v.buffer, self.k_rot, self.v_rot


class Lent(NamedTuple):
    """What a target lends its draft (cparams.ctx_other)."""

    tok_embd: LentTensor | None
    output: LentTensor | None
    caches: Mapping[bool, LentCells]
    """Whether windowed → the cells that a draft without a cache of its own reads."""

    @property
    def fixed(self) -> Hashable:
        """All but how long the cells are."""
        return self.tok_embd, self.output, tuple(cells.fixed for _, cells in sorted(self.caches.items()))


VARYING = frozenset((
    "model", "layer_backends", "weights", "blocks", "n_ctx", "n_ctx_seq", "moved", "n_gpu_layers", "lent", "fused", "adapters",
    "cut",
))  # fmt: skip
"""Fields of `GraphParams` that graphs of one structure may differ in, or that are the same all the time."""


LENGTHS = ("n_ctx", "n_ctx_seq", "n_ubatch")
"""Fields that only caches' lengths follow from."""


@record
class GraphParams:
    """One micro-batch of one model on one set of backends."""

    model: Model
    backends: Sequence[Backend]
    """In the scheduler's order: devices first, the CPU last."""
    layer_backends: Sequence[int]
    """Backend of each layer's device (llama_model::dev_layer), the output layer's last."""
    weights: Mapping[str, Buffer]
    """Buffer of every tensor of the file that is loaded, by name."""
    output: Buffer
    """Where token_embd.weight lies when it stands in for a missing output.weight."""
    moved: bool
    """Whether some tensors lie elsewhere than their layer's device."""
    blocks: Blocks
    n_tokens: int
    n_seqs: int
    n_outputs: int
    n_ctx: int
    n_ctx_seq: int
    n_ubatch: int
    n_seq_max: int
    n_stream: int
    """Streams of the cache: 1 if unified."""
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: bool = True
    v_trans: bool = False
    offload_kqv: bool = True
    swa_full: bool = False
    pin: bool = True
    """Whether the callers' assignments of nodes to backends hold; llama-fit-params' measuring forgets them."""
    n_gpu_layers: int = 0
    pooling: Pooling | None = None
    """How the tokens' embeddings are pooled; None: they are not asked for (cparams.embeddings)."""
    lent: Lent | None = None
    taps: Taps = NO_TAPS
    feeding: bool = False
    """The graph by which a draft takes in its target's states (ubatch.embd; EAGLE-3's encoder)."""
    mtp: bool = False
    """The context of the MTP blocks (LLAMA_CONTEXT_TYPE_MTP)."""
    n_rs_seq: int = 0
    fused: Mapping[str, bool] = field(default_factory=dict)
    """Fused operations that were resolved to off: {"gdn_ar": False}; absent is on (llama_context::resolve_fused_ops)."""
    adapters: Mapping[str, Sequence[Halves]] = field(default_factory=dict)
    """What adapters add to the products with a tensor of this name, in the order in which it is added."""
    cut: Cut = WHOLE
    """How many of equal layers to build."""

    @property
    def copies_weights(self) -> bool:
        """Whether the batch is long enough for a device to compute with copies of weights that lie in host memory."""
        return self.n_tokens >= OFFLOAD_MIN_BATCH

    @property
    def reads_caches_elsewhere(self) -> bool:
        """Whether cells may lie elsewhere than the layer that reads them, so that they are copied for it."""
        shared = bool(self.blocks.lending) and len(set(self.layer_backends)) > 1
        return not self.offload_kqv or self.lent is not None or shared

    @property
    def fixed(self) -> Hashable:
        """All that is neither the context's length nor what lies where."""
        others = [getattr(self, name) for name in _FIXED]
        return (
            *others,
            self.pins_layers,
            self.lent and self.lent.fixed,
            tuple(sorted(self.fused.items())),
            bool(self.adapters),
        )

    @property
    def shaping(self) -> Hashable:
        """All that decides which tensors the graph has, and their shapes, but for `lengths`; None: not easily said.

        Backends and what lies on them decide neither.
        """
        if self.lent is not None or self.adapters:
            return None
        tied = self.weights.get("token_embd.weight") == self.output
        others = [getattr(self, name) for name in _SHAPING]
        return (*others, tuple(sorted(self.fused.items())), tied, len(self.weights))

    @property
    def lengths(self) -> Sequence[int]:
        """What is left open in a sketch (sketches.py)."""
        return [getattr(self, name) for name in LENGTHS]

    @property
    def pins_layers(self) -> bool:
        """Whether nodes named "norm" and "l_last" are given to their layer's device (llama_context::graph_get_cb)."""
        return self.pin and (self.n_tokens < OFFLOAD_MIN_BATCH or self.n_gpu_layers > self.model.n_layer_all)

    def layer_buffer(self, il: int, *, is_weights: bool = False) -> Buffer:
        """The buffer of layer `il`'s own device."""
        backend = self.layer_backends[il]
        return Buffer(self.backends[backend].name, (backend,), backend == len(self.backends) - 1, is_weights)

    def cache_buffer(self, il: int) -> Buffer:
        """The buffer of layer `il`'s cells or states; on the CPU it is the plain one, never pinned."""
        if self.offload_kqv:
            return self.layer_buffer(il)
        return Buffer("CPU", (len(self.backends) - 1,), is_host=True, is_weights=False)

    def buffer_at(self, home: Home, il: int) -> Buffer:
        """Where a leaf of this home lies that layer `il` uses."""
        if isinstance(home, str):
            return self.weights[home] if home != OUTPUT else self.output
        return self.cache_buffer(home) if isinstance(home, int) else self.weights[copy_name(home.name, self.layer_backends[il])]

    def keeping(self, cut: Cut) -> "GraphParams":
        """The same with so much of equal layers."""
        return replace(self, cut=cut)


def copy_name(name: str, backend: int) -> str:
    """What `GraphParams.weights` calls the copy of a rope factor tensor that the layers of one backend have."""
    return f"{name}@{backend}"


_SHAPING = [field.name for field in fields(GraphParams) if field.name not in VARYING | {"output", "pin", "backends", *LENGTHS}]
_FIXED = [field.name for field in fields(GraphParams) if field.name not in VARYING]
