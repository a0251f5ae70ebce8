"""A projector's file as clip sees it: numbers, tensors, size of the warm-up (clip_model_loader, tools/mtmd/clip.cpp)."""

from collections.abc import Mapping
from typing import NamedTuple

from fitplug.formats.header import Header
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import BLOCKS, Buffer, Tensor

MAX_NUMBER, MAX_LAYERS, MAX_IMAGE = 1 << 20, 1024, 8192
"""What no projector exceeds; the last one is llama.cpp's own bound."""
SCALE_FACTOR, SPATIAL_MERGE = "projector.scale_factor", "spatial_merge_size"
AUDIO_FRAMES = 3000
"""clip_hparams::warmup_audio_size."""
SWAPPED = frozenset((
    "mlp", "ldp", "ldpv2", "qwen2vl_merger", "qwen2.5vl_merger", "exaone4_5", "adapter", "gemma3", "idefics3", "resampler",
    "minicpmv4_6",
))  # fmt: skip
"""Projectors of which old files have ffn_up and ffn_down the wrong way round."""
COMMON = frozenset((
    "v.class_embd", "v.patch_embd.weight", "v.patch_embd.weight.1", "v.patch_embd.bias", "v.norm_embd.weight",
    "v.norm_embd.bias",
))  # fmt: skip
"""Tensors that each encoder of a file with several loads for itself."""
SCALARS = (".input_max", ".input_min", ".output_max", ".output_min")
"""Numbers in tensors, which are read and not loaded."""


class WarmUp(NamedTuple):
    """How large the picture is that clip tries at the start (clip_model_loader::load_hparams)."""

    side: int = 0
    """Tokens along each side; 0: the whole image_size."""
    n_merge: int = 1
    merge_key: str = SCALE_FACTOR


WARM_UPS: Mapping[str, WarmUp] = {
    "phi4": WarmUp(16, 1, ""),
    "lfm2": WarmUp(16),
    "pixtral": WarmUp(16, 1, SPATIAL_MERGE),
    "lightonocr": WarmUp(16, 1, SPATIAL_MERGE),
    "dots_ocr": WarmUp(46),
    "kimivl": WarmUp(16),
    "gemma3": WarmUp(0, 4),
    "gemma4v": WarmUp(16, 3),
    "qwen2vl_merger": WarmUp(46, 2, SPATIAL_MERGE),
    "qwen2.5vl_merger": WarmUp(46, 2, SPATIAL_MERGE),
    "qwen3vl_merger": WarmUp(46, 2, SPATIAL_MERGE),
    "glm4v": WarmUp(46, 2, SPATIAL_MERGE),
    "paddleocr": WarmUp(28, 2, ""),
}
"""By projector; others try the whole image_size."""


class ClipModel:
    """One encoder of a projector's file.

    Args:
        header: the file.
        kind: its projector type.
        prefix: of its tensors, "v" or "a".
        buffer: where its weights lie.
    """

    def __init__(self, header: Header, kind: str, prefix: str, buffer: Buffer) -> None:
        self.header, self.kind, self.prefix, self.buffer = header, kind, prefix, buffer
        self._section = "clip.vision." if prefix == "v" else "clip.audio."
        self._tensors: dict[str, Tensor] = {}
        self.n_embd, self.n_head = self.number("embedding_length"), self.number("attention.head_count")
        self.n_head_kv = self.number("attention.head_count_kv", self.n_head)
        self.d_head = self.number("attention.head_dim", self.n_embd // self.n_head)
        self.n_layer = self.number("block_count")
        if self.n_layer > MAX_LAYERS:
            raise UnknownGraphError(kind)
        warm_up = WARM_UPS.get(kind, WarmUp())
        self.n_merge = self.number(warm_up.merge_key, warm_up.n_merge) if warm_up.merge_key else warm_up.n_merge
        self.patch_size = self.number("patch_size") if prefix == "v" else 1
        self.image_size = self._image_size(warm_up) if prefix == "v" else 0

    def _image_size(self, warm_up: WarmUp) -> int:
        size = warm_up.side * self.patch_size * self.n_merge if warm_up.side else self.number("image_size")
        if not 0 < size <= MAX_IMAGE:
            raise UnknownGraphError(self.kind)
        return size

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number above zero of this encoder's metadata.

        Raises:
            UnknownGraphError: it is not there, or no such number.
        """
        value = self.header.metadata.get(self._section + key, default)
        if type(value) is not int or not 0 < value < MAX_NUMBER:
            raise UnknownGraphError(self.kind)
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where there is none."""
        value = self.header.metadata.get(self._section + key)
        return tuple(n for n in value if isinstance(n, int)) if isinstance(value, tuple) else ()

    def window_pattern(self) -> int:
        """hparams.n_wa_pattern: every so many layers attend to everything; 0: all do."""
        value = self.header.metadata.get(f"{self._section}n_wa_pattern")
        return value if type(value) is int and 0 < value <= MAX_LAYERS else 0

    @property
    def activation(self) -> str:
        """hparams.ffn_op."""
        metadata = self.header.metadata
        if metadata.get("clip.use_gelu") is True:
            return "gelu"
        return "silu" if metadata.get("clip.use_silu") is True else "gelu_quick"

    def has(self, name: str) -> bool:
        """Whether the file has that tensor."""
        return name in self.header.tensors

    def w(self, name: str) -> Tensor:
        """A tensor that the graph cannot do without.

        Raises:
            UnknownGraphError: the file does not have it.
        """
        found = self.optional(name)
        if found is None:
            raise UnknownGraphError(f"{self.kind}: {name}")
        return found

    def optional(self, name: str) -> Tensor | None:
        """A tensor; None where the file has none."""
        held = self.header.tensors.get(name)
        if held is None:
            return None
        found = self._tensors.get(name)
        if found is None:
            if held.type not in BLOCKS:
                raise UnknownGraphError(held.type)
            ne = (*held.shape, 1, 1, 1, 1)
            found = self._tensors[name] = Tensor("NONE", held.type, (ne[0], ne[1], ne[2], ne[3]), [])
            found.buffer = self.buffer
        return found

    def layer(self, il: int, name: str) -> Tensor | None:
        """A tensor of one block; up and down of old files put right."""
        return self.optional(f"{self.prefix}.blk.{il}.{self._named_rightly(name)}")

    def _named_rightly(self, name: str) -> str:
        if not name.startswith(("ffn_up.", "ffn_down.")) or self.kind not in SWAPPED:
            return name
        down = self.optional(f"{self.prefix}.blk.0.ffn_down.weight")
        if down is None or down.ne[0] != self.n_embd:
            return name
        return name.replace("ffn_up", "ffn_down") if name.startswith("ffn_up") else name.replace("ffn_down", "ffn_up")


def held_by(header: Header, prefix: str, n_layer: int) -> list[str]:
    """Names of the tensors that one encoder of the file loads (clip_model_loader::load_tensors)."""
    found = []
    for name in header.tensors:
        own = "a" if name.startswith(("a.", "mm.a.")) else "v"
        if (own != prefix and name not in COMMON) or name.endswith(SCALARS):
            continue
        block = name.removeprefix(f"{prefix}.blk.").partition(".")[0] if name.startswith(f"{prefix}.blk.") else ""
        if not block.isdecimal() or int(block) < n_layer:
            found.append(name)
    return found
