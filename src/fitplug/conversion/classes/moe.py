"""Mixtures of experts that are no Llama, Qwen or DeepSeek (conversion/glm.py, gpt_oss.py, minimax.py, ernie.py, …)."""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.classes.llama import EXAONE4, LLAMA, LLAMA_KEYS, VOCAB, WINDOW, llama3_freqs
from fitplug.conversion.classes.qwen import EXPERTS, MOE_KEYS
from fitplug.conversion.common import SIGMOID
from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import (
    MOVED,
    Class,
    Key,
    Keys,
    Row,
    constant,
    dropped,
    even_head,
    fused_qkv,
    halved,
    or_else,
    renamed,
    rope_width,
    squeezed,
    turned,
)

_NEXTN = ("num_nextn_predict_layers",)
_ROUTED: Mapping[str, Key] = {"expert_weights_scale": "routed_scaling_factor", "expert_weights_norm": "norm_topk_prob"}
_SHARED: Mapping[str, Key] = {
    "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace", **_ROUTED,
}  # fmt: skip
_GLM4 = Row("glm4", {"rope.dimension_count": rope_width(0.5)})
_GLM4_MOE = Row(
    "glm4moe", {**_SHARED, "rope.dimension_count": rope_width(0.5), "expert_gating_func": constant(SIGMOID)}, nextn=_NEXTN
)
_BIAS = renamed(r"\.expert_bias$", ".expert_bias.bias")


def _first(name: str) -> Key:
    """Of a list of which all are the same."""

    def key(config: Config) -> int | None:
        items = config.numbers(name)
        return items[0] if items else None

    return key


_GPT_OSS = Row(
    "gpt-oss", {"attention.sliding_window": "sliding_window", "expert_feed_forward_length": "intermediate_size"},
    steps=(
        renamed(r"(sinks)$", r"\1.weight"), renamed(r"((?:down|gate_up)_proj)_bias$", r"\1.bias"),
        renamed(r"(experts\.(?:down|gate_up)_proj)$", r"\1.weight"),
        lambda shape, config: [shape] if shape.type == "mxfp4" else turned(r"experts\.(down|gate_up)_proj\.weight$")(shape,
            config),
        lambda shape, _: _gpt_oss_halves(shape),
    ),
)  # fmt: skip


