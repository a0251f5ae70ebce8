"""Headers that Ollama's own converters wrote, in llama.cpp's words.

Models that were published before Ollama ran everything in llama-server have other names for some things, and often a projector
in the same file; its llama-server is patched to read them (llama/compat/llama-ollama-compat.cpp, translate_metadata). Each row
is one of its handlers; what has no row, or none of its marks, is read as it is.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from fitplug.formats.header import Header
from fitplug.model.describe import describe
from fitplug.model.records import Model
from fitplug.units import format_bytes
from fitplug_ollama import adjusting
from fitplug_ollama.draft import Draft

VISION = ("v.", "mm.")
_OLDER = "read as Ollama reads it: the file is in the form of its own older converter, which llama.cpp itself does not load"


class Translation(NamedTuple):
    """One architecture of Ollama's."""

    becomes: str = ""
    """What it is called in llama.cpp; empty: the same."""
    marks: tuple[str, ...] = ()
    """Keys, beginnings of tensors' names ("v."), or, behind "!", keys that are missing, any of which tells the older form."""
    tensors: tuple[tuple[str, str], ...] = ()
    """Parts of names, and what stands there in llama.cpp."""
    dropped: tuple[str, ...] = ()
    """Beginnings of names that its text model never loads; most are the projector's, which is loaded from the same file."""
    keys: tuple[tuple[str, str], ...] = ()
    """Keys below the architecture's name, and what they are called in llama.cpp."""
    adjust: tuple[Callable[[Draft], None], ...] = ()


_QWEN35 = Translation(
    marks=(
        "vision.block_count", "image_token_id", "ssm.v_head_reordered", "rope.mrope_interleaved", "mtp.", "v.",
    ),
    dropped=(*VISION, "mtp."),
    adjust=(adjusting.one_kv_count, adjusting.four_sections, adjusting.ssm_bias, adjusting.old_mtp),
)  # fmt: skip
_QWEN3VL = Translation(
    marks=("!rope.dimension_sections",), dropped=VISION, adjust=(adjusting.qwen3vl_sections, adjusting.deepstack)
)
TRANSLATIONS = {
    "deepseekocr": Translation(
        "deepseek2-ocr", dropped=("s.", *VISION), adjust=(adjusting.rms_epsilon, adjusting.expert_widths)
    ),
    "gemma3": Translation(
        marks=("mm.tokens_per_image", "rope.global.freq_base", "rope.local.freq_base", *VISION, "dense.0.",
               "!attention.layer_norm_rms_epsilon"),
        dropped=VISION,
        adjust=(adjusting.rms_epsilon, adjusting.embedding_gemma, adjusting.tokens_as_embedded),
    ),
    "gemma3n": Translation(marks=("per_layer_token_embd.",), adjust=(adjusting.tokens_of_per_layer,)),
    "gemma4": Translation(
        marks=("a.", *VISION, "model.vision_tower."), dropped=("a.", *VISION, "model.vision_tower."),
        tensors=((".ffn_gate_inp.per_expert_scale", ".ffn_down_exps.scale"),), adjust=(adjusting.fused_experts,),
    ),
    "glm4moelite": Translation("deepseek2", adjust=(adjusting.absorbed_mla,)),
    "glmocr": Translation(
        "glm4", dropped=VISION, keys=(("rope.mrope_section", "rope.dimension_sections"),),
        tensors=((".attn_out.", ".attn_output."), (".post_attn_norm.", ".post_attention_norm."),
                 (".post_ffn_norm.", ".post_ffw_norm.")),
        adjust=(adjusting.four_sections, adjusting.rope_width, adjusting.fused_gate),
    ),
    "gptoss": Translation(
        "gpt-oss",
        tensors=((".attn_out.", ".attn_output."), (".attn_sinks", ".attn_sinks.weight"),
                 (".ffn_norm.", ".post_attention_norm.")),
        adjust=(adjusting.expert_width_of_gate,),
    ),
    "laguna": Translation(
        marks=("rope.swa.dimension_count", "rope.swa.freq_base", "blk.0.attn_g."), tensors=((".attn_g.", ".attn_gate."),),
        keys=(("rope.swa.dimension_count", "rope.dimension_count_swa"), ("rope.swa.freq_base", "rope.freq_base_swa")),
    ),
    "lfm2": Translation(marks=("output_norm.",), adjust=(adjusting.lfm2_norm,)),
    "llama4": Translation(marks=VISION, dropped=VISION),
    "mistral3": Translation(
        marks=(*VISION, "rope.scaling.beta_fast", "rope.scaling.mscale_all_dim", "rope.scaling_beta"), dropped=VISION,
        keys=(("rope.scaling.beta_fast", "rope.scaling.yarn_beta_fast"),
              ("rope.scaling.beta_slow", "rope.scaling.yarn_beta_slow"),
              ("rope.scaling.mscale_all_dim", "rope.scaling.yarn_log_multiplier"),
              ("rope.scaling_beta", "attention.temperature_scale")),
    ),
    "nemotron_h_moe": Translation(
        marks=("blk.0.ffn_latent_in", "blk.1.ffn_latent_in", "mtp."), dropped=("mtp.",), adjust=(adjusting.latent_experts,)
    ),
    "nemotron_h_omni": Translation(
        "nemotron_h", dropped=("a.", *VISION, "mtp."), adjust=(adjusting.nemotron_of_experts, adjusting.latent_experts)
    ),
    "olmo3": Translation("olmo2"),
    "qwen25vl": Translation(
        "qwen2vl", dropped=VISION, keys=(("rope.mrope_section", "rope.dimension_sections"),), adjust=(adjusting.four_sections,)
    ),
    "qwen35": _QWEN35,
    "qwen35moe": _QWEN35._replace(marks=(*_QWEN35.marks, "feed_forward_length")),
    "qwen3next": Translation(marks=("blk.0.ssm_dt",), adjust=(adjusting.qwen3next_bias,)),
    "qwen3vl": _QWEN3VL,
    "qwen3vlmoe": _QWEN3VL,
}  # fmt: skip


