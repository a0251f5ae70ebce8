"""Model: what a header says, in llama.cpp's own terms (llama_hparams), layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from fitplug.formats.header import Header, Scalar, Tensor, Value

MemoryKind: TypeAlias = Literal[
    "none", "kv", "iswa", "recurrent", "hybrid", "hybrid_iswa", "hybrid_idx", "dsa", "dsa_iswa", "msa", "dsv4"
]
"""llama.cpp's memory classes (llama_model::create_memory)."""


class Layer(NamedTuple):
    """One block, with the values that llama_hparams answers for its index."""

    index: int
    n_head: int
    n_head_kv: int
    n_embd_head_k: int
    n_embd_head_v: int
    n_ff: int
    n_expert_used: int = 0
    n_ff_exp: int = 0
    is_swa: bool = False
    is_recurrent: bool = False
    """Has a recurrent state (falcon-h1's layers have both)."""
    has_kv: bool = True
    """Has cache cells of its own."""
    is_nextn: bool = False
    """An MTP block: counted by -ngl, not loaded in a plain run."""
    n_embd_r: int = 0
    n_embd_s: int = 0
    n_embd_indexer: int = 0
    """Width of the index cache's key, where the layer has one."""
    compress_ratio: int = 0

    @property
    def n_embd_k_gqa(self) -> int:
        """Width of K for all heads."""
        return self.n_embd_head_k * self.n_head_kv

    @property
    def n_embd_v_gqa(self) -> int:
        """Width of V for all heads."""
        return self.n_embd_head_v * self.n_head_kv


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A header, understood."""

    architecture: str
    name: str
    header: Header
    known: bool
    """False: nobody knows this architecture; `assumptions` say what was supposed."""
    memory: MemoryKind
    layers: Sequence[Layer]
    """All n_layer_all of them, MTP blocks included."""
    n_layer_nextn: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    n_swa: int
    n_expert: int
    is_mla: bool
    causal: bool
    tied_output: bool
    """No output.weight: llama.cpp multiplies with token_embd.weight instead, and may need a second copy of it."""
    has_output: bool = True
    """False for encoders that have no output matrix at all."""
    has_encoder: bool = False
    flash_attn_forced: Literal["on", "off"] | None = None
    n_params: int
    n_bytes: int
    """Of all tensors, as the file has them."""
    file_type: str
    assumptions: Sequence[str] = ()
    extra: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_layer_all(self) -> int:
        """Blocks, MTP blocks included."""
        return len(self.layers)

    @property
    def n_layer(self) -> int:
        """Blocks that a plain run computes."""
        return len(self.layers) - self.n_layer_nextn

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The header's tensors by name."""
        return self.header.tensors

    def get(self, key: str, default: Value | None = None) -> Value | None:
        """`{architecture}.{key}` of the metadata."""
        return self.header.metadata.get(f"{self.architecture}.{key}", default)

    def get_int(self, key: str, default: int = 0) -> int:
        """The same where a whole number is expected; `default` for anything else."""
        value: Scalar | Value | None = self.get(key)
        return int(value) if isinstance(value, (int, float)) else default
