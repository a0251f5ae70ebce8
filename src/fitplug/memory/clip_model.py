"""A projector's file as clip sees it: numbers, tensors, size of the warm-up (clip_model_loader, tools/mtmd/clip.cpp)."""

from collections.abc import Mapping
from math import isqrt
from typing import Literal, NamedTuple

from fitplug.formats.header import Header
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import BLOCKS, Buffer, Tensor
from fitplug.memory.projectors.held import NO_BLOCKS, held_by

MAX_NUMBER, MAX_LAYERS, MAX_IMAGE = 1 << 20, 1024, 8192
"""What no projector exceeds; the last one is llama.cpp's own bound."""
SCALE_FACTOR, SPATIAL_MERGE = "projector.scale_factor", "spatial_merge_size"
SECTIONS = {"v": "clip.vision.", "a": "clip.audio.", "a.gen.code": "clip.gen.audio."}
"""Where an encoder's numbers stand, by the prefix of its tensors."""
FEWEST = 16
"""Tokens of a picture that DeepSeek 4's projector is tried with at least."""
AUDIO_FRAMES = 3000
"""clip_hparams::warmup_audio_size."""
SWAPPED = frozenset((
    "mlp", "ldp", "ldpv2", "qwen2vl_merger", "qwen2.5vl_merger", "exaone4_5", "adapter", "gemma3", "idefics3", "resampler",
    "minicpmv4_6",
))  # fmt: skip
"""Projectors of which old files have ffn_up and ffn_down the wrong way round."""


class WarmUp(NamedTuple):
    """How large the picture is that clip tries at the start (clip_model_loader::load_hparams)."""

    side: int = 0
    """Tokens along each side; 0: the whole image_size."""
    n_merge: int = 1
    merge_key: str = SCALE_FACTOR
    limit: Literal["none", "up", "any"] = "none"
    """What --image-max-tokens changes of it: nothing; it may be smaller; it is as large as that."""

    def side_for(self, max_tokens: int | None) -> int | None:
        """Tokens along each side where pictures have at most so many; None: as many as those make, whole or not."""
        if not max_tokens or self.limit == "none":
            return self.side
        return isqrt(min(self.side * self.side, max(max_tokens, FEWEST))) if self.limit == "up" else None


_SMALL, _LARGE = WarmUp(16, 2, SPATIAL_MERGE), WarmUp(46, 2, SPATIAL_MERGE)

WARM_UPS: Mapping[str, WarmUp] = {
    "phi4": WarmUp(16, 1, ""),
    "lfm2": WarmUp(16, limit="any"),
    "kimivl": WarmUp(16),
    "deepseek4v": WarmUp(16, limit="up"),
    **dict.fromkeys(("pixtral", "lightonocr"), WarmUp(16, 1, SPATIAL_MERGE)),
    "dots_ocr": WarmUp(46),
    "dots3note_v": WarmUp(46, 1, SPATIAL_MERGE),
    "kimik25": WarmUp(64, limit="any"),
    "gemma3": WarmUp(0, 4),
    **dict.fromkeys(("gemma4v", "gemma4uv"), WarmUp(16, 3)),
    **dict.fromkeys(
        ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "ling3vl", "exaone4_5", "mimovl", "glm4v", "glm5v"), _LARGE),
    **dict.fromkeys(("minimax_m3", "youtuvl"), _SMALL),
    **dict.fromkeys(("muse-glimmer", "hunyuanvl"), WarmUp(32, 2, SPATIAL_MERGE)),
    "paddleocr": WarmUp(28, 2, ""),
    "minicpmv4_6": WarmUp(0, 4),
}  # fmt: skip
"""By projector; others try the whole image_size."""
LIMITS: Mapping[str, tuple[int, int]] = {
    "lfm2": (64, 256),
    **dict.fromkeys(("pixtral", "kimivl"), (8, 1024)),
    "kimik25": (2, 4096),
    **dict.fromkeys(("gemma4v", "gemma4uv"), (70, 1120)),
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "ling3vl", "glm4v"), (8, 4096)),
    "minimax_m3": (8, 576),
    "muse-glimmer": (1, 4096),
    "youtuvl": (1, 62500),
    "hunyuanvl": (256, 16384),
}
"""Least and most tokens of a picture (set_limit_image_tokens) by projector; others have none, or in pixels of the file."""
FIXED = dict.fromkeys(("deepseekocr", "deepseekocr2"), (1024, 16))
"""Pixels a side and of a patch, whatever the file says."""


