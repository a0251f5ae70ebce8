"""Which scales of the file an architecture's graph multiplies with.

Beside any matrix a file may have NAME.scale (llama_model_base::load_tensors, src/llama-model.cpp, loads those of NVFP4
models). A graph uses one only if its code passes `layer.…_s` to build_lora_mm, build_ffn or build_moe_ffn: what stands here was
read out of src/models/*.cpp, src/models/mamba-base.cpp and llm_graph_context::build_qkv.
"""

USUAL = frozenset(("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "output"))
"""build_qkv, wo_s and output_s: what nearly every graph passes."""
OUTPUT = frozenset(("output",))
DENSE = frozenset(("ffn_up", "ffn_gate", "ffn_down"))
EXPERTS = frozenset(("ffn_up_exps", "ffn_gate_exps", "ffn_down_exps", "ffn_gate_up_exps"))
SHARED = frozenset(("ffn_up_shexp", "ffn_gate_shexp", "ffn_down_shexp"))
MAMBA = frozenset(("ssm_in", "ssm_out"))
DELTA_NET = frozenset(("attn_gate", "ssm_alpha", "ssm_beta", "ssm_out"))
NONE: frozenset[str] = frozenset()

PASSED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("llama", "llama-embed", "mistral3"), USUAL | DENSE | EXPERTS),
    **dict.fromkeys(("cohere2", "nanbeige", "qwen3", "bitnet", "dflash"), USUAL | DENSE),
    **dict.fromkeys(("mellum", "qwen3moe"), USUAL | EXPERTS),
    **dict.fromkeys(("deepseek32", "glm-dsa", "hy_v3"), USUAL | DENSE | EXPERTS | SHARED),
    **dict.fromkeys(("cohere2moe", "dots3note"), USUAL - OUTPUT | DENSE | EXPERTS | SHARED),
    "gemma4": USUAL | DENSE | EXPERTS | {"ffn_gate_inp"},
    "talkie": USUAL | {"ffn_down"},
    **dict.fromkeys(("mamba", "mamba2", "jamba", "falcon-h1", "granitehybrid"), USUAL | MAMBA),
    **dict.fromkeys(("plamo2", "plamo3", "mimo2"), frozenset(("attn_output", "output"))),
    **dict.fromkeys(("nemotron_h", "nemotron_h_moe"), USUAL | MAMBA | DENSE | EXPERTS | SHARED),
    "qwen3next": USUAL - {"attn_qkv"} | EXPERTS | SHARED,
    "qwen35": USUAL | DENSE | DELTA_NET,
    **dict.fromkeys(("qwen35moe", "qwen4exp"), USUAL | EXPERTS | SHARED | DELTA_NET),
    **dict.fromkeys(("kimi-linear",), frozenset(("attn_output",))),
    **dict.fromkeys(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"), OUTPUT),
    **dict.fromkeys(("bailingmoe3", "kimi-k3", "glm5-next", "deepseek4", "hy_v4", "eagle3", "gemma4-assistant"), NONE),
}
"""Architecture → names in the file whose scale is passed; USUAL where it is not here."""

PASSED_BY_MTP: dict[str, frozenset[str]] = {"mimo2": USUAL}
"""The same of graphs of MTP blocks, where they pass others than the trunk's."""


def passed(architecture: str, *, mtp: bool = False) -> frozenset[str]:
    """Names of the matrices whose scale the graph uses."""
    usual = PASSED.get(architecture, USUAL)
    return PASSED_BY_MTP.get(architecture, usual) if mtp else usual
