"""llama_hparams (src/llama-hparams.h), while it is being worked out."""

from typing import Literal


class Hparams:
    """The members that memory depends on; filled in by `hparams` and `layouts`, then frozen into a `Model`.

    A plain class whose attributes are the defaults: a dataclass of as many fields takes 1.5 ms of every start.
    """

    n_vocab: int = 0
    n_expert: int = 0
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

    def __init__(self, *, n_layer_all: int, n_layer_nextn: int, n_embd: int, n_ctx_train: int, causal: bool = True) -> None:
        """What every header says; all else is worked out."""
        self.n_layer_all, self.n_layer_nextn = n_layer_all, n_layer_nextn
        self.n_embd, self.n_ctx_train, self.causal = n_embd, n_ctx_train, causal
        self.extra: dict[str, int] = {}

    @property
    def n_layer(self) -> int:
        """Without MTP blocks."""
        return self.n_layer_all - self.n_layer_nextn

    @property
    def is_mla(self) -> bool:
        """Both MLA lengths are known: only K is cached."""
        return self.n_embd_head_k_mla != 0 and self.n_embd_head_v_mla != 0
