"""How quantised safetensors are counted: a parameter is one however it is packed."""

import gzip
import json
from pathlib import Path

import pytest

from conversion import checkpoints
from conversion.conftest import header_of, recorded
from fitplug.conversion.convert import convert, customary, quantised
from fitplug.conversion.stored import bits_per_parameter, n_parameters, stored_as
from fitplug.errors import FitplugError
from fitplug.formats import summary

RECORDED = json.loads(
    gzip.decompress((Path(__file__).resolve().parents[2] / "fixtures/conversion/classes.json.gz").read_bytes())
)
STORED = sorted(name for name in RECORDED if name.startswith("stored"))


def source(name):
    """The checkpoint's header."""
    return recorded(RECORDED[name])


@pytest.mark.parametrize("name", STORED)
def test_a_packed_checkpoint_has_as_many_parameters_as_llama_cpp_unpacks(name):
    """Scales are none, in the checkpoint as in the GGUF."""
    made = convert(source(name))
    weights = sum(t.n_elements for t in made.tensors.values() if not t.name.endswith(("scale",)))
    assert n_parameters(source(name)) == weights


def bitsandbytes(name, n, *, four_bits):
    """As bitsandbytes stores a weight."""
    size = n[0] * n[1]
    if four_bits:
        return {name: ("U8", (size // 2, 1)), f"{name}.absmax": ("U8", (size // 64,)), f"{name}.quant_map": ("F32", (16,)),
                f"{name}.nested_absmax": ("F32", (size // 16384,)), f"{name}.nested_quant_map": ("F32", (256,)),
                f"{name}.quant_state.bitsandbytes__nf4": ("U8", (100,))}  # fmt: skip
    return {
        name: ("I8", n),
        name.replace("weight", "SCB"): ("F32", (n[0],)),
        name.replace("weight", "weight_format"): ("U8", ()),
    }


def awq(name, n):
    """Four bits in 32, columns first."""
    stem = name.removesuffix("weight")
    return {f"{stem}qweight": ("I32", (n[1], n[0] // 8)), f"{stem}qzeros": ("I32", (n[1] // 128, n[0] // 8)),
            f"{stem}scales": ("F16", (n[1] // 128, n[0]))}  # fmt: skip


def mlx(name, n):
    """Three bits, across the borders of words; scales and biases of groups of 64."""
    stem = name.removesuffix("weight")
    return {name: ("U32", (n[0], n[1] * 3 // 32)), f"{stem}scales": ("BF16", (n[0], n[1] // 64)),
            f"{stem}biases": ("BF16", (n[0], n[1] // 64))}  # fmt: skip


def exl2(name, n):
    """Rows of several widths, sorted by their weight."""
    stem = name.removesuffix("weight")
    return {f"{stem}q_weight": ("I32", (n[1] // 8 + 7, n[0])), f"{stem}q_scale": ("I32", (n[1] // 128, n[0] // 8)),
            f"{stem}q_scale_max": ("F16", (n[1] // 128,)), f"{stem}q_groups": ("I16", (n[1] // 64,)),
            f"{stem}q_invperm": ("I32", (n[1],))}  # fmt: skip


def exl3(name, n):
    """A trellis of tiles, and signs for rows and columns."""
    stem = name.removesuffix("weight")
    return {
        f"{stem}trellis": ("I16", (n[1] // 16, n[0] // 16, 48)),
        f"{stem}suh": ("F16", (n[1],)),
        f"{stem}svh": ("F16", (n[0],)),
    }


OTHERS = {
    "bitsandbytes in 4 bits": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        lambda k, n: bitsandbytes(k, n, four_bits=True),
    ),
    "bitsandbytes in 8 bits": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        lambda k, n: bitsandbytes(k, n, four_bits=False),
    ),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, awq),
    "exl2": ({"quant_method": "exl2", "bits": 4.25}, exl2),
    "exl3": ({"quant_method": "exl3", "bits": 3.0}, exl3),
}


@pytest.mark.parametrize(("quantization", "change"), OTHERS.values(), ids=OTHERS.keys())
def test_what_the_converter_does_not_read_is_counted_all_the_same(quantization, change):
    """And refused as GGUF in words that name it."""
    config, tensors = checkpoints.llama(2, 512, 1024, 8, 8, 64, 1024)
    changed = {}
    for name, shape in tensors.items():
        changed |= change(name, shape) if "_proj.weight" in name else {name: shape}
    header = header_of(config | {"quantization_config": quantization}, changed)
    plain = header_of(config, tensors)
    assert n_parameters(header) == n_parameters(plain) == sum(t.n_elements for t in plain.tensors.values())
    assert bits_per_parameter(header) < bits_per_parameter(plain) == 16
    with pytest.raises(FitplugError, match=quantization["quant_method"]):
        convert(header)


def test_mlx_is_known_by_its_own_key():
    """It stands beside the model's own, and there may be no other."""
    config, tensors = checkpoints.llama(2, 512, 1024, 8, 8, 64, 1024)
    changed = {}
    for name, shape in tensors.items():
        changed |= mlx(name, shape) if len(shape) == 2 else {name: shape}
    header = header_of(config | {"quantization": {"group_size": 64, "bits": 3}}, changed)
    assert n_parameters(header) == sum(t.n_elements for t in header_of(config, tensors).tensors.values())
    assert stored_as(header) == "MLX safetensors with 3 bits in groups of 64"
    with pytest.raises(FitplugError, match=r"^mlx: .* does not read this"):
        convert(header)


REFUSED = {
    "FP8 with static scales and no method that reads them": {"quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {"weights": {"strategy": "tensor", "num_bits": 8}}}},
    "two groups": {"quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {f"group_{i}": {"weights": {"strategy": "channel", "num_bits": 8}} for i in range(2)}},
    "three bits": {"quant_method": "gptq", "bits": 3},
    "MXFP4 of another class": {"quant_method": "mxfp4"},
    "no such format": {"quant_method": "compressed-tensors", "format": "marlin-24"},
}  # fmt: skip


@pytest.mark.parametrize("quantization", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_converter_asserts_is_asked_of_config_json(quantization):
    """ModelBase.dequant_model stops at these."""
    config, tensors = checkpoints.llama(2)
    with pytest.raises(FitplugError, match="converter does not read"):
        convert(header_of(config | {"quantization_config": quantization}, tensors))


def test_nvfp4_is_left_as_it_is():
    """llama-quantize has no such file type and does not quantise it again."""
    made = convert(source("stored in NVFP4"))
    assert customary(made) == ("NVFP4",)
    assert quantised(made, "NVFP4") is made
    assert "nvfp4" in {share.type for share in summary.by_type(made)}
    with pytest.raises(FitplugError, match="NVFP4"):
        quantised(made, "Q4_K_M")
