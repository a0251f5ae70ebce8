"""One row for each model class of transformers: what convert_hf_to_gguf.py makes of its config.json.

`COMMON` is TextModel.set_gguf_parameters (conversion/base.py); a row says what its own class in conversion/*.py adds. Only what
decides memory is here: scales, thresholds and tokens are not.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fitplug.conversion.config import Config
from fitplug.formats.header import Value

Keys = Mapping[str, Value]
Derive = Callable[[Config], Keys]


class Row(NamedTuple):
    """A class."""

    architecture: str
    """llama.cpp's."""
    derive: tuple[Derive, ...] = ()
    """Keys besides the common ones; the later wins."""
    nextn: str = ""
    """The config's number of MTP layers, where they are converted as further blocks."""
    mla: bool = False
    """kv_b is split into k_b and v_b (DeepseekV2Model.modify_tensors)."""
    drops: str = ""
    """A pattern of tensors that are left out."""
    renames: tuple[tuple[str, str], ...] = ()
    """Patterns in names that are replaced before the tensor map sees them."""
    fused: str = "rows"
    """How gate_up of stacked experts lies: "rows" one above the other, "columns" transposed (GptOssModel, Llama4Model)."""


COMMON: Mapping[str, tuple[str, ...]] = {
    "context_length": (
        "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length"),
    "embedding_length": ("hidden_size", "n_embd", "dim"),
    "feed_forward_length": (
        "prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size", "n_inner", "hidden_dim"),
    "attention.head_count": ("num_attention_heads", "n_head", "n_heads"),
    "attention.head_count_kv": ("num_key_value_heads", "n_kv_heads"),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
    "expert_group_count": ("n_group",),
    "expert_group_used_count": ("topk_group",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
}  # fmt: skip


def _copied(**names: str) -> Derive:
    """Keys that are another name for one of config.json's; double underscores are dots."""

    def derive(config: Config) -> Keys:
        found = {key.replace("__", "."): config.get(name) for key, name in names.items()}
        return {key: value for key, value in found.items() if value is not None}

    return derive


def _rope(factor: float = 1.0) -> Derive:
    """rope.dimension_count: the head's width, or the part of it that rotates."""

    def derive(config: Config) -> Keys:
        part = config.rope("partial_rotary_factor")
        return {"rope.dimension_count": int(config.head_dim * (part if isinstance(part, (int, float)) else factor))}

    return derive


def _default_head_dim(head_dim: int) -> Derive:
    return lambda config: {f"attention.{kind}_length": config.number("head_dim", default=head_dim) for kind in ("key", "value")}


def _no_head_dim(config: Config) -> Keys:
    width = config.number("hidden_size") // config.number("num_attention_heads")
    return {"rope.dimension_count": width, "attention.key_length": width, "attention.value_length": width}


def _window_by_layers(config: Config) -> Keys:
    """sliding_window and which layers have it, as the class writes them from layer_types."""
    window = config.get("sliding_window")
    types = config.items("layer_types")
    if not isinstance(window, int):
        return {}
    keys: dict[str, Value] = {"attention.sliding_window": window}
    if types:
        keys["attention.sliding_window_pattern"] = tuple(kind == "sliding_attention" for kind in types)
    return keys


def _olmo2(config: Config) -> Keys:
    keys = dict(_window_by_layers(config))
    if keys and "attention.sliding_window_pattern" not in keys:
        n_layer = config.number("num_hidden_layers")
        keys["attention.sliding_window_pattern"] = tuple((i + 1) % 4 != 0 for i in range(min(n_layer, 4096)))
    return keys


def _deepseek2(config: Config) -> Keys:
    rank, rope = config.number("kv_lora_rank", default=512), config.number("qk_rope_head_dim")
    experts = config.get("n_routed_experts")
    dense = config.get("first_k_dense_replace")
    keys: dict[str, Value] = {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": config.number("qk_nope_head_dim") + rope,
        "attention.value_length_mla": config.number("v_head_dim"),
        "rope.dimension_count": rope,
        "leading_dense_block_count": dense if isinstance(dense, int) else 0 if experts else config.number("num_hidden_layers"),
        "expert_feed_forward_length": config.number("moe_intermediate_size", "intermediate_size"),
        "expert_shared_count": config.number("n_shared_experts", default=0),
    }
    q_lora_rank = config.get("q_lora_rank")
    return keys | ({"attention.q_lora_rank": q_lora_rank} if q_lora_rank is not None else {})


def _gemma3(config: Config) -> Keys:
    keys: dict[str, Value] = {
        "context_length": config.number("max_position_embeddings", default=131072),
        "attention.head_count": config.number("num_attention_heads", default=8),
        "attention.head_count_kv": config.number("num_key_value_heads", default=4),
    }
    if config.get("sliding_window_pattern") != 1:
        keys["attention.sliding_window"] = config.number("sliding_window", default=4096)
    return {**keys, **_default_head_dim(256)(config)}


def _phi3(config: Config) -> Keys:
    width, part = config.number("hidden_size"), config.rope("partial_rotary_factor")
    rotating = int((part if isinstance(part, (int, float)) else 1.0) * width) // config.number("num_attention_heads")
    return {"rope.dimension_count": rotating, "attention.sliding_window": config.number("sliding_window", default=0)}


def _llama4(config: Config) -> Keys:
    return {
        "feed_forward_length": config.number("intermediate_size_mlp"),
        "expert_feed_forward_length": config.number("intermediate_size"),
        "interleave_moe_layer_step": config.number("interleave_moe_layer_step", default=1),
    }


def _cohere2(config: Config) -> Keys:
    width = config.number("hidden_size") // config.number("num_attention_heads")
    keys = dict(_copied(attention__sliding_window="sliding_window", logit_scale="logit_scale")(config))
    return keys | {"rope.dimension_count": int(config.real("rotary_pct", default=1.0) * width)}


def _falcon(config: Config) -> Keys:
    return {
        "context_length": 2048,
        "feed_forward_length": 4 * config.number("hidden_size"),
        "attention.head_count_kv": config.number("num_kv_heads", "n_head_kv", default=1),
    }


_MOE = _copied(
    expert_feed_forward_length="moe_intermediate_size", expert_shared_feed_forward_length="shared_expert_intermediate_size"
)
_SHARED = _copied(
    expert_feed_forward_length="moe_intermediate_size", expert_shared_count="n_shared_experts",
    leading_dense_block_count="first_k_dense_replace",
)  # fmt: skip
_LLAMA = Row("llama", (_rope(),))
_DEEPSEEK2 = Row("deepseek2", (_deepseek2,), mla=True)
_WINDOW = _copied(attention__sliding_window="sliding_window")

ROWS: Mapping[str, Row] = {
    **dict.fromkeys(
        ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "InternLM3ForCausalLM"), _LLAMA
    ),
    "ArceeForCausalLM": Row("arcee", (_rope(),)),
    "SmolLM3ForCausalLM": Row("smollm3", (_rope(),)),
    "Llama4ForCausalLM": Row("llama4", (_rope(), _llama4), fused="columns"),
    "Llama4ForConditionalGeneration": Row("llama4", (_rope(), _llama4), fused="columns"),
    "Qwen2ForCausalLM": Row("qwen2"),
    "Qwen2VLForConditionalGeneration": Row("qwen2vl"),
    "Qwen2_5_VLForConditionalGeneration": Row("qwen2vl"),
    "Qwen2MoeForCausalLM": Row("qwen2moe", (_MOE,)),
    "Qwen3ForCausalLM": Row("qwen3"),
    "Qwen3MoeForCausalLM": Row("qwen3moe", (_MOE,)),
    "GemmaForCausalLM": Row("gemma", (_default_head_dim(256),), drops=r"lm_head\.weight"),
    "Gemma2ForCausalLM": Row("gemma2", (_default_head_dim(256), _WINDOW), drops=r"lm_head\.weight"),
    "Gemma3ForCausalLM": Row("gemma3", (_gemma3,)),
    "Gemma3ForConditionalGeneration": Row("gemma3", (_gemma3,)),
    "Phi3ForCausalLM": Row("phi3", (_phi3,)),
    "DeepseekV2ForCausalLM": _DEEPSEEK2,
    "DeepseekV3ForCausalLM": _DEEPSEEK2,
    "Glm4MoeLiteForCausalLM": _DEEPSEEK2._replace(nextn="num_nextn_predict_layers"),
    "Glm4ForCausalLM": Row("glm4", (_rope(0.5),)),
    "Glm4MoeForCausalLM": Row("glm4moe", (_rope(0.5), _SHARED), nextn="num_nextn_predict_layers"),
    "GptOssForCausalLM": Row(
        "gpt-oss", (_WINDOW, _copied(expert_feed_forward_length="intermediate_size")), fused="columns",
        renames=((r"(sinks)$", r"\1.weight"), (r"(down_proj|gate_up_proj)_bias$", r"\1.bias")),
    ),
    "OlmoForCausalLM": Row("olmo"),
    "Olmo2ForCausalLM": Row("olmo2", (_olmo2,)),
    "Olmo3ForCausalLM": Row("olmo2", (_olmo2,)),
    "OlmoeForCausalLM": Row("olmoe"),
    "SeedOssForCausalLM": Row("seed_oss"),
    "CohereForCausalLM": Row("command-r"),
    "Cohere2ForCausalLM": Row("cohere2", (_cohere2,), drops=r".*\.bias"),
    "GraniteForCausalLM": Row("granite", (_no_head_dim,)),
    "Starcoder2ForCausalLM": Row("starcoder2"),
    "FalconForCausalLM": Row("falcon", (_falcon,)),
    "Dots1ForCausalLM": Row("dots1", (_SHARED,)),
}  # fmt: skip
"""By `architectures` of config.json."""
