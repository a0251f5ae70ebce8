"""Quantised safetensors as the converter unpacks them (conversion/base.py, ModelBase.dequant_model and prepare_tensors).

Only names and shapes. A method is a row: which tensors it packs a weight in, which it needs beside them, and what must be in
config.json for the converter to read it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.errors import FitplugError
from fitplug.formats.header import Header, Tensor

UNPACKED = "f32"
"""Of what was quantised; the converter then writes it like all others."""
_BITS = 32
_FIRST = "quantization_config.config_groups.group_0.weights."


class Method(NamedTuple):
    """One way to store quantised weights."""

    helpers: str = ""
    """What the names of tensors end in that the converter uses up or leaves out."""
    packed: tuple[tuple[str, str], ...] = ()
    """A pattern for the names of packed weights, and what stands there once they are unpacked."""
    shape: Callable[[tuple[int, ...], int], tuple[int, ...]] = lambda shape, _: shape
    """The weight's shape, of the packed one's and the number of bits."""
    type: str = UNPACKED
    reads: Callable[[Config], bool] = lambda _: True
    """Whether the converter reads this one."""


def _strategy(*known: str) -> Callable[[Config], bool]:
    """The converter asserts these (of the first group)."""
    return lambda config: config.get(f"{_FIRST}strategy") in known


def is_nvfp4(config: Config) -> bool:
    """Whether it is stored in NVFP4 by config.json (prepare_tensors)."""
    algorithm, packing = config.get("quantization_config.quant_algo"), config.get("quantization_config.format")
    groups = [kind for kind in config.children("quantization_config.config_groups") if config.has(f"{kind}.format")]
    by_group = (
        packing == "mixed-precision"
        and bool(groups)
        and all(config.get(f"{kind}.format") == "nvfp4-pack-quantized" for kind in groups)
    )
    layers = config.leaves("quantization_config.quantized_layers", "quant_algo")
    compressed = config.quant_method == "compressed-tensors" and (packing == "nvfp4-pack-quantized" or by_group)
    return algorithm in ("NVFP4", "W4A16_NVFP4") or compressed or any(str(one).endswith("NVFP4") for one in layers)


_FP8 = Method(r"_scale_inv|[._]activation_scale|\.qscale_(weight|act)")
_COMPRESSED = Method(r"\.weight_scale", reads=_strategy("channel", "block"))
_PACKED = Method(
    r"\.weight_(scale|shape|zero_point)", packed=(("weight_packed$", "weight"),), reads=_strategy("group"),
    shape=lambda n, bits: (n[0] * _BITS // bits, *n[1:]),
)  # fmt: skip
METHODS: Mapping[str, Method] = {
    "": Method(),
    "fp8": _FP8,
    "bitnet": Method(r"\.weight_scale"),
    "gptq": Method(
        r"\.(g_idx|qzeros|scales)", packed=(("qweight$", "weight"),), shape=lambda n, bits: (n[1] * _BITS // bits, n[0]),
        reads=lambda config: config.number("quantization_config.bits", default=4) in (2, 4, 8),
    ),
    "modelopt": Method(r"\.(weight_scale|input_scale|k_scale|v_scale)"),
    "mxfp4": Method(
        "_scales", packed=(("_blocks$", ""),), shape=lambda n, _: (n[0] * n[1] * 2, *n[2:]), type="mxfp4",
        reads=lambda config: config.architecture == "GptOssForCausalLM",
    ),
    "compressed-tensors float-quantized": _COMPRESSED,
    "compressed-tensors int-quantized": _COMPRESSED,
    "compressed-tensors naive-quantized": _COMPRESSED,
    "compressed-tensors pack-quantized": _PACKED,
}  # fmt: skip
"""By quant_method, and the format of compressed-tensors."""
NVFP4 = Method(
    r"\.(weight_scale|weight_scale_2|weight_global_scale|input_scale|input_global_scale|k_scale|v_scale)",
    packed=(("weight_packed$", "weight"),), shape=lambda n, _: (n[0] * 2, *n[1:]), type="nvfp4",
)  # fmt: skip
_SIGNS = (".qweight", ".weight_packed", ".SCB", ".absmax", ".weight_scale_2", "_blocks", ".trellis")
_WHOLE_NUMBERS = ".q_weight"
"""EXL2's; PLaMo 2 has norms that are called so."""


