"""Types of every architecture's tensors: held to llama-quantize's dry runs, of all file types, with and without an imatrix."""

import importlib.util
import json
from pathlib import Path

import pytest

from fitplug.conversion.convert import facts_of
from fitplug.conversion.quantize import Shape, tensor_types
from fitplug.errors import FitplugError
from truth_support import header

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "quantize"
RECORDED = json.loads((FOLDER / "archs.json").read_text())


def script(name):
    """One of those beside the fixture."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORD, ARCHS = script("record"), script("record_archs")


def digest(tensors, facts, choice):
    """Of what fitplug gives each tensor; empty where it refuses."""
    try:
        types = tensor_types([Shape(*tensor) for tensor in tensors], facts, choice.rstrip("+"), imatrix=choice.endswith("+"))
    except FitplugError:
        return ""
    return RECORD.digest({name: kind.lower() for name, kind in types.items()})[:8]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_tensor_has_the_type_that_llama_quantize_gives_it(name):
    """In the model as it is, with eight experts, few heads, odd rows, or tied embeddings."""
    variants = ARCHS.variants(name, header(f"tiny/{name}", ""))
    for variant, said in RECORDED[name].items():
        keys, tensors = variants[variant]
        assert {choice: digest(tensors, facts_of(keys), choice) for choice in said} == said, variant
