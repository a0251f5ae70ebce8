"""Latent attention, encoders and everything exotic: which module draws which."""

MODULES: dict[str, str] = {
    **dict.fromkeys(("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"), "bert"),
    **dict.fromkeys(("eurobert", "neo-bert", "modern-bert", "gemma-embedding"), "encoder"),
    **dict.fromkeys(("deepseek2", "deepseek2-ocr", "mistral4"), "deepseek2"),
    **dict.fromkeys(("deepseek32", "glm-dsa", "dots3note"), "sparse_latent"),
    "hy_v4": "hy_v4",
    "minimax-m3": "minimax_m3",
    "deepseek4": "deepseek4",
    **dict.fromkeys(("t5", "t5encoder"), "t5"),
    "cogvlm": "cogvlm",
    "chameleon": "chameleon",
    "hrm_text": "hrm_text",
    "graniteswitch": "graniteswitch",
    "bitnet": "bitnet",
    "wavtokenizer-dec": "wavtokenizer_dec",
    **dict.fromkeys(("spark2_5", "step35", "muse-glimmer"), "gated_heads"),
    "talkie": "talkie",
    "nanbeige": "nanbeige",
    "gemma3n": "gemma3n",
    "gemma4": "gemma4",
}
