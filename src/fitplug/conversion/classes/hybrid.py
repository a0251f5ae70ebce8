"""Recurrent models and those that are half so (conversion/mamba.py, granite.py, nemotron.py, jamba.py, lfm2.py, …)."""

import re
from collections.abc import Callable, Iterable, Mapping

from fitplug.conversion.classes.llama import GRANITE, GRANITE_KEYS, GRANITE_MOE, VOCAB
from fitplug.conversion.config import MAX_LAYERS, Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import MOVED, Class, Key, Keys, Row, column, constant, renamed, reshaped, squeezed
from fitplug.errors import FitplugError
from fitplug.formats.header import Value

_CONTEXT: Mapping[str, Key] = {"context_length": constant(1 << 20)}


def _width(config: Config) -> int:
    return config.number("hidden_size", "d_model", "dim")


def _inner(config: Config) -> int:
    """Width of a Mamba 2 mixer."""
    given = config.given("mamba_d_ssm", "intermediate_size", "d_inner")
    return (
        int(given) if isinstance(given, int) and given else config.number("mamba_expand", "expand", default=2) * _width(config)
    )


def _mamba1(config: Config) -> Keys:
    inner = config.given("intermediate_size", "d_inner") or 2 * _width(config)
    return {
        "embedding_length": _width(config), "feed_forward_length": 0, "attention.head_count": 0,
        "ssm.conv_kernel": config.given("conv_kernel", "d_conv") or 4, "ssm.inner_size": inner,
        "ssm.state_size": config.given("state_size", "d_state") or 16,
        "ssm.time_step_rank": config.given("time_step_rank", "dt_rank") or -(_width(config) // -16),
        "attention.layer_norm_rms_epsilon": config.given("layer_norm_epsilon", "rms_norm_eps") or 1e-5,
        "ssm.dt_b_c_rms": config.get("model_type") == "falcon_mamba",
    }  # fmt: skip


def _mamba2(config: Config) -> Keys:
    return {
        "embedding_length": _width(config), "feed_forward_length": 0, "attention.head_count": 0,
        "ssm.conv_kernel": config.given("conv_kernel", "d_conv", "mamba_conv_kernel", "mamba_d_conv") or 4,
        "ssm.inner_size": _inner(config),
        "ssm.state_size": config.given("state_size", "d_state", "mamba_state_size", "mamba_d_state") or 128,
        "ssm.time_step_rank": _inner(config) // config.number("mamba_d_head", "head_dim", default=64),
        "ssm.group_count": config.number("n_groups", "mamba_n_groups", default=1),
        "attention.layer_norm_rms_epsilon": config.given("layer_norm_epsilon", "rms_norm_eps") or 1e-5,
    }  # fmt: skip


def _n_groups(config: Config) -> int:
    return config.number("n_groups", "mamba_n_groups", "num_groups", default=1)


_MAMBA1 = Row("mamba", _CONTEXT, derive=(_mamba1,), steps=(squeezed(r"conv1d\.weight$"),), common=False)
_STEPS2 = (
    renamed(r"^model\.(backbone|lm_head)", r"\1"), renamed(r"\.dt_bias$", ".dt_proj.bias"), squeezed(r"conv1d\.weight$"),
    column(r"\.(A_log|D)$"), reshaped(r"(mixer|mamba)\.norm\.weight$", lambda n, c: (n[0] // _n_groups(c), _n_groups(c))),
)  # fmt: skip
_MAMBA2 = Row("mamba2", _CONTEXT, derive=(_mamba2,), steps=_STEPS2, common=False)


def _falcon_h1(config: Config) -> Keys:
    return {
        **_mamba2(config), "context_length": config.number("max_position_embeddings", default=0),
        "feed_forward_length": config.number("intermediate_size"), "attention.head_count": config.number("num_attention_heads"),
        "attention.head_count_kv": config.number("num_key_value_heads"), "attention.key_length": config.number("head_dim"),
        "attention.value_length": config.number("head_dim"), "vocab_size": config.number("vocab_size"),
        "rope.freq_base": config.rope("rope_theta") or 0.0,
    }  # fmt: skip


def by_layer(value: int, which: Iterable[int], n: int) -> tuple[int, ...]:
    """A number in some layers, nothing in the others."""
    chosen = set(which)
    return tuple(value if i in chosen else 0 for i in range(min(n, MAX_LAYERS)))


def _granite_attention(config: Config) -> list[int]:
    """GraniteHybridModel.get_attn_layers."""
    types = config.items("layer_types")
    if types:
        return [i for i, kind in enumerate(types) if kind == "attention"]
    given = config.numbers("attn_layer_indices")
    if given:
        return list(given)
    period = config.number("attn_layer_period")
    return [i for i in range(min(config.n_layer, MAX_LAYERS)) if i % max(1, period) == config.number("attn_layer_offset")]


def hybrid_ssm(config: Config) -> Keys:
    """The mixer's keys of Granite's and NVIDIA's hybrids (GraniteHybridModel.set_gguf_parameters)."""
    heads = config.number("mamba_n_heads", "mamba_num_heads", "num_heads", "n_heads")
    return {
        "ssm.conv_kernel": config.number("conv_kernel", "d_conv", "mamba_conv_kernel", "mamba_d_conv"),
        "ssm.state_size": config.number("state_size", "d_state", "ssm_state_size", "mamba_state_size", "mamba_d_state"),
        "ssm.group_count": _n_groups(config), "ssm.time_step_rank": heads,
    }  # fmt: skip


def _granite_hybrid(config: Config) -> Keys:
    layers, bamba = _granite_attention(config), config.architecture == "BambaForCausalLM"
    mixed = len(layers) < config.n_layer
    width = config.given("attn_rotary_emb")
    return {
        **hybrid_ssm(config),
        "ssm.inner_size": config.number("mamba_expand", "expand", default=2) * _width(config),
        "attention.head_count_kv": by_layer(config.number("num_key_value_heads"), layers, config.n_layer),
        "rope.scaling.finetuned": bamba or not mixed,
        **({"rope.dimension_count": width} if width else {}),
        **({"context_length": 1 << 20} if mixed and not bamba else {}),
    }


def _granite_class(config: Config) -> Row:
    """Without a recurrent layer it is a plain Granite."""
    row = GRANITE_MOE._replace(derive=(_granite_hybrid,), steps=(*_STEPS2, *GRANITE_MOE.steps))
    if len(_granite_attention(config)) < config.n_layer:
        return row._replace(architecture="granitehybrid")
    experts = config.given("num_experts_per_tok", "num_experts_per_token")
    return row._replace(architecture="granitemoe" if experts else "granite")


NEMOTRON_MOE: Mapping[str, Key] = {
    "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size", "expert_count": "n_routed_experts",
    "expert_shared_count": "n_shared_experts", "expert_weights_norm": "norm_topk_prob",
    "expert_weights_scale": "routed_scaling_factor", "expert_group_count": "n_group", "moe_latent_size": "moe_latent_size",
}  # fmt: skip
_KINDS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe", "linear_attention": "mamba", "full_attention": "attention"}


def _pattern(config: Config) -> list[str]:
    """What each layer of a Nemotron-H is."""
    text = config.get("hybrid_override_pattern")
    kinds = list(text) if isinstance(text, str) else [str(kind) for kind in config.items("layers_block_type")]
    return [_KINDS.get(kind, kind) for kind in kinds]


def _nemotron_h(config: Config) -> Keys:
    pattern, moe, n = _pattern(config), config.has("num_experts_per_tok"), config.n_blocks
    if not pattern:
        raise FitplugError("config.json does not say what each layer is: what this model would be as GGUF is not known")
    mtp = list(range(len(pattern), n))
    attention = [i for i, kind in enumerate(pattern) if kind == "attention"] + mtp
    mlp = [i for i, kind in enumerate(pattern) if kind == ("moe" if moe else "mlp")] + mtp
    n_ff = config.number("moe_intermediate_size") if moe else config.number("intermediate_size", "n_inner", "hidden_dim")
    head = config.number("head_dim", "attention_head_dim")
    keys: dict[str, Value] = {
        **hybrid_ssm(config),
        "ssm.inner_size": config.number("mamba_num_heads", "num_heads") * config.number("mamba_head_dim"),
        "attention.head_count_kv": by_layer(config.number("num_key_value_heads"), attention, n),
        "feed_forward_length": by_layer(n_ff, mlp, n), "attention.key_length": head, "attention.value_length": head,
        "rope.scaling.finetuned": False, "context_length": 1 << 20,
    }  # fmt: skip
    return keys


_NEMOTRON_MTP = {
    "0.enorm": "enorm", "0.hnorm": "hnorm", "0.eh_proj": "eh_proj", "1.norm": "post_attention_layernorm",
    "1.final_layernorm": "shared_head.norm",
}  # fmt: skip


def _nemotron_mtp(shape: Shape, config: Config) -> Iterable[Shape]:
    """mtp.layers.0 and .1 are the block after the last one (NemotronHModel.modify_tensors)."""
    match = re.fullmatch(r"mtp\.layers\.(([01])\.(\w+(?:\.\w+)*?))\.weight", shape.name)
    other = re.fullmatch(r"mtp\.layers\.[01]\.(.+)", shape.name)
    n = len(_pattern(config))
    if match and match[1] in _NEMOTRON_MTP:
        yield shape._replace(name=f"model.layers.{n}.{_NEMOTRON_MTP[match[1]]}.weight", type=MOVED)
    elif other:
        yield shape._replace(name=f"backbone.layers.{n}.{other[1]}", type=MOVED)
    else:
        yield shape


NEMOTRON_STEPS = (
    *_STEPS2[1:], renamed(r"mixer\.dt_proj\.bias$", "mixer.dt.bias"),
    renamed(r"^backbone\.layers\.(\d+)\.mixer\.experts\.", r"model.layers.\1.mlp.experts."),
)  # fmt: skip


def _nemotron_class(config: Config) -> Row:
    moe = config.has("num_experts_per_tok")
    return Row(
        "nemotron_h_moe" if moe else "nemotron_h", {**GRANITE_KEYS, **(NEMOTRON_MOE if moe else {})}, derive=(_nemotron_h,),
        without=GRANITE.without, nextn=("num_nextn_predict_layers",) if moe else (),
        steps=(
            renamed(r"^model\.layers\.(?=.*\.mixer\.)", "backbone.layers."), _nemotron_mtp,
            *(NEMOTRON_STEPS if moe else _STEPS2[1:]),
        ),
    )  # fmt: skip


def _jamba(config: Config) -> Keys:
    width, offset, period = (
        config.number("hidden_size", "mamba_d_model"),
        config.number("attn_layer_offset"),
        config.number("attn_layer_period"),
    )
    layers = [i for i in range(offset, min(config.n_layer, MAX_LAYERS)) if (i - offset) % max(1, period) == 0]
    return {
        "context_length": config.number("max_position_embeddings", "n_ctx"), "embedding_length": width,
        "feed_forward_length": config.number("intermediate_size"), "attention.head_count": config.number("num_attention_heads"),
        "attention.head_count_kv": by_layer(config.number("num_key_value_heads"), layers, config.n_layer),
        "ssm.conv_kernel": config.given("mamba_d_conv") or 4, "ssm.inner_size": config.number("mamba_expand") * width,
        "ssm.state_size": config.given("mamba_d_state") or 16,
        "ssm.time_step_rank": config.given("mamba_dt_rank") or -(width // -16),
        "attention.layer_norm_rms_epsilon": config.given("layer_norm_epsilon", "rms_norm_eps") or 1e-6,
        "expert_count": config.number("num_local_experts", "num_experts"),
        "expert_used_count": config.number("num_experts_per_tok", "num_experts_per_token"),
    }  # fmt: skip


def _jamba_dense(shape: Shape, config: Config) -> Iterable[Shape]:
    """The layers between those with experts have one of them, which is none."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.feed_forward\.experts\.(.+)", shape.name)
    offset, period = config.number("expert_layer_offset"), max(1, config.number("expert_layer_period"))
    if match is None:
        yield shape
    elif int(match[1]) < offset or (int(match[1]) - offset) % period:
        yield shape._replace(name=f"model.layers.{match[1]}.feed_forward.{match[2]}", shape=shape.shape[:2])
    else:
        yield shape._replace(name=f"model.layers.{match[1]}.mlp.experts.{match[2]}")


def _lfm2_feed_forward(config: Config) -> int:
    """LFM2Model._add_feed_forward_length."""
    n = config.number("block_ff_dim", "intermediate_size")
    if config.given("block_auto_adjust_ff_dim"):
        multiple = config.number("block_multiple_of", default=256)
        n = int(2 * n / 3)
        n = int(config.real("block_ffn_dim_multiplier", default=1.0) * n)
        n = -(-n // max(1, multiple)) * multiple
    return n


def _heads_where(kind: Callable[[str], bool]) -> Key:
    return lambda config: tuple(
        config.number("num_key_value_heads") if kind(str(one)) else 0 for one in config.items("layer_types")
    )


_LFM2_KEYS: Mapping[str, Key] = {
    **VOCAB, "attention.head_count_kv": _heads_where(lambda kind: kind != "conv"), "shortconv.l_cache": "conv_L_cache",
    "attention.layer_norm_rms_epsilon": "norm_eps", "feed_forward_length": _lfm2_feed_forward,
}  # fmt: skip
_CONV = reshaped(r"conv\.conv\.weight$", lambda n, _: (n[0], *n[2:]) if len(n) > 2 and n[1] == 1 else n)
_LFM2 = Row("lfm2", _LFM2_KEYS, steps=(renamed(r"lfm\.", "model."), _CONV))
_LFM2_COLBERT = _LFM2._replace(steps=(*_LFM2.steps, renamed("^", "model.")))
_LFM2_MOE = Row(
    "lfm2moe",
    {
        **VOCAB, "attention.head_count_kv": _heads_where(lambda kind: kind == "full_attention"),
        "shortconv.l_cache": "conv_L_cache",
        "expert_feed_forward_length": "moe_intermediate_size", "leading_dense_block_count": "num_dense_layers",
        "expert_gating_func": constant(2),
    },
    steps=(renamed(r"\.expert_bias$", ".expert_bias.bias"), _CONV),
)  # fmt: skip


ROWS: Mapping[str, Class] = {
    **dict.fromkeys(("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"), _MAMBA1),
    "Mamba2ForCausalLM": _MAMBA2,
    "FalconH1ForCausalLM": _MAMBA2._replace(architecture="falcon-h1", derive=(_falcon_h1,)),
    "GraniteMoeHybridForCausalLM": _granite_class,
    "BambaForCausalLM": _granite_class,
    "NemotronHForCausalLM": _nemotron_class,
    "JambaForCausalLM": Row("jamba", derive=(_jamba,), common=False, steps=(
        renamed(r"\.moe\.", ".feed_forward."), _jamba_dense, squeezed(r"conv1d\.weight$"))),
    "Lfm2ForCausalLM": _LFM2,
    "LFM2ForCausalLM": _LFM2,
    "Lfm2Model": _LFM2_COLBERT,
    "Lfm2BidirectionalModel": _LFM2_COLBERT._replace(keys={**_LFM2_KEYS, "attention.causal": constant(False)}),
    "Lfm2MoeForCausalLM": _LFM2_MOE,
}  # fmt: skip
