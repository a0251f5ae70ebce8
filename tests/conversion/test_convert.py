"""Safetensors as the GGUF that llama.cpp's own tools make of them."""

import pytest

from conversion import checkpoints
from conversion.conftest import header_of
from fitplug.conversion.classes import ROWS
from fitplug.conversion.convert import convert, customary, quantised
from fitplug.conversion.row import Row
from fitplug.conversion.stored import stored_as
from fitplug.errors import FitplugError
from fitplug.formats.ggml_types import row_size
from fitplug.model.architectures import TABLE
from fitplug.model.describe import describe


@pytest.mark.parametrize("name", sorted(checkpoints.MODELS))
def test_every_weight_is_still_there(checkpoint, name):
    """No tensor is lost or made up on the way, but for what the text model does not have and the rope's factors."""
    source, made = checkpoint(name), convert(checkpoint(name))
    other = sum(t.n_elements for k, t in source.tensors.items() if "vision" in k or "projector" in k)
    scales = sum(t.n_elements for k, t in source.tensors.items() if k.endswith("_scales"))
    packed = sum(t.n_elements for k, t in source.tensors.items() if k.endswith("_blocks"))
    extra = sum(t.n_elements for k, t in made.tensors.items() if k.startswith("rope_"))
    before = sum(t.n_elements for t in source.tensors.values()) - other - scales + packed
    assert sum(t.n_elements for t in made.tensors.values()) - extra == before


@pytest.mark.parametrize("name", sorted(checkpoints.MODELS))
def test_what_comes_out_is_a_model_that_llama_cpp_loads(checkpoint, name):
    """Its class, its layers and its vocabulary are those of config.json."""
    model = describe(checkpoint(name))
    assert model.known
    assert not model.refusals
    assert model.n_layer == checkpoints.MODELS[name]()[0].get("num_hidden_layers", 34)
    assert "safetensors" in model.assumptions[-1]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v2-lite", "gpt-oss-20b"])
def test_tensors_follow_each_other_without_gaps(checkpoint, name):
    """As gguf_init_from_file wants them; sizes are those of ggml."""
    for quant in customary(convert(checkpoint(name))):
        made, at = quantised(convert(checkpoint(name)), quant), 0
        for tensor in made.tensors.values():
            assert tensor.offset == at
            assert tensor.n_bytes == row_size(tensor.type, tensor.shape[0]) * (tensor.n_elements // tensor.shape[0])
            at += -(-tensor.n_bytes // 32) * 32
        assert made.n_bytes - made.header_bytes == at


def test_more_bits_are_more_bytes(checkpoint):
    """The quants are in order."""
    sizes = [
        quantised(convert(checkpoint("llama-3.1-8b")), quant).n_bytes
        for quant in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M")
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_quantised_checkpoints_are_unpacked_to_the_same_model(checkpoint):
    """FP8, GPTQ and compressed-tensors are other ways to store the same weights."""
    config, tensors = checkpoints.qwen3_4b()
    plain = convert(header_of(config, tensors))
    for method, change in STORED.items():
        changed = {}
        for name, shape in tensors.items():
            linear = "_proj.weight" in name
            changed |= change(name, shape) if linear else {name: shape}
        quantisation = {"quant_method": method, "bits": 4, "format": "pack-quantized",
                        "config_groups": {"group_0": {"weights": {"num_bits": 4, "strategy": "group"}}}}  # fmt: skip
        made = convert(header_of(config | {"quantization_config": quantisation}, changed))
        assert {k: t.shape for k, t in made.tensors.items()} == {k: t.shape for k, t in plain.tensors.items()}, method


STORED = {
    "fp8": lambda name, n: {name: n, f"{name}_scale_inv": (-(-n[0] // 128), -(-n[1] // 128))},
    "gptq": lambda name, n: {
        name.replace("weight", "qweight"): (n[1] // 8, n[0]), name.replace("weight", "scales"): (n[1] // 128, n[0]),
        name.replace("weight", "qzeros"): (n[1] // 128, n[0] // 8), name.replace("weight", "g_idx"): (n[1],)},
    "compressed-tensors": lambda name, n: {
        f"{name}_packed": (n[0], n[1] // 8), f"{name}_scale": (n[0], n[1] // 128), f"{name}_shape": (2,)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8 safetensors in blocks of 128 x 128"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "GPTQ safetensors with 4 bits in groups of 128"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "AWQ safetensors with 4 bits in groups of 64"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes NF4 safetensors"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes INT8 safetensors"),
        ({"quant_method": "mxfp4"}, "MXFP4 safetensors"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors pack-quantized safetensors"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4 safetensors"),
        (None, "BF16 safetensors"),
    ],
)
def test_what_it_is_stored_as_is_said(quantization, words):
    """By config.json."""
    config, tensors = checkpoints.llama(2)
    assert stored_as(header_of(config | {"quantization_config": quantization}, tensors)) == words


@pytest.mark.parametrize(
    ("suffix", "words"), [(".weight_scale_inv", "FP8"), (".weight_packed", "compressed-tensors"), (".SCB", "bitsandbytes INT8")]
)
def test_what_it_is_stored_as_is_seen_by_its_tensors(suffix, words):
    """Where config.json keeps silent."""
    config, tensors = checkpoints.llama(2)
    assert stored_as(header_of(config, tensors | {f"model.layers.0.mlp.up_proj{suffix}": (8, 8)})).startswith(words)


@pytest.mark.parametrize("method", ["awq", "bitsandbytes", "hqq"])
def test_what_the_converter_does_not_read_is_refused(method):
    """In one line that says so."""
    config, tensors = checkpoints.llama(2)
    with pytest.raises(FitplugError, match=method):
        convert(header_of(config | {"quantization_config": {"quant_method": method}}, tensors))


BROKEN = {
    "an unknown class": {"architectures": ["NobodyKnowsForCausalLM"]},
    "no class": {"architectures": []},
    "no layers": {"num_hidden_layers": 0},
    "too many layers": {"num_hidden_layers": 10**9},
    "a text for a number": {"num_hidden_layers": "many"},
    "no vocabulary": {"vocab_size": None},
    "no heads": {"num_attention_heads": None},
    "lists for numbers": {"hidden_size": [1, 2], "head_dim": None},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_a_config_that_cannot_be_is_one_line(change):
    """Never another error, whatever stands in it."""
    config, tensors = checkpoints.llama(2)
    with pytest.raises(FitplugError) as caught:
        describe(convert(header_of(config | change, tensors)))
    assert "\n" not in str(caught.value)


def test_a_tensor_that_llama_cpp_has_no_place_for_is_named():
    """Rather than left out."""
    config, tensors = checkpoints.llama(2)
    with pytest.raises(FitplugError, match=r"model\.layers\.0\.novel\.weight"):
        convert(header_of(config, tensors | {"model.layers.0.novel.weight": (8, 8)}))


def test_every_class_leads_to_an_architecture_that_llama_cpp_runs():
    """The table's names are llama.cpp's."""
    assert {row.architecture for row in ROWS.values() if isinstance(row, Row)} <= set(TABLE)


def test_a_converted_header_is_not_changed_by_quantising_it(checkpoint):
    """One conversion serves all quants."""
    made = convert(checkpoint("qwen2.5-0.5b"))
    before = dict(made.tensors)
    quantised(made, "Q4_K_M")
    assert dict(made.tensors) == before
