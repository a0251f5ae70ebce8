"""Settings: what a user may ask of llama.cpp, under llama.cpp's own names and with its own defaults."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from fitplug.record import record

if TYPE_CHECKING:
    from collections.abc import Hashable

FlashAttn: TypeAlias = Literal["on", "off", "auto"]
SplitMode: TypeAlias = Literal["none", "layer", "row", "tensor"]
Pooling: TypeAlias = Literal["none", "mean", "cls", "last", "rank"]
LoadMode: TypeAlias = Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"]
MAPPING = frozenset(("auto", "mmap", "mmap+mlock"))
"""Of `LoadMode` those that map the file."""
LazyMode: TypeAlias = Literal["on", "auto", "off"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""What llama.cpp's command line takes for -ctk and -ctv (common/arg.cpp, kv_cache_types)."""


class TensorOverride(NamedTuple):
    """One `-ot PATTERN=BUFFER`: tensors whose name the pattern finds go to that buffer type."""

    pattern: str
    buffer: str


ROPE_FLAGS = (
    "--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale", "--yarn-orig-ctx", "--yarn-ext-factor",
    "--yarn-attn-factor", "--yarn-beta-slow", "--yarn-beta-fast",
)  # fmt: skip


class RopeWord(NamedTuple):
    """One of `ROPE_FLAGS` and its value."""

    flag: str
    value: str


class KvOverride(NamedTuple):
    """One `KEY=TYPE:VALUE` of --override-kv; the value is of Python's type of that name, str for text."""

    key: str
    value: int | float | bool | str


class ScaledAdapter(NamedTuple):
    """One `FNAME:SCALE` of --lora-scaled."""

    name: str
    scale: float


class SpecType(NamedTuple):
    """One value of --spec-type (common/speculative.cpp)."""

    longest: str | int
    """Its longest draft, or the setting that tells it (common_speculative_n_max)."""
    rolls_back: bool = False
    """Recurrent states are kept for each drafted token (common_params_speculative::need_n_rs_seq)."""
    whole_blocks: bool = False
    """The draft answers all its tokens at once (common_base_params_to_speculative)."""

    @property
    def by_model(self) -> bool:
        """A model drafts: another one, or MTP blocks."""
        return self.longest == "draft_max"


