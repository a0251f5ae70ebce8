"""Gemma 1 to 4 (conversion/gemma.py)."""

from collections.abc import Iterable, Mapping

from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import Key, Keys, Row, dropped, or_else, renamed, where_layer

_OLD: Mapping[str, Key] = {
    "context_length": "max_position_embeddings", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "attention.key_length": or_else(256, "head_dim"),
    "attention.value_length": or_else(256, "head_dim"),
}  # fmt: skip
_TIED = (dropped(r"^lm_head\.weight$"),)
_GEMMA3_KEYS: Mapping[str, Key] = {
    "context_length": or_else(131072, "max_position_embeddings"), "attention.head_count": or_else(8, "num_attention_heads"),
    "attention.layer_norm_rms_epsilon": or_else(1e-6, "rms_norm_eps"), "attention.key_length": or_else(256, "head_dim"),
    "attention.value_length": or_else(256, "head_dim"), "attention.head_count_kv": or_else(4, "num_key_value_heads"),
    "rope.freq_base": lambda c: c.given("rope_parameters.full_attention.rope_theta", "rope_parameters.rope_theta") or 1000000.0,
    "final_logit_softcapping": lambda c: c.given("final_logit_softcapping") or None,
    "attention.sliding_window": lambda c: None if c.get("sliding_window_pattern") == 1 else c.get("sliding_window"),
}  # fmt: skip
GEMMA3 = Row("gemma3", _GEMMA3_KEYS)


def _altup(shape: Shape, _: Config) -> Iterable[Shape]:
    """The three projections of AltUp are one tensor."""
    for name in ("altup_projections", "altup_unembed_projections"):
        if f"{name}." in shape.name:
            if f"{name}.0." in shape.name:
                yield shape._replace(name=f"model.{name}.weight", shape=(*shape.shape, 3))
            return
    yield shape


def _padded(shape: Shape, config: Config) -> Iterable[Shape]:
    """Embeddings of fewer rows than the vocabulary are filled up."""
    n_vocab = config.number("vocab_size", default=262400)
    if "embed_tokens" in shape.name and shape.shape[-1] < n_vocab:
        yield shape._replace(shape=(shape.shape[0], n_vocab))
    else:
        yield shape


_GEMMA3N_KEYS: Mapping[str, Key] = {
    **_GEMMA3_KEYS, "altup.active_idx": "altup_active_idx", "altup.num_inputs": "altup_num_inputs",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input", "attention.shared_kv_layers": "num_kv_shared_layers",
    "activation_sparsity_scale": lambda c: (0.0,) * min(c.n_layer, 4096),
    "attention.sliding_window_pattern": where_layer("sliding_attention"),
}  # fmt: skip
_GEMMA3N = Row("gemma3n", _GEMMA3N_KEYS, steps=(renamed(r"_scale$", "_scale.weight"), _padded, _altup))


def _full_head(config: Config) -> int:
    """Width of the heads of full attention (Gemma4Model.set_gguf_parameters)."""
    return config.number("global_head_dim", *(f"per_layer_config.{i}.head_dim" for i in _full_layers(config)))


def _full_layers(config: Config) -> list[int]:
    return [i for i, kind in enumerate(config.items("layer_types")) if kind == "full_attention"]


def _gemma4(config: Config) -> Keys:
    windowed = [kind == "sliding_attention" for kind in config.items("layer_types")]
    full, swa = _full_head(config), config.number("head_dim")
    part = config.real("rope_parameters.partial_rotary_factor", default=1.0)
    keys: dict[str, object] = {
        "attention.sliding_window_pattern": tuple(windowed), "attention.key_length": full, "attention.value_length": full,
        "attention.key_length_swa": swa, "attention.value_length_swa": swa, "rope.dimension_count": full,
        "rope.dimension_count_swa": int(swa * part),
    }  # fmt: skip
    kv = config.get("num_key_value_heads")
    kv_full = config.given(
        "num_global_key_value_heads", *(f"per_layer_config.{i}.num_key_value_heads" for i in _full_layers(config))
    )
    if kv_full is not None and kv is not None:
        keys["attention.head_count_kv"] = tuple(kv if one else kv_full for one in windowed)
    if config.given("use_double_wide_mlp"):
        n, own = config.number("intermediate_size"), config.n_layer - config.number("num_kv_shared_layers", default=0)
        keys["feed_forward_length"] = tuple(n if i < own else 2 * n for i in range(min(config.n_layer, 4096)))
    return keys  # type: ignore[return-value]  # numbers and tuples of them


def _gemma4_freqs(config: Config) -> Iterable[Shape]:
    yield Shape("rope_freqs.weight", "f32", (_full_head(config) // 2,))


GEMMA4 = Row(
    "gemma4",
    {
        **_GEMMA3_KEYS, "attention.shared_kv_layers": "num_kv_shared_layers",
        "embedding_length_per_layer_input": or_else(0, "hidden_size_per_layer_input"),
        "expert_feed_forward_length": ("expert_intermediate_size", "moe_intermediate_size"),
    },
    derive=(_gemma4,), extra=(_gemma4_freqs,),
    steps=(
        renamed(r"(per_dim_scale|layer_scalar)$", r"\1.weight"), renamed(r"(\.experts\..*(?<!\.weight)(?<!_scale))$",
            r"\1.weight"),
        renamed(r"^.*layers\.(\d+)\..*router\.scale$", r"blk.\1.ffn_gate_inp.scale"),
        renamed(r"^.*layers\.(\d+)\..*\.per_expert_scale$", r"blk.\1.ffn_down_exps.scale"),
    ),
)  # fmt: skip

ROWS: Mapping[str, Row] = {
    "GemmaForCausalLM": Row("gemma", _OLD, steps=_TIED, common=False),
    "Gemma2ForCausalLM": Row("gemma2", {
        **_OLD, "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
        "attention.sliding_window": "sliding_window",
    }, steps=_TIED, common=False),
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3ForConditionalGeneration": GEMMA3,
    "Gemma3TextModel": Row("gemma-embedding", {**_GEMMA3_KEYS, "attention.sliding_window": "sliding_window"}),
    "Gemma3nForCausalLM": _GEMMA3N,
    "Gemma3nForConditionalGeneration": _GEMMA3N,
    "Gemma4ForCausalLM": GEMMA4,
    "Gemma4ForConditionalGeneration": GEMMA4,
    "Gemma4UnifiedForConditionalGeneration": GEMMA4,
}  # fmt: skip
