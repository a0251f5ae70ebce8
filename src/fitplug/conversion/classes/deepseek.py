"""DeepSeek and the models with its latent attention: Kimi, GLM 4.7 Flash and 5, Mistral 4 (conversion/deepseek.py, glm.py)."""

from collections.abc import Iterable, Mapping

from fitplug.conversion.classes.llama import MINISTRAL3, VOCAB
from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import Class, Key, Keys, Row, constant, dropped, halved, or_else, renamed, rope_width
from fitplug.errors import FitplugError


def latent(shape: Shape, config: Config) -> Iterable[Shape]:
    """kv_b is split into k_b and v_b; k_b is turned (DeepseekV2Model.modify_tensors)."""
    if not shape.name.endswith("kv_b_proj.weight"):
        yield shape
        return
    n_head, rank = config.number("num_attention_heads"), shape.shape[0]
    nope, value = config.number("qk_nope_head_dim"), config.number("v_head_dim")
    if shape.shape[1] != n_head * (nope + value):
        raise FitplugError(f"{shape.name[:80]} is not as wide as config.json says")
    yield shape._replace(name=shape.name.replace("kv_b_proj", "k_b_proj"), shape=(nope, rank, n_head))
    yield shape._replace(name=shape.name.replace("kv_b_proj", "v_b_proj"), shape=(rank, value, n_head))


def _dense_lead(config: Config) -> int:
    given = config.get("first_k_dense_replace")
    if isinstance(given, int):
        return given
    return 0 if config.get("n_routed_experts") is not None else config.n_layer


def _mla(config: Config) -> Keys:
    rank, rope = config.number("kv_lora_rank", default=512), config.number("qk_rope_head_dim")
    log = config.rope("mscale_all_dim")
    return {
        "attention.kv_lora_rank": rank, "attention.key_length": rank + rope, "attention.value_length": rank,
        "attention.key_length_mla": config.number("qk_nope_head_dim") + rope,
        "attention.value_length_mla": config.number("v_head_dim"),
        **({"rope.scaling.yarn_log_multiplier": 0.1 * log} if isinstance(log, (int, float)) else {}),
    }  # fmt: skip


DEEPSEEK2_KEYS: Mapping[str, Key] = {
    **VOCAB, "attention.head_count_kv": constant(1), "attention.layer_norm_rms_epsilon": or_else(1e-6, "rms_norm_eps"),
    "leading_dense_block_count": _dense_lead, "attention.q_lora_rank": "q_lora_rank",
    "expert_feed_forward_length": ("moe_intermediate_size", "intermediate_size"), "expert_count": (
        "num_local_experts", "num_experts", "n_routed_experts"),
    "expert_shared_count": or_else(0, "n_shared_experts"), "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": lambda c: c.get("norm_topk_prob") or None, "rope.dimension_count": "qk_rope_head_dim",
}  # fmt: skip
_STEPS = (
    dropped("sam_model|qwen2_model"),
    dropped(r"^(model\.)?lm_head\.weight$", lambda config: bool(config.get("tie_word_embeddings"))),
    latent,
)
DEEPSEEK2 = Row("deepseek2", DEEPSEEK2_KEYS, derive=(_mla,), steps=_STEPS, trunk_only=True)
_NEXTN = ("num_nextn_predict_layers",)
INDEXER: Mapping[str, Key] = {
    "attention.indexer.head_count": "index_n_heads", "attention.indexer.key_length": "index_head_dim",
    "attention.indexer.top_k": "index_topk",
}  # fmt: skip
_MISTRAL4 = DEEPSEEK2._replace(
    architecture="mistral4", trunk_only=False, steps=(
        renamed(r"\.((?:gate_up|down)_proj)$", r".\1.weight"), *_STEPS,
        halved(r"experts\.gate_up_proj\.weight$", "experts.gate_proj.weight", "experts.up_proj.weight")),
)  # fmt: skip


def _full_indexers(config: Config) -> Keys:
    types = config.items("indexer_types")
    return {"attention.indexer.types": tuple(kind == "full" for kind in types)} if types else {}


ROWS: Mapping[str, Class] = {
    "DeepseekForCausalLM": Row("deepseek", {
        **VOCAB, "rope.dimension_count": lambda c: c.head_dim, "rope.scaling.type": constant("none"),
        "leading_dense_block_count": "first_k_dense_replace", "expert_feed_forward_length": "moe_intermediate_size",
        "expert_weights_scale": constant(1.0), "expert_count": "n_routed_experts", "expert_shared_count": "n_shared_experts",
    }),
    **dict.fromkeys(
        ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration",
         "YoutuForCausalLM", "YoutuVLForConditionalGeneration"), DEEPSEEK2,
    ),
    "DeepseekV32ForCausalLM": DEEPSEEK2._replace(
        architecture="deepseek32", keys={**DEEPSEEK2_KEYS, **INDEXER}, nextn=_NEXTN, trunk_only=False),
    "Glm4MoeLiteForCausalLM": DEEPSEEK2._replace(nextn=_NEXTN, trunk_only=False),
    "GlmMoeDsaForCausalLM": DEEPSEEK2._replace(
        architecture="glm-dsa", keys={
            **DEEPSEEK2_KEYS, **INDEXER, "rope.dimension_count": rope_width(of=lambda c: c.number("qk_rope_head_dim"))},
        derive=(_mla, _full_indexers), nextn=_NEXTN, trunk_only=False),
    "Mistral3ForConditionalGeneration": lambda config: _MISTRAL4 if config.get("model_type") == "mistral4" else MINISTRAL3,
}  # fmt: skip