SPEC_TYPES = {
    "none": SpecType(0),
    "draft-simple": SpecType("draft_max"),
    "draft-eagle3": SpecType("draft_max", rolls_back=True),
    "draft-mtp": SpecType("draft_max", rolls_back=True),
    "draft-dflash": SpecType("draft_max", rolls_back=True, whole_blocks=True),
    "draft-dspark": SpecType("draft_max", rolls_back=True, whole_blocks=True),
    "ngram-simple": SpecType("ngram_simple_size_m"),
    "ngram-map-k": SpecType("ngram_map_k_size_m"),
    "ngram-map-k4v": SpecType("ngram_map_k4v_size_m"),
    "ngram-mod": SpecType("ngram_mod_n_max"),
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
    n_cpu_ffn: int = 0
    """-ncffn: dense feed-forward weights of the first so many layers stay on the CPU."""
    overrides: tuple[TensorOverride, ...] = ()
    """-ot, in the order given. The patterns of n_cpu_moe and n_cpu_ffn come before them."""
    no_host: bool = False
    """--no-host: weights on the CPU are not in pinned memory."""
    repack: bool = True
    """False is -nr: weights on the CPU are left as the file has them."""
    devices: tuple[str, ...] | None = None
    """-dev: names such as CUDA0; None: all GPUs."""
    mmproj: str | None = None
    mmproj_offload: bool = True
    mmproj_device: str | None = None
    """-mmdev; None: the first of `devices`, or the first GPU that llama.cpp registers."""
    image_min_tokens: int | None = None
    """--image-min-tokens, and the next is --image-max-tokens: of pictures whose size may vary; None: as the model says."""
    image_max_tokens: int | None = None
    embedding: bool = False
    """--embeddings: every token has an output, which is pooled; with `pooling` "rank" that is --rerank."""
    pooling: Pooling | None = None
    """--pooling; None: as the file says."""
    kv_unified_per_slot: int = 0
    """--kv-unified-per-slot: the most that one slot may use of the context."""
    model_draft: str | None = None
    spec_type: str | None = None
    """--spec-type: how a draft is made, several by commas. Without it a server loads an ordinary draft model for nothing."""
    draft_max: int = 3
    """--spec-draft-n-max: the longest draft of a model, which its target answers at once."""
    ngram_mod_n_max: int = 64
    """--spec-ngram-mod-n-max, and the next three are --spec-ngram-…-size-m: the longest drafts that are looked up."""
    ngram_simple_size_m: int = 48
    ngram_map_k_size_m: int = 48
    ngram_map_k4v_size_m: int = 48
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
    lora_scaled: tuple[ScaledAdapter, ...] = ()
    """--lora-scaled; they come after those of --lora, whose scale is 1."""
    kv_overrides: tuple[KvOverride, ...] = ()
    """--override-kv: metadata of the model and of its draft that is taken in place of the files'."""
    rope: tuple[RopeWord, ...] = ()
    """--rope-… and --yarn-…: how positions are turned, which decides no memory and is kept as it was given."""
    use_mmap: bool = True
    load_mode: LoadMode | None = None
    """-lm; None: as use_mmap says."""
    lazy_mode: LazyMode = "auto"
    """-lzm: rows of large tables are read from the file when they are asked for."""
    cache_ram_mib: int | None = None
    """-cram: host memory for old prompts; None: the program's own default, see `Runner.prompt_cache_mib`."""
    ctx_checkpoints: int | None = None
    """-ctxcp: copies of windowed caches and recurrent states that a slot may keep in host memory; None: the default."""

    @property
    def remote(self) -> tuple[str, ...]:
        """URLs of what runs beside the model and is not on this disk."""
        names = (self.mmproj, self.model_draft, *(adapter.name for adapter in self.adapters))
        return tuple(name for name in names if name is not None and is_url(name))

    @property
    def adapters(self) -> tuple[ScaledAdapter, ...]:
        """All adapters in the order in which they are loaded."""
        return (*(ScaledAdapter(name, 1.0) for name in self.lora), *self.lora_scaled)

    @property
    def moving(self) -> "Hashable":
        """What sends weights elsewhere than their layer's device: settings equal in this send the same ones."""
        return self.n_cpu_moe, self.n_cpu_ffn, self.overrides

    @property
    def loading(self) -> "Hashable":
        """What else decides in which of the host's buffers weights lie."""
        return self.no_host, self.repack, self.lazy_mode

    @property
    def moves(self) -> bool:
        """Whether anything does (llama_model::has_tensor_overrides)."""
        return bool(self.n_cpu_moe or self.n_cpu_ffn or self.overrides)

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
        return any(kind in SPEC_TYPES and SPEC_TYPES[kind].by_model for kind in self.spec_types())

    @property
    def drafts_by_mtp(self) -> bool:
        """MTP blocks are loaded and draft."""
        return DRAFT_MTP in self.spec_types()


def is_url(name: str) -> bool:
    """Whether a companion is fetched over the network."""
    return name.startswith(("https://", "http://"))


OWN_SETTINGS = (
    "rope", "n_cpu_ffn", "no_host", "repack", "mmproj_device", "image_min_tokens", "image_max_tokens", "kv_unified_per_slot",
    "load_mode", "lazy_mode",
)  # fmt: skip
"""Settings that llama.cpp's own programs have words for, and other runners have not."""
DRAFT_SETTINGS = ("spec_type", *(name for name in Settings.__dataclass_fields__ if name.startswith(("draft_", "ngram_"))))
"""Of speculative decoding, besides the draft's file."""
