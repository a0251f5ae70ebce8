"""Models whose layers differ in heads, width or kind (conversion/openelm.py, deci.py, mimo.py, plamo.py, laguna.py)."""

import re
from collections.abc import Iterable, Mapping, Sequence

from fitplug.conversion.classes.hybrid import NEMOTRON_MOE, NEMOTRON_STEPS, hybrid_ssm
from fitplug.conversion.classes.llama import GRANITE, GRANITE_KEYS, VOCAB, WINDOW, llama3_freqs
from fitplug.conversion.common import SIGMOID
from fitplug.conversion.config import MAX_LAYERS, Config
from fitplug.conversion.dequantize import METHODS, Method
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
    halved,
    or_else,
    renamed,
    rope_width,
    squeezed,
)
from fitplug.errors import FitplugError
from fitplug.formats.header import Tensor, Value


def _whole(items: Sequence[object]) -> list[int]:
    return [item for item in items if isinstance(item, int)]


def _openelm_widths(config: Config) -> Value:
    """OpenELMModel._make_divisible."""
    divisor, widths = max(1, config.number("ffn_dim_divisor")), []
    for factor in config.reals("ffn_multipliers"):
        n = factor * config.number("model_dim")
        width = max(divisor, int(n + divisor / 2) // divisor * divisor)
        widths.append(width + divisor if width < 0.9 * n else width)
    return tuple(widths)


_OPENELM = Row(
    "openelm",
    {
        "context_length": "max_context_length", "embedding_length": "model_dim", "feed_forward_length": _openelm_widths,
        "attention.head_count": "num_query_heads", "attention.head_count_kv": "num_kv_heads",
        "rope.freq_base": "rope_freq_constant", "attention.layer_norm_rms_epsilon": constant(1e-6),
        "rope.dimension_count": "head_dim", "attention.key_length": "head_dim", "attention.value_length": "head_dim",
    },
    steps=(halved(r"^transformer\.layers\.(\d+)\.ffn\.proj_1\.", r"blk.\1.ffn_gate.", r"blk.\1.ffn_up."),), common=False,
)  # fmt: skip


def _deci_block(config: Config, block: str) -> tuple[int, int, int]:
    """Heads, KV heads and the feed-forward's width of one block (DeciModel.__init__)."""
    heads, group = config.number("num_attention_heads"), config.get(f"{block}.attention.n_heads_in_group")
    factor = config.real(f"{block}.ffn.ffn_mult", default=0.0)
    width = int(2 * factor * config.number("hidden_size") / 3)
    width = -(-width // 256) * 256
    if isinstance(group, int) and group > 0:
        return heads, heads // group, width
    return heads if config.get(f"{block}.attention.replace_with_linear") is True else 0, 0, width


def _deci(config: Config) -> Keys:
    blocks = [_deci_block(config, block) for block in config.children("block_configs")]
    if len(blocks) != config.n_layer:
        raise FitplugError("config.json does not say what each block is: what this model would be as GGUF is not known")
    heads, kv, widths = (tuple(block[i] for block in blocks) for i in range(3))
    return {
        "attention.head_count": heads, "attention.head_count_kv": kv, "feed_forward_length": widths,
        "context_length": config.number("max_position_embeddings"), "embedding_length": config.number("hidden_size"),
        "attention.layer_norm_rms_epsilon": config.given("rms_norm_eps") or 0.0, "attention.key_length": even_head(config),
        "attention.value_length": even_head(config),
    }  # fmt: skip


_DECI_KEYS: Mapping[str, Key] = {**VOCAB, "rope.dimension_count": lambda c: c.head_dim}


def _deci_class(config: Config) -> Row:
    """Nemotron 51B to 253B list their blocks; DeciLM 7B its KV heads."""
    if config.children("block_configs"):
        keys = {**_DECI_KEYS, "rope.freq_base": lambda c: c.rope("rope_theta")}
        return Row("deci", keys, derive=(_deci,), common=False, extra=(llama3_freqs,))
    keys = {**_DECI_KEYS, "attention.head_count_kv": ("num_key_value_heads_per_layer", "num_key_value_heads")}
    return Row("deci", keys, extra=(llama3_freqs,))


def _puzzle(config: Config) -> Keys:
    """Experts' width and number differ by block (NemotronHPuzzleModel.set_gguf_parameters)."""
    blocks = config.children("block_configs")
    kinds = [config.get(f"{block}.block_type") for block in blocks]
    widths, used = (
        tuple(_whole([config.get(f"{block}.{name}") or 0 for block in blocks]))
        for name in ("moe_intermediate_size", "num_experts_per_tok")
    )
    kv, head = config.number("num_key_value_heads"), config.number("head_dim", "attention_head_dim")
    return {
        **hybrid_ssm(config),
        "ssm.inner_size": config.number("mamba_num_heads", "num_heads") * config.number("mamba_head_dim"),
        "attention.head_count_kv": tuple(kv if kind in ("attention", "full_attention") else 0 for kind in kinds),
        "feed_forward_length": widths, "expert_feed_forward_length": widths, "expert_used_count": used,
        "attention.key_length": head, "attention.value_length": head, "rope.scaling.finetuned": False,
        "context_length": 1 << 20,
    }  # fmt: skip


_PUZZLE = Row(
    "nemotron_h_moe", {**GRANITE_KEYS, **NEMOTRON_MOE}, derive=(_puzzle,), without=GRANITE.without,
    blocks=lambda config: len(config.children("block_configs")),
    steps=(dropped(r"^mtp\."), renamed(r"^model\.", "backbone."), *NEMOTRON_STEPS),
)  # fmt: skip


def _mimo(config: Config) -> Keys:
    """Windowed layers have other KV heads; so have the three blocks for multi-token prediction."""
    pattern = [*_whole(config.items("hybrid_layer_pattern")), *(1,) * (config.n_blocks - config.n_layer)]
    kv, swa = config.number("num_key_value_heads"), config.number("swa_num_key_value_heads")
    return {
        "attention.head_count_kv": tuple(swa if one == 1 else kv for one in pattern),
        "attention.sliding_window_pattern": tuple(pattern),
    }  # fmt: skip


def _mimo_mtp(shape: Shape, config: Config) -> Iterable[Shape]:
    """model.mtp.layers are the blocks after the last one."""
    match = re.fullmatch(r"model\.mtp\.layers\.(\d+)\.(.+)", shape.name)
    yield shape._replace(name=f"model.layers.{config.n_layer + int(match[1])}.{match[2]}", type=MOVED) if match else shape


_MIMO_EXPERTS = Method(
    METHODS["fp8"].helpers + r"|\.experts\.\d+\.\w+\.weight_scale",
    packed=((r"(\.mlp\.experts\.\d+\.(?:gate|up|down)_proj\.weight)$", r"\1"),), shape=lambda n, _: (n[0] * 2, *n[1:]),
        type="mxfp4",
)  # fmt: skip


def _mimo_stored(config: Config, _: Mapping[str, Tensor]) -> Method | None:
    """Experts in MXFP4 stay so beside matrices in FP8 (MimoV2Model._is_mxfp4_packed)."""
    if config.get("quantization_config.store_dtype") != "mxfp4":
        return None
    if config.number("quantization_config.mxfp4_block_size", default=32) != 32:
        raise FitplugError("MXFP4 in other blocks than of 32: llama.cpp's converter does not read this")
    return _MIMO_EXPERTS


_MIMO = Row(
    "mimo2",
    {
        "attention.sliding_window": "sliding_window", "attention.value_length": "v_head_dim",
        "expert_count": "n_routed_experts",
        "expert_feed_forward_length": "moe_intermediate_size", "rope.dimension_count": rope_width(),
        "attention.layer_norm_rms_epsilon": or_else(1e-5, "layernorm_epsilon"),
        "attention.value_scale": "attention_value_scale",
    },
    derive=(_mimo,), nextn=3, stored=_mimo_stored,
    steps=(renamed(r"(attention_sink\w*)$", r"\1.weight"), _mimo_mtp),
)  # fmt: skip


def _plamo2_heads(config: Config) -> Keys:
    """Attention in every other layer, or as mamba_step has it (Plamo2Model.set_gguf_parameters)."""
    n, step = min(config.n_layer, MAX_LAYERS), max(1, config.number("mamba_step", default=2))
    if config.get("mamba_enabled") is False:
        return {}
    attention = [i == n - 1 if n <= step // 2 else i % step == step // 2 for i in range(n)]
    counts = {"attention.head_count": ("num_attention_heads", 32), "attention.head_count_kv": ("num_key_value_heads", 4)}
    return {
        key: tuple(config.number(name, default=default) if one else 0 for one in attention)
        for key, (name, default) in counts.items()
    }


def _plamo2_inner(config: Config) -> Value:
    return config.number("mamba_num_heads", default=64) * config.number("hidden_size_per_head", default=128)


_PLAMO2 = Row(
    "plamo2",
    {
        **VOCAB, "context_length": or_else(2048, "max_position_embeddings"), "embedding_length": or_else(4096, "hidden_size"),
        "attention.key_length": or_else(128, "hidden_size_per_head"), "attention.value_length": or_else(128,
        "hidden_size_per_head"),
        "attention.layer_norm_rms_epsilon": or_else(1e-6, "rms_norm_eps"),
        "rope.freq_base": lambda c: c.rope("rope_theta") or 10000, "ssm.state_size": or_else(64, "mamba_d_state"),
        "ssm.conv_kernel": or_else(4, "mamba_d_conv"), "ssm.time_step_rank": or_else(64, "mamba_num_heads"),
        "ssm.inner_size": _plamo2_inner, "ssm.group_count": constant(0), "feed_forward_length": or_else(13312,
        "intermediate_size"),
    },
    derive=(_plamo2_heads,), common=False,
    steps=(
        renamed(r"\.dt_bias$", ".dt_proj.bias"), renamed(r"\.((?:dt|B|C)_norm|[kq])_weight$", r".\1.weight"),
        squeezed(r"\.conv1d\.weight$"),
    ),
)  # fmt: skip


def _plamo3(config: Config) -> Keys:
    factor = config.real("rope_scaling_factor", default=1.0)
    keys: dict[str, Value] = {}
    if factor != 1 and not config.rope_type:
        keys = {
            "rope.scaling.type": "yarn", "rope.scaling.factor": factor, "rope.scaling.yarn_beta_fast": 32.0,
            "rope.scaling.original_context_length": config.number("initial_context_length"), "rope.scaling.yarn_beta_slow": 1.0,
        }  # fmt: skip
    window = config.get("window_size", "sliding_window")
    pattern = config.get("sliding_window_pattern")
    if window is not None and pattern is not None:
        keys |= {"attention.sliding_window": window, "attention.sliding_window_pattern": pattern}
    return keys


def _laguna(config: Config) -> Keys:
    heads = _whole(config.items("num_attention_heads_per_layer")) or [config.number("num_attention_heads")] * config.n_layer
    dense = 0
    for kind in config.items("mlp_layer_types"):
        if kind != "dense":
            break
        dense += 1
    keys: dict[str, Value] = {"attention.head_count": tuple(heads), "leading_dense_block_count": dense}
    part = "rope_parameters.sliding_attention.partial_rotary_factor"
    if config.has("rope_parameters.sliding_attention.rope_theta") or config.given(part) is not None:
        keys["rope.dimension_count_swa"] = int(config.head_dim * config.real(part, default=1.0))
    return keys


_LAGUNA = Row(
    "laguna",
    {
        **VOCAB, "attention.sliding_window": lambda c: c.given("sliding_window") or None,
        "expert_feed_forward_length": "moe_intermediate_size", "expert_weights_norm": constant(True),
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size", "expert_gating_func": constant(SIGMOID),
        "expert_weights_scale": "moe_routed_scaling_factor", "rope.dimension_count": rope_width(),
    },
    derive=(_laguna,),
)  # fmt: skip


def _spark_swa(config: Config) -> Value:
    return int(config.head_dim * config.real("rope_parameters.sliding_attention.partial_rotary_factor", default=1.0))


ROWS: Mapping[str, Class] = {
    "OpenELMForCausalLM": _OPENELM,
    "DeciLMForCausalLM": _deci_class,
    "NemotronHPuzzleForCausalLM": _PUZZLE,
    **dict.fromkeys(("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"), _MIMO),
    **dict.fromkeys(("Plamo2ForCausalLM", "PLaMo2ForCausalLM"), _PLAMO2),
    **dict.fromkeys(("Plamo3ForCausalLM", "PLaMo3ForCausalLM"), Row("plamo3", VOCAB, derive=(_plamo3,))),
    "LagunaForCausalLM": _LAGUNA,
    "Spark2_5ForCausalLM": Row("spark2_5", {
        **VOCAB, **WINDOW, "rope.dimension_count": rope_width(), "rope.dimension_count_swa": _spark_swa},
        steps=(renamed(r"^model\.layers\.(\d+)\.self_attn\.q_k_v_proj\.", r"blk.\1.attn_qkv."),)),
}  # fmt: skip
