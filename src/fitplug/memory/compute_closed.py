"""Compute buffers by closed forms, for architectures whose graph nobody has drawn: near, and marked as modelled.

Each form is the sum of what is alive at the widest point of a layer of the prompt graph: the residual, the layer's input
and its widest intermediate result, and the attention masks; see "What lives in the buffers" of llama.cpp's allocator
(ggml/src/ggml-alloc.c). They are exact for ordinary dense models and tend to be too large for others.
"""

from fitplug.memory.cache import Cells
from fitplug.memory.placement import Placement
from fitplug.memory.records import HOST, Basis, Kind, Part, Resolved
from fitplug.memory.sizes import is_quantised, row_size
from fitplug.memory.weight_ops import OUTPUT
from fitplug.memory.weights import TOKEN_EMBD, Placed
from fitplug.model.records import Layer, Model
from fitplug.settings import Settings
from fitplug.units import pad

F32, F16, I64 = 4, 2, 8
COPIES = 4
"""GGML_SCHED_MAX_COPIES: with pipeline parallelism, what crosses into a device exists so often."""
MARGIN = 8
"""One such part is added: of llama.cpp's own answers for real models, nine in ten lie below."""
MARGIN_OF_ANOTHER = 4
"""Such a part is added to the graph of the architecture that an unknown one is taken for."""
OFFLOAD_BATCH = 32
"""From this batch on a GPU multiplies with weights that lie in host memory (op_offload_min_batch_size)."""


BY_FORMULA = "compute, by formula"
"""The source of such a part."""


def closed_parts(
    model: Model, placement: Placement, resolved: Resolved, settings: Settings, placed: Placed, cells: Cells
) -> list[Part]:
    """The compute buffer of each device and of the host."""
    form = _Form(model, placement, resolved, settings, placed, cells)
    parts = [_part(name, form.device(name)) for name in placement.names]
    host = form.host()
    parts.append(_part(HOST, host, placement.host_buffer if placement.host_buffer != HOST else ""))
    return [part for part in parts if part.n_bytes]


def _part(device: str, n_bytes: int, buffer: str = "") -> Part:
    return Part(device, Kind.COMPUTE, rounded_up(n_bytes), Basis.MODELLED, BY_FORMULA, buffer)


def rounded_up(n_bytes: int, margin: int = MARGIN) -> int:
    """Up by a share that the errors of a formula, or of another family's graph, seldom exceed."""
    return n_bytes + n_bytes // margin


