"""Recurrent and hybrid architectures: which module draws which."""

MODULES: dict[str, str] = {
    **dict.fromkeys(
        (
            "mamba", "mamba2", "jamba", "falcon-h1", "plamo2", "granitehybrid", "nemotron_h", "nemotron_h_moe",
            "lfm2", "lfm2moe", "qwen3next", "qwen35", "qwen35moe", "kimi-linear", "bailingmoe3",
        ),
        "hybrid",
    ),
    **dict.fromkeys(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"), "rwkv"),
    "minimax-01": "minimax_01",
    "kimi-k3": "kimi_k3",
    "glm5-next": "glm5_next",
    "qwen4exp": "qwen4exp",
}  # fmt: skip
