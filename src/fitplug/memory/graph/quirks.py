"""What llama.cpp's shared blocks do otherwise for one architecture, as data.

build_attn, build_qkv, build_ffn and build_moe_ffn (src/llama-graph.cpp) ask for the architecture, or for a number that only
its load_arch_hparams sets (src/models/*.cpp). Each such question is a column here.
"""

from typing import Literal, NamedTuple


class Quirks(NamedTuple):
    """One architecture's row; the defaults are what most do."""

    embedding_scale: float | None = None
    """Default of `embedding_scale` (hparams.f_embedding_scale), 0 for no scaling; None: the key is not read."""
    clamp_kqv: bool = False
    """Reads attention.clamp_kqv (hparams.f_clamp_kqv)."""
    attn_soft_cap: float = 0.0
    """Default of attn_logit_softcapping (hparams.attn_soft_cap, f_attn_logit_softcapping); 0: the key is not read."""
    tanh_kq: bool = False
    """build_attn_mha caps the logits by a tanh of its own."""
    alibi: float | Literal["key"] = 0.0
    """hparams.f_max_alibi_bias, or that it is read from attention.max_alibi_bias."""
    alibi_layers: int = 0
    """Such a bias only for models with so many layers; 0: for all."""
    scaled_experts: bool = False
    """The graph hands ffn_*_exps.scale to build_moe_ffn; all others leave them unused."""
    scaled_last: bool = False
    """build_attn multiplies with attn_output.scale after the adapters' products, not before."""
    summed_in_f32: bool = False
    """attn_output and ffn_down ask to be summed in f32 (ggml_prec_set_acc)."""
    plain_output: bool = False
    """The logits are a bare ggml_mul_mat: output.scale and adapters of it are not used."""
    weights_first: bool = False
    """build_moe_ffn weighs what goes into the experts, not what comes out."""
    selection: Literal["probs", "logits", "sigmoid"] = "probs"
    """What build_moe_ffn chooses the experts by."""
    adjugate_experts: bool = False
    """A second set of experts is chosen by the numbers of the first."""
    exact_down: bool = False
    """ffn_down_exps asks for sources in full precision (ggml_prec_set_src)."""
    clamped_ffn: Literal["never", "always", "hyper_connections"] = "never"
    """Whether a limited SwiGLU is one operation (swiglu_clamp): never, always, or in models with hyper-connections."""
    clamped_experts: Literal["never", "always", "hyper_connections"] = "never"
    """The same of build_moe_ffn."""
    heads: Literal["first", "each", "kv"] = "first"
    """Whose numbers of heads the graph goes by: the first layer's (llm_graph_context::n_head, n_head_kv), each layer's own
    (hparams.n_head(il)), or its own of K and V alone."""
    unused_biases: frozenset[str] = frozenset()
    """Names of matrices whose bias is loaded where the file has one, and that no graph adds."""


MOST = Quirks()
_UNBIASED_OUTPUT = Quirks(unused_biases=frozenset(("attn_output",)))
_UNBIASED_LOGITS = Quirks(unused_biases=frozenset(("output",)))
_UNBIASED_LAYER = Quirks(unused_biases=frozenset(("attn_output", "ffn_up", "ffn_gate", "ffn_down")))
_OWN_HEADS = Quirks(heads="each")
_SCALED, _PLAIN = Quirks(scaled_experts=True), Quirks(plain_output=True)

QUIRKS = {
    **dict.fromkeys(
        ("llama", "mistral3", "qwen3moe", "qwen3next", "qwen35moe", "qwen4exp", "cohere2moe", "hy_v3", "mellum"), _SCALED),
    **dict.fromkeys(("gemma4", "nemotron_h", "nemotron_h_moe"), _SCALED._replace(heads="each")),
    **dict.fromkeys(("gemma4-assistant", "deci", "laguna", "openelm", "plamo2", "plamo3", "spark2_5", "step35"), _OWN_HEADS),
    **dict.fromkeys(("jamba", "lfm2", "lfm2moe"), Quirks(heads="kv")),
    **dict.fromkeys(
        ("granite", "granitemoe", "granite_swa", "granitehybrid", "graniteswitch"), _OWN_HEADS._replace(embedding_scale=0.0)),
    "hrm_text": Quirks(embedding_scale=0.0),
    **dict.fromkeys(("jina-bert-v2", "bloom"), Quirks(alibi=8.0)),
    "refact": _UNBIASED_LAYER._replace(alibi=8.0),
    "llada": _UNBIASED_LAYER,
    "nomic-bert": Quirks(unused_biases=frozenset(("ffn_up", "ffn_gate", "ffn_down"))),
    **dict.fromkeys(("dream", "qwen2vl"), _UNBIASED_LOGITS),
    **dict.fromkeys(("pockettts", "ernie4_5", "ernie4_5-moe"), _UNBIASED_OUTPUT),
    "mimo2": _OWN_HEADS._replace(unused_biases=frozenset(("attn_output", "attn_qkv", "attn_q", "attn_k", "attn_v"))),
    **dict.fromkeys(("deepseek32", "glm-dsa"), _SCALED._replace(plain_output=True)),
    "dots3note": _SCALED._replace(plain_output=True, heads="each"),
    **dict.fromkeys(("deepseek2", "deepseek2-ocr", "bailingmoe3", "kimi-k3", "kimi-linear"), _PLAIN),
    **dict.fromkeys(("deepseek4", "glm5-next"), Quirks(clamped_ffn="always", clamped_experts="always", plain_output=True)),
    "apertus": Quirks(unused_biases=frozenset(("attn_q_norm", "attn_k_norm"))),
    "maple": _UNBIASED_OUTPUT._replace(clamped_experts="always"),
    "hy_v4": Quirks(clamped_experts="always", plain_output=True),
    **dict.fromkeys(("dbrx", "olmo"), Quirks(clamp_kqv=True)),
    "mpt": Quirks(clamp_kqv=True, alibi="key"),
    "jais": Quirks(alibi="key"),
    "baichuan": Quirks(alibi=8.0, alibi_layers=40),  # the 13B
    "gemma2": Quirks(attn_soft_cap=50.0),
    "grok": Quirks(embedding_scale=78.38367176906169, tanh_kq=True),
    "minicpm": _OWN_HEADS._replace(embedding_scale=12.0),
    "dflash": Quirks(embedding_scale=0.0, clamped_ffn="hyper_connections", clamped_experts="hyper_connections"),
    "llama4": Quirks(weights_first=True, selection="logits"),
    "grovemoe": Quirks(selection="sigmoid", adjugate_experts=True),
    **dict.fromkeys(("glm4", "glm4moe", "jais2"), Quirks(scaled_last=True, summed_in_f32=True)),
    "mistral4": Quirks(exact_down=True, plain_output=True),
}  # fmt: skip
"""By general.architecture."""
