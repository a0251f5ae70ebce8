"""What a safetensors model is stored as, by its config.json and its tensors."""

import re
from collections import Counter
from typing import NamedTuple

from fitplug.conversion.config import Config
from fitplug.formats.header import Header, Tensor

_BY_SUFFIX = (
    (".qweight", "GPTQ or AWQ"),
    ("_blocks", "MXFP4"),
    (".weight_packed", "compressed-tensors"),
    (".quant_state.bitsandbytes__nf4", "bitsandbytes NF4"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes FP4"),
    (".SCB", "bitsandbytes INT8"),
    (".q_invperm", "EXL2"),
    (".trellis", "EXL3"),
    (".weight_scale_inv", "FP8"),
)
"""What the names of the tensors give away where config.json does not say it."""
_SPELT_OUT = ("gptq", "awq", "fp8", "mxfp4", "mlx", "exl2", "exl3")
_BITS = ("quantization_config.bits", "quantization_config.w_bit", "quantization.bits")
_GROUPS = ("quantization_config.group_size", "quantization_config.q_group_size", "quantization.group_size")


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
        return method.upper() if method in _SPELT_OUT else method
    return next((words for suffix, words in _BY_SUFFIX if any(name.endswith(suffix) for name in header.tensors)), "")


def _details(config: Config) -> str:
    block = config.items("quantization_config.weight_block_size")
    if len(block) == 2:
        return f" in blocks of {block[0]} x {block[1]}"
    bits, group = config.get(*_BITS), config.get(*_GROUPS)
    words = f" with {bits:g} bits" if isinstance(bits, (int, float)) else ""
    return words + (f" in groups of {group}" if words and isinstance(group, int) and group > 0 else "")


def _main_type(header: Header) -> str:
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        sizes[tensor.type] += tensor.n_bytes
    return sizes.most_common(1)[0][0].upper() if sizes else "empty"


_TILE = 16 * 16
"""Weights of one piece of an EXL3 trellis."""
_HELPER = re.compile(
    r"(_scale_inv|[._]activation_scale|\.qscale_(weight|act)|\.(weight|input|k|v|q|output)_scale|\.weight_scale_2|\.qzeros|\.scales|"
    r"\.g_idx|\.weight_(shape|zero_point|g_idx|global_scale)|\.input_global_scale|_scales|\.SCB|\.absmax|\.quant_map|\.weight_format|"
    r"\.nested_(absmax|quant_map)|\.biases|\.q_(scale|scale_max|groups|perm|invperm)|\.(suh|svh|su|sv|mcg|mul1)|\.quant_state\.bitsandbytes__\w+|\.(input|weight)_quantizer\._amax)"
)
"""Scales, zero points and tables beside quantised weights: not parameters of the model."""


def n_parameters(header: Header) -> int:
    """How many parameters the model has: packed ones count as often as they are packed, scales not at all."""
    config = Config(header)
    quantised = header.format == "safetensors" and (
        bool(config.quant_method) or any(name.endswith(suffix) for suffix, _ in _BY_SUFFIX for name in header.tensors)
    )
    if not quantised:
        return sum(tensor.n_elements for tensor in header.tensors.values())
    bits, group = config.get(*_BITS, "quantization_config.config_groups.group_0.weights.num_bits"), config.get(*_GROUPS)
    packing = _Packing(
        bits if isinstance(bits, int) and bits > 0 else 4, group if isinstance(group, int) and group > 0 else 64, header
    )
    return sum(packing.n_parameters(tensor) for tensor in header.tensors.values() if not _HELPER.search(tensor.name))


class _Packing(NamedTuple):
    """How weights are packed, besides by the names of their tensors."""

    bits: int
    group: int
    """Weights that share a scale (MLX)."""
    header: Header

    def n_parameters(self, tensor: Tensor) -> int:
        """Of one tensor."""
        shape, stem = tensor.shape, tensor.name.rpartition(".")[0]
        scales, order = (self.header.tensors.get(f"{stem}.{name}") for name in ("scales", "q_invperm"))
        if tensor.type == "u32" and scales is not None and scales.shape and shape and shape[0]:
            return tensor.n_elements // shape[0] * scales.shape[0] * self.group
        if tensor.name.endswith(".q_weight") and order is not None and shape:
            return shape[0] * order.n_elements  # rows of several widths of bits
        if tensor.name.endswith(".trellis") and len(shape) == 3:
            return shape[1] * shape[2] * _TILE
        return tensor.n_elements * _per_element(tensor, self.bits, self.header)


def _per_element(tensor: Tensor, bits: int, header: Header) -> int:
    """How many parameters one element of a packed tensor holds."""
    name = tensor.name
    if name.endswith((".qweight", ".weight_packed")):
        return (8 if tensor.type == "u8" else 32) // (4 if tensor.type == "u8" else bits)
    four_bits = name.endswith("_blocks") or f"{name}.absmax" in header.tensors or f"{name}_scale_2" in header.tensors
    packed = tensor.type in ("u8", "i8") and (four_bits or f"{name.removesuffix('.weight')}.scale" in header.tensors)
    return 2 if packed else 1


def bits_per_parameter(header: Header) -> float:
    """All bytes of the tensors, scales too, for each parameter."""
    n = n_parameters(header)
    return 8 * sum(tensor.n_bytes for tensor in header.tensors.values()) / n if n else 0.0
