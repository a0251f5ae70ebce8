"""Plain transformers with keys of their own (conversion/gpt2.py, falcon.py, phi.py, stablelm.py, baichuan.py, …)."""

from collections.abc import Iterable, Mapping
from math import log, sqrt

from fitplug.conversion.classes.llama import VOCAB, long_factors
from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import (
    Class,
    Key,
    Row,
    constant,
    dropped,
    even_head,
    or_else,
    renamed,
    reshaped,
    rope_width,
    split,
    turned,
)
from fitplug.formats.header import Value

_N_EMBD = ("hidden_size", "n_embed", "n_embd", "d_model")
_PTH: Mapping[str, Key] = {"tensor_data_layout": constant("Meta AI original pth")}


def _four_times(config: Config) -> int:
    return 4 * config.number(*_N_EMBD)


def _phi_width(config: Config) -> int:
    part = config.rope("partial_rotary_factor")
    width = int((part if isinstance(part, (int, float)) else 1.0) * config.number("hidden_size", "n_embd"))
    return width // max(1, config.number("num_attention_heads", "n_head"))


def _attn_factor(config: Config) -> Value | None:
    """Of a long rope, by how much longer it is (Phi3MiniModel.generate_extra_tensors)."""
    if config.rope("long_factor") is None:
        return None
    trained = config.number("n_positions", "max_position_embeddings")
    before = config.rope("original_max_position_embeddings")
    if not isinstance(before, (int, float)) or not 1 < before < trained:
        return 1.0
    longer = log(trained / before)
    return 0.1 * longer + 1.0 if config.rope_type == "yarn" else sqrt(1 + longer / log(before))


_PHI3_KEYS: Mapping[str, Key] = {
    "context_length": ("n_positions", "max_position_embeddings"), "embedding_length": ("hidden_size", "n_embd"),
    "rope.scaling.original_context_length": lambda c: c.rope("original_max_position_embeddings"),
    "feed_forward_length": "intermediate_size", "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "n_head_kv"), "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.dimension_count": _phi_width, "rope.freq_base": lambda c: c.rope("rope_theta"),
    "attention.sliding_window": or_else(0, "sliding_window"),
    "rope.scaling.attn_factor": _attn_factor,
}  # fmt: skip
PHI3 = Row("phi3", _PHI3_KEYS, extra=(long_factors,), common=False)
_PHI_MOE = PHI3._replace(architecture="phimoe", keys={
    **_PHI3_KEYS, "expert_used_count": ("num_experts_per_tok", "num_experts_per_token"),
    "expert_count": ("num_local_experts", "num_experts")})  # fmt: skip
