"""Settings: what a user may ask of llama.cpp, under llama.cpp's own names and with its own defaults."""

from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from fitplug.record import record

FlashAttn: TypeAlias = Literal["on", "off", "auto"]
SplitMode: TypeAlias = Literal["none", "layer", "row", "tensor"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""What llama.cpp's command line takes for -ctk and -ctv (common/arg.cpp, kv_cache_types)."""


class TensorOverride(NamedTuple):
    """One `-ot PATTERN=BUFFER`: tensors whose name the pattern finds go to that buffer type."""

    pattern: str
    buffer: str


class SpecType(NamedTuple):
    """One value of --spec-type (common/speculative.cpp)."""

    longest: int | None
    """Its longest draft by default (common/common.h, common_params_speculative); None: as --spec-draft-n-max says."""
    rolls_back: bool = False
    """Recurrent states are kept for each drafted token (common_params_speculative::need_n_rs_seq)."""
    whole_blocks: bool = False
    """The draft answers all its tokens at once (common_base_params_to_speculative)."""


SPEC_TYPES = {
    "none": SpecType(0),
    "draft-simple": SpecType(None),
    "draft-eagle3": SpecType(None, rolls_back=True),
    "draft-mtp": SpecType(None, rolls_back=True),
    "draft-dflash": SpecType(None, rolls_back=True, whole_blocks=True),
    "draft-dspark": SpecType(None, rolls_back=True, whole_blocks=True),
    "ngram-simple": SpecType(48),
    "ngram-map-k": SpecType(48),
    "ngram-map-k4v": SpecType(48),
    "ngram-mod": SpecType(64),
    "ngram-cache": SpecType(8),
}
DRAFT_MTP = "draft-mtp"


@record
class Settings:
    """One set of llama.cpp settings, as asked (not yet rounded or resolved)."""

    n_ctx: int = 0
    """-c; total over all sequences unless unified; 0: the trained length."""
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = 1
    """-np."""
    n_gpu_layers: int = -1
    """-ngl; negative: all. Counts from the back, the output layer first."""
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: FlashAttn = "auto"
    kv_unified: bool = False
    swa_full: bool = False
    offload_kqv: bool = True
    """False is -nkvo."""
    op_offload: bool = True
    split_mode: SplitMode = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    n_cpu_moe: int = 0
    """-ncmoe: experts of the first so many layers stay on the CPU; -1 is -cmoe: of all layers."""
    overrides: tuple[TensorOverride, ...] = ()
    """-ot, in the order given. The expert patterns of n_cpu_moe come before them."""
    devices: tuple[str, ...] | None = None
    """-dev: names such as CUDA0; None: all GPUs."""
    mmproj: str | None = None
    mmproj_offload: bool = True
    model_draft: str | None = None
    spec_type: str | None = None
    """--spec-type: how a draft is made, several by commas. Without it a server loads an ordinary draft model for nothing."""
    draft_max: int = 3
    """--spec-draft-n-max: the longest draft of a model, which its target answers at once."""
    draft_type_k: str = "f16"
    """-ctkd; of every draft's cache, an MTP head's too."""
    draft_type_v: str = "f16"
    draft_n_gpu_layers: int = -1
    """-ngld; of a draft that is a model of its own, as are the next three."""
    draft_devices: tuple[str, ...] | None = None
    """-devd; None: the target's."""
    draft_n_cpu_moe: int = 0
    """-ncmoed, and -cmoed as -1."""
    draft_overrides: tuple[TensorOverride, ...] = ()
    """-otd."""
    draft_backend_sampling: bool = True
    """--spec-draft-backend-sampling: the device picks the drafted tokens."""
    lora: tuple[str, ...] = ()
    use_mmap: bool = True
    cache_ram_mib: int | None = None
    """-cram: host memory for old prompts; None: the program's own default, see `Runner.prompt_cache_mib`."""
    ctx_checkpoints: int | None = None
    """-ctxcp: copies of windowed caches and recurrent states that a slot may keep in host memory; None: the default."""

    @property
    def remote(self) -> tuple[str, ...]:
        """URLs of what runs beside the model and is not on this disk."""
        return tuple(name for name in (self.mmproj, self.model_draft, *self.lora) if name is not None and is_url(name))

    def spec_types(self) -> tuple[str, ...]:
        """The kinds of drafts that are made; "none" among them means none at all (common_speculative_types_from_names)."""
        kinds = tuple(kind.strip() for kind in (self.spec_type or "").split(",") if kind.strip())
        return () if "none" in kinds else kinds

    def without_drafts(self) -> "Settings":
        """The same without speculative decoding, of which no program's own measuring knows."""
        plain = Settings()
        return replace(self, **{name: getattr(plain, name) for name in ("model_draft", *DRAFT_SETTINGS)})

    @property
    def drafts_by_model(self) -> bool:
        """A model drafts: another one, or MTP blocks."""
        return any(kind in SPEC_TYPES and SPEC_TYPES[kind].longest is None for kind in self.spec_types())

    @property
    def drafts_by_mtp(self) -> bool:
        """MTP blocks are loaded and draft."""
        return DRAFT_MTP in self.spec_types()


def is_url(name: str) -> bool:
    """Whether a companion is fetched over the network."""
    return name.startswith(("https://", "http://"))


DRAFT_SETTINGS = ("spec_type", *(name for name in Settings.__dataclass_fields__ if name.startswith("draft_")))
"""Of speculative decoding, besides the draft's file."""