def unpacked(header: Header, config: Config, own: Method | None = None) -> Iterable[Shape]:
    """Every weight under its own name, with its true shape; scales and other helpers are gone.

    Args:
        header: the checkpoint's.
        config: its config.json.
        own: how the class itself reads this checkpoint, where it does not leave that to all classes' common way.

    Raises:
        FitplugError: llama.cpp's converter does not read this kind.
    """
    if own is None and is_nvfp4(config):
        yield from _nvfp4(header.tensors)
        return
    method = own or _method(config, header.tensors)
    bits = max(1, config.number("quantization_config.bits", f"{_FIRST}num_bits", default=4))
    helpers = re.compile(f"({method.helpers})$") if method.helpers else None
    for tensor in header.tensors.values():
        name, shape = tensor.name, tensor.shape
        packing = next((pair for pair in method.packed if re.search(pair[0], name)), None)
        if packing is not None:
            yield Shape(re.sub(*packing, name), method.type, _checked(name, shape, method, bits))
        elif helpers is None or not helpers.search(name):
            yield Shape(name, tensor.type, _bitnet(shape, tensor.type) if config.quant_method == "bitnet" else shape)


def _checked(name: str, shape: tuple[int, ...], method: Method, bits: int) -> tuple[int, ...]:
    if len(shape) < 2:
        raise FitplugError(f"{name[:80]} is no packed matrix: the checkpoint is not what its config.json says")
    return method.shape(shape, bits)


def _bitnet(shape: tuple[int, ...], type_: str) -> tuple[int, ...]:
    """Four ternary rows lie in one of bytes."""
    return (*shape[:-1], shape[-1] * 4) if type_ == "u8" and len(shape) > 1 else shape


def _method(config: Config, tensors: Mapping[str, Tensor]) -> Method:
    words = [config.quant_method, config.get("quantization_config.format"), config.get("quantization_config.quant_algo")]
    key = " ".join(str(word) for word in words[: 2 if words[0] == "compressed-tensors" else 1] if word)
    method = METHODS.get(key)
    exl2 = any(name.endswith(_WHOLE_NUMBERS) and tensor.type == "i32" for name, tensor in tensors.items())
    if not key and (exl2 or any(name.endswith(_SIGNS) for name in tensors)):
        method, words = None, ["packed weights without a quantization_config"]
    if words[0] == "compressed-tensors" and len(config.children("quantization_config.config_groups")) > 1:
        method = None
    if method is None or not method.reads(config):
        name = " ".join(str(word) for word in words if word)
        raise FitplugError(f"{name}: llama.cpp's converter does not read this; take the model as it was before")
    return method


def _nvfp4(tensors: Mapping[str, Tensor]) -> Iterable[Shape]:
    """NVFP4 stays what it is, with a scale for each tensor or expert; what has a vector of scales is unpacked."""
    for tensor in tensors.values():
        name, shape = tensor.name, tensor.shape
        base = name.removesuffix("_packed") if name.endswith(".weight_packed") else name
        scale = tensors.get(f"{base}_scale") if base.endswith(".weight") else None
        if scale is not None and len(scale.shape) > 1:
            stem = base.removesuffix(".weight")
            yield Shape(base, NVFP4.type, NVFP4.shape(shape, 4))
            for ours, theirs in (
                ("scale", ("weight_scale_2", "weight_global_scale")),
                ("input_scale", ("input_scale", "input_global_scale")),
            ):
                if any(f"{stem}.{other}" in tensors for other in theirs):
                    yield Shape(f"{stem}.{ours}", UNPACKED, ())
        elif not re.search(f"({NVFP4.helpers})$", name):
            yield Shape(name, UNPACKED if scale is not None else tensor.type, shape)
