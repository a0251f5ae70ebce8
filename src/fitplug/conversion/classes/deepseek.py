"""DeepSeek and the models with its latent attention: Kimi, GLM 4.7 Flash and 5, Mistral 4 (conversion/deepseek.py, glm.py)."""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.classes.llama import MINISTRAL3, VOCAB
from fitplug.conversion.common import SIGMOID
from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import Class, Key, Keys, Row, constant, dropped, halved, keys_of, or_else, renamed, rope_width
from fitplug.errors import FitplugError


def latent(shape: Shape, config: Config, prefix: str = "") -> Iterable[Shape]:
    """kv_b is split into k_b and v_b; k_b is turned (DeepseekV2Model.modify_tensors)."""
    if not shape.name.endswith("kv_b_proj.weight"):
        yield shape
        return
    n_head, rank = config.number(f"{prefix}num_attention_heads"), shape.shape[0]
    nope, value = config.number(f"{prefix}qk_nope_head_dim"), config.number(f"{prefix}v_head_dim")
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


def _ocr_class(config: Config) -> Row:
    """The text model of DeepSeek-OCR and its kin has plain attention (DeepseekV2Model.__init__)."""
    if config.whole not in ("DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM"):
        return DEEPSEEK2
    keys = {name: key for name, key in DEEPSEEK2_KEYS.items() if name != "attention.head_count_kv"}
    return DEEPSEEK2._replace(architecture="deepseek2-ocr", derive=(), keys={
        **keys,
        "attention.sliding_window": lambda c: c.given("sliding_window_size") or c.given("sliding_window") or None})  # fmt: skip


def _dots_windowed(config: Config, block: int) -> bool:
    """Windowed layers have latent attention of other widths; so has the block for multi-token prediction."""
    types = config.items("layer_types")
    return block >= min(config.n_layer, len(types)) or types[block] == "sliding_attention"


def _dots_latent(shape: Shape, config: Config) -> Iterable[Shape]:
    match = re.fullmatch(r"model\.layers\.(\d+)\..*kv_b_proj\.weight", shape.name)
    prefix = "swa_" if match and _dots_windowed(config, int(match[1])) else ""
    return latent(shape, config, prefix)


def _dots3(config: Config) -> Keys:
    windowed = tuple(_dots_windowed(config, i) for i in range(config.n_blocks))
    own = windowed[: config.n_layer]
    rank, rope = config.number("swa_kv_lora_rank"), config.number("swa_qk_rope_head_dim")
    return {
        "attention.head_count": tuple(
            config.number("swa_num_attention_heads" if one else "num_attention_heads") for one in windowed),
        "attention.sliding_window": config.number("sliding_window_size"), "attention.sliding_window_pattern": own,
        "attention.kv_lora_rank_swa": rank, "attention.key_length_swa": rank + rope, "attention.value_length_swa": rank,
        "attention.key_length_mla_swa": config.number("swa_qk_nope_head_dim") + rope,
        "attention.value_length_mla_swa": config.number("swa_v_head_dim"),
        "attention.indexer.types": tuple(not one for one in own),
        **({"nextn_predict_layers": config.n_blocks - config.n_layer} if config.n_blocks > config.n_layer else {}),
    }  # fmt: skip


_DOTS_MTP = "model.mtp.embed_tokens.weight"
_DOTS3 = DEEPSEEK2._replace(
    architecture="dots3note", keys={**DEEPSEEK2_KEYS, **INDEXER}, derive=(_mla, _dots3), trunk_only=False,
    blocks=lambda config: config.n_layer + int(_DOTS_MTP in config.tensors),
    steps=(
        dropped(r"^(vision|audio)_encoder\."),
        lambda shape, config: [
            shape._replace(name=f"model.layers.{config.n_layer}.embed_tokens.weight") if shape.name == _DOTS_MTP else shape],
        _STEPS[0], _STEPS[1], _dots_latent,
    ),
)  # fmt: skip


def _hy4(config: Config) -> Keys:
    types, dense = config.items("indexer_types"), 0
    for kind in config.items("mlp_layer_types"):
        if kind != "dense":
            break
        dense += 1
    sparse = [kind in ("sparse_attention", "deepseek_sparse_attention") for kind in config.items("layer_types")]
    full = tuple(kind == "full" for kind in types) if types else tuple(sparse) if any(sparse) else ()
    limit = config.real("swiglu_limit", default=0.0)
    return {
        "leading_dense_block_count": config.number("first_k_dense_replace", default=dense),
        **({"swiglu_clamp_exp": (limit,) * config.n_blocks} if limit > 0 else {}),
        **({**keys_of(INDEXER, config), "attention.indexer.types": full[: config.n_layer]} if full else {}),
    }


def _hy4_class(config: Config) -> Row:
    """Without groups of experts where there is one (HYV4Model.set_gguf_parameters)."""
    one = config.get("n_group") == 1 and config.get("topk_group") == 1
    f32 = r"|^output\.weight$" if config.given("enable_lm_head_fp32") else ""
    return DEEPSEEK2._replace(
        architecture="hy_v4", derive=(_mla, _hy4), without=("expert_group_count", "expert_group_used_count") if one else (),
        keys={
            **DEEPSEEK2_KEYS, "expert_gating_func": constant(SIGMOID), "hyper_connection.count": "hc_mult",
            "hyper_connection.epsilon": "hc_eps", "hyper_connection.magnitude": "hc_magnitude",
        },
        steps=(
            dropped(r"^model\.mtp_layers\."),
            renamed(r"(mlp\.experts\.(?:gate_up|down)_proj|\.self_attn\.learnable_sink_param|\.hc_head\.hc_head_(?:fn|base|scale)|"
                    r"\.hc_(?:attn|mlp)_layer\.hc_pre\.hc_(?:fn|base|scale))$", r"\1.weight"),
            halved(r"experts\.gate_up_proj\.weight$", "experts.gate_proj.weight", "experts.up_proj.weight"), *_STEPS,
        ),
        forced=((r"(hc_attn_fn|hc_ffn_fn|output_hc_fn)\.weight$" + f32, "f32"),),
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
        ("DeepseekV3ForCausalLM", "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration",
         "YoutuForCausalLM", "YoutuVLForConditionalGeneration"), DEEPSEEK2,
    ),
    **dict.fromkeys(("DeepseekV2ForCausalLM", "DeepseekOCRForCausalLM", "UnlimitedOCRForCausalLM"), _ocr_class),
    **dict.fromkeys(("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"), _DOTS3),
    "HYV4ForCausalLM": _hy4_class,
    "DeepseekV32ForCausalLM": DEEPSEEK2._replace(
        architecture="deepseek32", keys={**DEEPSEEK2_KEYS, **INDEXER}, nextn=_NEXTN, trunk_only=False),
    "Glm4MoeLiteForCausalLM": DEEPSEEK2._replace(nextn=_NEXTN, trunk_only=False),
    "GlmMoeDsaForCausalLM": DEEPSEEK2._replace(
        architecture="glm-dsa", keys={
            **DEEPSEEK2_KEYS, **INDEXER, "rope.dimension_count": rope_width(of=lambda c: c.number("qk_rope_head_dim"))},
        derive=(_mla, _full_indexers), nextn=_NEXTN, trunk_only=False),
    "Mistral3ForConditionalGeneration": lambda config: _MISTRAL4 if config.get("model_type") == "mistral4" else MINISTRAL3,
}  # fmt: skip
