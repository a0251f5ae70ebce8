"""Ordinary decoders, one row each: what is not ordinary about them (src/models/*.cpp)."""

from fitplug.memory.graph.architectures.decoder import Decoder, Moe, build_decoder
from fitplug.memory.graph.base import LLM_NORM
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GELU, RELU_SQR, SEQ, SIGMOID, SOFTMAX_WEIGHT, SWIGLU, SWIGLU_OAI_MOE

PLAIN = Decoder()
LLAMA = Decoder(rope_factors=True, moe=Moe())
CLASSIC = Decoder(norm=LLM_NORM, act=GELU, gate=SEQ)
QWEN3 = Decoder(qk_norm="heads")
GRANITE = Decoder(
    moe=Moe(), rope="pattern", rope_factors=True, residual_scale=True, logit_scale="always", deepstack="mapping",
)  # fmt: skip
GEMMA2 = Decoder(
    embd_scale=True, q_scale=True, act=GELU, post_attn_norm="post_attention_norm", post_ffn_norm="post_ffw_norm",
    post_ffn_norm_pinned=False, logit_softcap="always",
)  # fmt: skip
OLMO2 = Decoder(
    pre_norm=False, qkv_reshape=False, qk_norm="rows", post_attn_norm="post_attention_norm", post_ffn_norm="post_ffw_norm",
    post_ffn_norm_pinned=False,
)  # fmt: skip
PHI3 = Decoder(moe=Moe(), rope_factors=True, q_scale=True, residual_first=True, act=SWIGLU, gate=SEQ)
COHERE = Decoder(
    norm=LLM_NORM, parallel="residual_first", qk_norm="heads", qk_norm_kind=LLM_NORM, logit_scale="key",
)  # fmt: skip
GLM_EXPERTS = Moe(gating=SIGMOID, gating_key=True, norm="key", scale_key=True)
HEADER_EXPERTS = Moe(gating_key=True, norm="key", scale_key=True)