class ClipModel:
    """One encoder of a projector's file.

    Args:
        header: the file.
        kind: its projector type.
        prefix: of its tensors: "v", "a" or "a.gen.code".
        buffer: where its weights lie.
        max_tokens: of a picture (--image-max-tokens); None: as the type has it.
    """

    def __init__(self, header: Header, kind: str, prefix: str, buffer: Buffer, max_tokens: int | None = None) -> None:
        self.header, self.kind, self.prefix, self.buffer = header, kind, prefix, buffer
        self._max_tokens = max_tokens
        self._section = SECTIONS[prefix]
        self._tensors: dict[str, Tensor] = {}
        self.n_embd, self.n_head = self.number("embedding_length"), self.number("attention.head_count", least=0)
        self.n_head_kv = self.number("attention.head_count_kv", self.n_head, least=0)
        self.d_head = self.number("attention.head_dim", self.n_embd // self.n_head if self.n_head else 0, least=0)
        self.n_layer = self.number("block_count", least=0)
        if self.n_layer > MAX_LAYERS or (self.n_layer and not self.n_head and kind not in NO_BLOCKS):
            raise UnknownGraphError(kind)
        self._held = frozenset(held_by(header.tensors, kind, prefix, self.n_layer))
        warm_up = WARM_UPS.get(kind, WarmUp())
        self.n_merge = self.number(warm_up.merge_key, warm_up.n_merge) if warm_up.merge_key else warm_up.n_merge
        self.patch_size = self.number("patch_size") if prefix == "v" else 1
        if kind == "gemma4uv":  # its patches are merged before they are looked at
            self.patch_size, self.n_merge = self.patch_size * self.n_merge, 1
        self.image_size = self._image_size(warm_up) if prefix == "v" else 0

    def _image_size(self, warm_up: WarmUp) -> int:
        if self.kind in FIXED:
            size, self.patch_size = FIXED[self.kind]
            return size
        least, most = (self.header.metadata.get(f"{self._section}image_{end}_pixels") for end in ("min", "max"))
        if self.kind == "kimik25" and type(least) is type(most) is int and least > 0 and 0 < most <= MAX_IMAGE * MAX_IMAGE:
            return isqrt(most)
        size = self._side(warm_up) if warm_up.side else self.number("image_size")
        if not 0 < size <= MAX_IMAGE:
            raise UnknownGraphError(self.kind)
        return size

    def _side(self, warm_up: WarmUp) -> int:
        """set_limit_image_tokens, set_warmup_n_tokens (tools/mtmd/clip-model.h), and what DeepSeek 4 makes of both."""
        token, side = self.patch_size * self.n_merge, warm_up.side_for(self._max_tokens)
        return isqrt((self._max_tokens or 0) * token * token) if side is None else side * token

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of this encoder's metadata, above zero.

        Raises:
            UnknownGraphError: it is not there, or no such number.
        """
        value = self.header.metadata.get(self._section + key, default)
        if type(value) is not int or not least <= value < MAX_NUMBER:
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

    @property
    def swiglu_clamp(self) -> bool:
        """Whether hparams.swiglu_clamp is above zero."""
        value = self.header.metadata.get(f"{self._section}swiglu_clamp")
        return self.kind == "glm5v" and isinstance(value, (int, float)) and value > 0

    def has(self, name: str) -> bool:
        """Whether the file has that tensor, and it is loaded."""
        return name in self._held

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
        if name not in self._held:
            return None
        held = self.header.tensors[name]
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
