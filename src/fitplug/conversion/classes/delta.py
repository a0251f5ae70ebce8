"""Delta attention beside latent attention: Kimi Linear and K3, GLM 5.3, Ling 3 (conversion/kimi_linear.py, glm.py, …)."""

import re
from collections.abc import Iterable, Mapping
from math import prod

from fitplug.conversion.classes.deepseek import INDEXER, latent
from fitplug.conversion.classes.hybrid import by_layer
from fitplug.conversion.classes.llama import VOCAB
from fitplug.conversion.common import SIGMOID
from fitplug.conversion.config import MAX_LAYERS, Config
from fitplug.conversion.dequantize import Method
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import Class, Key, Keys, Row, Step, column, constant, dropped, each, or_else, renamed, reshaped
from fitplug.errors import FitplugError
from fitplug.formats.header import Tensor

_FULL = "linear_attn_config.full_attn_layers"
_KDA: Mapping[str, Key] = {
    "ssm.conv_kernel": "linear_attn_config.short_conv_kernel_size", "kda.head_dim": "linear_attn_config.head_dim",
}  # fmt: skip
_KDA_STEPS = (
    reshaped(r"\.[qkv]_conv1d\.weight$", lambda n, _: (n[0], 1, n[-1], 1)), renamed(r"\.dt_bias$", ".dt_proj.bias"), latent,
)  # fmt: skip


def _full_layers(config: Config) -> list[int]:
    """Of latent attention; config.json counts from one."""
    return [i - 1 for i in config.numbers(_FULL)]


def _kimi_linear(config: Config) -> Keys:
    rank, rope = config.number("kv_lora_rank", "n_lora_kv"), config.number("qk_rope_head_dim", "n_rot")
    return {
        "attention.head_count_kv": by_layer(1, _full_layers(config), config.n_layer), "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rope, "rope.dimension_count": rope,
        "attention.key_length_mla": config.number("n_embd_head_k_mla", default=config.number("qk_nope_head_dim") + rope),
        "attention.value_length_mla": config.number("n_embd_head_v_mla", "v_head_dim"),
    }  # fmt: skip


_KIMI_LINEAR = Row(
    "kimi-linear",
    {
        **VOCAB, **_KDA, "attention.q_lora_rank": ("q_lora_rank", "n_lora_q"),
        "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": "num_shared_experts",
        "leading_dense_block_count": "first_k_dense_replace", "expert_weights_scale": "routed_scaling_factor",
    },
    derive=(_kimi_linear,), steps=_KDA_STEPS,
)  # fmt: skip


def _latent_only(config: Config) -> Keys:
    """Latent attention that rotates nothing (KimiK3Model, Glm5NextModel)."""
    rank, rope = config.number("kv_lora_rank"), config.number("qk_rope_head_dim")
    return {
        "attention.kv_lora_rank": rank, "rope.dimension_count": rope, "attention.key_length": rank + rope,
        "attention.value_length": rank, "attention.key_length_mla": config.number("qk_nope_head_dim") + rope,
        "attention.value_length_mla": config.number("v_head_dim"),
    }  # fmt: skip


_NOPE: Mapping[str, Key] = {
    **VOCAB, **_KDA, "kda.gate_lower_bound": "linear_attn_config.gate_lower_bound", "attention.q_lora_rank": "q_lora_rank",
    "expert_feed_forward_length": "moe_intermediate_size", "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
}  # fmt: skip


def _first_heads(*, flat: bool) -> Step:
    """A_log may be longer than there are heads; some of them as a vector."""

    def step(shape: Shape, config: Config) -> Iterable[Shape]:
        if shape.name.endswith(".A_log"):
            n = (prod(shape.shape),) if flat else shape.shape
            shape = shape._replace(shape=(*n[:-1], min(n[-1], config.number("num_attention_heads"))))
        yield shape

    return step


