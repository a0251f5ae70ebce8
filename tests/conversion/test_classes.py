"""Every class of models: the tensors and keys are those that llama.cpp's own converter wrote of a small checkpoint."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest

from conversion.conftest import recorded
from fitplug.conversion.convert import convert, quantised
from fitplug.conversion.layout import UNREAD, known_bytes

RECORDED = json.loads(
    gzip.decompress((Path(__file__).resolve().parents[2] / "fixtures/conversion/classes.json.gz").read_bytes())
)
IN_WEIGHTS = (
    "xielu.",
    "gemma3n.activation_sparsity_scale",
    "qwen4exp.ple.layer_multipliers",
    "qwen4exp.ple.head_",
    "talkie.logit_scale",
)
"""Keys whose values are read from weights, or are a quantile of what config.json says: of the right length, but not known."""


@cache
def made(name):
    """What fitplug makes of the checkpoint."""
    return convert(recorded(RECORDED[name]))


def same(said, wanted):
    """Numbers as close as 32 bits tell them apart."""
    if isinstance(said, (tuple, list)) and isinstance(wanted, (tuple, list)):
        return len(said) == len(wanted) and all(map(same, said, wanted))
    if isinstance(said, float) or isinstance(wanted, float):
        return said == pytest.approx(wanted, rel=1e-5)
    return said == wanted and isinstance(said, bool) == isinstance(wanted, bool)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_tensors_are_those_of_the_converter(name):
    """Names, types and shapes."""
    got = {key: (tensor.type, tensor.shape) for key, tensor in made(name).tensors.items()}
    assert got == {key: (kind, tuple(shape)) for key, kind, shape in RECORDED[name]["tensors"]}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_keys_are_those_of_the_converter(name):
    """All but what describes the file and the vocabulary."""
    got = {key: value for key, value in made(name).metadata.items() if not key.startswith(("tokenizer.", "general.name"))}
    wanted = RECORDED[name]["keys"]
    assert got.keys() - {"general.file_type"} == wanted.keys() - {"general.file_type"}
    differ = {
        key: (got[key], value) for key, value in wanted.items() if not same(got[key], value) and not key.startswith(IN_WEIGHTS)
    }
    assert not differ


def length(name, header):
    """Of the file: with what the converter said of the model, and without the vocabulary, which was left out there, too."""
    entry = RECORDED[name]
    keys = {key: value for key, value in header.metadata.items() if key not in UNREAD and key != "general.name"}
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in entry["card"].items()}
    n = known_bytes(keys | said, header.tensors.values())
    return -(-n // 32) * 32 + header.n_bytes - header.header_bytes


@pytest.mark.parametrize("name", sorted(name for name in RECORDED if "general.file_type" in RECORDED[name]["keys"]))
def test_the_file_is_as_long_to_the_byte(name):
    """As the converter wrote it; a few classes forget the file type, which llama-quantize then adds."""
    assert length(name, made(name)) == RECORDED[name]["n_bytes"]


@pytest.mark.parametrize("name", sorted(name for name in RECORDED if RECORDED[name]["quantised"]))
def test_the_quantised_file_is_as_long_to_the_byte(name):
    """As llama-quantize wrote it, for some file types."""
    lengths = {ftype: length(name, quantised(made(name), ftype, imatrix=False)) for ftype in RECORDED[name]["quantised"]}
    assert lengths == RECORDED[name]["quantised"]
