"""What a graph is built for: llm_graph_params (src/llama-graph.h) with what it reads from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.layers import Blocks
from fitplug.memory.graph.tensor import Buffer
from fitplug.model.records import Model


@dataclass(frozen=True, slots=True, kw_only=True)
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
    embeddings: bool = False
    n_rs_seq: int = 0
    fused: Mapping[str, bool] = field(default_factory=dict)
    """Fused operations that were resolved to off: {"gdn_ar": False}; absent is on (llama_context::resolve_fused_ops)."""
    shorten: bool = True
    """Build only as many of equal layers as decide the size (layers.py)."""

    def replaced(self, *, shorten: bool) -> "GraphParams":
        """The same with or without all layers."""
        return replace(self, shorten=shorten)
