"""What a safetensors model is stored as, by its config.json and its tensors."""

from collections import Counter

from fitplug.conversion.config import Config
from fitplug.formats.header import Header

_BY_SUFFIX = (
    (".qweight", "GPTQ or AWQ"),
    ("_blocks", "MXFP4"),
    (".weight_packed", "compressed-tensors"),
    (".quant_state.bitsandbytes__nf4", "bitsandbytes NF4"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes FP4"),
    (".SCB", "bitsandbytes INT8"),
    (".weight_scale_inv", "FP8"),
)
"""What the names of the tensors give away where config.json does not say it."""


def stored_as(header: Header) -> str:
    """In words: "FP8 safetensors in blocks of 128 x 128", "GPTQ safetensors with 4 bits", "BF16 safetensors"."""
    config = Config(header)
    named = _named(config, header)
    return f"{named or _main_type(header)} safetensors{_details(config)}"


def _named(config: Config, header: Header) -> str:
    method = config.quant_method
    algorithm = config.get("quantization_config.quant_algo")
    if method == "modelopt" or isinstance(algorithm, str):
        return str(algorithm or "ModelOpt")
    if method == "bitsandbytes":
        kind = config.get("quantization_config.bnb_4bit_quant_type")
        return f"bitsandbytes {str(kind).upper()}" if config.get("quantization_config.load_in_4bit") else "bitsandbytes INT8"
    if method == "compressed-tensors":
        return f"compressed-tensors {config.get('quantization_config.format') or ''}".strip()
    if method:
        return {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "mxfp4": "MXFP4"}.get(method, method)
    return next((words for suffix, words in _BY_SUFFIX if any(name.endswith(suffix) for name in header.tensors)), "")


def _details(config: Config) -> str:
    block = config.items("quantization_config.weight_block_size")
    if len(block) == 2:
        return f" in blocks of {block[0]} x {block[1]}"
    bits = config.get("quantization_config.bits", "quantization_config.w_bit")
    group = config.get("quantization_config.group_size", "quantization_config.q_group_size")
    words = f" with {bits} bits" if isinstance(bits, int) else ""
    return words + (f" in groups of {group}" if words and isinstance(group, int) and group > 0 else "")


def _main_type(header: Header) -> str:
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        sizes[tensor.type] += tensor.n_bytes
    return sizes.most_common(1)[0][0].upper() if sizes else "empty"
