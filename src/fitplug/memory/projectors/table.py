"""Which graph a projector has, by its type: the counterpart of clip_get_graph_builder (tools/mtmd/clip.cpp)."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fitplug.memory.clip_graph import ClipGraph
from fitplug.memory.graph.tensor import Tensor
from fitplug.memory.projectors import (
    conformer,
    convnets,
    deepseek_ocr,
    gemma4a,
    llava,
    minicpm,
    pictures,
    qformer,
    qwen,
    siglip,
    speech,
    whisper,
)

Build: TypeAlias = Callable[[ClipGraph], Tensor]

PROJECTORS: Mapping[str, Build] = {
    "mlp": llava.llava, "ldp": llava.ldp, "ldpv2": llava.ldpv2, "adapter": llava.glm_edge,
    "gemma3": siglip.gemma3, "idefics3": siglip.idefics3, "lfm2": siglip.lfm2, "janus_pro": siglip.janus_pro,
    "phi4": siglip.phi4,
    "qwen2vl_merger": qwen.qwen2vl, "qwen2.5vl_merger": qwen.qwen2vl, "qwen3vl_merger": qwen.qwen3vl, "ling3vl": qwen.ling3vl,
    "exaone4_5": qwen.exaone4_5, "mimovl": qwen.mimovl, "minimax_m3": qwen.minimax_m3, "youtuvl": qwen.youtuvl,
    "glm4v": qwen.glm4v, "glm5v": qwen.glm4v,
    "pixtral": pictures.pixtral, "lightonocr": pictures.pixtral, "internvl": pictures.internvl, "llama4": pictures.llama4,
    "gemma4v": pictures.gemma4v, "gemma4uv": pictures.gemma4uv, "kimivl": pictures.kimivl, "kimik25": pictures.kimik25,
    "paddleocr": pictures.paddleocr, "dots_ocr": pictures.dots_ocr, "dots3note_v": pictures.dots_ocr,
    "deepseek4v": pictures.deepseek4v, "cogvlm": pictures.cogvlm, "hunyuanvl": pictures.hunyuanvl,
    "muse-glimmer": pictures.muse_glimmer, "nemotron_v2_vl": pictures.nemotron_v2_vl, "step3vl": pictures.step3vl,
    "resampler": minicpm.resampler, "minicpmv4_6": minicpm.merger,
    "deepseekocr": deepseek_ocr.deepseekocr, "deepseekocr2": deepseek_ocr.deepseekocr2,
    "gemma3nv": convnets.gemma3nv, "yasa2": convnets.yasa2, "granite4_vision": qformer.granite4_vision,
    "ultravox": whisper.ultravox, "qwen2a": whisper.qwen2a, "voxtral": whisper.voxtral, "glma": whisper.glma,
    "meralion": whisper.meralion, "musicflamingo": whisper.music_flamingo, "qwen3a": whisper.qwen3a,
    "dots3note_a": whisper.dots3note_a, "mimo_audio": whisper.mimo_audio,
    "lfm2a": conformer.lfm2a, "parakeet": conformer.parakeet, "granite_speech": conformer.granite_speech,
    "gemma4a": gemma4a.gemma4a, "gemma4ua": gemma4a.gemma4ua,
    "qwen3tts_spkenc": speech.qwen3tts_spkenc, "pockettts_spkenc": speech.pockettts_spkenc,
}  # fmt: skip
