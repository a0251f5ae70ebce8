"""What every text model's conversion begins with: TextModel.set_gguf_parameters and filter_tensors (conversion/base.py)."""

import re
from collections.abc import Mapping

from fitplug.conversion.config import Config
from fitplug.conversion.row import Key, Keys
from fitplug.formats.header import Skipped, Value

_GATING: Mapping[str, int] = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
"""gguf.ExpertGatingFuncType."""
COMMON: Mapping[str, Key] = {
    "context_length": (
        "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length"),
    "embedding_length": ("hidden_size", "n_embd", "dim"),
    "feed_forward_length": (
        "prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size", "n_inner", "hidden_dim"),
    "attention.head_count": ("num_attention_heads", "n_head", "n_heads"),
    "attention.head_count_kv": ("num_key_value_heads", "n_kv_heads"),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.causal": lambda config: False if config.get("is_causal") is False else None,
    "rope.freq_base": lambda config: config.rope(
        "rope_theta", "global_rope_theta", "rope_global_theta", "rope_theta_global", "rotary_emb_base"),
    "rope.freq_base_swa": lambda config: config.given(
        "rope_parameters.sliding_attention.rope_theta", "local_rope_theta", "rope_local_theta", "rope_theta_local",
        "swa_rope_theta", "rope_local_base_freq"),
    "expert_gating_func": lambda config: _GATING.get(str(config.given(
        "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
        "expert_selection_fn"))),
}  # fmt: skip
"""Key → names in config.json."""
SIGMOID = 2
_NOT_TEXT = re.compile(
    r"^(mlp|vit\.|vpm\.|siglip2\.|conformer\.|merger\.|resampler\.|sound_encoder\.|sound_projection\.|speech_embeddings\.)|"
    r"visual\.|vision\.|audio\.|talker\.|vision_|audio_|token2wav\.|code2wav\.|projector\.|pre_mm_projector_norm|"
    r"image_newline|view_seperator|patch_embed|patch_merger\.|patch_merge_mlp\.|model\.connector\."
)
"""TextModel.filter_tensors: a projector of its own, converted apart."""
_UNUSED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")


def text_name(name: str) -> str | None:
    """The name of a text model's tensor as the class sees it; None for what is converted apart or not needed."""
    if name.endswith(_UNUSED) or _NOT_TEXT.search(name):
        return None
    return name.replace("language_model.", "").replace("e_score_correction_bias", "e_score_correction.bias")


def rope_scaling(config: Config) -> Keys:
    """The keys of a scaled rope, and the sections of M-RoPE."""
    kind, factor = config.rope_type, config.rope("factor")
    keys: dict[str, Value | None] = {}
    if kind in ("linear", "yarn") and factor is not None:
        keys = {"type": kind, "factor": factor}
        if kind == "yarn":
            keys |= {
                "original_context_length": config.rope("original_max_position_embeddings"),
                "yarn_ext_factor": config.rope("extrapolation_factor"),
                "yarn_attn_factor": config.rope("attention_factor", "attn_factor"),
                "yarn_beta_fast": config.rope("beta_fast"), "yarn_beta_slow": config.rope("beta_slow"),
            }  # fmt: skip
    elif kind in ("su", "longrope"):
        keys = {"type": "longrope"}
    found: dict[str, Value] = {f"rope.scaling.{key}": value for key, value in keys.items() if value is not None}
    sections = config.rope("mrope_section")
    if isinstance(sections, tuple) and not isinstance(sections, Skipped):
        found["rope.dimension_sections"] = (*sections, 0, 0, 0, 0)[:4]
    return found
