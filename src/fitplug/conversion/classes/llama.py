"""LlamaModel and what is built on it (conversion/llama.py, mistral3.py, internlm.py, granite.py), and close relatives."""

from collections.abc import Iterable, Mapping

from fitplug.conversion.config import MAX_LAYERS, Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import (
    Key,
    Keys,
    Row,
    constant,
    dropped,
    even_head,
    halved,
    renamed,
    rope_width,
    split,
    turned,
    where_layer,
)
from fitplug.formats.header import Skipped


def llama3_freqs(config: Config) -> Iterable[Shape]:
    """rope_freqs, where the rope is scaled as in Llama 3 (LlamaModel.generate_extra_tensors)."""
    if config.rope_type == "llama3":
        yield Shape("rope_freqs.weight", "f32", (config.head_dim // 2,))


def long_factors(config: Config) -> Iterable[Shape]:
    """The two sets of factors of a long rope (Phi3MiniModel, MiniCPMModel)."""
    factors = config.rope("long_factor")
    n = len(factors) if isinstance(factors, tuple) and not isinstance(factors, Skipped) else 0
    if n:
        yield Shape("rope_factors_long.weight", "f32", (n,))
        yield Shape("rope_factors_short.weight", "f32", (n,))


VOCAB: Mapping[str, Key] = {"vocab_size": "vocab_size"}
LLAMA_KEYS: Mapping[str, Key] = {**VOCAB, "rope.dimension_count": lambda config: config.head_dim}
LLAMA = Row("llama", LLAMA_KEYS, extra=(llama3_freqs,), steps=(renamed(r"text_model\.", ""),))
WINDOW: Mapping[str, Key] = {
    "attention.sliding_window": "sliding_window", "attention.sliding_window_pattern": where_layer("sliding_attention"),
}  # fmt: skip
GRANITE_KEYS: Mapping[str, Key] = {
    **VOCAB, "rope.dimension_count": even_head, "attention.scale": lambda c: c.given("attention_multiplier") or None,
    "embedding_scale": lambda c: c.given("embedding_multiplier") or None,
    "residual_scale": lambda c: c.given("residual_multiplier") or None,
    "logit_scale": lambda c: c.given("logits_scaling") or None,
}  # fmt: skip
GRANITE = LLAMA._replace(
    architecture="granite", keys=GRANITE_KEYS, without=("attention.key_length", "attention.value_length"),
    steps=(dropped(r"^encoder\.|image_|layerwise_projectors|spatial_projectors"), *LLAMA.steps),
)  # fmt: skip
GRANITE_MOE = GRANITE._replace(
    architecture="granitemoe",
    keys={**GRANITE_KEYS, "expert_shared_feed_forward_length": lambda c: c.given("shared_intermediate_size") or None},
    steps=(
        *GRANITE.steps,
        renamed(r"block_sparse_moe\.input_linear\.", "block_sparse_moe.gate_up."),
        halved(r"block_sparse_moe\.gate_up\.", "mlp.experts.gate_proj.", "mlp.experts.up_proj."),
        halved(r"shared_mlp\.input_linear\.", "shared_mlp.gate.", "shared_mlp.up."),
    ),
)


def _shared_names(shape: Shape, config: Config) -> Iterable[Shape]:
    """A Granite's shared expert is its feed-forward where there are no others."""
    shared = bool(config.given("num_local_experts"))
    for part, name in (("gate", "ffn_gate"), ("up", "ffn_up"), ("output_linear", "ffn_down")):
        marker = f".shared_mlp.{part}.weight"
        if shape.name.endswith(marker):
            layer = shape.name.removesuffix(marker).rpartition(".")[2]
            yield shape._replace(name=f"blk.{layer}.{name}{'_shexp' if shared else ''}.weight")
            return
    yield shape


GRANITE_MOE = GRANITE_MOE._replace(steps=(*GRANITE_MOE.steps, _shared_names))


def _granite_window(config: Config) -> Keys:
    """GraniteSWAModel.set_gguf_parameters."""
    n, rope = min(config.n_layer, MAX_LAYERS), config.items("no_rope_layers")
    types = config.items("layer_types")
    return {
        "attention.sliding_window": config.number("sliding_window", default=128),
        "attention.sliding_window_pattern": tuple(kind == "sliding_attention" for kind in types)
        or tuple(i % 4 != 0 for i in range(n)),
        **({"rope.pattern": tuple(bool(one) for one in rope)} if rope else {}),
    }


_GRANITE_SWA = GRANITE._replace(
    architecture="granite_swa", derive=(_granite_window,), steps=(*GRANITE.steps, renamed(r"sinks$", "sinks.weight"))
)
_GRANITE_MOE_SWA = _GRANITE_SWA._replace(
    keys=GRANITE_MOE.keys,
    steps=(
        *_GRANITE_SWA.steps,
        renamed(
            r"model\.layers\.(\d+)\.block_sparse_moe\.(experts\.gate_up_proj|input_linear\.weight)$",
            r"blk.\1.ffn_gate_up_exps.weight",
        ),
        renamed(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.down_proj$", r"blk.\1.ffn_down_exps.weight"),
        renamed(r"model\.layers\.(\d+)\.shared_mlp\.input_linear\.", r"blk.\1.ffn_up_shexp."),
        renamed(r"model\.layers\.(\d+)\.shared_mlp\.output_linear\.", r"blk.\1.ffn_down_shexp."),
    ),
)


def _llama4(config: Config) -> Keys:
    types = config.items("layer_types")
    keys: Keys = {
        "feed_forward_length": config.number("intermediate_size_mlp"),
        "expert_feed_forward_length": config.number("intermediate_size"),
        "interleave_moe_layer_step": config.number("interleave_moe_layer_step", default=1),
    }
    return {**keys, "attention.sliding_window": 0} if types and set(types) == {"full_attention"} else keys


_LLAMA4 = LLAMA._replace(
    architecture="llama4", derive=(_llama4,),
    steps=(
        *LLAMA.steps, turned(r"experts\.(gate_up|down)_proj$"), renamed(r"down_proj$", "down_proj.weight"),
        halved(r"gate_up_proj$", "gate_proj.weight", "up_proj.weight"),
    ),
)  # fmt: skip


def _ministral3(config: Config) -> Keys:
    found = {
        "rope.scaling.yarn_log_multiplier": config.rope("mscale_all_dim"),
        "attention.temperature_scale": config.rope("llama_4_scaling_beta"),
    }
    return {key: value for key, value in found.items() if value is not None} if config.get("model_type") == "ministral3" else {}


MINISTRAL3 = LLAMA._replace(architecture="mistral3", derive=(_ministral3,))


def _exaone4_window(config: Config) -> Keys:
    """The window's layers by their types, by a period, or by a text of letters."""
    window, pattern, n = config.given("sliding_window"), config.given("sliding_window_pattern"), config.n_layer
    if window is None:
        return {}
    layers: tuple[bool, ...] = tuple(kind == "sliding_attention" for kind in config.items("layer_types"))
    if not layers and isinstance(pattern, str) and pattern:
        layers = tuple(pattern[i % len(pattern)] == "L" for i in range(min(n, 4096)))
    elif not layers and isinstance(pattern, int) and pattern:
        layers = tuple((i + 1) % pattern != 0 for i in range(min(n, 4096)))
    return {"attention.sliding_window": window} | ({"attention.sliding_window_pattern": layers} if layers else {})


EXAONE4 = Row("exaone4", VOCAB, derive=(_exaone4_window,), extra=(llama3_freqs,))


def _olmo2_window(config: Config) -> Keys:
    window = config.get("sliding_window")
    if not config.has("sliding_window"):
        return {}
    types, n = config.items("layer_types"), min(config.n_layer, 4096)
    layers = tuple(kind == "sliding_attention" for kind in types) or tuple((i + 1) % 4 != 0 for i in range(n))
    return {**({"attention.sliding_window": window} if window is not None else {}), "attention.sliding_window_pattern": layers}


_INTERNLM2 = Row("internlm2", steps=(
    split(r"attention\.wqkv\.", ("attention.wq.", lambda c: c.number("hidden_size")), *(
        (f"attention.w{kind}.", lambda c: c.number("num_key_value_heads") * even_head(c)) for kind in "kv")),
))  # fmt: skip

ROWS: Mapping[str, Row] = {
    **dict.fromkeys(
        ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "IQuestCoderForCausalLM",
         "LlavaForConditionalGeneration", "VoxtralForConditionalGeneration", "VLlama3ForCausalLM"), LLAMA,
    ),
    "Sarashina2VisionForCausalLM": LLAMA._replace(steps=(dropped(r"^norm\."), renamed(r"^llm\.", ""), *LLAMA.steps)),
    "LlamaModel": LLAMA._replace(steps=(*LLAMA.steps, renamed("^", "model."))),
    "LlamaBidirectionalModel": LLAMA._replace(architecture="llama-embed"),
    "InternLM2ForCausalLM": _INTERNLM2,
    "InternLM3ForCausalLM": Row("llama", LLAMA_KEYS),
    "ArceeForCausalLM": LLAMA._replace(architecture="arcee"),
    "SmolLM3ForCausalLM": LLAMA._replace(architecture="smollm3"),
    "ApertusForCausalLM": LLAMA._replace(
        architecture="apertus", steps=(*LLAMA.steps, dropped(r"\.act_fn\.(alpha_n|alpha_p|beta|eps)$")),
        keys={**LLAMA_KEYS, **{f"xielu.{part}": lambda c: (0.0,) * min(c.n_layer, 4096) for part in ("alpha_n", "alpha_p",
            "beta", "eps")}},
    ),
    "Llama4ForCausalLM": _LLAMA4,
    "Llama4ForConditionalGeneration": _LLAMA4,
    "Ministral3ForCausalLM": MINISTRAL3,
    "GraniteForCausalLM": GRANITE,
    "GraniteMoeForCausalLM": GRANITE_MOE,
    "GraniteMoeSWAForCausalLM": _GRANITE_MOE_SWA,
    "GraniteSWAForCausalLM": _GRANITE_SWA,
    "Jais2ForCausalLM": Row("jais2", {"rope.dimension_count": lambda c: c.head_dim}),
    "JanusForConditionalGeneration": LLAMA._replace(steps=(
        dropped(r"^model\.(vision_model|aligner|vqmodel|generation_(embeddings|aligner|head))\."), *LLAMA.steps)),
    "GraniteMoeSharedForCausalLM": GRANITE_MOE,
    "NanbeigeForCausalLM": LLAMA._replace(architecture="nanbeige", keys={
        **LLAMA_KEYS, "num_loops": lambda c: max(1, int(c.real("num_loops", default=1))),
        "skip_loop_final_norm": lambda c: bool(c.given("skip_loop_final_norm"))}),
    "ExaoneForCausalLM": Row("exaone", {"rope.dimension_count": rope_width(of=even_head)}, extra=(llama3_freqs,)),
    "Exaone4ForCausalLM": EXAONE4,
    "SeedOssForCausalLM": Row("seed_oss"),
    "OlmoForCausalLM": Row("olmo", {"attention.layer_norm_epsilon": constant(1e-5), "attention.clamp_kqv": "clip_qkv"}),
    "OLMoForCausalLM": Row("olmo", {"attention.layer_norm_epsilon": constant(1e-5), "attention.clamp_kqv": "clip_qkv"}),
    "Olmo2ForCausalLM": Row("olmo2", derive=(_olmo2_window,)),
    "Olmo3ForCausalLM": Row("olmo2", derive=(_olmo2_window,)),
    "CohereForCausalLM": Row("command-r", {
        "context_length": ("model_max_length", "max_position_embeddings"), "logit_scale": "logit_scale",
        "rope.scaling.type": constant("none"),
    }),
    "Cohere2ForCausalLM": Row("cohere2", {
        "logit_scale": "logit_scale", "attention.sliding_window": "sliding_window", **VOCAB,
        "rope.scaling.type": constant("none"),
        "rope.dimension_count": lambda c: int(c.real("rotary_pct", default=1.0) * even_head(c)),
    }, steps=(dropped(r"\.bias$"),)),
    "MiniCPMForCausalLM": Row("minicpm", {
        "embedding_scale": "scale_emb", "residual_scale": lambda c: c.real("scale_depth", default=1) / max(1, c.n_layer) ** 0.5,
        "logit_scale": lambda c: c.number("hidden_size") / max(1, c.number("dim_model_base")),
    }, extra=(long_factors,)),
    "MiniCPM3ForCausalLM": Row("minicpm3", {
        "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps", **VOCAB, "attention.q_lora_rank": "q_lora_rank",
        "attention.kv_lora_rank": "kv_lora_rank", "rope.dimension_count": "qk_rope_head_dim",
        "attention.key_length": lambda c: c.number("qk_nope_head_dim") + c.number("qk_rope_head_dim"),
    }, common=False, extra=(long_factors,)),
    "MaincoderForCausalLM": Row("maincoder", {"rope.dimension_count": "head_dim"}),
}  # fmt: skip
