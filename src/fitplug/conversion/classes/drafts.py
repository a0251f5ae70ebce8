"""Drafts that read a target's layers: EAGLE3, DFlash and DSpark (conversion/llama.py, qwen.py, deepseek.py, gemma.py).

The converter wants the target's folder beside the draft's, for its vocabulary and for what some drafts do not say.
"""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.classes.deepseek4 import KEYS, V4
from fitplug.conversion.classes.gemma import GEMMA4
from fitplug.conversion.classes.llama import LLAMA, LLAMA_KEYS
from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import Class, Key, Keys, Row, constant, dropped, or_else, renamed
from fitplug.errors import FitplugError
from fitplug.formats.header import Value

_TABLE = ((r"^d2t$", "i64"),)
"""Tokens of the draft → tokens of the target."""


def _eagle3(config: Config) -> Keys:
    layers, fc = config.numbers("eagle_aux_hidden_state_layer_ids"), config.tensors.get("fc.weight")
    if not layers:
        raise FitplugError(
            "config.json does not say which of its target's layers this draft reads (eagle_aux_hidden_state_layer_ids): "
            "llama.cpp's converter takes that from the target"
        )
    width = config.given("target_hidden_size") or (fc.shape[0] // len(layers) if fc and fc.shape else 0)
    return {
        "target_layers": layers, "target_hidden_size": width,
        "norm_before_residual": bool(config.given("norm_before_residual")),
        "norm_before_fc": bool(config.given("norm_before_fc")),
    }  # fmt: skip


_EAGLE3 = LLAMA._replace(
    architecture="eagle3", derive=(_eagle3,), keys=LLAMA_KEYS, forced=_TABLE,
    steps=(
        renamed(r"^(midlayer|layers\.0)\.", "model.layers.0."), renamed(r"^input_norm\.weight$", "enc.output_norm.weight"),
        dropped(r"^t2d$"), renamed(r"^.*layers\.(\d+)\.hidden_norm\.weight$", r"blk.\1.attn_norm_2.weight"), *LLAMA.steps,
    ),
)  # fmt: skip


def _llama_class(config: Config) -> Row:
    """A Llama of one layer with a vocabulary of its own is a draft (LlamaModel.__init__)."""
    return _EAGLE3 if config.has("draft_vocab_size") and config.n_layer == 1 else LLAMA


def _own(name: str) -> tuple[str, ...]:
    """A name in dflash_config, then beside it."""
    return f"dflash_config.{name}", name


def _target_layers(config: Config) -> Value | None:
    """Inputs of layers are counted, where config.json counts outputs."""
    inputs = config.numbers("aux_hidden_state_layer_ids")
    if inputs and not config.children("dflash_config"):
        return inputs
    return tuple(i + 1 for i in config.numbers(*_own("target_layer_ids"))) or None


def _dflash(config: Config) -> Keys:
    keys: dict[str, Value | None] = {}
    part = config.rope("partial_rotary_factor")
    if isinstance(part, (int, float)):
        keys["rope.dimension_count"] = int(config.head_dim * part)
    if config.has("dflash_config.conv_kernel_size"):
        names = ("conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k")
        keys |= {name: config.get(f"dflash_config.{name}") for name in names}
    everywhere = bool(config.given("dflash_config.use_swa"))
    window = config.given("dflash_config.swa_window_size") or config.given("sliding_window")
    if window and (everywhere or config.given("use_sliding_window")):
        layers = (
            (True,) * config.n_blocks if everywhere else tuple(k == "sliding_attention" for k in config.items("layer_types"))
        )
        keys |= {"attention.sliding_window": window, "attention.sliding_window_pattern": layers}
    causal = config.given("is_causal", "dflash_config.causal")
    keys["attention.causal"] = None if causal is None else bool(causal)
    return {key: value for key, value in keys.items() if value is not None}


_DFLASH_KEYS: Mapping[str, Key] = {
    "attention.value_scale": "dflash_config.attention_value_scale", "block_size": or_else(16, *_own("block_size")),
    "logit_scale": _own("output_multiplier"), "embedding_scale": _own("input_embedding_scale"), "target_layers": _target_layers,
    "final_logit_softcapping": lambda c: c.real(*_own("final_logit_softcapping"), default=0.0) or None,
}  # fmt: skip
_NAMES = (
    renamed(r"^(?!model\.)", "model."), renamed(r"(sink\w*)$", r"\1.weight"),
    renamed(r"(candidate_selector\.(?:predecessor|successor)_codebook)$", r"\1.weight"),
)  # fmt: skip
_DFLASH = Row(
    "dflash", _DFLASH_KEYS, derive=(_dflash,),
    notes=("its target is taken for one without M-RoPE, which the converter asks of the target",),
    steps=(
        *_NAMES, dropped(r"^model\.embed_tokens\.weight$", lambda config: config.get("has_embed_tokens") is False)),
)  # fmt: skip


def _dspark(config: Config) -> Keys:
    anchor = config.get("sample_from_anchor")
    if anchor is None:
        anchor = not config.children("transformer_layer_config") and not config.has("aux_hidden_state_layer_ids")
    return {
        "sample_from_anchor": bool(anchor),
        "has_confidence_head": any("confidence_head.proj" in name for name in config.tensors),
    }


def _whole_vocabulary(config: Config) -> bool:
    n = config.number("vocab_size")
    return config.number("draft_vocab_size", default=n) in (0, n)


_DSPARK = _DFLASH._replace(
    derive=(_dflash, _dspark), forced=_TABLE,
    steps=(
        dropped(r"^t2d$"), *_DFLASH.steps, renamed(r"^model\.d2t$", "d2t"), dropped(r"lm_head\.weight$", _whole_vocabulary)),
)  # fmt: skip


def _mtp_blocks(config: Config) -> int:
    found = (re.match(r"mtp\.(\d+)\.(?!main_|norm\.|hc_head|markov_|confidence_)", name) for name in config.tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


_ROOTS = {
    "main_proj.weight": "fc.weight", "main_norm.weight": "enc.output_norm.weight",
    "markov_head.markov_w1.weight": "markov_w1.weight",
    "markov_head.markov_w2.weight": "markov_w2.weight", "confidence_head.proj.weight": "conf_proj.weight",
    "norm.weight": "norm.weight", **{f"hc_head_{part}": f"hc_head_{part}" for part in ("fn", "base", "scale")},
}  # fmt: skip


def _v4_stage(shape: Shape, _: Config) -> Iterable[Shape]:
    """Of the checkpoint only mtp.* is the draft (DeepseekV4DSparkModel._rekey_mtp_tensor_name)."""
    match = re.fullmatch(r"mtp\.(\d+)\.(.+)", shape.name)
    if match and match[2] != "ffn.gate.bias_vl":
        yield shape._replace(name=_ROOTS.get(match[2], f"layers.{match[1]}.{match[2]}"))


_V4_DSPARK = V4._replace(
    architecture="dflash", steps=(_v4_stage, *V4.steps[2:]), blocks=_mtp_blocks,
    keys={
        **{key: value for key, value in KEYS.items() if key != "embedding_length_out"}, "hash_layer_count": constant(0),
        "attention.compress_ratios": lambda c: (0,) * c.n_blocks, "block_size": "dspark_block_size",
        "target_layers": lambda c: tuple(i + 1 for i in c.numbers("dspark_target_layer_ids")),
    },
)  # fmt: skip


def _gemma4_rope(config: Config) -> Iterable[Shape]:
    kind = config.given("rope_parameters.full_attention.rope_type", "rope_parameters.rope_type") or "proportional"
    if kind == "proportional":
        yield Shape("rope_freqs.weight", "f32", (config.number("global_head_dim") // 2,))


_GEMMA4_DSPARK = _DFLASH._replace(
    keys={
        **_DFLASH_KEYS, "attention.head_count_kv": "num_global_key_value_heads", "attention.key_length": "global_head_dim",
        "attention.value_length": "global_head_dim", "embedding_scale": lambda c: c.number("hidden_size") ** 0.5,
        "attention.scale": constant(1.0), "rope.freq_base": lambda c: None if c.children("rope_parameters") else 1000000.0,
        "hidden_activation": constant("gelu_pytorch_tanh"),
        "sample_from_anchor": lambda c: c.get("sample_from_anchor") is not False,
        "has_confidence_head": lambda c: any("confidence_" in name for name in c.tensors),
    },
    derive=(_dflash, lambda config: {"rope.dimension_count": config.number("global_head_dim")}), extra=(_gemma4_rope,),
    steps=(
        *_DFLASH.steps, renamed(r"\.layer_scalar$", ".layer_scalar.weight"),
        renamed(r"^model\.confidence_proj\.", "model.confidence_head.proj."),
        renamed(r"^model\.layers\.(\d+)\.post_attention_layernorm\.", r"blk.\1.post_attention_norm."),
        renamed(r"^model\.layers\.(\d+)\.pre_feedforward_layernorm\.", r"blk.\1.ffn_norm."),
    ),
)  # fmt: skip


def _glimmer_window(config: Config) -> Keys:
    window, types = config.given("sliding_window"), config.items("layer_types")
    layers = tuple(kind == "sliding_attention" for kind in types)
    return {"attention.sliding_window": window, "attention.sliding_window_pattern": layers} if window and types else {}


_ASSISTANT = GEMMA4._replace(
    architecture="gemma4-assistant", steps=(dropped("masked_embedding"), *GEMMA4.steps),
    keys={**GEMMA4.keys, "embedding_length_out": "backbone_hidden_size", "nextn_predict_layers": lambda c: c.n_blocks},
)  # fmt: skip

ROWS: Mapping[str, Class] = {
    **dict.fromkeys(
        ("LlamaForCausalLM", "LLaMAForCausalLM", "LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "Eagle3Speculator",
         "Eagle3DraftModel"), _llama_class,
    ),
    **dict.fromkeys(("DFlashDraftModel", "DFlash2DraftModel"), _DFLASH),
    **dict.fromkeys(
        ("Qwen3DSparkModel", "DSparkDraftModel", "DSparkSpeculator", "Lfm2DSparkDraftModel", "LingDSparkModel"), _DSPARK
    ),
    "DeepseekV4DSparkModel": _V4_DSPARK,
    "Gemma4DSparkModel": _GEMMA4_DSPARK,
    "MuseGlimmerAssistantModel": Row("dflash", {
        "block_size": "block_size", "target_layers": lambda c: tuple(i + 1 for i in c.numbers("target_layer_ids"))},
        derive=(_glimmer_window,)),
    **dict.fromkeys(("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"), _ASSISTANT),
}  # fmt: skip
