"""What the arithmetic answers: every byte with its device, its kind, and how sure it is."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import NamedTuple

from fitplug.record import record
from fitplug.settings import Pooling, Settings


class Kind(StrEnum):
    """llama.cpp's own memory breakdown (llama-ext.h), and what it leaves out."""

    MODEL = "model"
    CONTEXT = "context"
    COMPUTE = "compute"
    OVERHEAD = "overhead"


class Basis(StrEnum):
    """How a number is known, from surest to least sure."""

    EXACT = "exact"
    """Follows from the header by llama.cpp's own rules, proven to the byte."""
    MEASURED = "measured"
    MODELLED = "modelled"
    """By a formula that is near but not proven."""
    ASSUMED = "assumed"


HOST = "CPU"
"""The one host row: pinned, mapped or plain, all of it is the machine's own memory."""


class Part(NamedTuple):
    """A number that somebody may doubt."""

    device: str
    """ggml's name, or HOST."""
    kind: Kind
    n_bytes: int
    basis: Basis
    source: str
    """Which rule, in words that can be looked up: "weights", "kv cache", "graph allocator", …"""
    buffer: str = ""
    """ggml's buffer type where it differs from the device: CUDA_Host, CPU_REPACK, …"""


@record
class Resolved:
    """Settings after llama.cpp's own rounding (llama_context's constructor) for one model and machine."""

    n_ctx: int
    n_ctx_seq: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    n_stream: int
    n_gpu_layers: int
    """As asked, with negative made "all"."""
    n_outputs_max: int
    type_k: str
    type_v: str
    flash_attn: bool
    v_trans: bool
    """The V cache lies transposed: flash attention was asked to be off."""
    n_rs_seq: int = 0
    """How many older states are kept beside each recurrent one, so that drafted tokens can be taken back."""
    pooling: Pooling | None = None
    """How embeddings are pooled; None: they are not asked for."""


@record
class Estimate:
    """Where every byte of one set of settings goes."""

    settings: Settings
    resolved: Resolved
    parts: Sequence[Part]
    layer_devices: Sequence[str]
    """Device of each layer, the output layer last."""
    notes: Sequence[str] = ()
    """Assumptions made and warnings, one sentence each."""
    extra: Mapping[str, int] = field(default_factory=dict)

    def n_bytes(self, device: str, kind: Kind | None = None) -> int:
        """Bytes of one device, of one kind or of all."""
        return sum(p.n_bytes for p in self.parts if p.device == device and (kind is None or p.kind == kind))

    def basis(self) -> Basis:
        """The least sure of what llama.cpp itself counts."""
        order = list(Basis)
        return max((p.basis for p in self.parts if p.kind != Kind.OVERHEAD), key=order.index, default=Basis.EXACT)
