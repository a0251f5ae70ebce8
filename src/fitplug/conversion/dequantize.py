"""Quantised safetensors as the converter unpacks them (conversion/base.py, ModelBase.dequant_model): names and shapes only."""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.errors import FitplugError
from fitplug.formats.header import Tensor

UNPACKED = "f32"
"""Of what was quantised; the converter then writes it like all others."""
_SCALES = re.compile(
    r".*(_scale_inv|[._]activation_scale|\.qscale_(weight|act)|\.(weight|input|k|v|output)_scale|\.weight_scale_2|_scale|"
    r"\.weight_(shape|zero_point|g_idx|global_scale)|\.input_global_scale|\.qzeros|\.scales|\.g_idx)"
)
_KNOWN = {"", "fp8", "gptq", "mxfp4", "compressed-tensors", "modelopt", "bitnet"}
_UNPACKABLE = {"float-quantized", "int-quantized", "naive-quantized", "pack-quantized"}
"""Formats of compressed-tensors."""
_BITS = 32


def unpacked(tensors: Mapping[str, Tensor], config: Config) -> Iterable[Shape]:
    """Every weight under its own name, with its true shape; scales and other helpers are gone.

    Raises:
        FitplugError: llama.cpp's converter does not read this kind.
    """
    method = config.quant_method
    _check(method, config, tensors)
    bits = config.number("quantization_config.bits", default=4) if method == "gptq" else _packed_bits(config)
    for tensor in tensors.values():
        name, shape = tensor.name, tensor.shape
        if name.endswith(".qweight"):  # [in / pack, out] in HF's order
            yield Shape(name.removesuffix("qweight") + "weight", UNPACKED, (shape[1] * _BITS // bits, shape[0]))
        elif name.endswith(".weight_packed"):
            yield Shape(name.removesuffix("_packed"), UNPACKED, (shape[0] * _BITS // bits, *shape[1:]))
        elif name.endswith("_blocks"):  # (16 bytes, blocks, rows, experts) of 32 values each
            yield Shape(name.removesuffix("_blocks"), "mxfp4", (shape[0] * shape[1] * 2, *shape[2:]))
        elif not (method and _SCALES.fullmatch(name)) and not name.endswith("_scales"):
            yield Shape(name, tensor.type, shape)


def _check(method: str, config: Config, tensors: Mapping[str, Tensor]) -> None:
    packing = config.get("quantization_config.format")
    algorithm = config.get("quantization_config.quant_algo")
    known = method in _KNOWN
    if method == "compressed-tensors":
        known = packing in _UNPACKABLE
    if method == "modelopt" or algorithm is not None:
        known = algorithm == "FP8"
    if method == "gptq" and config.number("quantization_config.bits", default=4) not in (2, 4, 8):
        known = False
    if not method and any(name.endswith((".qweight", ".weight_packed", ".SCB", ".absmax")) for name in tensors):
        known, method = False, "packed weights without a quantization_config"
    if not known:
        words = " ".join(str(word) for word in (method, packing, algorithm) if word)
        raise FitplugError(f"{words}: fitplug cannot say what llama.cpp makes of it; take the model as it was before")


def _packed_bits(config: Config) -> int:
    return config.number("quantization_config.config_groups.group_0.weights.num_bits", default=4)
