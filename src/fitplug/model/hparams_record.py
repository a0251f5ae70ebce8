"""llama_hparams (src/llama-hparams.h), while it is being worked out."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True, kw_only=True)
class Hparams:
    """The members that memory depends on; filled in by `hparams` and `layouts`, then frozen into a `Model`."""

    n_layer_all: int
    n_layer_nextn: int
    n_embd: int
    n_ctx_train: int
    n_vocab: int = 0
    n_expert: int = 0
    causal: bool = True
    n_embd_inp: int = 0
    n_embd_out: int = 0
    n_head: tuple[int, ...] = ()
    n_head_kv: tuple[int, ...] = ()
    n_ff: tuple[int, ...] = ()
    n_ff_exp: tuple[int, ...] = ()
    n_expert_used: tuple[int, ...] = ()
    n_embd_head_k: int = 0
    n_embd_head_v: int = 0
    n_embd_head_k_swa: int = 0
    n_embd_head_v_swa: int = 0
    n_rot: int = 0
    n_rot_swa: int = 0
    n_embd_head_k_mla: int = 0
    n_embd_head_v_mla: int = 0
    n_swa: int = 0
    swa_type: Literal["standard", "chunked", "symmetric"] | None = None
    is_swa: tuple[bool, ...] = ()
    is_recr: tuple[bool, ...] = ()
    n_layer_kv_from_start: int = -1
    router_layer: int = -1
    is_indexer_full: tuple[bool, ...] = ()
    compress_ratios: tuple[int, ...] = ()
    ple_layers: tuple[int, ...] = ()
    sections: tuple[int, ...] = (0, 0, 0, 0)
    extra: dict[str, int] = field(default_factory=dict)

    @property
    def n_layer(self) -> int:
        """Without MTP blocks."""
        return self.n_layer_all - self.n_layer_nextn

    @property
    def is_mla(self) -> bool:
        """Both MLA lengths are known: only K is cached."""
        return self.n_embd_head_k_mla != 0 and self.n_embd_head_v_mla != 0
