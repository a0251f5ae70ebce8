"""RWKV 6 and 7, and Qwens whose attention they replace (conversion/rwkv.py)."""

import re
from collections.abc import Iterable, Mapping
from math import prod

from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import (
    Class,
    Key,
    Keys,
    Row,
    Step,
    constant,
    quotient,
    renamed,
    reshaped,
    squeezed,
    turned,
)

_ENDLESS: Mapping[str, Key] = {"context_length": constant(1048576), "attention.head_count": constant(0)}
"""RWKV isn't context limited; heads are required by llama.cpp and unused."""


def _rwkv6_lerp(shape: Shape, _: Config) -> Iterable[Shape]:
    """Five vectors become one tensor (Rwkv6Model.modify_tensors)."""
    match = re.fullmatch(r".*\.(\d+)\.(?:attention|self_attn)\.time_maa_([wkvrg])", shape.name)
    if match is None:
        yield shape
    elif match[2] == "w":
        yield shape._replace(name=f"blk.{match[1]}.time_mix_lerp_fused.weight", shape=(shape.shape[0], 1, 1, 5))


def _rwkv6_width(config: Config) -> int:
    given = config.get("intermediate_size")
    return given if isinstance(given, int) else int(config.number("hidden_size") * 3.5 // 32 * 32)


_RWKV6 = Row(
    "rwkv6",
    {
        **_ENDLESS, "embedding_length": "hidden_size", "attention.layer_norm_epsilon": "layer_norm_epsilon",
        "rescale_every_n_layers": "rescale_every", "wkv.head_size": "head_size", "feed_forward_length": _rwkv6_width,
        "time_mix_extra_dim": lambda c: 64 if c.number("hidden_size") == 4096 else 32,
        "time_decay_extra_dim": lambda c: 128 if c.number("hidden_size") == 4096 else 64,
    },
    steps=(
        turned(r"\.(time_maa_w1|time_decay_w1|time_decay_w2|time_maa_w2)$"), squeezed(r"\.(time_decay|time_maa_[a-z])$"),
        _rwkv6_lerp,
        renamed(r"^(.*\.(?:attention|self_attn|feed_forward)\.time_\w+)$", r"\1.weight"),
    ),
    common=False,
)  # fmt: skip

_QRWKV6 = _RWKV6._replace(
    architecture="rwkv6qwen2",
    keys={
        **_ENDLESS, "embedding_length": "hidden_size", "wkv.head_size": quotient("hidden_size", "num_attention_heads"),
        "time_mix_extra_dim": lambda c: c.given("lora_rank_tokenshift") or (64 if c.number("hidden_size") >= 4096 else 32),
        "time_decay_extra_dim": lambda c: c.given("lora_rank_decay") or (128 if c.number("hidden_size") >= 4096 else 64),
        "feed_forward_length": "intermediate_size", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "token_shift_count": constant(1), "attention.head_count_kv": "num_key_value_heads",
    },
)  # fmt: skip


def _low_rank(config: Config, exponent: float, factor: float, *names: str) -> int:
    """The width of a LoRA, where config.json does not give it (Rwkv7Model.calc_lora_rank)."""
    given = config.given(*names)
    return int(given) if isinstance(given, int) else max(1, round(config.number("hidden_size") ** exponent * factor / 32)) * 32


def _rwkv7(config: Config) -> Keys:
    return {
        "attention.layer_norm_epsilon": config.given("layer_norm_epsilon", "norm_eps") or 0.0,
        "wkv.head_size": config.number("head_size", "head_dim"),
        "attention.decay_lora_rank": _low_rank(config, 0.5, 1.8, "lora_rank_decay", "decay_low_rank_dim"),
        "attention.iclr_lora_rank": _low_rank(config, 0.5, 1.8, "lora_rank_iclr", "a_low_rank_dim"),
        "attention.value_residual_mix_lora_rank": _low_rank(
            config, 0.5, 1.3, "lora_rank_value_residual_mix", "v_low_rank_dim"),
        "attention.gate_lora_rank": _low_rank(config, 0.8, 0.6, "lora_rank_gate", "gate_low_rank_dim"),
        "feed_forward_length": config.given("intermediate_size") or 4 * config.number("hidden_size"),
    }  # fmt: skip


def _replaced(*pairs: tuple[str, str]) -> Step:
    """Parts of names, wherever they stand, in this order."""

    def step(shape: Shape, _: Config) -> Iterable[Shape]:
        name = shape.name
        for old, new in pairs:
            name = name.replace(old, new)
        yield shape._replace(name=name)

    return step


_NAMES7 = _replaced(
    ("blocks", "layers"), ("ffn", "feed_forward"), ("self_attn", "attention"), ("attn", "attention"), ("time_mixer.", ""),
    ("feed_forward_norm", "ln2"), ("g_norm", "ln_x"),
)  # fmt: skip


def _lerp7(shape: Shape, config: Config) -> Iterable[Shape]:
    """Vectors for each of the mixed ones are one tensor, if they are not one already."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.attention\.x_(\w)", shape.name)
    if match is None:
        yield shape
        return
    n = 6 if config.get("wkv_has_gate") is not False else 5
    fused = {"x": (shape.shape[0], 1, 1, n), "r": (*shape.shape, n)}.get(match[2])
    if fused:
        yield shape._replace(name=f"blk.{match[1]}.time_mix_lerp_fused.weight", shape=fused)


def _low_rank7(shape: Shape, _: Config) -> Iterable[Shape]:
    """LoRAs as flash-linear-attention names them lie as ggml wants them; others are turned."""
    match = re.fullmatch(r"(.*\.attention\.[wavg])(?:_lora\.lora\.(?:([02])\.weight|2\.(bias))|([12]))", shape.name)
    if match is None:
        yield shape
    elif match[4]:
        yield shape._replace(name=f"{match[1]}{match[4]}.weight", shape=(shape.shape[1], shape.shape[0], *shape.shape[2:]))
    else:
        yield shape._replace(name=f"{match[1]}{0 if match[3] else {'0': 1, '2': 2}[match[2]]}.weight")


def _first_block7(shape: Shape, _: Config) -> Iterable[Shape]:
    """The first block mixes no value of an earlier one: what some models have there stands aside for a copy of a."""
    match = re.fullmatch(r"(model\.layers\.0\.attention\.)([av])([012])\.weight", shape.name)
    if match is None:
        yield shape
    elif match[2] == "a":
        yield shape
        yield shape._replace(name=f"{match[1]}v{match[3]}.weight")


_STEPS7 = (
    _NAMES7, _low_rank7, renamed(r"(\.attention\.[wavg]0)$", r"\1.weight"), _first_block7, _lerp7,
    reshaped(r"\.attention\.r_k$", lambda n, _: (prod(n),)), squeezed(r"^(?!blk\.)"),
    renamed(r"(\.(?:attention|feed_forward)\.(?:x_k|k_k|k_a|r_k))$", r"\1.weight"),
)  # fmt: skip
_RWKV7 = Row("rwkv7", {**_ENDLESS, "embedding_length": "hidden_size"}, derive=(_rwkv7,), steps=_STEPS7, common=False)
_ARWKV7 = _RWKV7._replace(
    architecture="arwkv7",
    keys={
        **_ENDLESS, "embedding_length": "hidden_size", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "wkv.head_size": "head_size", "attention.decay_lora_rank": constant(64), "attention.iclr_lora_rank": constant(64),
        "attention.value_residual_mix_lora_rank": constant(32),
        "attention.gate_lora_rank": lambda c: 128 if c.given("wkv_has_gate") else 0, "feed_forward_length": "intermediate_size",
        "token_shift_count": constant(1),
    },
    derive=(),
)  # fmt: skip

ROWS: Mapping[str, Class] = {
    "Rwkv6ForCausalLM": _RWKV6,
    "RWKV6Qwen2ForCausalLM": _QRWKV6,
    **dict.fromkeys(("Rwkv7ForCausalLM", "RWKV7ForCausalLM"), _RWKV7),
    "RwkvHybridForCausalLM": _ARWKV7,
}