def _k3_gate(shape: Shape, config: Config) -> Iterable[Shape]:
    """One name for two tensors: the gate of a layer of delta attention, and that of a layer of latent attention."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.g_proj\.weight", shape.name)
    if match is None:
        yield shape
    else:
        yield shape._replace(name=f"blk.{match[1]}.{'attn_gate' if int(match[1]) in _full_layers(config) else 'ssm_g'}.weight")


def _k3_residual(shape: Shape, _: Config) -> Iterable[Shape]:
    """A norm and a projection become their product, a vector (KimiK3Model._try_fuse_res)."""
    match = re.fullmatch(
        r"model\.(?:layers\.(\d+)\.)?(self_attention_res|mlp_res|output_attn_res)_(norm|proj)\.weight", shape.name
    )
    if match is None:
        yield shape
    elif match[3] == "norm":
        part = {"self_attention_res": "attn", "mlp_res": "ffn"}.get(match[2])
        name = f"blk.{match[1]}.{part}_res_score.weight" if part else "output_res_score.weight"
        yield shape._replace(name=name)


_K3_EXPERTS = Method(
    r"\.weight_scale", packed=((r"(\.block_sparse_moe\.experts\.\d+\.w[123]\.weight)_packed$", r"\1"),),
    shape=lambda n, _: (n[0] * 2, *n[1:]), type="mxfp4",
)  # fmt: skip


def _k3_stored(config: Config, tensors: Mapping[str, Tensor]) -> Method | None:
    """Experts in MXFP4 of compressed-tensors stay so; nothing else may be packed."""
    if config.quant_method != "compressed-tensors" or config.get("quantization_config.format") != "mxfp4-pack-quantized":
        return None
    other = next((n for n in tensors if n.endswith("_packed") and not re.search(_K3_EXPERTS.packed[0][0], n)), None)
    if other is not None:
        raise FitplugError(f"{other[:80]} is in MXFP4: llama.cpp's converter reads only experts so")
    return _K3_EXPERTS


_K3 = Row(
    "kimi-k3",
    {
        **_NOPE, "attention.head_count_kv": lambda c: by_layer(1, _full_layers(c), c.n_layer),
        "expert_shared_count": "num_shared_experts", "expert_weights_norm": "moe_renormalize",
        "expert_gating_func": constant(SIGMOID), "expert_latent_length": "routed_expert_hidden_size",
        "activation.situ_beta": "activation_situ_beta", "activation.situ_linear_beta": "activation_situ_linear_beta",
        "attn_res.block_size": "attn_res_block_size",
    },
    derive=(_latent_only,),
    steps=(
        _k3_residual, *_KDA_STEPS, _k3_gate, _first_heads(flat=False),
    ),
    stored=_k3_stored,
)  # fmt: skip


def _glm5(config: Config) -> Keys:
    further = (1,) * (config.n_blocks - config.n_layer)
    kv = tuple(0 if kind == "linear_attention" else 1 for kind in config.items("layer_types"))
    types = config.items("indexer_types")
    return {
        "attention.head_count_kv": (*kv, *further)[:MAX_LAYERS],
        **({"attention.indexer.types": tuple(kind == "full" for kind in types)} if types else {}),
    }


_GLM5 = Row(
    "glm5-next",
    {
        **_NOPE, **INDEXER, "attention.layer_norm_epsilon": constant(1e-6), "attention.indexer.kpool": "index_kpool",
        "attention.indexer.kpool_select_tail": or_else(True, "index_kpool_always_select_tail"),
        "hyper_connection.count": "hc_mult", "hyper_connection.sinkhorn_iterations": "hc_sinkhorn_iters",
        "hyper_connection.epsilon": "hc_eps", "expert_shared_count": "n_shared_experts",
        "expert_weights_norm": "norm_topk_prob",
        "swiglu_clamp_exp": each("swiglu_limit"), "swiglu_clamp_shexp": each("swiglu_limit"),
    },
    derive=(_latent_only, _glm5), without=("attention.key_length", "attention.value_length"),
        nextn=("num_nextn_predict_layers",),
    steps=(
        dropped(r"^lm_head\.weight$", lambda config: bool(config.get("tie_word_embeddings"))), *_KDA_STEPS,
        _first_heads(flat=True),
        renamed(r"\.(hc_(?:attn|ffn)_(?:fn|base|scale)|index_kpool_compress_(?:ape|gate))$", r".\1.weight"),
    ),
    forced=((r"^blk\..*(hc_attn_|hc_ffn_|indexer_compressor_|ssm_a|ssm_dt|exp_probs_b)|^output_hc", "f32"),),
)  # fmt: skip


def _ling_full(config: Config, block: int) -> bool:
    """Whether a block has latent attention (BailingMoeV3Model.is_full_attention)."""
    n, group = config.n_layer, max(1, config.number("layer_group_size"))
    return block >= n // group * group or (block + 1) % group == 0


def _ling(config: Config) -> Keys:
    rank, rope = config.number("kv_lora_rank"), config.number("qk_rope_head_dim")
    limits = {"swiglu_clamp_exp": "expert_swiglu_limit_list", "swiglu_clamp_shexp": "share_expert_swiglu_limit_list"}
    return {
        "attention.head_count_kv": tuple(int(_ling_full(config, i)) for i in range(config.n_blocks)),
        "attention.kv_lora_rank": rank, "rope.dimension_count": rope, "attention.key_length": rank + rope,
        "attention.key_length_mla": config.number("qk_nope_head_dim") + rope,
        "attention.value_length_mla": config.number("v_head_dim"),
        **{
            key: tuple(config.real(f"{name}.{i}", default=0.0) for i in range(config.n_blocks))
            if config.children(name) else (*config.reals(name), *(0.0,) * config.n_blocks)[: config.n_blocks]
            for key, name in limits.items() if config.given(name) is not None
        },
    }  # fmt: skip


def _ling_gates(shape: Shape, config: Config) -> Iterable[Shape]:
    """One name for two tensors, by the kind of layer."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.attention\.([fg])_proj\.weight", shape.name)
    if match is None:
        yield shape
    else:
        full = _ling_full(config, int(match[1]))
        name = "ssm_f_a" if match[2] == "f" else "attn_gate" if full else "ssm_g_a"
        yield shape._replace(name=f"blk.{match[1]}.{name}.weight")