ROWS: dict[str, Decoder] = {
    "llama": LLAMA,
    "llama-embed": LLAMA._replace(only_embeds=True),
    "mistral3": LLAMA._replace(attn_temp=True),
    "falcon": CLASSIC._replace(attn_norm_2=True, parallel="ffn_first"),
    "gpt2": CLASSIC._replace(position_embd=True, rope="none"),
    "starcoder": CLASSIC._replace(position_embd=True, rope="none"),
    "gptneox": CLASSIC,
    "mpt": CLASSIC._replace(position_embd=True, needs_positions=False, rope="none", qk_norm="rows", qk_norm_kind=LLM_NORM),
    "baichuan": PLAIN,
    "refact": Decoder(needs_positions=False, rope="none"),
    "bloom": CLASSIC._replace(embd_norm=True, needs_positions=False, rope="none"),
    "stablelm": Decoder(norm=LLM_NORM, qk_norm="heads", qk_norm_kind=LLM_NORM),
    "qwen": PLAIN,
    "qwen2": PLAIN,
    "qwen2vl": PLAIN,
    "qwen2moe": Decoder(moe=Moe(norm=False, shared_gate="silu")),
    "qwen3": QWEN3,
    "qwen3moe": QWEN3._replace(moe=Moe()),
    "qwen3vl": QWEN3._replace(deepstack="after"),
    "qwen3vlmoe": QWEN3._replace(deepstack="after", moe=Moe()),
    "qwen3tts": QWEN3._replace(deepstack="after"),
    "pockettts": CLASSIC._replace(),
    "phi2": CLASSIC._replace(parallel="attn_first", q_scale=True),
    "phi3": PHI3,
    "phimoe": PHI3,
    "plamo": Decoder(parallel="ffn_first"),
    "plamo3": Decoder(
        qk_norm="heads", post_attn_norm="post_attention_norm", post_ffn_norm="post_ffw_norm", act=SWIGLU, gate=SEQ,
    ),
    "codeshell": CLASSIC,
    "orion": Decoder(norm=LLM_NORM),
    "internlm2": PLAIN,
    "minicpm": GRANITE,
    "gemma": Decoder(embd_scale=True, q_scale=True, act=GELU),
    "gemma2": GEMMA2,
    "gemma3": GEMMA2._replace(qk_norm="heads", logit_softcap="key"),
    "starcoder2": CLASSIC,
    "xverse": PLAIN,
    "command-r": COHERE,
    "cohere2": COHERE._replace(qk_norm="", rope="windowed", rope_factors=True),
    "dbrx": Decoder(moe=Moe(), norm=LLM_NORM, ffn_norm="attn_output_norm"),
    "olmo": Decoder(norm=LLM_NORM, norm_weights=False),
    "olmo2": OLMO2,
    "olmoe": Decoder(qkv_reshape=False, qk_norm="rows", moe=Moe(norm=False)),
    "deepseek": Decoder(rope_factors=True, moe=Moe(norm=False, scale_key=True)),
    "chatglm": Decoder(act=SWIGLU, gate=SEQ),
    "glm4": Decoder(post_attn_norm="post_attention_norm", post_ffn_norm="post_ffw_norm", act=SWIGLU, gate=SEQ),
    "glm4moe": Decoder(qk_norm="heads", ffn_norm="post_attention_norm", moe=GLM_EXPERTS, rows_late_if_asked=True,
        rows_after_norm=True),
    "exaone": Decoder(rope_factors=True),
    "exaone4": OLMO2._replace(qkv_reshape=True, qk_norm="heads", rope="windowed_or_none", rope_factors=True),
    "exaone-moe": Decoder(qk_norm="heads", rope="windowed", rope_factors=True, moe=HEADER_EXPERTS),
    "granite": GRANITE,
    "granitemoe": GRANITE._replace(rope="all"),
    "granite_swa": GRANITE._replace(sinks=True, moe=Moe(shared_act=SWIGLU)),
    "smollm3": Decoder(rope="step"),
    "seed_oss": Decoder(ffn_norm="post_attention_norm"),
    "gpt-oss": Decoder(
        ffn_norm="post_attention_norm", sinks=True, rows_late=True,
        moe=Moe(gating=SOFTMAX_WEIGHT, norm=False, act=SWIGLU_OAI_MOE),
    ),
    "ernie4_5": Decoder(),
    "ernie4_5-moe": Decoder(moe=Moe(interleaved=True)),
    "paddleocr": PLAIN,
    "hunyuan-moe": Decoder(moe=Moe(), rope_factors=True, qk_norm="after_rope"),
    "hunyuan-dense": Decoder(rope_factors=True, qk_norm="after_rope"),
    "hunyuan_vl": Decoder(rope_factors=True, qk_norm="after_rope"),
    "arcee": Decoder(rope_factors=True, act=RELU_SQR, gate=SEQ),
    "bailingmoe": Decoder(rope_factors=True, moe=Moe(norm="key", scale_key=True)),
    "bailingmoe2": Decoder(qk_norm="heads", moe=HEADER_EXPERTS),
    "dots1": Decoder(qk_norm="heads", moe=HEADER_EXPERTS),
    "nemotron": Decoder(norm=LLM_NORM, act=RELU_SQR, gate=SEQ),
    "jais": Decoder(norm=LLM_NORM, needs_positions=False, rope="none"),
    "jais2": Decoder(norm=LLM_NORM, act=RELU_SQR, gate=SEQ),
    "maincoder": Decoder(qk_norm="after_rope"),
    "apertus": Decoder(qk_norm="heads", rope_factors=True, act="xielu", gate=SEQ),
    "minimax-m2": Decoder(qkv_reshape=False, qk_norm="rows", moe=Moe(gating_key=True)),
    "pangu-embedded": PLAIN,
    "dream": PLAIN,
    "llada": PLAIN,
    "llada-moe": QWEN3._replace(moe=Moe(norm=False, scale_key=True)),
    "rnd1": QWEN3._replace(moe=Moe(scale_key=True)),
    "mellum": QWEN3._replace(moe=Moe(scale_key=True)),
    "maple": QWEN3._replace(rope="windowed", moe=Moe()),
    "hy_v3": Decoder(qk_norm="heads", rope_factors=True, moe=HEADER_EXPERTS, rows_late=True, rows_after_norm=True),
    "mimo2": Decoder(
        sinks=True, attn_value_scale=True, moe=Moe(gating=SIGMOID, scale_key=True),
        rows_late_if_asked=True,
    ),
}  # fmt: skip

MODULES: dict[str, str] = {
    "llama4": "llama4", "deci": "deci", "grok": "grok", "openelm": "openelm", "arctic": "arctic",
    "smallthinker": "smallthinker", "grovemoe": "grovemoe", "afmoe": "gated", "laguna": "gated", "cohere2moe": "cohere2moe",
    "minicpm3": "low_rank", "plm": "low_rank",
}  # fmt: skip
"""Decoders of this family with a graph of their own: architecture → module."""


def build(g: GraphContext) -> None:
    """Draw the graph of a row."""
    row = ROWS[g.arch]
    if g.arch == "gptneox" and g.get_bool("use_parallel_residual", default=True):
        row = row._replace(parallel="residual_first", parallel_norm=True)
    if g.arch == "baichuan" and g.model.n_layer_all != BAICHUAN_7B_LAYERS:
        row = row._replace(rope="none", needs_positions=False)
    build_decoder(g, row)


BAICHUAN_7B_LAYERS = 32
"""Only the 7B turns by position; the 13B has ALiBi."""