_GLM_EDGE = Row(
    "chatglm",
    {
        "context_length": lambda c: c.given("seq_length") or c.number("hidden_size", "n_embed"),
        "embedding_length": ("hidden_size", "n_embed"),
        "feed_forward_length": lambda c: c.given("ffn_hidden_size", "intermediate_size") or _four_times(c),
        "attention.head_count": ("n_head", "num_attention_heads"),
        "attention.head_count_kv": ("multi_query_group_num", "num_key_value_heads", "n_head", "num_attention_heads"),
        "attention.layer_norm_rms_epsilon": or_else(1e-5, "layernorm_epsilon"),
        "rope.dimension_count": lambda c: int(
            c.number("attention_dim", default=even_head(c))
            * c.real("rope_parameters.partial_rotary_factor", "partial_rotary_factor", default=0.5)),
        "tokenizer.ggml.add_bos_token": constant(False),
        "rope.freq_base": lambda c: 10000.0 * c.real("rope_ratio", default=1.0),
    },
    steps=(dropped(r"\.rotary_pos_emb\.inv_freq$"), renamed(r"^transformer\.", "")), common=False,
)  # fmt: skip
_FALCON = Row(
    "falcon",
    {
        "context_length": constant(2048), "tensor_data_layout": constant("jploski"), "embedding_length": "hidden_size",
        "feed_forward_length": _four_times, "attention.head_count": ("num_attention_heads", "n_head"),
        "attention.head_count_kv": or_else(1, "num_kv_heads", "n_head_kv"),
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    common=False,
)  # fmt: skip
_BLOOM = Row(
    "bloom",
    {
        "context_length": lambda c: c.given("seq_length") or c.number(*_N_EMBD), "embedding_length": ("hidden_size", "n_embed"),
        "feed_forward_length": _four_times, "attention.head_count": ("n_head", "num_attention_heads"),
        "attention.head_count_kv": ("n_head", "num_attention_heads"), "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    steps=(renamed(r"transformer\.", ""),), common=False,
)  # fmt: skip


def _refact_width(config: Config) -> int:
    return -(-int(2 * 4 * config.number("n_embd") / 3) // 256) * 256


def _refact_head(config: Config) -> int:
    return config.number("n_embd") // max(1, config.number("n_head"))


def _plain(
    *, kv: Key, n_ff: Key = _four_times, context: str = "n_positions", eps: str = "attention.layer_norm_epsilon"
) -> dict[str, Key]:
    """The keys of GPT-2's children."""
    return {
        "context_length": context, "embedding_length": "n_embd", "feed_forward_length": n_ff, "attention.head_count": "n_head",
        "attention.head_count_kv": kv, eps: "layer_norm_epsilon",
    }  # fmt: skip


def _stacked_norms(shape: Shape, config: Config) -> Iterable[Shape]:
    """A norm for each head, stacked (StableLMModel._stack_qk_norm)."""
    for kind, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
        if f"{kind}_layernorm.norms." in shape.name:
            if f"{kind}_layernorm.norms.0." in shape.name:
                name = shape.name.replace("layernorm.norms.0.", "layernorm.")
                yield shape._replace(name=name, shape=(*shape.shape, config.number(heads)))
            return
    yield shape


_STABLELM = Row(
    "stablelm",
    {
        "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "rope.dimension_count": rope_width(0.25, of=even_head), "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads", "use_parallel_residual": or_else(True, "use_parallel_residual"),
        "attention.layer_norm_epsilon": ("layer_norm_eps", "norm_eps"),
    },
    steps=(_stacked_norms,), common=False,
)  # fmt: skip


ROWS: Mapping[str, Class] = {
    "GPT2LMHeadModel": Row("gpt2", {
        "context_length": "n_ctx", "embedding_length": "n_embd", "feed_forward_length": _four_times,
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    }, steps=(turned(r"\.(c_attn|c_proj|c_fc)\.weight$"), dropped(r"\.attn\.(bias|masked_bias)$")), common=False),
    "GPTNeoXForCausalLM": Row("gptneox", {
        "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "rope.dimension_count": lambda c: int(c.real("rotary_pct", "partial_rotary_factor",
            "rope_parameters.partial_rotary_factor",
                                                     default=0.25) * even_head(c)),
        "attention.head_count": "num_attention_heads", "use_parallel_residual": or_else(True, "use_parallel_residual"),
        "attention.layer_norm_epsilon": "layer_norm_eps",
    }, common=False, labelled=False),
    "GPTBigCodeForCausalLM": Row("starcoder", _plain(kv=constant(1)), common=False),
    "Starcoder2ForCausalLM": Row("starcoder2"),
    "GPTRefactForCausalLM": Row("refact", _plain(kv=constant(1), n_ff=_refact_width, eps="attention.layer_norm_rms_epsilon"),
        steps=(
        split(r"transformer\.h\.(\d+)\.attn\.kv\.", (r"blk.\1.attn_k.", _refact_head), (r"blk.\1.attn_v.", _refact_head)),
        renamed(r"transformer\.h\.(\d+)\.attn\.q\.", r"blk.\1.attn_q."),
        split(r"transformer\.h\.(\d+)\.mlp\.gate_up_proj\.", (r"blk.\1.ffn_gate.", _refact_width), (r"blk.\1.ffn_up.",
            _refact_width)),
    ), common=False),
    "CodeShellForCausalLM": Row("codeshell", {
        **_plain(kv="num_query_groups"), "rope.freq_base": constant(10000.0), "rope.scaling.type": constant("linear"),
        "rope.scaling.factor": constant(1.0)}, common=False),
    "BloomForCausalLM": _BLOOM,
    "BloomModel": _BLOOM,
    "MPTForCausalLM": Row("mpt", {
        "context_length": "max_seq_len", "embedding_length": "d_model", "feed_forward_length": _four_times,
        "attention.head_count": "n_heads", "attention.head_count_kv": lambda c: c.given("attn_config.kv_n_heads") or None,
        "attention.layer_norm_epsilon": constant(1e-5), "attention.clamp_kqv": "attn_config.clip_qkv",
        "attention.max_alibi_bias": lambda c: c.real("attn_config.alibi_bias_max",
            default=0.0) if c.given("attn_config.alibi") else 0.0,
    }, common=False, labelled=False),
    "FalconForCausalLM": _FALCON,
    "RWForCausalLM": _FALCON,
    "PhiForCausalLM": Row("phi2", {
        "context_length": ("n_positions", "max_position_embeddings"), "embedding_length": ("hidden_size", "n_embd"),
        "feed_forward_length": _four_times, "attention.head_count": ("num_attention_heads", "n_head"),
        "attention.head_count_kv": ("num_attention_heads", "n_head"),
        "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps"), "rope.dimension_count": _phi_width,
        "tokenizer.ggml.add_bos_token": constant(False),
    }, common=False),
    "Phi3ForCausalLM": PHI3,
    "Phi4ForCausalLMV": PHI3,
    "PhiMoEForCausalLM": _PHI_MOE,
    "StableLmForCausalLM": _STABLELM,
    "StableLMEpochForCausalLM": _STABLELM,
    "LlavaStableLMEpochForCausalLM": _STABLELM,
    "GlmForCausalLM": _GLM_EDGE,
    "ChatGLMModel": _GLM_EDGE,
    "ChatGLMForConditionalGeneration": _GLM_EDGE,
    "XverseForCausalLM": Row("xverse", {**_PTH, "rope.dimension_count": even_head}),
    "OrionForCausalLM": Row("orion", {
        **_PTH, "context_length": ("max_sequence_length", "max_position_embeddings", "model_max_length"),
        "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
        "attention.layer_norm_epsilon": "rms_norm_eps",
    }, common=False),
    "NemotronForCausalLM": Row("nemotron", {
        **VOCAB, "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
        "rope.dimension_count": _phi_width,
        "rope.scaling.type": lambda c: "none" if not c.given("factor") and c.rope("factor") is None else "linear",
        "rope.scaling.factor": lambda c: c.given("factor") or c.rope("factor"),
    }),
    "PanguEmbeddedForCausalLM": Row("pangu-embedded", {
        **VOCAB, "rope.dimension_count": lambda c: c.head_dim, "attention.key_length": lambda c: c.head_dim,
        "attention.value_length": lambda c: c.head_dim,
    }, steps=(dropped(r"^lm_head\.weight$", lambda config: bool(config.get("tie_word_embeddings"))),)),
    "DbrxForCausalLM": Row("dbrx", {
        "context_length": "max_seq_len", "embedding_length": "d_model", "feed_forward_length": "ffn_config.ffn_hidden_size",
        "attention.head_count": "n_heads", "attention.head_count_kv": "attn_config.kv_n_heads",
        "rope.freq_base": "attn_config.rope_theta", "attention.clamp_kqv": "attn_config.clip_qkv",
        "expert_count": "ffn_config.moe_num_experts", "expert_used_count": "ffn_config.moe_top_k",
        "attention.layer_norm_epsilon": constant(1e-5),
    }, steps=(
        reshaped(r"experts\.mlp\.[wv]\d$", lambda n, c: (
            n[0], c.number("ffn_config.ffn_hidden_size"), c.number("ffn_config.moe_num_experts"))),
        turned(r"experts\.mlp\.w2$"), renamed(r"(experts\.mlp\.[wv]\d)$", r"\1.weight"),
    ), common=False, forced=((r"", "written"),)),
}  # fmt: skip