class _Form:
    """One set of settings, taken apart."""

    def __init__(
        self, model: Model, placement: Placement, resolved: Resolved, settings: Settings, placed: Placed, cells: Cells
    ) -> None:
        self.model, self.placement, self.resolved = model, placement, resolved
        self.settings, self.placed, self.cells = settings, placed, cells
        n_ctx = resolved.n_ctx if model.memory != "none" else resolved.n_ubatch
        self.n_tokens = pad(min(n_ctx, resolved.n_ubatch), resolved.n_seq_max)
        self.n_outputs = min(self.n_tokens, resolved.n_outputs_max)
        self.layers = [layer for layer in model.layers if layer.il < model.n_layer]

    def masks(self) -> int:
        """One mask per kind of cache; halves with flash attention."""
        size = F16 if self.resolved.flash_attn else F32
        lengths = []
        rows = 0
        if self.resolved.v_trans and self.model.memory != "none":  # where each value of a transposed V goes
            rows = I64 * self.n_tokens * max((layer.n_embd_v_gqa for layer in self.layers), default=0)
        if self.model.memory == "none":
            lengths = [self.n_tokens]
        elif any(layer.has_kv and not layer.is_swa for layer in self.layers):
            lengths.append(self.cells.base)
        if self.model.memory != "none" and any(layer.has_kv and layer.is_swa for layer in self.layers):
            lengths.append(self.cells.swa)
        return size * self.n_tokens * sum(lengths) + rows * len(lengths)

    def device(self, name: str) -> int:
        """A device's buffer: its widest layer, or the logits; copies for the pipeline; weights that visit it."""
        first = name == self.placement.names[0]
        mine = [layer for layer in self.layers if self._computed_on(layer) == name]
        widest = max((self._layer(layer) + self._visiting_cache(layer) for layer in mine), default=0)
        logits = F32 * self.n_outputs * (self.model.n_vocab + self.model.n_embd) if self.model.has_output else 0
        visits = first and self.n_outputs >= OFFLOAD_BATCH and self.offloads
        if self.placement.output_device == name or (visits and self.placement.output_device == HOST):
            widest = max(widest, logits)
        if self.placement.pipeline and widest:
            widest += COPIES * (self.masks() + F32 * self.n_tokens * self.model.n_embd)
        return widest + (self._visiting_weight(with_output=visits) if first else 0)

    def _computed_on(self, layer: Layer) -> str:
        """A layer on the host is computed on the first device where its weights visit that one."""
        device = self.placement.layer_devices[layer.il]
        return self.placement.names[0] if device == HOST and self.offloads else device

    def _visiting_cache(self, layer: Layer) -> int:
        """A cache that stays on the host is copied, layer by layer, to where attention is computed."""
        if not self._cache_is_left(layer):
            return 0
        n_kv = (self.cells.swa if layer.is_swa else self.cells.base) * self.cells.streams
        return (
            row_size(self.resolved.type_k, layer.n_embd_k_gqa) * n_kv
            + row_size(self.resolved.type_v, layer.n_embd_v_gqa) * n_kv
        )

    def _cache_is_left(self, layer: Layer) -> bool:
        """Whether the layer is on a device and its cache is not."""
        on_device = self.placement.layer_devices[layer.il] != HOST
        return on_device and layer.has_kv and self.placement.cache_devices[layer.il] == HOST

    def _layer(self, layer: Layer) -> int:
        n, model = self.n_tokens, self.model
        residual = 2 * model.n_embd
        queries = layer.n_head * max(layer.n_embd_head_k, layer.n_embd_head_v)
        wide = max(residual + queries + self._ffn(layer), residual + 2 * queries, self._state(layer))
        total = self.masks() + F32 * n * wide
        if not layer.has_kv:
            return total
        n_kv = self.cells.swa if layer.is_swa else self.cells.base
        if not self.resolved.flash_attn:
            return max(total, self.masks() + F32 * n * (layer.n_head * n_kv + residual + 2 * queries))
        if is_quantised(self.resolved.type_k) or self.resolved.type_k in ("bf16", "f32"):
            copies = F16 * (layer.n_embd_k_gqa + layer.n_embd_v_gqa) * n_kv * self.cells.streams
            return max(total, self.masks() + copies + F32 * n * (residual + 2 * queries))
        return total

    def _ffn(self, layer: Layer) -> int:
        """Elements a token of the feed-forward's widest point: gate, up and their product."""
        dense = 3 * layer.n_ff
        if not layer.n_expert_used or not self.model.n_expert:
            return dense
        width = layer.n_ff_exp or (layer.n_ff if self.model.row.ff_exp is None else layer.n_ff // layer.n_expert_used)
        experts = layer.n_expert_used * max(3 * width, 2 * self.model.n_embd + 2 * width)
        return max(experts, dense if layer.il < self.model.hparam("n_layer_dense_lead") else 0)

    def _state(self, layer: Layer) -> int:
        """Elements a token of a recurrent mixer: projection, convolution in and out, result, gate."""
        if not layer.is_recurrent:
            return 0
        inner = self.model.hparam("ssm_d_inner") or layer.n_head * self.model.hparam("n_embd_head_kda") or self.model.n_embd
        mixed = 2 * self.model.hparam("ssm_n_group") * self.model.hparam("ssm_d_state")
        return 2 * self.model.n_embd + 6 * inner + 3 * mixed + layer.n_embd_s * self.resolved.n_seq_max // self.n_tokens

    @property
    def offloads(self) -> bool:
        """Whether a GPU multiplies with weights that lie in host memory, since the batch is large."""
        return self.settings.op_offload and self.n_tokens >= OFFLOAD_BATCH and bool(self.placement.names)

    def _visiting_weight(self, *, with_output: bool) -> int:
        """The largest of those weights: each is copied when its turn comes."""
        if not self.offloads:
            return 0
        names = self.placement.names
        sizes = [
            w.tensor.n_bytes
            for w in self.placed.table.weights
            if w.use.op in ("MUL_MAT", "MUL_MAT_ID")
            and (with_output or w.use.il != OUTPUT)
            and self.placed.buffer(w) not in names
        ]
        if with_output and self.model.tied_output and self.placed.output_buffer not in names:
            sizes.append(self.model.tensors[TOKEN_EMBD].n_bytes)
        return max(sizes, default=0)

    def host(self) -> int:
        """The CPU's buffer: the graph's inputs, and whole layers where some run there."""
        n, model = self.n_tokens, self.model
        inputs = F32 * n * (model.n_embd_inp + model.n_embd) + self.masks() + F32 * n * (1 + model.n_pos_per_embd)
        inputs += F32 * self.n_outputs + 2 * I64 * n * (2 if model.memory == "iswa" else 1)
        if self.placement.pipeline:
            inputs *= COPIES
        mine = [layer for layer in self.layers if self._computed_on(layer) == HOST]
        work = max((self._layer(layer) for layer in mine), default=0)
        if not self.resolved.flash_attn:  # without it, attention over a cache on the host is computed there
            scores = [F32 * n * layer.n_head * self.cells.base for layer in self.layers if self._cache_is_left(layer)]
            work = max(work, max(scores, default=0))
        if self.placement.output_device == HOST and not (self.offloads and self.n_outputs >= OFFLOAD_BATCH):
            work = max(work, F32 * self.n_outputs * (model.n_vocab + model.n_embd))
        return inputs + work