def understand(header: Header) -> Model:
    """The model of such a header; what Ollama makes of the file beside it is an assumption."""
    found = translate(header)
    model = describe(found)
    if found is header:
        return model
    return replace(model, assumptions=(*model.assumptions, _OLDER, *_projector(header)))


def translate(header: Header) -> Header:
    """The header as llama.cpp's own converter would have written it."""
    name = header.metadata.get("general.architecture")
    row = TRANSLATIONS.get(name) if isinstance(name, str) else None
    if row is None or not _is_older(header, f"{name}.", row.marks):
        return header
    draft = Draft(header)
    draft.rename(row.tensors)
    draft.name = row.becomes or draft.name
    for old, new in row.keys:
        draft.move(old, new)
    for adjust in row.adjust:
        adjust(draft)
    draft.drop(row.dropped)
    return draft.header if draft.changed else header


def _is_older(header: Header, prefix: str, marks: tuple[str, ...]) -> bool:
    if not marks:
        return True
    if any(f"{prefix}{mark}" in header.metadata for mark in marks):
        return True
    if any(mark.startswith("!") and f"{prefix}{mark[1:]}" not in header.metadata for mark in marks):
        return True
    return any(name.startswith(marks) for name in header.tensors)


def _projector(header: Header) -> tuple[str, ...]:
    """Ollama gives the same file as --mmproj."""
    n_bytes = sum(t.n_bytes for name, t in header.tensors.items() if name.startswith((*VISION, "a.", "s.")))
    if not n_bytes:
        return ()
    size = format_bytes(n_bytes)
    return (f"the projector in the same file, which Ollama loads beside it, is not counted: {size} and its buffers",)
