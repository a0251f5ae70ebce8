"""Model: what a header says, in llama.cpp's own terms (llama_hparams), layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal, NamedTuple, TypeAlias

from fitplug.formats.header import Header, Scalar, Tensor, Value
from fitplug.model.architectures import UNKNOWN, Row
from fitplug.record import record

MemoryKind: TypeAlias = Literal[
    "none", "kv", "iswa", "recurrent", "hybrid", "hybrid_iswa", "hybrid_idx", "dsa", "dsa_iswa", "msa", "dsv4"
]
"""llama.cpp's memory classes (llama_model::create_memory)."""


class Layer(NamedTuple):
    """One block, with the values that llama_hparams answers for its index."""

    il: int
    """Its number."""
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
    """Has cache cells of its own in a plain run: passes the memory's layer filter and llama_hparams::has_kv."""
    is_nextn: bool = False
    """An MTP block: counted by -ngl, not loaded in a plain run."""
    n_embd_r: int = 0
    n_embd_s: int = 0
    n_embd_indexer: int = 0
    """Width of the index cache's key, where the layer has one."""
    compress_ratio: int = 0
    n_rot: int = 0
    n_embd_ple: int = 0
    """Width of the convolution history of per-layer embeddings, where the layer has one (ple_conv_state)."""

    @property
    def n_embd_k_gqa(self) -> int:
        """Width of K for all heads."""
        return self.n_embd_head_k * self.n_head_kv

    @property
    def n_embd_v_gqa(self) -> int:
        """Width of V for all heads."""
        return self.n_embd_head_v * self.n_head_kv


@record
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
    family: str = ""
    """The known architecture that an unknown one is taken for; see `drawn_as`."""
    row: Row = UNKNOWN
    """The architecture's row of the table: its kinds and flags."""
    swa_type: Literal["standard", "chunked", "symmetric"] | None = None
    n_embd_head_k_mla: int = 0
    n_embd_head_v_mla: int = 0
    n_embd_inp: int = 0
    """Width of the embeddings input: n_embd, wider with deepstack (llama_hparams::n_embd_inp)."""
    n_embd_out: int = 0
    n_pos_per_embd: int = 1
    """Position values a token: 4 with M-RoPE."""
    n_params: int
    n_bytes: int
    """Of all tensors, as the file has them."""
    file_type: str
    assumptions: Sequence[str] = ()
    refusals: Sequence[str] = ()
    """Why llama.cpp does not load this file; empty where nothing speaks against it."""
    extra: Mapping[str, int] = field(default_factory=dict)
    """Further whole numbers of llama_hparams under llama.cpp's names; see `hparam`."""

    @property
    def drawn_as(self) -> str:
        """The architecture whose graph it has."""
        return self.family or self.architecture

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

    def hparam(self, name: str, default: int = 0) -> int:
        """A whole number of llama_hparams by its name there, such as n_lora_q or ssm_d_inner."""
        return self.extra.get(name, default)

    def get(self, key: str, default: Value | None = None) -> Value | None:
        """`{architecture}.{key}` of the metadata."""
        return self.header.metadata.get(f"{self.architecture}.{key}", default)

    def get_int(self, key: str, default: int = 0) -> int:
        """The same where a whole number is expected; `default` for anything else."""
        value: Scalar | Value | None = self.get(key)
        return int(value) if isinstance(value, (int, float)) else default