def _gpt_oss_halves(shape: Shape) -> Iterable[Shape]:
    """Gate and up lie interleaved in one tensor and in one bias."""
    if ".gate_up_proj." not in shape.name:
        yield shape
        return
    at = 0 if shape.name.endswith(".bias") else 1
    for part in ("gate_proj", "up_proj"):
        n = (*shape.shape[:at], shape.shape[at] // 2, *shape.shape[at + 1 :])
        yield shape._replace(name=shape.name.replace("gate_up_proj", part), shape=n)


_ERNIE_STEPS = (
    renamed(r"ernie\.", "model."),
    fused_qkv(r"qkv_proj\.", q="q_proj.", k="k_proj.", v="v_proj."),
    halved(r"up_gate_proj\.", "gate_proj.", "up_proj."),
)


def _ernie_shared(config: Config) -> Keys:
    shared, n_kv = config.get("moe_num_shared_experts"), config.get("num_key_value_heads")
    if not isinstance(shared, int) or shared <= 0 or not isinstance(n_kv, int):
        return {}
    return {"expert_shared_feed_forward_length": config.number("intermediate_size") // max(1, n_kv)}


def _minimax_m3(config: Config) -> Keys:
    dense = 0
    for value in config.items("moe_layer_freq"):
        if value != 0:
            break
        dense += 1
    names = {"head_count": "sparse_num_index_heads", "key_length": "sparse_index_dim", "top_k": "sparse_topk_blocks",
             "block_size": "sparse_block_size", "local_blocks": "sparse_local_block"}  # fmt: skip
    found = {f"attention.indexer.{key}": config.get(f"sparse_attention_config.{name}") for key, name in names.items()}
    return {**{key: value for key, value in found.items() if value is not None}, "leading_dense_block_count": dense}


_MINIMAX_KEYS: Mapping[str, Key] = {"expert_feed_forward_length": "intermediate_size", "rope.dimension_count": "rotary_dim"}
_BAILING_QKV = fused_qkv(
    r"model\.layers\.(\d+)\.attention\.query_key_value\.", q=r"blk.\1.attn_q.", k=r"blk.\1.attn_k.", v=r"blk.\1.attn_v."
)
_BAILING2_KEYS: Mapping[str, Key] = {
    **VOCAB, "rope.dimension_count": rope_width(0.5), "leading_dense_block_count": "first_k_dense_replace",
    "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": "num_shared_experts", **_ROUTED,
    "expert_shared_feed_forward_length": lambda c: c.given("moe_shared_expert_intermediate_size")
    or c.number("moe_intermediate_size") * c.number("num_shared_experts", default=1),
}  # fmt: skip
_BAILING2 = Row("bailingmoe2", _BAILING2_KEYS, steps=(_BIAS,), nextn=_NEXTN)
_SARVAM = _BAILING2._replace(keys={**_BAILING2_KEYS, "rope.dimension_count": lambda c: c.head_dim})


def _hunyuan_rope(config: Config) -> Keys:
    """Scaled by a base of its own (HunYuanModel.set_gguf_parameters); for pictures along four axes (HunyuanVLTextModel)."""
    kind, base = config.rope_type, config.rope("rope_theta") or 10000.0
    alpha, head = config.rope("alpha") or 50, config.head_dim
    if (
        kind not in ("dynamic", "xdrope")
        or not isinstance(alpha, (int, float))
        or not isinstance(base, (int, float))
        or head < 3
    ):
        return {}
    if config.architecture == "HunYuanVLForConditionalGeneration":
        n_ctx = config.number("max_position_embeddings")
        sections = config.rope("xdrope_section") or config.rope("mrope_section")
        return {
            "rope.freq_base": float(base), "rope.scaling.alpha": float(alpha), "rope.scaling.type": "none",
            "rope.scaling.factor": config.rope("factor") or 1.0, "rope.scaling.original_context_length": n_ctx,
            "context_length": n_ctx, **({"rope.dimension_sections": sections} if sections is not None else {}),
        }  # fmt: skip
    whole: Keys = {"rope.scaling.original_context_length": 256 * 1024, "context_length": 256 * 1024}
    return {
        "rope.freq_base": base * alpha ** (head / (head - 2)), "rope.scaling.type": "none", "rope.scaling.factor": 1.0,
        **(whole if kind == "dynamic" else {}),
    }  # fmt: skip


_HUNYUAN_HEAD = (dropped(r"^lm_head\.weight$", lambda config: bool(config.get("tie_word_embeddings"))),)
_EXAONE_MTP = {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head.norm"}


def _exaone_mtp(shape: Shape, config: Config) -> Iterable[Shape]:
    """mtp.* is the block after the last one (ExaoneMoEModel.modify_tensors)."""
    layer = re.fullmatch(r"mtp\.layers\.(\d+)\.(.+)", shape.name)
    other = re.fullmatch(r"mtp\.(\w+)\.(\w+)", shape.name)
    if layer:
        yield shape._replace(name=f"model.layers.{config.n_layer + int(layer[1])}.{layer[2]}", type=MOVED)
    elif other and other[1] in _EXAONE_MTP:
        yield shape._replace(name=f"model.layers.{config.n_layer}.{_EXAONE_MTP[other[1]]}.{other[2]}", type=MOVED)
    else:
        yield shape


_EXAONE_MOE = EXAONE4._replace(
    architecture="exaone-moe",
    keys={
        **VOCAB, **_ROUTED, "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": "num_shared_experts",
        "expert_shared_feed_forward_length": lambda c: c.number("moe_intermediate_size") * c.number("num_shared_experts"),
        "leading_dense_block_count": or_else(0, "first_k_dense_replace", "first_last_k_dense_replace"),
        "nextn_predict_layers": or_else(0, *_NEXTN), "rope.scaling.type": constant("none"),
    },
    steps=(_exaone_mtp,), nextn=_NEXTN, extra=(),
)  # fmt: skip


def _step35(config: Config) -> Keys:
    """Heads and the window differ by layer (Step35Model.set_gguf_parameters); blocks of MTP are listed too."""
    n = config.n_blocks
    types = (*config.items("layer_types"), *("full_attention",) * n)[:n]
    heads, kv = config.number("num_attention_heads"), config.number("num_attention_groups")
    swa_heads = config.number("attention_other_setting.num_attention_heads", default=heads)
    swa_kv = config.number("attention_other_setting.num_attention_groups", default=kv)
    windowed = tuple(kind == "sliding_attention" for kind in types)
    moe = str(config.given("moe_layers_enum") or "").split(",")[0].strip()
    limits = {"swiglu_clamp_exp": "swiglu_limits", "swiglu_clamp_shexp": "swiglu_limits_shared"}
    return {
        "attention.head_count": tuple(swa_heads if one else heads for one in windowed),
        "attention.head_count_kv": tuple(swa_kv if one else kv for one in windowed),
        "attention.sliding_window_pattern": windowed,
        "leading_dense_block_count": int(moe) if moe.isdecimal() else 0,
        "moe_every_n_layers": config.number("moe_every_n_layer", default=1),
        **{key: (*config.items(name), *(0.0,) * n)[:n] for key, name in limits.items() if config.given(name) is not None},
    }  # fmt: skip


def _step35_names(shape: Shape, config: Config) -> Iterable[Shape]:
    """The shared head of a block of MTP lies a level deeper."""
    layer = re.match(r"model\.layers\.(\d+)\.", shape.name)
    if layer and int(layer[1]) >= config.n_layer:
        shape = shape._replace(name=shape.name.replace(".transformer.", ".").replace("shared_head.output", "shared_head.head"))
    yield shape


def _step35_freqs(config: Config) -> Iterable[Shape]:
    if config.rope_type == "llama3":
        factors = zip(config.items("layer_types"), config.items("partial_rotary_factors"), strict=False)
        factor = next((float(part) for kind, part in factors if kind == "full_attention"), 1.0)
        yield Shape("rope_freqs.weight", "f32", (max(int(config.head_dim * factor), config.head_dim) // 2,))


_STEP35 = Row(
    "step35",
    {
        "attention.sliding_window": "sliding_window", "attention.value_length": "head_dim", "expert_count": "moe_num_experts",
        "expert_used_count": "moe_top_k", "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "share_expert_dim", "expert_weights_scale": "moe_router_scaling_factor",
        "expert_weights_norm": "norm_expert_weight", "attention.layer_norm_rms_epsilon": or_else(1e-5, "rms_norm_eps"),
    },
    derive=(_step35,), nextn=_NEXTN, extra=(_step35_freqs,),
    steps=(
        renamed(r"\.moe\.router_bias$", ".moe.router_bias.bias"), _step35_names,
        squeezed(r"\.(self_attn\.g_proj|moe\.(gate|up_proj|gate_proj|down_proj))\.weight$"),
    ),
)  # fmt: skip


def _small_thinker(config: Config) -> Keys:
    width = config.given("moe_ffn_hidden_size")
    window = config.given("sliding_window_size") if any(config.items("sliding_window_layout")) else None
    return {
        **({"expert_feed_forward_length": width, "feed_forward_length": width} if width is not None else {}),
        "expert_gating_func": 1 if config.given("moe_primary_router_apply_softmax") else SIGMOID,
        **({"attention.sliding_window": window} if window else {}),
    }


_GROVE = Row(
    "grovemoe", {
        "expert_feed_forward_length": "moe_intermediate_size", "experts_per_group": constant(2),
        "expert_group_scale": constant(0.05),
        "expert_chunk_feed_forward_length": lambda c: c.given("head_dim") or 128,
    }, steps=(dropped(r"\.expert_bias$"),),
)  # fmt: skip
_ARCTIC = Row("arctic", {**VOCAB, "rope.dimension_count": even_head})
_COHERE2_MOE = Row(
    "cohere2moe",
    {
        "logit_scale": "logit_scale", **WINDOW, **VOCAB, "expert_feed_forward_length": "intermediate_size",
        "leading_dense_block_count": lambda c: next(
            (i for i, kind in enumerate(c.items("mlp_layer_types")) if kind != "dense"), len(c.items("mlp_layer_types")))
        if c.given("mlp_layer_types") is not None else c.number("first_k_dense_replace", default=0),
        "expert_weights_norm": or_else(False, "norm_topk_prob"), "rope.dimension_count": "head_dim",
        "expert_shared_count": lambda c: c.given("num_shared_experts") or None, "rope.scaling.type": constant("none"),
        "expert_shared_feed_forward_length": lambda c: c.number("intermediate_size")
        * c.number("num_shared_experts", default=0) or None,
    },
    steps=(dropped(r"\.bias$"),), nextn=_NEXTN,
)  # fmt: skip


def _grok_rope(config: Config) -> Keys:
    """A yarn by its own name, beside the heads (GrokModel.set_gguf_parameters)."""
    if config.get("rope_type") not in ("yarn", "original"):
        return {}
    names = {"factor": "scaling_factor", "original_context_length": "original_max_position_embeddings",
             "yarn_ext_factor": "extrapolation_factor", "yarn_attn_factor": "attn_factor", "yarn_beta_fast": "beta_fast",
             "yarn_beta_slow": "beta_slow"}  # fmt: skip
    found = {f"rope.scaling.{key}": config.get(name) for key, name in names.items()}
    return {"rope.scaling.type": "yarn", **{key: value for key, value in found.items() if value is not None}}


_GROK = Row(
    "grok",
    {
        "attn_logit_softcapping": or_else(30.0, "attn_logit_softcapping"),
        "expert_feed_forward_length": "moe_intermediate_size",
        "router_logit_softcapping": or_else(30.0, "router_logit_softcapping"),
        "final_logit_softcapping": lambda c: c.given("final_logit_softcapping") or None,
        "attention.temperature_length": lambda c: c.given("attn_temperature_len") or None,
        "attention.output_scale": lambda c: c.real("attn_output_multiplier", default=c.head_dim**-0.5),
        "embedding_scale": "embedding_multiplier_scale", "logit_scale": "output_multiplier_scale",
    },
    derive=(_grok_rope,),
)  # fmt: skip
_MAPLE = Row("maple", {
    **VOCAB, **WINDOW, "rope.dimension_count": rope_width(), "expert_feed_forward_length": "moe_intermediate_size",
    "swiglu_clamp_exp": lambda c: (7.0,) * c.n_blocks,
})  # fmt: skip

ROWS: Mapping[str, Class] = {
    **dict.fromkeys(("GrokForCausalLM", "Grok1ForCausalLM"), _GROK),
    "MapleForCausalLM": _MAPLE,
    "GptOssForCausalLM": _GPT_OSS,
    "Glm4ForCausalLM": _GLM4,
    "Glm4vForConditionalGeneration": _GLM4,
    "GlmOcrForConditionalGeneration": _GLM4._replace(nextn=_NEXTN),
    "Glm4MoeForCausalLM": _GLM4_MOE,
    "Glm4vMoeForConditionalGeneration": _GLM4_MOE,
    "SolarOpenForCausalLM": _GLM4_MOE,
    "Dots1ForCausalLM": Row("dots1", {**MOE_KEYS, **_SHARED}, steps=EXPERTS),
    "OlmoeForCausalLM": Row("olmoe", {"attention.layer_norm_rms_epsilon": constant(1e-5)}),
    "MiniMaxText01ForCausalLM": Row("minimax-01", {
        "residual_scale": "layernorm_full_attention_alpha", "rope.dimension_count": "rotary_dim"}),
    "MiniMaxM1ForCausalLM": Row("minimax-01", {
        "residual_scale": "layernorm_full_attention_alpha", "rope.dimension_count": "rotary_dim"}),
    "MiniMaxM2ForCausalLM": Row("minimax-m2", _MINIMAX_KEYS),
    **dict.fromkeys(("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"), Row(
        "minimax-m3", {
            **_MINIMAX_KEYS, "expert_shared_count": "n_shared_experts", "expert_weights_scale": "routed_scaling_factor",
            "expert_weights_norm": constant(True),
        }, derive=(_minimax_m3,), forced=((r"\.indexer\.", "f32"),),
    )),
    "Ernie4_5ForCausalLM": Row("ernie4_5", steps=_ERNIE_STEPS),
    "Ernie4_5_ForCausalLM": Row("ernie4_5", steps=_ERNIE_STEPS),
    "PaddleOCRVLForConditionalGeneration": Row("paddleocr", steps=_ERNIE_STEPS),
    "Ernie4_5_MoeForCausalLM": Row("ernie4_5-moe", {
        "expert_count": "moe_num_experts", "expert_used_count": "moe_k", "interleave_moe_layer_step": "moe_layer_interval",
        "leading_dense_block_count": "moe_layer_start_index", "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_count": "moe_num_shared_experts",
    }, derive=(_ernie_shared,), steps=(
        dropped(r"^model\.mtp_(block|emb_norm|hidden_norm|linear_proj)\.\d+"), renamed(r"ernie\.", "model."))),
    "HunYuanMoEV1ForCausalLM": Row("hunyuan-moe", {
        "expert_shared_feed_forward_length": "intermediate_size", "expert_feed_forward_length": _first("moe_intermediate_size"),
        "expert_used_count": _first("moe_topk"), "expert_shared_count": _first("num_shared_expert"),
    }, derive=(_hunyuan_rope,), steps=_HUNYUAN_HEAD),
    "HunYuanDenseV1ForCausalLM": Row("hunyuan-dense", derive=(_hunyuan_rope,), steps=_HUNYUAN_HEAD, without=("expert_count",)),
    "HunYuanVLForConditionalGeneration": Row(
        "hunyuan_vl", derive=(_hunyuan_rope,), steps=_HUNYUAN_HEAD, without=("expert_count",)),
    "HYV3ForCausalLM": Row("hy_v3", {
        "expert_feed_forward_length": "moe_intermediate_size", "expert_weights_norm": or_else(True, "route_norm"),
        "expert_shared_feed_forward_length": lambda c: c.number("moe_intermediate_size") * c.number("num_shared_experts",
            default=1),
        "expert_weights_scale": or_else(1.0, "router_scaling_factor"), "expert_gating_func": constant(SIGMOID),
    }, nextn=_NEXTN),
    "BailingMoeForCausalLM": Row("bailingmoe", {
        **VOCAB, "rope.dimension_count": lambda c: c.head_dim, "leading_dense_block_count": "first_k_dense_replace",
        "expert_feed_forward_length": "moe_intermediate_size", "expert_weights_scale": constant(1.0),
        "expert_shared_count": "num_shared_experts", "expert_weights_norm": "norm_topk_prob",
    }, steps=(_BAILING_QKV, renamed(r"model\.layers\.(\d+)\.attention\.dense\.", r"blk.\1.attn_output."))),
    "BailingMoeV2ForCausalLM": _BAILING2,
    "SarvamMoEForCausalLM": _SARVAM,
    "modeling_sarvam_moe.SarvamMoEForCausalLM": _SARVAM,
    "AfmoeForCausalLM": Row("afmoe", {
        **LLAMA_KEYS, "expert_shared_count": "num_shared_experts", "expert_feed_forward_length": "moe_intermediate_size",
        "leading_dense_block_count": "num_dense_layers", "expert_weights_norm": "route_norm",
        "expert_weights_scale": "route_scale",
        "attention.sliding_window": "sliding_window",
    }, steps=(*LLAMA.steps, _BIAS), extra=(llama3_freqs,)),
    "Exaone4_5_ForConditionalGeneration": EXAONE4._replace(steps=(_exaone_mtp,), nextn=_NEXTN),
    "ExaoneMoEForCausalLM": _EXAONE_MOE,
    "ExaoneMoeForCausalLM": _EXAONE_MOE,
    "Step3p5ForCausalLM": _STEP35,
    "Step3p7ForConditionalGeneration": _STEP35,
    "SmallThinkerForCausalLM": Row("smallthinker", {
        "expert_count": "moe_num_primary_experts", "expert_used_count": "moe_num_active_primary_experts"},
        derive=(_small_thinker,)),
    "GroveMoeForCausalLM": _GROVE,
    "modeling_grove_moe.GroveMoeForCausalLM": _GROVE,
    "ArcticForCausalLM": _ARCTIC,
    "Cohere2MoeForCausalLM": _COHERE2_MOE,
    "LLaDAMoEModel": Row("llada-moe", {
        "expert_feed_forward_length": "expert_intermediate_size", "attention.causal": constant(False),
        "diffusion.shift_logits": constant(False), "tokenizer.ggml.mask_token_id": constant(156895)}),
    "LLaDAMoEModelLM": Row("llada-moe", {
        "expert_feed_forward_length": "expert_intermediate_size", "attention.causal": constant(False),
        "diffusion.shift_logits": constant(False), "tokenizer.ggml.mask_token_id": constant(156895)}),
    "MellumForCausalLM": lambda config: Row("mellum", {
        "expert_feed_forward_length": "moe_intermediate_size",
        **(WINDOW if config.get("use_sliding_window") is not False and config.get("sliding_window") is not None else {})}),
}  # fmt: skip
