"""What clip_model_loader::load_hparams asks of every projector's metadata and throws without (tools/mtmd/clip.cpp)."""

from collections.abc import Mapping

EVERY = (
    "embedding_length", "attention.head_count", "feed_forward_length", "block_count", "projection_dim",
    "attention.layer_norm_epsilon",
)  # fmt: skip
BY_PREFIX: Mapping[str, tuple[str, ...]] = {"v": ("image_size", "patch_size"), "a": ("num_mel_bins",)}
_PIXELS = ("image_min_pixels", "image_max_pixels")
_SAM = ("sam.block_count", "sam.head_count", "sam.embedding_length", "window_size")
BY_TYPE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("phi4", "paddleocr"), _PIXELS),
    "dots_ocr": ("projector.scale_factor", *_PIXELS),
    "dots3note_v": ("spatial_merge_size", "expert_used_count", *_PIXELS),
    "deepseek4v": ("projector.scale_factor", "image_min_pixels"),
    "qwen2.5vl_merger": ("n_wa_pattern",),
    "mimovl": ("attention.head_count_kv", "window_size", "wa_pattern_mode", *_PIXELS),
    "youtuvl": ("window_size", "wa_layer_indexes"),
    "glm5v": ("swiglu_clamp", *_PIXELS),
    "exaone4_5": ("attention.head_count_kv", *_PIXELS),
    "deepseekocr": _SAM,
    "deepseekocr2": (*_SAM, "attention.head_count_kv"),
    "granite4_vision": ("projector.spatial_offsets", "projector.query_side", "projector.window_side"),
    **dict.fromkeys(("ultravox", "voxtral", "meralion", "glma"), ("projector.stack_factor",)),
    "mimo_audio": (
        "rvq.num_quantizers", "rvq.codebook_size", "window_size", "wa_pattern_mode", "local_block_count", "local_group_size",
    ),
    "parakeet": ("subsampling_factor", "conv_kernel_size"),
    "granite_speech": (
        "chunk_size", "conv_kernel_size", "max_pos_emb", "projector.window_size", "projector.downsample_rate",
        "projector.head_count",
    ),
}  # fmt: skip


def required(kind: str, prefix: str) -> tuple[str, ...]:
    """Names of the numbers that an encoder cannot do without, after its section's name."""
    return (*EVERY, *BY_PREFIX.get(prefix, ()), *BY_TYPE.get(kind, ()))