_LING3 = Row(
    "bailingmoe3",
    {
        **VOCAB, "ssm.conv_kernel": "short_conv_kernel_size", "kda.head_dim": "head_dim", "kda.safe_gate": "kda_safe_gate",
        "kda.gate_lower_bound": "kda_lower_bound", "attention.q_lora_rank": "q_lora_rank",
        "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": or_else(1, "num_shared_experts"),
        "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
        "leading_dense_block_count": "first_k_dense_replace", "expert_weights_scale": "routed_scaling_factor",
        "expert_weights_norm": "norm_topk_prob",
    },
    derive=(_ling,), nextn=("num_nextn_predict_layers",),
    steps=(
        renamed(r"\.expert_bias$", ".expert_bias.bias"), *_KDA_STEPS, column(r"\.A_log$"), _ling_gates,
        renamed(r"^model\.layers\.(\d+)\.attention\.([kv])_b_proj\.", r"blk.\1.attn_\2_b."),
    ),
)  # fmt: skip


def _ling3_vl(config: Config) -> Keys:
    return {"rope.dimension_sections": (*config.numbers("mrope_section")[:3], 0)}


ROWS: Mapping[str, Class] = {
    "BailingMoeV3ForCausalLM": _LING3,
    "BailingMoeV3VLForConditionalGeneration": _LING3._replace(
        derive=(_ling, _ling3_vl), steps=(dropped(r"^linear_proj"), *_LING3.steps)),
    "KimiLinearForCausalLM": _KIMI_LINEAR,
    "KimiLinearModel": _KIMI_LINEAR,
    "KimiK3ForConditionalGeneration": _K3,
    "Glm5NextForConditionalGeneration": _GLM5,
}  # fmt: skip
