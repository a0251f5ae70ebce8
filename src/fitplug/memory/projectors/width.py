"""How wide the embeddings are that a projector makes: clip_n_mmproj_embd (tools/mtmd/clip.cpp)."""

from collections.abc import Mapping
from typing import NamedTuple

from fitplug.formats.header import Header


class Width(NamedTuple):
    """Where the number stands: a dimension of a tensor."""

    tensor: str
    dimension: int = 1


_MM_2 = Width("mm.2.weight")
_OF_BIAS = Width("mm.2.bias", 0)
_FC, _DOWN = Width("mm.model.fc.weight"), Width("mm.down.weight")
_SPEECH = Width("mm.a.mlp.2.weight")

WIDTHS: Mapping[str, Width] = {
    "ldp": Width("mm.model.mb_block.1.block.2.1.bias", 0),
    "ldpv2": Width("mm.model.peg.0.bias", 0),
    **dict.fromkeys(("mlp", "phi4", "pixtral", "lightonocr", "dots_ocr", "dots3note_v", "muse-glimmer", "mimovl"), _MM_2),
    **dict.fromkeys(("lfm2", "kimivl", "paddleocr", "kimik25", "yasa2", "deepseek4v"), _MM_2),
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "exaone4_5", "youtuvl", "ling3vl"), _OF_BIAS),
    "janus_pro": Width("mm.1.bias", 0),
    "minimax_m3": Width("mm.merger.fc2.bias", 0),
    "resampler": Width("resampler.proj.weight", 0),
    **dict.fromkeys(("minicpmv4_6", "cogvlm", "glm4v", "glm5v"), _DOWN),
    "adapter": Width("adapter.linear.dense_4h_to_h.weight"),
    **dict.fromkeys(("idefics3", "llama4", "step3vl", "hunyuanvl", "deepseekocr", "deepseekocr2"), _FC),
    **dict.fromkeys(("gemma3", "gemma3nv"), Width("mm.input_projection.weight", 0)),
    **dict.fromkeys(("gemma4v", "gemma4uv"), Width("mm.input_projection.weight")),
    **dict.fromkeys(("gemma4a", "gemma4ua"), Width("mm.a.input_projection.weight")),
    **dict.fromkeys(("internvl", "nemotron_v2_vl"), Width("mm.model.mlp.3.weight")),
    **dict.fromkeys(("ultravox", "voxtral", "musicflamingo", "qwen3a", "glma", "mimo_audio", "parakeet"), _SPEECH),
    **dict.fromkeys(("meralion", "dots3note_a"), Width("mm.a.mlp.3.weight")),
    "qwen2a": Width("mm.a.fc.weight"),
    "lfm2a": Width("a.position_embd.weight", 0),
    "granite_speech": Width("a.proj_linear.weight"),
    "qwen3tts_spkenc": Width("mm.a.fc.weight", 2),
    "pockettts_spkenc": Width("a.speaker_proj.weight"),
}
"""By projector type."""


def n_mmproj_embd(header: Header, kind: str, n_layer: int) -> int | None:
    """Width of the embeddings; None where the file does not tell."""
    if kind == "granite4_vision":
        features, width = (header.metadata.get(f"clip.vision.{key}") for key in ("feature_layer", "projection_dim"))
        return len(features) * width if isinstance(features, tuple) and isinstance(width, int) else None
    tensor, dimension = WIDTHS.get(kind, Width(""))
    if kind == "mlp" and "mm.3.weight" in header.tensors:
        tensor, dimension = "mm.3.bias", 0
    found = header.tensors.get(tensor)
    if found is None or len(found.shape) <= dimension:
        return None
    looked_at = (
        sum(f"v.deepstack.{il}.fc1.weight" in header.tensors for il in range(n_layer)) if kind == "qwen3vl_merger" else 0
    )
    return found.shape[dimension] * (1 + looked_at)
