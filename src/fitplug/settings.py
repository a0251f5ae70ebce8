"""Settings: what a user may ask of llama.cpp, under llama.cpp's own names and with its own defaults."""

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


def is_url(name: str) -> bool:
    """Whether a companion is fetched over the network."""
    return name.startswith(("https://", "http://"))
